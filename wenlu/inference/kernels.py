"""A model that decodes fast: its own modules, for a while, with kernels of our own.

They are of products, which read a matrix at memory's speed; of attention; of all blocks of a step; and of passes over
memory. Whether they or torch's operators are quicker for a shape is measured once for each machine, but for the last.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenlu.base.device import machine
from wenlu.base.errors import UserError
from wenlu.base.files import atomic_write, cache_folder
from wenlu.inference.fast_layers import FAST
from wenlu.models import passes
from wenlu.models.attention import attend
from wenlu.models.block import Block, Blocks
from wenlu.models.cache import KeyValueCache
from wenlu.models.fused import TOKENS, FusedBlocks
from wenlu.models.kernels import MOST, Kernels, kernels
from wenlu.models.position import Rotary
from wenlu.models.quantized import Int8Matrix, int8_product

CLASSES = (1, 2, 4, 8, 16, 32, 64, 128, 512)
"""Numbers of rows that are measured; those between two are taken for the greater, more than the last for that."""
MOST_LOOKED = (512, 4096)
"""The most queries, and keys for them, of which attention is measured; more are taken for as many."""
_KNOWN = 32
"""Tokens that a block's texts have when it is measured."""
_SECONDS = 0.004
"""How long a shape is measured, unless three of each way take longer."""
STEADY = 1.5
"""How many times the least of a way's times the next may be for the machine to have been at rest: what is found beside
other work is not kept, for it may be wrong by far and would hold for ever."""


WORTH = 8 << 20
"""Bytes of weights from which on reading them is what a token costs; less lies in the processor's caches."""


def gains(model: nn.Module) -> bool:
    """Whether `fast` is worth a compilation at its first use: whether the model is on a processor, and not small."""
    weights = [tensor for tensor in model.state_dict().values() if tensor.is_cpu]
    return sum(tensor.nbytes for tensor in weights) >= WORTH


@contextmanager
def fast(model: nn.Module, measured: bool = True) -> Iterator[nn.Module]:
    """Within this context what the model does on the processor without gradients may be done by kernels: products,
    attention, passes over memory, whole blocks.

    The modules stay what they are, with their weights, names and hooks; only their class is another for a while, so
    that training can go on afterwards, or in between. Where no kernels can be had (which is said once) nothing changes.
    May be entered again while it holds: with `ExitStack` it lasts as long as a server does.

    measured=False: nothing is timed, a kernel is taken wherever there is one, so that a text's bytes do not depend on
    which was quicker on some day (`Options.batch_invariant`).
    """
    found = kernels()
    changed = []
    if found is not None:
        chooser = Chooser(found, measured)
        for module in model.modules():
            if type(module) in FAST:
                changed.append((module, type(module)))
                module.__class__ = FAST[type(module)]
                module.chooser = chooser
                chooser.know(module)
    try:
        yield model
    finally:
        for module, before in changed:
            module.__class__ = before
            del module.chooser


