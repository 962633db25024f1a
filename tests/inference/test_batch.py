"""Continuous batching: every text is what it would be alone, whoever joins, leaves or is cancelled beside it."""

import json
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.inference.adjust import Adjustments
from wenlu.inference.batch import Engine, Options
from wenlu.inference.choose import NEAR, go_on
from wenlu.inference.constrain import Constrainer, Constraint
from wenlu.inference.prefix import BLOCK, PrefixCache
from wenlu.inference.sample import Greedy, Sampling, row_generators
from wenlu.inference.speculative import Lookup
from wenlu.inference.text import Request
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn

FAMILIES = ("lstm", "gpt2", "llama", "mistral", "qwen2", "qwen3", "t5")
TOKENIZER = learn("byte", ["x"], None)
VOCAB = TOKENIZER.vocab
CONSTRAINTS = (Constraint("regex", "[a-c]{2,12}(你|好)?"), Constraint("choices", ("yes", "no", "你好")))


def random_model(family, context=96):
    """All weights random, so that no layer is passed over and texts do not just repeat."""
    more = {"kv_heads": 2} if family in ("llama", "mistral", "qwen2", "qwen3") else {}
    more |= {"window": 9} if family == "mistral" else {"pad_id": 0} if family == "t5" else {}
    config = ModelConfig(family, dim=32, layers=2, heads=4, context=context, vocab=VOCAB, tied=False, **more)
    model, generator = build(config, 0), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = parameter.ndim == 1 and "norm" in name and not name.endswith("bias")
            parameter.normal_(0.5 if gain else 0.0, 0.3, generator=generator)
    return model.eval()


def request(number, *, greedy=None):
    """A request that is the same whenever it is made, of a kind that depends on its number."""
    held = random.Random(-number).choice((*CONSTRAINTS, None, None, None, None)) if not greedy else None
    chance = random.Random(number)
    ids = tuple(chance.randrange(VOCAB) for _ in range(chance.choice((1, 2, 5, 5, 17, 33))))
    repeated = ids * 2 if chance.random() < 0.3 else ids
    strategies = (Greedy(), Sampling(1.0), Sampling(0.7, top_k=9), Sampling(1.3, top_p=0.9, min_p=0.01))
    adjustments = (Adjustments(), Adjustments(1.2, 0.1, 0.2), Adjustments(logit_bias=((3, -float("inf")), (5, 2.0))))
    constrainer = Constrainer(TOKENIZER, VOCAB, [TOKENIZER.eos_id])
    return Request(
        repeated,
        Greedy() if greedy else chance.choice(strategies),
        chance.randint(1, 30),
        frozenset([TOKENIZER.eos_id] if held else chance.sample(range(VOCAB), chance.choice((0, 5, 20)))),
        row_generators(number, 1)[0],
        chance.choice(adjustments),
        held and constrainer.matcher(held),
        alternatives=chance.choice((None, 0, 3)),
    )


def finished(engine, *requests):
    texts = [engine.add(request) for request in requests]
    while engine.step():
        pass
    return texts


def same(text, alone):
    """Ids and ending are equal, or part at a near-tie; whether they are equal."""
    pairs = list(zip(text.ids, alone.ids))
    first = next((place for place, (a, b) in enumerate(pairs) if a != b), None)
    if first is None and (len(text.ids), text.finish) == (len(alone.ids), alone.finish):
        return True
    place = min(len(text.ids), len(alone.ids)) if first is None else first
    assert place in {*text.near_ties, *alone.near_ties}, f"texts part at {place} without a near-tie"
    return False


OPTIONS = (Options(rows=6), Options(rows=6, guesses=Lookup()), Options(4, 1 << 20))


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
def test_two_hundred_mixes():
    """The campaign; what it found is kept in benchmarks/results/mixes.json."""
    counts, mixes = Counter(), [(*one, seed) for one in MIXES for seed in range(2, 12)]
    for family, options, seed in mixes:
        counts += mix(random_model(family), options, seed)
    found = {"mixes": len(mixes), **counts, "threads": torch.get_num_threads(), "torch": torch.__version__}
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


def noted(monkeypatch):
    """The logits that each text's tokens are chosen from, from now on."""
    seen = defaultdict(list)

    def note(texts, logits):
        for text, row in zip(texts, logits, strict=True):
            seen[text].append(row)
        go_on(texts, logits)

    monkeypatch.setattr("wenlu.inference.batch.go_on", note)
    return seen


def assert_near(these, those, epsilon=1e-4):
    for a, b in zip(these, those, strict=True):
        assert (a - b).abs().max() < epsilon


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_invariant_gives_equal_bytes(family):
    model = random_model(family)
    alone = [finished(Engine(model, options=Options(batch_invariant=True)), request(n))[0] for n in range(8)]
    together = finished(Engine(model, options=Options(batch_invariant=True)), *(request(n) for n in range(8)))
    for text, other in zip(together, alone, strict=True):
        assert text.ids == other.ids and text.log_probabilities == other.log_probabilities


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "t5"])
def test_guesses_change_nothing_and_save_readings(family, monkeypatch):
    model, read, hidden = random_model(family), [], None
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda *ids, **rest: read.append(1) or hidden(*ids, **rest))
    prompt = (3, 1, 4) * 6
    wanted = [Request(prompt, max_tokens=50), Request(prompt, Sampling(0.3), 50, generator=row_generators(0, 1)[0])]
    plain = finished(Engine(model), *wanted)
    steps = len(read)
    wanted[1] = replace(wanted[1], generator=row_generators(0, 1)[0])
    guessed = finished(Engine(model, options=Options(guesses=Lookup(5))), *wanted)
    assert all(same(text, other) for text, other in zip(guessed, plain, strict=True))
    assert len(read) - steps < steps


def test_sampling_with_guesses_draws_from_the_same_distribution():
    """χ² of 10⁵ tokens, 20 ids; the 99.9 % point of 19 degrees of freedom is 43.8."""
    torch.manual_seed(0)
    chances = torch.rand(20).softmax(-1).double()

    class Fixed(torch.nn.Linear):
        config = ModelConfig("llama", dim=8, heads=2, vocab=20)

        def new_cache(self, rows, length):
            return build(self.config, 0).new_cache(rows, length)

        def hidden(self, ids, cache):
            cache.advance(ids.shape[1])
            return torch.zeros(*ids.shape, 1)

        def head(self, hidden):
            return chances.log().float().expand(*hidden.shape[:-1], 20)

    engine = Engine(Fixed(1, 1), options=Options(guesses=Lookup(8)))
    texts = finished(
        engine, *(Request((1, 2, 3) * 5, Sampling(1.0), 2_000, generator=g) for g in row_generators(5, 50))
    )
    drawn = torch.tensor([text.ids for text in texts]).flatten()
    assert len(drawn) == 100_000
    counts = torch.bincount(drawn, minlength=20).double()
    expected = chances * len(drawn)
    assert ((counts - expected) ** 2 / expected).sum() < 43.8


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
        (lambda: Lookup(0), "must guess at least 1 token, not 0"),
        (lambda: Lookup(longest=0), "must compare at least 1 token, not 0"),
        (lambda: Engine(random_model("lstm"), options=Options(guesses=Lookup())), "an lstm cannot take back what it"),
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
