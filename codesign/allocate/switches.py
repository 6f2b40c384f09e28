"""Choices of several ops at once: the method of all divisions, the number of full tokens of a ranked layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from accelsim.ir import Workload
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import TokenGroups, full_count, token_layers
from accelsim.workloads.rank import ranked_layers
from quant.penalties.table import PenaltyTable

if TYPE_CHECKING:
    from codesign.allocate.options import OptionSettings

DIVISION, EXACT = "division", "divide"
TOKENS, FULL = "tokens:", "full"  # of a layer, whose name follows


def switches_of(workload: Workload, penalties: PenaltyTable, settings: OptionSettings) -> dict[str, dict[str, float]]:
    """The switches of a space: name → value → penalty, the value of the base first.

    Raises AccelsimError when the table's narrow tokens have lost other bits than the settings say, or it lacks counts.
    """
    found: dict[str, dict[str, float]] = {}
    methods = {name: penalties.divisions[name] for name in settings.divisions if name in penalties.divisions}
    if methods and any(op.op_class == "division" for op in workload.ops):
        found[DIVISION] = methods
    if settings.token_shares and penalties.tokens:
        if penalties.drop_bits != settings.drop_bits:
            what = f"has narrow tokens of {penalties.drop_bits} bits fewer"
            raise AccelsimError(Problem("penalty table", what, f"{settings.drop_bits}, as options.drop_bits says"))
        tokens = {one.name: one.tokens for one in ranked_layers(workload)}
        for layer, losses in penalties.tokens.items():
            counts = dict.fromkeys(str(full_count(share, tokens[layer])) for share in settings.token_shares)
            missing = [name for name in counts if name not in losses]
            if missing:
                what = f"has no {' nor '.join(missing)} full tokens of {layer}"
                raise AccelsimError(
                    Problem("penalty table", what, f"of {', '.join(losses)}, as in options.token_shares")
                )
            found[TOKENS + layer] = {FULL: losses[FULL], **{name: losses[name] for name in counts}}
    return found


def division_of(switches: Mapping[str, str]) -> str:
    """The division method of chosen switches; the exact one where nothing divides."""
    return switches.get(DIVISION, EXACT)


def token_groups(switches: Mapping[str, str], drop_bits: int) -> dict[str, TokenGroups]:
    """Layer → its token groups, of the layers that have some under chosen switches."""
    return {
        name.removeprefix(TOKENS): TokenGroups(name.removeprefix(TOKENS), int(value), drop_bits)
        for name, value in switches.items()
        if name.startswith(TOKENS) and value != FULL
    }


def fewest_full(switches: Mapping[str, tuple[str, ...]], drop_bits: int) -> dict[str, TokenGroups]:
    """Layer → the token groups with the fewest full tokens that are offered."""
    fewest = {
        name: min((value for value in values if value != FULL), key=int, default=FULL)
        for name, values in switches.items()
        if name.startswith(TOKENS)
    }
    return token_groups(fewest, drop_bits)


def nearest_switches(switches: Mapping[str, tuple[str, ...]], plan: QuantPlan, drop_bits: int) -> dict[str, str]:
    """The values that a plan has where they are offered, the base's elsewhere."""
    layers = token_layers(plan)
    found = {}
    for name, values in switches.items():
        groups = layers.get(name.removeprefix(TOKENS))
        wanted = plan.division if name == DIVISION else FULL
        if name != DIVISION and groups is not None and groups.drop_bits == drop_bits:
            wanted = str(groups.high)
        found[name] = wanted if wanted in values else values[0]
    return found
