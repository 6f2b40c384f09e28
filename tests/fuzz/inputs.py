"""Random accelerators and plans as plain data, odd ones included, and damage to them."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

from accelsim.config import load_accelerator, load_plan, plan_names, preset_names
from accelsim.dram import device_names

BAD_VALUES: tuple[Any, ...] = (
    -1, 0, 1, 3, 2**40, 2**40 + 1, 2**63, 2**64, 10**60, 1.5, -0.0, 1e300, float("nan"), float("inf"), None, True,
    "", "8", "1e9", "yes", "*", "class:", "balanced", "apot8", "u99", "vector", "mac_array", [], {}, [1, 2], {"a": 1},
    [[[]]], [None], [{}], {"format": "u8", "share": 0.5},
)  # fmt: skip
SIZES = (1, 1, 2, 3, 4, 5, 8, 16)
PORTS = (1, 7, 8, 64, 200, 4096, 2**40)


def _engine(rng: Random, number: int) -> dict[str, Any]:
    kind = rng.choice(["mac_array", "mac_array", "shift_array", "composable_array", "systolic_array"])
    engine: dict[str, Any] = {
        "name": f"e{number}", "kind": kind,
        "lanes": rng.choice(SIZES), "lane_width": rng.choice(SIZES), "pixel_groups": rng.choice(SIZES),
        "output_stage": {
            "outputs_per_cycle": rng.choice([1, 7, 64, 2**20]), "latency_cycles": rng.choice([0, 4, 2**20]),
        },
        "accumulator_bits": rng.choice([24, 32, 64]),
        "activation_port_bits_per_cycle": rng.choice(PORTS), "weight_port_bits_per_cycle": rng.choice(PORTS),
    }  # fmt: skip
    if kind == "shift_array":
        return engine | {"terms": rng.randint(1, 3)}
    engine["depthwise"] = rng.random() < 0.7
    pairs = sorted({(rng.choice([2, 4, 8, 16]), rng.choice([8, 16])) for _ in range(rng.randint(1, 3))})
    if kind == "composable_array":
        pairs = sorted({(rng.choice([2, 4, 8]), rng.choice([2, 4, 8])) for _ in range(rng.randint(1, 3))} | {(8, 8)})
        engine["modes"] = [
            {"weight_bits": w, "activation_bits": a, "products": 64 // (w * a) if 64 // (w * a) <= 16 else 16}
            for w, a in pairs
        ]
        return engine
    widest = max(w for w, _ in pairs)
    engine["modes"] = [
        {"weight_bits": w, "activation_bits": a, "products": rng.randint(1, widest // w)} for w, a in pairs
    ]
    return engine | _systolic(rng) if kind == "systolic_array" else engine


def _systolic(rng: Random) -> dict[str, Any]:
    """The fields that make a multiplier array a systolic one.

    Not `timing: scalesim`: its total is one cycle less than a layer takes, so the laws do not hold for it.
    """
    dataflow = rng.choice(["ws", "os", "is"])
    fields: dict[str, Any] = {"kind": "systolic_array", "dataflow": dataflow, "pixel_groups": 1, "depthwise": False}
    fields["accumulator_rows"] = 0 if dataflow == "os" else rng.choice([128, 1000, 2**16])
    if dataflow != "os":
        fields["double_buffered"] = rng.random() < 0.5
    return fields


def _dram(rng: Random) -> dict[str, Any]:
    if rng.random() < 0.25:
        return {"model": "banked", "device": rng.choice(device_names()), "channels": rng.choice([1, 2, 3, 8])}
    return {
        "bandwidth_bits_per_s": rng.choice(
            [1_000_000, 8_000_000_000, 24_000_000_000, 51_200_000_000, 153_600_000_000, 10**14]
        ),
        "burst_bits": rng.choice([64, 512, 4096]), "first_beat_latency_s": rng.choice([0, 4.5e-8, 1e-3]),
        "type": rng.choice(["DDR4", "LPDDR4", "HBM2"]),
    }  # fmt: skip


def _buffer(rng: Random) -> dict[str, int]:
    macro = rng.choice([8, 64, 4096, 65536])
    return {
        "capacity_bits": macro * rng.choice([1, 2, 16, 100, 1000, 2**20]), "macro_bits": macro,
        "word_bits": rng.choice([8, min(macro, 64)]),
    }  # fmt: skip


def random_accelerator(rng: Random) -> dict[str, Any]:
    """One to three engines from one slot up, buffers from one byte up, ports from one bit up, odd clocks and buses."""
    extreme = rng.random() < 0.2
    engines = [_engine(rng, k) for k in range(rng.randint(1, 3))]
    if rng.random() < 0.8:
        engines[0] |= {"kind": "mac_array", "depthwise": True, "accumulator_bits": 64}
        engines[0].pop("terms", None)
        wide = {"weight_bits": 16, "activation_bits": 16, "products": 1}
        engines[0]["modes"] = [
            mode
            for mode in (
                {"weight_bits": 4, "activation_bits": 8, "products": rng.randint(1, 4)},
                {"weight_bits": 8, "activation_bits": 16, "products": rng.randint(1, 2)},
            )
            if rng.random() < 0.5
        ] + [wide]
        if rng.random() < 0.25:
            engines[0] |= _systolic(rng)
    return {
        "name": "fuzz",
        "clock_hz": rng.choice([1_000_000, 100_000_000, 200_000_000, 333_000_000, 5_000_000_000]),
        "node_nm": rng.choice([28, 45]),
        "engines": engines,
        "vector": {
            **{f"{kind}_per_cycle": rng.choice([1, 3, 16, 2**40] if extreme else [1, 3, 16])
               for kind in ("mul", "add", "shift", "compare", "table", "division")},
            "port_bits_per_cycle": rng.choice(PORTS), "latency_cycles": rng.choice([0, 8, 2**20]),
        },
        "activation_buffer": _buffer(rng) if extreme else {"capacity_bits": 65536 * rng.choice([1, 4, 32, 2**20])},
        "weight_buffer": _buffer(rng) if extreme else {"capacity_bits": 65536 * rng.choice([1, 4, 32, 2**20])},
        "dram": _dram(rng),
    }  # fmt: skip


def random_plan(rng: Random) -> dict[str, Any]:
    """One to five rules over classes with formats of every scheme, shared channels and both dividers."""

    def weights() -> Any:
        draw = rng.random()
        if draw < 0.5:
            return rng.choice(["u8", "u8", "u4", "u2", "u16", "u5"])
        if draw < 0.7:
            return rng.choice(["u8", "u8", "pot4", "apot8", "pot3", "apot12"])
        if draw < 0.85:
            return [{"format": "u8", "share": "balanced"}, {"format": "apot8", "share": "balanced"}]
        share = rng.choice([0.0, 0.01, 0.25, 0.5, 1 / 3, 1.0])
        return [{"format": "u8", "share": share}, {"format": rng.choice(["u4", "pot4"]), "share": 1 - share}]

    def rule(match: str) -> dict[str, Any]:
        wide = ("u8", "u8", "u8", "u4", "u16")
        return {"match": match, "weights": weights(), "activation": rng.choice(wide), "output": rng.choice(wide),
                "right": rng.choice(wide)}  # fmt: skip

    matches = rng.sample(["class:dw", "class:pw", "class:qkv", "class:mlp", "c*", "l?"], rng.randint(0, 4))
    return {
        "name": "fuzz", "rules": [rule(match) for match in [*matches, "*"]],
        "division": rng.choice(["log2_shift", "divide"]), "bias_bits": rng.choice([1, 32, 64]),
        "scale_bits": rng.choice([1, 16, 64]),
    }  # fmt: skip


def preset_or_random(rng: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Data of an accelerator and of a plan: those that come with the program one time in four."""
    accelerator = random_accelerator(rng)
    plan = random_plan(rng)
    if rng.random() < 0.25:
        accelerator = json.loads(json.dumps(load_accelerator(rng.choice(preset_names())).to_json()))
    if rng.random() < 0.25:
        plan = load_plan(rng.choice(plan_names())).to_json()
        del plan["format"]
    return accelerator, plan


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    found = []
    for key, value in items:
        found += [(*path, key), *_places(value, (*path, key))]
    return found


