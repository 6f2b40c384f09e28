import json
import os
import stat
from itertools import pairwise

import pytest

from accelsim.files import replacing, write_text_atomic
from accelsim.problems import AccelsimError
from accelsim.trace import TraceRow, perfetto_trace, write_json

CLOCK_HZ = 500_000_000
ROWS = [
    TraceRow("dram", "conv1", "weights", 0, 10, 30, "", 0),
    TraceRow("mult", "conv1", "tile 0", 30, 50, 60, "input", 30, 0),
    TraceRow("mult", "conv1", "tile 1", 55, 75, 85, "region", 20, 1),
]


def events(trace, phase):
    return [event for event in trace["traceEvents"] if event["ph"] == phase]


@pytest.fixture
def trace():
    return perfetto_trace(ROWS, {"activation buffer [bits]": [(0, 0), (50, 4096)]}, CLOCK_HZ, "m2vit", "b1")


def test_lanes_are_named_and_ordered_by_first_appearance(trace):
    meta = events(trace, "M")
    assert [event["args"]["name"] for event in meta if event["name"] == "process_name"] == ["accelsim m2vit b1"]
    names = {event["tid"]: event["args"]["name"] for event in meta if event["name"] == "thread_name"}
    order = {event["tid"]: event["args"]["sort_index"] for event in meta if event["name"] == "thread_sort_index"}
    assert [names[tid] for tid in sorted(names, key=order.get)] == ["dram", "mult"]


def test_busy_events_are_microseconds_and_carry_cycles(trace):
    first = next(event for event in events(trace, "X") if event["cat"] == "busy" and event["args"]["row"] == 1)
    assert (first["ts"], first["dur"]) == pytest.approx((0.06, 0.04))
    assert first["args"]["start_cycles"] == 30
    assert first["args"]["finish_cycles"] == 60
    assert first["args"]["tile"] == "tile 0"
    assert first["args"]["blocked_by"] == "dram: conv1 weights"


def test_slices_of_a_lane_never_overlap(trace):
    for lane in {event["tid"] for event in events(trace, "X")}:
        spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events(trace, "X") if e["tid"] == lane)
        assert all(later[0] >= earlier[1] - 1e-12 for earlier, later in pairwise(spans))


def test_a_wait_is_cut_where_the_unit_was_still_busy(trace):
    waits = [event for event in events(trace, "X") if event["cat"] == "wait"]
    assert [(w["name"], round(w["dur"] * CLOCK_HZ / 1e6)) for w in waits] == [("wait: input", 30), ("wait: region", 5)]


def test_counters(trace):
    assert [(event["ts"], event["args"]["value"]) for event in events(trace, "C")] == [
        (0.0, 0),
        (pytest.approx(0.1), 4096),
    ]


def test_clock_must_be_positive():
    with pytest.raises(ValueError, match="clock_hz"):
        perfetto_trace(ROWS, {}, 0)


def test_json_file_is_whole_and_readable(tmp_path, trace):
    path = tmp_path / "trace.json"
    write_json(path, trace)
    assert json.loads(path.read_text()) == trace
    assert os.listdir(tmp_path) == ["trace.json"]


def test_dash_is_standard_output(capsys):
    write_json("-", {"µ": [1, 2]})
    assert capsys.readouterr().out == '{"µ":[1,2]}\n'


def test_nan_is_not_json_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert path.read_text() == "old"


def test_a_failed_writer_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_links_and_rights_survive(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    write_text_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640


def test_a_pipe_is_written_in_place(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text_atomic(pipe, "hello")
        assert os.read(reader, 100) == b"hello"
    finally:
        os.close(reader)


def test_missing_folder_says_how_to_make_it(tmp_path):
    with pytest.raises(AccelsimError, match=r"No such file or directory.*mkdir -p"):
        write_text_atomic(tmp_path / "no" / "a.json", "x")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(AccelsimError, match="it is a folder"):
        write_text_atomic(tmp_path, "x")
