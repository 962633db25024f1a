"""The model that searches ask."""

import pytest
from searches import Counting

from small_models import model_of


@pytest.fixture(scope="module")
def model():
    return model_of("char")


@pytest.fixture
def backend(model):
    return Counting(model)
