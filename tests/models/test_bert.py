"""Laws of the encoder: packed = separate, it sees both ways, padding is not seen, sizes as predicted."""

import dataclasses

import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.models.bert import sentence_embeddings
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.models.size import flops_per_token, hidden_weights, kept_by_block, parameters, training_bytes
from wenlu.training.optimizers import hidden_matrices

VOCAB = 70
BASE = ModelConfig(family="bert", dim=24, layers=2, heads=3, context=32, vocab=VOCAB)
LABELS = ("a", "b", "c")
HEADS = {
    "tokens": BASE,
    "tokens-untied": dataclasses.replace(BASE, tied=False, activation="relu", types=3),
    "classify": dataclasses.replace(BASE, head="classify", labels=LABELS),
    "tag": dataclasses.replace(BASE, head="tag", labels=LABELS),
    "span": dataclasses.replace(BASE, head="span"),
    "pool": dataclasses.replace(BASE, head="pool"),
    "none": dataclasses.replace(BASE, head="none", tied=False),
}
OUTPUTS = {
    "tokens": (3, 32, VOCAB),
    "tokens-untied": (3, 32, VOCAB),
    "classify": (3, 3),
    "tag": (3, 32, 3),
    "span": (3, 32, 2),
    "pool": (3, 24),
    "none": (3, 32, 24),
}


@pytest.fixture(params=HEADS)
def name(request):
    return request.param


@pytest.fixture
def model(name, shaken):
    return shaken(build(HEADS[name], seed=1))


@pytest.fixture
def ids():
    return torch.randint(VOCAB, (3, 32), generator=torch.Generator().manual_seed(3))


def test_sizes_are_exact(model):
    assert parameters(model.config) == sum(p.numel() for p in model.parameters())
    moved = hidden_matrices(model)
    assert hidden_weights(model.config) == sum(p.numel() for n, p in model.named_parameters() if n in moved)
    assert not [name for name in moved if "embed" in name or "head" in name]


def test_forward_is_head_of_hidden(name, model, ids):
    assert torch.equal(model(ids), model.head(model.hidden(ids)))
    assert model(ids).shape == OUTPUTS[name]


@pytest.mark.parametrize("name", ["none"])
def test_it_sees_both_ways(model, ids):
    changed = ids.clone()
    changed[:, 20] = (changed[:, 20] + 1) % VOCAB
    with torch.no_grad():
        moved = (model(ids) - model(changed)).abs().amax(-1)
    assert moved.min() > 1e-4


LENGTHS = (10, 15, 7)


def packed(of):
    """[3, 32]: `of` gives what each text of so many tokens has."""
    return torch.cat([of(number, length).expand(3, length) for number, length in enumerate(LENGTHS)], dim=1)


@pytest.mark.parametrize("name", ["tokens", "tag", "none"])
def test_packed_is_separate(model, ids):
    segments = packed(lambda number, length: torch.full((length,), number))
    positions = packed(lambda number, length: torch.arange(length))
    types = (positions > 4).long()
    with torch.no_grad():
        together = model(ids, segments=segments, positions=positions, types=types)
        pairs = zip(ids.split(LENGTHS, dim=1), types.split(LENGTHS, dim=1), strict=True)
        alone = torch.cat([model(part, types=kinds) for part, kinds in pairs], dim=1)
    assert (together - alone).abs().max() < 5e-6


@pytest.mark.parametrize("name", ["tokens", "classify", "none"])
def test_padding_is_not_seen(model, ids):
    segments = torch.zeros_like(ids)
    segments[:, 21:] = -1
    with torch.no_grad():
        padded, alone = model(ids, segments=segments), model(ids[:, :21])
    assert (padded[:, :21] - alone).abs().max() < 5e-6
    assert padded.isfinite().all()


