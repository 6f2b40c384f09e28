"""Formats that an engine lacks, and the parts that are checked: what head widths and token groups say alike."""

import numpy as np
import pytest

from accelsim.api import simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.kernels.mapper import P_ENGINE, P_SLICE
from accelsim.optable import M_MODE, MAX_PROBLEMS, engine_table, op_table
from accelsim.part_checks import missing_modes, parts_of, refuse
from accelsim.problems import InfeasibleError, Problem
from accelsim.workloads.registry import build_workload


def test_pairs_without_a_mode_are_named_once():
    accelerator = load_accelerator("m2vit")
    table = op_table(build_workload("efficientvit_b0", 32), load_plan("m2q"))
    engines = engine_table(accelerator, table)
    for e in range(len(accelerator.engines)):
        every = np.arange(len(table.combos))
        lacking = [c for c in every.tolist() if engines.modes[c, e, M_MODE] < 0]
        assert lacking
        assert len(lacking) < len(every)
        (problem,) = missing_modes(table, engines, e, np.append(every, every), "there", "a head", ("a lever",))
        names = problem.what.removeprefix("no mode executes ").removesuffix(" activations of a head").split(" and ")
        assert len(set(names)) == len(names)
        assert set(names) == {
            f"{weight.name} with {left.name}" for weight, left, *_ in (table.combos[c] for c in lacking)
        }
        assert (problem.where, problem.levers) == ("there", ("a lever",))
        there = np.setdiff1d(every, lacking)
        assert missing_modes(table, engines, e, there, "there", "a head", ()) == []


def test_every_part_of_an_op_comes_once():
    table = op_table(build_workload("efficientvit_b0", 32), load_plan("m2q"))
    arrays = simulate(table, load_accelerator("m2vit")).arrays
    ops = np.flatnonzero(arrays.n_parts)
    found = parts_of(arrays, ops)
    assert len(set(found)) == len(found)
    expected = {
        (int(k), int(arrays.parts[k, p, P_ENGINE]), int(arrays.parts[k, p, P_SLICE]))
        for k in ops
        for p in range(arrays.n_parts[k])
    }
    assert set(found) == expected
    assert parts_of(arrays, ops[:0]) == []


def test_problems_are_refused_in_order_and_not_too_many():
    refuse([])
    problems = [Problem(f"op {k:03}", "does not fit", "less") for k in range(MAX_PROBLEMS + 5)]
    with pytest.raises(InfeasibleError) as caught:
        refuse(reversed(problems))
    assert list(caught.value.problems) == problems[:MAX_PROBLEMS]
