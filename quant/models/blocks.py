"""Torch modules that are one operation of a Workload each; their path in the model is the operation's name.

`capture` merges what happens inside one `OpModule` into one op, as the hardware does: convolution, BatchNorm (folded)
and activation; a residual add; a product of two activations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from accelsim.problems import AccelsimError, Problem

# "gelu_tanh" is the approximation of gelu by tanh; for the hardware both are one table.
ACTIVATIONS = ("", "relu", "hardswish", "gelu", "gelu_tanh", "silu", "sigmoid")


def activate(value: Tensor, name: str) -> Tensor:
    """The named activation of a tensor; "" leaves it as it is.  Raises AccelsimError for another name."""
    if not name:
        return value
    if name not in ACTIVATIONS:
        raise AccelsimError(
            Problem("activation", f"unknown activation {name!r}", f"one of {', '.join(ACTIVATIONS[1:])}")
        )
    if name == "sigmoid":
        return torch.sigmoid(value)
    if name == "gelu_tanh":
        return F.gelu(value, approximate="tanh")
    result: Tensor = getattr(F, name)(value)
    return result


class OpModule(nn.Module):
    """A module that is exactly one op of the workload."""


class Conv(OpModule):
    """Convolution, optional BatchNorm, optional activation.  Padding is half the kernel unless given."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
        norm: bool = False,
        activation: str = "",
    ) -> None:
        super().__init__()
        pad = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(outputs) if norm else None
        self.activation = activation

    def forward(self, value: Tensor) -> Tensor:
        """[batch, inputs, h, w] → [batch, outputs, h', w']."""
        value = self.conv(value)
        if self.norm is not None:
            value = self.norm(value)
        return activate(value, self.activation)


class Linear(OpModule):
    """Linear layer over the last axis, optional BatchNorm before or after it, optional activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        input_norm: bool = False,
        norm: bool = False,
        activation: str = "",
    ) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm1d(inputs) if input_norm else None
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        self.norm = nn.BatchNorm1d(outputs) if norm else None
        self.activation = activation

    def forward(self, value: Tensor) -> Tensor:
        """[.., inputs] → [.., outputs]."""
        if self.input_norm is not None:
            value = self.input_norm(value.flatten(0, -2)).reshape_as(value)
        value = self.linear(value)
        if self.norm is not None:
            value = self.norm(value.flatten(0, -2)).reshape_as(value)
        return activate(value, self.activation)


class LayerNorm(OpModule):
    """LayerNorm over the last axis, optional activation."""

    def __init__(self, width: int, eps: float = 1e-5, activation: str = "") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=eps)
        self.activation = activation

    def forward(self, value: Tensor) -> Tensor:
        """[.., width] → [.., width]."""
        return activate(self.norm(value), self.activation)


class Activation(OpModule):
    """An activation that is an op of its own (it follows a concatenation, not a product)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.activation = name

    def forward(self, value: Tensor) -> Tensor:
        """Any shape → the same."""
        return activate(value, self.activation)


class Add(OpModule):
    """Residual sum of a branch and its skip."""

    def forward(self, branch: Tensor, skip: Tensor) -> Tensor:
        """Two tensors of one shape → their sum."""
        return branch + skip


class MatMul(OpModule):
    """Product of two activations, times a constant (the 1/√d of attention scores), optional activation."""

    def __init__(self, scale: float = 1.0, activation: str = "") -> None:
        super().__init__()
        self.scale = scale
        self.activation = activation

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """[.., n, k] · [.., k, m] → [.., n, m]."""
        product = left @ right
        return activate(product if self.scale == 1.0 else product * self.scale, self.activation)


class Softmax(OpModule):
    """Softmax over the last axis."""

    def forward(self, value: Tensor) -> Tensor:
        """[.., n] → shares that sum to 1 along the last axis."""
        return torch.softmax(value, dim=-1)


class DivideByLast(OpModule):
    """Linear attention: divide all rows of the second last axis by its last row."""

    def __init__(self, eps: float = 1e-15) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, value: Tensor) -> Tensor:
        """[.., d + 1, n] → [.., d, n]."""
        return value[..., :-1, :] / (value[..., -1:, :] + self.eps)


