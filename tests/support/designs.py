"""Small random accelerators for tests of whole programs."""

from __future__ import annotations

from hypothesis import strategies as st

from accelsim.arch import Accelerator, Buffer, Dram, Engine, EngineKind, Mode, OutputStage, VectorUnit

W8, W4 = Mode(8, 8, 1), Mode(4, 8, 2)


@st.composite
def accelerators(draw: st.DrawFn, shift: bool | None = None) -> Accelerator:
    """One or two multiplier arrays, perhaps a shift array, odd shapes, narrow ports, small buffers, odd bandwidths."""
    size = st.sampled_from([1, 2, 3, 4, 8])
    engines = []
    for k in range(draw(st.integers(1, 2))):
        engines.append(
            Engine(
                f"mac{k}", EngineKind.MAC_ARRAY, draw(size), draw(size), draw(size),
                OutputStage(draw(st.sampled_from([1, 7, 64])), draw(st.integers(0, 5))),
                modes=draw(st.sampled_from([(W8,), (W8, W4), (W4, W8)])), depthwise=k == 0 or draw(st.booleans()),
                activation_port_bits_per_cycle=draw(st.sampled_from([64, 200, 4096])),
                weight_port_bits_per_cycle=draw(st.sampled_from([64, 200, 4096])),
            )
        )  # fmt: skip
    if shift or (shift is None and draw(st.booleans())):
        engines.append(
            Engine(
                "shift", EngineKind.SHIFT_ARRAY, draw(size), draw(size), draw(size), OutputStage(16),
                terms=draw(st.integers(1, 3)),
            )
        )  # fmt: skip
    if draw(st.booleans()):
        flow = draw(st.sampled_from(["ws", "os", "is"]))
        engines.append(
            Engine(
                "systolic", EngineKind.SYSTOLIC_ARRAY, draw(size), draw(size), 1, OutputStage(draw(size)),
                modes=(W4, W8),
                activation_port_bits_per_cycle=draw(st.sampled_from([64, 4096])), dataflow=flow,
                double_buffered=flow == "os" or draw(st.booleans()), accumulator_rows=0 if flow == "os" else 128,
            )
        )  # fmt: skip
    kib = 8192
    return Accelerator(
        name="random",
        clock_hz=draw(st.sampled_from([100_000_000, 300_000_000])),
        node_nm=28,
        engines=tuple(engines),
        vector=VectorUnit(16, 16, 16, 16, 4, 2, draw(st.sampled_from([64, 1024]))),
        activation_buffer=Buffer(draw(st.sampled_from([8, 16, 32, 128])) * kib),
        weight_buffer=Buffer(draw(st.sampled_from([8, 16, 64, 512])) * kib),
        dram=Dram(draw(st.sampled_from([1, 4, 9])) * 8_000_000_000, draw(st.sampled_from([64, 512])), 4.5e-8),
    )
