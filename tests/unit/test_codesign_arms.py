"""Arms of a co-design: forms of the network, plans without a family of options, random choices within a limit."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from accelsim.config import load_accelerator, load_plan
from accelsim.ir import Workload
from accelsim.nonlinear.methods import function_of
from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError
from accelsim.workloads.rank import rank_tokens, ranked_layers
from accelsim.workloads.registry import build_workload
from codesign.allocate.families import FAMILIES
from codesign.allocate.feedback import LoopSettings
from codesign.allocate.options import OptionSettings
from codesign.loop.arms import layerwise, random_choice, with_methods
from codesign.loop.designs import LearnedNetwork, PlanMaker
from codesign.loop.outcome import opponents, worth
from codesign.loop.outer import arms_of, maker_of, plans_of
from codesign.loop.spec import CodesignSpec, HardwareSpec, OptionSpec
from codesign.loop.variants import PATCHWISE, PLAIN, Variant, settings_of
from quant.penalties.table import PenaltyTable
from quant.penalties.weights_only import workload_penalties

OPTIONS = OptionSettings(
    ("u8", "u4", "apot8"), ("u8", "u6"), ("divide",), mixtures=1, methods=("ivit", "fqvit"), head_formats=("u4",),
    token_shares=(0.5,),
)  # fmt: skip
ARCH = load_accelerator("m2vit_nonlinear")


def table_of(workload: Workload, tokens: dict[str, int]) -> PenaltyTable:
    """Losses of weights, and made-up ones of methods, narrow tensors, heads and tokens; fqvit loses less than ivit."""
    table = workload_penalties(workload, ("u8", "u6", "u4", "apot8"))
    activations = {}
    for group in table.groups:
        activations[group.name] = {"u8": 0.0, "u6": 0.002}
        if any(function_of(workload.op_by_name[op].recipe) == "layernorm" for op in group.ops):
            activations[group.name] |= {"u8+ivit": 0.003, "u6+ivit": 0.005, "u8+fqvit": 0.001, "u6+fqvit": 0.004}
    found = {layer: {"full": 0.0, str(round(count / 2)): 0.001} for layer, count in tokens.items()}
    return replace(table, activations=activations, tokens=found, drop_bits=2)


@pytest.fixture(scope="module")
def maker() -> PlanMaker:
    plain = build_workload("glyph_vit_small")
    layers = {one.name: one.tokens for one in ranked_layers(plain)}
    forms = {PLAIN: (plain, {}), PATCHWISE: (rank_tokens(plain, list(layers)), layers)}
    variants = {
        name: Variant(name, workload, table_of(workload, tokens), settings_of(name, OPTIONS))
        for name, (workload, tokens) in forms.items()
    }
    learned = {"mine": LearnedNetwork(Path("mine"), load_plan("uniform8"), 0.01)}
    return PlanMaker(variants, LoopSettings(rounds=1, tries=2), learned)


def spec_of(*without: str) -> CodesignSpec:
    options = OptionSpec(token_shares=(0.5,), methods=("ivit", "fqvit"))
    spec = CodesignSpec("a.yaml", "a", "m", HardwareSpec("tiny"), (0.01, 0.1), options=options, learned=("runs/mine",))
    return replace(spec, baselines=replace(spec.baselines, without=without))


def test_a_search_has_plans_of_both_forms_and_learned_ones() -> None:
    both = ("allocated@0.01", "allocated@0.1", "patchwise@0.01", "patchwise@0.1", "learned:mine")
    assert plans_of(spec_of()) == plans_of(spec_of(), "schemes") == both
    assert plans_of(spec_of(), "tokens") == (*both[:2], both[4])
    assert plans_of(spec_of(), "learned") == both[:4]
    assert arms_of(spec_of("heads")) == {"codesign": "", "without_heads": "heads"}


def test_an_arm_lacks_its_family_and_nothing_else(maker: PlanMaker) -> None:
    prints = {maker.fingerprint()}
    for family in FAMILIES:
        less = maker_of(maker, f"without_{family}")
        assert set(less.variants) == ({PLAIN} if family == "tokens" else {PLAIN, PATCHWISE})
        assert bool(less.learned) == (family != "learned")
        if family in ("schemes", "channels", "methods"):
            assert less.plain.options != maker.plain.options
        prints.add(less.fingerprint())
    # Without regions nothing changes: there are none.
    assert len(prints) == len(FAMILIES)
    assert maker_of(maker, "codesign") is maker


def test_requests_name_the_form_and_unknown_ones_are_refused(maker: PlanMaker) -> None:
    assert maker.request("patchwise@0.5").variant == PATCHWISE
    assert maker.request("allocated@0.5").variant == maker.request("learned:mine").variant == PLAIN
    assert maker.request("learned:mine").level is maker.request("learned:mine").bits is None
    for name in ("learned:other", "patchwise@x", "uniform"):
        with pytest.raises(AccelsimError, match="or learned:mine"):
            maker.request(name)
    with pytest.raises(AccelsimError, match="unknown"):
        maker.without("tokens").request("patchwise@0.5")


def test_uniform_plans_have_the_first_method(maker: PlanMaker) -> None:
    plan = maker.plain.uniform_plan(ARCH, 6)
    workload = maker.plain.workload
    apply_plan(workload, plan)
    for op in workload.ops:
        rule = plan.rule_for(op)
        if op.weights:
            assert [part.format.name for part in rule.weights] == ["u6"]
        assert rule.nonlinear == ("ivit" if function_of(op.recipe) == "layernorm" else "")
    rules = with_methods(maker.plain, load_plan("m2q:0.5"), ARCH)
    apply_plan(workload, rules)
    norm = next(op for op in workload.ops if function_of(op.recipe) == "layernorm")
    assert rules.rule_for(norm).nonlinear == "ivit"
    assert rules.rule_for(norm).output == load_plan("m2q:0.5").rule_for(norm).output


def test_layer_wise_options_are_no_finer_than_a_layer() -> None:
    less = layerwise(OPTIONS)
    assert (less.mixtures, less.methods, less.head_formats, less.token_shares) == (0, ("ivit",), (), ())
    assert less.weight_formats == OPTIONS.weight_formats


@pytest.mark.parametrize("form", [PLAIN, PATCHWISE])
def test_random_choices_keep_the_limit_and_vary_everything(maker: PlanMaker, form: str) -> None:
    space = maker.variants[form].space(ARCH)
    level, seen = 0.05, {"options": set(), "groups": set(), "switches": set()}
    for seed in range(8):
        chosen = random_choice(space, level, random.Random(seed))
        assert space.penalty(chosen) <= level * (1 + 1e-12)
        apply_plan(space.workload, space.plan(chosen))
        for kind, values in seen.items():
            values |= {f"{name} {value}" for name, value in getattr(chosen, kind).items()}
    assert len(seen["options"]) > len(space.ops)
    assert len(seen["groups"]) > len(space.groups)
    assert any("fqvit" in one for one in seen["groups"])
    assert len(seen["switches"]) > len(space.switches) or form == PLAIN


def test_an_ablation_meets_allocated_designs_only() -> None:
    loop = [{"id": "a", "level": 0.1, "validation": None}, {"id": "b", "level": None, "validation": None}]
    assert [one["id"] for one in opponents({"origin": "without_heads", "validation": None}, loop)] == ["a"]
    for origin in ("without_learned", "uniform8"):
        assert opponents({"origin": origin, "validation": None}, loop) == loop


def test_what_a_family_is_worth_is_said() -> None:
    row = {"family": "heads", "design": "w", "ours": "c", "edp_ratio": 0.9, "non_inferior": True}
    assert worth([row]) == ["heads: c has 10.0% less EDP than w, which it is not inferior to."]
    assert "no design of the full loop matches" in worth([{**row, "ours": None}])[0]
