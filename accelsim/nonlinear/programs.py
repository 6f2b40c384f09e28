"""Every method's program is registered by importing this module."""

from __future__ import annotations

from accelsim.nonlinear import programs_gelu, programs_layernorm, programs_ptf, programs_softmax

__all__ = ["programs_gelu", "programs_layernorm", "programs_ptf", "programs_softmax"]
