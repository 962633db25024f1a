"""Perplexity: every token once, equal to the naive computation, whatever the batch; refused where it would lie."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wenlu.base.errors import UserError
from wenlu.evaluation import perplexity
from wenlu.evaluation.perplexity import Document, Settings, evaluate, evaluate_documents, evaluate_each
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer

TEXTS = ["It was the best of times, it was the worst of times.", "天气真好😀", "", "a", "so much depends " * 9]


@pytest.fixture(scope="module")
def tokenizer():
    return learn("byte", TEXTS, None)


def _model(family="llama", vocab=300, context=32, seed=0):
    model = build(ModelConfig(family, dim=32, layers=2, heads=4, context=context, vocab=vocab), seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(seed))
    return model.eval()


@torch.inference_mode()
def _naive(model, ids, begin):
    """Nats of a document that is read whole."""
    series = torch.tensor([[begin, *ids]])
    return F.cross_entropy(model(series[:, :-1])[0], series[0, 1:], reduction="none").double().numpy()


@pytest.mark.parametrize("family", ["lstm", "gpt2", "llama", "qwen3"])
def test_equals_reading_each_text_whole(family, tokenizer):
    model = _model(family, tokenizer.vocab, context=256)
    nats = np.concatenate([_naive(model, tokenizer.encode(t), tokenizer.bos_id) for t in TEXTS if t])
    result = evaluate(model, tokenizer, TEXTS)
    assert (result.tokens, result.documents, result.context) == (len(nats), 4, 256)
    assert result.bytes == sum(len(t.encode()) for t in TEXTS)
    assert result.nats_per_token.value == pytest.approx(nats.mean(), abs=1e-5)
    assert result.perplexity.value == pytest.approx(math.exp(nats.mean()), rel=1e-4)
    assert result.bits_per_byte.value == pytest.approx(nats.sum() / math.log(2) / result.bytes, rel=1e-5)


@pytest.mark.parametrize("family", ["lstm", "gpt2", "qwen3"])
def test_each_of_many_texts_is_measured_as_alone(family, tokenizer):
    model, texts = _model(family, tokenizer.vocab), [text for text in TEXTS if text]
    for text, (document, per_token) in zip(texts, evaluate_each(model, tokenizer, texts), strict=True):
        alone = evaluate(model, tokenizer, [text])
        assert (len(document.ids), document.bytes, document.lossless) == (alone.tokens, alone.bytes, True)
        assert per_token == pytest.approx(alone.nats_per_token.value, abs=1e-5)
    with pytest.raises(UserError, match="nothing to evaluate: the texts hold no token"):
        evaluate_each(model, tokenizer, TEXTS)


@pytest.mark.parametrize("overlap", [0, 1, 5, 7])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 30])
def test_every_token_is_scored_once_with_the_context_it_should_have(count, overlap):
    model = _model(context=8)
    ids = np.random.default_rng(count).integers(1, 300, count)
    scored = {}
    end = 0
    while end < count:
        start = max(0, end - overlap)
        before = 0 if start == 0 else ids[start - 1]
        nats = _naive(model, ids[start : start + 8], before)
        for position in range(end, min(start + 8, count)):
            scored[position] = nats[position - start]
        end = min(start + 8, count)
    result = evaluate_documents(model, [Document(ids, count)], 0, Settings(overlap=overlap, batch=2))
    assert result.tokens == count == len(scored)
    assert result.nats_per_token.value == pytest.approx(np.mean(list(scored.values())), abs=1e-5)


@pytest.mark.parametrize("family", ["lstm", "gpt2", "qwen3"])
def test_the_batch_changes_nothing(family, tokenizer):
    model = _model(family, tokenizer.vocab)
    one, three, many = (evaluate(model, tokenizer, TEXTS, Settings(batch=batch)) for batch in (1, 3, 100))
    for other in (three, many):
        assert other.nats_per_token.value == pytest.approx(one.nats_per_token.value, abs=1e-5)
        assert other.bits_per_byte.interval.high == pytest.approx(one.bits_per_byte.interval.high, abs=1e-4)
        assert (other.tokens, other.bytes) == (one.tokens, one.bytes)


def test_small_pools_keep_the_order(tokenizer, monkeypatch):
    model = _model(vocab=tokenizer.vocab)
    whole = evaluate(model, tokenizer, TEXTS, Settings(batch=2))
    monkeypatch.setattr(perplexity, "_POOL", 1)
    again = evaluate(model, tokenizer, TEXTS, Settings(batch=2))
    assert again.nats_per_token.interval.low == pytest.approx(whole.nats_per_token.interval.low, abs=1e-5)


def test_the_head_in_parts_changes_nothing(tokenizer, monkeypatch):
    model, heads = _model(vocab=tokenizer.vocab), []
    whole = evaluate(model, tokenizer, TEXTS).nats_per_token.value
    monkeypatch.setattr(perplexity, "WHOLE_LOGITS", tokenizer.vocab * 10)
    head = model.head
    monkeypatch.setattr(model, "head", lambda hidden: heads.append(len(hidden)) or head(hidden))
    assert evaluate(model, tokenizer, TEXTS).nats_per_token.value == pytest.approx(whole, abs=1e-5)
    assert max(heads) == 10 and sum(heads) == sum(len(tokenizer.encode(t)) for t in TEXTS)


def test_overlap_gives_more_context_and_a_lower_loss():
    """A model that can only copy the token five places back gains from seeing further."""
    model = _model(context=16)
    ids = np.tile(np.arange(1, 30), 20)
    results = [evaluate_documents(model, [Document(ids, 580)], 0, Settings(overlap=o)) for o in (0, 15)]
    assert results[0].tokens == results[1].tokens == 580 and results[1].overlap == 15
    assert results[0].nats_per_token.value != results[1].nats_per_token.value


def test_uniform_model_has_the_vocabulary_as_perplexity(tokenizer):
    model = _model("gpt2", tokenizer.vocab)
    torch.nn.init.zeros_(next(p for p in model.parameters() if len(p) == tokenizer.vocab))
    result = evaluate(model, tokenizer, ["some text of plain letters"])
    assert result.perplexity.value == pytest.approx(tokenizer.vocab, rel=1e-5)
    assert result.bits_per_byte.value == pytest.approx(math.log2(tokenizer.vocab), rel=1e-5)


def test_intervals_hold_the_value_and_repeat(tokenizer):
    model = _model(vocab=tokenizer.vocab)
    result = evaluate(model, tokenizer, TEXTS)
    for estimate in (result.nats_per_token, result.perplexity, result.bits_per_byte):
        assert estimate.interval.low < estimate.value < estimate.interval.high
    assert result.perplexity.interval.low == math.exp(result.nats_per_token.interval.low)
    assert evaluate(model, tokenizer, TEXTS) == result


def test_one_token_has_no_interval(tokenizer):
    result = evaluate(_model(vocab=tokenizer.vocab), tokenizer, ["a"])
    assert result.nats_per_token.interval is result.perplexity.interval is result.bits_per_byte.interval is None


def test_bits_per_byte_are_refused_where_bytes_are_lost(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    plan = json.loads((tmp_path / "tokenizer.json").read_text())
    plan["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(plan))
    lossy, model = Tokenizer.load(tmp_path), _model(vocab=tokenizer.vocab)
    result = evaluate(model, lossy, ["all small", "Not ALL small", "It"])
    assert result.bits_per_byte is None and result.nats_per_token.value > 0
    assert result.why_no_bits == "the tokenizer does not give back every byte of the texts (the first is document 2)"
    assert evaluate(model, lossy, ["all small"]).bits_per_byte.value > 0


def test_a_text_that_vanished_wholly_counts_as_lost():
    documents = [Document(np.array([], np.int64), 5, lossless=False), Document(np.array([1, 2]), 2)]
    assert evaluate_documents(_model(), documents, 0).bits_per_byte is None


def test_progress_adds_up_to_the_bytes(tokenizer):
    seen = []
    result = evaluate(_model(vocab=tokenizer.vocab), tokenizer, TEXTS, Settings(batch=2), seen.append)
    assert sum(seen) == pytest.approx(result.bytes) and len(seen) > 1


def test_the_model_is_left_in_training_mode(tokenizer):
    model = _model(vocab=tokenizer.vocab).train()
    evaluate(model, tokenizer, ["a"])
    assert model.training


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_nothing_to_evaluate_is_refused(texts, tokenizer):
    with pytest.raises(UserError, match="nothing to evaluate: the texts hold no token"):
        evaluate(_model(vocab=tokenizer.vocab), tokenizer, texts)


def test_contexts_are_checked(tokenizer):
    gpt2 = _model("gpt2", tokenizer.vocab)
    with pytest.raises(UserError, match="gpt2 reads at most 32 tokens: context 33 is too long"):
        evaluate(gpt2, tokenizer, TEXTS, Settings(context=33))
    with pytest.raises(UserError, match=r"overlap \(32\) must be smaller than the context \(32\)"):
        evaluate(gpt2, tokenizer, TEXTS, Settings(overlap=32))
    assert evaluate(_model("llama", tokenizer.vocab), tokenizer, TEXTS, Settings(context=64)).context == 64


@pytest.mark.parametrize("settings", [{"context": -1}, {"overlap": -1}, {"batch": 0}])
def test_settings_are_checked(settings):
    with pytest.raises(UserError, match=f"{next(iter(settings))} must be at least"):
        Settings(**settings)


def test_a_diverged_model_is_refused(tokenizer):
    model = _model(vocab=tokenizer.vocab)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(UserError, match="losses are not finite"):
        evaluate(model, tokenizer, TEXTS)


def test_a_tokenizer_without_a_beginning_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "bos_id", None)
    monkeypatch.setattr(tokenizer, "eos_id", None)
    with pytest.raises(UserError, match="scored after bos or eos, and this tokenizer has neither"):
        evaluate(_model(vocab=tokenizer.vocab), tokenizer, TEXTS)
