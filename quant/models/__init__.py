"""Torch models whose captured Workload equals the torch-free builder of the same name."""
