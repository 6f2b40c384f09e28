"""What a penalty table is measured for, and which choices a stored tensor has under these settings."""

from __future__ import annotations

import re
from dataclasses import dataclass

from accelsim.formats import TWO_REGION_BITS, Format, Scheme
from accelsim.nonlinear.methods import methods_of
from accelsim.problems import AccelsimError, Problem

BASE_FORMAT, EXACT = "u8", "divide"  # of weights and stored tensors; of divisions
REGIONS = re.compile(r"r(\d+)")  # a two-region format whose ratio 2^m comes from data
LOG2_METHOD, LOG2_FORMAT = "fqvit", "log4"  # Log-Int-Softmax stores log2 codes and nothing else
FUNCTIONS = ("softmax", "layernorm")  # functions whose methods are priced


@dataclass(frozen=True)
class Settings:
    """Which choices are priced, and how ranges and scales are found (`Calibration`).

    Of `activation_formats` rB is a two-region format of B bits whose ratio comes from data (OPT-m), for tensors after a
    softmax or a GELU that only products read.  `methods` are those of softmax and LayerNorm; `head_formats` the
    narrower widths of single heads of q, k and v; `token_shares` the shares of full tokens in a layer of a ranked
    network, the others in `drop_bits` bits fewer.  Raises AccelsimError for formats, methods, shares and widths that
    do not exist.
    """

    formats: tuple[str, ...] = ("u8", "u6", "u4", "apot8", "pot4")
    activation_formats: tuple[str, ...] = ("u8", "u6", "u4")
    divisions: tuple[str, ...] = ("divide", "log2_shift")
    observer: str = "mse"
    power: float = 2.4
    bias_correction: bool = True
    methods: tuple[str, ...] = ()
    head_formats: tuple[str, ...] = ()
    token_shares: tuple[float, ...] = ()
    drop_bits: int = 2

    def __post_init__(self) -> None:
        problems = [*self._format_problems(), *self._other_problems()]
        if problems:
            raise AccelsimError(problems)

    @property
    def uniform_formats(self) -> tuple[str, ...]:
        """The uniform formats of stored tensors."""
        return tuple(name for name in self.activation_formats if not REGIONS.fullmatch(name))

    @property
    def region_bits(self) -> tuple[int, ...]:
        """The widths of two-region formats of stored tensors."""
        found = (REGIONS.fullmatch(name) for name in self.activation_formats)
        return tuple(int(one.group(1)) for one in found if one is not None)

    def _format_problems(self) -> list[Problem]:
        problems = []
        for name in ("formats", "activation_formats"):
            given = getattr(self, name)
            for one in given if name == "formats" else self.uniform_formats:
                Format.parse(one, name)
            if BASE_FORMAT not in given or len(set(given)) < len(given):
                expected = f"{BASE_FORMAT} (the base) and others, each once"
                problems.append(Problem(name, f"is {', '.join(given)}", expected))
        for one in self.uniform_formats:
            if Format.parse(one).scheme is not Scheme.UNIFORM:
                problems.append(Problem("activation_formats", f"{one} is not uniform", "u2 … u16, or rB (two regions)"))
        for bits in self.region_bits:
            if bits not in TWO_REGION_BITS:
                expected = f"r{TWO_REGION_BITS.start} … r{TWO_REGION_BITS.stop - 1}"
                problems.append(Problem("activation_formats", f"r{bits} has {bits} bits", expected))
        for one in self.head_formats:
            fmt, base = Format.parse(one, "head_formats"), Format.parse(BASE_FORMAT)
            if fmt.scheme is not Scheme.UNIFORM or fmt.bits >= base.bits:
                problems.append(Problem("head_formats", f"{one} is no narrower part", f"u2 … u{base.bits - 1}"))
        return problems

    def _other_problems(self) -> list[Problem]:
        problems = []
        if EXACT not in self.divisions or not set(self.divisions) <= {EXACT, "log2_shift"}:
            problems.append(Problem("divisions", f"is {', '.join(self.divisions)}", "divide, or divide and log2_shift"))
        known = [name for name in methods_of(FUNCTIONS[0]) if all(name in methods_of(one) for one in FUNCTIONS)]
        unknown = [name for name in self.methods if name not in known]
        if unknown or len(set(self.methods)) < len(self.methods):
            problems.append(Problem("methods", f"is {', '.join(self.methods)}", f"of {', '.join(known)}, each once"))
        if not all(0 < share <= 1 for share in self.token_shares):
            given = ", ".join(f"{share:g}" for share in self.token_shares)
            problems.append(Problem("token_shares", f"is {given}", "shares of the tokens, above 0 and up to 1"))
        most = Format.parse(BASE_FORMAT).bits - 2
        if not 1 <= self.drop_bits <= most:
            problems.append(Problem("drop_bits", f"is {self.drop_bits}", f"1 … {most}"))
        return problems
