"""What a search begins with: drawn by a seed, in English and Chinese; edits; demonstrations by the model itself."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.prompting.answers import Extractor
from wenlu.prompting.examples import Example
from wenlu.prompting.search.bootstrap import FIELD, bootstrap, showing
from wenlu.prompting.search.candidates import Grammar, grammar_of
from wenlu.prompting.search.instructions import BANK, edits, sentences, some_edits
from wenlu.prompting.strategies import Direct
from wenlu.prompting.template import Template
from wenlu.prompting.writing import Terms

GRAMMARS = [
    Grammar(("text",), "classify", "en", "text"),
    Grammar(("text",), "classify", "zh", "letters"),
    Grammar(("passage", "question"), "choose", "zh", "text", show_options=True, chat=True),
    Grammar(("question",), "number"),
]
EXAMPLE = Example("e", {"text": "好看", "passage": "p", "question": "q?"}, ("no", "是"), 1)


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_drawn_by_the_seed_all_different_the_plainest_first(grammar):
    drawn = grammar.draw(30, seed=3)
    assert drawn == grammar.draw(30, seed=3) and drawn[0] == grammar.template(0) and drawn[0].instruction == ""
    assert drawn[:10] != grammar.draw(10, seed=4)
    prompts = {str(template.render(EXAMPLE, [EXAMPLE])) for template in grammar.draw(grammar.size, seed=0)}
    assert len(prompts) == grammar.size, "no two templates of a grammar are the same prompt"


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_every_candidate_shows_fields_and_choices(grammar):
    assert not any(template.stopped_at_once(template.stop) for template in grammar.draw(grammar.size, seed=0))
    for template in grammar.draw(40, seed=1):
        prompt = str(template.render(EXAMPLE))
        assert all(str(EXAMPLE.fields[name]) in prompt for name in grammar.fields)
        if grammar.choices == "letters" or grammar.show_options:
            assert "是" in prompt
        assert len(template.continuations(EXAMPLE)) == 2


def test_the_bank_has_both_languages_for_every_task():
    tasks = {task for task, _ in BANK}
    assert all((task, language) in BANK for task in tasks for language in ("en", "zh"))
    for (task, language), texts in BANK.items():
        assert len(texts) == len(set(texts)) == len(BANK[task, "en"]) >= 6, (task, language)


def test_the_grammar_that_fits():
    films = [
        Example(str(n), {"text": text, "n": [1]}, ("no", "yes"), 0) for n, text in enumerate(["好看", "真好", "dull"])
    ]
    found = grammar_of(films)
    assert (found.fields, found.task, found.language, found.choices) == (("text",), "classify", "zh", "text")
    sums = [Example(str(n), {"question": f"{n} + 1?"}, answers=(str(n + 1),)) for n in range(3)]
    assert grammar_of(sums).task == "number" and grammar_of(sums).choices == "none"
    exam = [Example(str(n), {"question": "?"}, (f"a{n}", "b"), 0) for n in range(2)]
    assert grammar_of(exam, letters=True).choices == "letters" and grammar_of(exam).task == "choose"
    assert grammar_of([Example("f", {"q": "?"}, answers=("Paris",))]).task == "free"


TWO = "Please read the text, and all of it. Then decide (quickly)."


def test_edits_by_hand():
    assert [(edit.kind, edit.text) for edit in edits(TWO)] == [
        ("drop", "Then decide (quickly)."),
        ("drop", "Please read the text, and all of it."),
        ("swap", "Then decide (quickly). Please read the text, and all of it."),
        ("shorten", "Please read the text. Then decide (quickly)."),
        ("shorten", "Read the text, and all of it. Then decide (quickly)."),
        ("shorten", "Please read the text, and all of it. Then decide."),
    ]
    chinese = [edit.text for edit in edits("请阅读文本，不要着急。然后回答。")]
    assert {"然后回答。", "请阅读文本，不要着急。", "然后回答。请阅读文本，不要着急。", "请阅读文本。然后回答。"} < set(
        chinese
    )
    assert "阅读文本，不要着急。然后回答。" in chinese and edits("Answer.") == [] and edits("") == []


def test_tags_stay_whole():
    tag, block = "{{ subject.title() }}", "{% if x %}Go. Run.{% endif %}"
    texts = [edit.text for edit in edits(f"You know {tag}. Answer, now. {block}")]
    assert f"Answer, now. You know {tag}. {block}" in texts and f"You know {tag}. Answer. {block}" in texts
    for text in texts:
        left = text.replace(tag, "").replace("{% if x %}", "(").replace("{% endif %}", ")")
        assert "{" not in left and left.count("(") == left.count(")")


@pytest.mark.parametrize("instruction", [text for texts in BANK.values() for text in texts])
def test_edits_are_new_and_not_longer(instruction):
    assert "".join(sentences(instruction)) == instruction
    found = edits(instruction)
    texts = [edit.text for edit in found]
    assert len(set(texts)) == len(texts) and instruction not in texts and all(texts)
    assert all(len(edit.text) < len(instruction) for edit in found if edit.kind != "swap")


@given(st.integers(0, 9), st.integers(1, 9))
def test_some_edits_by_the_seed(seed, count):
    found = some_edits(TWO, count, seed)
    assert len(found) == min(count, 6) and found == some_edits(TWO, count, seed) and set(found) <= set(edits(TWO))


@dataclass(frozen=True)
class Said:
    text: str
    tokens: int = 4
    finish: str = "stop"
    error: str = ""


class Actor:
    name = "an actor"

    def generate(self, prompts, settings):
        return [Said("One and one is 2." if "1 + 1" in prompt else "No idea.") for prompt in prompts]


def test_demonstrations_by_the_model_are_the_right_ones():
    template = Template(question="{{ q }} =")
    sums = [Example("a", {"q": "1 + 1"}, answers=("2",)), Example("b", {"q": "2 + 2"}, answers=("4",))]
    found = bootstrap(Actor(), Direct(), template, sums, Terms(9, Extractor("number")))
    assert found.tried == 2 and found.tokens == 8 and [one.id for one in found.examples] == ["a"]
    prompt = showing(template).render(sums[1], found.examples)
    assert prompt == "1 + 1 = One and one is 2.\n\n2 + 2 ="
    with pytest.raises(UserError, match=f"example a has a field '{FIELD}' already"):
        bootstrap(Actor(), Direct(), template, found.examples, Terms(9))


def test_a_demonstration_that_names_the_right_letter_is_right():
    class Lettered(Actor):
        def generate(self, prompts, settings):
            return [Said("B") for _ in prompts]

    template = Template(question="{{ q }}\n{{ options }}", choices="letters")
    asked = [Example(str(gold), {"q": "?"}, ("Rome", "Paris"), gold) for gold in (0, 1)]
    found = bootstrap(Lettered(), Direct(), template, asked, Terms(9))
    assert [one.id for one in found.examples] == ["1"]


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: Grammar(()), r"a grammar needs fields that a template can name, not \[\]"),
        (lambda: Grammar(("a b",)), "needs fields that a template can name"),
        (lambda: GRAMMARS[3].draw(10**9, 0), "templates: draw at least 1 and no more, not 1000000000"),
        (lambda: GRAMMARS[3].draw(0, 0), "draw at least 1"),
        (lambda: some_edits("x", 0, 0), "at least 1 edit must be wanted, not 0"),
        (lambda: grammar_of([]), "there are no examples to find a grammar for"),
        (lambda: grammar_of([Example("a", {"x": [1]})]), "the examples have no field of text in common"),
    ],
)
def test_refused(act, message):
    with pytest.raises(UserError, match=message):
        act()
