"""Networks with two-region softmax and GELU outputs: fake-quantized, in integers, saved, trained; untied steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from accelsim.formats import Format
from accelsim.problems import AccelsimError
from quant.calibrated import Checkpoint
from quant.checkpoint import load, save
from quant.collect import Statistics, WeightedSample
from quant.fake import FakeQuantized
from quant.finetune.numerics import Trainable
from quant.integer import IntegerNetwork, agreement, compile_integer, run_integer
from quant.methods.uniform import Uniform
from quant.network import Network, forward, run
from quant.onnx_export import export_onnx
from quant.quantize import calibrated, gather, make_plan, quantize
from quant.regions.choose import choose
from quant.regions.codes import pack, region_levels, region_values
from quant.regions.untied import untied_steps
from quant.separate import separate
from quant.views import rearrange
from tests.support.networks import images_of, tiny_vit

FORMATS = {"b0.fc1": "r6n4", "b0.softmax": "r6p5", "b1.fc1": "r4n2", "b1.softmax": "r8p3"}


@dataclass(frozen=True)
class Given(Uniform):
    """Uniform but for the outputs that are named."""

    formats: Mapping[str, str] = field(default_factory=dict)

    def outputs(self, network: Network, statistics: Statistics) -> dict[str, Format]:
        return {name: Format.parse(text) for name, text in self.formats.items()}


def made(network: Network, formats: Mapping[str, str], gelus: str = "fc1") -> Checkpoint:
    given = {name.replace("fc1", gelus): one for name, one in formats.items()}
    method = Given(zero_points=False, formats=given)
    return quantize(network, list(torch.split(images_of(network, 64), 16)), method)[1]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return made(tiny_vit(), FORMATS)


def assert_levels(codes: Mapping[str, Tensor], formats: Mapping[str, str]) -> None:
    for name, text in formats.items():
        fmt = Format.parse(text)
        assert set(codes[name].unique().tolist()) <= set(region_levels(fmt).tolist()), name  # type: ignore[no-untyped-call]
        assert len(set(pack(codes[name], fmt).flatten().tolist())) > 4, name


def integers(network: IntegerNetwork, checkpoint: Checkpoint) -> dict[str, Tensor]:
    names = [node.op.output for node in checkpoint.network.nodes]
    return run_integer(network, images_of(checkpoint.network, 16, seed=5), keep=names)


def test_steps_are_chosen_for_the_shift_of_the_format(checkpoint: Checkpoint) -> None:
    network = tiny_vit()
    seen = gather(network, torch.split(images_of(network, 64), 16), Given(zero_points=False))
    for name, text in FORMATS.items():
        fmt, affine = Format.parse(text), checkpoint.stored[name]
        wanted = choose(seen.groups[name][0].values.flatten(), fmt.bits, fmt.low_negative, fixed=fmt.region_shift)
        assert float(affine.scale) == wanted.step
        levels = region_levels(fmt)
        assert (affine.low, affine.high) == (levels[0], levels[-1])
        assert not affine.zero_point.any()


def test_weights_of_slopes_move_the_step() -> None:
    network, method = tiny_vit(), Given(zero_points=False, formats={"b0.fc1": "r4n2"})
    batches = list(torch.split(images_of(network, 64), 16))
    seen = gather(network, batches, method)
    plan = make_plan(network, method, seen)
    plain = calibrated(network, batches, plan, seen)
    values = seen.groups["b0.fc1"][0].values.flatten()
    seen.slopes["b0.fc1"] = WeightedSample(values, (values.abs() < 0.2).float())
    weighted = calibrated(network, batches, plan, seen)
    assert float(weighted.stored["b0.fc1"].scale) < float(plain.stored["b0.fc1"].scale) / 2


def test_stored_values_are_levels_times_the_step(checkpoint: Checkpoint) -> None:
    network, numerics = checkpoint.network, FakeQuantized(checkpoint)
    images = images_of(network, 8, seed=5)
    found = run(network, images, numerics, keep=FORMATS)
    codes = {name: (found[name] / checkpoint.stored[name].scale).round().long() for name in FORMATS}
    assert_levels(codes, FORMATS)
    # The first GELU reads what is the same in both, so that its values can be computed here.
    before = run(network, images, numerics, keep=["b0.norm2"])["b0.norm2"]
    node = network.node("b0.fc1")
    weight, bias = numerics.parameters(node)
    assert weight is not None
    inner = numerics.accumulator(node, torch.nn.functional.linear(before, weight, bias))
    expected = region_values(torch.nn.functional.gelu(inner), checkpoint.stored["b0.fc1"].scale, Format.parse("r6n4"))
    assert found["b0.fc1"].equal(expected)


@pytest.mark.parametrize("separated", [False, True])
def test_integers_agree_and_every_stored_code_is_a_level(separated: bool) -> None:
    """GELUs in the output stage, or tables of the vector unit; softmaxes are float islands here."""
    network = separate(tiny_vit()) if separated else tiny_vit()
    names = {node.op.output for node in network.nodes}
    gelus = next(name for name in names if name.startswith("b0.fc1") and (".gelu" in name or not separated))
    checkpoint = made(network, FORMATS, gelus.removeprefix("b0."))
    compiled = compile_integer(checkpoint)
    assert_levels(integers(compiled, checkpoint), {n.replace("fc1", gelus[3:]): f for n, f in FORMATS.items()})
    images = images_of(network, 64, seed=5)
    with torch.no_grad():
        labels = forward(network, images).argmax(1)
    found = agreement(compiled, [(images, labels)])
    as_wide = {name: f"u{Format.parse(text).bits}" for name, text in FORMATS.items()}
    uniform = agreement(compile_integer(made(network, as_wide, gelus.removeprefix("b0."))), [(images, labels)])
    assert found.float_islands == uniform.float_islands
    # Random weights and many roundings: codes differ by as little as they do with uniform formats of the same width.
    assert found.mean_difference < 1.2 * uniform.mean_difference
    assert found.same_choice > 0.85


@pytest.mark.parametrize("name", FORMATS)
def test_each_integer_step_gives_the_fake_quantized_levels(checkpoint: Checkpoint, name: str) -> None:
    """From the same operands: equal but where the table's input, or a sum in float32, falls between two codes."""
    network, compiled = checkpoint.network, compile_integer(checkpoint)
    images, node = images_of(network, 32, seed=5), network.node(name)
    sources = [operand.source for operand in node.operands]
    fake = run(network, images, FakeQuantized(checkpoint), keep=[name, *sources])
    codes = {x: (fake[x] / checkpoint.stored[x].scale).round().long() for x in (name, *sources)}
    operands = [rearrange(codes[one.source], one.views, len(images)) for one in node.operands]
    found = compiled.step(name).run(operands)
    assert float((found == codes[name]).double().mean()) > 0.98
    places = torch.from_numpy(region_levels(Format.parse(FORMATS[name])))
    apart = torch.searchsorted(places, found) - torch.searchsorted(places, codes[name])
    # Steps of the table's 8-bit input are as fine as two levels at most.
    assert int(apart.abs().max()) <= 2


