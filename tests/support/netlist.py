"""Values of a flat netlist of yosys (`write_json`): AND, OR, XOR, NOT and flip-flops, bit-parallel with numpy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]
Int64 = NDArray[np.int64]
CONSTANTS = {"0": 0, "x": 0, "1": 255}


class Netlist:
    """The only module of a JSON file; every element of an operand array is a case of its own."""

    def __init__(self, path: Path) -> None:
        modules = json.loads(path.read_text())["modules"]
        (module,) = modules.values()
        self.ports: dict[str, Any] = module["ports"]
        cells = [(cell["type"], cell["connections"]) for cell in module["cells"].values()]
        self.registers = [(pins["Q"][0], pins["D"][0]) for kind, pins in cells if kind == "$_DFF_P_"]
        self.gates = self._sorted([(kind, pins) for kind, pins in cells if kind != "$_DFF_P_"])

    def _sorted(self, gates: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Gates in an order in which every input is known before it is used."""
        known = {bit for port in self.ports.values() if port["direction"] == "input" for bit in port["bits"]}
        known |= {output for output, _ in self.registers} | set(CONSTANTS)
        found = []
        while gates:
            ready = [gate for gate in gates if all(gate[1][pin][0] in known for pin in "AB" if pin in gate[1])]
            assert ready, "a loop of gates"
            known |= {pins["Y"][0] for _, pins in ready}
            done = {id(pins) for _, pins in ready}
            gates = [gate for gate in gates if id(gate[1]) not in done]
            found += ready
        return found

    def start(self, cases: int) -> dict[Any, Bits]:
        """Registers of `cases` cases, all 0."""
        return {output: np.zeros(-(-cases // 8), np.uint8) for output, _ in self.registers}

    def step(self, operands: dict[str, Int64], state: dict[Any, Bits]) -> dict[str, Int64]:
        """Output ports as unsigned integers for these operands and registers, which then take the clock edge."""
        cases = len(next(iter(operands.values())))
        values = {name: np.full(-(-cases // 8), value, np.uint8) for name, value in CONSTANTS.items()} | state
        for name, numbers in operands.items():
            for place, bit in enumerate(self.ports[name]["bits"]):
                values[bit] = np.packbits((numbers >> place & 1).astype(np.uint8))
        for kind, pins in self.gates:
            a, b = values[pins["A"][0]], values[pins["B" if "B" in pins else "A"][0]]
            values[pins["Y"][0]] = {"$_AND_": a & b, "$_OR_": a | b, "$_XOR_": a ^ b, "$_NOT_": ~a}[kind]
        state.update({output: values[source] for output, source in self.registers})
        return {
            name: sum(
                (
                    np.unpackbits(values[bit])[:cases].astype(np.int64) << place
                    for place, bit in enumerate(port["bits"])
                ),
                np.zeros(cases, np.int64),
            )
            for name, port in self.ports.items()
            if port["direction"] == "output"
        }
