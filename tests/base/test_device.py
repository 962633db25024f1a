"""What a process may take of its machine."""

import os
import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from wenlu.base import device

CPU = torch.device("cpu")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A tree of control groups, and who we are in it."""
    monkeypatch.setattr(device, "CONTROL_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(device, "MEMBERSHIP", tmp_path / "membership")

    def make(membership: str, **files: dict[str, object]) -> None:
        (tmp_path / "membership").write_text(membership)
        for group, contents in files.items():
            folder = tmp_path / "cgroup" / group.replace("__", "/")
            folder.mkdir(parents=True)
            for name, value in contents.items():
                (folder / name.replace("__", ".")).write_text(str(value))

    return make


def test_the_limit_of_a_group_above_counts(groups):
    stat = "anon 5\ninactive_file 300000"
    groups(
        "0::/job/step\n",
        job={"memory__max": 2_000_000, "memory__current": 1_500_000, "memory__stat": stat},
        job__step={"memory__max": "max", "memory__current": 1_400_000, "memory__stat": stat},
    )
    assert device.available_memory(CPU) == 800_000


def test_the_older_interface(groups):
    limits = {
        "memory__limit_in_bytes": 900_000,
        "memory__usage_in_bytes": 500_000,
        "memory__stat": "total_inactive_file 7",
    }
    groups("5:cpu:/x\n4:memory:/x/y\n", memory__x__y=limits)
    assert device.available_memory(CPU) == 400_007


def test_a_system_without_groups_or_free_pages(groups, monkeypatch):
    """macOS has neither, and tells only how much memory there is."""
    known = {name: number for name, number in os.sysconf_names.items() if name != "SC_AVPHYS_PAGES"}
    monkeypatch.setattr(device.os, "sysconf_names", known)
    assert device.available_memory(CPU) > 1 << 20


def test_what_torch_has_kept_of_freed_memory_on_a_gpu_is_free(monkeypatch):
    figures = {"mem_get_info": (1000, 5000), "memory_reserved": 700, "memory_allocated": 300}
    for name, figure in figures.items():
        monkeypatch.setattr(device.torch.cuda, name, lambda where, figure=figure: figure)
    assert device.available_memory(torch.device("cuda")) == 1000 + 700 - 300


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps no freed memory for us")
def test_what_the_c_library_has_kept_of_freed_memory_is_free():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    device.keep_freed_memory()
    blocks = [np.ones(1 << 17) for _ in range(64)]  # 1 MiB each
    del blocks
    kept = resident()
    device.available_memory(CPU)
    assert resident() < kept - (48 << 20)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps no freed memory for us")
def test_what_a_process_holds_is_what_it_uses_not_what_it_has_freed():
    device.keep_freed_memory()
    before = device.held_memory(CPU)
    blocks = [np.ones(1 << 17) for _ in range(64)]  # 1 MiB each
    assert before + (60 << 20) < device.held_memory(CPU) < before + (80 << 20)
    del blocks
    assert device.held_memory(CPU) < before + (8 << 20)


def test_where_the_system_does_not_tell_what_is_held_it_is_the_most_so_far(monkeypatch):
    def untold(path, *args, **kwargs):
        raise OSError(path)

    monkeypatch.setattr(device.Path, "read_text", untold)
    assert device.held_memory(CPU) == device.peak_memory(CPU)


@pytest.mark.parametrize(
    ("flags", "kind", "wanted"),
    [
        ({"avx512_bf16"}, "cpu", True),
        ({"avx512_bf16", "amx_bf16"}, "cpu", True),
        ({"bf16"}, "cpu", False),
        ({"avx2"}, "cpu", False),
        (set(), "cuda", True),
    ],
)
def test_autocast_is_for_processors_whose_vector_unit_knows_bf16(flags, kind, wanted, monkeypatch):
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    assert device.by_autocast.__wrapped__(kind) is wanted


def test_instruction_sets_that_choose_kernels_are_noted(monkeypatch):
    flags = {"fpu", "sse2", "fma", "fma4", "avx2", "avx512_bf16", "amx_tile", "amx_bf16", "sve", "asimddp", "aes"}
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    found = device.machine(CPU)
    assert found["instructions"] == ["amx_bf16", "amx_tile", "asimddp", "avx2", "avx512_bf16", "fma", "sve"]
    assert found["onednn_limit"] == "AVX2"
