"""Transformer blocks over few new tokens as one kernel (block.h), of the blocks' own weights.

Written token by token, a block costs its matrices read once, and then its small operators: norms, rotation, the cache,
attention. As separate operators those took as long as the reading. One call goes through all blocks, for each by itself
would be Python's time again.
"""

from __future__ import annotations

import ctypes
import math
from itertools import chain
from operator import is_
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
    from collections.abc import Sequence

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
        *((name, _LONG) for name in ("layers", "layer_stride", "row_stride", "room")),
        *((name, _POINTER) for name in ("lengths", "cos", "sin")),
        *((name, _LONG) for name in ("rows", "new")),
        ("threads", ctypes.c_int),
    ]


class FusedBlocks:
    """The kernel of blocks that follow one another: the same weights, in the same places of memory."""

    def __init__(self, kernels: Kernels, blocks: Sequence[nn.Module]):
        """Raises ValueError, which says why, for blocks that the kernel cannot stand in for."""
        self._blocks = list(blocks)
        if not blocks or not all(map(_is_plain, blocks)):
            raise ValueError("they are no plain blocks")
        self.dtype, self._first = blocks[0].norm_1.weight.dtype, blocks[0].attention.layer
        if [block.attention.layer - self._first for block in blocks] != list(range(len(blocks))):
            raise ValueError("they do not follow one another")
        modules = [module for block in blocks for module in block.modules()]
        # Where the blocks hold what they hold; that; where its weights lie; where hooks would stand.
        others = [held for m in modules for held in (m._buffers, m._modules) if held]
        self._places = [*(m._parameters for m in modules), *others]
        self._held = self._found()
        self._tensors = [t for t in self._held if isinstance(t, Tensor) and t.numel()]
        self._hooks = [hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        weights = {_checked(block, self.dtype) for block in blocks}
        if len(weights) > 1:
            raise ValueError("its matrices are of several types")
        self._kernel = kernels.blocks(weights.pop(), self.dtype)
        if self._kernel is None:
            raise ValueError(f"there is no kernel for {blocks[0].attention.qkv.weight.dtype} and {self.dtype}")
        self._pointers = self._now()
        self._described = (_Block * len(blocks))(*map(_described, blocks))
        self._step = _Step(layers=len(blocks))
        self._given = ctypes.byref(self._described), ctypes.byref(self._step)

    def _found(self) -> list[nn.Module | Tensor | None]:
        return [*chain.from_iterable(map(dict.values, self._places))]

    def _now(self) -> list[int]:
        return [tensor.data_ptr() for tensor in self._tensors]

    @property
    def hooked(self) -> bool:
        """Whether something wants to see a part at work."""
        return any(self._hooks)

    def holds(self, blocks: Sequence[nn.Module]) -> bool:
        """Whether these are the blocks, and still what they were: their parts, and where their weights lie."""
        return (
            _same(blocks, self._blocks)
            and all(map(_is_plain, blocks))
            and _same(self._found(), self._held)
            and self._now() == self._pointers
        )

    def __call__(
        self, x: Float[Tensor, "batch new dim"], rotary: Rotary | None, cache: KeyValueCache
    ) -> Float[Tensor, "batch new dim"]:
        """The last block's output for new tokens in order, after those of the cache, to which they are added."""
        step, x = self._step, x.contiguous()
        batch, new, _ = x.shape
        y, store = torch.empty_like(x), cache.room_for(new)
        assert self._first + step.layers <= len(store), "the cache has places for all of these layers"
        (step.layer_stride, to_values, step.row_stride, *_), size = store.stride(), store.element_size()
        step.x, step.y, step.room = x.data_ptr(), y.data_ptr(), store.shape[4]
        step.keys = store.data_ptr() + self._first * step.layer_stride * size
        step.values = step.keys + to_values * size
        step.lengths = cache.counts.data_ptr()
        if rotary is not None:
            assert len(rotary.cos) >= cache.length + new, "the tables of rotary positions are too short"
            step.cos, step.sin = rotary.cos.data_ptr(), rotary.sin.data_ptr()
        step.rows, step.new, step.threads = batch, new, torch.get_num_threads()
        self._kernel(*self._given)
        return y


def _same(these: Sequence, those: Sequence) -> bool:
    return len(these) == len(those) and all(map(is_, these, those))


def _is_plain(block: nn.Module) -> bool:
    """Whether it is the block that the kernel knows, with no lines of its own."""
    return type(block) is Block and "forward" not in block.__dict__ and "attended" not in block.attention.__dict__


def _linears(block: Block) -> list[nn.Module]:
    return [block.attention.qkv, block.attention.out, block.feed_forward.up, block.feed_forward.down]


def _checked(block: Block, dtype: torch.dtype) -> torch.dtype:
    """The type of a block's matrices. Raises ValueError where the kernel has no such block."""
    linears = _linears(block)
    weight = linears[0].weight.dtype
    if block.feed_forward.activation not in ACTIVATIONS:
        raise ValueError(f"no kernel has the activation {block.feed_forward.activation}")
    if not all(isinstance(linear, nn.Linear | Int8Linear) and linear.weight.dtype == weight for linear in linears):
        raise ValueError("its matrices are of several types")
    tensors = [t for t in (*block.parameters(), *block.buffers()) if t.numel()]
    floats = [t for t in tensors if t.dtype != torch.int8 and not _is_scale(t, linears)]
    if (weight != torch.int8 and weight != dtype) or any(t.dtype != dtype for t in floats):
        raise ValueError("its norms are of another type than its matrices")
    if not all(t.is_cpu and t.is_contiguous() for t in tensors):
        raise ValueError("its weights do not lie in the processor's memory")
    return weight


def _is_scale(tensor: Tensor, linears: list[nn.Module]) -> bool:
    return any(isinstance(linear, Int8Linear) and tensor is linear.scale for linear in linears)


def _described(block: Block) -> _Block:
    attention, feed_forward, linears, described = block.attention, block.feed_forward, _linears(block), _Block()

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
