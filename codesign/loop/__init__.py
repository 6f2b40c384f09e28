"""The co-design loop: one command from a network to measured designs, with baselines, bounds and a page."""
