"""A command of wenlu as a process of its own: its seconds, its peak of memory, what it said."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = """
import json, sys
from pathlib import Path
from wenlu.cli.main import main
code = main(sys.argv[2:])
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
Path(sys.argv[1]).write_text(json.dumps(peak))
sys.exit(code)
"""
"""`wenlu ARGUMENTS`, which then notes the most memory that was resident (VmHWM); it imports nothing else."""


@dataclass(frozen=True)
class Run:
    """What a process did."""

    seconds: float
    """By the clock, from start to end."""
    processor: float
    """Seconds of processors, of its own processes too."""
    peak: int
    """Bytes of memory that were resident at most."""
    code: int
    said: str
    """Its stderr."""


def used() -> float:
    """Seconds of processors that the processes that were waited for have taken."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def wenlu(*arguments: str, width: int = 120) -> Run:
    """Run `wenlu ARGUMENTS` from this checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": str(width)}
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder, "peak.json")
        began, work = time.perf_counter(), used()
        line = [sys.executable, "-c", CODE, str(note), *arguments]
        done = subprocess.run(line, env=environment, capture_output=True, text=True)
        seconds, work = time.perf_counter() - began, used() - work
        if not note.exists():
            raise RuntimeError(done.stderr[-2000:])
        return Run(seconds, work, json.loads(note.read_text()), done.returncode, done.stderr)
