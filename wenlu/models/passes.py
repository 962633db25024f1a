"""What a model does beside products on a processor, by kernels of our own (passes.cpp): each touches memory once.

Small models on a processor are bound by passes over memory and by the number of operators, not by arithmetic. Where
these kernels are in use, for training (`using`) or for what is done without gradients (`without_gradients`), the layers
call them; the formulas are told in passes.cpp.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wenlu.models.kernels import compiled_or_none

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SOURCES = tuple(Path(__file__).with_name(name) for name in ("passes.cpp", "lanes.h", "dropout.h", "softmax.h"))
ACTIVATIONS = {"silu": 0, "gelu_new": 1}
"""Those that gates have, by the kernels' numbers."""
_SHARED = 1 << 15
"""Numbers below which a second thread costs more than it brings."""
_TYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}
_POINTER, _LONG = ctypes.c_void_p, ctypes.c_long

_training: Passes | None = None
_reading: ContextVar[Passes | None] = ContextVar("reading", default=None)
"""The kernels that are in use where gradients flow, and, of this thread, where none do."""


class _Heads(ctypes.Structure):
    _fields_ = [
        *((name, _LONG) for name in ("batch", "seq", "heads", "kv_heads", "head_dim")),
        *((name, _POINTER) for name in ("q_norm", "k_norm", "cos", "sin", "positions")),
        ("eps", ctypes.c_float),
    ]


class _Scores(ctypes.Structure):
    _fields_ = [
        *((name, _LONG) for name in ("batch", "heads", "rows", "seq")),
        *(("bias", _POINTER), ("bias_strides", _LONG * 3)),
        *(("allowed", _POINTER), ("allowed_strides", _LONG * 3)),
        *(("scale", ctypes.c_float), ("causal", ctypes.c_int), ("parts", ctypes.c_int)),
        *(("key", ctypes.c_uint64), ("p", ctypes.c_double)),
    ]


_ARGUMENTS = {
    "norm": [_POINTER] * 4 + [_LONG] * 2 + [ctypes.c_float, ctypes.c_int],
    "norm_back": [_POINTER] * 6 + [_LONG] * 2 + [ctypes.c_int],
    "heads": [_POINTER] * 6 + [ctypes.c_int],
    "heads_back": [_POINTER] * 8 + [ctypes.c_int],
    "gate": [_POINTER] * 2 + [_LONG] * 3 + [ctypes.c_int],
    "gate_back": [_POINTER] * 3 + [_LONG] * 3 + [ctypes.c_int],
    "softmax": [_POINTER] * 3,
    "softmax_back": [_POINTER] * 4,
    "cross_entropy": [_POINTER] * 3 + [_LONG] * 2 + [ctypes.c_float, ctypes.c_int],
}
_DROP = [_POINTER] * 3 + [_LONG, ctypes.c_uint64, ctypes.c_double, ctypes.c_int]


class Passes:
    """The compiled kernels. `identity` names their source, the compiler and the processor's instruction sets."""

    def __init__(self, library: ctypes.CDLL, identity: str):
        self.identity = identity
        self._of = {}
        for name, arguments in _ARGUMENTS.items():
            self._of |= {(name, dtype): (f"{name}_{short}", arguments) for dtype, short in _TYPES.items()}
        for to, short in _TYPES.items():
            self._of |= {("drop", to, dtype): (f"drop_{short}_{of}", _DROP) for dtype, of in _TYPES.items()}
        for key, (name, arguments) in self._of.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
            self._of[key] = function

    def call(self, name: str | tuple, like: Tensor, *arguments) -> None:
        """A kernel by its name and the type of `like`; tensors become pointers."""
        key = (*name, like.dtype) if isinstance(name, tuple) else (name, like.dtype)
        self._of[key](*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))


@functools.cache
def passes() -> Passes | None:
    """The kernels of this machine, compiled now if they never were; None where that fails, which is said once."""
    found = compiled_or_none(SOURCES, "passes", "torch's own passes over memory are used, which take longer")
    return None if found is None else Passes(*found)


