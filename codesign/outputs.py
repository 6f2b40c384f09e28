"""What the command line prints and writes of one run: summary, trace, and checks before the work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from accelsim.program import CAUSES
from accelsim.trace import TraceRow, perfetto_trace
from codesign.plots.frame import SUFFIXES

if TYPE_CHECKING:
    from accelsim.api import Report
    from accelsim.mappers.exhaustive import Found


def check_outputs(paths: Iterable[str | None], picture: str | None = None) -> None:
    """Refuse outputs that cannot be written before anything is computed.  Raises AccelsimError with every fault.

    `picture` is drawn by matplotlib, so its name must end in .png or .svg.
    """
    chosen = [path for path in [*paths, picture] if path is not None]
    problems = []
    for path in dict.fromkeys(chosen):
        if chosen.count(path) > 1:
            problems.append(Problem(path or "command line", "is asked for more than once", "one name for each output"))
        if path == "-":
            continue
        folder = Path(path).parent
        if not path or Path(path).is_dir():
            problems.append(
                Problem(path or "command line", "is not the name of a file", "a file name, or - (JSON only)")
            )
        elif not folder.is_dir():
            problems.append(
                Problem(path, f"there is no folder {folder}", "an existing folder", (f"mkdir -p {folder}",))
            )
        elif not os.access(folder, os.W_OK) or (Path(path).exists() and not os.access(path, os.W_OK)):
            problems.append(Problem(path, "cannot be written", "a folder and file with write permission"))
    faulty = {problem.where for problem in problems}
    if picture is not None and picture not in faulty and Path(picture).suffix.lower() not in SUFFIXES:
        problems.append(Problem(picture, "unknown kind of picture", "a name that ends in .png or .svg"))
    if problems:
        raise AccelsimError(problems)


def check_folder(name: str, option: str) -> Path:
    """The folder of an option, which is there or can be made.  Raises AccelsimError when neither is so."""
    folder = Path(name)
    if not name or (folder.exists() and not folder.is_dir()):
        raise AccelsimError(Problem(name or option, "is not a folder", "a folder, or a name for a new one"))
    if not folder.parent.is_dir():
        levers = (f"mkdir -p {folder.parent}",)
        raise AccelsimError(Problem(name, f"there is no folder {folder.parent}", "an existing folder", levers))
    return folder


def make_folder(folder: Path) -> None:
    """Make a folder of `check_folder` unless it is there.  Raises AccelsimError when the system refuses."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise AccelsimError(Problem(str(folder), f"cannot be made ({error.strerror})", "a writable place")) from error


def check_any(path: str) -> list[Problem]:
    """Every fault of an accelerator, plan, sweep or workload file (or of a preset or built-in plan, by its name)."""
    from accelsim.config import check_file, load_accelerator, load_plan, plan_names, preset_names

    if not Path(path).exists() and path in (*preset_names(), *plan_names()):
        # The built-in files are checked by the tests: loading one is enough.
        (load_accelerator if path in preset_names() else load_plan)(path)
        return []
    try:
        head = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        head = ""
    read: Callable[[str], object] | None = None
    if "accelsim.space/" in head:
        from codesign.space import load_space as read
    elif "accelsim.workload/" in head:
        from accelsim.workloads.from_json import load_workload as read
    if read is None:
        return check_file(path)
    try:
        read(path)
    except AccelsimError as error:
        return list(error.problems)
    return []


def _figure(value: float) -> str:
    """A figure for a screen: a decimal from 100 on, else four significant digits (small networks have small ones)."""
    return f"{value:,.1f}" if value >= 100 else f"{value:.4g}"


