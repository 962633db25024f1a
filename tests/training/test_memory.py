"""A run that cannot fit is refused before it begins, with what would fit."""

import dataclasses
import re

import pytest
import torch

import wenlu.training.setup as setup
from wenlu.base.errors import UserError
from wenlu.models.config import ModelConfig
from wenlu.models.size import training_bytes
from wenlu.training.objectives import WHOLE_LOGITS
from wenlu.training.recipe import OptimizerConfig, Recipe, TrainingConfig

CPU = torch.device("cpu")
CONFIG = ModelConfig("qwen3", dim=64, layers=4, heads=4, context=256, vocab=512)


def recipe(**training) -> Recipe:
    return Recipe(model=CONFIG, training=TrainingConfig(**training), optimizer=OptimizerConfig("adamw"))


def bytes_of(micro: int, config: ModelConfig = CONFIG) -> int:
    return training_bytes(config, micro, config.context, "adamw", accumulating=True)["total"]


def test_what_fits_is_let_through(monkeypatch):
    monkeypatch.setattr(setup, "available_memory", lambda device: bytes_of(16))
    setup.check_memory(CONFIG, recipe(batch=16), CPU, bf16=False)
    setup.check_memory(CONFIG, recipe(batch=64, micro_batch=16), CPU, bf16=False)


def test_without_a_compiler_more_is_needed(monkeypatch):
    monkeypatch.setattr(setup, "available_memory", lambda device: bytes_of(16))
    monkeypatch.setattr(setup, "kernels_for", lambda device: None)
    with pytest.raises(UserError, match=r"--training\.micro-batch 4 gives the same result in less"):
        setup.check_memory(CONFIG, recipe(batch=16), CPU, bf16=False)


def test_the_micro_batch_that_is_named_fits(monkeypatch):
    room = bytes_of(4) + 1
    monkeypatch.setattr(setup, "available_memory", lambda device: room)
    with pytest.raises(UserError, match=r"would take about .* GiB, and .* GiB are free") as refusal:
        setup.check_memory(CONFIG, recipe(batch=16), CPU, bf16=False)
    micro = int(re.search(r"--training\.micro-batch (\d+) gives the same result in less", str(refusal.value))[1])
    assert micro == 4
    setup.check_memory(CONFIG, recipe(batch=16, micro_batch=micro), CPU, bf16=False)


@pytest.mark.parametrize("training", [{"batch": 16}, {"batch": 1}, {"batch": 16, "micro_batch": 1}])
def test_where_no_micro_batch_fits_a_smaller_model_is_named(training, monkeypatch):
    monkeypatch.setattr(setup, "available_memory", lambda device: 1000)
    with pytest.raises(UserError, match=r"0\.0 GiB are free: use a smaller model or context"):
        setup.check_memory(CONFIG, recipe(**training), CPU, bf16=False)


def test_the_objective_and_the_prediction_chunk_alike():
    from wenlu.models.size import WHOLE_LOGITS as predicted

    assert predicted == WHOLE_LOGITS
    vast = dataclasses.replace(CONFIG, vocab=1 << 20)
    assert training_bytes(vast, 64, 256, "adamw")["logits"] == 12 * WHOLE_LOGITS + 2 * 4 * vast.vocab * vast.dim


def test_prediction_grows_with_what_it_should():
    assert bytes_of(2) < bytes_of(4)
    assert bytes_of(2) < bytes_of(2, dataclasses.replace(CONFIG, layers=8))
    parts = training_bytes(CONFIG, 2, 256, "adamw")
    assert parts["weights"] < parts["total"] <= sum(v for k, v in parts.items() if k != "total")
    assert parts["optimizer"] == 2 * parts["weights"] and training_bytes(CONFIG, 2, 256, "sgd")["optimizer"] == 0
    assert training_bytes(CONFIG, 2, 256, "adamw", "bf16", "cuda")["activations"] < parts["activations"]
