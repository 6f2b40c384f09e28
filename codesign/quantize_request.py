"""What `accelsim quantize` was asked for, with everything loaded: the one argument of every method's search."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from accelsim.arch import Accelerator
    from codesign.budgets import Budget
    from quant.calibrate import Calibration
    from quant.data.dataset import Preprocess
    from quant.network import Network


@dataclass(frozen=True, eq=False)
class QuantizeRequest:
    """`images` are the batches of calibration, drawn from `data`; `folder` takes what a search keeps.

    `budget` is None where the options name the formats.  `progress` is told what is done, how much, and of how much.
    """

    arguments: argparse.Namespace
    network: Network
    data: str
    preprocess: Preprocess | None
    images: list[Tensor]
    accelerator: Accelerator
    budget: Budget | None
    calibration: Calibration
    folder: Path
    progress: Callable[[str, int, int], None]
