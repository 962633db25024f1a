"""Long prompts are read in parts, beside texts that are written meanwhile."""

import random
from dataclasses import replace

import pytest
from texts import VOCAB, assert_near, finished, noted

from wenlu.base.errors import UserError
from wenlu.inference.batch import Engine, Options
from wenlu.inference.prefix import BLOCK
from wenlu.inference.sample import Sampling, row_generators
from wenlu.inference.text import Request

from small_models import random_model

FAMILIES = ("lstm", "gpt2", "llama", "mistral", "qwen2", "qwen3", "t5")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_read_in_parts_is_the_prompt_read_whole(family, monkeypatch):
    """The same logits, also beside texts that are written meanwhile, and from a prefix that was read in parts."""
    model, seen = random_model(family), noted(monkeypatch)
    chance = random.Random(5)
    long = tuple(chance.randrange(VOCAB) for _ in range(61))
    wanted = [Request(ids, max_tokens=6) for ids in ((1, 2), long, long[:40], long[:40], long[::-1])]
    whole = [finished(Engine(model, options=Options(chunk=10_000)), one)[0] for one in wanted]
    for options in (Options(chunk=7), Options(chunk=1), Options(chunk=20, prefix_bytes=1 << 20)):
        engine = Engine(model, options=options)
        for text, alone in zip(finished(engine, *wanted, *wanted[1:2]), [*whole, whole[1]], strict=True):
            assert text.ids == alone.ids
            assert_near(seen[text], seen[alone])


def lengths_read(model, monkeypatch):
    """Tokens of each reading of the model, from now on, as (rows, new)."""
    read, hidden = [], model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, **rest: read.append(tuple(ids.shape)) or hidden(ids, **rest))
    return read


def test_texts_go_on_while_a_long_prompt_is_read(monkeypatch):
    model = random_model("llama", context=512)
    read = lengths_read(model, monkeypatch)
    engine = Engine(model, options=Options(chunk=16))
    first = engine.add(Request((1, 2), max_tokens=100))
    engine.step()
    long = engine.add(Request(tuple(range(3, 203)), max_tokens=5))
    assert len(long.request.ids) == 200
    for step in range(12):
        engine.step()
        assert len(first.ids) == step + 2 and not long.ids
        assert engine.texts == [first] and engine.bytes > 0
    engine.step()
    assert len(first.ids) == 14 and len(long.ids) == 1 and engine.texts == [first, long]
    assert max(rows * new for rows, new in read) == 16


def test_what_a_step_reads_is_bounded_for_many_prompts_too(monkeypatch):
    model = random_model("llama")
    read = lengths_read(model, monkeypatch)
    prompts = [tuple((start + n) % VOCAB for n in range(12)) for start in range(10)]
    finished(Engine(model, options=Options(chunk=40)), *(Request(prompt, max_tokens=2) for prompt in prompts * 2))
    whole = [shape for shape in read if shape[1] > 1]
    assert whole == [(3, 12), (3, 12), (3, 12), (1, 12)], "each prompt once, as many together as a step may read"


def test_prompts_that_begin_alike_are_read_one_after_the_other_others_together(monkeypatch):
    model = random_model("llama")
    read = lengths_read(model, monkeypatch)
    engine = Engine(model, options=Options(prefix_bytes=1 << 20))
    short, apart = [(n, 1, 2) for n in range(4)], [tuple(range(n, n + 20)) for n in range(4)]
    alike = [(*range(100, 100 + BLOCK), n) for n in range(3)]
    finished(engine, *(Request(ids, max_tokens=1) for ids in (*short, *apart, *alike)))
    assert read == [(4, 3), (4, 20), (1, BLOCK + 1), (1, 1), (1, 1)]
    read.clear()
    finished(engine, *(Request((*ids[:BLOCK], 7, 8, 9), max_tokens=1) for ids in apart))
    assert read == [(1, 3)] * 4, "what was read together is kept too"
    read.clear()
    finished(engine, *(Request((*apart[0][:BLOCK], *range(n, n + BLOCK + 1)), max_tokens=1) for n in range(4)))
    assert read == [(4, 2 * BLOCK + 1)], "together, where less than half of each is kept"


@pytest.mark.parametrize("family", ["llama", "lstm"])
def test_cancelling_a_text_whose_prompt_is_being_read_frees_it(family):
    model = random_model(family)
    engine = Engine(model, options=Options(chunk=20))
    texts = [engine.add(Request(tuple(range(start, start + 60)), max_tokens=2)) for start in (1, 2, 3)]
    engine.step()
    assert engine.bytes > 0
    texts[0].end()
    assert engine.step()
    texts[1].end()
    texts[2].end()
    assert not engine.step() and engine.bytes == 0 and not engine.texts


def test_texts_are_begun_in_the_order_in_which_they_came():
    model = random_model("llama")
    engine = Engine(model, options=Options(rows=2, chunk=8))
    texts = [engine.add(Request(tuple(range(1, 2 + n)), max_tokens=3)) for n in (5, 30, 2, 5)]
    begun = []
    while engine.step():
        begun += [number for number, text in enumerate(texts) if text.ids and number not in begun]
    assert begun == [0, 1, 2, 3]


def test_a_prompt_is_cut_alike_whoever_is_read_beside_it():
    """So `batch_invariant` holds for long prompts too."""
    model, options = random_model("llama"), Options(batch_invariant=True, chunk=16)
    long = Request(tuple(range(70)), Sampling(1.0), 10, alternatives=0)
    alone = finished(Engine(model, options=options), replace(long, generator=row_generators(1, 1)[0]))[0]
    others = [Request(tuple(range(n, n + 9)), max_tokens=9) for n in range(3)]
    texts = finished(Engine(model, options=options), *others, replace(long, generator=row_generators(1, 1)[0]))
    assert texts[-1].log_probabilities == alone.log_probabilities


def test_refusals():
    with pytest.raises(UserError, match="must read at least 1 token of a prompt at once, not 0"):
        Options(chunk=0)
    with pytest.raises(UserError, match="prefixes that others have read change the bytes of a text"):
        Options(batch_invariant=True, prefix_bytes=1)
