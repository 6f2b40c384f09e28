"""Methods of the non-linear operations: programs of the vector unit, and the recipes that they cost."""
