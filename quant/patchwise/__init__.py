"""Patch-wise bits: tokens ranked by importance, the important ones in full, the others in fewer bits.

docs/patchwise.md has the arithmetic.  An interpretation of PMQ (Xiao et al. 2023, arXiv 2305.06559), which says that
patches get different widths and not how.
"""
