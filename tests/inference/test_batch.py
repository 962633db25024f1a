"""Continuous batching: every text is what it would be alone, whoever joins, leaves or is cancelled beside it."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from texts import VOCAB, assert_near, finished, noted, request, same

from wenlu.base.errors import UserError
from wenlu.inference.adjust import Adjustments
from wenlu.inference.batch import Engine, Options
from wenlu.inference.choose import NEAR
from wenlu.inference.constrain import Constrainer, Constraint
from wenlu.inference.kernels import fast
from wenlu.inference.prefix import BLOCK, PrefixCache
from wenlu.inference.reading import Reader, evaluating
from wenlu.inference.sample import Sampling, row_generators
from wenlu.inference.speculative import Lookup
from wenlu.inference.text import Request
from wenlu.models.config import ModelConfig
from wenlu.models.kernels import kernels as found_kernels

from small_models import BYTES, random_model

FAMILIES = ("lstm", "gpt2", "llama", "mistral", "qwen2", "qwen3", "t5")


OPTIONS = (Options(rows=6), Options(rows=6, guesses=Lookup(), chunk=11), Options(4, 1 << 20, chunk=20))
MIXES = [(family, options) for family in FAMILIES for options in OPTIONS if family != "lstm" or not options.guesses]


def mix(model, options, seed):
    """Requests that join, are cancelled and leave as a seed says, each then compared with itself alone: counts."""
    chance = random.Random(seed)
    waiting = [24 * seed + number for number in range(24)]
    engine, texts, cancelled, steps = Engine(model, options=options), {}, set(), 0
    while waiting or any(text.finish is None for text in texts.values()):
        for _ in range(chance.choice((0, 0, 1, 3)) if steps else 2):
            if waiting:
                number = waiting.pop()
                texts[number] = engine.add(request(number))
        going = [number for number, text in texts.items() if text.finish is None]
        if going and chance.random() < 0.1:
            number = chance.choice(going)
            texts[number].end()
            cancelled.add(number)
        engine.step()
        steps += 1
        assert len(engine.texts) <= options.rows
        assert not any(texts[number] in engine.texts for number in cancelled), "a cancelled text frees its row at once"
    counts = Counter(
        requests=len(texts), cancelled=len(cancelled), near_ties=sum(len(t.near_ties) for t in texts.values())
    )
    for number, text in texts.items():
        (alone,) = finished(Engine(model), request(number))
        counts["constrained"] += text.request.matcher is not None
        if number in cancelled:
            assert text.finish == "cancelled" and (text.ids == alone.ids[: len(text.ids)] or text.near_ties)
            continue
        counts["parted at a near-tie"] += not same(text, alone)
        if text.request.alternatives is not None and text.ids == alone.ids:
            assert text.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-4)
            assert all(len(best) == text.request.alternatives for best in text.alternatives)
    engine.step()
    assert not engine.texts
    return counts


@pytest.mark.parametrize("family, options", MIXES)
def test_mixes_of_requests_are_each_request_alone(family, options):
    counts = mix(random_model(family), options, 1)
    assert counts["cancelled"] and counts["constrained"] and counts["parted at a near-tie"] <= 2


@pytest.mark.slow
def test_two_hundred_mixes(kernel_cache):
    """The campaign, by kernels as commands have it; what it found is kept in benchmarks/results/mixes.json."""
    counts, mixes = Counter(), [(*one, seed) for one in MIXES for seed in range(2, 12)]
    for family, options, seed in mixes:
        with fast(random_model(family), measured=False) as model:
            counts += mix(model, options, seed)
    # Adding counters leaves out what is 0.
    found = {"mixes": len(mixes), "parted at a near-tie": 0, **counts}
    kernels_of = found_kernels()
    found |= {
        "kernels": kernels_of and kernels_of.identity,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "mixes.json"
    file.write_text(json.dumps(found, indent=1) + "\n")
    assert len(mixes) == 200 and counts["parted at a near-tie"] <= counts["near_ties"]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_beside_others_are_those_alone(family, monkeypatch):
    """ε = 1e-4 on the logits themselves, not only on what is chosen."""
    model, seen = random_model(family), noted(monkeypatch)
    requests = [replace(request(number, greedy=True), max_tokens=12, stop_ids=frozenset()) for number in range(5)]
    together = Engine(model)
    texts = [together.add(one) for one in requests[:3]]
    together.step()
    texts += [together.add(one) for one in requests[3:]]
    while together.step():
        pass
    for one, text in zip(requests, texts, strict=True):
        (alone,) = finished(Engine(model), one)
        assert_near(seen[text], seen[alone])


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen3"])
def test_many_prompts_are_read_a_few_rows_at_a_time(family, monkeypatch):
    model, prompts = random_model(family), [[(7 * row + column) % VOCAB for column in range(9)] for row in range(7)]
    reader = Reader(model)
    with evaluating(model):
        whole = reader.begin(prompts, 4)
        kept = [reader.cache.cut(row, 0, 9) for row in range(7)]
        monkeypatch.setattr("wenlu.inference.reading._AT_ONCE", 20 * model.config.ffn)
        seen, hidden = [], model.hidden
        monkeypatch.setattr(model, "hidden", lambda ids, **rest: seen.append(ids.shape) or hidden(ids, **rest))
        parted = Reader(model)
        assert_near(parted.begin(prompts, 4), whole)
        assert seen == [(2, 9)] * 3 + [(1, 9)]
        parted.open(prompts, 4)
        assert parted.read_on(5) is None and parted.cache.lengths == (5,) * 7
        assert_near(parted.read_on(4), whole)
        assert parted.cache.lengths == (9,) * 7
        for row, expected in enumerate(kept):
            assert_near(parted.cache.cut(row, 0, 9), expected)
        ids = torch.arange(7)[:, None]
        assert_near(parted.read(ids), reader.read(ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_invariant_gives_equal_bytes(family):
    model = random_model(family)
    alone = [finished(Engine(model, options=Options(batch_invariant=True)), request(n))[0] for n in range(8)]
    together = finished(Engine(model, options=Options(batch_invariant=True)), *(request(n) for n in range(8)))
    for text, other in zip(together, alone, strict=True):
        assert text.ids == other.ids and text.log_probabilities == other.log_probabilities


@pytest.mark.parametrize("family", FAMILIES)
def test_cancelling_leaves_mates_their_bytes_when_batch_invariant(family):
    model, options = random_model(family), Options(rows=6, batch_invariant=True, chunk=20)
    wanted = [replace(request(n), max_tokens=12, alternatives=0) for n in range(9)]
    alone = [finished(Engine(model, options=options), one)[0] for one in wanted]
    engine = Engine(model, options=options)
    texts = [engine.add(replace(request(n), max_tokens=12, alternatives=0)) for n in range(9)]
    for number in (0, 4, 8, 2):  # some that are written, others that are read or wait
        assert engine.step() and engine.step()
        texts[number].end()
    while engine.step():
        pass
    assert any(0 < len(texts[number].ids) < len(alone[number].ids) for number in (0, 4, 8, 2))
    for number in (1, 3, 5, 6, 7):
        assert texts[number].finish == alone[number].finish != "cancelled"
        assert texts[number].ids == alone[number].ids
        assert texts[number].log_probabilities == alone[number].log_probabilities


def test_prefixes_are_read_once_and_change_nothing(monkeypatch):
    model, read = random_model("qwen3"), []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, **rest: read.append(ids.shape[1]) or hidden(ids, **rest))
    system = tuple(range(40))
    engine = Engine(model, options=Options(prefix_bytes=1 << 20))
    first = finished(engine, Request((*system, 50), max_tokens=3))[0]
    assert read[0] == 41 and engine.prefixes.found == 0
    read.clear()
    second = finished(engine, Request((*system, 50), max_tokens=3))[0]
    assert read[0] == 41 - 2 * BLOCK and engine.prefixes.found == 2 * BLOCK
    assert second.ids == first.ids == finished(Engine(model), Request((*system, 50), max_tokens=3))[0].ids
    read.clear()
    finished(engine, Request((*system[:20], 1, 2, 3), max_tokens=1))
    assert read == [23 - BLOCK]


def test_prefixes_stay_within_their_bytes_and_the_oldest_goes():
    model = random_model("llama")
    one = 2 * 2 * 2 * BLOCK * 8 * 4  # layers, keys and values, kv_heads, tokens, head_dim, bytes
    engine = Engine(model, options=Options(prefix_bytes=3 * one))
    prompts = [tuple((start + n) % VOCAB for n in range(2 * BLOCK + 1)) for start in (0, 20, 40)]
    for prompt in prompts:
        finished(engine, Request(prompt, max_tokens=1))
        assert engine.prefixes.bytes <= 3 * one
    assert len(engine.prefixes.find(prompts[2])) == 2
    assert len(engine.prefixes.find(prompts[1])) == 1, "of a text, what comes first is given up last"
    assert len(engine.prefixes.find(prompts[0])) == 0


def test_chains_of_prefixes_stay_right_and_within_their_bytes_at_every_moment():
    chance, found, most = random.Random(3), Counter(), 7
    prefixes = PrefixCache(most * BLOCK * 8)

    def told(ids, number):
        """Instead of keys and values, the whole text up to a block's end."""
        return torch.tensor([hash(tuple(ids[: (number + 1) * BLOCK]))] * BLOCK)

    class Read:
        token_bytes = 8

        def __init__(self, ids):
            self.ids = ids

        def cut(self, row, start, end):
            assert prefixes.bytes + BLOCK * 8 <= prefixes.room, "there is room before a block is copied"
            return told(self.ids, start // BLOCK)

    parts = [tuple(chance.randrange(9) for _ in range(BLOCK)) for _ in range(3)]
    for _ in range(3000):
        ids = [id for _ in range(chance.choice((0, 1, 2, 3, 5, 12))) for id in chance.choice(parts)]
        ids += [0] * chance.randrange(1, BLOCK)
        if chance.random() < 0.5:
            prefixes.add(ids, Read(ids), 0)
            assert len(prefixes.find(ids)) == min(most, len(ids) // BLOCK), "of this text as much as there is room for"
        for number, block in enumerate(prefixes.find(ids)):
            assert torch.equal(block, told(ids, number))
            found[number] += 1
        held = prefixes._blocks
        assert prefixes.bytes == sum(block.kept.nbytes for block in held.values()) <= prefixes.room
        assert {before for before, _ in held} <= {0, *(block.number for block in held.values())}, "none is orphaned"
        assert all(len(own) == BLOCK for _, own in held), "a name does not grow with the text before it"
    assert found[0] > found[6] > 100


def test_prefixes_are_given_up_where_the_weights_have_changed():
    model, ids = random_model("llama"), tuple(range(2 * BLOCK + 5))
    engine = Engine(model, options=Options(prefix_bytes=1 << 20, chunk=BLOCK))

    def written():
        (text,) = finished(engine, Request(ids, max_tokens=12, alternatives=0))
        (fresh,) = finished(Engine(model), Request(ids, max_tokens=12, alternatives=0))
        assert text.log_probabilities == pytest.approx(fresh.log_probabilities, abs=1e-4) and same(text, fresh)
        return engine.prefixes.found

    def trained():
        with torch.no_grad():
            model.blocks[0].attention.qkv.weight.mul_(-1)

    assert (written(), written()) == (0, 2 * BLOCK)
    trained()
    assert (written(), written()) == (2 * BLOCK, 4 * BLOCK), "read anew, and kept anew"
    model.embed.weight = torch.nn.Parameter(model.embed.weight + 1)
    assert written() == 4 * BLOCK
    model.embed.weight = torch.nn.Parameter(model.embed.weight - 1)
    text = engine.add(Request(ids, max_tokens=1))
    engine.step()
    trained()
    while engine.step():
        pass
    assert text.finish == "length" and engine.prefixes.bytes == 0, "half of it was read by other weights"
    assert written() == 4 * BLOCK


def test_a_waiting_text_can_be_cancelled_and_rows_are_bounded():
    model = random_model("llama")
    engine = Engine(model, options=Options(rows=1))
    first, second, third = (engine.add(Request((n,), max_tokens=4)) for n in (1, 2, 3))
    engine.step()
    assert engine.texts == [first]
    second.end()
    while engine.step():
        assert len(engine.texts) == 1
    assert (second.ids, second.finish) == ([], "cancelled") and third.finish == "length"
    assert engine.bytes > 0


def test_a_penalty_and_a_bias_do_what_they_say():
    model = random_model("llama")
    (free,) = finished(Engine(model), Request((1, 2, 3), max_tokens=20))
    barred = Adjustments(logit_bias=tuple((id, -float("inf")) for id in range(VOCAB) if id not in (7, 8)))
    (two,) = finished(Engine(model), Request((1, 2, 3), max_tokens=20, adjustments=barred))
    assert set(two.ids) <= {7, 8}
    wide = Adjustments(presence_penalty=1e4)
    (never_twice,) = finished(Engine(model), Request((1, 2, 3), max_tokens=20, adjustments=wide))
    assert len(set(never_twice.ids)) == 20 > len(set(free.ids))
    logits = torch.tensor([2.0, -2.0, 1.0, 0.5])
    changed = Adjustments(2.0, 0.5, 0.25, ((3, 1.0),)).applied(logits, [0, 1], [2, 2])
    assert changed.tolist() == [1.0, -4.0, 0.5 - 0.5 - 0.5, 1.5] and logits[0] == 2


def test_a_bias_of_an_unknown_id_is_refused():
    request = Request((1,), adjustments=Adjustments(logit_bias=((999, 1.0),)))
    with pytest.raises(UserError, match=f"logit_bias names the id 999, but there are {VOCAB} only"):
        Engine(random_model("llama")).add(request)


def test_a_near_tie_is_counted():
    class Tied(torch.nn.Linear):
        config = ModelConfig("lstm", dim=8, heads=1, vocab=4)

        def new_cache(self, rows, length):
            return None

        def hidden(self, ids, cache):
            return torch.zeros(*ids.shape, 1)

        def head(self, hidden):
            return torch.tensor([0.0, 1.0, 1.0 + NEAR / 2, -1.0]).expand(*hidden.shape[:-1], 4)

    (text,) = finished(Engine(Tied(1, 1)), Request((1,), max_tokens=5))
    assert text.near_ties == [0, 1, 2, 3, 4] and text.ids == [2] * 5


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Options(rows=0), "needs room for at least 1 text, not 0"),
        (lambda: Options(prefix_bytes=-1), "room of a prefix cache must be 0 bytes .none. or more, not -1"),
        (lambda: PrefixCache(-5), "must be 0 bytes"),
        (lambda: Engine(random_model("llama")).add(Request(())), "cannot begin from nothing"),
        (lambda: Engine(random_model("llama")).add(Request((1, VOCAB))), f"holds the id {VOCAB}, but this model knows"),
        (lambda: Engine(random_model("llama")).add(Request((-1,))), "holds the id -1"),
        (lambda: Engine(random_model("llama")).add(Request((1,), max_tokens=0)), "max_tokens must be at least 1"),
        (lambda: Adjustments(0), "repetition_penalty must be a positive number, 1 for none, not 0"),
        (lambda: Adjustments(presence_penalty=float("nan")), "presence_penalty must be a number, 0 for none"),
        (lambda: Adjustments(frequency_penalty=float("inf")), "frequency_penalty must be a number, 0 for none"),
        (lambda: Adjustments(logit_bias=((1, float("nan")),)), "logit_bias holds 1: nan"),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong()


@pytest.mark.parametrize(
    "family, guesses",
    [("lstm", None), *((family, guesses) for family in FAMILIES[1:] for guesses in (None, Lookup(3)))],
)
def test_a_text_whose_logits_are_not_finite_ends_alone(family, guesses):
    """A token that the model has no numbers for: those who read it fail, whenever that is; their mates, also those that
    come to lie where they lay, do not notice."""
    model = random_model(family)
    plain = [Request(tuple(range(n, 2 * n)), max_tokens=10 + n) for n in (3, 5, 9, 4, 8, 6)]
    known = finished(Engine(model), *plain)
    used = {0, 1, 2, 5, *(id for text in known for id in (*text.request.ids, *text.ids))}
    bad = next(id for id in range(VOCAB) if id not in used)
    with torch.no_grad():
        model.embed.weight[bad] = float("nan")
    forced = Adjustments(logit_bias=((bad, 1e6),))
    engine = Engine(model, options=Options(rows=4, guesses=guesses))
    in_prompt = Request((1, bad, 2, 5), max_tokens=9)
    written = Request((1, 2, 5), max_tokens=9, adjustments=forced)
    texts = finished(engine, plain[0], in_prompt, plain[1], written, *plain[2:4], in_prompt, *plain[4:])
    failed = [texts[1], texts[3], texts[6]]
    for text in failed:
        assert text.finish == "error" and "logits are not finite" in str(text.error)
    assert [len(text.ids) for text in failed] == [0, 1, 0]
    mates = [text for text in texts if text not in failed]
    assert all(same(text, alone) and not text.error for text, alone in zip(mates, known, strict=True))


def test_a_text_with_no_token_left_to_choose_ends_alone():
    model = random_model("llama")
    none = Adjustments(logit_bias=tuple((id, -float("inf")) for id in range(VOCAB)))
    fine = [Request((1, n), Sampling(1.0), 12, generator=row_generators(n, 1)[0]) for n in range(3)]
    barred = Request((1, 9), Sampling(1.0), 12, generator=row_generators(9, 1)[0], adjustments=none)
    texts = finished(Engine(model), fine[0], barred, *fine[1:])
    fine = [replace(one, generator=row_generators(n, 1)[0]) for n, one in enumerate(fine)]
    assert texts[1].finish == "error" and "no token is left to choose" in str(texts[1].error)
    for text, one in zip([texts[0], *texts[2:]], fine, strict=True):
        assert same(text, finished(Engine(model), one)[0])


def test_a_constraint_that_cannot_be_kept_ends_its_text_alone():
    model = random_model("llama")
    held = request(0)
    dead = Constrainer(BYTES, VOCAB, [BYTES.eos_id]).matcher(Constraint("regex", "ab"))

    def lost():
        raise UserError("the regex cannot be kept")

    dead.allowed = lost
    texts = finished(Engine(model), replace(held, matcher=dead), Request((1, 2), max_tokens=5))
    assert (texts[0].finish, str(texts[0].error)) == ("error", "the regex cannot be kept")
    assert texts[1].finish == "length" and texts[1].error is None


def test_a_text_that_is_cancelled_while_a_step_is_made_stays_so():
    """By another thread, or since its stream was dropped just then."""
    held = Constrainer(BYTES, VOCAB, [BYTES.eos_id]).matcher(Constraint("regex", "[ab]{9}"))
    engine, push = Engine(random_model("llama")), held.push
    text = engine.add(Request((1, 2), matcher=held, stop_ids=frozenset([BYTES.eos_id])))
    held.push = lambda token: (push(token), text.end())
    assert not engine.step() and text.finish == "cancelled"
    assert not engine.step() and not engine.texts and engine.bytes == 0


def test_a_t5_that_cannot_begin_is_refused_before_anything_is_written():
    model = random_model("t5")
    model.config = replace(model.config, pad_id=None)
    with pytest.raises(UserError, match="t5's decoder begins with the padding token"):
        Engine(model)
