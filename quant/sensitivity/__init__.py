"""Sensitivity tables: how much each component of a network suffers from few bits, by proxies and as measured.

`quant.sensitivity.table` needs no torch, so that allocators can read tables without it; `quant.sensitivity.measure`
makes them; `quant.sensitivity.metrics` has one metric per file.
"""
