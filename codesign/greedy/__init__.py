"""Greedy mixed precision: widths of weights and activations by a score of performance and compressibility."""
