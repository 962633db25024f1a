"""Products of rows by a matrix, and attention, by kernels of our own that the machine's C++ compiler makes once.

A product of few rows costs what reading the matrix costs, and torch's own read it at a part of the memory's speed; of
many rows, too, torch's are not the quickest on every processor (docs/architecture.md has the figures). The kernels
(kernels.cpp) are compiled when they are first asked for, for this processor, and kept in a folder of the user's;
nothing else of wenlu needs them.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from wenlu.base.device import cpu_flags
from wenlu.base.errors import UserError
from wenlu.base.files import atomic_write, cache_folder, make_folder
from wenlu.base.log import say

SOURCE = Path(__file__).with_suffix(".cpp")
PARTS = (
    SOURCE,
    *(SOURCE.with_name(name) for name in ("lanes.h", "products.h", "tiles.h", "attend.h", "attention.h", "block.h")),
)
MOST = 4096
"""The most rows of `Kernels.product`."""
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC")
_NAMES = {
    (torch.float32, torch.float32): "f32_f32",
    (torch.bfloat16, torch.bfloat16): "bf16_bf16",
    (torch.int8, torch.float32): "int8_f32",
    (torch.int8, torch.bfloat16): "int8_bf16",
}
"""By the types of the matrix and of the rows."""
_ATTENDING = {torch.float32: "f32_attend", torch.bfloat16: "bf16_attend"}
_ARGUMENTS = [ctypes.c_void_p] * 5 + [ctypes.c_long] * 3 + [ctypes.c_int]


class _Attending(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "keys", "values", "to", "mask")),
        *((name, ctypes.c_long) for name in ("batch", "heads", "kv_heads", "new", "seq", "size")),
        *(("q_strides", ctypes.c_long * 3), ("key_strides", ctypes.c_long * 2), ("value_strides", ctypes.c_long * 2)),
        *(("to_strides", ctypes.c_long * 3), ("mask_strides", ctypes.c_long * 3)),
        *(("added", ctypes.c_long), ("causal", ctypes.c_long), ("scale", ctypes.c_float), ("threads", ctypes.c_int)),
    ]


class Kernels:
    """The compiled kernels. `identity` names their source, the compiler and the processor's instruction sets."""

    def __init__(self, library: ctypes.CDLL, identity: str):
        self.identity = identity
        self._of = {types: getattr(library, name) for types, name in _NAMES.items()}
        self._blocks = {types: getattr(library, f"{name}_blocks") for types, name in _NAMES.items()}
        self._attend = {dtype: getattr(library, name) for dtype, name in _ATTENDING.items()}
        for function in self._of.values():
            function.argtypes, function.restype = _ARGUMENTS, None
        for function in self._blocks.values():
            function.argtypes, function.restype = [ctypes.c_void_p] * 2, None
        for function in self._attend.values():
            function.argtypes, function.restype = [ctypes.c_void_p], None

    def blocks(self, weight: torch.dtype, rows: torch.dtype) -> Callable | None:
        """The kernel of blocks (`fused.FusedBlocks`) with matrices and other numbers of these types."""
        return self._blocks.get((weight, rows))

    def take(self, x: Tensor, weight: Tensor) -> bool:
        """Whether there is a kernel for them: 1 to `MOST` rows on a processor, types that go together."""
        return (
            (weight.dtype, x.dtype) in self._of
            and x.is_cpu
            and weight.is_cpu
            and weight.is_contiguous()
            and 0 < x.numel() <= MOST * x.shape[-1]
        )

    def product(self, x: Tensor, weight: Tensor, scale: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """x Wᵀ · scale + bias of x [..., in] and W [out, in], both such as `take` takes; no gradient flows.

        scale [out], f32, of an int8 matrix; bias [out], of x's type. A row's result does not depend on the others.
        """
        x = x.contiguous()
        outputs, inputs = weight.shape
        y = x.new_empty(*x.shape[:-1], outputs)
        self._of[weight.dtype, x.dtype](
            y.data_ptr(),
            x.data_ptr(),
            weight.data_ptr(),
            None if scale is None else scale.data_ptr(),
            None if bias is None else bias.data_ptr(),
            x.numel() // inputs,
            outputs,
            inputs,
            torch.get_num_threads(),
        )
        return y

    def attends(self, q: Tensor, k: Tensor, v: Tensor) -> bool:
        """Whether there is a kernel of attention for them: on a processor, of one type."""
        return q.dtype in self._attend and q.dtype == k.dtype == v.dtype and q.is_cpu and k.is_cpu and v.is_cpu

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, causal: bool) -> Tensor:
        """softmax(scale · q kᵀ) v of q, k and v such as `attends` takes, the mask as `attention.attend` has it; no
        gradient flows. Causal: the last new token sees all keys, each before it one less. What a query gets does not
        depend on the texts beside its own; one that sees nothing gets zeros."""
        (batch, heads, new, size), seq = q.shape, k.shape[2]
        q = q if q.stride(-1) == 1 else q.contiguous()
        k, v = (x if x.stride(-1) == 1 and x.stride(-2) == size else x.contiguous() for x in (k, v))
        y = q.new_empty(batch, new, heads, size).transpose(1, 2)
        wanted = _Attending(q.data_ptr(), k.data_ptr(), v.data_ptr(), y.data_ptr())
        wanted.batch, wanted.heads, wanted.kv_heads, wanted.new = batch, heads, k.shape[1], new
        wanted.seq, wanted.size, wanted.causal, wanted.scale = seq, size, causal, scale
        wanted.q_strides[:], wanted.to_strides[:] = q.stride()[:3], y.stride()[:3]
        wanted.key_strides[:], wanted.value_strides[:] = k.stride()[:2], v.stride()[:2]
        wanted.threads = torch.get_num_threads()
        if mask is not None:
            mask = (mask if mask.dtype == torch.bool else mask.float()).expand(batch, heads, new, seq)
            mask = mask if mask.stride(-1) == 1 else mask.contiguous()
            wanted.mask, wanted.added = mask.data_ptr(), mask.dtype != torch.bool
            wanted.mask_strides[:] = mask.stride()[:3]
        self._attend[q.dtype](ctypes.byref(wanted))
        return y


