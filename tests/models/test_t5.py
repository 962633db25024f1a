"""T5's laws: cached ≈ uncached, packed = separate, padding is not seen, by hand = by autograd, sizes as counted."""

import dataclasses

import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.models import layers
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.models.position import RelativePositions
from wenlu.models.size import flops_per_token, hidden_weights, parameters

VOCAB = 70
SHAPE = {"family": "t5", "dim": 24, "layers": 2, "heads": 3, "context": 32, "vocab": VOCAB, "buckets": 8, "pad_id": 0}
SHAPE["distance"] = 12
SHAPES = {
    "1.0": ModelConfig(**SHAPE, gated=False),
    "1.1": ModelConfig(**SHAPE, tied=False, head_dim=6, decoder_layers=3),
    "gated-tied": ModelConfig(**SHAPE, decoder_layers=1, activation="silu"),
}


@pytest.fixture(params=SHAPES)
def model(request, shaken):
    return shaken(build(SHAPES[request.param], seed=1))


def random_ids(rows, length):
    return torch.randint(1, VOCAB, (rows, length), generator=torch.Generator().manual_seed(length))


IDS, TARGET = random_ids(3, 21), random_ids(3, 32)


def test_sizes_are_exact(model):
    assert parameters(model.config) == sum(p.numel() for p in model.parameters())
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    assert hidden_weights(model.config) == sum(p.numel() for p in matrices)
    head = VOCAB * model.config.dim
    assert flops_per_token(model.config, 0) == 6 * (hidden_weights(model.config) + head)


def test_flops_of_attention():
    config = dataclasses.replace(SHAPES["1.1"], head_dim=8)
    assert flops_per_token(config, 10) - flops_per_token(config, 0) == 10 * 24 * (12 * 2 + (6 + 12) * 3)


def test_forward_is_head_of_hidden(model):
    assert torch.equal(model(IDS, TARGET), model.head(model.hidden(IDS, TARGET)))
    assert model(IDS, TARGET).shape == (3, 32, VOCAB)


@pytest.mark.parametrize("borders", [(1, 2, 3), (5, 6, 20), (31,), (16,)])
def test_cached_is_uncached(model, borders):
    cache = model.new_cache(3, 2)
    with torch.no_grad():
        whole = model(IDS, TARGET)
        cuts = zip([0, *borders], [*borders, 32], strict=True)
        parts = [model(IDS if a == 0 else None, TARGET[:, a:b], cache=cache) for a, b in cuts]
    assert cache.length == 32
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-4


def test_the_decoder_does_not_look_ahead_and_the_encoder_does(model):
    changed = TARGET.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % VOCAB
    other = IDS.clone()
    other[:, -1] = (other[:, -1] + 1) % VOCAB
    with torch.no_grad():
        assert torch.allclose(model(IDS, TARGET)[:, :20], model(IDS, changed)[:, :20], atol=1e-6)
        assert not torch.allclose(model(IDS, TARGET)[:, 20:], model(IDS, changed)[:, 20:], atol=1e-3)
        assert not torch.allclose(model.encode(IDS)[:, 0], model.encode(other)[:, 0], atol=1e-3)


def test_packed_is_separate(model):
    model = model.double()
    sources, targets = (4, 10, 7), (12, 5, 15)
    segments, decoder_segments = (
        torch.cat([torch.full((3, n), i) for i, n in enumerate(lengths)], dim=1) for lengths in (sources, targets)
    )
    with torch.no_grad():
        packed = model(IDS, TARGET, segments=segments, decoder_segments=decoder_segments)
        pairs = zip(IDS.split(sources, dim=1), TARGET.split(targets, dim=1), strict=True)
        alone = torch.cat([model(source, target) for source, target in pairs], dim=1)
    assert (packed - alone).abs().max() < 1e-9
    with pytest.raises(UserError, match="cannot be written with a cache"):
        model.hidden(IDS, TARGET, decoder_segments=decoder_segments, cache=model.new_cache(3))


