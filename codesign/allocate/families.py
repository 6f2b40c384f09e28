"""Families of options, and option sets with one of them taken away: what an ablation of the search removes.

* `schemes`: weights that are not uniform; `channels`: several formats within a layer; `regions`: two-region codes;
  `methods`: more than one method of softmax and LayerNorm, and of division (the first of each stays);
  `heads`: parts of a tensor in a width of their own; `tokens`: tokens in fewer bits.
* `learned` (widths and weights that Q-ViT learned) is no setting of the allocator: the loop has such designs or not.
"""

from __future__ import annotations

from dataclasses import replace

from accelsim.problems import AccelsimError, Problem
from codesign.allocate.options import OptionSettings

LEARNED, TOKENS = "learned", "tokens"
FAMILIES = ("schemes", "channels", "regions", "methods", "heads", TOKENS, LEARNED)


def without(settings: OptionSettings, family: str) -> OptionSettings:
    """The settings without a family; the same settings where they have none of it.  Raises AccelsimError."""
    uniform = tuple(name for name in settings.weight_formats if name.startswith("u"))
    stored = tuple(name for name in settings.activation_formats if name.startswith("u"))
    less = {
        "schemes": replace(settings, weight_formats=uniform),
        "channels": replace(settings, mixtures=0),
        "regions": replace(settings, activation_formats=stored),
        "methods": replace(settings, methods=settings.methods[:1], divisions=settings.divisions[:1]),
        "heads": replace(settings, head_formats=()),
        TOKENS: replace(settings, token_shares=()),
        LEARNED: settings,
    }
    if family not in less:
        raise AccelsimError(Problem("option family", f"unknown {family!r}", " | ".join(FAMILIES)))
    return less[family]
