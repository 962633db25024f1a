"""Where a model computes: the device, its number formats, its memory, and what exact resume depends on."""

import ctypes
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy
import torch

from wenlu.base.errors import UserError

CONTROL_GROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux tells which limits a process is under."""


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first NVIDIA GPU where there is one, else the processor."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda") and not name.startswith("cuda:"):
        raise UserError(f"device must be auto, cpu, cuda or cuda:N, not {name!r}")
    if name.startswith("cuda"):
        index = int(name[5:] or 0) if name[5:].isdigit() or name == "cuda" else -1
        if not 0 <= index < torch.cuda.device_count():
            raise UserError(f"device {name} is not here ({torch.cuda.device_count()} found): use --device cpu, or auto")
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies in bf16, rather than emulating it (a T4 says yes when torch is asked)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags = cpu_flags()
    return "avx512_bf16" in flags or "amx_bf16" in flags or "bf16" in flags


@lru_cache
def by_autocast(kind: str) -> bool:
    """Whether torch.autocast makes products in bf16 on that kind of device, rather than `bf16_products` alone.

    So on a GPU, and on a processor whose vector unit converts to bf16: products of what is bf16 already are twice as
    fast as those that oneDNN rounds on the way, or nearly, and so is all that touches what they give. Measured: on one
    core of a Zen 4 205 against 105 GFLOP/s; on a Xeon with tiles (AMX) a step of every family took up to a third less.
    """
    return kind != "cpu" or "avx512_bf16" in cpu_flags()


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of weights by its name: f32 or bf16; refused where the hardware has none of its own."""
    if name not in ("f32", "bf16"):
        raise UserError(f"dtype must be f32 or bf16, not {name!r}")
    if name == "bf16" and not has_bf16(device):
        raise UserError(f"this {device.type} device has no bf16 arithmetic of its own: use --dtype f32")
    return torch.float32 if name == "f32" else torch.bfloat16


@contextmanager
def bf16_products(wanted: bool) -> Iterator[None]:
    """Let products of f32 matrices round their factors to bf16, sums staying in f32, for a while.

    On a processor oneDNN does so on the way, without copies: of those products that autocast leaves in f32, and of all
    where it is not used (`by_autocast`).
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if wanted else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def keep_freed_memory() -> None:
    """Let the C library keep for the next step what a step frees, in this process from now on (glibc; else nothing).

    By itself it gives the upper end of its heap back to the system, and every step of a small model then takes
    thousands of page faults to get it again: about a sixth of the step (measured).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 2**31 - 1)


def _give_back_freed_memory() -> None:
    """Give the system back what the C library keeps of freed memory (glibc; else nothing)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def cpu_flags() -> frozenset[str]:
    """The instruction sets that the processor announces (empty where the system does not tell)."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def instructions() -> list[str]:
    """The instruction sets among `cpu_flags` by which kernels of matrices are chosen: vectors, tiles, bf16, int8."""
    wanted = re.compile(r"amx|avx|fma$|sve|bf16$|i8mm$|asimd|neon")
    return sorted(flag for flag in cpu_flags() if wanted.match(flag))


def available_memory(device: torch.device) -> int:
    """Bytes that this process may still take: of the GPU, or of the machine within its control group.

    What torch or the C library has kept of memory that was freed (`keep_freed_memory`) can be had again, and counts.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    _give_back_freed_memory()
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    room = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    try:
        meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        room = int(meminfo["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    return min([room, *map(_room_in, _control_groups())])


def _control_groups() -> list[Path]:
    """The folders of this process's control group and of all above it, in versions 1 and 2 of the interface."""
    try:
        lines = [line.split(":", 2) for line in MEMBERSHIP.read_text().splitlines()]
    except OSError:
        return []
    groups = []
    for _, controllers, name in lines:
        if controllers in ("", "memory"):
            root = CONTROL_GROUPS / controllers
            own = root / name.lstrip("/")
            groups += [own, *(parent for parent in own.parents if parent.is_relative_to(root))]
    return groups


def _room_in(group: Path) -> int | float:
    """Bytes left in a control group; what is held for files and can be dropped (inactive) counts as left."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            droppable = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
            return int((group / limit).read_text()) - int((group / used).read_text()) + droppable
        except (OSError, ValueError):
            continue
    return float("inf")


@contextmanager
def out_of_memory(remedy: str) -> Iterator[None]:
    """A GPU that runs out of memory within this context, as a refusal that says what needs less."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"the GPU has run out of memory ({str(error).splitlines()[0]}): {remedy}") from None


def held_memory(device: torch.device) -> int:
    """The bytes this process holds now: allocated on the GPU, or resident on the processor (where the system does not
    tell that: the most it has held so far)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    _give_back_freed_memory()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory(device)
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has held so far: allocated on the GPU, or resident on the processor."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(device: torch.device) -> dict[str, Any]:
    """What bit-equal resume depends on: processor, instruction sets that are there and in use, threads, torch, device.

    oneDNN chooses its kernels by what the processor has (AMX, avx512_bf16), which torch's capability does not name.
    """
    processor = platform.processor() or platform.machine()
    try:
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        processor = models[0].split(":", 1)[1].strip() if models else processor
    except OSError:
        pass
    return {
        "processor": processor,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "instructions": instructions(),
        "onednn_limit": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "world_size": 1,
    }
