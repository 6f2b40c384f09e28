"""Walk an exported program: views become references, constants are computed, everything else becomes steps."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from accelsim.problems import AccelsimError, Problem
from quant.capture.values import Const, Ref, Shape, Size, Step, StepGraph, Value, per_image
from quant.models.blocks import OpModule
from quant.views import Batch

Handler = Callable[["Tracer", fx.Node, list[Any], dict[str, Any]], Value]
HANDLERS: dict[str, Handler] = {}
VIEWS: set[str] = set()
PASSING = (torch.ops.higher_order.wrap_with_autocast, torch.ops.higher_order.wrap_with_set_grad_enabled)


def handles(*names: str, view: bool = False) -> Callable[[Handler], Handler]:
    """Decorator: the handler of the ATen ops of these names ("conv2d"; all overloads and the in-place form)."""

    def add(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = handler
            if view:
                VIEWS.add(name)
        return handler

    return add


class NotSupportedError(Exception):
    """A handler met arguments it has no meaning for; the text says which."""


def op_name(target: Any) -> str:
    """Name of an ATen op without namespace, overload and in-place mark."""
    if target is operator.getitem:
        return "getitem"
    name = str(getattr(target, "_opname", getattr(target, "__name__", target)))
    return name if name.startswith("_") else name.rstrip("_")


class Tracer:
    """Turns the nodes of an exported program into a `StepGraph`."""

    def __init__(self, program: ExportedProgram, model: nn.Module, name: str) -> None:
        self.program = program
        self.name = name
        self.modules = dict(model.named_modules())
        self.faults: Counter[tuple[str, str]] = Counter()
        placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
        users = program.graph_signature.user_inputs
        image = next(node for node in placeholders if node.name in users)
        self.symbol = image.meta["val"].shape[0]
        self.sizes: dict[Any, Size] = {}
        self.graph = StepGraph(self.shape(image))

    def trace(self) -> StepGraph:
        """The steps of the program.  Raises AccelsimError with everything that has no meaning here."""
        inputs = [self._input(node) for node in self.program.graph.nodes if node.op == "placeholder"]
        outputs = self.run(self.program.graph_module, inputs)
        if self.faults:
            raise AccelsimError(self._problems())
        while isinstance(outputs, list) and len(outputs) == 1:
            outputs = outputs[0]
        if not isinstance(outputs, Ref) or outputs.step is self.graph.image:
            raise AccelsimError(Problem(f"capture {self.name}", "the result is not one tensor computed from the image"))
        self.graph.output = outputs
        return self.graph

    def run(self, module: fx.GraphModule, inputs: list[Value]) -> Value:
        """Execute one graph on captured values; returns its result."""
        env: dict[fx.Node, Value] = {}
        given = iter(inputs)
        views = self._view_calls(module.graph)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                env[node] = next(given)
            elif node.op == "get_attr":
                held = getattr(module, str(node.target))
                env[node] = Const(held) if isinstance(held, Tensor) else held
            elif node.op == "output":
                result: Value = _mapped(node.args[0], env)
                return result
            else:
                self._call(node, env)
                if node in views:
                    env[node] = self._view_step(node, env[node])
        raise AccelsimError(Problem(f"capture {self.name}", "a graph has no output"))

    def shape(self, node: fx.Node) -> Shape:
        """Shape of a node's result; sizes that grow with the number of images are `Batch` sizes."""
        return tuple(self.size(size) for size in node.meta["val"].shape)

    def size(self, size: Any) -> Size:
        """One size.  Raises NotSupportedError for one that is no multiple of the number of images."""
        if isinstance(size, int):
            return size
        symbol, expression = self.symbol.node.expr, size.node.expr
        if expression not in self.sizes:
            self.sizes[expression] = self._multiple(symbol, expression)
        return self.sizes[expression]

    def _multiple(self, symbol: Any, expression: Any) -> Size:
        times = expression.subs(symbol, 1)
        if any(expression.subs(symbol, n) != times * n for n in (2, 3, 5, 8, 30)) or not int(times) == times:
            raise NotSupportedError(f"a size of {expression} for {symbol} images")
        return Batch(int(times))

    def step(self, node: fx.Node, kind: str, operands: list[Ref], shape: Shape | None = None, **fields: Any) -> Ref:
        """Append a step that `node` stands for."""
        owner, path = self.place(node)
        label = fields.pop("label", None) or self._label(node, path)
        return self.graph.add(Step(kind, operands, shape or self.shape(node), owner, label, **fields))

    def place(self, node: fx.Node) -> tuple[str, str]:
        """(the call of an `OpModule` that the node belongs to or "", the path of its innermost module)."""
        stack = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
        owner = next((path for path in stack if isinstance(self.modules.get(_plain(path)), OpModule)), "")
        return owner, stack[-1] if stack else ""

    def fault(self, node: fx.Node, text: str) -> None:
        """Note something that has no meaning here."""
        self.faults[(text, self.place(node)[1] or "(top)")] += 1

    def _label(self, node: fx.Node, path: str) -> str:
        module = self.modules.get(_plain(path))
        if path and module is not None and not any(True for _ in module.children()):
            return path
        return f"{path}.{op_name(node.target)}" if path else op_name(node.target)

    def _input(self, node: fx.Node) -> Value:
        signature = self.program.graph_signature
        if node.name in signature.inputs_to_parameters:
            path = signature.inputs_to_parameters[node.name]
            return Const(self.program.state_dict[path].detach(), frozenset((path,)))
        if node.name in signature.inputs_to_buffers:
            path = signature.inputs_to_buffers[node.name]
            held = self.program.state_dict.get(path, self.program.constants.get(path))
            return Const(held)
        if node.name in signature.inputs_to_lifted_tensor_constants:
            return Const(self.program.constants[signature.inputs_to_lifted_tensor_constants[node.name]])
        return Ref(self.graph.image, (), self.graph.image.shape)

    def _call(self, node: fx.Node, env: dict[fx.Node, Value]) -> None:
        held = node.meta.get("val")
        try:
            if isinstance(held, (int, torch.SymInt)):
                env[node] = self.size(held)
                return
            args = [_mapped(arg, env) for arg in node.args]
            kwargs = {key: _mapped(arg, env) for key, arg in node.kwargs.items()}
            if node.target in PASSING:
                start = next(k for k, arg in enumerate(args) if isinstance(arg, fx.GraphModule))
                env[node] = self.run(args[start], args[start + 1 :])
                return
            env[node] = self._value(node, args, kwargs)
            self._mutate(node, env)
        except NotSupportedError as error:
            self.fault(node, str(error))
            env[node] = self._unknown(node)

    def _value(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
        name = op_name(node.target)
        if name == "getitem":
            part: Value = args[0][args[1]]
            return part
        if not any(isinstance(arg, Ref) for arg in _leaves([args, list(kwargs.values())])):
            return _computed(node.target, args, kwargs)
        if any(isinstance(arg, Ref) and arg.step.kind == "unknown" for arg in _leaves([args, list(kwargs.values())])):
            return self._unknown(node)
        if name not in HANDLERS:
            raise NotSupportedError(f"{node.target} is not supported")
        return HANDLERS[name](self, node, args, kwargs)

    def _mutate(self, node: fx.Node, env: dict[fx.Node, Value]) -> None:
        """An in-place op also changes what its first argument names."""
        name = str(getattr(node.target, "_opname", ""))
        if not name.endswith("_") or name.endswith("__"):
            return
        changed = node.args[0]
        assert isinstance(changed, fx.Node)
        before = env[changed]
        if isinstance(before, Ref):
            later = [other for other, value in env.items() if isinstance(value, Ref) and value.step is before.step]
            aliases = [other for other in later if other is not changed and _used_after(other, node)]
            if aliases:
                raise NotSupportedError(f"{node.target} changes a tensor that is read elsewhere")
        env[changed] = env[node]

    def _unknown(self, node: fx.Node) -> Value:
        held = node.meta.get("val")
        if isinstance(held, (list, tuple)):
            return [Ref(Step("unknown", [], tuple(map(_rough, part.shape))), (), tuple(map(_rough, part.shape)))
                    for part in held if isinstance(part, Tensor)]  # fmt: skip
        shape = tuple(map(_rough, held.shape)) if isinstance(held, Tensor) else ()
        return Ref(Step("unknown", [], shape), (), shape)

    def _view_calls(self, graph: fx.Graph) -> set[fx.Node]:
        """The last node of every call of an `OpModule` that only re-arranges: the call is a view op."""
        calls: dict[str, list[fx.Node]] = {}
        for node in graph.nodes:
            owner = self.place(node)[0] if node.op == "call_function" else ""
            if owner and isinstance(node.meta.get("val"), Tensor):
                calls.setdefault(owner, []).append(node)
        return {nodes[-1] for nodes in calls.values() if all(op_name(node.target) in VIEWS for node in nodes)}

    def _view_step(self, node: fx.Node, value: Value) -> Value:
        return self.step(node, "view", [value], value.shape) if isinstance(value, Ref) else value

    def _problems(self) -> list[Problem]:
        texts: dict[str, Counter[str]] = {}
        for (text, path), count in self.faults.items():
            texts.setdefault(text, Counter())[path] += count
        return [
            Problem(f"capture {self.name}", f"{text} ({paths.total()} times, in {_listed(paths)})")
            for text, paths in texts.items()
        ]


def _listed(paths: Counter[str]) -> str:
    return ", ".join(f"{path} × {count}" if count > 1 else path for path, count in paths.items())


def _plain(path: str) -> str:
    """The module's path without the mark of a repeated call."""
    return path.split("@")[0]


def _rough(size: Any) -> int:
    return size if isinstance(size, int) else 1


def _used_after(other: fx.Node, node: fx.Node) -> bool:
    return any(user > node for user in other.users)


def _mapped(arg: Any, env: dict[fx.Node, Value]) -> Any:
    if isinstance(arg, fx.Node):
        return env[arg]
    if isinstance(arg, (list, tuple)):
        return [_mapped(part, env) for part in arg]
    return arg


def _leaves(arg: Any) -> list[Any]:
    return [leaf for part in arg for leaf in _leaves(part)] if isinstance(arg, list) else [arg]


def _computed(target: Any, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """A constant, for one image."""
    learned = frozenset(
        name for leaf in _leaves([args, list(kwargs.values())]) if isinstance(leaf, Const) for name in leaf.learned
    )
    with torch.no_grad():
        result = target(*_real(args), **{key: _real(arg) for key, arg in kwargs.items()})
    if isinstance(result, (list, tuple)):
        return [Const(part, learned) for part in result]
    return Const(result, learned) if isinstance(result, Tensor) else result


def _real(arg: Any) -> Any:
    if isinstance(arg, Const):
        return arg.value
    if isinstance(arg, list):
        return [_real(part) for part in arg]
    return per_image(arg) if isinstance(arg, Batch) else arg
