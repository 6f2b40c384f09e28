"""What capture works on: steps (computations), references to their results through views, constants, the step graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from quant.views import Batch, View

Size = int | Batch
Shape = tuple[Size, ...]


def per_image(size: Size) -> int:
    """The size for one image."""
    return size.times if isinstance(size, Batch) else size


def elements(shape: Shape) -> int:
    """Elements of one image in a value of this shape."""
    total = 1
    for size in shape:
        total *= per_image(size)
    return total


class Const(NamedTuple):
    """A value that does not depend on the image; `learned` names the parameters it was computed from."""

    value: Tensor
    learned: frozenset[str] = frozenset()


@dataclass(eq=False)
class Step:
    """One computation.  `shape` is that of its result as torch has it; `owner` names the call of an `OpModule`.

    `label` is the name that the op will have if no owner gives one.  `users` lists the steps that read the result, once
    per operand.
    """

    kind: str
    operands: list[Ref]
    shape: Shape
    owner: str = ""
    label: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    weight: Tensor | None = None
    bias: Tensor | None = None
    activation: str = ""
    learned_bias: bool = False
    norm: bool = False
    input_norm: bool = False
    learned: frozenset[str] = frozenset()
    users: list[Step] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Ref:
    """The result of a step after view steps; `shape` is the shape after them."""

    step: Step
    views: tuple[View, ...]
    shape: Shape

    def then(self, view: View, shape: Shape) -> Ref:
        """The value after one more view step; steps that cancel or change nothing are left out."""
        if view.name in ("reshape", "expand", "slice") and shape == self.shape:
            return self
        if view.name == "permute" and view.args[0] == tuple(range(len(shape))):
            return self
        views = self.views
        if views and views[-1].name == view.name == "permute":
            earlier = views[-1].args[0]
            before = tuple(self.shape[earlier.index(k)] for k in range(len(earlier)))
            dims = tuple(earlier[k] for k in view.args[0])
            return Ref(self.step, views[:-1], before).then(View("permute", (dims,)), shape)
        if views and views[-1].name == view.name == "reshape":
            views = views[:-1]
            if not views and shape == self.step.shape:
                return Ref(self.step, (), shape)
        return Ref(self.step, (*views, view), shape)

    def swapped(self) -> Ref:
        """The last two axes exchanged."""
        last = len(self.shape)
        dims = (*range(last - 2), last - 1, last - 2)
        return self.then(View("permute", (dims,)), tuple(self.shape[k] for k in dims))

    def after(self, base: Ref) -> Ref:
        """These view steps after those of `base`, whose value replaces the result that this reference reads."""
        result = base
        shape = self.step.shape
        for view in self.views:
            shape = view_shape(view, shape)
            result = result.then(view, shape)
        return result


def held(value: Tensor | None) -> Tensor:
    """A weight, factor or offset that this kind of step always has."""
    assert value is not None
    return value


Value = Ref | Const | Size | float | None | list[Any]


def view_shape(view: View, shape: Shape) -> Shape:
    """The shape after one view step."""
    if view.name in ("reshape", "expand"):
        return tuple(view.args[0])
    if view.name == "permute":
        return tuple(shape[k] for k in view.args[0])
    if view.name == "roll":
        return shape
    dim = view.args[0]
    if view.name == "select":
        return shape[:dim] + shape[dim + 1 :]
    if view.name == "slice":
        _, start, stop, step = view.args
        size: Size = len(range(start, stop, step))
    else:
        size = per_image(shape[dim]) + 1
    return (*shape[:dim], size, *shape[dim + 1 :])


class StepGraph:
    """Steps in execution order and the references between them."""

    def __init__(self, image_shape: Shape) -> None:
        self.image = Step("image", [], image_shape)
        self.steps: list[Step] = []
        self.output: Ref = Ref(self.image, (), image_shape)

    def add(self, step: Step) -> Ref:
        """Append a step; returns a reference to its result."""
        self.steps.append(step)
        for operand in step.operands:
            operand.step.users.append(step)
        return Ref(step, (), step.shape)

    def readers(self, step: Step) -> int:
        """How often the result of a step is read, the graph output counted."""
        return len(step.users) + (self.output.step is step)

    def read_only_by(self, reader: Step, ref: Ref) -> bool:
        """True when `reader` alone reads the result of the step behind `ref`, within the same module call."""
        return self.readers(ref.step) == 1 and ref.step.owner == reader.owner

    def set_operands(self, step: Step, operands: list[Ref]) -> None:
        """Give a step other operands; steps that nothing reads any more disappear."""
        before, step.operands = step.operands, operands
        for operand in operands:
            operand.step.users.append(step)
        for operand in before:
            operand.step.users.remove(step)
        for operand in before:
            if not self.readers(operand.step) and operand.step in self.steps:
                self.drop(operand.step)

    def replace(self, old: Step, new: Ref) -> None:
        """Readers of `old` read `new` instead; `old`, which nothing reads any more, disappears."""
        if self.output.step is old:
            self.output = self.output.after(new)
        for user in list(dict.fromkeys(old.users)):
            self.set_operands(user, [ref.after(new) if ref.step is old else ref for ref in user.operands])
        if old in self.steps:
            self.drop(old)

    def drop(self, step: Step) -> None:
        """Remove a step whose result nothing reads."""
        self.steps.remove(step)
        self.set_operands(step, [])

    def prune(self) -> None:
        """Remove every step whose result is never read."""
        for step in reversed(list(self.steps)):
            if step in self.steps and not self.readers(step):
                self.drop(step)


def channel_axis(ref: Ref, axis: int) -> int | None:
    """Where axis `axis` of the step's result is after the view steps, or None when they cut or merge it."""
    shape: Shape = ref.step.shape
    position: int | None = axis % len(shape)
    for view in ref.views:
        assert position is not None
        after = view_shape(view, shape)
        if view.name == "permute":
            position = view.args[0].index(position)
        elif view.name == "reshape":
            position = _survives(shape, after, position)
        elif view.name != "roll":
            return None
        if position is None:
            return None
        shape = after
    return position


def _survives(before: Shape, after: Shape, axis: int) -> int | None:
    inner = elements(before[axis + 1 :])
    for k, size in enumerate(after):
        if size == before[axis] and elements(after[k + 1 :]) == inner:
            return k
    return None
