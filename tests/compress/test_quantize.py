"""A quantised model is the model with its weights rounded, and predicts nearly as well as the one it was."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from wenlu.base.errors import UserError
from wenlu.compress.quantize import quantize
from wenlu.hub.folder import load
from wenlu.inference.generate import generate
from wenlu.inference.sample import Greedy
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.models.quantized import Int8Layer, Int8Matrix

BOUND = 1.005
"""Perplexity of int8 over that of f32."""
SMALL = {"dim": 24, "layers": 2, "context": 32, "vocab": 70}
SHAPES = [
    ModelConfig(family="lstm", **SMALL),
    ModelConfig(family="lstm", **SMALL, tied=False),
    ModelConfig(family="gpt2", **SMALL, heads=3),
    ModelConfig(family="llama", **SMALL, heads=4, kv_heads=2, mlp_bias=True, attention_bias=True),
    ModelConfig(family="mistral", **SMALL, heads=4, kv_heads=2, window=5),
    ModelConfig(family="qwen2", **SMALL, heads=2),
    ModelConfig(family="qwen3", **SMALL, heads=2, tied=False),
    ModelConfig(family="bert", **SMALL, heads=2),
    ModelConfig(family="bert", **SMALL, heads=2, head="classify", labels=("a", "b")),
    ModelConfig(family="t5", **SMALL, heads=2, pad_id=0),
    ModelConfig(family="t5", **SMALL, heads=2, pad_id=0, tied=False),
]
LETTERS = "In the beginning was the word, and the word was with the people, and the people wrote it down. "


def name(config: ModelConfig) -> str:
    return f"{config.family}-{config.head}-{'tied' if config.tied else 'untied'}"


def perplexity(model, ids: torch.Tensor) -> float:
    with torch.inference_mode():
        logits = model(ids[:, :-1])
    return math.exp(F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item())


@pytest.fixture(params=SHAPES, ids=name)
def model(request, shaken):
    return shaken(build(request.param, seed=1))


def outputs(model):
    ids = torch.randint(1, 70, (3, 20), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return model(ids, ids[:, :7]) if model.config.family == "t5" else model(ids)


def test_it_is_the_model_with_its_weights_rounded(model):
    rounded = copy.deepcopy(model)
    assert quantize(model) is model
    left = {name for name, _ in model.named_parameters()}
    with torch.no_grad():
        for place, module in model.named_modules():
            if isinstance(module, Int8Layer):
                rounded.get_submodule(place).w.copy_(module.w.dequantized())
                rounded.get_submodule(place).u.copy_(module.u.dequantized())
            elif isinstance(module, Int8Matrix) and not place.endswith((".w", ".u")):
                rounded.get_submodule(place).weight.copy_(module.dequantized())
    assert (outputs(model) - outputs(rounded)).abs().max() < 1e-4
    big = [n for n, p in rounded.named_parameters() if p.ndim == 2 and n in left]
    assert all("position_embed" in n or "type_embed" in n or "relative" in n for n in big), big


def test_it_decodes_with_its_cache(model):
    quantize(model)
    if model.config.family == "bert":
        return
    whole = list(generate(model, [1, 2, 3], Greedy(), 5))
    assert len(whole) == 5
    if model.config.family != "t5":
        ids = [1, 2, 3]
        for token in whole:
            with torch.inference_mode():
                assert model(torch.tensor([ids]))[0, -1].argmax() == token
            ids.append(token)


def test_twice_is_refused(model):
    with pytest.raises(UserError, match="in int8 already: quantise the one that it was made from"):
        quantize(quantize(model))


def test_weights_that_are_not_finite_are_refused(model):
    with torch.no_grad():
        model.embed.weight[3, 3] = float("nan")
    with pytest.raises(UserError, match=r"embed\.weight holds NaN or infinity"):
        quantize(model)


@pytest.mark.parametrize("family", ["llama", "lstm"])
def test_a_trained_model_keeps_its_perplexity(family):
    torch.manual_seed(4)
    model = build(ModelConfig(family=family, dim=48, layers=2, heads=4, context=64, vocab=128), seed=1)
    ids = torch.tensor([[ord(letter) for letter in LETTERS]])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0 if family == "llama" else 3.0)
    first = perplexity(model, ids)
    for _ in range(120):
        optimizer.zero_grad()
        F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    before = perplexity(model.eval(), ids)
    assert before < first / 4, "it has learned something"
    assert perplexity(quantize(model), ids) <= BOUND * before


@pytest.mark.data
def test_stories_keep_their_perplexity(data_dir):
    """On the text that it is known for, on stories that it writes itself, and on English that it does not know."""
    model, tokenizer = load(data_dir / "stories260K")
    known = torch.tensor([tokenizer.encode((data_dir / "stories260K" / "greedy.txt").read_text())])
    wiki = tokenizer.encode((data_dir / "english" / "wikitext2_test.txt").read_text(encoding="utf-8")[:40000])
    unknown = torch.tensor(wiki[: len(wiki) // 256 * 256]).view(-1, 256)
    own, cache, generator = torch.ones(32, 1, dtype=torch.long), model.new_cache(32), torch.Generator().manual_seed(1)
    with torch.inference_mode():
        for _ in range(200):
            odds = model(own[:, -1:], cache=cache)[:, -1].softmax(-1)
            own = torch.cat((own, torch.multinomial(odds, 1, generator=generator)), dim=1)
    before = [perplexity(model, ids) for ids in (known, own, unknown)]
    quantize(model)
    after = [perplexity(model, ids) for ids in (known, own, unknown)]
    assert all(b <= BOUND * a for a, b in zip(before, after, strict=True)), (before, after)
