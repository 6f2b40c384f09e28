"""Build a Workload op by op, and check it once when it is complete."""

from __future__ import annotations

from accelsim.ir import Loop, Op, OpKind, Recipe, Tensor, Workload
from accelsim.problems import AccelsimError, Problem
from accelsim.workloads.limits import size_problems, whole_number_faults


class WorkloadBuilder:
    """Collects ops and tensors in execution order; every method returns the name of the output tensor.

    The output tensor of an op has the op's name.
    """

    def __init__(self, name: str, resolution: int, in_channels: int = 3) -> None:
        self.name = name
        self.resolution = resolution
        self.input = "image"
        self._ops: list[Op] = []
        self._tensors: dict[str, Tensor] = {"image": Tensor("image", resolution, resolution, in_channels)}

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name."""
        return self._tensors[name]

    def conv(
        self,
        name: str,
        op_class: str,
        source: str,
        channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
        norm: bool = False,
        input_norm: bool = False,
        activation: str = "",
        layout: tuple[int, int, int] | None = None,
    ) -> str:
        """Convolution to `channels` output channels; a linear layer is one with kernel 1 over token rows.

        `padding` is half the kernel unless given.  `bias` is a learned bias, `norm` a BatchNorm that is folded away,
        `input_norm` one of the input that is folded away.  `layout` is another (h, w, channels) in which the result is
        stored, such as windows side by side; it has the same elements.
        """
        given = self._tensors[source]
        sizes = (("channels", channels), ("kernel", kernel), ("stride", stride), ("groups", groups))
        for what, expected in whole_number_faults(sizes, 1):
            raise AccelsimError(Problem(f"workload {self.name}: op {name}", what, expected))
        pad = kernel // 2 if padding is None else padding
        loop = Loop(
            groups=groups,
            rows_h=(given.h + 2 * pad - kernel) // stride + 1,
            rows_w=(given.w + 2 * pad - kernel) // stride + 1,
            cols=channels // groups,
            depth=given.channels // groups,
            kernel_h=kernel,
            kernel_w=kernel,
            stride=stride,
            padding=pad,
            in_h=given.h,
            in_w=given.w,
        )
        output = Tensor(name, *(layout or (loop.rows_h, loop.rows_w, channels)))
        weights = channels * loop.reduction
        op = Op(name, OpKind.CONV, op_class, (source,), name, loop, weights=weights, bias=channels if bias else 0,
                bn_channels=channels * norm + given.channels * input_norm, activation=activation)  # fmt: skip
        return self._append(op, output)

    def matmul(self, name: str, op_class: str, left: str, right: str, loop: Loop, activation: str = "") -> str:
        """Product of two activations; the output has the positions of the nest and groups × cols channels."""
        output = Tensor(name, loop.rows_h, loop.rows_w, loop.groups * loop.cols)
        op = Op(name, OpKind.MATMUL, op_class, (left, right), name, loop, activation=activation)
        return self._append(op, output)

    def vector(
        self, name: str, op_class: str, inputs: tuple[str, ...], recipe: Recipe, output: Tensor, params_extra: int = 0
    ) -> str:
        """A vector-unit op; `output` is given because recipes do not know the layout of their result."""
        op = Op(name, OpKind.VECTOR, op_class, inputs, name, recipe=recipe, params_extra=params_extra)
        return self._append(op, output)

    def view(self, name: str, inputs: tuple[str, ...], h: int, w: int, channels: int) -> str:
        """A concatenation or slice that moves nothing: the output shares the storage of its inputs."""
        return self._append(Op(name, OpKind.VIEW, "view", inputs, name), Tensor(name, h, w, channels, inputs))

    def build(self, output: str, meta: tuple[tuple[str, str], ...] = ()) -> Workload:
        """The finished, checked workload.  Raises AccelsimError when it is inconsistent."""
        tensors = tuple(self._tensors.values())
        workload = Workload(self.name, self.resolution, tuple(self._ops), tensors, self.input, output, meta)
        check_workload(workload)
        return workload

    def _append(self, op: Op, output: Tensor) -> str:
        if output.name in self._tensors:
            raise AccelsimError(Problem(f"workload {self.name}: op {op.name}", "this name is already taken"))
        self._ops.append(op)
        self._tensors[output.name] = output
        return op.output


def check_workload(workload: Workload) -> None:
    """Check that names are unique, inputs are produced earlier and all sizes agree.

    Raises AccelsimError with every problem found.
    """
    problems = size_problems(workload)
    if problems:
        raise AccelsimError(problems)
    tensors = workload.tensor_by_name
    produced = {workload.input}
    if workload.input not in tensors or tensors[workload.input].aliases:
        problems.append(Problem(f"workload {workload.name}", f"the input {workload.input!r} is no tensor of its own"))
    if len(tensors) != len(workload.tensors):
        problems.append(Problem(f"workload {workload.name}", "two tensors have the same name"))
    if len(workload.op_by_name) != len(workload.ops):
        problems.append(Problem(f"workload {workload.name}", "two ops have the same name"))
    for op in workload.ops:
        faults = [
            f"input {name!r} is not produced earlier" for name in op.inputs if name not in produced & set(tensors)
        ]
        if not op.inputs:
            faults.append("it has no input")
        if op.output not in tensors or op.output in produced:
            faults.append(f"output {op.output!r} is unknown or has two producers")
        if not faults:
            faults = _size_faults(op, [tensors[name] for name in op.inputs], tensors[op.output])
        if not faults and not problems and op.kind is not OpKind.VIEW:
            faults = _source_faults(workload, op)
        problems += [Problem(f"workload {workload.name}: op {op.name}", fault) for fault in faults]
        produced.add(op.output)
    if all(op.kind is OpKind.VIEW for op in workload.ops):
        problems.append(Problem(f"workload {workload.name}", "no op computes anything", "an op that is not a view"))
    if workload.output not in produced:
        problems.append(Problem(f"workload {workload.name}", f"the output {workload.output!r} is never produced"))
    if problems:
        raise AccelsimError(problems)


def _source_faults(workload: Workload, op: Op) -> list[str]:
    """Lowering knows two operands of up to two tensors each; more would be read for nothing."""
    faults = ["it has more than two inputs"] if len(op.inputs) > 2 else []
    if workload.tensor_by_name[op.output].aliases:
        faults.append("only a view shares the storage of other tensors")
    if op.op_class == "division" and op.recipe is None:
        faults.append("an op of the class division needs a vector recipe")
    joined = [name for name in op.inputs if len(workload.storage_of(name)) > 2]
    return faults + [f"input {name!r} joins more than two tensors" for name in joined]


def _size_faults(op: Op, inputs: list[Tensor], output: Tensor) -> list[str]:
    if op.kind is OpKind.VIEW:
        faults = [] if output.aliases == op.inputs else ["a view shares the storage of exactly its inputs"]
        if output.elements > sum(tensor.elements for tensor in inputs):
            faults.append("a view has at most the elements of its inputs")
        return faults
    if op.kind is OpKind.VECTOR:
        return _vector_faults(op, inputs, output)
    if op.loop is None:
        return ["an array op needs a loop nest"]
    loop = op.loop
    faults = []
    made = loop.groups * loop.rows * loop.cols
    if output.elements != made:
        faults.append(f"the nest makes {made} elements, the output has {output.elements}")
    return faults + (_conv_faults(op, loop, inputs) if op.kind is OpKind.CONV else _matmul_faults(loop, inputs))


def _conv_faults(op: Op, loop: Loop, inputs: list[Tensor]) -> list[str]:
    faults = []
    needed = loop.groups * loop.depth * loop.in_h * loop.in_w
    if len(inputs) != 1 or inputs[0].elements != needed:
        faults.append(f"a convolution with this nest reads one tensor of {needed} elements")
    # Token rows have rows_w = 1 and a 1 × 1 kernel, for which the same formula holds.
    for size, kernel, rows in ((loop.in_h, loop.kernel_h, loop.rows_h), (loop.in_w, loop.kernel_w, loop.rows_w)):
        if (size + 2 * loop.padding - kernel) // loop.stride + 1 != rows:
            faults.append(f"{size} input positions do not give {rows} output positions")
    if op.weights != loop.groups * loop.cols * loop.reduction:
        faults.append(f"it has {op.weights} weights, its nest needs {loop.groups * loop.cols * loop.reduction}")
    return faults


def _matmul_faults(loop: Loop, inputs: list[Tensor]) -> list[str]:
    if len(inputs) != 2:
        return ["a matrix product has two inputs"]
    faults = []
    left = loop.groups * loop.rows * loop.depth
    right = loop.groups * loop.depth * (loop.cols - loop.right_implicit_cols)
    for side, needed, tensor in (("left", left, inputs[0]), ("right", right, inputs[1])):
        if needed > tensor.elements:
            faults.append(f"its {side} operand needs {needed} elements, {tensor.name!r} has {tensor.elements}")
    return faults


def _vector_faults(op: Op, inputs: list[Tensor], output: Tensor) -> list[str]:
    recipe = op.recipe
    if recipe is None:
        return ["a vector op needs a recipe"]
    faults = []
    made = recipe.groups if recipe.reduces_rows else recipe.elements
    if output.elements != made:
        faults.append(f"the recipe makes {made} elements, the output has {output.elements}")
    # An embedding op may bring rows of its own (the class token), which its learned parameters hold.
    if inputs[0].elements + op.params_extra * (op.op_class == "embed") < recipe.elements:
        faults.append(f"the recipe visits {recipe.elements} elements, {inputs[0].name!r} has {inputs[0].elements}")
    # A recipe cut along channels only may read a second operand with one element per channel (a gate).
    sizes = {recipe.elements} if recipe.tiles_rows else {recipe.elements, recipe.groups}
    if op.op_class == "gather":
        sizes.add(recipe.rows_h)
    faults += [f"{tensor.name!r} has another size" for tensor in inputs[1:] if tensor.elements not in sizes]
    return faults
