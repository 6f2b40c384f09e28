"""Penalties of methods, two-region formats, parts and token groups: what each number is, by plans quantized whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from accelsim.formats import Format
from accelsim.head_widths import HeadWidths
from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError
from quant.fake import FakeQuantized
from quant.functional import fake_quantize
from quant.network import Numerics, forward
from quant.patchwise.network import ranked
from quant.patchwise.plans import with_groups
from quant.penalties.assemble import in_order
from quant.penalties.choices import StoredChoice
from quant.penalties.measure import measure_penalties
from quant.penalties.settings import Settings
from quant.penalties.table import PenaltyTable, load_penalties
from quant.quantize import quantize_plan
from tests.support.networks import images_of, tiny_vit

ALL = Settings(
    ("u8", "u4"), ("u8", "u4", "r4"), methods=("ivit", "ibert", "fqvit"), head_formats=("u4",),
    token_shares=(0.5, 0.2), drop_bits=4,
)  # fmt: skip


def images(network, seed=1):
    return list(images_of(network, 12, seed).split(6))


@pytest.fixture(scope="module")
def vit():
    return tiny_vit()


@pytest.fixture(scope="module")
def table(vit):
    return measure_penalties(vit, images(vit), images(vit, 2), ALL)


@pytest.fixture(scope="module")
def in_ranks(vit):
    network = ranked(vit, ["b1"])
    return network, measure_penalties(network, images(network), images(network, 2), ALL)


class Some(Numerics):
    """Floating point but for some ops, whose stored outputs a checkpoint rounds; `coded` reads codes of its input."""

    def __init__(self, checkpoint, ops, coded=""):
        self.checkpoint, self.fake, self.ops, self.coded = checkpoint, FakeQuantized(checkpoint), ops, coded

    def operand(self, node, position, value):
        if node.name != self.coded:
            return value
        return fake_quantize(value, self.checkpoint.stored[node.operands[0].source])

    def nonlinear(self, node, operands):
        return self.fake.nonlinear(node, operands) if node.name in self.ops else None

    def stored(self, node, value):
        return self.fake.stored(node, value) if node.name in self.ops else value

    def narrowed(self, node, value, operands):
        return self.fake.narrowed(node, value, operands) if node.name in self.ops else value


def loss(network, numerics):
    rows = []
    with torch.no_grad():
        for part in images(network, 2):
            exact, found = (forward(network, part, one).double().log_softmax(1) for one in (Numerics(), numerics))
            rows.append(F.kl_div(found, exact, log_target=True, reduction="none").sum(1))
    return float(torch.cat(rows).mean())


def chosen(plan, op, choice):
    return replace(plan, rules=tuple(choice.applied(rule) if rule.match == op else rule for rule in plan.rules))


def made(network, plan):
    return quantize_plan(network, images(network), plan)[1]


def test_a_group_has_the_choices_that_it_can_have(table):
    plain = ["u8", "u4"]
    by_method = [f"{fmt}+{name}" for name in ("ivit", "ibert", "fqvit") for fmt in plain]
    assert list(table.activations["b0.norm1"]) == plain + by_method
    assert list(table.activations["b0.qkv"]) == plain
    names = list(table.activations["b0.softmax"])
    assert names[:2] == plain
    (regions,) = {name for name in names if name.startswith("r4p") and "+" not in name}
    expected = [f"{fmt}+{name}" for name in ("ivit", "ibert") for fmt in (*plain, regions)]
    assert names == [*plain, regions, *expected, "log4+fqvit"]
    (of_gelu,) = (name for name in table.activations["b0.fc1"] if name not in plain)
    assert of_gelu.startswith("r4n")


@pytest.mark.parametrize(("op", "name"), [("b0.softmax", "u4+ivit"), ("b1.norm1", "u4+ibert"), ("b1.norm2", "u4+fqvit"),
                                          ("b1.softmax", "log4+fqvit")])  # fmt: skip
def test_a_method_loses_what_it_adds_to_the_float_function_of_the_same_codes(vit, table, op, name):
    whole = made(vit, chosen(table.base, op, StoredChoice.parse(name)))
    found = loss(vit, Some(whole, (op,))) - loss(vit, Some(made(vit, table.base), (op,), coded=op))
    assert found > 0
    assert table.activations[op][name] == pytest.approx(found, rel=1e-4)


def test_regions_lose_what_their_format_loses_alone(vit, table):
    name = next(one for one in table.activations["b0.fc1"] if one.startswith("r"))
    found = [loss(vit, Some(made(vit, chosen(table.base, "b0.fc1", StoredChoice.parse(one))), ("b0.fc1",)))
             for one in ("u8", name)]  # fmt: skip
    assert table.activations["b0.fc1"][name] == pytest.approx(found[1] - found[0], rel=1e-4)


class OnePart(Some):
    """Rounds one sixth of the channels only."""

    def __init__(self, checkpoint, op, part):
        super().__init__(checkpoint, (op,))
        self.part = part

    def stored(self, node, value):
        if node.name not in self.ops:
            return value
        parts, own = list(value.chunk(6, -1)), self.fake.stored(node, value).chunk(6, -1)
        parts[self.part] = own[self.part]
        return torch.cat(parts, -1)


def test_a_part_loses_what_it_loses_alone_with_a_scale_of_its_own(vit, table):
    assert set(table.parts) == {"b0.qkv", "b1.qkv"}
    for part in (0, 5):
        found = []
        for bits in (8, 4):
            heads = StoredChoice(Format.parse(f"u{bits}"), heads=HeadWidths((bits,) * 6))
            found.append(loss(vit, OnePart(made(vit, chosen(table.base, "b1.qkv", heads)), "b1.qkv", part)))
        assert table.parts["b1.qkv"]["u4"][part] == pytest.approx(max(0.0, found[1] - found[0]), rel=1e-4, abs=1e-9)
    assert sum(value > 0 for value in table.parts["b1.qkv"]["u4"]) >= 4


def test_token_groups_lose_what_narrow_rows_add(in_ranks):
    network, table = in_ranks
    assert table.parts == {}
    assert table.drop_bits == 4
    assert list(table.tokens["b1"]) == ["full", "2", "1"]
    assert table.tokens["b1"]["full"] == 0
    plan = with_groups(network, table.base, {"b1": 2}, 4)
    ops = tuple(rule.match for rule in plan.rules if rule.tokens is not None)
    found = loss(network, Some(made(network, plan), ops)) - loss(network, Some(made(network, table.base), ops))
    assert table.tokens["b1"]["2"] == pytest.approx(max(0.0, found), rel=1e-4)
    assert table.loss_of(plan) == table.tokens["b1"]["2"]


def test_every_choice_of_a_ranked_network_is_a_legal_plan(in_ranks):
    """The copy in the order of importance follows what it copies, the class token's shares all shares."""
    network, table = in_ranks
    ops = {one.name: one.ops for one in table.groups}
    assert "b1.gather" in ops["b0.mlp_add"]
    assert ops["b0.softmax"] == ("b0.softmax", "b1.rank_softmax")
    assert not any(name[0] in "rl" for name in table.activations["b0.softmax"])
    assert any(name[0] == "r" for name in table.activations["b1.softmax"])
    for group, values in table.activations.items():
        for name in values:
            rules = (StoredChoice.parse(name).applied(r) if r.match in ops[group] else r for r in table.base.rules)
            plan = replace(table.base, rules=tuple(rules))
            apply_plan(network.workload, plan)
            assert table.loss_of(plan) == values[name]


