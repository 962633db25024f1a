"""Disks that refuse or are full: a line or two that say what to do, nothing left behind."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wenlu.tokenization.learn import learn

TEXT = "It was the best of times, 天气真好 and so on.\n\n"
SHAPE = "--model.dim 16 --model.layers 1 --model.heads 2 --model.context 16 --steps 3 --training.batch 2".split()
ON_DATA = (*SHAPE, *"--training.threads 1 --training.compile off".split())
TINY = (*ON_DATA, *"--tokenizer byte --skip all".split())

REFUSALS = {
    errno.ENOSPC: "the disk is full: free some space, or write elsewhere with --out",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only: write elsewhere with --out",
    errno.EACCES: "permission denied: write elsewhere with --out",
}


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("method", ["mkdir", "write_bytes"])
@pytest.mark.parametrize("command", ["prepare", "train"])
def test_a_disk_that_refuses(command, method, number, here, refuse, monkeypatch):
    ordinary = getattr(Path, method)

    def refused(self, *arguments, **settings):
        if "new" in str(self):
            raise OSError(number, os.strerror(number), str(self))
        return ordinary(self, *arguments, **settings)

    monkeypatch.setattr(Path, method, refused)
    rest = ["--tokenizer", "byte", "--skip", "all"] if command == "prepare" else TINY
    refuse([command, "text.txt", "--out", "new", *rest], "cannot write", "new", REFUSALS[number])


def on_a_small_disk(script: str, size: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a script with `small` being a file system of its own, of that size, seen by nobody else."""
    (folder / "small").mkdir()
    mount = f"mount -t tmpfs -o size={size} tmpfs small"
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "sh", "-c", mount], cwd=folder).returncode:
        pytest.skip("a file system of its own cannot be mounted here")
    wenlu = f'wenlu() {{ {sys.executable} -W error -m wenlu.cli.main "$@"; }}'
    line = ["unshare", "-rm", "sh", "-c", f"{mount}\n{wenlu}\n{script}"]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True)


def test_a_full_disk_while_preparing(here):
    Path("large.txt").write_text(TEXT * 5000)
    script = "wenlu prepare large.txt --out small/new --tokenizer byte --skip all; echo $?; find small"
    done = on_a_small_disk(script, "128k", here)
    assert done.stdout.split() == ["2", "small"], done.stderr
    assert "wenlu: cannot write small/new: the disk is full: free some space" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize(("size", "where"), [("128k", "run"), ("400k", "step-00000003")])
def test_a_full_disk_while_training_and_how_to_go_on(size, where, here):
    """First the weights at the run's root do not fit, then its checkpoint."""
    flags = " ".join([*TINY, "--model.dim", "64", "--validation", "0"])
    train = f"wenlu train text.txt --out small/run {flags}; echo $?"
    more = "mount -o remount,size=64m small; wenlu train --resume --out small/run; echo $?"
    done = on_a_small_disk(f"{train}\n{more}\nfind small -name '*.tmp'", size, here)
    assert done.stdout.split()[0] == "2", done.stderr
    assert re.search(rf"^wenlu: cannot write small/\S*{where}: the disk is full: free some", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
    assert done.stdout.split()[-1] == "0" and ".tmp" not in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("line", [["--version"], ["info", "data"]])
def test_a_full_stdout(line, here):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    learn("byte", ["x"], None).save("data")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "wenlu.cli.main", *line]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "wenlu: cannot write the results: the disk is full; free some space, or write elsewhere\n"
