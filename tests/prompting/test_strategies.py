"""Ways to answer: what each writes, what it costs, and that none passes its budget."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.hub.folder import load, save
from wenlu.inference.generator import Settings
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.prompting.answers import Extractor
from wenlu.prompting.backend import Failed, FolderBackend
from wenlu.prompting.examples import Example
from wenlu.prompting.strategies import (
    STEP_BY_STEP,
    ChainOfThought,
    Direct,
    LeastToMost,
    ReasonThenConstrain,
    SelfConsistency,
    read_strategy,
    smaller_questions,
    write_strategy,
)
from wenlu.prompting.template import Template, as_chat
from wenlu.prompting.writing import Form, Question, Terms, majority, question
from wenlu.tokenization.chat_format import with_template
from wenlu.tokenization.learn import learn

NUMBER = Extractor("number")


@dataclass(frozen=True)
class Said:
    text: str
    tokens: int | None
    finish: str = "stop"
    error: str = ""


class Actor:
    """Says what it is told to, a token a character, cut where it must be."""

    name = "an actor"

    def __init__(self, says, told=True):
        self.says, self.told, self.calls = says, told, []

    def generate(self, prompts, settings):
        found = []
        for prompt in prompts:
            self.calls.append((prompt, settings))
            whole = self.says(prompt, settings)
            text = whole[: settings.max_tokens]
            finish = "stop" if text == whole else "length"
            found.append(Said(text, len(text) if self.told else None, finish))
        return found


def test_directly_and_after_thinking():
    actor = Actor(lambda prompt, settings: " So 4." if STEP_BY_STEP in str(prompt) else " 5")
    questions = [Question("2 + 2 ="), Question("1 + 3 =")]
    direct = Direct().answer(actor, questions, Terms(10, NUMBER))
    assert [a.value for a in direct.answers] == ["5", "5"] and direct.tokens == 4 and direct.missing == 0
    thought = ChainOfThought().answer(actor, questions, Terms(10, NUMBER))
    assert [a.value for a in thought.answers] == ["4", "4"] and actor.calls[-1][0] == "1 + 3 =" + STEP_BY_STEP
    assert all(settings.temperature == 0 for _, settings in actor.calls)
    assert thought.said == (
        "chain_of_thought: 12 tokens for 2 questions, at most 10 each; 0 without an answer, 0 texts cut by the budget"
    )


def test_most_voices_decide():
    actor = Actor(lambda prompt, settings: [" 4", " 5", " 5", " hm", " 4!"][settings.seed - 7])
    found = SelfConsistency(trigger="").answer(actor, [Question("?")], Terms(50, NUMBER, Settings(seed=7)))
    (answer,) = found.answers
    assert answer.value == "4" and answer.agreement == 2 / 5 and answer.text == " 4" and len(answer.texts) == 5
    assert {s.max_tokens for _, s in actor.calls} == {10} and {s.temperature for _, s in actor.calls} == {0.7}
    silent = SelfConsistency(2).answer(Actor(lambda p, s: "hm"), [Question("?")], Terms(50, NUMBER))
    assert silent.answers[0].value is None and silent.missing == 1 and silent.answers[0].agreement == 0


@pytest.mark.parametrize("strategy", [SelfConsistency(3), LeastToMost(), ReasonThenConstrain(Form("regex", "x"))])
def test_a_question_of_which_a_text_failed_has_no_answer_and_the_others_have(strategy):
    """Of some voices or steps alone it would be another strategy's."""

    class Breaking(Actor):
        def generate(self, prompts, settings):
            found = super().generate(prompts, settings)
            if len(self.calls) <= len(prompts):
                return found
            return [
                Said("", None, "error", "said 400") if "bad" in str(p) else one
                for p, one in zip(prompts, found, strict=True)
            ]

    actor = Breaking(lambda prompt, settings: "x 4\n")
    found = strategy.answer(actor, [Question("good"), Question("bad"), Question("fine")], Terms(99, NUMBER))
    assert [bool(one.failed) for one in found.answers] == [False, True, False]
    assert found.failed == 1 and found.answers[1].value is None and found.said.endswith(", 1 failed")
    assert len(found.answers[0].texts) > len(found.answers[1].texts) == 1
    assert sum("bad" in str(prompt) for prompt, _ in actor.calls) == 2, "what has failed is not gone on with"


