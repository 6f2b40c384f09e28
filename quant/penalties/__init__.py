"""Predicted loss of quantization choices: of every filter, group of activations and division method, in nats.

`quant.penalties.table` and `quant.penalties.activation_groups` need no torch, so that allocators can read tables
without it; `quant.penalties.measure` makes tables from a trained network, `quant.penalties.weights_only` without data.
"""
