"""The table's files, its rank agreement, and going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from accelsim.problems import AccelsimError
from quant.sensitivity.measure import Settings, sensitivity
from quant.sensitivity.table import Component, MetricInfo, Row, SensitivityTable, agreements, load_table
from tests.support.networks import labelled_images, tiny_vit

ROOT = Path(__file__).parent.parent.parent
SETTINGS = Settings(kinds=("weight", "activation"), weight_bits=(2,), observer="minmax", power=2.0)


def made(values):
    """A table with a component per value; `values` by metric, "snr" falls with the error."""
    rows = []
    for k in range(len(next(iter(values.values())))):
        component = Component("weight", ((f"op{k}", ()),))
        rows.append(Row(component, 2, {name: numbers[k] for name, numbers in values.items()}))
    metrics = tuple(MetricInfo(name, "validation", name != "snr", 1.5) for name in values)
    return SensitivityTable("net", {"network": "1"}, {"validation": 9}, {}, {"power": 2.4}, metrics, tuple(rows))


def test_agreement_is_one_for_the_same_order_and_for_a_falling_metric():
    increase = [0.1, 0.5, 0.2, 0.9, 0.3, 0.0, 0.7, 0.4]
    falling = [-one for one in increase]
    table = made({"cross_entropy": increase, "kl": [one**2 for one in increase], "snr": falling, "wrong": falling})
    found = {one.metric: one for one in agreements(table) if one.group == "weight"}
    assert {name: one.tau.estimate for name, one in found.items()} == pytest.approx({"kl": 1, "snr": 1, "wrong": -1})
    assert all(one.components == 8 and one.bits == 2 for one in found.values())


def test_agreement_needs_the_measured_metric_and_enough_components():
    with pytest.raises(AccelsimError, match="has no metric 'cross_entropy'"):
        agreements(made({"kl": [1, 2, 3]}))
    seven = [float(k) for k in range(7)]
    assert agreements(made({"kl": seven, "cross_entropy": seven})) == ()


def test_a_file_gives_back_the_table(tmp_path):
    head = Row(Component("head_weight", (("qkv", ((0, 4), (8, 12))),), 1), 3, {"kl": 1.25}, {"kl": (1.0, 1.5)})
    plain = made({"kl": [0.5, 1e-9]})
    table = SensitivityTable(
        plain.network, plain.fingerprints, plain.images, {"top1": 0.9}, plain.settings, plain.metrics,
        (*plain.rows, head),
    )  # fmt: skip
    table.save(tmp_path / "table.json")
    again = load_table(tmp_path / "table.json")
    assert again == table
    assert again.fingerprint() == table.fingerprint()
    assert again.value(head.component, 3, "kl") == 1.25
    assert again.records()[-1] == {
        "kind": "head_weight", "component": "qkv#1", "bits": 3, "kl": 1.25, "kl_low": 1.0, "kl_high": 1.5
    }  # fmt: skip


def test_the_fingerprint_ignores_seconds_only():
    one, other = made({"kl": [1, 2]}), made({"kl": [1, 2.5]})
    slower = SensitivityTable(
        one.network, one.fingerprints, one.images, one.reference, one.settings,
        (MetricInfo("kl", "validation", True, 99.0),), one.rows,
    )  # fmt: skip
    assert slower.fingerprint() == one.fingerprint() != other.fingerprint()


def test_damaged_files_and_missing_numbers(tmp_path):
    path = tmp_path / "table.json"
    with pytest.raises(AccelsimError, match="cannot be read"):
        load_table(path)
    path.write_text("{}")
    with pytest.raises(AccelsimError, match="has the format None"):
        load_table(path)
    path.write_text(json.dumps({"format": "quant.sensitivity/1"}))
    with pytest.raises(AccelsimError, match="is damaged"):
        load_table(path)
    with pytest.raises(AccelsimError, match="has no kl of weight op7 at 2 bits"):
        made({"kl": [1]}).value(Component("weight", (("op7", ()),)), 2, "kl")


def batches(network, count, seed):
    images, labels = labelled_images(network, count, seed)
    return list(zip(images.split(8), labels.split(8), strict=True))


def test_a_stopped_run_goes_on_and_gives_the_same_table(tmp_path, monkeypatch):
    network = tiny_vit(depth=1)
    data = (batches(network, 16, 1), batches(network, 24, 2))
    whole = sensitivity(network, *data, SETTINGS)

    def stop(split, done, total):
        if (split, done) == ("validation", total // 2):
            raise KeyboardInterrupt

    path = tmp_path / "cache.sqlite"
    with pytest.raises(KeyboardInterrupt):
        sensitivity(network, *data, SETTINGS, path, stop)
    runs = count_runs(monkeypatch)
    again = sensitivity(network, *data, SETTINGS, path)
    assert again.fingerprint() == whole.fingerprint()
    half = len(whole.rows) * 3 // 2
    assert half - 1 <= len(runs) <= half + 1  # the other half of the validation cells
    runs.clear()
    sensitivity(network, *data, SETTINGS, path)
    assert not runs


def count_runs(monkeypatch):
    """Names of the components whose network is run from now on."""
    from quant.sensitivity import batch

    runs, plain = [], batch._case

    def counted(work, cell, *rest):
        runs.append(cell.text)
        return plain(work, cell, *rest)

    monkeypatch.setattr(batch, "_case", counted)
    return runs


def test_other_images_or_weights_do_not_use_the_cache(tmp_path, monkeypatch):
    network, path = tiny_vit(depth=1), tmp_path / "cache.sqlite"
    settings = Settings(kinds=("weight",), weight_bits=(2,), metrics=("mse", "cross_entropy"))
    data = (batches(network, 8, 1), batches(network, 8, 2))
    first = sensitivity(network, *data, settings, path)
    runs = count_runs(monkeypatch)
    sensitivity(network, data[0], batches(network, 8, 3), settings, path)
    assert len(runs) == len(first.rows)  # validation only
    other = sensitivity(tiny_vit(seed=5, depth=1), *data, settings, path)
    assert other.fingerprint() != first.fingerprint()
    runs.clear()
    assert sensitivity(network, *data, settings, path).fingerprint() == first.fingerprint()
    assert not runs


CHILD = """
from tests.unit.test_sensitivity_table import SETTINGS, batches
from quant.sensitivity import cache
from quant.sensitivity.measure import sensitivity
from tests.support.networks import tiny_vit
cache._COMMIT_AFTER_S = 0.0
network = tiny_vit(depth=1)
sensitivity(network, batches(network, 16, 1), batches(network, 24, 2), SETTINGS, "cache.sqlite",
            lambda split, done, total: print(split, done, flush=True))
"""


def test_kill_9_loses_nothing_that_was_committed(tmp_path, monkeypatch):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    lines = 0
    for line in child.stdout:
        lines += 1
        if line.split() == ["validation", "15"]:
            child.send_signal(signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL
    network = tiny_vit(depth=1)
    data = (batches(network, 16, 1), batches(network, 24, 2))
    whole = sensitivity(network, *data, SETTINGS)
    runs = count_runs(monkeypatch)
    again = sensitivity(network, *data, SETTINGS, tmp_path / "cache.sqlite")
    assert again.fingerprint() == whole.fingerprint()
    cells = len(whole.rows)
    assert lines == 2 * cells + 15
    assert 0 < len(runs) <= 3 * cells - 15 + 1


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at as one" * 50)
    network = tiny_vit(depth=1)
    with pytest.raises(AccelsimError, match="cannot be used as cache"):
        sensitivity(network, batches(network, 8, 1), (), Settings(metrics=("mse",)), path)