@pytest.mark.parametrize("name", ["none"])
def test_sentence_embeddings(model, ids):
    segments = torch.zeros_like(ids)
    segments[1, 21:] = -1
    with torch.no_grad():
        vectors = sentence_embeddings(model, ids, segments)
        alone = sentence_embeddings(model, ids[1:2, :21])
        states = model.hidden(ids[1:2, :21])[0]
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(3)) and vectors.shape == (3, 24)
    assert (vectors[1:2] - alone).abs().max() < 1e-6
    assert torch.allclose(alone[0], states.mean(0) / states.mean(0).norm(), atol=1e-6)


@pytest.mark.parametrize("name", ["tokens"])
def test_types_tell_parts_apart(model, ids):
    with torch.no_grad():
        assert torch.equal(model(ids), model(ids, types=torch.zeros_like(ids)))
        assert not torch.allclose(model(ids), model(ids, types=torch.ones_like(ids)), atol=1e-2)


def test_dropout_is_only_for_training(name, ids):
    model = build(dataclasses.replace(HEADS[name], dropout=0.5), 0)
    assert not torch.equal(*[model.train()(ids) for _ in range(2)])
    assert torch.equal(*[model.eval()(ids) for _ in range(2)])


def test_build_is_a_function_of_the_seed(name):
    one, two, other = (build(HEADS[name], seed) for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.embed.weight, other.embed.weight)


@pytest.mark.parametrize("name", ["none"])
def test_a_block_begins_as_its_norms(name):
    model = build(HEADS[name], 0)
    x = torch.randn(2, 5, 24)
    once = torch.nn.functional.layer_norm(x, (24,), eps=1e-12)
    assert torch.allclose(model.blocks[0](x, None, None, None, None), once, atol=1e-5)


@pytest.mark.parametrize("name", ["tokens"])
def test_positions_beyond_those_learned(model):
    with pytest.raises(UserError, match="this bert has learned 32 positions, and 33 are asked for: shorten the text"):
        model(torch.zeros(1, 33, dtype=torch.long))
    with pytest.raises(UserError, match="and 41 are asked for"):
        model(torch.zeros(1, 1, dtype=torch.long), positions=torch.tensor([[40]]))


def test_flops_of_attention_are_not_halved():
    matrices = 2 * (4 * 24 * 24 + 2 * 24 * 96)
    head = 0.15 * (24 * 24 + 24 * VOCAB)
    assert flops_per_token(BASE, 0) == pytest.approx(6 * (matrices + head))
    assert flops_per_token(BASE, 32) - flops_per_token(BASE, 0) == pytest.approx(12 * 2 * 24 * 32)
    assert flops_per_token(HEADS["tag"], 0) == 6 * matrices


def test_predicted_bytes_count_the_logits_that_are_made():
    assert kept_by_block(BASE, 32) == kept_by_block(dataclasses.replace(BASE, family="gpt2"), 32)
    tokens, tag = (training_bytes(HEADS[name], 8, 32, "adamw") for name in ("tokens", "tag"))
    assert tokens["logits"] == 12 * int(0.15 * 8 * 32 * VOCAB) and tag["logits"] == 12 * 8 * 32 * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "regress"}, "model.head must be one of tokens, classify, tag, span, pool, none, not 'regress'"),
        ({"family": "gpt2", "head": "tag"}, "gpt2 has a head for tokens only, not 'tag'"),
        ({"head": "tag"}, "the head 'tag' needs two labels or more: name them in model.labels"),
        ({"head": "classify", "labels": ("a",)}, "the head 'classify' needs two labels or more"),
        ({"head": "classify", "labels": ("a", "b", "a")}, "model.labels holds 'a' twice"),
        ({"labels": ("a", "b")}, "the head 'tokens' has no labels: leave model.labels out"),
        ({"types": 0}, "model.types must be at least 1, not 0"),
        ({"kv_heads": 1}, "bert has as many key heads as query heads"),
        ({"activation": "gelu_fast"}, "model.activation must be silu, gelu, gelu_new, relu, relu2, not 'gelu_fast'"),
    ],
)
def test_refused_shapes(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(BASE, **change)
