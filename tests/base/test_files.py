"""Files are whole or absent."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wenlu.base import files
from wenlu.base.errors import UserError
from wenlu.base.files import atomic_write, sweep, verify_folder, whole_folder


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "a" / "b.txt"
    atomic_write(path, "first")
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "b.txt"
    atomic_write(path, "first")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(UserError, match="the disk is full: free some space, or write elsewhere with --out"):
        atomic_write(path, "second")
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]


def test_whole_folder_is_verified(tmp_path):
    with whole_folder(tmp_path / "made") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "x.bin").write_bytes(b"abc")
        (folder / "y.txt").write_text("hello")
        assert not (tmp_path / "made").exists()
    assert verify_folder(tmp_path / "made") == []
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "made") as folder:
        (folder / "x").write_text("x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused(tmp_path):
    (tmp_path / "made").mkdir()
    with pytest.raises(UserError, match="exists already: choose another --out"), whole_folder(tmp_path / "made"):
        pass


def test_a_kill_leaves_nothing_that_looks_finished(tmp_path):
    code = (
        "import os, signal, sys\nfrom wenlu.base.files import whole_folder\n"
        "with whole_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'x').write_text('x')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path / "made")])
    assert answer.returncode == -9
    assert not (tmp_path / "made").exists()
    with whole_folder(tmp_path / "made") as folder:
        (folder / "x").write_text("y")
    assert [p.name for p in tmp_path.iterdir()] == ["made"], "what the kill left is cleared away by the next writer"


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest", "no manifest"])
def test_every_damage_is_found(tmp_path, damage):
    with whole_folder(tmp_path / "made") as folder:
        (folder / "x.bin").write_bytes(bytes(range(256)))
    file, manifest = tmp_path / "made" / "x.bin", tmp_path / "made" / "manifest.json"
    if damage == "flip":
        file.write_bytes(bytes([1, *range(1, 256)]))
    elif damage == "cut":
        os.truncate(file, 100)
    elif damage == "remove":
        file.unlink()
    elif damage == "manifest":
        manifest.write_text(manifest.read_text().replace("256", "255", 1))
    else:
        manifest.unlink()
    assert verify_folder(tmp_path / "made")


def test_a_read_only_place_is_refused_with_a_way_out(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.Path, "mkdir", refused)
    with pytest.raises(UserError, match="the file system is read-only: write elsewhere with --out"):
        atomic_write(tmp_path / "a" / "b", "x")


def test_only_what_the_same_writer_left_is_swept(tmp_path):
    """Not what another is writing beside it, whose name may begin alike."""
    left, beside = tmp_path / ".data.deadbeef.tmp", tmp_path / ".data.zh.deadbeef.tmp"
    for folder in (left, beside):
        folder.mkdir()
    with whole_folder(tmp_path / "data") as folder:
        (folder / "x").write_text("x")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".data.zh.deadbeef.tmp", "data"]
    (tmp_path / ".model.safetensors.00000000.tmp").write_text("half")
    (tmp_path / ".hidden.tmp").write_text("somebody's own")
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden.tmp", "data"]


def test_a_place_that_takes_no_folders_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing can be made in"), whole_folder(Path("/proc/wenlu")):
        pass
