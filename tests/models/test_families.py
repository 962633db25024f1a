"""Laws that every family keeps: cached ≈ uncached, packed = separate, by hand = by autograd, sizes as predicted."""

import dataclasses

import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.models import layers, position
from wenlu.models.build import build
from wenlu.models.config import ModelConfig, RopeScaling
from wenlu.models.size import flops_per_token, parameters, training_bytes

VOCAB = 70
SHAPES = [
    ModelConfig(family="lstm", dim=24, layers=2, context=32, vocab=VOCAB),
    ModelConfig(family="lstm", dim=24, layers=1, context=32, vocab=VOCAB, tied=False),
    ModelConfig(family="gpt2", dim=24, layers=2, heads=3, context=32, vocab=VOCAB),
    ModelConfig(family="gpt2", dim=24, layers=2, heads=3, context=32, vocab=VOCAB, tied=False, activation="relu2"),
    ModelConfig(family="llama", dim=24, layers=2, heads=2, context=32, vocab=VOCAB, mlp_bias=True, attention_bias=True),
    ModelConfig(family="llama", dim=24, layers=2, heads=4, kv_heads=2, context=32, vocab=VOCAB, activation="gelu"),
    ModelConfig(family="qwen3", dim=24, layers=2, heads=4, kv_heads=1, head_dim=10, context=32, vocab=VOCAB),
    ModelConfig(family="qwen3", dim=24, layers=2, heads=2, context=32, vocab=VOCAB, tied=False),
    ModelConfig(family="mistral", dim=24, layers=2, heads=4, kv_heads=2, context=32, vocab=VOCAB, window=5),
    ModelConfig(family="qwen2", dim=24, layers=3, heads=2, context=32, vocab=VOCAB, window=7, full_layers=1),
]


def name(config: ModelConfig) -> str:
    return f"{config.family}-{'tied' if config.tied else 'untied'}-{config.kv_heads}-{config.head_dim}"


@pytest.fixture(params=SHAPES, ids=name)
def model(request, shaken):
    return shaken(build(request.param, seed=1))


@pytest.fixture
def ids():
    return torch.randint(VOCAB, (3, 32), generator=torch.Generator().manual_seed(3))


def test_sizes_are_exact(model):
    assert parameters(model.config) == sum(p.numel() for p in model.parameters())


def test_forward_is_head_of_hidden(model, ids):
    assert torch.equal(model(ids), model.head(model.hidden(ids)))
    assert model(ids).shape == (3, 32, VOCAB)


@pytest.mark.parametrize("borders", [(1, 2, 3), (5, 6, 20), (31,), (16,)])
def test_cached_is_uncached(model, ids, borders):
    cache = model.new_cache(3, 2)
    with torch.no_grad():
        whole = model(ids)
        ends = [*borders, 32]
        parts = [model(ids[:, a:b], cache=cache) for a, b in zip([0, *borders], ends, strict=True)]
    assert cache.length == 32
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-4


def test_it_does_not_look_ahead(model, ids):
    changed = ids.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % VOCAB
    with torch.no_grad():
        assert torch.allclose(model(ids)[:, :20], model(changed)[:, :20], atol=1e-6)
        assert not torch.allclose(model(ids)[:, 20:], model(changed)[:, 20:], atol=1e-3)


def test_packed_is_separate(model, ids):
    if model.config.family == "lstm":
        with pytest.raises(UserError, match="takes no positions and no segments"):
            model.hidden(ids, segments=torch.zeros_like(ids))
        return
    lengths = (10, 15, 7)
    segments = torch.cat([torch.full((3, n), i) for i, n in enumerate(lengths)], dim=1)
    positions = torch.cat([torch.arange(n).expand(3, n) for n in lengths], dim=1)
    with torch.no_grad():
        packed = model(ids, segments=segments, positions=positions)
        alone = torch.cat([model(part) for part in ids.split(lengths, dim=1)], dim=1)
    assert (packed - alone).abs().max() < 1e-5
    with pytest.raises(UserError, match="cannot be read with a cache"):
        model.hidden(ids, segments=segments, cache=model.new_cache(3))


@pytest.mark.parametrize("model", SHAPES[2:], indirect=True, ids=name)
def test_gradients_by_hand_are_those_of_autograd(model, ids, monkeypatch):
    model = model.double()
    for buffer in ("cos", "sin"):
        if getattr(model, "rotary", None) is not None:
            setattr(model.rotary, buffer, getattr(model.rotary, buffer).double())

    def gradients():
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters()}

    by_hand = gradients()
    for module in (layers, position):
        monkeypatch.setattr(module, "by_hand", lambda x: False)
    for key, gradient in gradients().items():
        assert torch.allclose(gradient, by_hand[key], rtol=1e-9, atol=1e-12), key


def test_build_is_a_function_of_the_seed():
    for config in SHAPES:
        torch.manual_seed(5)
        one = build(config, 7)
        torch.manual_seed(6)
        two, other = build(config, 7), build(config, 8)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        assert not torch.equal(one.embed.weight, other.embed.weight)


def test_a_block_of_llama_begins_as_the_identity():
    model = build(SHAPES[6], 0)
    x = torch.randn(2, 5, 24)
    assert torch.equal(model.blocks[0](x, model.rotary, slice(0, 5), None, None), x)