def test_where_all_of_one_kind_fail_the_others_go_on():
    class Refusing(Actor):
        def generate(self, prompts, settings):
            if settings.constraint is not None and "b" in str(settings.constraint):
                raise Failed("said 400")
            return super().generate(prompts, settings)

    asked = [Question("1", ("a", "c")), Question("2", ("b", "c"))]
    found = Direct(Form("choices")).answer(Refusing(lambda p, s: "a"), asked, Terms(9, Extractor("choice")))
    assert [(one.value, one.failed) for one in found.answers] == [("a", ""), (None, "said 400")]


@given(st.lists(st.sampled_from(["a", "b", None])))
def test_majority_is_that_of_the_voices(values):
    value, count = majority(values)
    counts = [values.count(one) for one in ("a", "b")]
    assert count == max(counts) and (value is None) == (count == 0)
    assert value is None or counts[0] != counts[1] or value == next(v for v in values if v)


def test_by_steps_each_with_those_before_it():
    def says(prompt, settings):
        if prompt.endswith("one a line:\n"):
            return "1. How many cats?\n2) How many dogs?\n"
        return {"cats?": "Two.", "dogs?": "Three."}.get(prompt.split()[-1], " 5.")

    actor = Actor(says)
    (answer,) = LeastToMost(share=0.5).answer(actor, [Question("How many animals?")], Terms(100, NUMBER)).answers
    assert answer.value == "5" and answer.texts[1:] == ("Two.", "Three.", " 5.")
    assert actor.calls[-1][0] == (
        "How many animals?\n\nHow many cats?\nTwo.\n\nHow many dogs?\nThree.\n"
        "Therefore, the answer to the first question is"
    )
    assert answer.tokens == sum(map(len, answer.texts)) and smaller_questions("一、甲？\n- 乙？\n\n") == [
        "甲？",
        "乙？",
    ]


def test_in_a_conversation_steps_are_turns():
    actor = Actor(lambda prompt, settings: "x")
    asked = Question(({"role": "user", "content": "Q"},), ("x", "y"), ("x", "y"))
    ReasonThenConstrain().answer(actor, [asked], Terms(50, Extractor("choice")))
    first, last = actor.calls[0][0], actor.calls[1][0]
    assert [m["role"] for m in last] == ["user", "assistant", "user"] and first[0][
        "content"
    ] == "Q\n" + STEP_BY_STEP.strip()
    assert last[-1]["content"] == "Therefore, the answer is" and actor.calls[1][1].constraint.source == ("x", "y")
    LeastToMost().answer(actor, [asked], Terms(50))
    assert [m["role"] for m in actor.calls[-1][0]] == ["user", "assistant", "user"]


ALL = [
    Direct(), ChainOfThought(), SelfConsistency(3), LeastToMost(), LeastToMost(most=5, share=0.9),
    ReasonThenConstrain(Form("regex", "[0-9]+"), answer_tokens=4),
]  # fmt: skip


@given(st.sampled_from(ALL), st.integers(8, 40), st.integers(0, 60), st.booleans())
def test_no_budget_is_passed_and_every_token_counted(strategy, budget, length, told):
    actor = Actor(lambda prompt, settings: ("a 3? " * 20)[:length], told)
    found = strategy.answer(actor, [Question("x"), Question("y")], Terms(budget, NUMBER))
    assert all(answer.tokens <= budget for answer in found.answers)
    if told:
        assert found.tokens == sum(len(text) for answer in found.answers for text in answer.texts)
        assert found.untold == 0
    else:
        assert found.untold == len(actor.calls) and "of unknown length" in found.said
    assert found.cut == sum(length > settings.max_tokens for _, settings in actor.calls)


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.name)
def test_more_tokens_than_asked_for_are_taken_for_the_most(strategy):
    """As by a server that counts thoughts too."""

    class Thinker(Actor):
        def generate(self, prompts, settings):
            return [Said(one.text, 10_000) for one in super().generate(prompts, settings)]

    actor = Thinker(lambda prompt, settings: "答案是 3")
    found = strategy.answer(actor, [Question("x")], Terms(30, NUMBER))
    assert found.untold == len(actor.calls) and 0 < found.tokens <= 30 and "of unknown length" in found.said


