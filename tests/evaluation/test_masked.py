"""Encoders judged: against the naive way, the interval, what is refused."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wenlu.evaluation.masked as masked_module
from wenlu.base.errors import UserError
from wenlu.evaluation import masked, spans, windows
from wenlu.evaluation.masked import evaluate_masked
from wenlu.evaluation.spans import evaluate_spans
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn

TEXTS = ["The stove glows, and the house is warm again. 文火慢炖。" * 4, "", "x", "A short one.\n"]


class Encoder(nn.Module):
    """Each place sees the mean of its window; with `decoder_ids` also what was written."""

    def __init__(self, vocab: int):
        super().__init__()
        torch.manual_seed(0)
        self.config = ModelConfig("gpt2", dim=8, heads=2, layers=1, vocab=vocab, context=20)
        self.embed, self.mix = nn.Embedding(vocab, 8), nn.Linear(8, 8)

    def hidden(self, ids, decoder_ids=None):
        read = self.mix(self.embed(ids)).mean(1, keepdim=True).tanh()
        return read + 0.3 * self.embed(ids if decoder_ids is None else decoder_ids)

    def head(self, hidden):
        return F.linear(hidden, self.embed.weight)


@pytest.fixture(scope="module")
def tokenizer():
    return learn("byte", [], None, "bert")


@pytest.fixture
def model(tokenizer):
    return Encoder(tokenizer.vocab)


@pytest.fixture
def t5():
    tokenizer = learn("byte", [], None, "t5")
    return Encoder(tokenizer.vocab), tokenizer


def naive(model, tokenizer, texts) -> list[float]:
    """Nats of every token, masked alone in its window of 18."""
    found = []
    for ids in map(tokenizer.encode, texts):
        for place, id in enumerate(ids):
            start = place - place % 18
            window = [tokenizer.cls_id, *ids[start : start + 18], tokenizer.sep_id]
            window[1 + place - start] = tokenizer.mask_id
            with torch.no_grad():
                logits = model.head(model.hidden(torch.tensor([window])))[0, 1 + place - start]
            found.append(-float(logits.log_softmax(-1)[id]))
    return found


def test_pseudo_perplexity_is_the_naive_one(model, tokenizer):
    expected = naive(model, tokenizer, TEXTS)
    result = evaluate_masked(model, tokenizer, TEXTS, masked.Settings(limit=0, batch=7))
    assert result.masked_one_by_one == result.tokens == len(expected) and result.documents == 3
    assert result.pseudo_nats_per_token.value == pytest.approx(np.mean(expected), rel=1e-5)
    assert result.pseudo_perplexity.value == pytest.approx(math.exp(np.mean(expected)), rel=1e-5)
    interval = result.pseudo_perplexity.interval
    assert interval.low < result.pseudo_perplexity.value < interval.high


def test_a_limit_takes_tokens_evenly_and_says_the_cost(model, tokenizer, capsys):
    expected = np.array(naive(model, tokenizer, TEXTS))
    result = evaluate_masked(model, tokenizer, TEXTS, masked.Settings(limit=40))
    chosen = np.linspace(0, len(expected) - 1, 40).round().astype(int)
    assert result.masked_one_by_one == 40
    assert result.pseudo_nats_per_token.value == pytest.approx(expected[chosen].mean(), rel=1e-5)
    said = " ".join(capsys.readouterr().err.split())
    assert f"40 of {len(expected):,} tokens are masked one by one: 56 windows of up to 20 to compute" in said


def test_what_the_tokenizer_does_not_know_is_not_restored(model, tokenizer, monkeypatch, capsys):
    """Such as BERT's [UNK], which is easily foretold where all is unknown."""
    real, strange = masked_module.Words.of(tokenizer), tokenizer.encode("x")[0]
    special = real.special.copy()
    special[strange] = True
    words = dataclasses.replace(real, special=special)
    monkeypatch.setattr(masked_module.Words, "of", lambda _: words)
    found = evaluate_masked(model, tokenizer, ["axbxxc"])
    assert found.tokens == 6 and found.masked_one_by_one == 3
    assert "3 of 6 tokens stand for what the tokenizer does not know" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="the tokenizer knows nothing of the texts"):
        evaluate_masked(model, tokenizer, ["xxx"])


