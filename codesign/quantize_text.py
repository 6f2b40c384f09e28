"""What `quantize` and `eval` print."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.plan import apply_plan
from codesign.run_design import DEFAULT_ARCH

if TYPE_CHECKING:
    from quant.calibrated import Checkpoint
    from quant.evaluate import Evaluation


def print_quantized(folder: Path, summary: dict[str, Any], checkpoint: Checkpoint, arch: str) -> None:
    """The plan in a few lines, and what to do next: also a run on that accelerator."""
    from quant.costs import average_bits, bit_operations

    quantized = apply_plan(checkpoint.network.workload, checkpoint.plan)
    filters: dict[str, int] = {}
    for item in quantized.ops:
        for part in item.weights:
            count = item.op.loop.groups * item.op.loop.cols if item.op.loop else 0
            filters[part.format.name] = filters.get(part.format.name, 0) + round(count * (part.share or 0.0))
    formats = ", ".join(f"{count:,} {name}" for name, count in filters.items())
    print(f"{summary['model']} quantized with {summary['method']} in {summary['seconds']:.1f} s")
    print(f"  filters         {formats}")
    print(f"  weights         {average_bits(quantized):.2f} bits on average")
    print(f"  bit operations  {bit_operations(quantized) / 1e9:.3f} G per image")
    if "budget" in summary:
        one = summary["budget"]
        print(f"  budget          {one['kind']}: {one['spent']:.6g} of {one['limit']:.6g} ({one['chosen']})")
    if "greedy" in summary:
        print("\n".join(_greedy(summary["greedy"])))
    if "frontier" in summary:
        print("\n".join(_frontier(summary["frontier"], summary["search"])))
    if "learned_bits" in summary:
        from codesign.learned.text import lines as learned_lines

        print("\n".join(learned_lines(summary["learned_bits"])))
    if "patchwise" in summary:
        print("\n".join(_patchwise(summary["patchwise"], summary["method_options"]["patchwise"])))
    if checkpoint.untied:
        print("  integers        none: steps that are not tied are not executable in integers (--regions opt is)")
    if "nonlinear" in summary:
        from codesign.nonlinear.text import lines

        print("\n".join(lines(summary)))
    kept = {"greedy": ", evaluations.jsonl", "frontier": ", sensitivity.json",
            "learned_bits": ", bits.jsonl, bits.png, bits_over_time.png"}  # fmt: skip
    more = "".join(text for name, text in kept.items() if name in summary)
    print(f"  written         {folder}/plan.yaml, workload.json, checkpoint.json, checkpoint.safetensors{more}")
    print(f"  next            accelsim eval {folder} --data {summary['data']}")
    other = "" if arch == DEFAULT_ARCH else f" --arch {arch}"
    print(f"                  accelsim run {folder}/workload.json --plan {folder}/plan.yaml{other}")


def _greedy(found: dict[str, Any]) -> list[str]:
    """How a search went, and how many layers and tensors have which width."""
    lines = [
        f"  greedy          {found['moves']} moves, {found['evaluations']} losses on {found['images']} images: "
        f"{found['start_loss']:.4f} → {found['loss']:.4f} nats ({found['score']}, {found['search']})"
    ]
    return lines + _widths(found)


def _frontier(found: dict[str, Any], took: dict[str, Any]) -> list[str]:
    """What was measured and at what price, what is predicted, and how many layers and tensors have which width."""
    lines = [
        f"  sensitivity     {found['components']} components by {found['metric']} on {found['images']} images: "
        f"{took['passes']['forward']:.1f} forward passes, {took['seconds']:.1f} s",
        f"  frontier        {found['points']} points, slack {found['slack']:.3g}, {found['rounds']} rounds: error "
        f"{found['error']:.4g} (at least {found['least_error']:.4g}), of the logits {found['output_error']:.4g}",
    ]
    return lines + _widths(found)


def _patchwise(found: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Which tokens keep their bits, and what that means on images."""
    threshold = asked["share_256"]
    rule = f"those with {threshold}/256 of the importance" if threshold else "a fixed number"
    full = ", ".join(f"{layer} {mean:.1f}" for layer, mean in found["mean_full_tokens"].items())
    cycles, edp, worst = (found[kind][metric] for kind, metric in (
        ("simulated", "cycles"), ("simulated", "edp_pj_s"), ("worst_case", "cycles"),
    ))  # fmt: skip
    return [
        f"  full tokens     {rule} ({asked['importance']} attention), others {asked['drop_bits']} bits fewer; mean on "
        f"{found['images']} images: {full}",
        f"    on {found['arch']}: {cycles['mean']:,.0f} cycles on the mean, p5 {cycles['p5']:,.0f}, p95 "
        f"{cycles['p95']:,.0f}, all tokens full {worst:,.0f}; EDP {edp['mean']:,.1f} pJ·s; {found['bops'] / 1e9:.3f} "
        "Gbitops",
    ]


def _widths(found: dict[str, Any]) -> list[str]:
    lines = []
    for title, widths in (("weights", found["weight_bits"]), ("activations", found["tensor_bits"])):
        if not widths:  # a storage budget leaves those of tensors as they are
            continue
        counts = Counter(widths.values())
        each = ", ".join(f"{counts[bits]} of {bits} bits" for bits in sorted(counts, reverse=True))
        lines.append(f"    {title:14}{each}")
    return lines


def figures(result: Evaluation, of: Evaluation | None = None) -> dict[str, Any]:
    """Plain figures of a measurement; with `of`, also how `of` compares with it, image by image."""
    data: dict[str, Any] = {"images": len(result.labels), "top1": result.top1, "cross_entropy": result.cross_entropy}
    if of is None:
        return data
    from quant.statistics import compare

    return data | {
        "agreement": of.agreement(result),
        "logit_sqnr_db": of.logit_sqnr_db(result),
        "paired": asdict(compare(result.correct, of.correct)),
    }


def print_figures(data: dict[str, Any]) -> None:
    """A measurement in a few lines."""
    print(f"{data['checkpoint']} on {data['images']:,} images of {data['data']} ({data['split']})")
    print(f"  top-1           {data['top1']:.2%}   cross-entropy {data['cross_entropy']:.4f}")
    if "against" in data:
        one, pair = data["against"], data["against"]["paired"]
        print(f"  against         {one['checkpoint']}: top-1 {one['top1']:.2%}, same choice {one['agreement']:.2%}, "
              f"logit SQNR {one['logit_sqnr_db']:.1f} dB")  # fmt: skip
        low, high = (100 * end for end in pair["interval"])
        verdict = "yes" if pair["non_inferior"] else "no"
        print(f"  change          {100 * pair['difference']:+.2f} points ({low:+.2f} … {high:+.2f} at 95 %)")
        print(f"  tests           exact McNemar p {pair['p_value']:.2g}; at most half a point worse: {verdict}")
    if "integer" in data:
        one = data["integer"]
        print(f"  integers        top-1 {one['top1']:.2%}, same choice as fake-quantized {one['agreement']:.2%}")
        print(f"  float islands   {', '.join(one['float_islands']) or 'none'}")
