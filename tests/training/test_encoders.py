"""Objectives of encoders, and the seam itself: any material, any objective, the same loop."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wenlu.training.objectives as objectives
from wenlu.data.batch import NO_TARGET
from wenlu.data.keyed import HELD_OUT, draws, keys
from wenlu.models.config import ModelConfig
from wenlu.training.material import Material, tokens_in
from wenlu.training.objectives import MASKED, TEXT_TO_TEXT, masked, text_to_text
from wenlu.training.recipe import OptimizerConfig, Recipe, TrainingConfig
from wenlu.training.update import Updates

CPU = torch.device("cpu")


class Encoder(nn.Module):
    """The least that a model for these objectives must be."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = ModelConfig("gpt2", dim=8, heads=2, layers=1, vocab=23, context=12)
        self.embed, self.mix = nn.Embedding(23, 8), nn.Linear(8, 8)

    def hidden(self, ids, decoder_ids=None, segments=None, decoder_segments=None):
        read = self.embed(ids)
        if segments is not None:
            read = read * (segments >= 0)[..., None]
        read = self.mix(read.sum(1, keepdim=True)).tanh()
        return read + self.embed(ids if decoder_ids is None else decoder_ids)

    def head(self, hidden):
        return F.linear(hidden, self.embed.weight)


class Rows:
    """Another kind of material than windows of text: rows of uneven length, of which some tokens are to be foretold."""

    tokenizer, fingerprint, size, holds_out = None, "rows", "40 rows", True

    class order:
        samples = 40

        @staticmethod
        def batch_at(step):
            return (7 * (6 * step + np.arange(6))) % 40

        @staticmethod
        def epochs_at(step):
            return (6 * step + np.arange(6)) // 40

    def batch(self, samples, epochs):
        lengths = 3 + samples % 5
        inside = np.arange(lengths.max()) < lengths[:, None]
        key = keys(1, samples, epochs)[:, None]
        ids = np.where(inside, (draws(key, np.arange(inside.shape[1]), 0) * 23).astype(np.int64), 0)
        targets = np.where(inside & (draws(key, np.arange(inside.shape[1]), 1) < 0.4), ids, NO_TARGET)
        return {"ids": ids, "targets": targets, "segments": np.where(inside, 0, -1)}

    def held_out(self, limit, at_once):
        for first in range(0, 10, at_once):
            samples = np.arange(first, min(10, first + at_once))
            yield self.batch(samples, np.full_like(samples, HELD_OUT))


def updates(objective=MASKED, **training) -> Updates:
    recipe = Recipe(training=TrainingConfig(batch=6, **training), optimizer=OptimizerConfig("sgd", lr=0.1))
    return Updates(recipe, Encoder(), Rows(), objective, CPU, False)


def test_rows_are_material():
    assert isinstance(Rows(), Material)


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_accumulated_is_whole(micro_batch):
    """Uneven rows, uneven numbers of targets: the mean is over all targets of the batch."""
    whole, parts = updates(), updates(micro_batch=micro_batch)
    once, several = whole.gradients(3), parts.gradients(3)
    assert (once.count, once.tokens) == (several.count, several.tokens)
    assert once.loss == pytest.approx(several.loss, rel=1e-6) and once.norm == pytest.approx(several.norm, rel=1e-5)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-6)


def test_tokens_are_those_that_are_read():
    batch = Rows().batch(np.array([0, 1]), np.array([0, 0]))
    assert tokens_in(batch) == 3 + 4
    assert tokens_in({"ids": np.zeros((2, 5)), "decoder_ids": np.zeros((2, 3))}) == 16


def test_held_out_figures_add_up_over_batches():
    found, alone = updates().held_out(), updates(micro_batch=1).held_out()
    assert found["held_out"] == pytest.approx(alone["held_out"], rel=1e-6)
    assert found["masked_accuracy"] == alone["masked_accuracy"] and set(found) == {"held_out", "masked_accuracy"}
    assert set(
        updates(dataclasses.replace(MASKED, judge=objectives.judged(masked), figures=lambda sums: {})).held_out()
    )


def test_masked_is_the_cross_entropy_of_the_chosen(monkeypatch):
    model, batch = (
        Encoder(),
        {name: torch.from_numpy(a) for name, a in Rows().batch(np.arange(6), np.zeros(6, dtype=np.int64)).items()},
    )
    logits = model.head(model.hidden(batch["ids"], segments=batch["segments"]))
    wanted = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=-100, reduction="sum")
    loss, count = masked(model, batch)
    assert torch.allclose(loss, wanted, rtol=1e-5) and count == (batch["targets"] != NO_TARGET).sum()
    judged = objectives.judge_masked(model, batch)
    hits = (logits.argmax(-1) == batch["targets"]).sum()
    monkeypatch.setattr(objectives, "WHOLE_LOGITS", 2 * 23)
    in_parts = objectives.judge_masked(model, batch)
    assert judged["right"] == hits == in_parts["right"] and torch.allclose(in_parts["loss"], wanted, rtol=1e-5)


def test_a_batch_without_a_target_costs_nothing():
    model = Encoder()
    batch = {"ids": torch.zeros(2, 3, dtype=torch.int64), "targets": torch.full((2, 3), NO_TARGET)}
    loss, count = masked(model, batch)
    loss.backward()
    assert (float(loss.detach()), int(count)) == (0.0, 0)
    assert objectives.judge_masked(model, batch)["right"] == 0


def test_text_to_text_is_the_cross_entropy_of_the_targets():
    model = Encoder()
    batch = {name: torch.from_numpy(a) for name, a in Rows().batch(np.arange(6), np.zeros(6, dtype=np.int64)).items()}
    batch |= {"decoder_ids": torch.randint(23, (6, 4)), "targets": torch.randint(23, (6, 4))}
    batch["targets"][2:, 3] = NO_TARGET
    logits = model.head(model.hidden(batch["ids"], batch["decoder_ids"], batch["segments"]))
    wanted = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=-100, reduction="sum")
    loss, count = text_to_text(model, batch)
    assert torch.allclose(loss, wanted, rtol=1e-5) and count == 20
    assert TEXT_TO_TEXT.judge(model, batch)["count"] == 20
