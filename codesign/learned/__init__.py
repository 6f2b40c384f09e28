"""Learned widths on a target accelerator: budgets of simulated cost, and the command that trains within them."""
