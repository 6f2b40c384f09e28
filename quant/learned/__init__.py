"""Learned scales and widths: Q-ViT (Li et al. 2022, arXiv 2201.07703), quantization with head-wise bits by gradient."""
