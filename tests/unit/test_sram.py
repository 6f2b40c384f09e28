"""CACTI interpolation and buffers made of macros."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.arch import Buffer
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.sram import buffer_price, macro

KB = 8192
SLOW_HZ = 100_000_000


def test_tabulated_point_is_returned_exactly():
    # CACTI row 45 nm, 8 KB, 128 bits: read 7.91635 pJ, access 1.06385 ns.
    found = macro(45, 8 * KB, 128)
    assert found.read_pj_per_bit == pytest.approx(7.91635 / 128, rel=1e-12)
    assert found.access_time_s == pytest.approx(1.06385e-9, rel=1e-12)


def test_28_nm_is_six_tenths_of_32_and_four_of_22():
    assert macro(28, 8 * KB, 128).read_pj_per_bit == pytest.approx((0.6 * 4.41706 + 0.4 * 2.00944) / 128, rel=1e-12)
    assert macro(28, 8 * KB, 128).access_time_s == pytest.approx((0.6 * 0.843732 + 0.4 * 0.601573) * 1e-9, rel=1e-12)


@pytest.mark.parametrize("field", ["read_pj_per_bit", "write_pj_per_bit", "leakage_mw", "area_mm2", "access_time_s"])
def test_between_two_sizes_and_widths_is_log_log(field):
    corners = [getattr(macro(45, size * KB, width), field) for size in (16, 32) for width in (128, 256)]
    middle_bits = round(math.sqrt(16 * 32) * KB)
    middle_word = 181  # sqrt(128 · 256) = 181.02
    expected = math.prod(corners) ** 0.25
    assert getattr(macro(45, middle_bits, middle_word), field) == pytest.approx(expected, rel=1e-3)


@given(st.sampled_from([28, 45]), st.integers(16384, 2**25 - 1), st.integers(64, 512), st.floats(1.0, 4.0))
def test_bigger_macro_never_reads_cheaper_or_is_smaller(node_nm, bits, word, factor):
    larger = min(2**25, math.ceil(bits * factor))
    small, large = macro(node_nm, bits, word), macro(node_nm, larger, word)
    assert large.read_pj_per_bit >= small.read_pj_per_bit * (1 - 1e-9)
    assert large.area_mm2 >= small.area_mm2 * (1 - 1e-9)


@pytest.mark.parametrize(
    ("bits", "word"), [(8191, 64), (2**25 + 1, 64), (65536, 63), (65536, 513), (8192, 512), (0, 64), (65536, 0)]
)
def test_outside_the_grid_names_the_range(bits, word):
    with pytest.raises(AccelsimError, match=r"outside the SRAM table.*8,192 … 33,554,432.*64 … 512"):
        macro(45, bits, word)


@pytest.mark.parametrize(("bits", "word"), [(8192, 64), (2**25, 512), (8192, 256)])
def test_edges_of_the_grid_are_inside(bits, word):
    assert macro(28, bits, word).area_mm2 > 0


def test_unknown_node():
    with pytest.raises(AccelsimError, match="no SRAM data for 7 nm"):
        macro(7, 65536, 128)


@pytest.mark.parametrize(("capacity_bits", "macros"), [(1, 1), (65536, 1), (65537, 2), (10 * 65536, 10)])
def test_a_buffer_is_whole_macros(capacity_bits, macros):
    one = macro(45, 65536, 128)
    found = buffer_price(Buffer(capacity_bits), 45, SLOW_HZ)
    assert found.macros == macros
    assert found.area_mm2 == pytest.approx(macros * one.area_mm2)
    assert found.leakage_mw == pytest.approx(macros * one.leakage_mw)


def test_one_macro_has_no_routing():
    found = buffer_price(Buffer(65536), 28, SLOW_HZ)
    assert found.routing_pj_per_bit == 0
    assert found.read_pj_per_bit == macro(28, 65536, 128).read_pj_per_bit


@given(st.sampled_from([28, 45]), st.integers(1, 2**24), st.integers(0, 2**24))
def test_price_never_falls_with_capacity(node_nm, capacity_bits, more):
    small = buffer_price(Buffer(capacity_bits), node_nm, SLOW_HZ)
    large = buffer_price(Buffer(capacity_bits + more), node_nm, SLOW_HZ)
    for field in ("read_pj_per_bit", "write_pj_per_bit", "leakage_mw", "area_mm2"):
        assert getattr(large, field) >= getattr(small, field)


@pytest.mark.parametrize("kilobytes", [64, 128, 256, 512, 1024])
@pytest.mark.parametrize("node_nm", [28, 45])
def test_macros_with_routing_cost_about_what_one_memory_costs(node_nm, kilobytes):
    # The routing slope comes from banked CACTI memories; unbanked ones of the whole size are an independent check.
    cut = buffer_price(Buffer(kilobytes * KB, 8 * KB), node_nm, SLOW_HZ).read_pj_per_bit
    whole = macro(node_nm, kilobytes * KB, 128).read_pj_per_bit
    assert cut == pytest.approx(whole, rel=0.35)


def test_access_time_gates_the_clock():
    access_s = macro(28, 8 * KB, 128).access_time_s
    fastest_hz = math.floor(1 / access_s)
    assert buffer_price(Buffer(KB * 64, 8 * KB), 28, fastest_hz).access_time_s == access_s
    with pytest.raises(InfeasibleError) as caught:
        buffer_price(Buffer(KB * 64, 8 * KB), 28, fastest_hz + 2, "weight_buffer")
    (problem,) = caught.value.problems
    assert problem.where == "weight_buffer"
    assert problem.unit == "ps"
    assert problem.demand == math.ceil(access_s * 1e12)
    assert problem.gap > 0
    assert problem.levers == ("a smaller macro_bits", "a lower clock_hz")


def test_empty_buffer_is_refused():
    with pytest.raises(AccelsimError, match=r"activation_buffer\.capacity_bits: is 0"):
        buffer_price(Buffer(0), 45, SLOW_HZ, "activation_buffer")
