"""What two-region activations cost on the engines: the tables of docs/decisions/0018-two-region-operands.md.

    python benchmarks/region_hardware.py

Prints Markdown tables (a minute); nothing is random.
"""

from __future__ import annotations

from dataclasses import replace

from timing import table

from accelsim.api import evaluate
from accelsim.arch import Engine, Mode
from accelsim.area import engine_area_mm2
from accelsim.config import load_accelerator
from accelsim.engines import rules_of, select_mode
from accelsim.formats import Format
from accelsim.parts import Convention
from accelsim.plan import QuantPlan, Rule
from accelsim.problems import AccelsimError
from accelsim.unit_energy import engine_unit_energies

MODEL, RESOLUTION = "deit_small", 224
ALIGNED, DECODED = load_accelerator("m2vit_regions"), load_accelerator("m2vit_nonlinear")
SHARES = ("u8", "r8p4", "r8p8", "u4", "r4p4", "r4p8")
GELUS = ("r8n5", "r8n6", "u6", "r6n2", "r6n5")
NARROW = replace(DECODED.engines[0], modes=(Mode(4, 4), Mode(4, 8)))
ARRAYS: dict[str, Engine] = {
    "8×8 multipliers, decoded": DECODED.engines[0],
    "8×8 multipliers, region_shift 8": ALIGNED.engines[0],
    "4×4 and 4×8, decoded": NARROW,
    "4×4, region_shift 4": replace(NARROW, modes=(Mode(4, 4),), region_shift=4),
}
PAIRS = (("u8", "u8"), ("u8", "r8p8"), ("u4", "r8p8"), ("u4", "u4"), ("u4", "r4p4"))


def products() -> None:
    """Products per cycle and energy of one, and the area of 1,024 multipliers with their adder trees."""
    rows = []
    for name, engine in ARRAYS.items():
        area, cells = engine_area_mm2(engine, DECODED.node_nm), []
        for weight, activation in PAIRS:
            column = select_mode(engine, Format.parse(weight), Format.parse(activation))
            if column is None:
                cells.append("–")
                continue
            energies = [
                engine_unit_energies(engine, DECODED.node_nm, DECODED.clock_hz, convention)[column]
                for convention in Convention
            ]
            rate = rules_of(engine).rate(engine, column)
            per_cycle = rate.products / rate.passes
            cells.append(f"{per_cycle:g} × " + " / ".join(f"{energy:.3f}" for energy in energies if energy is not None))
        rows.append([name, *cells, f"{area['slots'] + area['adder_tree']:.3f}"])
    heads = [f"{weight} × {activation}" for weight, activation in PAIRS]
    table(["array", *heads, "mm²"], rows)


def networks() -> None:
    """Cycles and energy of a network on both designs, relative to its uniform plan on the design that decodes."""
    plans = {f"softmax {name}": Rule("class:softmax", output=Format.parse(name)) for name in SHARES}
    plans |= {f"GELU {name}": Rule("*.fc1", output=Format.parse(name)) for name in GELUS}
    rows, base = [], (0.0, 0.0, 0.0)
    for name, rule in plans.items():
        cells = []
        for design in (DECODED, ALIGNED):
            try:
                found = evaluate(MODEL, RESOLUTION, design, QuantPlan("p", (rule, Rule("*")))).metrics()
            except AccelsimError:
                cells += ["–"] * 3
                continue
            values = (found["cycles_total"], found["energy_pj"], found["energy_pj_synthesized"])
            base = base if base[0] else values
            cells += [
                f"{found['cycles_total']:,}",
                *(f"{100 * (v / b - 1):+.1f} %" for v, b in zip(values[1:], base[1:], strict=True)),
            ]
        rows.append([name, *cells])
    heads = [f"{design.name} {what}" for design in (DECODED, ALIGNED) for what in ("cycles", "energy", "synthesized")]
    table([f"{MODEL}, {RESOLUTION}×{RESOLUTION}", *heads], rows)


if __name__ == "__main__":
    products()
    networks()
