"""A start from bigrams: what the model knows at its first step, and who may begin so."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wenlu.base.errors import UserError
from wenlu.data.prepare import PrepareConfig
from wenlu.data.shards import TokenStore
from wenlu.hub.folder import load
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.training.bigrams import PRIOR, count, factors, low_rank, start_from_bigrams
from wenlu.training.loop import train
from wenlu.training.recipe import Recipe, TrainingConfig

VOCAB = 40
CONFIG = ModelConfig(dim=48, layers=2, heads=2, vocab=VOCAB, tied=False)


class Store(TokenStore):
    """As much of a store as is read: a chain in which every token is followed mostly by one other."""

    def __init__(self, tokens: int = 20_000):
        draw = np.random.default_rng(0)
        follows, ids = draw.permutation(VOCAB), [0]
        for chance in draw.random(tokens - 1):
            ids.append(int(follows[ids[-1]]) if chance < 0.8 else int(draw.integers(VOCAB)))
        self.ids = np.array(ids, dtype=np.int64)

    def tokens(self, start: int, number: int) -> np.ndarray:
        return self.ids[start : start + number]


@torch.no_grad()
def loss(model, ids) -> float:
    ids = torch.from_numpy(ids[:2001])[None]
    return float(F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:]))


def counted(ids) -> float:
    """Loss of the smoothed table itself."""
    table = count(ids, VOCAB).toarray()
    frequent = (table.sum(0) + 0.5) / (table.sum(0) + 0.5).sum()
    table = (table + PRIOR * frequent) / (table.sum(1, keepdims=True) + PRIOR)
    return -float(np.log(table[ids[:2000], ids[1:2001]]).mean())


def test_the_first_step_knows_the_bigrams():
    """All singular vectors fit into this width: the model is the table; untrained, it knew nothing."""
    store, model = Store(), build(CONFIG, 0).eval()
    before = loss(model, store.ids)
    start_from_bigrams(model, store, 0)
    assert before == pytest.approx(np.log(VOCAB), abs=1e-3)
    assert loss(model, store.ids) == pytest.approx(counted(store.ids), abs=0.02)


def test_a_narrower_model_knows_less_but_much():
    store, model = Store(), build(replace(CONFIG, dim=16), 0).eval()
    start_from_bigrams(model, store, 0)
    assert counted(store.ids) + 0.1 < loss(model, store.ids) < 0.8 * np.log(VOCAB)


def test_embeddings_are_as_long_as_the_norm_makes_them():
    embedding, head = factors(count(Store().ids, VOCAB), 48, np.random.default_rng(0))
    assert np.allclose(np.square(embedding).mean(axis=1), 1, atol=1e-4)
    assert embedding.dtype == head.dtype == np.float32


def test_low_rank_is_the_best_there_is():
    table = count(Store().ids, VOCAB)
    left, right = low_rank(table, 12, np.random.default_rng(0))
    values = np.linalg.svd(table.toarray(), compute_uv=False)
    missing = np.linalg.norm(table.toarray() - left @ right.T)
    assert missing == pytest.approx(np.sqrt(np.square(values[12:]).sum()), rel=1e-2)


def test_a_function_of_text_and_seed():
    first, second, other = (build(CONFIG, 0) for _ in range(3))
    for model, seed in ((first, 5), (second, 5), (other, 6)):
        start_from_bigrams(model, Store(), seed)
    assert torch.equal(first.embed.weight, second.embed.weight)
    assert not torch.equal(first.embed.weight, other.embed.weight)


def test_a_run_begins_so_and_its_folder_opens(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. the dog sat on the log.\n" * 200)
    training = TrainingConfig(steps=1, batch=2, start="bigrams", eval_every=1, sample_tokens=0, log_every=1)
    config = ModelConfig(dim=32, layers=1, heads=2, context=16, tied=False)
    recipe = Recipe(PrepareConfig((str(text),), tokenizer="char", skip=("all",)), config, training)
    losses = []
    for name, start in (("bigrams", "bigrams"), ("random", "random")):
        train(replace(recipe, training=replace(training, start=start)), tmp_path / name, report=False)
        row = json.loads((tmp_path / name / "wenlu/metrics.jsonl").read_text().splitlines()[0])
        losses.append(row["loss"])
    assert losses[0] < 0.7 * losses[1]
    assert load(tmp_path / "bigrams")[0].lm_head is not None


@pytest.mark.parametrize(
    "config, said",
    [
        (replace(CONFIG, family="gpt2"), "training.start bigrams is for llama and qwen3, not gpt2: leave it at random"),
        (replace(CONFIG, family="lstm"), "training.start bigrams is for llama and qwen3, not lstm: leave it at random"),
        (replace(CONFIG, tied=True), "add --model.tied false"),
        (replace(CONFIG, dim=4, heads=1), "needs a width of 8 at least, not 4"),
    ],
)
def test_refusals(config, said):
    with pytest.raises(UserError, match=said):
        start_from_bigrams(build(config, 0), Store(), 0)
