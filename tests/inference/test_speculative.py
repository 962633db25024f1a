"""Guesses change no text but by near-ties, and save readings: those from the text itself, and those of a draft."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from texts import VOCAB, finished, request, same

from wenlu.base.errors import UserError
from wenlu.inference.adjust import Adjustments
from wenlu.inference.batch import Engine, Options
from wenlu.inference.draft import Draft, _Drafts, check_same_tokens
from wenlu.inference.sample import Sampling, row_generators
from wenlu.inference.speculative import Lookup, Ngrams
from wenlu.inference.text import Request
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn

from small_models import BYTES, TEXT, random_model

DRAFTED = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "t5")


def smaller(model, noise=0.01):
    """A model that mostly agrees with another."""
    other, generator = build(model.config, 0).eval(), torch.Generator().manual_seed(7)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    return other


def scanned(ids, most, longest):
    """What `Ngrams` finds, by looking through the whole text."""
    best, at = 0, 0
    for place in range(len(ids) - 2, -1, -1):
        alike = 0
        while alike < min(longest, place + 1) and ids[place - alike] == ids[-1 - alike]:
            alike += 1
        if alike > best:
            best, at = alike, place + 1
    return ids[at : at + most] if best else []


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=9), st.integers(1, 4), st.integers(1, 5))
def test_ngrams_find_what_looking_through_the_text_finds(parts, longest, most):
    ngrams = Ngrams(longest)
    for part in parts:
        ngrams.ids.extend(part)
        assert ngrams.guess(most) == scanned(ngrams.ids, most, longest)


def test_a_guess_takes_as_long_in_a_long_text_as_in_a_short_one():
    class Counted(list):
        looked = 0

        def __getitem__(self, at):
            Counted.looked += 1
            return super().__getitem__(at)

    ngrams, spent = Ngrams(3), []
    ngrams.ids = Counted([1, 2])
    for token in torch.randint(0, 50, (3_000,), generator=torch.Generator().manual_seed(0)).tolist():
        ngrams.ids.append(token)
        before = Counted.looked
        ngrams.guess(4)
        spent.append(Counted.looked - before)
    assert max(spent[10:]) <= 8


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "t5"])
@pytest.mark.parametrize("kind", ["look-up", "draft"])
def test_guesses_change_nothing_and_save_readings(family, kind, monkeypatch):
    model, read = random_model(family), []
    guesses = Lookup(5) if kind == "look-up" else Draft(smaller(model, 0.001), 5)
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda *ids, **rest: read.append(1) or hidden(*ids, **rest))
    prompt = (3, 1, 4) * 6
    wanted = [Request(prompt, max_tokens=50), Request(prompt, Sampling(0.3), 50, generator=row_generators(0, 1)[0])]
    plain = finished(Engine(model), *wanted)
    steps = len(read)
    wanted[1] = replace(wanted[1], generator=row_generators(0, 1)[0])
    guessed = finished(Engine(model, options=Options(guesses=guesses)), *wanted)
    assert all(same(text, other) for text, other in zip(guessed, plain, strict=True))
    assert len(read) - steps < (steps if kind == "look-up" else 0.7 * steps)
    taken, made = (sum(getattr(text, name) for text in guessed) for name in ("taken", "guessed"))
    assert 0 < taken <= made and not any(text.guessed for text in plain)


@pytest.mark.parametrize("family", DRAFTED)
def test_mixes_of_requests_with_a_draft_are_each_request_alone(family):
    """Texts of all kinds that join and leave, some cancelled; a draft that is often wrong."""
    model = random_model(family)
    engine = Engine(model, options=Options(rows=4, guesses=Draft(smaller(model, 0.005), 3), chunk=9))
    texts, parted = {}, 0
    for number in range(60, 78):
        texts[number] = engine.add(request(number))
        engine.step()
        if number % 9 == 0:
            texts[number - 1].end()
    while engine.step():
        pass
    assert not engine.step() and engine.bytes == 0, "the draft's rows are free too"
    for number, text in texts.items():
        (alone,) = finished(Engine(model), request(number))
        if text.finish == "cancelled":
            assert text.ids == alone.ids[: len(text.ids)] or text.near_ties
        else:
            parted += not same(text, alone)
    assert parted <= 1 and sum(text.taken for text in texts.values()) > 20


@pytest.mark.parametrize("family", DRAFTED)
def test_what_a_draft_guesses_is_what_it_would_write(family, monkeypatch):
    """After right guesses and wrong ones, beside texts that join and leave."""
    model, seen = random_model(family), []
    draft = smaller(model, 0.02)
    guess = _Drafts.guess

    def noted(self, texts, most):
        guesses = guess(self, texts, most)
        seen.extend((text, len(text.ids), found) for text, found in zip(texts, guesses, strict=True))
        return guesses

    monkeypatch.setattr(_Drafts, "guess", noted)
    engine = Engine(model, options=Options(guesses=Draft(draft, 3), rows=4))
    for length in (5, 9, 5, 2, 17):
        engine.add(Request(tuple(range(length, 2 * length)), max_tokens=8 + length))
        engine.step()
    while engine.step():
        pass
    guessed = [one for one in seen if one[2]]
    for text, count, found in guessed:
        prompt, after = torch.tensor([text.request.ids]), [*text.ids[:count], *found[:-1]]
        with torch.inference_mode():
            if family == "t5":
                logits = draft(prompt, torch.tensor([[draft.begin_id, *after]]))
            else:
                logits = draft(torch.cat((prompt, torch.tensor([after])), 1))
        assert found == logits[0, -len(found) :].argmax(-1).tolist()
    assert len(guessed) > 20 and sum(text.taken for text, *_ in seen) > 0


def test_a_draft_that_is_the_model_itself_is_always_right():
    """Both draw by the same random numbers, by every strategy; and the text's own are not touched."""
    model = random_model("llama")
    strategies = (Sampling(1.0), Sampling(0.7, top_k=9), Sampling(1.3, top_p=0.9, min_p=0.01))
    adjusted = Adjustments(1.2, 0.1, 0.2)
    wanted = [
        Request((1, 2, number), strategy, 60, generator=row_generators(number, 1)[0], adjustments=adjusted)
        for number, strategy in enumerate(strategies)
    ]
    texts = finished(Engine(model, options=Options(guesses=Draft(model, 4))), *wanted)
    assert all(text.taken == text.guessed >= 46 for text in texts)


