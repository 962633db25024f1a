"""Where benchmarks keep what they measured: benchmarks/results/NAME.json, with machine, versions and commit."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from wenlu.base.device import machine

ROOT = Path(__file__).parents[1]


def data_folder() -> Path:
    """The real corpora: $WENLU_DATA, else ../shared/data beside the checkout."""
    return Path(os.environ.get("WENLU_DATA", ROOT.parent / "shared" / "data"))


def keep(name: str, result: dict) -> Path:
    """Write a result with what one needs to judge it."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in ("torch", "tokenizers", "numpy")},
        "machine": machine(torch.device("cpu")),
    }
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"about": about, **result}, indent=1, ensure_ascii=False))
    return path