def test_a_saved_checkpoint_computes_the_same(checkpoint: Checkpoint, tmp_path: Path) -> None:
    images = images_of(checkpoint.network, 8, seed=5)
    save(checkpoint, tmp_path)
    with torch.no_grad():
        expected = forward(checkpoint.network, images, FakeQuantized(checkpoint))
    assert load(tmp_path)(images).equal(expected)
    ours, theirs = (integers(compile_integer(one), one) for one in (checkpoint, load(tmp_path).checkpoint))
    assert all(ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.parametrize("learn_scales", [False, True])
def test_training_starts_at_the_checkpoint_and_trains_what_is_behind_it(
    checkpoint: Checkpoint, learn_scales: bool
) -> None:
    images = images_of(checkpoint.network, 8, seed=5)
    model = Trainable(checkpoint, tiny_vit(), learn_scales)
    logits = model.logits(images)
    with torch.no_grad():
        assert logits.equal(forward(checkpoint.network, images, FakeQuantized(checkpoint)))
    logits.square().sum().backward()  # type: ignore[no-untyped-call]
    for name, value in model.parameters_by_name().items():
        assert value.grad is not None, name
    behind = model.parameters_by_name()["filters/b0.fc1/weight"].grad
    assert behind is not None
    assert bool(behind.any())
    if learn_scales:
        for name in ("b0.fc1", "b1.softmax"):
            growth = model.parameters_by_name()[f"stored/{name}/growth"].grad
            assert growth is not None
            assert bool(growth.any()), name
        with torch.no_grad():
            for one in model.scales.values():
                one.growth += 0.1
        trained = model.trained()
        assert_levels(integers(compile_integer(trained), trained), FORMATS)


def test_the_gradient_of_a_step_is_balanced_as_those_of_other_scales(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def none(numel: int, high: int) -> float:
        asked.append((numel, high))
        return 0.0

    monkeypatch.setattr("quant.finetune.numerics.gradient_multiplier", none)
    images = images_of(checkpoint.network, 8, seed=5)
    model = Trainable(checkpoint, tiny_vit(), learn_scales=True)
    model.logits(images).square().sum().backward()  # type: ignore[no-untyped-call]
    assert (8 * 5 * 24, 31 << 4) in asked  # values of b0.fc1, highest level of r6n4
    for name in FORMATS:
        growth = model.parameters_by_name()[f"stored/{name}/growth"].grad
        assert growth is not None
        assert not growth.any(), name


def test_onnx_refuses_two_regions_by_name(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(AccelsimError, match="two-region format has no ONNX form") as error:
        export_onnx(checkpoint, tmp_path / "model.onnx")
    assert {problem.where for problem in error.value.problems} == {f"onnx: {name}" for name in FORMATS}


def test_untied_steps_round_in_the_fake_quantized_network_only(tmp_path: Path) -> None:
    network = tiny_vit()
    batches = list(torch.split(images_of(network, 64), 16))
    plain, seen = made(network, {}), gather(network, batches, Given())
    steps = {
        name: untied_steps(seen.groups[name][0].values.flatten(), 4, "fc1" in name) for name in ("b0.fc1", "b1.softmax")
    }
    checkpoint = replace(plain, untied=steps)
    images = images_of(network, 8, seed=5)
    found = run(network, images, FakeQuantized(checkpoint), keep=["b0.fc1"])["b0.fc1"]
    assert not found.equal(run(network, images, FakeQuantized(plain), keep=["b0.fc1"])["b0.fc1"])
    assert found.equal(steps["b0.fc1"].values(found))
    assert len(set(found.flatten().tolist())) <= 16
    save(checkpoint, tmp_path)
    again = load(tmp_path)
    assert again.checkpoint.untied == steps
    with torch.no_grad():
        assert again(images).equal(forward(network, images, FakeQuantized(checkpoint)))
    with pytest.raises(AccelsimError, match=r"untied steps of b0.fc1, b1.softmax are not executable in integers"):
        compile_integer(checkpoint)
    with pytest.raises(AccelsimError, match="no ONNX form"):
        export_onnx(checkpoint, tmp_path / "model.onnx")