class Chooser:
    """Tells for a product whether the kernel or torch's own is quicker; measures it where that is not known yet.

    Not `measured`: the kernel, wherever there is one.
    """

    def __init__(self, found: Kernels, measured: bool = True):
        self.kernels, self._measured, self._passes = found, measured, passes.passes()
        self._file = cache_folder() / "products.json"
        self._here = f"{_processor()}, torch {torch.__version__}, kernels {found.identity}"
        self._answers: dict[str, str] = {}
        self._known: dict[tuple, bool] = {}
        self._peers: dict[tuple, list[tuple[Tensor, Tensor | None]]] = {}
        self._fused: dict[Blocks, FusedBlocks] = {}
        self._unfused: set[tuple[nn.Module, ...]] = set()

    def __deepcopy__(self, memo) -> Chooser:
        return self

    def know(self, module: nn.Module) -> None:
        """Measure with this module's matrices too: one alone would lie in the processor's cache, unlike in use."""
        pairs = [(getattr(module, name, None), None) for name in ("weight", "w", "u")]
        if isinstance(module, Int8Matrix):
            pairs = [(module.weight, module.scale)]
        for weight, scale in pairs:
            if isinstance(weight, Tensor):
                self._peers.setdefault((weight.dtype, weight.shape), []).append((weight, scale))

    def passes(self) -> AbstractContextManager[None]:
        """Lets a layer's operators without gradients be passes over memory of our own."""
        return passes.without_gradients(None if _otherwise() else self._passes)

    def product(self, x: Tensor, weight: Tensor, scale: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """x Wᵀ · scale + bias, by what is quicker."""
        rows = x.numel() // x.shape[-1]
        if rows > MOST or not x.is_cpu or not weight.is_contiguous() or _otherwise():
            return plain(x, weight, scale, bias)
        key = (id(weight), rows, weight.dtype, x.dtype, torch.get_num_threads())
        by_kernel = self._known.get(key)
        if by_kernel is None:
            by_kernel = self._known[key] = self.kernels.take(x, weight) and self._choose(x, weight, scale, rows)
        return (self.kernels.product if by_kernel else plain)(x, weight, scale, bias)

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, causal: bool
    ) -> Tensor | None:
        """softmax(scale · q kᵀ) v by the kernel; None where there is none for this, or torch's operator is quicker."""
        # As `attend` has it: a mask says all, and a token alone sees all.
        scale, causal = scale or 1 / math.sqrt(q.shape[-1]), causal and mask is None and q.shape[2] > 1
        if _otherwise() or not self.kernels.attends(q, k, v) or (causal and q.shape[2] != k.shape[2]):
            return None
        if self._measured:
            new, seq = (1 << (x.shape[2] - 1).bit_length() for x in (q, k))
            sizes = min(new, MOST_LOOKED[0]), min(max(seq, 16), MOST_LOOKED[1])
            kind = "causal" if causal else "open" if mask is None else str(mask.dtype).removeprefix("torch.")
            key = (q.dtype, q.shape[1], k.shape[1], q.shape[3], *sizes, kind, torch.get_num_threads())
            by_kernel = self._known.get(key)
            if by_kernel is None:
                by_kernel = self._known[key] = self._choose_attention(q, k, mask, sizes, kind)
            if not by_kernel:
                return None
        return self.kernels.attend(q, k, v, mask, scale, causal)

    def _choose_attention(self, q: Tensor, k: Tensor, mask: Tensor | None, sizes: tuple[int, int], kind: str) -> bool:
        (_, heads, _, size), kv_heads, (new, seq), causal = q.shape, k.shape[1], sizes, kind == "causal"
        dtype = str(q.dtype).removeprefix("torch.")
        name = f"attention {heads}/{kv_heads} × {size} {dtype}, {new} to {seq}, {kind}"
        if (known := self._recall(name)) is not None:
            return known
        shown = None if mask is None else mask.new_ones(new, seq)
        keys = [q.new_ones(1, kv_heads, seq, size) for _ in range(2)]

        def kernel(q: Tensor, k: Tensor, v: Tensor) -> None:
            self.kernels.attend(q, k, v, shown, 1.0, causal)

        def torchs(q: Tensor, k: Tensor, v: Tensor) -> None:
            attend(q, k, v, shown, 0.0, 1.0, causal)

        return self._quicker(name, [kernel, torchs], q.new_ones(1, heads, new, size), [tuple(keys)])

    def blocks(self, blocks: Blocks, x: Tensor, rotary: Rotary | None, positions, cache) -> Tensor | None:
        """The blocks' output by one kernel; None where there is none for this, or torch's operators are quicker."""
        tokens, now = x.shape[0] * x.shape[1], [*blocks]
        if type(cache) is not KeyValueCache or tokens > TOKENS or not x.is_cpu or _otherwise():
            return None
        fused = self._fused.get(blocks)
        if fused is None or not fused.holds(now):
            fused = self._fuse(now)
            if fused is None:
                return None
            self._fused[blocks] = fused
        if fused.hooked or any(block.training for block in now):
            return None
        if x.dtype != fused.dtype or not cache.in_order(positions, x.shape[1]):
            return None
        key = (blocks, tokens, torch.get_num_threads())
        by_kernel = self._known.get(key)
        if by_kernel is None:
            by_kernel = self._known[key] = self._choose_blocks(now, x, rotary, tokens)
        return fused(x, rotary, cache) if by_kernel else None

    def _fuse(self, blocks: list[nn.Module]) -> FusedBlocks | None:
        if tuple(blocks) in self._unfused:
            return None
        try:
            return FusedBlocks(self.kernels, blocks)
        except ValueError:
            self._unfused.add(tuple(blocks))
            return None

    def _choose_blocks(self, blocks: list[Block], x: Tensor, rotary: Rotary | None, tokens: int) -> bool:
        """By one block at a time, all being alike."""
        tokens = next(size for size in CLASSES if size >= tokens)
        name = f"block {_shape(blocks[0])}, {str(x.dtype).removeprefix('torch.')}, {tokens} tokens"
        if not self._measured:
            return True
        if (known := self._recall(name)) is not None:
            return known
        heads, head_dim = blocks[0].attention.kv_heads, blocks[0].attention.head_dim
        layers = 1 + blocks[-1].attention.layer
        caches = [KeyValueCache((layers, tokens, heads, _KNOWN + 1, head_dim), x) for _ in range(2)]
        for cache in caches:
            cache.advance(_KNOWN)
        fused = {block: self._fuse([block]) for block in blocks}
        places = caches[0].places(1)
        if rotary is not None:
            rotary.extend(_KNOWN + 1)

        def kernel(x: Tensor, block: Block) -> None:
            fused[block](x, rotary, caches[0])

        def torchs(x: Tensor, block: Block) -> None:
            block(x, rotary, places, None, caches[1])

        x = x.new_ones(tokens, 1, x.shape[-1])
        torchs(x, blocks[0])  # so that products are chosen before
        return self._quicker(name, [kernel, torchs], x, [(block,) for block in blocks])

    def _choose(self, x: Tensor, weight: Tensor, scale: Tensor | None, rows: int) -> bool:
        rows = next((size for size in CLASSES if size >= rows), CLASSES[-1])
        types = " × ".join(str(t.dtype).removeprefix("torch.") for t in (x, weight))
        name = f"{types}, {rows} × {weight.shape[1]} → {weight.shape[0]}"
        peers = self._peers.get((weight.dtype, weight.shape), [(weight, scale)])
        return self._quicker(name, [self.kernels.product, plain], x.new_ones(rows, weight.shape[1]), peers)

    def _quicker(self, name: str, ways: list[Callable], x: Tensor, peers: list[tuple]) -> bool:
        """Whether the first of two ways, the kernel's, is quicker than torch's: as was measured before, or is now. What
        was measured on a machine at rest is kept on disk, else it holds for this process."""
        if not self._measured:
            return True
        if (known := self._recall(name)) is not None:
            return known
        (kernel, *_), (torchs, *_) = times = measure(ways, x, peers)
        answer = self._answers[self._full(name)] = "kernel" if kernel < torchs else "torch"
        if all(second <= STEADY * first for first, second, *_ in times):
            answers = _read(self._file)  # anew, for others may have written meanwhile; what is lost is measured again
            answers.setdefault(self._here, {})[self._full(name)] = answer
            with suppress(OSError, UserError):  # where the folder takes nothing, the next process measures for itself
                atomic_write(self._file, json.dumps(answers, indent=1, ensure_ascii=False))
        return kernel < torchs

    def _recall(self, name: str) -> bool | None:
        """Whether the kernel is quicker, as was measured before; None where it was not. The file is read once."""
        if not self._answers:
            self._answers = _read(self._file).get(self._here, {})
        known = self._answers.get(self._full(name))
        return known == "kernel" if known in ("kernel", "torch") else None

    def _full(self, name: str) -> str:
        return f"{name}, {torch.get_num_threads()} threads"