@pytest.mark.parametrize("cached", [False, True])
def test_padding_is_not_seen(model, cached):
    """Neither at the end of a source, nor of a target, whose own padding sees nothing and yet has no NaN."""
    segments, decoder_segments = torch.zeros_like(IDS), torch.zeros_like(TARGET)
    segments[0, 9:], segments[2, 1:], decoder_segments[1, 30:] = -1, -1, -1
    context = {"segments": segments}
    context |= {"cache": model.new_cache(3)} if cached else {"decoder_segments": decoder_segments}
    with torch.no_grad():
        padded = model(IDS, TARGET, **context)
        for row, length in enumerate((9, 21, 1)):
            end = 30 if row == 1 else 32
            alone = model(IDS[row : row + 1, :length], TARGET[row : row + 1, :end])
            assert (padded[row, :end] - alone[0]).abs().max() < 1e-5
    assert padded.isfinite().all()


def test_gradients_by_hand_are_those_of_autograd(model, monkeypatch):
    model = model.double()
    segments = torch.zeros_like(IDS)
    segments[0, 9:] = -1

    def gradients():
        model.zero_grad()
        logits = model(IDS, TARGET, segments=segments)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), TARGET.flatten()).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters()}

    by_hand = gradients()
    monkeypatch.setattr(layers, "by_hand", lambda x: False)
    for key, gradient in gradients().items():
        assert torch.allclose(gradient, by_hand[key], rtol=1e-9, atol=1e-12), key


@pytest.mark.parametrize("both_ways", [True, False])
def test_position_biases_by_their_definition(both_ways):
    config = ModelConfig(**{**SHAPE, "buckets": 10, "distance": 9})
    table = RelativePositions(config, both_ways)
    biases = table(slice(17, 21), 21)
    assert biases.shape == (3, 4, 21)
    for i in range(4):
        for j in range(21):
            distance = j - (17 + i)
            number = int(table.bucket[max(-9, min(9, distance)) + 9])
            assert torch.equal(biases[:, i, j], table.embed.weight[number])
    # The same of tokens whose places are named.
    rows = table(torch.tensor([[3, 4], [17, 18]]), 21)
    assert torch.equal(rows[1], biases[:, :2]) and rows.shape == (2, 3, 2, 21)
    assert len(set(table.bucket[[8, 9, 10]].tolist())) == (3 if both_ways else 2) and table.bucket.max() < 10
    assert table.bucket[0] == (4 if both_ways else 9)


def test_as_it_begins():
    """Blocks are the identity, and logits, tied or not, are as small as those of the other families."""
    model = build(SHAPES["1.0"], 0)
    x = torch.randn(2, 5, 24)
    assert torch.equal(model.encoder.blocks[0](x, None, None, None, None), x)
    assert model(IDS, TARGET).std() < 0.3
    assert (
        model.encoder.blocks[0].attention.qkv.weight[:24].std()
        < 0.5 * model.encoder.blocks[0].attention.qkv.weight.std()
    )
    for config in SHAPES.values():
        one, two, other = build(config, 7), build(config, 7), build(config, 8)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        assert not torch.equal(one.embed.weight, other.embed.weight)


def test_dropout_is_only_for_training():
    for config in SHAPES.values():
        model = build(dataclasses.replace(config, dropout=0.5), 0)
        assert not torch.equal(*[model.train().hidden(IDS, TARGET) for _ in range(2)])
        assert torch.equal(*[model.eval().hidden(IDS, TARGET) for _ in range(2)])


def test_what_it_cannot_begin_from():
    model = build(dataclasses.replace(SHAPES["1.0"], pad_id=None), 0)
    with pytest.raises(UserError, match="t5 has no source to write from: give the ids"):
        model.hidden(None, TARGET, cache=model.new_cache(3))
    with pytest.raises(UserError, match=r"decoder begins with the padding token: set pad_token_id in config\.json"):
        _ = model.begin_id
