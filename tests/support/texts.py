"""Requests of all kinds, and texts compared with what they would be alone, for tests."""

import random
from collections import defaultdict

from wenlu.inference.adjust import Adjustments
from wenlu.inference.choose import go_on
from wenlu.inference.constrain import Constrainer, Constraint
from wenlu.inference.sample import Greedy, Sampling, row_generators
from wenlu.inference.text import Request

from small_models import BYTES

VOCAB = BYTES.vocab
CONSTRAINER = Constrainer(BYTES, VOCAB, [BYTES.eos_id])
CONSTRAINTS = (Constraint("regex", "[a-c]{2,12}(你|好)?"), Constraint("choices", ("yes", "no", "你好")))


def request(number, *, greedy=None):
    """A request that is the same whenever it is made, of a kind that depends on its number."""
    held = random.Random(-number).choice((*CONSTRAINTS, None, None, None, None)) if not greedy else None
    chance = random.Random(number)
    ids = tuple(chance.randrange(VOCAB) for _ in range(chance.choice((1, 2, 5, 5, 17, 33))))
    repeated = ids * 2 if chance.random() < 0.3 else ids
    strategies = (Greedy(), Sampling(1.0), Sampling(0.7, top_k=9), Sampling(1.3, top_p=0.9, min_p=0.01))
    adjustments = (Adjustments(), Adjustments(1.2, 0.1, 0.2), Adjustments(logit_bias=((3, -float("inf")), (5, 2.0))))
    return Request(
        repeated,
        Greedy() if greedy else chance.choice(strategies),
        chance.randint(1, 30),
        frozenset([BYTES.eos_id] if held else chance.sample(range(VOCAB), chance.choice((0, 5, 20)))),
        row_generators(number, 1)[0],
        chance.choice(adjustments),
        held and CONSTRAINER.matcher(held),
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
