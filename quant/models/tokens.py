"""Transformer blocks over rows of tokens that several families share; op names as in `accelsim.workloads.blocks`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.models.blocks import Add, LayerNorm, Linear, MatMul, OpModule, ScaledAdd, Softmax


class TokenBlock(nn.Module):
    """Attention and MLP over rows of tokens; a family says how it makes queries, keys and values."""

    def add_attention(self, key_dim: int, bias: OpModule | None = None, activation: str = "") -> None:
        """Ops scores, bias (if any), softmax and values, whose result `activation` ends."""
        self.scores = MatMul(key_dim**-0.5)
        self.bias = bias
        self.softmax = Softmax()
        self.values = MatMul(activation=activation)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """[n, heads, queries, d], [n, heads, keys, d], [n, heads, keys, v] → [n, heads, queries, v]."""
        scores = self.scores(queries, keys.transpose(-1, -2))
        if self.bias is not None:
            scores = self.bias(scores)
        result: Tensor = self.values(self.softmax(scores), values)
        return result

    def add_mlp(self, width: int, ratio: int, activation: str, *, layer_scale: bool = False) -> None:
        """Ops norm2, fc1, fc2 and mlp_add."""
        self.norm2 = LayerNorm(width)
        self.fc1 = Linear(width, ratio * width, activation=activation)
        self.fc2 = Linear(ratio * width, width)
        self.mlp_add = ScaledAdd(width, rows=True) if layer_scale else Add()

    def mlp(self, rows: Tensor) -> Tensor:
        """[batch, tokens, width] → the same."""
        result: Tensor = self.mlp_add(self.fc2(self.fc1(self.norm2(rows))), rows)
        return result


def offset_index(queries: Tensor, keys: Tensor) -> Tensor:
    """A number for every pair of positions: equal for pairs whose rows and columns lie equally far apart.

    `queries` and `keys` are [n, 2] (row, column); the result is [queries, keys], numbered from 0 in order of (rows,
    columns) apart.
    """
    apart = (queries[:, None] - keys[None]).abs()
    return apart[..., 0] * (int(apart[..., 1].max()) + 1) + apart[..., 1]


def grid(rows: int, columns: int, step: int = 1) -> Tensor:
    """[n, 2]: row and column of every position of a grid, row by row."""
    return torch.cartesian_prod(torch.arange(0, rows, step), torch.arange(0, columns, step))
