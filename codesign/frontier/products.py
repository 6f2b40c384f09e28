"""Components that are products: one width for a layer's filters and the tensors it reads.

A product is an op of an array engine (`quant.sensitivity.components`, kind "product"): its filters and the stored
tensors that it is the first to read.  In a transformer block: qkv with LayerNorm's output; QKᵀ with the output of qkv,
so V has that width too; AV with softmax's output; proj, fc1 and fc2 with their inputs.  The image keeps 8 bits.
Products whose tensors must share a format (a view joins them, a ReLU passes codes on: `activation_groups`) are one
component; it is named after the first, and its error is the sum of theirs.  That bits are chosen for these is an
interpretation of PMQ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from accelsim.problems import AccelsimError, Problem
from codesign.greedy.mixed import ACTIVATION, WEIGHT, MixedNetwork
from codesign.greedy.trajectory import Component, State
from quant.sensitivity.components import components
from quant.sensitivity.table import PRODUCT
from quant.structure import MULTIPLYING

if TYPE_CHECKING:
    from accelsim.plan import QuantPlan
    from quant.calibrated import Checkpoint


@dataclass(frozen=True)
class Product:
    """A component of the search: the sensitivity components (`members`) and the mixed network's (by number) in it."""

    component: Component
    members: tuple[str, ...]
    parts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ProductNetwork:
    """A mixed network whose components are products, or where only filters have widths, layers.

    States have one width per component; `mixed_cost` is the cost of the mixed network's states.  Raises AccelsimError
    where filters and tensors have different widths to choose from, or tensors that no product reads have some.
    """

    mixed: MixedNetwork
    mixed_cost: Callable[[State], float]

    def __post_init__(self) -> None:
        settings = self.mixed.settings
        if settings.kinds != (WEIGHT,) and settings.weight_widths != settings.activation_widths:
            what = f"filters have {settings.weight_widths}, tensors {settings.activation_widths}"
            raise AccelsimError(Problem("widths of products", what, "the same widths"))
        if settings.full or not settings.ends or WEIGHT not in settings.kinds:
            raise AccelsimError(Problem("components", "are not all products", "full off, ends on, kinds with weights"))

    @property
    def kind(self) -> str:
        """The kind of the sensitivity components: "product", or "weight" where tensors keep their widths."""
        return PRODUCT if ACTIVATION in self.mixed.settings.kinds else WEIGHT

    @cached_property
    def products(self) -> tuple[Product, ...]:
        """The components, in order of execution."""
        found = components(self.mixed.network, (self.kind,))
        of_layer = {op: number for number, one in enumerate(found) for op, _ in one.layers}
        of_tensor = {op: number for number, one in enumerate(found) for op, _ in one.stored}
        first = list(range(len(found)))  # number of the first member of everyone's component
        owner = []
        for part in self.mixed.parts:
            of_kind = of_layer if part.kind == WEIGHT else of_tensor
            met = [first[of_kind[op]] for op in part.ops if op in of_kind]
            first = [min(met) if one in met else one for one in first]
            owner.append(of_kind[next(op for op in part.ops if op in of_kind)])
        return tuple(
            Product(
                Component(found[number].name, self.mixed.settings.weight_widths),
                tuple(one.name for k, one in enumerate(found) if first[k] == number),
                tuple(k for k, one in enumerate(owner) if first[one] == number),
            )
            for number in dict.fromkeys(sorted(first[one] for one in owner))
        )

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The components' names and widths."""
        return tuple(one.component for one in self.products)

    @cached_property
    def coupled(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the components that meet in a product of two widths: over these groups bit operations add up.

        QKᵀ and AV are a group (AV reads V); a component that meets no other is a group of its own.
        """
        workload = self.mixed.network.workload
        owner = {
            (self.mixed.parts[k].kind, op): number
            for number, one in enumerate(self.products)
            for k in one.parts
            for op in self.mixed.parts[k].ops
        }
        group = list(range(len(self.products)))
        maker = {op.output: op.name for op in workload.ops}
        for node in self.mixed.network.nodes:
            if node.function not in MULTIPLYING:
                continue
            read = [maker.get(name, "") for operand in node.operands for name in workload.storage_of(operand.source)]
            keys = [(WEIGHT, node.name), *((ACTIVATION, name) for name in read)]
            met = {group[owner[key]] for key in keys if key in owner}
            group = [min(met) if one in met else one for one in group]
        return tuple(tuple(k for k, one in enumerate(group) if one == first) for first in dict.fromkeys(group))

    def expanded(self, state: State) -> State:
        """The mixed network's state: each component's width for all its parts."""
        widths = {k: bits for one, bits in zip(self.products, state, strict=True) for k in one.parts}
        return tuple(widths[k] for k in range(len(self.mixed.parts)))

    def cost(self, state: State) -> float:
        """What a state costs.  Raises InfeasibleError for one that cannot be had."""
        return self.mixed_cost(self.expanded(state))

    def plan(self, state: State) -> QuantPlan:
        """The plan of a state."""
        return self.mixed.plan(self.expanded(state))

    def checkpoint(self, state: State) -> Checkpoint:
        """The calibrated checkpoint of a state."""
        return self.mixed.checkpoint(self.expanded(state))
