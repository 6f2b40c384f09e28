"""Faults that a review found, kept out: many engines, weight blocks without weights, huge batches, full devices."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from accelsim.api import simulate
from accelsim.arch import Buffer
from accelsim.config import load_accelerator, load_plan, plan_from_data
from accelsim.counts import ENGINE_COUNTS, MAX_MODES, count_columns
from accelsim.mapping import ChainMapping, Mapping
from accelsim.optable import op_table
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.workloads.registry import build_workload

THREE_WIDTHS = {
    "name": "three",
    "rules": [
        {
            "match": "*",
            "weights": [{"format": "u8", "share": 0.4}, {"format": "u6", "share": 0.3}, {"format": "u4", "share": 0.3}],
        }
    ],
}


def many_engines(count):
    base = load_accelerator("m2vit")
    small = replace(base.engines[0], lanes=4, pixel_groups=4)
    copies = tuple(replace(small, name=f"mult{k}") for k in range(count))
    return base.replace(engines=copies, weight_buffer=Buffer(1 << 23))


@pytest.mark.parametrize("count", [3, 9, 16])
@pytest.mark.parametrize("plan", ["uniform8", "three"])
def test_every_engine_and_format_may_have_a_part(count, plan):
    table = op_table(
        build_workload("efficientvit_b0", 64), plan_from_data(THREE_WIDTHS) if plan == "three" else load_plan(plan)
    )
    accelerator = many_engines(count)
    report = simulate(table, accelerator)
    columns = count_columns(accelerator)
    products = [
        columns.index(f"{engine.name}.{ENGINE_COUNTS[mode]}")
        for engine in accelerator.engines
        for mode in range(MAX_MODES)
    ]
    assert report.result.counts[:, products].sum(axis=1).tolist() == [q.op.macs for q in table.quantized.ops]
    again = simulate(table, accelerator, report.mapping)
    assert again.result.cycles_total == report.result.cycles_total


def test_an_op_without_weights_has_no_weight_blocks():
    table = op_table(build_workload("efficientvit_b1"), load_plan("uniform8"))
    accelerator = load_accelerator("trio_vit")
    mapping = simulate(table, accelerator, fuse=False).mapping
    chains = [replace(c, weight_blocks=4) if c.ops == ("s3.b0.KtV",) else c for c in mapping.chains]
    assert ChainMapping in {type(c) for c in chains}
    with pytest.raises(AccelsimError, match=r"s3\.b0\.KtV has no weights to cut"):
        simulate(table, accelerator, Mapping(tuple(chains), mapping.resident))


@pytest.mark.parametrize("batch", [10**10, 10**20])
def test_a_huge_batch_is_infeasible_with_its_limit(batch):
    table = op_table(build_workload("efficientvit_b0", 32), load_plan("uniform8"))
    with pytest.raises(InfeasibleError, match="at most"):
        simulate(table, load_accelerator("trio_vit"), batch=batch)


def test_a_record_that_would_not_fit_in_memory_is_refused():
    table = op_table(build_workload("efficientvit_b0", 32), load_plan("uniform8"))
    with pytest.raises(InfeasibleError, match="every row recorded"):
        simulate(table, load_accelerator("trio_vit"), batch=100_000, record=True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_output_device_is_one_clear_error():
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [sys.executable, "-m", "codesign.cli", "models"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert found.returncode == 2
    assert found.stderr.startswith("accelsim: error: standard output: cannot be written")
    assert len(found.stderr.splitlines()) == 1
