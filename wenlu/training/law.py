"""Bits per byte to be expected of a run: how a model's size, what it reads, and how often make them.

The constants are what benchmarks/dial_fit.py fitted, once, to runs on novels that the dial is not judged by;
benchmarks/results/dial_fit.json holds those runs. The form is that of Hoffmann et al. (2022), with what is read again
worth less each time (Muennighoff et al. 2023), in units of how hard a table of bigrams finds the text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wenlu.models.config import ModelConfig
from wenlu.models.size import hidden_weights
from wenlu.training.bigrams import TOKENS, surprise

if TYPE_CHECKING:
    from wenlu.data.shards import Data


@dataclass(frozen=True)
class Text:
    """What the law knows of a training text."""

    bytes: int
    tokens: int
    vocab: int
    level: float
    """How hard it is to foresee: bits per byte by bigrams (`level_of`)."""


@dataclass(frozen=True)
class Constants:
    """Of one kind of model; all positive. Sizes are in millions of weights, texts in millions of bytes."""

    floor: float
    size: float
    size_power: float
    data: float
    data_power: float
    context: float
    """For the bytes of a context, in hundreds."""
    repeats: float
    """Epochs after which reading again is worth next to nothing."""
    batch: float
    """Batches of so many times the square root of all tokens are worth half of their tokens."""


TRANSFORMER = Constants(0.6974, 0.08295, 0.1571, 0.1059, 0.4404, 0.03329, 15.88, 4.049)
LSTM = Constants(0.2725, 0.07972, 0.1692, 0.4374, 0.5467, 0.04175, 18.34, 2.139)
OBJECTIVE = "next token"
"""What the models of the fitted runs learned: of other objectives the law foretells nothing. Shapes are chosen by it
all the same, since what makes the one kind of model better, within the time, makes the other."""
TRANSFORMER_ERROR, LSTM_ERROR = 0.12, 0.15
"""Of a prediction, as a factor: left out of the fit one by one, two of three novels were foretold as well as that, by
the mean over a novel's runs. What is said of LSTMs rests on three novels of one run each."""


def bits_per_byte(text: Text, model: ModelConfig, batch: int, steps: int, constants: Constants | None = None) -> float:
    """Bits per byte of held-out text after `steps` updates on batches of `batch` contexts of `text`."""
    c = constants or (LSTM if model.family == "lstm" else TRANSFORMER)
    bytes_of_token = text.bytes / text.tokens
    at_once = batch * model.context
    tokens = steps * at_once
    again = max(0.0, tokens / text.tokens - 1)
    read = min(tokens, text.tokens) + text.tokens * c.repeats * (1 - math.exp(-again / c.repeats))
    worth = read / (1 + at_once / (c.batch * math.sqrt(tokens)))
    weights, data = hidden_weights(model) / 1e6, worth * bytes_of_token / 1e6
    context = model.context * bytes_of_token / 100
    parts = c.floor + c.size * weights**-c.size_power + c.data * data**-c.data_power + c.context / context
    return text.level * parts


def error_of(model: ModelConfig) -> float:
    """Within what part of a prediction two of three texts may be expected to lie."""
    return LSTM_ERROR if model.family == "lstm" else TRANSFORMER_ERROR


def dropout_for(epochs: float) -> float:
    """What helps small models on small texts: none while a text is new, more the more often its tokens are learned.

    By benchmarks/dial_choices.py: after two epochs of a novel it makes no difference yet, after four 0.1 and 0.2 help
    alike; after more, where nothing was measured, 0.2 as the larger of the two.
    """
    return 0.0 if epochs < 2.5 else 0.1 if epochs < 6 else 0.2


def level_of(data: Data) -> float:
    """How hard a prepared text is to foresee: bits per byte that a table of bigrams needs for the end of a stretch of
    it, counted in what stands before."""
    ids = data.train.tokens(0, min(len(data.train), TOKENS))
    end = max(1, len(ids) - max(2, len(ids) // 10))
    nats = surprise(ids[:end], ids[end - 1 :], data.tokenizer.vocab)
    return nats / math.log(2) / max(1, int(data.tokenizer.byte_counts[ids[end:]].sum()))
