"""Kernels compiled from older sources are not used: numba itself would not notice a changed callee or constant."""

import os

from accelsim.kernels.jit import drop_stale


def test_only_kernels_older_than_a_source_are_removed(tmp_path):
    cache = tmp_path / "cache" / "deep"
    cache.mkdir(parents=True)
    times = {"lower.f-1.nbi": 10, "emit.g-2.nbi": 30, "other.h-3.nbi": 10}
    for name, time in times.items():
        (cache / name).write_bytes(b"")
        os.utime(cache / name, ns=(time, time))
    source = tmp_path / "counts.py"
    source.write_text("")
    os.utime(source, ns=(20, 20))
    assert drop_stale([tmp_path / "cache", tmp_path / "missing"], [source], ("lower.", "emit.")) == 1
    assert sorted(path.name for path in cache.iterdir()) == ["emit.g-2.nbi", "other.h-3.nbi"]
    assert drop_stale([tmp_path / "cache"], [source], ("lower.", "emit.")) == 0


def test_lowering_is_compiled_ahead_for_the_signature_that_runs():
    from accelsim.api import evaluate
    from accelsim.config import load_accelerator, load_plan
    from accelsim.kernels.lower import lower_program
    from accelsim.kernels.warm import compile_lowering

    compile_lowering()
    assert len(lower_program.signatures) == 1
    evaluate("efficientvit_b0", 32, load_accelerator("m2vit"), load_plan("m2q"))
    assert len(lower_program.signatures) == 1
