"""Templates: accelerators made from a flat set of parameters.  One file each; `@template(NAME, …)` makes one known."""
