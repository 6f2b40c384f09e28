"""Quantization for the simulator: so far the integer level sets of the number formats (`quant.levels`)."""
