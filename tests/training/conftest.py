"""What every test of training shares."""

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """What is as small as here is faster without company; a recipe that asks for threads has torch keep to them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