def test_the_loss_of_a_plan_is_the_sum_of_its_choices(vit, table):
    heads = HeadWidths((8, 4, 4, 8, 4, 8))
    plan = chosen(table.base, "b0.qkv", StoredChoice(Format.parse("u8"), heads=heads))
    plan = chosen(plan, "b0.softmax", StoredChoice.parse("log4+fqvit"))
    plan = chosen(plan, "b1.norm1", StoredChoice.parse("u4+ibert"))
    alone = table.parts["b0.qkv"]["u4"]
    expected = alone[1] + alone[2] + alone[4]
    expected += table.activations["b0.softmax"]["log4+fqvit"] + table.activations["b1.norm1"]["u4+ibert"]
    assert table.loss_of(plan) == pytest.approx(expected)
    apply_plan(vit.workload, plan)


@pytest.mark.parametrize(
    ("op", "choice", "message"),
    [
        ("b0.qkv", StoredChoice(Format.parse("u8"), heads=HeadWidths((8, 3, 8, 8, 8, 8))), "parts in u3 are not in"),
        ("b0.qkv", StoredChoice(Format.parse("u8"), heads=HeadWidths((8, 4))), "2 parts, which the table does not"),
        ("b0.softmax", StoredChoice(Format.parse("u8"), heads=HeadWidths((8, 4))), "2 parts, which the table"),
        ("b0.norm1", StoredChoice.parse("r4p1+ivit"), r"r4p1\+ivit is not in the penalty table"),
    ],
)
def test_choices_that_the_table_lacks_are_refused(table, op, choice, message):
    with pytest.raises(AccelsimError, match=message):
        table.loss_of(chosen(table.base, op, choice))


