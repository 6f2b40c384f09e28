"""Steps of softmax, LayerNorm and computed activations: the method that the plan names, in integers."""

from __future__ import annotations

from accelsim.nonlinear.methods import TABLE, function_of
from quant.integer.build_vector import activation as table_activation
from quant.integer.graph import Compiler, builds, float_island
from quant.integer.steps import Nonlinear, Step
from quant.network import Node
from quant.nonlinear.hardware import unit_program
from quant.nonlinear.ops import Codes, integer_function
from quant.regions.codes import nearest_region


@builds("softmax", "layernorm")
def normalizing(compiler: Compiler, node: Node) -> Step:
    """The method's integers; without a method, or with an activation after it, a float island."""
    if not compiler.method(node) or node.settings.get("activation"):
        return float_island(compiler, node)
    return _computed(compiler, node)


@builds("activation")
def activation(compiler: Compiler, node: Node) -> Step:
    """The method's integers; without a method, or with the method "table", what is looked up."""
    return table_activation(compiler, node) if compiler.method(node) in ("", TABLE) else _computed(compiler, node)


def _computed(compiler: Compiler, node: Node) -> Step:
    scale, zero = compiler.single(node, 0)
    source = Codes(float(scale), int(zero), *compiler.range(node, 0))
    factors = compiler.checkpoint.factors.get(node.name)
    asked = (function_of(node.op.recipe), compiler.method(node), node, source, compiler.output(node), factors)
    regions = compiler.regions(node)
    unit_program(*asked, regions)  # refuses constants that leave the widths that the method is priced for
    steps = integer_function(*asked)
    return Nonlinear(node, (lambda codes: nearest_region(steps(codes), regions)) if regions else steps)
