"""Random search: a seeded sample of the grid without repetition, the yardstick of the others."""

from __future__ import annotations

import math
import random

import numpy as np

from codesign.searchers.registry import Floats, Genes, Setup, searcher


@searcher("random")
class UniformRandom:
    """Draws every design with the same probability, none twice."""

    def __init__(self, setup: Setup) -> None:
        self._sizes = setup.variables.sizes
        self._population = setup.population
        self._random = random.Random(setup.seed)
        self._drawn: set[int] = set()

    def ask(self) -> Genes:
        """The next designs; no rows when the grid is used up."""
        grid = math.prod(self._sizes)
        designs: list[int] = []
        while len(designs) < min(self._population, grid - len(self._drawn) + len(designs)):
            design = self._random.randrange(grid)
            if design not in self._drawn:
                self._drawn.add(design)
                designs.append(design)
        genes = np.empty((len(designs), len(self._sizes)), np.int64)
        for row, design in enumerate(designs):
            for column in reversed(range(len(self._sizes))):
                design, genes[row, column] = divmod(design, self._sizes[column])
        return genes

    def tell(self, genes: Genes, objectives: Floats, violations: Floats) -> None:
        """Learns nothing."""