def test_a_text_draws_from_torch_itself_as_without_a_draft():
    model, wanted = random_model("llama"), Request((1, 2), Sampling(1.0), 40)
    draft = smaller(model)
    torch.manual_seed(3)
    (plain,) = finished(Engine(model), wanted)
    torch.manual_seed(3)
    (drafted,) = finished(Engine(model, options=Options(guesses=Draft(draft))), wanted)
    assert same(drafted, plain)


def test_batch_invariant_gives_equal_bytes_with_a_draft():
    model = random_model("llama")
    options = Options(batch_invariant=True, guesses=Draft(smaller(model), 3))
    alone = [finished(Engine(model, options=options), request(n))[0] for n in range(6)]
    together = finished(Engine(model, options=options), *(request(n) for n in range(6)))
    for text, other in zip(together, alone, strict=True):
        assert text.ids == other.ids and text.log_probabilities == other.log_probabilities


@pytest.mark.parametrize("context", [16, 40])
def test_a_gpt2_that_drafts_gives_up_where_its_context_ends(context):
    model, draft = random_model("gpt2"), random_model("gpt2", context=context)
    wanted = [Request(tuple(range(n, n + length)), max_tokens=60) for n, length in enumerate((3, 14, 30))]
    texts = finished(Engine(model, options=Options(guesses=Draft(draft, 4), chunk=8)), *wanted)
    plain = finished(Engine(model), *wanted)
    assert all(same(text, other) for text, other in zip(texts, plain, strict=True))
    assert texts[0].guessed > 0 and (texts[2].guessed > 0) == (context == 40)