class Concat(OpModule):
    """Concatenation that moves nothing (a view in the workload)."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *parts: Tensor) -> Tensor:
        """Tensors that differ in one axis only → joined along it."""
        return torch.cat(parts, dim=self.dim)


class Pool(OpModule):
    """Mean over all positions."""

    def forward(self, value: Tensor) -> Tensor:
        """[batch, channels, h, w] → [batch, channels]."""
        return value.mean(dim=(2, 3))


class Embed(OpModule):
    """Put the class token before the patches and add the position embedding."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens + 1, width))

    def forward(self, patches: Tensor) -> Tensor:
        """[batch, width, h, w] → [batch, 1 + h·w, width]."""
        rows = patches.flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(rows.shape[0], -1, -1), rows], dim=1) + self.pos_embed


class OnesMatMul(OpModule):
    """Product of two activations, the right one joined with a column of ones that is not stored (its sums)."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """[.., n, k] · [.., k, m] joined with ones → [.., n, m + 1]; the last column holds the sums over k of left."""
        return left @ F.pad(right, (0, 1), value=1.0)


class NormalizeRows(OpModule):
    """Quadratic ReLU attention: divide every row by its sum."""

    def __init__(self, eps: float = 1e-15) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, value: Tensor) -> Tensor:
        """[.., n] ≥ 0 → shares that sum to 1 along the last axis."""
        return value / (value.sum(dim=-1, keepdim=True) + self.eps)


class ClassToken(OpModule):
    """The row of the class token (a view in the workload)."""

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, tokens, width] → [batch, width]."""
        return rows[:, 0]


class Tokens(OpModule):
    """Positions in a row (a view in the workload)."""

    def forward(self, value: Tensor) -> Tensor:
        """[batch, channels, h, w] → [batch, h·w, channels]."""
        return value.flatten(2).transpose(1, 2)


class ScaledAdd(OpModule):
    """Residual sum whose branch has a learned factor per channel (layer scale)."""

    def __init__(self, channels: int, *, rows: bool = False) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels if rows else (channels, 1, 1)))

    def forward(self, branch: Tensor, skip: Tensor) -> Tensor:
        """Two tensors of one shape ([batch, channels, h, w], or [.., channels] for rows) → γ·branch + skip."""
        return self.gamma * branch + skip


class Average(OpModule):
    """Mean of two tensors (of two classifiers' outputs)."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Two tensors of one shape → their mean."""
        return (one + other) * 0.5


class TokenPool(OpModule):
    """Mean over all tokens."""

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, tokens, channels] → [batch, channels]."""
        return rows.mean(dim=1)


class PoolMixer(OpModule):
    """The mean of the 3 × 3 window without the position itself, times a factor per channel, added to the position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, value: Tensor) -> Tensor:
        """[batch, channels, h, w] → the same."""
        window = F.avg_pool2d(value, 3, stride=1, padding=1, count_include_pad=False)
        return value + self.gamma * (window - value)


class Gate(OpModule):
    """Every channel times its own factor (squeeze and excitation), optional activation."""

    def __init__(self, activation: str = "") -> None:
        super().__init__()
        self.activation = activation

    def forward(self, value: Tensor, factors: Tensor) -> Tensor:
        """[batch, channels, h, w] and [batch, channels] → as the first."""
        return activate(value * factors[:, :, None, None], self.activation)


class RelativeBias(OpModule):
    """Add a learned bias that depends on where query and key are: `table` [biases, heads] read through `index`.

    `index` is [queries, keys]; `mask`, if any, is [windows, queries, keys] and added as well (shifted windows).
    """

    index: Tensor
    mask: Tensor | None

    def __init__(self, heads: int, index: Tensor, mask: Tensor | None = None) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(int(index.max()) + 1, heads))
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """[batch × windows, heads, queries, keys] → the same."""
        bias = self.table[self.index].permute(2, 0, 1)
        if self.mask is None:
            return scores + bias
        windows = scores.reshape(-1, self.mask.shape[0], *scores.shape[1:])
        return (windows + (bias + self.mask[:, None])).flatten(0, 1)
