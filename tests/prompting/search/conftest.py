"""The backend that searches ask, by the model of tests/prompting."""

import pytest
from searches import Counting


@pytest.fixture
def backend(model):
    return Counting(model)
