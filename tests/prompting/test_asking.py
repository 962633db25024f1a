"""Scores of many examples by a model: equal to those asked one by one, and nothing asked twice."""

import pytest

from wenlu.base.errors import UserError
from wenlu.inference.score import Scorer
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.prompting.asking import readings
from wenlu.prompting.backend import FolderBackend
from wenlu.prompting.calibrate import PMI, Batch, Channel, Contextual, PerByte, PerToken, Sum, chosen
from wenlu.prompting.demonstrations import Demonstrations
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template, as_chat
from wenlu.tokenization.chat_format import with_template
from wenlu.tokenization.learn import learn

TEMPLATE = Template(question="the {{ x }} 在", instruction="猫")
EXAMPLES = [Example(str(n), {"x": "cat mat sat"[: 2 + n]}, (" on", "坐在"), n % 2) for n in range(6)]
SCORES = [Sum(), PerToken(), PerByte(), PMI("the"), Contextual(("", "on")), Batch(), Channel()]


class Counting(FolderBackend):
    def score(self, queries, advance=None):
        self.asked = list(queries)
        return super().score(queries, advance)


@pytest.fixture(scope="module")
def backend(shaken):
    tokenizer = with_template(learn("char", ["the cat sat on the mat. 猫坐在垫子上。"]))[0]
    shape = dict(dim=16, layers=1, heads=2, context=128)
    config = ModelConfig("llama", **shape, vocab=tokenizer.vocab, eos_id=tokenizer.eos_id)
    return Counting((shaken(build(config, 0)), tokenizer))


def test_equal_to_asking_one_by_one_and_nothing_twice(backend):
    choose = Demonstrations("random", 1).over(EXAMPLES)
    found = readings(backend, SCORES, TEMPLATE, EXAMPLES, choose)
    assert len(set(backend.asked)) == len(backend.asked)
    assert sum(one.prefix == "the" for one in backend.asked) == 1, "the premise is the same for all"
    alone = Scorer(backend.model, backend.tokenizer)
    for score in SCORES:
        for example, reading in zip(EXAMPLES, found[score.name], strict=True):
            for ask, scores in zip(score.asks(TEMPLATE, example, choose(example)), reading.scores, strict=True):
                naive = alone.score(ask.prompt, ask.continuations)
                values = [one.log_probability for one in scores]
                assert values == pytest.approx([one.log_probability for one in naive], abs=1e-4)
        assert len(chosen(score.values(found[score.name]))) == 6


def test_in_a_conversation_the_answer_begins_the_assistants_part(backend):
    found = readings(backend, [Sum(), PMI("on")], as_chat(TEMPLATE), EXAMPLES)
    assert found["sum"][0].continuations == (" on", "坐在") and len(found["pmi"][0].scores) == 2
    assert all(isinstance(one.prefix, tuple) for one in backend.asked)


def test_refused(backend):
    with pytest.raises(UserError, match="example f has no choices"):
        readings(backend, [Sum()], TEMPLATE, [Example("f", {"x": "cat"}, answers=("mat",))])
    assert readings(backend, [Sum()], TEMPLATE, []) == {"sum": []}
