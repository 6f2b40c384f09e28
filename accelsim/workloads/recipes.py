"""Vector-unit recipes: how many operations of which kind every non-matrix op needs, per element and per row.

Counting convention.  A requantization is one multiply, one add (rounding) and one shift per element,
`(x·M + 2^(s−1)) >> s`; a clamp to the output range is two compares.  Accumulating a sum is one add per element, a table
lookup one table access.  All recipes use the geometry `groups × rows_h × rows_w × width` of `Recipe`; a row is the
`width` elements of one group and position.  `tiles_groups` is set where groups are heads or channels (groups > 1).
"""

from __future__ import annotations

from accelsim.ir import Recipe, VectorKind, VectorPass
from accelsim.problems import AccelsimError, Problem

Counts = tuple[tuple[VectorKind, int], ...]

REQUANTIZE: Counts = ((VectorKind.MUL, 1), (VectorKind.ADD, 1), (VectorKind.SHIFT, 1))
CLAMP: Counts = ((VectorKind.COMPARE, 2),)
DIVISION_METHODS: tuple[str, ...] = ("divide", "log2_shift")


def merged(*parts: Counts) -> Counts:
    """Sum of several count lists, one entry per kind, in order of first appearance."""
    totals: dict[VectorKind, int] = {}
    for part in parts:
        for kind, count in part:
            totals[kind] = totals.get(kind, 0) + count
    return tuple(totals.items())


def _recipe(name: str, passes: tuple[VectorPass, ...], groups: int, rows_h: int, rows_w: int, width: int) -> Recipe:
    return Recipe(name, passes, groups, rows_h, rows_w, width, tiles_rows=True, tiles_groups=groups > 1)


def residual_add(groups: int, rows_h: int, rows_w: int, width: int) -> Recipe:
    """Sum of two tensors with different scales: two requantizations, one add, one clamp per element."""
    step = VectorPass(merged(REQUANTIZE, REQUANTIZE, ((VectorKind.ADD, 1),), CLAMP))
    return _recipe("residual_add", (step,), groups, rows_h, rows_w, width)


def elementwise_add(groups: int, rows_h: int, rows_w: int, width: int) -> Recipe:
    """Add a stored constant (position embedding): requantize the streamed operand, add, clamp.

    The constant is stored in the scale of the output, so it needs no requantization of its own.
    """
    step = VectorPass(merged(REQUANTIZE, ((VectorKind.ADD, 1),), CLAMP))
    return _recipe("elementwise_add", (step,), groups, rows_h, rows_w, width)


def relu(groups: int, rows_h: int, rows_w: int, width: int) -> Recipe:
    """max(x, 0): one compare per element; the scale does not change."""
    return _recipe("relu", (VectorPass(((VectorKind.COMPARE, 1),)),), groups, rows_h, rows_w, width)


def lookup(function: str, groups: int, rows_h: int, rows_w: int, width: int) -> Recipe:
    """An activation function that follows no product: one table access per element."""
    return _recipe(function, (VectorPass(((VectorKind.TABLE, 1),)),), groups, rows_h, rows_w, width)


def division(groups: int, rows_h: int, rows_w: int, width: int, method: str = "log2_shift") -> Recipe:
    """Linear attention's division of each row's `width` numerators by the row's divisor.

    "divide": one true division and one requantization (with clamp) per element.  "log2_shift": the divisor is rounded
    to a power of two once per row: finding the leading one and looking at the bit below it is counted as one compare
    and one shift; then one shift and one requantization (with clamp) per element.
    Raises AccelsimError for another method.
    """
    output = merged(REQUANTIZE, CLAMP)
    if method == "divide":
        step = VectorPass(merged(((VectorKind.DIVISION, 1),), output))
    elif method == "log2_shift":
        leading_one: Counts = ((VectorKind.COMPARE, 1), (VectorKind.SHIFT, 1))
        step = VectorPass(merged(((VectorKind.SHIFT, 1),), output), leading_one)
    else:
        raise AccelsimError(
            Problem("plan: division", f"unknown division method {method!r}", " or ".join(DIVISION_METHODS))
        )
    return _recipe(f"division_{method}", (step,), groups, rows_h, rows_w, width)


def division_recipe(base: Recipe, method: str) -> Recipe:
    """The division recipe with the geometry of `base` and another method (see `division`)."""
    return division(base.groups, base.rows_h, base.rows_w, base.width, method)


