"""Number formats: scheme, storage bits, value bits, and the short names used in plans (`u8`, `apot8`, `r4n3`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from accelsim.problems import AccelsimError, Problem

MAX_REGION_SHIFT = 15  # a larger ratio of two regions changes nothing (PTQ4ViT)
TWO_REGION_BITS = range(3, 9)


class Scheme(StrEnum):
    """How a code maps to a value."""

    UNIFORM = "uniform"
    POT = "pot"
    APOT = "apot"
    LOG2 = "log2"
    TWO_REGION = "two_region"


@dataclass(frozen=True)
class Format:
    """The format of one operand.

    `bits` is what is stored and moved.  A uniform code is a signed integer of `bits` bits.  A power-of-two code has
    `terms` signed terms of `exponent_bits` each, value = sum of ±2^e, e = 0 … 2^exponent_bits − 1 (in units of the
    smallest power); a single-term code spends its highest exponent on the code for zero, a two-term code reaches zero
    by cancellation (encoding A of the M²-ViT reconstruction, an interpretation; 53 magnitudes).  A log2 code is an
    unsigned q, value 2^−q, the last code zero: as an integer 2^(2^bits − 2 − q), in units of the smallest power
    (attention shares of FQ-ViT's Log-Int-Softmax).

    A two-region code has a flag bit and `bits` − 1 payload bits (Yuan et al. 2022, PTQ4ViT; Tai and Wu 2024, MPTQ-ViT);
    its value is an integer in steps of the fine region, and `region_shift` = m says that a step of the coarse region is
    2^m of them.  Without `low_negative` (attention shares) both regions are ≥ 0: payload p is worth p, or p << m where
    the flag is set.  With it (values after GELU) the code c is a two's complement number, whose sign is the flag:
    it is worth c where it is negative, else c << m.
    """

    scheme: Scheme
    bits: int
    terms: int = 0
    exponent_bits: int = 0
    region_shift: int = 0
    low_negative: bool = False

    @property
    def max_exponent(self) -> int:
        """Largest exponent of a term, relative to the smallest."""
        if self.scheme in (Scheme.UNIFORM, Scheme.TWO_REGION):
            return self.region_shift
        return (1 << self.exponent_bits) - (2 if self.terms == 1 else 1)

    @property
    def max_magnitude(self) -> int:
        """Largest absolute integer value of a code."""
        if self.scheme is Scheme.UNIFORM:
            return 1 << (self.bits - 1)
        if self.scheme is Scheme.TWO_REGION:
            return max(self.low_codes - (not self.low_negative), (self.low_codes - 1) << self.region_shift)
        return self.terms << self.max_exponent

    @property
    def low_codes(self) -> int:
        """Codes of one region of a two-region format: 2^(bits − 1)."""
        return 1 << (self.bits - 1)

    @property
    def value_bits(self) -> int:
        """Bits of the two's complement value behind a code (a two-term 8-bit code has 10)."""
        if self.scheme is Scheme.UNIFORM:
            return self.bits
        if self.scheme is Scheme.TWO_REGION:
            return self.bits + self.region_shift
        return self.max_magnitude.bit_length() + 1

    @property
    def name(self) -> str:
        """Short name accepted by `parse`."""
        if self.scheme is Scheme.TWO_REGION:
            return f"r{self.bits}{'n' if self.low_negative else 'p'}{self.region_shift}"
        prefix = {Scheme.UNIFORM: "u", Scheme.POT: "pot", Scheme.APOT: "apot", Scheme.LOG2: "log"}[self.scheme]
        return f"{prefix}{self.bits}"

    @property
    def is_shift(self) -> bool:
        """True when a weight of this format multiplies by shifts and adds."""
        return self.scheme in (Scheme.POT, Scheme.APOT)

    @staticmethod
    def parse(name: str, where: str = "format") -> Format:
        """Format of a short name.

        `uB` is uniform with B = 2…16 bits.  `potB` is one signed power of two (1 sign bit, B − 1 exponent bits,
        B = 3…4).  `apotB` is additive power of two: apot8 has two and apot12 three signed terms with 3-bit exponents.
        `logB`, B = 2…4, are the powers 2^−q of attention shares; only a stored softmax can have it, never a weight.
        `rBpM` and `rBnM` are two-region codes of B = 3…8 bits with a shift M = 0…15, both regions ≥ 0 (p) or the fine
        one negative (n); only stored activations can have them.
        Raises AccelsimError with the accepted names otherwise.
        """
        match = re.fullmatch(r"(u|pot|apot|log)(\d+)", name)
        if match:
            bits = int(match.group(2))
            if match.group(1) == "u" and 2 <= bits <= 16:
                return Format(Scheme.UNIFORM, bits)
            if match.group(1) == "pot" and bits in (3, 4):
                return Format(Scheme.POT, bits, 1, bits - 1)
            if match.group(1) == "apot" and bits in (8, 12):
                return Format(Scheme.APOT, bits, bits // 4, 3)
            if match.group(1) == "log" and 2 <= bits <= 4:
                return Format(Scheme.LOG2, bits, 1, bits)
        match = re.fullmatch(r"r(\d)([pn])(\d|1\d)", name)
        if match and int(match.group(1)) in TWO_REGION_BITS and int(match.group(3)) <= MAX_REGION_SHIFT:
            return two_region(int(match.group(1)), int(match.group(3)), match.group(2) == "n")
        known = "u2 … u16, pot3, pot4, apot8, apot12, log2, log3, log4, or r3p0 … r8p15 and r3n0 … r8n15"
        raise AccelsimError(Problem(where, f"unknown number format {name!r}", known, ("u8", "apot8")))


def two_region(bits: int, region_shift: int, low_negative: bool) -> Format:
    """The two-region format of these numbers; see `Format`."""
    return Format(Scheme.TWO_REGION, bits, region_shift=region_shift, low_negative=low_negative)


def accumulator_bits_needed(left: Format, right: Format, reduction: int) -> int:
    """Two's complement bits that hold any sum of `reduction` products: value bits of both plus ⌈log2 K⌉."""
    return left.value_bits + right.value_bits + max(0, (reduction - 1).bit_length())
