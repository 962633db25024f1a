"""Small models that answer prompts, and time that passes only when somebody sleeps."""

import pytest

from wenlu.prompting.backend import FolderBackend
from wenlu.prompting.endpoint.client import Clock

from small_models import model_of


@pytest.fixture(scope="session", params=["char", "byte", "bpe"])
def kind(request):
    """Of tokenizer: characters, bytes (so that every Chinese character is torn), words."""
    return request.param


@pytest.fixture(scope="session")
def pair(kind):
    """A model and its tokenizer."""
    return model_of(kind)


@pytest.fixture(scope="module")
def model():
    """The one of characters alone, for what no tokenizer changes."""
    return model_of("char")


@pytest.fixture(scope="session")
def here(pair):
    """The model that the server answers from, as a backend of level A."""
    return FolderBackend(pair)


class Time:
    """A clock for tests."""

    def __init__(self):
        self.now, self.slept = 1_800_000_000.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def clock(time):
    return Clock(lambda: time.now, time.sleep, lambda: 1.0)
