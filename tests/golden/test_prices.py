"""Prices against published or separately computed figures."""

from functools import partial

import pytest

from accelsim.area import pe_ratio
from accelsim.parts import array_mac_pj, multiply_pj
from accelsim.sram import macro
from accelsim.technology import load_technology

# CACTI 7 at 28 nm by interpolation, 128-bit port, lstp: KB → read pJ/bit, area mm², access ns (rounded figures of an
# independent computation from the same tool).
SRAM_28_NM = {
    16: (0.051, 0.021, 0.80),
    64: (0.120, 0.091, 1.16),
    128: (0.161, 0.190, 1.46),
    256: (0.255, 0.372, 1.77),
    512: (0.339, 0.717, 2.20),
    1024: (0.519, 1.33, 2.88),
}
close = partial(pytest.approx, rel=0.03)


@pytest.mark.parametrize(("kilobytes", "expected"), SRAM_28_NM.items())
def test_sram_28_nm(kilobytes, expected):
    found = macro(28, kilobytes * 8192, 128)
    assert (found.read_pj_per_bit, found.area_mm2, found.access_time_s * 1e9) == close(expected)


# CACTI 7, lstp, 1RW, 64-bit port, 45 nm: KB → read pJ, area mm².
@pytest.mark.parametrize(
    ("kilobytes", "read_pj", "area_mm2"), [(1, 1.67, 0.0036), (8, 6.14, 0.026), (128, 32.3, 0.430), (1024, 93.5, 3.26)]
)
def test_sram_45_nm(kilobytes, read_pj, area_mm2):
    found = macro(45, kilobytes * 8192, 64)
    assert (found.read_pj_per_bit * 64, found.area_mm2) == close((read_pj, area_mm2))


@pytest.mark.parametrize("node_nm", [28, 45])
@pytest.mark.parametrize(("unit", "ratio"), [("apot8", 0.79), ("apot5x", 0.58), ("pot4x", 0.51), ("mul8x8s", 1.0)])
def test_pe_ratios(unit, ratio, node_nm):
    assert pe_ratio(unit, node_nm) == pytest.approx(ratio, abs=0.006)


def test_horowitz_unit_costs():
    tech = load_technology(45)
    assert multiply_pj(8, 8, tech) == 0.2
    assert [tech.value(f"arithmetic.add_{bits}_pj") for bits in (8, 16, 32)] == [0.03, 0.05, 0.1]
    assert multiply_pj(4, 8, tech) == multiply_pj(8, 4, tech) == 0.1


def test_8_bit_mac_scales_to_0_152_pj_at_28_nm():
    tech = load_technology(28)
    assert multiply_pj(8, 8, tech) + tech.value("arithmetic.add_32_pj") == pytest.approx(0.152, abs=5e-4)


# PSMA-benchmark, BitBlade, fJ per MAC at 200 MHz and 1 GHz.
@pytest.mark.parametrize(
    ("bits", "slow_fj", "fast_fj"),
    [((8, 8), 873, 950), ((4, 8), 430, 468), ((2, 8), 210, 230), ((4, 4), 212, 236), ((2, 2), 52, 58)],
)
def test_bitblade(bits, slow_fj, fast_fj):
    found = [array_mac_pj("scalable_2", *bits, load_technology(28), hz) * 1e3 for hz in (200_000_000, 1_000_000_000)]
    assert found == pytest.approx([slow_fj, fast_fj])


def test_bitfusion_45_nm():
    tech = load_technology(45)
    fixed = array_mac_pj("fixed", 8, 8, tech, 500_000_000)
    assert fixed == pytest.approx(0.298)
    assert array_mac_pj("scalable_2", 8, 8, tech, 500_000_000) / fixed == pytest.approx(1.88, abs=0.01)


@pytest.mark.parametrize(
    ("kind", "pj_per_bit"), [("LPDDR4", 8), ("DDR4", 15), ("HBM2", 3.9), ("LPDDR5", 3), ("DDR3", 70)]
)
def test_dram(kind, pj_per_bit):
    assert load_technology(28).dram_pj_per_bit[kind].value == pj_per_bit
