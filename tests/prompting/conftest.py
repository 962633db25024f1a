"""Small models that answer prompts, and time that passes only when somebody sleeps."""

import pytest
import torch

from wenlu.hub.folder import save
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.prompting.backend import FolderBackend
from wenlu.prompting.client import Clock
from wenlu.tokenization.chat_format import with_template
from wenlu.tokenization.learn import learn

TEXT = "Two and two are four. The stove is warm, naïve café! 二加二等于四。炉子是热的。红楼梦里的人说：天气真好。\n" * 3


@pytest.fixture(scope="session", params=["char", "byte", "bpe"])
def kind(request):
    """Of tokenizer: characters, bytes (so that every Chinese character is torn), words."""
    return request.param


def model_of(kind, seed=0):
    tokenizer, _ = with_template(learn(kind, [TEXT], 320 if kind == "bpe" else None))
    config = ModelConfig("llama", dim=32, layers=1, heads=2, context=512, vocab=tokenizer.vocab, bos_id=tokenizer.eos_id)
    model = build(config, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed + 1))
    return model.eval(), tokenizer


@pytest.fixture(scope="session")
def pair(kind):
    return model_of(kind)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A model's folder."""
    place = tmp_path_factory.mktemp("folder") / "model"
    save(*model_of("char"), place)
    return place


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
