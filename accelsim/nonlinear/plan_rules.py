"""What a plan may ask of non-linear functions: methods that exist, narrow inputs, log2 codes where they can be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from accelsim.formats import Scheme
from accelsim.ir import Op, OpKind, Workload
from accelsim.nonlinear.methods import FUNCTIONS, TABLE, function_of, method_of, methods_of
from accelsim.nonlinear.regions import LOG2_SOFTMAX, region_problems
from accelsim.problems import AccelsimError, Problem
from accelsim.workloads.separate import separated_name

if TYPE_CHECKING:
    from accelsim.plan import QuantizedOp, QuantPlan, Rule

GELU = "gelu"
FLOAT_GELU = "fqvit"  # FQ-ViT (arXiv 2111.13824) keeps GELU in floating point
SEPARATE_LEVERS = ("--separate gelu", "accelsim.workloads.separate.separate_activations")


def method_problems(workload: Workload, plan: QuantPlan) -> list[Problem]:
    """Rules whose method does not exist for an op that they match, or reaches none of the ops that they match.

    A rule gives its method to those matched ops that compute a softmax, a GELU or a LayerNorm of their own; that the
    others have none is a fault only where the rule names one op, or where no matched op has one.
    """
    if not any(rule.nonlinear for rule in plan.rules):
        return []
    found: list[Problem] = []
    unreached: dict[str, list[Op]] = defaultdict(list)
    reached: set[str] = set()
    for op in workload.ops:
        rule = plan.rule_for(op)
        found += _table_problems(plan, op, rule)
        if not rule.nonlinear:
            continue
        if function_of(op.recipe):
            reached.add(rule.match)
            found += _unknown(f"plan {plan.name}: {op.name}", function_of(op.recipe), rule.nonlinear)
        else:
            unreached[rule.match].append(op)
    in_table = {problem.where for problem in found}
    for match, ops in unreached.items():
        if match not in reached and not any(f"plan {plan.name}: {op.name}" in in_table for op in ops):
            found.append(_no_function(plan, plan.rule_for(ops[0]), ops))
    return found


def _unknown(where: str, function: str, name: str) -> list[Problem]:
    if function == GELU and name == FLOAT_GELU and name not in methods_of(GELU):
        known = methods_of(GELU)
        what = f"{name} has no integer GELU: it computes it in floating point"
        return [Problem(where, what, f"one of {', '.join(known)}", tuple(f"nonlinear: {one}" for one in known))]
    try:
        method_of(function, name, where)
    except AccelsimError as error:
        return list(error.problems)
    return []


def _table_problems(plan: QuantPlan, op: Op, rule: Rule) -> Iterator[Problem]:
    """A GELU that the output stage looks up although a rule names another method for it."""
    if op.loop is None or op.activation != GELU:
        return
    alone = replace(op, name=separated_name(op.name, GELU), kind=OpKind.VECTOR, op_class=GELU)
    for name in dict.fromkeys((rule.nonlinear, plan.rule_for(alone).nonlinear)):
        if name != TABLE and name in methods_of(GELU):
            what = f"{name} for its GELU, which is a table of the output stage"
            yield Problem(f"plan {plan.name}: {op.name}", what, "a GELU that is an op of its own", SEPARATE_LEVERS)
            return


def _no_function(plan: QuantPlan, rule: Rule, ops: Sequence[Op]) -> Problem:
    first = ops[0]
    names = f"{first.name} ({first.recipe.name if first.recipe else first.op_class})"
    names += f" and {len(ops) - 1:,} more" * (len(ops) > 1)
    what = f"nonlinear: {rule.nonlinear} for {names}, without a function that has methods"
    levers = tuple(f"class:{function}" for function in FUNCTIONS)
    return Problem(
        f"plan {plan.name}: rule {rule.match}", what, f"ops that are a {' or '.join(FUNCTIONS)} alone", levers
    )


def operand_problems(workload: Workload, plan: QuantPlan, ops: Sequence[QuantizedOp]) -> list[Problem]:
    """Inputs wider than the widths for which a method is declared; codes where nothing makes or reads them."""
    found = [*_log2_problems(workload, plan, ops), *region_problems(workload, plan, ops)]
    for item in ops:
        if not item.nonlinear:
            continue
        method = method_of(item.function, item.nonlinear)
        if item.activation.bits > method.input_bits:
            what = f"{method.name} of {method.function} reads {item.op.inputs[0]} in {item.activation.name}"
            narrow = f"output: u{method.input_bits} of its producer"
            found.append(
                Problem(
                    f"plan {plan.name}: {item.op.name}", what, levers=(narrow, "another method"),
                    demand=item.activation.bits, bound=method.input_bits, unit="bits",
                )
            )  # fmt: skip
    return found


def _log2_problems(workload: Workload, plan: QuantPlan, ops: Sequence[QuantizedOp]) -> Iterable[Problem]:
    """Log-Int-Softmax stores log2 codes and nothing else does; a product of activations reads them as its left side."""
    coded = set()
    for item in ops:
        where = f"plan {plan.name}: {item.op.name}"
        makes = item.function == "softmax" and item.nonlinear == LOG2_SOFTMAX
        if makes and item.output.scheme is not Scheme.LOG2:
            what = f"{LOG2_SOFTMAX} of softmax stored as {item.output.name}, but its results are log2 codes"
            yield Problem(where, what, "a log2 format", ("output: log4",))
        if item.output.scheme is Scheme.LOG2:
            coded.add(item.op.output)
            if not makes:
                what = f"output {item.output.name} of an op that makes no log2 codes"
                yield Problem(where, what, f"a softmax with nonlinear: {LOG2_SOFTMAX}", ("output: u8",))
    for op in workload.ops if coded else ():
        if op.kind is OpKind.VIEW:
            continue
        for place, name in enumerate(op.inputs):
            codes = coded & {*workload.storage_of(name)}
            if codes and (op.kind is not OpKind.MATMUL or place > 0):
                what = f"reads the log2 codes of {min(codes)}"
                expected = "a matmul with them as its left operand as their only reader"
                yield Problem(f"plan {plan.name}: {op.name}", what, expected, ("another method of the softmax",))