def damage(rng: Random, data: dict[str, Any]) -> None:
    """Delete, rename, replace, duplicate or wrap one to three values, in place."""
    for _ in range(rng.randint(1, 3)):
        known = _places(data)
        if not known:
            return
        *parents, last = rng.choice(known)
        holder: Any = data
        for key in parents:
            holder = holder[key]
        action = rng.choice(["delete", "rename", "replace", "replace", "replace", "duplicate", "wrap"])
        if action == "delete":
            del holder[last]
        elif action == "rename" and isinstance(holder, dict):
            holder[f"{last}x"] = holder.pop(last)
        elif action == "duplicate" and isinstance(holder, list):
            holder.insert(last, copy.deepcopy(holder[last]))
        elif action == "wrap":
            holder[last] = [holder[last]]
        else:
            holder[last] = copy.deepcopy(rng.choice(BAD_VALUES))


def damage_text(rng: Random, text: str) -> bytes:
    """Cut, inject or replace characters of a YAML file, or repeat a line."""
    raw = text.encode()
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(raw))
        action = rng.choice(["truncate", "inject", "replace", "line"])
        if action == "truncate":
            raw = raw[: max(at, len(raw) // 2)]
        elif action == "inject":
            junk = "".join(rng.choices("{}[]:,-&*!|>'\"%@`#?~=<\t\n\\ \r\x85\u2028uU0xe.", k=rng.randint(1, 4)))
            raw = raw[:at] + junk.encode() + raw[at:]
        elif action == "replace":
            raw = raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
        else:
            lines = raw.splitlines(keepends=True) or [b""]
            line = rng.randrange(len(lines))
            raw = b"".join([*lines[:line], lines[line], *lines[line:]])
    return raw
