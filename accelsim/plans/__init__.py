"""Quantization plans that come with the program, and the mixed-scheme plan with a ratio of the user's choice."""

from __future__ import annotations

from dataclasses import replace

from accelsim.config import load_plan, plan_names
from accelsim.config_walk import near
from accelsim.formats import Format
from accelsim.plan import QuantPlan, WeightShare
from accelsim.problems import AccelsimError, Problem


def m2q(ratio: float | None = None) -> QuantPlan:
    """The mixed-precision, mixed-scheme plan with a share `ratio` (0 … 1) of power-of-two filters in mixed layers.

    None leaves the shares to the accelerator ("balanced").  At 0 and 1 the mixed layers have one format.  Raises
    AccelsimError outside 0 … 1.  Source: M²-ViT (arXiv 2410.09113); the ratio is not published, so it is a parameter.
    """
    plan = load_plan("m2q")
    if ratio is None:
        return plan
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise AccelsimError(Problem(f"m2q:{ratio}", f"found the ratio {ratio!a}", "a number 0 … 1", ("m2q:0.5",)))

    def part(format: Format) -> WeightShare:
        return WeightShare(format, float(ratio if format.is_shift else 1 - ratio))

    def mixed(shares: tuple[WeightShare, ...]) -> tuple[WeightShare, ...]:
        if all(share.share is not None for share in shares):
            return shares
        return tuple(new for new in (part(share.format) for share in shares) if new.share)

    rules = tuple(replace(rule, weights=mixed(rule.weights)) for rule in plan.rules)
    return replace(plan, name=f"m2q:{float(ratio)!r}", rules=rules)


def from_text(text: str) -> QuantPlan:
    """The plan of ``m2q:RATIO``; raises AccelsimError for another name or something that is not a ratio."""
    name, _, ratio = text.partition(":")
    if name != "m2q":
        expected = f"m2q:RATIO, a YAML or JSON file, or one of {', '.join(plan_names())}"
        guess = (name,) if name in plan_names() else tuple(f"m2q:{ratio}" for _ in near(name, ["m2q"]))
        what = "only m2q takes a ratio" if name in plan_names() else "no plan has this name"
        raise AccelsimError(Problem(text, what, expected, guess))
    try:
        return m2q(float(ratio))
    except ValueError:
        raise AccelsimError(Problem(text, f"{ratio!a} is not a ratio", "a number 0 … 1", ("m2q:0.5",))) from None
