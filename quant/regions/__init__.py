"""Two-region quantizers of values after GELU and softmax: codes, the choice of their ratio, and untied steps."""
