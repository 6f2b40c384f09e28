"""Random small workloads, built through the builder, and workloads with broken fields."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from accelsim.ir import Loop, OpKind, Tensor, Workload
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder, check_workload

ACTIVATIONS = ("", "", "relu", "hardswish", "gelu", "silu", "sigmoid")
CLASSES = ("conv", "dw", "pw", "gconv", "fc", "qkv", "proj", "mlp")
BAD_NUMBERS: tuple[Any, ...] = (
    0, -1, -7, 1.5, float("nan"), float("inf"), None, "3", True, 2**31, 2**40, 2**62, 2**63, 2**64, 10**30,
)  # fmt: skip


class _Net:
    """Grows a network op by op; `tokens` says whether the newest tensor is a list of rows."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.net = WorkloadBuilder("fuzz", rng.choice([1, 2, 3, 5, 7, 8, 12, 16, 24]), rng.choice([1, 2, 3, 4, 8]))
        self.tip = self.net.input
        self.made: list[str] = [self.net.input]

    def name(self, kind: str) -> str:
        return f"{kind}{len(self.made)}"

    def take(self, output: str) -> None:
        self.tip = output
        self.made.append(output)

    def conv(self) -> None:
        rng, given = self.rng, self.net.tensor(self.tip)
        kernel = rng.choice([1, 1, 1, 2, 3, 3, 5, 7])
        padding = rng.choice([None, None, 0, kernel // 2, rng.randint(0, 3)])
        pad = kernel // 2 if padding is None else padding
        if min(given.h, given.w) + 2 * pad < kernel:
            kernel, padding = 1, 0
        groups = rng.choice(
            [1, 1, given.channels, *(d for d in range(1, given.channels + 1) if given.channels % d == 0)]
        )
        self.take(
            self.net.conv(
                self.name("c"), rng.choice(CLASSES), self.tip, groups * rng.choice([1, 1, 2, 3, 5, 8, 17]),
                kernel=kernel, stride=rng.choice([1, 1, 1, 2, 3]), padding=padding, groups=groups,
                bias=rng.random() < 0.5, norm=rng.random() < 0.3, input_norm=rng.random() < 0.1,
                activation=rng.choice(ACTIVATIONS),
            )
        )  # fmt: skip

    def depthwise(self) -> None:
        rng, given = self.rng, self.net.tensor(self.tip)
        kernel = rng.choice([3, 5])
        self.take(
            self.net.conv(
                self.name("d"), "dw", self.tip, given.channels, kernel=kernel, stride=rng.choice([1, 1, 2]),
                groups=given.channels, norm=rng.random() < 0.5, activation=rng.choice(ACTIVATIONS),
            )
        )  # fmt: skip

    def linear(self) -> None:
        rows = self.net.tensor(self.tip)
        name = self.name("l")
        channels = self.rng.choice([1, 3, 8, 16, 33, 64])
        self.take(self.net.conv(name, self.rng.choice(CLASSES), self.tip, channels, bias=True))
        assert self.net.tensor(name).h == rows.h

    def residual(self) -> None:
        shape = self.net.tensor(self.tip)
        same = [t for t in self.made if self.net.tensor(t).elements == shape.elements]
        recipe = recipes.residual_add(1, shape.h, shape.w, shape.channels)
        inputs = (self.tip, self.rng.choice(same))
        name = self.name("a")
        self.take(self.net.vector(name, "add", inputs, recipe, Tensor(name, shape.h, shape.w, shape.channels)))

    def attention(self) -> None:
        rng, shape = self.rng, self.net.tensor(self.tip)
        tokens = shape.h * shape.w
        heads = rng.choice([d for d in range(1, 9) if shape.channels % d == 0])
        width = shape.channels // heads
        linear = rng.random() < 0.5
        k, v = (rng.choice([t for t in self.made if self.net.tensor(t).elements >= shape.elements]) for _ in range(2))
        if linear:
            implicit = rng.randint(0, 1)
            first = Loop(
                heads, rows_h=width, rows_w=1, cols=width + implicit, depth=tokens, right_implicit_cols=implicit
            )
            kv = self.net.matmul(self.name("k"), "ktv", k, v, first)
            self.take(kv)
            second = Loop(heads, rows_h=tokens, rows_w=1, cols=width + implicit, depth=width)
            self.take(self.net.matmul(self.name("q"), "q_ktv", self.made[-2], kv, second))
            if implicit:
                name = self.name("v")
                recipe = recipes.division(heads, tokens, 1, width, rng.choice(recipes.DIVISION_METHODS))
                self.take(
                    self.net.vector(name, "division", (self.tip,), recipe, Tensor(name, tokens, 1, heads * width))
                )
            return
        first = Loop(heads, rows_h=tokens, rows_w=1, cols=tokens, depth=width)
        scores = self.net.matmul(self.name("s"), "attn_scores", self.tip, k, first)
        self.take(scores)
        name = self.name("x")
        recipe = rng.choice([recipes.softmax, recipes.attention_normalize])(heads, tokens, 1, tokens)
        self.take(self.net.vector(name, "softmax", (scores,), recipe, Tensor(name, tokens, 1, heads * tokens)))
        second = Loop(heads, rows_h=tokens, rows_w=1, cols=width, depth=tokens)
        self.take(self.net.matmul(self.name("o"), "attn_values", name, v, second))

    def norm(self) -> None:
        shape = self.net.tensor(self.tip)
        name, rows = self.name("n"), shape.h * shape.w
        recipe = recipes.layernorm(rows, shape.channels, self.rng.choice(["", "hardswish"]))
        output = Tensor(name, rows, 1, shape.channels)
        self.take(self.net.vector(name, "layernorm", (self.tip,), recipe, output, 2 * shape.channels))

    def embed(self) -> None:
        shape = self.net.tensor(self.tip)
        name, rows = self.name("e"), shape.h * shape.w
        extra = self.rng.randint(0, 1)
        recipe = recipes.elementwise_add(1, rows + extra, 1, shape.channels)
        output = Tensor(name, rows + extra, 1, shape.channels)
        parameters = (rows + 2 * extra) * shape.channels
        self.take(self.net.vector(name, "embed", (self.tip,), recipe, output, parameters))

    def pool(self) -> None:
        shape = self.net.tensor(self.tip)
        name = self.name("p")
        recipe = recipes.average_pool(shape.channels, shape.h * shape.w)
        pooled = self.net.vector(name, "pool", (self.tip,), recipe, Tensor(name, 1, 1, shape.channels))
        source = self.tip
        self.take(pooled)
        if self.rng.random() < 0.5:
            gated = self.name("g")
            recipe = recipes.gate(shape.channels, shape.h, shape.w, self.rng.choice(["", "gelu"]))
            self.take(self.net.vector(gated, "gate", (source, pooled), recipe, replace(shape, name=gated, aliases=())))

    def mixer(self) -> None:
        shape = self.net.tensor(self.tip)
        name = self.name("m")
        recipe = recipes.pool_mixer(shape.channels, shape.h, shape.w)
        self.take(self.net.vector(name, "pool_mixer", (self.tip,), recipe, replace(shape, name=name, aliases=())))

    def view(self) -> None:
        rng, shape = self.rng, self.net.tensor(self.tip)
        name = self.name("w")
        other = self.net.tensor(rng.choice(self.made))
        if rng.random() < 0.5 and (other.h, other.w) == (shape.h, shape.w) and other.name != shape.name:
            channels = shape.channels + other.channels
            self.take(self.net.view(name, (self.tip, other.name), shape.h, shape.w, channels))
        elif rng.random() < 0.5:
            self.take(self.net.view(name, (self.tip,), 1, 1, shape.channels))
        else:
            self.take(self.net.view(name, (self.tip,), shape.h * shape.w, 1, shape.channels))


def random_workload(rng: Random) -> Workload:
    """One to ten ops: convolutions of all kinds, attention, element-wise ops, views, branches.

    Raises AccelsimError where the draw is not a legal network.
    """
    grown = _Net(rng)
    moves = [grown.conv, grown.conv, grown.conv, grown.depthwise, grown.linear, grown.linear, grown.residual,
             grown.attention, grown.norm, grown.embed, grown.pool, grown.mixer, grown.view]  # fmt: skip
    for _ in range(rng.randint(1, 10)):
        if grown.net.tensor(grown.tip).elements > 60_000:
            break
        rng.choice(moves)()
    return grown.net.build(grown.tip)


def huge_workload(rng: Random) -> Workload:
    """One to three layers with up to 2^41 elements and 2^50 MACs: what int64 must hold, and what must be refused."""
    edge = 2 ** rng.choice([0, 0, 4, 8, 12, 16, 20])
    room = 41 - 2 * edge.bit_length()
    net = WorkloadBuilder("huge", edge, 2 ** rng.randint(0, max(0, room)))
    tip = net.input
    for k in range(rng.randint(1, 3)):
        given = net.tensor(tip)
        if rng.random() < 0.3:
            recipe = recipes.softmax(1, given.h, given.w, given.channels)
            tip = net.vector(f"x{k}", "softmax", (tip,), recipe, replace(given, name=f"x{k}"))
            continue
        depthwise = rng.random() < 0.3
        channels = given.channels if depthwise else rng.choice([1, 7, 2 ** rng.randint(0, max(0, room))])
        groups = given.channels if depthwise else 1
        kernel = rng.choice([1, 3])
        tip = net.conv(f"c{k}", "conv", tip, channels, kernel=kernel, groups=groups, bias=True)
    return net.build(tip)


def broken_workload(rng: Random) -> Workload:
    """A random workload with one to three fields of its ops or tensors replaced, checked as a user's would be.

    Raises AccelsimError when the check finds a fault.
    """
    workload = random_workload(rng)
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.25 and workload.tensors:
            at = rng.randrange(len(workload.tensors))
            field = rng.choice(["h", "w", "channels", "name", "aliases"])
            value = {"name": "image", "aliases": ("nobody",)}.get(field, rng.choice(BAD_NUMBERS))
            tensors = list(workload.tensors)
            tensors[at] = replace(tensors[at], **{field: value})
            workload = replace(workload, tensors=tuple(tensors))
            continue
        at = rng.randrange(len(workload.ops))
        ops = list(workload.ops)
        ops[at] = _broken_op(rng, ops[at])
        workload = replace(workload, ops=tuple(ops))
    check_workload(workload)
    return workload


def _broken_op(rng: Random, op: Any) -> Any:
    if op.loop is not None and rng.random() < 0.6:
        field = rng.choice(list(op.loop.__dataclass_fields__))
        return replace(op, loop=replace(op.loop, **{field: rng.choice(BAD_NUMBERS)}))
    if op.recipe is not None and rng.random() < 0.6:
        field = rng.choice(["groups", "rows_h", "rows_w", "width", "tiles_rows", "tiles_groups", "passes"])
        value = () if field == "passes" else rng.choice(BAD_NUMBERS)
        return replace(op, recipe=replace(op.recipe, **{field: value}))
    field, value = rng.choice(
        [
            ("inputs", ()), ("inputs", ("nobody",)), ("inputs", op.inputs * 2), ("output", "image"), ("name", ""),
            ("loop", None), ("recipe", None), ("weights", rng.choice(BAD_NUMBERS)), ("bias", rng.choice(BAD_NUMBERS)),
            ("bn_channels", rng.choice(BAD_NUMBERS)), ("params_extra", rng.choice(BAD_NUMBERS)),
            ("kind", rng.choice(list(OpKind))), ("op_class", "division"), ("activation", "unknown"),
        ]
    )  # fmt: skip
    return replace(op, **{field: value})
