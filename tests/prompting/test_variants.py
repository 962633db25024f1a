"""Other forms of a prompt: enough of them, all different, and all asking the same."""

from dataclasses import replace

import pytest

from wenlu.prompting.examples import Example
from wenlu.prompting.literal import change, is_chinese, words
from wenlu.prompting.template import Template, as_chat
from wenlu.prompting.variants import variants

FILM = Template(question="Review: {{ text }}\nSentiment:", instruction="Is the review good or bad?")
CHINESE = Template(question="评论：{{ text }}\n情感：", instruction="判断评论的情感。", delimiter="")
LETTERS = Template(question="Question: {{ text }}\n{{ options }}\nAnswer:", choices="letters")
LETTERS_ZH = Template(question="问题：{{ text }}\n{{ options }}\n答案：", choices="letters", delimiter="")
ALL = [FILM, CHINESE, LETTERS, LETTERS_ZH]
EXAMPLE = Example("e", {"text": "Aß: 好看，x"}, ("no", "是"), 1)
SHOWN = Example("s", {"text": "so dull"}, ("no", "是"), 0)


@pytest.mark.parametrize("template", [*ALL, as_chat(FILM), as_chat(LETTERS_ZH)])
def test_ten_or_more_each_another_text(template):
    found = variants(template)
    prompts = [template.render(EXAMPLE, [SHOWN])] + [one.template.render(EXAMPLE, [SHOWN]) for one in found]
    assert len(found) >= 10 and len({str(prompt) for prompt in prompts}) == len(prompts)
    assert len({one.name for one in found}) == len({one.description for one in found}) == len(found)
    assert found == variants(template)


@pytest.mark.parametrize("template", [FILM, replace(FILM, delimiter="\n"), replace(FILM, separator="\n")])
def test_no_form_ends_an_answer_before_it_begins(template):
    assert not any(one.template.stopped_at_once(one.template.stop) for one in variants(template))


@pytest.mark.parametrize("template", ALL)
def test_what_is_asked_and_answered_stays(template):
    for one in variants(template):
        prompt = one.template.render(EXAMPLE, [SHOWN])
        assert prompt.count(EXAMPLE.fields["text"]) == 1 and prompt.count(SHOWN.fields["text"]) == 1, one.name
        assert template.instruction in prompt
        if template.choices == "text":
            assert [c.strip() for c in one.template.continuations(EXAMPLE)] == ["no", "是"]
        else:
            assert all(letter in prompt for letter in one.template.choice_texts(EXAMPLE))
            assert prompt.count("no") >= 2 and prompt.count("是") >= 2, "options are shown"


def by_name(template):
    return {one.name: one.template for one in variants(template)}


def test_forms_by_hand():
    film, chinese, letters = map(by_name, (FILM, CHINESE, LETTERS))
    assert film["labels_upper"].question == "REVIEW: {{ text }}\nSENTIMENT:"
    assert film["labels_named"].question == "Text: {{ text }}\nLabel:"
    assert film["labels_wide"].question == "Review：{{ text }}\nSentiment："
    assert film["labels_line"].question == "Review:\n{{ text }}\nSentiment:"
    assert film["labels_dash"].question == "Review - {{ text }}\nSentiment -"
    assert film["lines_barred"].question == "Review: {{ text }} | Sentiment:"
    assert film["fields_quoted"].question == 'Review: "{{ text }}"\nSentiment:'
    assert film["instruction_within"].question.startswith("Is the review good or bad?\nReview:")
    assert chinese["labels_named"].question == "文本：{{ text }}\n标签："
    assert chinese["labels_narrow"].question == "评论: {{ text }}\n情感:"
    assert chinese["labels_bracket"].question == "【评论】{{ text }}\n【情感】"
    assert chinese["fields_quoted"].question == "评论：“{{ text }}”\n情感："
    assert "labels_upper" not in chinese, "Chinese has no capitals"
    assert letters["letters_stems"].continuations(EXAMPLE) == (" 甲", " 乙")
    assert "(A) no" in letters["options_brackets"].render(EXAMPLE)
    assert letters["order_turned"].question == "{{ options }}\nQuestion: {{ text }}\nAnswer:"


def test_forms_with_too_few_letters_are_left_out():
    names = [one.name for one in variants(LETTERS, choices=10)]
    assert "letters_numbers" not in names and {"letters_small", "letters_stems"} <= set(names)


def test_a_conversation_has_no_separators():
    assert not [name for name in by_name(as_chat(FILM)) if name.startswith(("separator", "answer"))]


def test_words_without_tags():
    source = "Ask {{ a.upper() }}: {% if b %}yes{% endif %}{# no #}"
    assert words(source) == "Ask : yes" and not is_chinese("x {{ '问' }}") and is_chinese("问 {{ x }}")
    assert change(source, str.upper) == "ASK {{ a.upper() }}: {% if b %}YES{% endif %}{# no #}"
