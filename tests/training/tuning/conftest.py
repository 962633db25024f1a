"""The models and examples that the tests of tuning share."""

from pathlib import Path

import pytest
import torch

from tuning_runs import write_all


@pytest.fixture(scope="package")
def models(tmp_path_factory) -> Path:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield write_all(tmp_path_factory.mktemp("models"), dropout=0.1)
    torch.set_num_threads(before)