@contextmanager
def using(training: Passes | None) -> Iterator[None]:
    """Let the layers call these kernels while they train on a processor; None: torch's operators."""
    global _training
    before, _training = _training, training
    try:
        yield
    finally:
        _training = before


@contextmanager
def without_gradients(kernels: Passes | None) -> Iterator[None]:
    """The same for this thread's operators where no gradients flow."""
    before = _reading.set(kernels)
    try:
        yield
    finally:
        _reading.reset(before)


def _current() -> Passes | None:
    return _training if torch.is_grad_enabled() else _reading.get()


def in_use(x: Tensor) -> bool:
    """Whether the kernels serve for this tensor now: eager, on a processor, in f32 or bf16."""
    return not torch.compiler.is_compiling() and _current() is not None and x.is_cpu and x.dtype in _TYPES


def _parts(numbers: int) -> int:
    return torch.get_num_threads() if numbers >= _SHARED else 1


def _key(p: float) -> int:
    """63 random bits of torch's generator, where something is dropped out."""
    return int(torch.empty((), dtype=torch.int64).random_()) if p else 0


def rms_norm(x: Float[Tensor, "... dim"], weight: Float[Tensor, " dim"], eps: float) -> Float[Tensor, "... dim"]:
    """`layers.rms_norm`."""
    return _Norm.apply(x, weight.float(), eps, _current())


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(context, x, weight, eps, kernels):
        x = x.contiguous()
        y, rows, dim = torch.empty_like(x), x.numel() // x.shape[-1], x.shape[-1]
        scale = x.new_empty(rows, dtype=torch.float32)
        kernels.call("norm", x, y, scale, x, weight, rows, dim, eps, _parts(x.numel()))
        context.save_for_backward(x, weight, scale)
        context.kernels = kernels
        return y

    @staticmethod
    def backward(context, gradient):
        x, weight, scale = context.saved_tensors
        parts, gradient, of_x = _parts(x.numel()), gradient.contiguous(), torch.empty_like(x)
        of_weight = weight.new_zeros(parts, len(weight))
        sizes = (len(scale), len(weight), parts)
        context.kernels.call("norm_back", x, of_x, of_weight, gradient, x, scale, weight, *sizes)
        return of_x, of_weight.sum(0), None, None