def test_gpt2_refuses_positions_that_it_has_not_learned():
    model = build(SHAPES[2], 0)
    with pytest.raises(UserError, match="gpt2 has learned 32 positions, and 33 are asked for: shorten the text"):
        model(torch.zeros(1, 33, dtype=torch.long))
    cache = model.new_cache(1)
    model(torch.zeros(1, 32, dtype=torch.long), cache=cache)
    with pytest.raises(UserError, match="33 are asked for"):
        model(torch.zeros(1, 1, dtype=torch.long), cache=cache)


def test_rotary_goes_beyond_its_context(ids):
    model = build(dataclasses.replace(SHAPES[6], context=8), 0)
    longer = build(SHAPES[6], 0)
    with torch.inference_mode():
        assert torch.equal(model(ids), longer(ids))
    model(ids).sum().backward()


def test_dropout_is_only_for_training(ids):
    for config in SHAPES[:7:2]:
        model = build(dataclasses.replace(config, dropout=0.5), 0)
        hidden = [model.train().hidden(ids) for _ in range(2)]
        assert not torch.equal(*hidden)
        assert torch.equal(*[model.eval().hidden(ids) for _ in range(2)])


def test_flops_count_every_matrix_six_times():
    config = ModelConfig(family="llama", dim=64, layers=2, heads=2, ffn=128, vocab=100, context=32)
    matrices = 2 * (4 * 64 * 64 + 3 * 64 * 128) + 64 * 100
    assert flops_per_token(config, 0) == 6 * matrices
    assert flops_per_token(config, 32) == 6 * matrices + 6 * 2 * 64 * 32


def test_predicted_bytes_are_bounded_by_their_kinds_and_grow():
    config = ModelConfig(dim=64, layers=2, heads=2, vocab=100, context=32)
    kinds = training_bytes(config, 4, 32, "adamw")
    assert kinds["weights"] < kinds["total"] <= sum(value for key, value in kinds.items() if key != "total")
    assert kinds["weights"] == kinds["gradients"] == 4 * parameters(config)
    assert training_bytes(config, 8, 32, "adamw")["total"] > kinds["total"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "gpt5"}, "model family must be one of lstm, gpt2, llama, .*, not 'gpt5'"),
        ({"dim": 0}, "model.dim must be at least 1, not 0"),
        ({"dropout": 1.0}, r"model.dropout must lie in \[0, 1\), not 1.0"),
        ({"activation": "tanh"}, "model.activation must be silu"),
        ({"dim": 65}, r"model.dim \(65\) must be a multiple of model.heads \(2\)"),
        ({"kv_heads": 3}, r"model.heads \(2\) must be a multiple of model.kv_heads \(3\)"),
        ({"family": "gpt2", "kv_heads": 1}, "gpt2 has as many key heads as query heads"),
        ({"head_dim": 7}, "rotary positions need an even head_dim, not 7"),
        ({"ffn": -1}, "model.ffn must not be negative, not -1"),
        ({"family": "llama", "window": 8}, "llama has no sliding window: leave model.window at 0, or take mistral"),
        ({"family": "mistral", "full_layers": 1}, "in mistral every layer has the window: leave model.full_layers at"),
        ({"family": "gpt2", "rope": RopeScaling("linear", 2.0)}, "gpt2 has no rotary positions to scale: leave"),
        ({"decoder_layers": 2}, "qwen3 has no decoder of its own: leave model.decoder_layers at 0, or take t5"),
        ({"family": "t5", "kv_heads": 1}, "t5 has as many key heads as query heads: leave model.kv_heads at 0"),
        ({"family": "t5", "buckets": 2}, "model.buckets must be at least 4, not 2"),
        ({"family": "t5", "distance": 16}, r"model.distance \(16\) must be more than half of model.buckets \(32\)"),
        ({"family": "t5", "activation": "gelu"}, "t5's form has no name for gates with the exact gelu: take gelu_new"),
        ({"family": "t5", "mlp_bias": True}, "t5 has no biases: leave model.attention_bias and model.mlp_bias at"),
    ],
)
def test_refused_shapes(change, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**{"dim": 64, "heads": 2, **change})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "dynamic"}, "model.rope.kind must be none, linear, llama3 or yarn, not 'dynamic'"),
        ({"kind": "linear", "factor": 0.5}, "model.rope.factor must be at least 1, not 0.5"),
        ({"kind": "yarn", "factor": 2.0}, "model.rope.context, the length before scaling, must be at least 1, not 0"),
        (
            {"kind": "llama3", "context": 8, "low": 5.0},
            r"model.rope.low \(5.0\) must lie between 0 and model.rope.high",
        ),
        ({"attention": 0.0}, "model.rope.attention must be above 0, not 0.0"),
    ],
)
def test_refused_scalings(values, message):
    with pytest.raises(UserError, match=message):
        RopeScaling(**values)


def test_a_model_needs_a_vocabulary():
    with pytest.raises(UserError, match="a model needs a vocabulary"):
        build(ModelConfig(), 0)


def test_angles_are_not_rounded_with_the_weights():
    """In bf16 positions 256 and 257 would turn alike."""
    model = build(ModelConfig("llama", dim=16, layers=1, heads=2, context=300, vocab=9), 0)
    before = model.rotary.cos.clone()
    model.bfloat16()
    assert model.rotary.cos.dtype == torch.float32 and torch.equal(model.rotary.cos, before)
    assert model.hidden(torch.tensor([[1, 2, 3]])).dtype == torch.bfloat16