def test_other_numbers_of_tokens_and_bits_are_refused(in_ranks, table):
    network, own = in_ranks
    for plan, message in ((with_groups(network, own.base, {"b1": 3}, 4), "3 is not in the penalty table"),
                          (with_groups(network, own.base, {"b1": 2}, 3), "3 bits fewer")):  # fmt: skip
        with pytest.raises(AccelsimError, match=message):
            own.loss_of(plan)
    with pytest.raises(AccelsimError, match=r"tokens of layer b1: the table has no token groups"):
        replace(own, tokens={}).loss_of(with_groups(network, own.base, {"b1": 2}, 4))


def test_files_hold_parts_and_tokens_and_old_ones_have_none(table, in_ranks, tmp_path):
    for one in (table, in_ranks[1]):
        one.save(tmp_path / "t.json")
        again = load_penalties(tmp_path / "t.json")
        assert again.fingerprint() == one.fingerprint()
        assert (again.parts, again.tokens, again.drop_bits) == (one.parts, one.tokens, one.drop_bits)
    old = {key: value for key, value in table.to_json().items() if key not in ("parts", "tokens", "drop_bits")}
    read = PenaltyTable.from_json({**old, "format": "quant.penalties/1"})
    assert (read.parts, read.tokens, read.drop_bits) == ({}, {}, 0)
    assert read.activations == table.activations


def test_only_uniform_formats_of_one_method_are_put_in_order():
    given = {
        "u8": 0.0,
        "u6": 0.3,
        "u4": 0.1,
        "r6p3": 0.2,
        "r4p3": 0.05,
        "u8+ivit": 0.5,
        "u4+ivit": 0.4,
        "u4+ibert": -1.0,
    }
    found = in_order(given)
    assert found == {**given, "u4": 0.3, "u4+ivit": 0.5, "u4+ibert": 0.0}
    assert list(found) == list(given)


def test_work_of_some_settings_is_used_by_others(vit, table, tmp_path):
    """The cache holds changes, so more options measure only what is new, and come to the same table."""
    few = replace(ALL, methods=(), head_formats=())
    one = measure_penalties(vit, images(vit), images(vit, 2), few, tmp_path / "cache")
    steps = []
    again = measure_penalties(
        vit, images(vit), images(vit, 2), ALL, tmp_path / "cache", lambda *at: steps.append(at[1:])
    )
    assert again.fingerprint() == table.fingerprint()
    assert steps[0][0] > 1
    plain = {group: {k: v for k, v in of.items() if "+" not in k} for group, of in table.activations.items()}
    assert one.activations == plain
    assert np.array_equal(one.filters["b0.qkv"], table.filters["b0.qkv"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ("ivit", "none")}, "methods: is ivit, none"),
        ({"methods": ("ivit", "ivit")}, "each once"),
        ({"head_formats": ("u8",)}, "u8 is no narrower part"),
        ({"activation_formats": ("u8", "r9")}, "r9 has 9 bits"),
        ({"token_shares": (0.5, 1.5)}, "token_shares: is 0.5, 1.5"),
        ({"drop_bits": 7}, "drop_bits: is 7"),
    ],
)
def test_options_that_do_not_exist_are_refused(settings, message):
    with pytest.raises(AccelsimError, match=message):
        Settings(**settings)