def heads(
    qkv: Float[Tensor, "batch seq width"],
    sizes: tuple[int, int, int],
    norms: tuple[Tensor | None, Tensor | None],
    eps: float,
    angles: tuple[Tensor, Tensor] | None,
    positions: Int[Tensor, "batch seq"] | slice | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [batch, heads, seq, head_dim], keys and values of a product, normalised and turned by their positions.

    sizes: heads, kv_heads, head_dim; norms: weights [head_dim] for queries and keys, or None; angles: cosines and sines
    [places, head_dim / 2], or None.
    """
    table = angles or (None, None)
    if angles and isinstance(positions, slice) and positions.start:
        table = tuple(side[positions.start :] for side in table)
    places = None
    if isinstance(positions, Tensor):  # of any shape that turning by torch's operators takes
        places = positions.long().expand(qkv.shape[:2]).contiguous()
    norms = tuple(None if norm is None else norm.float() for norm in norms)
    return _SplitHeads.apply(qkv, *norms, sizes, eps, (*table, places), _current())


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(context, qkv, q_norm, k_norm, sizes, eps, turn, kernels):
        qkv = qkv.contiguous()
        (batch, seq, _), (count, kv_count, size) = qkv.shape, sizes
        pointers = [None if t is None else t.data_ptr() for t in (q_norm, k_norm, *turn)]
        context.layout = _Heads(batch, seq, count, kv_count, size, *pointers, eps)
        q = qkv.new_empty(batch, count, seq, size)
        k, v = (qkv.new_empty(batch, kv_count, seq, size) for _ in range(2))
        scale = qkv.new_empty(batch * seq * (count + kv_count) if q_norm is not None else 0, dtype=torch.float32)
        layout = ctypes.addressof(context.layout)
        kernels.call("heads", qkv, layout, q, k, v, scale, qkv, _parts(qkv.numel()))
        context.save_for_backward(qkv if q_norm is not None else None, scale, q_norm, k_norm, *turn)
        context.kernels, context.like = kernels, (qkv.shape, qkv.dtype)
        return q, k, v

    @staticmethod
    def backward(context, of_q, of_k, of_v):
        qkv, scale, q_norm, _k_norm, *_ = context.saved_tensors
        shape, dtype = context.like
        of_qkv = torch.empty(shape, dtype=dtype)
        parts, normed = _parts(of_qkv.numel()), q_norm is not None
        of_norms = of_q.new_zeros(parts if normed else 0, 2, context.layout.head_dim, dtype=torch.float32)
        gradients = (of_q.contiguous(), of_k.contiguous(), of_v.contiguous())
        layout, given = ctypes.addressof(context.layout), qkv if normed else None
        context.kernels.call("heads_back", of_qkv, layout, of_qkv, of_norms, *gradients, given, scale, parts)
        return of_qkv, *(of_norms.sum(0) if normed else (None, None)), None, None, None, None


def gated(gate_up: Float[Tensor, "... two_ffn"], activation: str) -> Float[Tensor, "... ffn"]:
    """`layers.gated`."""
    return _Gate.apply(gate_up, ACTIVATIONS[activation], _current())


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(context, gate_up, activation, kernels):
        gate_up = gate_up.contiguous()
        ffn = gate_up.shape[-1] // 2
        y = gate_up.new_empty(*gate_up.shape[:-1], ffn)
        kernels.call("gate", y, y, gate_up, y.numel() // ffn, ffn, activation, _parts(y.numel()))
        context.save_for_backward(gate_up)
        context.activation, context.kernels = activation, kernels
        return y

    @staticmethod
    def backward(context, gradient):
        (gate_up,) = context.saved_tensors
        gradient, of_gate_up, ffn = gradient.contiguous(), torch.empty_like(gate_up), gate_up.shape[-1] // 2
        sizes = (gradient.numel() // ffn, ffn, context.activation, _parts(gradient.numel()))
        context.kernels.call("gate_back", gradient, of_gate_up, gradient, gate_up, *sizes)
        return of_gate_up, None, None


def dropout(x: Float[Tensor, "*shape"], p: float, onto: Float[Tensor, "*shape"] | None = None) -> Tensor:
    """`layers.dropout` with p > 0, added to `onto` (f32) where that is given."""
    return _Dropout.apply(x, onto, p, _key(p), _current())


class _Dropout(torch.autograd.Function):
    """The same numbers are dropped in the backward pass by their key: no mask is kept."""

    @staticmethod
    def forward(context, x, onto, p, key, kernels):
        x, onto = x.contiguous(), None if onto is None else onto.contiguous()
        y = torch.empty_like(x if onto is None else onto)
        kernels.call(("drop", y.dtype), x, y, onto, x, x.numel(), key, p, _parts(x.numel()))
        context.rest, context.kernels, context.dtype = (key, p), kernels, x.dtype
        return y

    @staticmethod
    def backward(context, gradient):
        gradient = gradient.contiguous()
        of_x, count = torch.empty_like(gradient, dtype=context.dtype), gradient.numel()
        context.kernels.call(("drop", of_x.dtype), gradient, of_x, None, gradient, count, *context.rest, _parts(count))
        return of_x, gradient if context.needs_input_grad[1] else None, None, None, None


def attend(
    q: Float[Tensor, "batch heads new head_dim"],
    k: Float[Tensor, "batch heads seq head_dim"],
    v: Float[Tensor, "batch heads seq head_dim"],
    mask: Tensor | None,
    dropout: float,
    scale: float,
    causal: bool,
) -> Float[Tensor, "batch heads new head_dim"]:
    """`attention.attend` with as many heads of keys as of queries; a bias may learn."""
    bias = mask if mask is not None and mask.is_floating_point() else None
    allowed = None if bias is not None else mask
    settings = (scale, causal and mask is None and q.shape[2] > 1, dropout, _key(dropout))
    return _Attend.apply(q, k, v, bias, allowed, settings, _current())


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(context, q, k, v, bias, allowed, settings, kernels):
        (batch, heads, new, size), seq = q.shape, k.shape[2]
        q, k, v = (x.reshape(-1, x.shape[2], size) for x in (q, k, v))
        whole = (batch, heads, new, seq)
        biases = None if bias is None else _last_contiguous(bias.float().expand(whole))
        hidden = None if allowed is None else _last_contiguous(allowed.expand(whole))
        weights = torch.bmm(q, k.mT)
        scores = _scores(whole, biases, hidden, settings)
        dropped = torch.empty_like(weights) if settings[2] else weights
        kernels.call("softmax", weights, ctypes.addressof(scores), weights, dropped if settings[2] else None)
        context.save_for_backward(q, k, v, weights, dropped)
        context.scores, context.kernels = scores, kernels
        context.bias = None if bias is None else (bias.shape, bias.dtype)
        return torch.bmm(dropped, v).view(batch, heads, new, size)

    @staticmethod
    def backward(context, gradient):
        q, k, v, weights, dropped = context.saved_tensors
        scores, shape = context.scores, gradient.shape
        gradient = gradient.reshape(-1, *shape[2:])
        of_v = torch.bmm(dropped.mT, gradient)
        of_weights = torch.bmm(gradient, v.mT)
        of_bias = None
        if context.needs_input_grad[3]:
            of_bias = gradient.new_zeros(context.bias[0], dtype=torch.float32)
            over = of_bias.expand(shape[0], shape[1], *weights.shape[1:])
            scores.bias_strides[:] = over.stride()[:3]
        context.kernels.call("softmax_back", weights, ctypes.addressof(scores), of_weights, weights, of_bias)
        of_q, of_k = torch.bmm(of_weights, k), torch.bmm(of_weights.mT, q)
        of_q, of_k, of_v = (x.view(shape[0], shape[1], -1, shape[3]) for x in (of_q, of_k, of_v))
        return of_q, of_k, of_v, None if of_bias is None else of_bias.to(context.bias[1]), None, None, None


def _last_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _scores(whole: tuple[int, ...], bias: Tensor | None, allowed: Tensor | None, settings: tuple) -> _Scores:
    """The layout of attention's weights; it holds on to the tensors that it points at."""
    scale, causal, p, key = settings
    sides = []
    for side in (bias, allowed):
        strides = (_LONG * 3)(*((0, 0, 0) if side is None else side.stride()[:3]))
        sides += [None if side is None else side.data_ptr(), strides]
    parts = _parts(whole[0] * whole[1] * whole[2] * whole[3])
    scores = _Scores(*whole, *sides, scale, causal, parts, key, p)
    scores.kept = (bias, allowed)
    return scores


def cross_entropy_(
    logits: Float[Tensor, "rows vocab"], targets: Int[Tensor, " rows"], smoothing: float
) -> Float[Tensor, ""]:
    """`training.cross_entropy.replace_by_gradient`."""
    rows, vocab = logits.shape
    assert int(targets.max()) < vocab, "a target beyond the vocabulary"
    losses = logits.new_empty(rows, dtype=torch.float32)
    sizes = (rows, vocab, smoothing, _parts(logits.numel()))
    _training.call("cross_entropy", logits, logits, losses, targets.contiguous(), *sizes)
    return losses.sum()


def replaces(logits: Tensor) -> bool:
    """Whether `cross_entropy_` serves for these logits now; it needs no gradient."""
    return _training is not None and logits.is_cpu and logits.dtype in _TYPES and logits.is_contiguous()