def test_guesses_of_a_draft_that_fails_are_left_out():
    model = random_model("llama")
    draft = smaller(model)
    with torch.no_grad():
        draft.embed.weight[7] = float("nan")
    wanted = [Request((1, 2, 7), max_tokens=9), Request((1, 2, 3, 4), max_tokens=30)]
    texts = finished(Engine(model, options=Options(guesses=Draft(draft))), *wanted)
    plain = finished(Engine(model), *wanted)
    assert all(same(text, other) for text, other in zip(texts, plain, strict=True)) and texts[0].guessed == 0


class Fixed(torch.nn.Linear):
    """The same chances whatever it reads."""

    config = ModelConfig("llama", dim=8, heads=2, vocab=20)

    def __init__(self, chances):
        super().__init__(1, 1)
        self.logits = chances.log().float()

    def new_cache(self, rows, length):
        return build(self.config, 0).new_cache(rows, length)

    def hidden(self, ids, cache):
        cache.advance(ids.shape[1])
        return torch.zeros(*ids.shape, 1)

    def head(self, hidden):
        return self.logits.expand(*hidden.shape[:-1], 20)


@pytest.mark.parametrize("texts", [80, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["look-up", "draft"])
def test_sampling_with_guesses_draws_from_the_same_distribution(kind, texts):
    """χ² of 20,000 tokens, or 100,000, 20 ids; the 99.9 % point of 19 degrees of freedom is 43.8."""
    torch.manual_seed(0)
    chances, others = (torch.rand(20).softmax(-1).double() for _ in range(2))
    guesses = Lookup(8) if kind == "look-up" else Draft(Fixed(others), 4)
    engine = Engine(Fixed(chances), options=Options(guesses=guesses))
    generators = row_generators(5, texts)
    found = finished(engine, *(Request((1, 2, 3) * 5, Sampling(1.0), 250, generator=one) for one in generators))
    drawn = torch.tensor([text.ids for text in found]).flatten()
    assert len(drawn) == 250 * texts and sum(text.taken for text in found) > 6 * texts
    counts = torch.bincount(drawn, minlength=20).double()
    expected = chances * len(drawn)
    assert ((counts - expected) ** 2 / expected).sum() < 43.8


def test_tokenizers_must_be_the_same():
    check_same_tokens(BYTES, learn("byte", ["y"], None))
    bpe = learn("bpe", [TEXT], 300)
    with pytest.raises(UserError, match="the draft's tokenizer has 300 ids, the model's 257: take a draft with the"):
        check_same_tokens(bpe, BYTES)
    with pytest.raises(UserError, match=r"the id \d+ is b'.*' to the draft's tokenizer, b'.*' to the model's: take"):
        check_same_tokens(learn("bpe", ["Other words, and others: other merges. " + TEXT.upper()], 300), bpe)
    with pytest.raises(UserError, match="the draft's folder holds no tokenizer"):
        check_same_tokens(None, BYTES)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Lookup(0), "must guess at least 1 token, not 0"),
        (lambda: Lookup(longest=0), "must compare at least 1 token, not 0"),
        (lambda: Draft(random_model("llama"), 0), "a draft must guess at least 1 token, not 0"),
        (lambda: Draft(random_model("lstm")), "must go back where it was wrong: an lstm cannot take back what it has"),
        (lambda: Draft(random_model("bert")), "must go back where it was wrong: a bert cannot write on"),
        (lambda: engine("lstm", Lookup()), "an lstm cannot take back what it"),
        (lambda: engine("t5", Draft(random_model("llama"))), "the family llama cannot draft for t5"),
        (lambda: engine("gpt2", Draft(random_model("t5"))), "the family t5 cannot draft for gpt2"),
        (
            lambda: engine("gpt2", Draft(random_model("gpt2", vocab=20))),
            f"knows 20 ids, but the model chooses among {VOCAB}",
        ),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong()


def engine(family, guesses):
    return Engine(random_model(family), options=Options(guesses=guesses))
