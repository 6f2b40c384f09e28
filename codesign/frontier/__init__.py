"""Pareto-frontier bit allocation: all choices of widths that no other one beats, and the one that a budget takes."""
