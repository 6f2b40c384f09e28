"""Patch-wise bits in integers: aligned codes in every grouped tensor, and the choices of fake quantization."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from accelsim.problems import AccelsimError
from quant.integer import agreement, compile_integer, run_integer
from quant.patchwise.order import Fixed, Threshold, flags, places
from tests.support.patchwise import LAYERS, TOKENS, labelled, patchwise, seen, trained, without_groups

SLICED = ("norm1", "qkv", "softmax", "values", "norm2", "fc1")
RANKS = tuple(f"{layer}.rank" for layer in LAYERS)


@pytest.mark.parametrize("rule", [Fixed(), Threshold(120)])
@pytest.mark.parametrize("nonlinear", ["", "ibert"])
def test_narrow_codes_are_multiples_within_their_range(rule: Fixed | Threshold, nonlinear: str) -> None:
    """Also where softmax and LayerNorm are integer methods; the words are those of the codes that are stored."""
    checkpoint = patchwise(rule, nonlinear=nonlinear)
    names = [f"{layer}.{name}" for layer in LAYERS for name in SLICED]
    shares = [f"{layer}.rank_softmax" for layer in LAYERS]
    found = run_integer(compile_integer(checkpoint), seen(4, 3), keep=[*names, *RANKS, *shares, "b2.gather"])
    for name in names:
        codes, words = found[name], found[f"{name[:2]}.rank"]
        counts = [20] * 4 if rule == Fixed() else flags(words).sum(1).tolist()
        affine = checkpoint.stored[name]
        assert affine.low <= int(codes.min())
        assert int(codes.max()) <= affine.high
        for image, full in enumerate(counts):
            assert bool((codes[image][..., full:, :] % 16 == 0).all()), name
            assert bool((codes[image][..., :full, :] % 16 != 0).any()), name
    sums = found["b2.rank_softmax"].sum((1, 2))
    order = places(found["b2.rank"])
    assert bool((sums.gather(1, order)[:, 1:].diff(dim=1) <= 0).all())
    assert found["b2.gather"].shape == (4, TOKENS, 192)


def test_all_tokens_full_gives_the_codes_of_the_plain_network() -> None:
    """The same codes with and without groups; and without any ranking, because integer sums have no order."""
    checkpoint, images = patchwise(high=TOKENS, nonlinear="ibert"), seen(4, 4)
    full = run_integer(compile_integer(checkpoint), images, keep=["b3.fc1", "b3.gather", "b3.rank", "head"])
    plain = run_integer(compile_integer(without_groups(checkpoint)), images, keep=["b3.fc1", "head"])
    assert torch.equal(full["b3.fc1"], plain["b3.fc1"])
    assert torch.equal(full["head"], plain["head"])
    unranked = replace(checkpoint, network=trained(), plan=without_groups(checkpoint).plan)
    left = {name for name in checkpoint.stored if "rank" in name}
    unranked = replace(unranked, stored={name: x for name, x in checkpoint.stored.items() if name not in left})
    bare = run_integer(compile_integer(unranked), images, keep=["b3.fc1", "head"])
    assert torch.equal(bare["head"], full["head"])
    assert torch.equal(bare["b3.fc1"].sum(1), full["b3.fc1"].sum(1))
    assert not torch.equal(bare["b3.fc1"], full["b3.fc1"])


def test_ranking_adds_no_float_island_behind_an_integer_softmax() -> None:
    """The class token's shares have the method of the attention's; ranks and gathers are integers always."""
    assert compile_integer(patchwise(nonlinear="ibert")).float_islands == ()
    islands = compile_integer(patchwise()).float_islands
    assert {name for name in islands if "rank" in name} == {f"{layer}.rank_softmax" for layer in LAYERS}


def test_an_image_has_its_own_order_and_count_in_any_batch() -> None:
    """Alone or beside others: the same codes and words."""
    network, images = compile_integer(patchwise(Threshold(120), nonlinear="ibert")), seen(4, 5)
    together = run_integer(network, images, keep=[*RANKS, "head"])
    for k in range(4):
        alone = run_integer(network, images[k : k + 1], keep=[*RANKS, "head"])
        assert all(torch.equal(alone[name][0], together[name][k]) for name in alone)
    assert len({tuple(row) for row in together["b2.rank"].tolist()}) == 4


@pytest.mark.parametrize("rule", [Fixed(), Threshold(120)])
def test_integers_choose_what_fake_quantization_chooses(rule: Fixed | Threshold) -> None:
    """On images of glyphs, with 4 of 8 bits for the narrow tokens."""
    found = agreement(compile_integer(patchwise(rule)), [labelled(64, 1), labelled(64, 2)])
    assert found.same_choice >= 0.95


def test_old_zero_points_are_refused() -> None:
    """Integers need zero points that narrow codes can have."""
    checkpoint = patchwise()
    one = checkpoint.stored["b2.norm2"]
    moved = {**checkpoint.stored, "b2.norm2": replace(one, zero_point=one.zero_point + 2)}
    with pytest.raises(AccelsimError, match=r"b2\.norm2: tokens: a zero point is no multiple of 16"):
        compile_integer(replace(checkpoint, stored=moved))
