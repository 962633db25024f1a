"""Templates: what a prompt is made of, in English and Chinese, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenlu.base.config import from_dict, read_toml, to_dict, to_toml
from wenlu.base.errors import UserError
from wenlu.prompting.examples import Example
from wenlu.prompting.template import CHAT, Part, Template, appended, as_chat, as_text, differing, neutral

FILM = Template(question="Review: {{ text }}\nSentiment:", instruction="Is it good or bad?")
GOOD = Example("g", {"text": "A joy."}, ("bad", "good"), gold=1)
DULL = Example("d", {"text": "So dull."}, ("bad", "good"), gold=0)
LETTERS = Template(question="问：{{ question }}\n{{ options }}\n答：", delimiter="", choices="letters")
SUM = Example("s", {"question": "一加一等于几？"}, ("一", "二", "三"), gold=1)


def test_a_text_is_instruction_demonstrations_and_question():
    assert FILM.render(GOOD, [DULL]) == (
        "Is it good or bad?\n\nReview: So dull.\nSentiment: bad\n\nReview: A joy.\nSentiment:"
    )
    assert FILM.continuations(GOOD) == (" bad", " good")


def test_choices_by_letters():
    prompt = LETTERS.render(SUM, [SUM])
    assert prompt == "问：一加一等于几？\nA. 一\nB. 二\nC. 三\n答：B\n\n问：一加一等于几？\nA. 一\nB. 二\nC. 三\n答："
    assert LETTERS.continuations(SUM) == ("A", "B", "C")
    assert LETTERS.answered(SUM, 2) == "C" and LETTERS.answered(SUM) == "B"


def test_a_conversation_has_a_turn_for_each_demonstration():
    messages = as_chat(FILM).render(GOOD, [DULL])
    assert [(m["role"], m["content"]) for m in messages] == [
        ("system", "Is it good or bad?"),
        ("user", "Review: So dull.\nSentiment:"),
        ("assistant", "bad"),
        ("user", "Review: A joy.\nSentiment:"),
    ]
    assert as_chat(FILM).continuations(GOOD) == ("bad", "good"), "the assistant's part begins with the answer"
    assert as_text(as_chat(FILM)) == FILM and differing(FILM, as_chat(FILM)) == ["chat"]


def test_demonstrations_may_stand_in_one_message_and_an_empty_part_is_left_out():
    template = Template(
        question="{{ text }} ->",
        chat=(
            Part("system", "{{ prompt.instruction }}"),
            Part("user", "{{ prompt.demonstrations }}\n{{ prompt.question }}"),
        ),
    )
    assert template.render(GOOD, [DULL]) == ({"role": "user", "content": "So dull. -> bad\nA joy. ->"},)


def test_the_other_direction_ends_with_an_answer():
    before, question = FILM.channel(GOOD, [DULL], 1)
    assert before == "Is it good or bad?\n\nbad\nReview: So dull.\nSentiment:\n\ngood"
    assert question == "\nReview: A joy.\nSentiment:"


def test_an_answer_may_show_how_it_was_found():
    template = Template(question="{{ q }}", answer="{{ why }} So: {{ right }}", delimiter="\n")
    shown = Example("a", {"q": "2 + 2?", "why": "Two and two."}, answers=("4", "four"))
    assert template.render(shown, [shown]) == "2 + 2?\nTwo and two. So: 4\n\n2 + 2?"


def test_what_ends_an_answer():
    assert FILM.stop == ("\n\n",) and as_chat(FILM).stop == () and Template(question="x", separator="").stop == ()


def test_trailing_lines_of_a_template_are_kept():
    assert Template(question="{{ q }}\n").render(Example("a", {"q": "x"})) == "x\n"


def test_blank_fields_and_appended_texts():
    assert FILM.render(neutral(GOOD, "N/A")).endswith("Review: N/A\nSentiment:")
    deep = Example("d", {"n": 3, "rows": [{"x": "y", "on": True}], "choices": ["a"]}, ("a",), 0)
    assert neutral(deep, "").fields == {"n": "", "rows": [{"x": "", "on": True}], "choices": ["a"]}
    assert appended("Q:", " Let us see.") == "Q: Let us see."
    assert appended(({"role": "user", "content": "Q"},), "Think.")[-1]["content"] == "Q\nThink."


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_what_an_example_says_is_never_read_as_a_template(text):
    assert Template(question="<{{ x }}>").render(Example("a", {"x": text})) == f"<{text}>"


def test_read_and_written_strictly(tmp_path):
    template = as_chat(LETTERS)
    assert from_dict(Template, json.loads(json.dumps(to_dict(template)))) == template
    file = tmp_path / "t.toml"
    file.write_text('question = "{{ q }}"\n[[chat]]\nrole = "user"\ncontent = "{{ prompt.question }}"\n')
    read = from_dict(Template, read_toml(file))
    assert read.chat == (CHAT[2],) and read.question == "{{ q }}"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"qestion": "x"}, "unknown setting 'qestion'. Did you mean 'question'"),
        ({"question": "x", "chat": [{"role": "user", "contents": "x"}]}, r"unknown setting 'chat\[0\].contents'"),
        ({"question": "x", "chat": ["user"]}, r"chat\[0\] must be a table of settings, not 'user'"),
        ({"question": "x", "chat": [{"role": "bot", "content": "x"}]}, r"chat\[0\].role must be one of system, user"),
        ({"question": "x", "chat": [{"role": "user"}]}, "every other needs some: not 'user' with ''"),
        ({"question": "x", "chat": [{"role": "assistant", "content": "x"}]}, "must end with the user's part"),
        ({"question": " "}, "a template needs a question"),
        ({"question": "{{ q"}, r"the template's question is no Jinja \(line 1"),
        ({"question": "x", "letters": "AAB"}, "letters must be different characters without spaces, not 'AAB'"),
        ({"question": "x", "choices": "numbers"}, "choices must be one of text, letters"),
    ],
)
def test_refused_when_read(settings, message):
    with pytest.raises(UserError, match=message):
        from_dict(Template, settings)


def render(question, example=GOOD, **more):
    return Template(question=question, **more).render(example)


@pytest.mark.parametrize(
    "act, message",
    [
        (
            lambda: render("{{ txt }}"),
            r"asks for 'txt', which example g has not. Did you mean 'text'\? There are:",
        ),
        (lambda: render("{{ text.first }}"), "asks for 'first', which example g has not"),
        (lambda: render("{{ right }}"), "asks for 'right'"),
        (lambda: render("{{ text / 2 }}"), r"the template's question cannot be filled \(TypeError"),
        (lambda: render("{{ text.__class__.mro() }}"), "asks for '__class__', which templates may not see"),
        (lambda: render("{{ text }}", Example("r", {"options": 1})), "has a field 'options', which is a name of"),
        (
            lambda: LETTERS.render(Example("m", {"question": "?"}, tuple("abcdefghijklmnopqrstuvwxyz1"))),
            "has 27 c",
        ),
        (lambda: render("{{ raise_exception('no') }}"), "the template's question cannot be filled: no"),
        (lambda: FILM.continuations(Example("f", {"text": "x"}, answers=("y",))), "example f has no choices"),
        (lambda: FILM.render(GOOD, [Example("n", {"text": "x"})]), "example n has no gold answer"),
        (lambda: as_chat(FILM).channel(GOOD, [], 0), "leave out chat, or the noisy channel"),
        (
            lambda: Template(question="x", chat=(Part("user", "{{ prompt.question }}"),)).render(GOOD, [DULL]),
            "has no place for demonstrations",
        ),
    ],
)
def test_refused_when_filled(act, message):
    with pytest.raises(UserError, match=message):
        act()


def test_a_field_of_choices_is_the_choices_themselves():
    example = Example("c", {"q": "?", "choices": ["x", "y"]}, ("x", "y"), 0)
    assert Template(question="{{ q }} {{ choices | join('/') }}").render(example) == "? x/y"


def test_templates_know_no_clock_and_no_chance():
    for source in ("{{ strftime_now('%Y') }}", "{{ [1, 2] | random }}"):
        with pytest.raises(UserError):
            render(source)


def test_toml_of_a_section_with_parts(tmp_path):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class File:
        template: Template = FILM

    (tmp_path / "f.toml").write_text(to_toml(File(as_chat(LETTERS))), encoding="utf-8")
    assert to_dict(from_dict(Template, read_toml(tmp_path / "f.toml")["template"])) == to_dict(as_chat(LETTERS))