def test_stop_texts_are_left_out_under_a_form():
    actor = Actor(lambda prompt, settings: "7")
    terms = Terms(9, NUMBER, Settings(temperature=0, stop=("\n",)))
    Direct(Form("regex", "[0-9]")).answer(actor, [Question("?")], terms)
    assert actor.calls[0][1].stop == () and actor.calls[0][1].constraint.kind == "regex"


TEMPLATE = Template(question="{{ q }} 答案：", delimiter="")
EXAMPLE = Example("e", {"q": "猫在哪里"}, ("垫子", "the mat"), 0)


@pytest.fixture(scope="module")
def backend(tmp_path_factory, shaken):
    tokenizer = with_template(learn("char", ["the cat sat on the mat. 猫坐在垫子上。哪里？答案：0123456789"]))[0]
    config = ModelConfig(
        "llama", dim=16, layers=1, heads=2, context=512, vocab=tokenizer.vocab, eos_id=tokenizer.eos_id
    )
    path = tmp_path_factory.mktemp("strategies") / "run"
    save(shaken(build(config, 0)), tokenizer, path)
    return FolderBackend(load(path))


@pytest.mark.parametrize("template", [TEMPLATE, as_chat(TEMPLATE)], ids=["text", "chat"])
@pytest.mark.parametrize("strategy", [*ALL, Direct(Form("choices"))], ids=lambda s: s.name)
def test_with_a_model(backend, template, strategy):
    asked = [question(template, EXAMPLE), question(template, Example("f", {"q": "the cat"}, ("on", "坐"), 1))]
    found = strategy.answer(backend, asked, Terms(24, Extractor("choice")))
    assert all(0 <= answer.tokens <= 24 for answer in found.answers) and found.untold == 0
    again = strategy.answer(backend, asked, Terms(24, Extractor("choice")))
    assert again == found
    if strategy == Direct(Form("choices")):
        assert [a.text in q.choices for a, q in zip(found.answers, asked)] == [True, True] and not found.missing


@pytest.mark.parametrize("strategy", [*ALL, ReasonThenConstrain()], ids=lambda s: s.name)
def test_written_down_and_read(strategy):
    assert read_strategy(json.loads(json.dumps(write_strategy(strategy)))) == strategy


ASKED = [Question("x")]


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: Terms(0), "a budget must be at least 1 token a question, not 0"),
        (lambda: Terms(9, settings=Settings(temperature=0, beams=2)), "beams write many texts: leave out beams"),
        (lambda: SelfConsistency(1), "strategy.samples must be at least 2, not 1"),
        (lambda: SelfConsistency(temperature=0), "at temperature 0 all samples are the same"),
        (lambda: SelfConsistency(9).answer(None, ASKED, Terms(8)), "8 tokens is too little for 9 samples"),
        (lambda: LeastToMost().answer(None, ASKED, Terms(4)), "4 tokens is too little for 5 texts"),
        (lambda: LeastToMost(share=1.0), "and a share between 0 and 1"),
        (lambda: ReasonThenConstrain(Form()), "reason_then_constrain needs a form for the answer"),
        (
            lambda: ReasonThenConstrain().answer(None, ASKED, Terms(32)),
            "leaves none to think with beside 32",
        ),
        (lambda: Form("choices").constraint(Question("x")), "one of the choices, but a question has none"),
        (lambda: Form("regex"), "a form has a source where it is a regex or json_schema"),
        (lambda: Form("free", "x"), "and none where free or choices"),
        (lambda: Form("regex", "("), r"the regex '\(' cannot be used"),
        (lambda: read_strategy({"kind": "drect"}), "strategy.kind must be one of .* Did you mean 'direct'"),
        (lambda: read_strategy({"sampels": 3, "kind": "self_consistency"}), "unknown setting 'strategy.sampels'"),
    ],
)
def test_refused(act, message):
    with pytest.raises(UserError, match=message):
        act()
