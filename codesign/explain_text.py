"""What `accelsim explain` prints: roofline, waits and levers of a design in two screenfuls."""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.explain import Explanation, Lever, RooflinePoint, UnitWait
from accelsim.head_costs import COMPARED_BITS, HeadCost

OPS_SHOWN = 3
PJ_PER_NJ = 1e3


def explanation_lines(found: Explanation) -> list[str]:
    """The explanation as text."""
    report = found.report
    workload, plan = report.table.quantized.workload, report.table.quantized.plan
    total = report.result.cycles_total
    title = f"{workload.name} at {workload.resolution} on {report.accelerator.name}, plan {plan.name}: {total:,} cycles"
    return [title, "", *_roofline(found), "", *_waits(found.waits, total), "", *_levers(found)]


def head_lines(costs: Sequence[HeadCost]) -> list[str]:
    """A table of attention heads: their widths, what they take, and what they would take at 8 bits."""
    names = max(5, *(len(cost.layer) for cost in costs))
    lines = [
        "Attention heads: widths of query, key, value, attention, output (q k v a o) and of their filters, mean",
        "(qkv, projection); cycles of array engines; dynamic energy; change of the network when this head runs at"
        f" {COMPARED_BITS} bits",
        f"  {'layer':{names}} head  q  k  v  a  o   qkv  proj {'QKT':>7} {'AV':>7} {'proj':>8} {'qkv':>8}"
        f" {'nJ':>9} {'cycles':>8} {'nJ':>9}",
    ]
    return lines + [f"  {cost.layer:{names}} {_head(cost)}" for cost in costs]


def _head(cost: HeadCost) -> str:
    widths = (cost.query_bits, cost.key_bits, cost.value_bits, cost.attention_bits, cost.output_bits)
    cycles = "-" if cost.more_cycles is None else f"{cost.more_cycles:+,}"
    energy = "-" if cost.more_pj is None else f"{cost.more_pj / PJ_PER_NJ:+,.1f}"
    return (
        f"{cost.head:4} {''.join(f'{bits:3}' for bits in widths)} {cost.qkv_filter_bits:5.1f}"
        f" {cost.projection_filter_bits:5.1f} {cost.scores_cycles:7,.0f} {cost.values_cycles:7,.0f}"
        f" {cost.projection_cycles:8,.0f} {cost.qkv_cycles:8,.0f} {cost.energy_pj / PJ_PER_NJ:9,.1f} {cycles:>8}"
        f" {energy:>9}"
    )


def _roofline(found: Explanation) -> list[str]:
    names = max(len(point.name) for point in found.points)
    lines = [
        "Roofline of every op (rates per cycle; work of vector ops in operations; active: a row of the op in progress)",
        f"  {'op':{names}} {'work':>13} {'DRAM bytes':>11} {'active':>9} {'per byte':>9} {'attained':>9} {'peak':>8}"
        f" {'DRAM roof':>10}  {'of roof':>7}  bound",
    ]
    lines += [f"  {point.name:{names}} {_point(point)}" for point in found.points]
    macs = [point for point in found.points if point.work_unit == "MACs"]
    starved = sum(point.bound == "dram" for point in macs)
    return [
        *lines,
        f"  {starved} of {len(macs)} ops with MACs are under the DRAM roof, the others under their engines'.",
    ]


def _point(point: RooflinePoint) -> str:
    intensity = "-" if point.intensity is None else f"{point.intensity:,.1f}"
    roof = "-" if point.dram_roof is None else f"{point.dram_roof:,.1f}"
    share = f"{point.attained / point.roof:.1%}" if point.roof else "-"
    unit = ", ".join(point.engines)
    return (
        f"{point.work:13,} {point.dram_bytes:11,.0f} {point.active_cycles:9,.0f} {intensity:>9} {point.attained:9,.1f} "
        f"{point.peak:8,.1f} {roof:>10}  {share:>7}  {point.bound} ({unit})"
    )


def _waits(waits: tuple[UnitWait, ...], total: int) -> list[str]:
    lines = ["Waits by unit and cause, with the ops that lose most and the units that they waited for"]
    for wait in waits:
        lines.append(f"  {wait.unit:10} {wait.cause:10} {wait.cycles:11,.0f} cycles {wait.cycles / total:7.1%}")
        for op in wait.ops[:OPS_SHOWN]:
            units = ", ".join(f"{unit} {cycles:,.0f}" for unit, cycles in op.blocked_by.items())
            lines.append(f"      {op.op}: {op.cycles:,.0f} (blocked by {units})")
    return lines


def _levers(found: Explanation) -> list[str]:
    lines = [f"Levers ({len(found.levers)} single changes mapped and simulated anew; gain = 1 - new / old)"]
    for title, gain in (("by latency", "latency_gain"), ("by EDP", "edp_gain")):
        lines.append(f"  best {title}:")
        best = found.best(gain)
        lines += [f"    {_lever(lever)}" for lever in best] or ["    none of the changes helps"]
    impossible = [lever for lever in found.levers if lever.problem]
    return lines + [f"  not possible: {lever.change}: {lever.problem}" for lever in impossible]


def _lever(lever: Lever) -> str:
    return (
        f"{lever.change:32} {lever.cycles:,} cycles, latency {lever.latency_gain:+.1%}, EDP {lever.edp_gain:+.1%} "
        f"(arithmetic) {lever.edp_gain_synthesized:+.1%} (synthesized), area {lever.area_cost_mm2:+.3f} mm²"
    )