def test_a_text_of_which_nothing_is_masked_at_once(model, tokenizer):
    found = evaluate_masked(model, tokenizer, ["a"])
    assert found.masked_one_by_one == 1
    if not found.masked_at_once:
        assert found.masked_accuracy is None and found.advantage is None


def test_long_windows_are_computed_in_turns():
    assert [windows.at_once(16, context) for context in (64, 1024, 4096, 1 << 20)] == [16, 16, 4, 1]


def test_the_batch_changes_no_figure(model, tokenizer):
    one, many = (evaluate_masked(model, tokenizer, TEXTS, masked.Settings(batch=batch)) for batch in (1, 9))
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(many, field.name)
        assert a == b if isinstance(a, int) else a.value == pytest.approx(b.value, rel=1e-5), field.name


def test_accuracy_is_of_the_chosen_and_the_guess_is_the_commonest(model, tokenizer, monkeypatch):
    text = "aaab" * 200
    found = evaluate_masked(model, tokenizer, [text], masked.Settings(limit=5))
    assert found.masked_at_once == pytest.approx(0.15 * 800, rel=0.2)
    assert found.unigram_accuracy.value == pytest.approx(0.75, abs=0.1)
    assert found.advantage.value == pytest.approx(found.masked_accuracy.value - found.unigram_accuracy.value)
    right = np.array([tokenizer.encode("a")[0]])

    def always(self, states):
        return np.repeat(right, len(states))

    monkeypatch.setattr(masked_module._Restorer, "likeliest", always)
    same = evaluate_masked(model, tokenizer, [text], masked.Settings(limit=5))
    assert same.masked_accuracy == same.unigram_accuracy and same.advantage.value == 0


def test_the_work_adds_up(model, tokenizer, t5):
    for evaluate, given in ((evaluate_masked, (model, tokenizer)), (evaluate_spans, t5)):
        done = []
        evaluate(*given, TEXTS, None, done.append)
        assert sum(done) == pytest.approx(1)


def test_spans_are_scored_as_they_are_alone(t5):
    model, tokenizer = t5
    one, many = (evaluate_spans(model, tokenizer, TEXTS, spans.Settings(batch=batch)) for batch in (1, 9))
    assert one.nats_per_target.value == pytest.approx(many.nats_per_target.value, rel=1e-5)
    assert one.targets == many.targets and one.left_out == 1 and one.documents == 3
    interval = one.nats_per_target.interval
    assert interval.low < one.nats_per_target.value < interval.high
    assert one.perplexity_of_targets.value == pytest.approx(math.exp(one.nats_per_target.value))


def test_refusals(model, tokenizer, t5):
    plain = learn("byte", [], None)
    with pytest.raises(
        UserError, match=r"the tokenizer has no cls token: name its cls_token in tokenizer_config\.json"
    ):
        evaluate_masked(model, plain, TEXTS)
    model.config = dataclasses.replace(model.config, family="bert", head="span")
    with pytest.raises(UserError, match="this bert's head is 'span', which foretells no tokens: give one that was"):
        evaluate_masked(model, tokenizer, TEXTS)
    model.config = dataclasses.replace(model.config, family="gpt2", head="tokens")
    with pytest.raises(UserError, match=r"taken out with 1 sentinels .* this tokenizer has 0 sentinels: choose a T5's"):
        evaluate_spans(model, plain, TEXTS)
    with pytest.raises(UserError, match="the texts hold no token"):
        evaluate_masked(model, tokenizer, [""])
    with pytest.raises(UserError, match="no text holds two tokens"):
        evaluate_spans(*t5, ["x", ""])
    with pytest.raises(UserError, match="context must be at least 8, not 7"):
        evaluate_masked(model, tokenizer, TEXTS, masked.Settings(context=7))
    for settings in (masked.Settings, spans.Settings):
        with pytest.raises(UserError, match="batch must be at least 1, not 0"):
            settings(batch=0)
    with pytest.raises(UserError, match="limit must be at least 0, not -1"):
        masked.Settings(limit=-1)
    for each, evaluate, tokens in ((model, evaluate_masked, tokenizer), (t5[0], evaluate_spans, t5[1])):
        with torch.no_grad():
            each.embed.weight[5:] = float("nan")
        with pytest.raises(UserError, match="the model's losses are not finite"):
            evaluate(each, tokens, TEXTS)