def measure(ways: list[Callable], x: Tensor, peers: list[tuple]) -> list[list[float]]:
    """Seconds of each way from the least on, three at least, by turns, every one with the next matrix, or block, of
    these."""
    times, turn, began = [[] for _ in ways], 0, time.perf_counter()
    while turn < 3 * len(ways) or (time.perf_counter() - began < _SECONDS and turn < 100):
        peer = peers[turn % len(peers)]
        # The order changes from round to round, or a way would always meet the same half of the matrices.
        way = (turn + turn // len(ways)) % len(ways)
        start = time.perf_counter()
        ways[way](x, *peer)
        times[way].append(time.perf_counter() - start)
        turn += 1
    return [sorted(each) for each in times]


def plain(x: Tensor, weight: Tensor, scale: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ · scale + bias by torch's own operators."""
    return F.linear(x, weight, bias) if scale is None else int8_product(x, weight, scale, bias)


def _otherwise() -> bool:
    """Whether something wants torch's own operators: gradients, a compiler, autocast."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")


def _shape(block: Block) -> str:
    attention, up = block.attention, block.feed_forward.up.weight
    heads = f"{attention.heads}/{attention.kv_heads} × {attention.head_dim}"
    return f"{up.shape[1]} → {heads} → {up.shape[0]} {str(up.dtype).removeprefix('torch.')}"


def _read(file: Path) -> dict[str, dict[str, str]]:
    """What was measured; a file that is absent or damaged tells nothing, and is written anew."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(known, dict) and all(isinstance(answers, dict) for answers in known.values())
    return known if whole else {}


@functools.cache
def _processor() -> str:
    facts = machine(torch.device("cpu"))
    return f"{facts['processor']} ({facts['cpu_capability']})"
