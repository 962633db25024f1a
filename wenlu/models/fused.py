"""A transformer block over few new tokens as one kernel (block.h), of the block's own weights.

Written token by token, a block costs its matrices read once, and then its small operators: norms, rotation, the cache,
attention. As separate operators those took as long as the reading.
"""

from __future__ import annotations

import ctypes
import math
from operator import getitem, is_
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wenlu.models.block import Block
from wenlu.models.cache import KeyValueCache
from wenlu.models.kernels import Kernels
from wenlu.models.layers import RMSNorm
from wenlu.models.position import Rotary
from wenlu.models.quantized import Int8Linear

if TYPE_CHECKING:
    from jaxtyping import Float

TOKENS = 64
"""The most new tokens, of all texts together."""
ACTIVATIONS = ("silu", "gelu_new", "relu", "relu2")
"""Those that the kernel has, by its numbers."""
_POINTER, _LONG = ctypes.c_void_p, ctypes.c_long
_MATRICES, _NORMS = ("qkv", "out", "up", "down"), ("norm_1", "norm_2")


class _Matrix(ctypes.Structure):
    _fields_ = [(name, _POINTER) for name in ("weight", "scale", "bias")]


class _Block(ctypes.Structure):
    _fields_ = [
        *((name, _Matrix) for name in _MATRICES),
        *((name, _POINTER) for norm in _NORMS for name in (norm, f"{norm}_bias")),
        *((name, _POINTER) for name in ("q_norm", "k_norm")),
        *((name, _LONG) for name in ("dim", "heads", "kv_heads", "head_dim", "ffn")),
        *((name, _LONG) for name in ("centred", "gated", "activation", "window")),
        *((name, ctypes.c_float) for name in ("eps", "scale")),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("x", "y", "keys", "values")),
        *((name, _LONG) for name in ("row_stride", "room")),
        *((name, _POINTER) for name in ("lengths", "cos", "sin")),
        *((name, _LONG) for name in ("rows", "new")),
        ("threads", ctypes.c_int),
    ]


class FusedBlock:
    """A block's kernel: the same weights, in the same places of memory."""

    def __init__(self, kernels: Kernels, block: Block):
        """Raises ValueError, which says why, for a block that the kernel cannot stand in for."""
        self._modules = list(block.modules())
        linears = [block.attention.qkv, block.attention.out, block.feed_forward.up, block.feed_forward.down]
        self._holders = [(m._parameters, name) for m in self._modules for name in m._parameters]
        self._holders += [(m._buffers, name) for m in self._modules for name in m._buffers]
        self._children = [(m._modules, name) for m in self._modules for name in m._modules]
        self._held = [*(d[name] for d, name in self._holders), *(d[name] for d, name in self._children)]
        self._tensors = [t for t in self._held if isinstance(t, Tensor) and t.numel()]
        self._kept = [*self._held]
        self.dtype = block.norm_1.weight.dtype
        weight = linears[0].weight.dtype
        if block.feed_forward.activation not in ACTIVATIONS:
            raise ValueError(f"no kernel has the activation {block.feed_forward.activation}")
        if not all(isinstance(linear, nn.Linear | Int8Linear) and linear.weight.dtype == weight for linear in linears):
            raise ValueError("its matrices are of several types")
        floats = [t for t in self._tensors if t.dtype != torch.int8 and not _is_scale(t, linears)]
        if (weight != torch.int8 and weight != self.dtype) or any(t.dtype != self.dtype for t in floats):
            raise ValueError("its norms are of another type than its matrices")
        if not all(t.is_cpu and t.is_contiguous() for t in self._tensors):
            raise ValueError("its weights do not lie in the processor's memory")
        self._kernel = kernels.block(weight, self.dtype)
        if self._kernel is None:
            raise ValueError(f"there is no kernel for {weight} and {self.dtype}")
        self._layer, self._pointers = block.attention.layer, self._now()
        self._block, self._step = _described(block, linears), _Step()
        self._given = ctypes.byref(self._block), ctypes.byref(self._step)

    def _now(self) -> list[int]:
        return [tensor.data_ptr() for tensor in self._tensors]

    def holds(self) -> bool:
        """Whether the block is still what it was: its parts, where its weights lie, and no hook on any part."""
        dicts, names = zip(*self._holders, *self._children, strict=True)
        return (
            all(map(is_, map(getitem, dicts, names), self._kept))
            and self._now() == self._pointers
            and not any(m._forward_hooks or m._forward_pre_hooks for m in self._modules)
        )

    def __call__(
        self, x: Float[Tensor, "batch new dim"], rotary: Rotary | None, cache: KeyValueCache
    ) -> Float[Tensor, "batch new dim"]:
        """The block's output for new tokens in order, after those of the cache, to which they are added."""
        step, x = self._step, x.contiguous()
        batch, new, _ = x.shape
        y, store = torch.empty_like(x), cache.room_for(new)
        _, _, all_rows, heads, room, head_dim = store.shape
        row, size = heads * room * head_dim, store.element_size()
        step.x, step.y = x.data_ptr(), y.data_ptr()
        step.keys = store.data_ptr() + 2 * self._layer * all_rows * row * size
        step.values = step.keys + all_rows * row * size
        step.row_stride, step.room, step.lengths = row, room, cache.counts.data_ptr()
        if rotary is not None:
            assert len(rotary.cos) >= cache.length + new, "the tables of rotary positions are too short"
            step.cos, step.sin = rotary.cos.data_ptr(), rotary.sin.data_ptr()
        step.rows, step.new, step.threads = batch, new, torch.get_num_threads()
        self._kernel(*self._given)
        return y


def _is_scale(tensor: Tensor, linears: list[nn.Module]) -> bool:
    return any(isinstance(linear, Int8Linear) and tensor is linear.scale for linear in linears)


def _described(block: Block, linears: list[nn.Module]) -> _Block:
    attention, feed_forward, described = block.attention, block.feed_forward, _Block()

    def at(tensor: Tensor | None) -> int | None:
        return None if tensor is None else tensor.data_ptr()

    for name, linear in zip(_MATRICES, linears, strict=True):
        scale = linear.scale if isinstance(linear, Int8Linear) else None
        setattr(described, name, _Matrix(at(linear.weight), at(scale), at(linear.bias)))
    for name in _NORMS:
        norm = getattr(block, name)
        setattr(described, name, at(norm.weight))
        setattr(described, f"{name}_bias", at(getattr(norm, "bias", None)))
    described.q_norm, described.k_norm = at(attention.q_norm), at(attention.k_norm)
    described.dim, described.ffn = linears[0].weight.shape[1], linears[3].weight.shape[1]
    described.heads, described.kv_heads = attention.heads, attention.kv_heads
    described.head_dim, described.window = attention.head_dim, attention.window
    described.centred, described.gated = not isinstance(block.norm_1, RMSNorm), feed_forward.gated
    described.activation, described.eps = ACTIVATIONS.index(feed_forward.activation), attention.eps
    described.scale = attention.scale or 1 / math.sqrt(attention.head_dim)
    return described