def attention_normalize(groups: int, rows_h: int, rows_w: int, width: int) -> Recipe:
    """Quadratic ReLU attention: divide each row of scores by its sum.

    Pass 1 sums the row (one add per element) and takes one reciprocal per row (one division); pass 2 multiplies, rounds
    and shifts.  A share of its row's sum is at most one, so no clamp is needed.
    """
    passes = (VectorPass(((VectorKind.ADD, 1),), ((VectorKind.DIVISION, 1),)), VectorPass(REQUANTIZE))
    return _recipe("attention_normalize", passes, groups, rows_h, rows_w, width)


def average_pool(channels: int, positions: int) -> Recipe:
    """Global average: one add per element; one multiply, add, shift and clamp per channel.

    Geometry: a row is all positions of one channel (groups = channels, one row, width = positions), so that `per_row`
    counts run exactly once per output.  The output has one element per group; it may be cut along channels only.
    """
    step = VectorPass(((VectorKind.ADD, 1),), merged(REQUANTIZE, CLAMP))
    return Recipe(
        "average_pool", (step,), channels, 1, 1, positions, tiles_rows=False, tiles_groups=True, reduces_rows=True
    )


def softmax(groups: int, rows_h: int, rows_w: int, width: int) -> Recipe:
    """Softmax over rows of `width` scores in three passes.

    Pass 1: maximum (one compare).  Pass 2: subtract it (one add), exponential (one table), sum (one add); one division
    per row for the reciprocal of the sum.  Pass 3: scale (one multiply, one shift).
    """
    passes = (
        VectorPass(((VectorKind.COMPARE, 1),)),
        VectorPass(((VectorKind.ADD, 2), (VectorKind.TABLE, 1)), ((VectorKind.DIVISION, 1),)),
        VectorPass(((VectorKind.MUL, 1), (VectorKind.SHIFT, 1))),
    )
    return _recipe("softmax", passes, groups, rows_h, rows_w, width)


def layernorm(rows: int, width: int, table_after: str = "") -> Recipe:
    """LayerNorm over `rows` rows of `width` elements in two passes.

    Pass 1: sum and sum of squares (two adds, one multiply); per row the mean, the variance and the reciprocal square
    root (two multiplies, one shift, one table).  Pass 2: subtract the mean, multiply by the row's factor and the
    channel's gain, add the channel's offset, shift, clamp.  `table_after` names a function (hardswish) that the same
    pass applies by one table access per element.
    """
    normalize: Counts = ((VectorKind.ADD, 2), (VectorKind.MUL, 2), (VectorKind.SHIFT, 1))
    lookup: Counts = ((VectorKind.TABLE, 1),) if table_after else ()
    passes = (
        VectorPass(
            ((VectorKind.ADD, 2), (VectorKind.MUL, 1)),
            ((VectorKind.TABLE, 1), (VectorKind.MUL, 2), (VectorKind.SHIFT, 1)),
        ),
        VectorPass(merged(normalize, CLAMP, lookup)),
    )
    name = f"layernorm_{table_after}" if table_after else "layernorm"
    return _recipe(name, passes, 1, rows, 1, width)


def bias_add(groups: int, rows_h: int, rows_w: int, width: int) -> Recipe:
    """Add a learned relative-position bias to scores: fetch it from its table (one table), requantize, add, clamp.

    The bias is stored in the scale of the output; a mask of shifted windows is part of the value that is fetched.
    """
    step = VectorPass(merged(((VectorKind.TABLE, 1),), REQUANTIZE, ((VectorKind.ADD, 1),), CLAMP))
    return _recipe("bias_add", (step,), groups, rows_h, rows_w, width)


def pool_mixer(channels: int, rows_h: int, rows_w: int) -> Recipe:
    """γ·mean₃ₓ₃(x) + (1 − γ)·x: eight adds for the window sum, two requantizations (they hold γ), one add, clamp.

    Cut along channels only, so that no tile needs rows of another; every element is read once into the window.
    """
    step = VectorPass(merged(((VectorKind.ADD, 8),), REQUANTIZE, REQUANTIZE, ((VectorKind.ADD, 1),), CLAMP))
    return Recipe("pool_mixer", (step,), channels, rows_h, rows_w, 1, tiles_rows=False, tiles_groups=True)


def gate(channels: int, rows_h: int, rows_w: int, table_after: str = "") -> Recipe:
    """Multiply every channel by its own factor (squeeze and excitation): one multiply, requantize, clamp per element.

    The second operand has one element per channel, so the recipe is cut along channels only.  `table_after` names a
    function that the same pass applies by one table access.
    """
    lookup: Counts = ((VectorKind.TABLE, 1),) if table_after else ()
    step = VectorPass(merged(((VectorKind.MUL, 1),), REQUANTIZE, CLAMP, lookup))
    name = f"gate_{table_after}" if table_after else "gate"
    return Recipe(name, (step,), channels, rows_h, rows_w, 1, tiles_rows=False, tiles_groups=True)
