"""Design-space sweeps, the study store, fronts, pictures and the command line."""
