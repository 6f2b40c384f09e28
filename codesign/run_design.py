"""The design that a command runs: the options that name it, and reading what they name."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import positive

if TYPE_CHECKING:
    from accelsim.api import Report
    from accelsim.arch import Accelerator
    from accelsim.ir import Workload
    from accelsim.mappers.choice import Mapper
    from accelsim.mapping import Mapping
    from accelsim.plan import QuantPlan

DEFAULT_ARCH = "m2vit"


def add_run_options(parser: argparse.ArgumentParser, batch: bool = True) -> None:
    """Add model, accelerator, plan and mapping options; without `batch` the command runs one image only."""
    add_design_options(parser)
    if batch:
        parser.add_argument("--batch", type=positive, default=1, help="images in a row (default 1)")
    parser.add_argument("--no-fuse", action="store_true", help="every op its own chain")
    parser.add_argument(
        "--mapper", default="heuristic",
        help="heuristic (default), or exhaustive[:OBJECTIVE][:steady]; OBJECTIVE is latency (default), energy or edp",
    )  # fmt: skip
    parser.add_argument("--mapping", help="use this mapping file instead of a mapper")
    parser.set_defaults(batch=1)


def add_design_options(parser: argparse.ArgumentParser) -> None:
    """Add model, resolution, separated functions, accelerator and plan."""
    parser.add_argument("model", help="name from `accelsim models`, or a workload file (.json)")
    parser.add_argument("--resolution", type=positive, help="input pixels per side (default: the model's own)")
    parser.add_argument(
        "--separate", choices=("gelu",),
        help="make this function of the output stages an op of the vector unit, which a plan can give a method",
    )  # fmt: skip
    parser.add_argument("--arch", default=DEFAULT_ARCH, help=f"preset or YAML file (default {DEFAULT_ARCH})")
    parser.add_argument(
        "--plan", default="m2q", help="plan name (uniform8, uniform4, w4a8, m2q, m2q:RATIO) or YAML file"
    )


@dataclass(frozen=True)
class Design:
    """What `add_run_options` name, read and checked."""

    workload: Workload
    accelerator: Accelerator
    plan: QuantPlan
    mapping_file: str | None
    batch: int
    fuse: bool
    mapper: Mapper

    def mapping(self) -> Mapping | None:
        """The mapping of the file, or None without one.  Raises AccelsimError when it is not a mapping."""
        return None if self.mapping_file is None else _read_mapping(self.mapping_file)

    def simulate(self, mapping: Mapping | None, record: bool) -> Report:
        """Map (unless a mapping is given), lower and simulate.  Raises as `accelsim.api.simulate` does."""
        from accelsim.api import simulate
        from accelsim.optable import op_table

        table = op_table(self.workload, self.plan)
        name = self.mapping_file or "mapping"
        return simulate(table, self.accelerator, mapping, self.batch, record, self.fuse, name, self.mapper)


def read_design(arguments: argparse.Namespace) -> Design:
    """What `add_run_options` name.  Raises AccelsimError with the faults of the first that has any."""
    workload, accelerator, plan = read_names(arguments)
    mapper = _read_mapper(arguments)
    return Design(workload, accelerator, plan, arguments.mapping, arguments.batch, not arguments.no_fuse, mapper)


def read_names(arguments: argparse.Namespace) -> tuple[Workload, Accelerator, QuantPlan]:
    """What `add_design_options` name.  Raises AccelsimError with the faults of the first that has any.

    Layers with token groups get the ops that rank their tokens (`accelsim.token_rules.ranked_for`).
    """
    from accelsim.config import load_accelerator, load_plan
    from accelsim.token_rules import ranked_for
    from accelsim.workloads.registry import build_workload

    accelerator, plan = load_accelerator(arguments.arch), load_plan(arguments.plan)
    workload = build_workload(arguments.model, arguments.resolution)
    if arguments.separate:
        workload = _separated(workload, arguments.separate)
    workload = ranked_for(workload, plan)
    return workload, accelerator, plan


def _separated(workload: Workload, function: str) -> Workload:
    """The workload with this function as ops of their own; AccelsimError when no output stage has it."""
    from accelsim.workloads.separate import separate_activations

    found = separate_activations(workload, function)
    if found is workload:
        raise AccelsimError(nothing_to_separate(workload.name, function))
    return found


def nothing_to_separate(workload: str, function: str) -> Problem:
    """What is wrong with --separate for a workload without that function behind its products."""
    what = f"no output stage of {workload} has a {function}"
    return Problem(f"--separate {function}", what, f"a model with {function}", ("leave it out",))


def _read_mapper(arguments: argparse.Namespace) -> Mapper:
    from accelsim.mappers.choice import mapper_of, refuse_unused

    mapper = mapper_of(arguments.mapper, "--mapper")
    refuse_unused(mapper, arguments.mapping is not None, not arguments.no_fuse, "--mapper")
    return mapper


def _read_mapping(path: str) -> Any:
    from accelsim.mapping import mapping_from_json

    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except OSError as error:
        raise AccelsimError(Problem(path, f"cannot be read ({error.strerror})", "a mapping file")) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise AccelsimError(
            Problem(f"{path}:{line}", f"not JSON ({error})", "a file of `accelsim run --save-mapping`")
        ) from error
    return mapping_from_json(data, path)
