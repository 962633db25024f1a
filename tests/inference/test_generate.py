"""Decoding: cached equals uncached, rows are independent, and every ending has its reason."""

from dataclasses import replace

import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.inference.batch import Engine
from wenlu.inference.generate import generate
from wenlu.inference.sample import Greedy, Sampling, row_generators, strategy
from wenlu.inference.text import Request
from wenlu.models.build import build
from wenlu.models.config import ModelConfig

FAMILIES = ("lstm", "gpt2", "llama", "qwen3")
PROMPT = [3, 1, 4, 1, 5, 9]


def random_model(family, context=64, vocab=61, seed=0):
    """A small model all of whose weights are random, so that no layer is passed over and texts do not just repeat."""
    config = ModelConfig(family, dim=32, layers=2, heads=4, context=context, vocab=vocab, tied=False)
    if family in ("llama", "qwen3"):
        config = replace(config, kv_heads=2)
    model = build(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = parameter.ndim == 1 and "norm" in name and not name.endswith("bias")
            parameter.normal_(0.5 if gain else 0.0, 0.4, generator=generator)
    return model


def uncached(model, ids, count):
    """Greedy continuation that reads everything anew for each token, and the smallest margin of its choices."""
    ids, margin = list(ids), float("inf")
    for _ in range(count):
        with torch.inference_mode():
            best = model(torch.tensor([ids]))[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return ids[-count:], margin


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt", [PROMPT[:1], PROMPT])
def test_cached_equals_uncached(family, prompt):
    model = random_model(family).eval()
    expected, margin = uncached(model, prompt, 40)
    assert margin > 2e-4, "a tie would make this test say nothing"
    assert list(generate(model, prompt, Greedy(), 40)) == expected
    assert len(set(expected)) > 3


@pytest.mark.parametrize("family", FAMILIES)
def test_temperature_zero_is_greedy_is_top_1(family):
    model = random_model(family)
    expected = list(generate(model, PROMPT, Greedy(), 30))
    for chooser in (strategy(0), strategy(0.8, top_k=1), Sampling(0.8, top_k=1), Sampling(1e-9)):
        assert list(generate(model, PROMPT, chooser, 30, generator=torch.Generator().manual_seed(1))) == expected


def written(model, requests, **options):
    """All of them side by side."""
    engine = Engine(model, **options)
    texts = [engine.add(request) for request in requests]
    while engine.step():
        pass
    return texts


def sampled(rows, tokens, stop_ids=()):
    return [Request(tuple(PROMPT), Sampling(1.0), tokens, frozenset(stop_ids), g) for g in row_generators(5, rows)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_does_not_depend_on_how_many_there_are(family):
    model = random_model(family)
    six, three, one = ([text.ids for text in written(model, sampled(rows, 25))] for rows in (6, 3, 1))
    assert six[:1] == one and six[:3] == three
    assert len(set(map(tuple, six))) == 6


def test_an_end_token_ends_a_row_alone_and_is_not_given_out():
    model = random_model("llama")
    rows = [text.ids for text in written(model, sampled(4, 20))]
    end = rows[0][7]
    for ids, text in zip(rows, written(model, sampled(4, 20, [end])), strict=True):
        assert text.ids == (ids[: ids.index(end)] if end in ids else ids)
        assert text.finish == ("eos" if end in ids else "length")
    assert end in rows[0]


@pytest.mark.parametrize("length, room", [(1, 16), (10, 7), (15, 2), (16, 1)])
def test_gpt2_stops_where_its_positions_end(length, room):
    model = random_model("gpt2", context=16)
    (text,) = written(model, [Request((2,) * length, max_tokens=100)])
    assert len(text.ids) == room and text.finish == "context"
    assert text.ids == uncached(model.eval(), [2] * length, room)[0]
    (exact,) = written(model, [Request((2,) * length, max_tokens=room)])
    assert exact.finish == "length" and exact.ids == text.ids


def test_gpt2_refuses_a_prompt_beyond_its_positions_at_once():
    with pytest.raises(UserError, match="prompt has 17 tokens, but this gpt2 reads at most 16: shorten"):
        generate(random_model("gpt2", context=16), [2] * 17, Greedy(), 1)


@pytest.mark.parametrize("family", ["llama", "qwen3", "lstm"])
def test_the_others_go_on_beyond_their_context_and_say_so(family):
    engine = Engine(random_model(family, context=16))
    text, beyond, going = engine.add(Request(tuple(PROMPT), max_tokens=30)), [], True
    while going:
        going = engine.step()
        beyond.append(engine.beyond_context(text))
    assert text.finish == "length"
    # 6 tokens of prompt and 10 more fill the context; the 12th step is the first to read 17.
    assert beyond == ([False] * 30 if family == "lstm" else [False] * 11 + [True] * 19)


def test_an_empty_prompt_is_refused():
    with pytest.raises(UserError, match="cannot begin from nothing"):
        generate(random_model("lstm"), [], Greedy(), 1)


def test_only_ids_that_the_tokenizer_knows_are_chosen():
    request = Request(tuple(PROMPT), Sampling(100.0), 60, generator=torch.Generator().manual_seed(0))
    (text,) = written(random_model("llama"), [request], vocab=10)
    assert len(text.ids) == 60 and max(text.ids) < 10


def test_the_prompt_is_read_once_then_one_token_at_a_time(monkeypatch):
    model = random_model("qwen3")
    read, hidden = [], model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, **rest: read.append(tuple(ids.shape)) or hidden(ids, **rest))
    list(generate(model, PROMPT, Greedy(), 4))
    assert read == [(1, 6), (1, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize("tokens", [1, 20])
def test_a_half_read_generator_leaves_training_undisturbed(tokens):
    """Even where the rotary tables grew meanwhile, since tensors made in inference mode cannot be trained with."""
    model = random_model("llama", context=16).train()
    ids = generate(model, PROMPT, Greedy(), 50)
    for _ in range(tokens):
        next(ids)
    assert model.training and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    model(torch.tensor([PROMPT])).sum().backward()


def test_any_number_of_tokens_may_be_asked_for():
    ids = generate(random_model("llama"), PROMPT, Greedy(), 10**12)
    assert len([next(ids) for _ in range(3)]) == 3


def test_dropout_is_off():
    config = ModelConfig("gpt2", dim=32, layers=2, heads=4, context=64, vocab=61, dropout=0.5)
    model = build(config, 0).train()
    assert list(generate(model, PROMPT, Greedy(), 20)) == list(generate(model.eval(), PROMPT, Greedy(), 20))
