"""Maps of non-linear methods on an accelerator: what they cost, and the best one within a budget."""