def print_summary(report: Report) -> None:
    """The run in a screenful: time, energy under both conventions, area, utilization, waits, largest ops."""
    data = report.to_json()
    clock, bound = data["clock_hz"], report.bound
    interval = data["initiation_interval_cycles"]
    energy_uj, energy2_uj = data["energy_pj"] / 1e6, data["energy_pj_synthesized"] / 1e6
    edp_njs, edp2_njs = data["edp_pj_s"] / 1e3, data["edp_pj_s_synthesized"] / 1e3
    read_mb, written_mb = data["dram_read_bits"] / 8e6, data["dram_write_bits"] / 8e6
    title = f"{data['model']} at {data['resolution']} on {data['arch']}, plan {data['plan']}, batch {data['batch']}"
    of_an_image = ", one image" if data["batch"] > 1 else ""
    print(title)
    print(f"  cycles          {data['cycles_total']:>14,}   {data['latency_s'] * 1e3:.3f} ms at {clock / 1e6:.0f} MHz")
    print(
        f"  lower bound     {bound.cycles:>14,}   of any mapping{of_an_image}: {bound.compute_cycles:,} compute, "
        f"{bound.vector_cycles:,} vector, {bound.spill_cycles:,} traffic with spills, {bound.cut_cycles:,} cut"
    )
    if report.found is not None:
        _print_search(report, report.found)
    print(f"  steady state    {interval:>14,.0f}   cycles per image, {data['frames_per_s']:.1f} frames/s")
    print(f"  energy          {_figure(energy_uj):>14}   µJ (arithmetic), {_figure(energy2_uj)} µJ (synthesized)")
    print(f"  EDP             {_figure(edp_njs):>14}   nJ·s (arithmetic), {_figure(edp2_njs)} nJ·s (synthesized)")
    print(f"  area            {data['area_mm2']:>14.3f}   mm²")
    print(f"  DRAM            {read_mb + written_mb:>14.2f}   MB ({read_mb:.2f} read, {written_mb:.2f} written)")
    if report.result.program.dram is not None:
        events = report.result.named_dram_events()
        hits, bursts = events["row_hits"], sum(events.values()) - events["refreshes"]
        print(
            f"  DRAM rows       {hits / bursts:>13.1%}    of {bursts:,} bursts hit, {events['row_closed']:,} closed, "
            f"{events['row_conflicts']:,} conflicts; {events['refreshes']:,} refreshes"
        )
    print("  unit        busy   array filled   waits: " + ", ".join(CAUSES))
    busy = report.result.busy_cycles()
    for unit, waits in data["waits_cycles"].items():
        filled = data["utilization"].get(unit, {}).get("spatial")
        filled_text = f"{filled:12.1%}" if filled is not None else " " * 12
        shares = "  ".join(f"{waits[cause] / data['cycles_total']:6.1%}" for cause in CAUSES)
        print(f"  {unit:10} {busy[unit] / data['cycles_total']:6.1%} {filled_text}          {shares}")
    largest = sorted(data["ops"], key=lambda row: -row["cycles"])[:5]
    print("  longest ops: " + ", ".join(f"{row['name']} {row['cycles'] / data['cycles_total']:.1%}" for row in largest))


def _print_search(report: Report, found: Found) -> None:
    """What the exhaustive mapper found: the optimum of its objective beside the simulated values.

    With token groups these are of all tokens full, with head widths of the widest, for which the mapping was chosen.
    """
    from accelsim.head_forms import has_heads
    from accelsim.token_forms import has_groups

    per_second = 1e-3 / report.accelerator.clock_hz
    unit, scale = {"latency": ("cycles", 1.0), "energy": ("µJ", 1e-6), "edp": ("nJ·s", per_second)}[found.objective]
    simulated = [one for one in (found.exhaustive, found.heuristic) if one is not None]
    values = ", ".join(f"{one.origin} {one.value(found.objective) * scale:,.1f}" for one in simulated)
    optimum = "nothing fits" if found.optimum is None else f"{found.optimum * scale:,.1f}"
    full = " (all tokens full)" if has_groups(report.table) else " (widest widths)" if has_heads(report.table) else ""
    print(f"  mapper          {optimum:>14}   {unit}, optimum of {found.objective}; simulated: {values}{full}")


def trace_rows(report: Report) -> list[TraceRow]:
    """Rows of a recorded run with names, in core cycles."""
    result, program = report.result, report.result.program
    ticks = program.ticks_per_cycle
    rows = []
    for row, times in zip(program.expand(result.images), result.rows.tolist(), strict=True):
        start, end, finish, cause, blocker, waited = times
        rows.append(
            TraceRow(
                unit=program.units[row.unit],
                op=program.op_names[row.op],
                label=f"{program.op_names[row.op]} #{row.iteration}",
                start_cycles=start / ticks,
                release_cycles=end / ticks,
                finish_cycles=finish / ticks,
                wait_cause=CAUSES[cause] if cause >= 0 else "",
                wait_cycles=waited / ticks,
                blocking_row=blocker,
            )
        )
    return rows


def recorded_trace(report: Report) -> dict[str, Any]:
    """Perfetto trace of a recorded run: a lane per unit, buffer occupancy and DRAM traffic as counters."""
    from codesign.plots.buffers import occupancy

    rows = trace_rows(report)
    counters = {f"{name} buffer bits": steps for name, steps in occupancy(report).items()}
    total, steps, burst = 0.0, [], report.accelerator.dram.burst_bits
    for row, template in zip(rows, report.result.program.expand(report.result.images), strict=True):
        if row.unit == "dram":
            total += -(-template.run_bits // burst) * burst * template.runs / 8e6
            steps.append((row.release_cycles, total))
    counters["DRAM MB moved"] = steps
    workload = report.table.quantized.workload
    return perfetto_trace(rows, counters, report.accelerator.clock_hz, report.accelerator.name, workload.name)
