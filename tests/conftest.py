"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real corpora; a test that wants it is skipped, with the reason, where it is absent."""
    folder = Path(os.environ.get("WENLU_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set WENLU_DATA)")
    return folder