@functools.cache
def kernels() -> Kernels | None:
    """The kernels of this machine, compiled now if they never were; None where that fails, which is said once."""
    found = compiled_or_none(PARTS, "kernels", "torch's own products are used, which take longer")
    return None if found is None else Kernels(*found)


def compiled_or_none(sources: tuple[Path, ...], name: str, otherwise: str) -> tuple[ctypes.CDLL, str] | None:
    """The library of these sources, the first of which names the others, and its identity; None where that fails,
    which is said together with what happens `otherwise`."""
    try:
        return _load(sources, name, cache_folder())
    except (OSError, UserError, subprocess.SubprocessError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        say(f"no fast kernels, {otherwise}: {reason[0][:200]}", "yellow")
        return None


def _load(sources: tuple[Path, ...], name: str, folder: Path) -> tuple[ctypes.CDLL, str]:
    compiler = _found_compiler()
    if compiler is None:
        raise UserError("no C++ compiler is found (c++, g++, clang++): install one, or name it in CXX")
    openmp = _openmp()
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    texts = [source.read_text(encoding="utf-8") for source in sources]
    parts = [*texts, version, *FLAGS, str(openmp), platform.machine(), *sorted(cpu_flags())]
    identity = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    # The name carries the hash of what is inside: a damaged library can end a process instead of raising.
    for file in sorted(folder.glob(f"{name}-{identity}-*.so")):
        if file.stem.endswith(_digest(file.read_bytes())):
            return ctypes.CDLL(str(file)), identity
        say(f"{file} is damaged: made anew")
        file.unlink(missing_ok=True)
    make_folder(folder)
    say(f"compiling {name} for this processor, once, into {folder}")
    library = _compiled(sources[0], compiler, openmp)
    file = folder / f"{name}-{identity}-{_digest(library)}.so"
    atomic_write(file, library)
    return ctypes.CDLL(str(file)), identity


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _found_compiler() -> list[str] | None:
    """$CXX, or the first C++ compiler on the path."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


def _openmp() -> Path | None:
    """The OpenMP library that torch itself uses: with another one there would be two sets of threads."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        lines = []
    loaded = sorted({line.split(maxsplit=5)[-1] for line in lines if "/libgomp" in line})
    own = sorted(map(str, (Path(torch.__file__).parent / "lib").glob("libgomp*.so*")))
    found = [*(path for path in loaded if path in own), *loaded, *own]
    return Path(found[0]) if found else None


def _compiled(source: Path, compiler: list[str], openmp: Path | None) -> bytes:
    """The shared library; without threads where the compiler has no OpenMP that goes with torch's, which is said."""
    reason = ""
    for shared in (True, False) if openmp else (False,):
        with tempfile.TemporaryDirectory() as folder:
            part, whole = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
            flags = [*FLAGS, "-fopenmp"] if shared else FLAGS
            link = [str(openmp)] if shared else []
            for command in (
                [*flags, "-c", str(source), "-o", str(part)],
                ["-shared", str(part), *link, "-o", str(whole)],
            ):
                done = subprocess.run([*compiler, *command], capture_output=True, text=True, timeout=300)
                if done.returncode:
                    reason = reason or f"{compiler[0]} failed: {(done.stderr.strip().splitlines() or ['?'])[0]}"
                    break
            else:
                if not shared:
                    say("the kernels are compiled without OpenMP: they use one thread")
                return whole.read_bytes()
    raise UserError(reason)
