"""What `accelsim quantize --method qvit` prints."""

from __future__ import annotations

from typing import Any

STAGES = {
    "float": "float", "learned": "as trained at the freeze", "settled": "whole widths within the budget",
    "tied": "scales of one sum tied", "trained": "end of training", "fake_quantized": "checkpoint, fake quantized",
    "integers": "checkpoint, integers",
}  # fmt: skip


def lines(found: dict[str, Any]) -> list[str]:
    """How the training went, what every stage costs in accuracy, and what the plan takes on the target."""
    done, sites = found["training"], found["sites"]
    kind = f"a width per {sites['granularity']}" if found["learned"] else "fixed widths"
    mean = found["mean_bits"]
    text = [
        f"  training        {done['steps']:,} steps of {done['batch']} images, rate {done['rate']:g}; {kind}, from "
        f"{found['start_bits']} bits, {'seven scales' if found['switchable'] else 'one scale'}",
        f"  widths          {found['parts']} parts, {found['flips']} flips: weights {mean['weights']:.2f}, tensors "
        f"{mean['stored']:.2f} bits on average (first and last layer 8)",
    ]
    for stage, title in STAGES.items():
        if stage in found["accuracy"]:
            label = "top-1" if stage == "float" else ""
            one = found["accuracy"][stage]
            same = f"; same choice as fake quantized on {one['agreement']:.1%}" if "agreement" in one else ""
            text.append(f"  {label:15} {one['top1']:7.2%}   {title}{same}")
    text[2] += f", {found['accuracy']['float']['images']:,} images of {found['validation']}"
    one = found["simulated"]
    if "problem" in one:
        text.append(f"  simulated       {one['arch']} cannot run it: {one['problem']}")
    else:
        text.append(
            f"  simulated       {one['cycles_total']:,} cycles, {one['latency_s'] * 1e3:.4f} ms, "
            f"{one['energy_pj'] / 1e6:.2f} µJ, EDP {one['edp_pj_s'] / 1e3:.4g} nJ·s on {one['arch']}"
        )
    return text + _target(found["target"])


def _target(target: dict[str, Any]) -> list[str]:
    """Where the target's cost changes, and where it does not."""
    if not target:
        return []
    modes = " and ".join("/".join(map(str, target[side])) for side in ("left_modes", "right_modes"))
    low, high = target["simulated_over_estimate"]
    text = [
        f"  target          modes of {modes} bits (activations and filters); simulated over estimated cost of random "
        f"plans {low:.3f} … {high:.3f}"
    ]
    if target["flat"]:
        text.append("  note            every uniform width costs the same on this array: the budget lowers no width")
    elif not target["binds"]:
        text.append("  note            8 bits everywhere are within the budget: it lowers no width")
    return text
