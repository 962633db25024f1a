"""A user's own examples: read by named keys, and every row that is none refused by its line."""

import json

import pytest

from wenlu.base.errors import UserError
from wenlu.prompting.example_file import Keys, read_examples
from wenlu.prompting.examples import Example

FILM = {"text": "好看", "choices": ["正面", "负面"], "gold": "正面"}
SUM = {"question": "2 + 2?", "gold": 4}


@pytest.fixture
def read(tmp_path):
    def write_and_read(*rows, keys=None, name="e.jsonl", **more):
        text = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return read_examples(tmp_path / name, keys, **more)

    return write_and_read


def test_choices_and_free_answers(read):
    film, sum_, many = read(FILM, SUM, {"q": "?", "gold": ["a", "b"], "id": 7, "group": "g"})
    assert film.fields == {"text": "好看"} and film.choices == ("正面", "负面") and film.gold == 0
    assert sum_ == Example(sum_.id, {"question": "2 + 2?"}, answers=("4",))
    assert many == Example("7", {"q": "?"}, answers=("a", "b"), group="g")


def test_ids_are_those_of_the_content(read):
    first = read(FILM, SUM)[0].id
    assert first == read({"gold": "正面", "choices": ["正面", "负面"], "text": "好看"}, SUM)[0].id
    assert first != read({**FILM, "gold": "负面"}, SUM)[0].id and len(first) == 16


def test_other_keys_and_labels(read):
    keys = Keys(gold="label", labels=("neg", "pos"))
    found = read({"text": "x", "label": 1}, {"text": "y", "label": "neg"}, keys=keys)
    assert [one.gold for one in found] == [1, 0] and found[0].right == "pos"
    table = read("text,label", "x,pos", "y,neg", keys=keys, name="e.csv")
    assert [one.right for one in table] == ["pos", "neg"] and table[0].fields == {"text": "x"}


def test_one_answer_for_all_is_said(read, capsys):
    assert len(read(SUM, {**SUM, "question": "3 + 1?"})) == 2
    assert "all 2 examples have the answer '4': whatever always says so looks right" in capsys.readouterr().err


FOUR = [{"q": n, "gold": n % 2} for n in range(4)]


def test_what_is_refused_of_a_search_is_refused_of_the_examples_that_the_limit_leaves(read, capsys):
    assert len(read(*FOUR, search=True)) == 4
    same = [FOUR[0], FOUR[2], FOUR[1]]
    assert len(read(*same, search=True)) == 3
    with pytest.raises(UserError, match="all 2 examples have the answer '0', so any prompt"):
        read(*same, search=True, limit=2)
    assert len(read(*same, limit=2)) == 2 and "all 2 examples have the answer '0'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "rows, more, message",
    [
        (
            [{"text": "x", "glod": "y"}],
            {},
            "line 1: no gold answer under .gold.. Did you mean .glod",
        ),
        ([SUM, {"text": "x", "gold": ""}], {}, "line 2: no gold answer under 'gold'"),
        ([{**FILM, "gold": "正"}], {}, "gold '正' is not among the choices '正面', '负面'"),
        (
            [{"text": "x", "gold": "good"}],
            {"keys": Keys(labels=("goood", "bad"))},
            "gold 'good' is not among the labels 'goood', 'bad'. Labels are written as the rows write their gold",
        ),
        ([{**FILM, "gold": 2}], {}, "gold is 2, but the 2 choices have the numbers 0 to 1"),
        ([{**FILM, "gold": True}], {}, "gold True is not among the choices"),
        ([{**FILM, "choices": "正面"}], {}, "'choices' must be a list of two texts or more"),
        ([{**FILM, "choices": ["正面"]}], {}, "'choices' must be a list of two texts or more"),
        ([{**FILM, "choices": ["正面", "正面"]}], {}, "'choices' holds a choice twice"),
        ([FILM], {"keys": Keys(labels=("a", "b"))}, "needs no labels: give one or the other"),
        ([{"text": "x", "gold": {"a": 1}}], {}, "the gold answer must be a text, a number or a list of such"),
        ([{"gold": "x"}], {}, "nothing but an answer: a row needs at least one field"),
        ([{**SUM, "id": "a"}, {**FILM, "id": "a"}], {}, "lines 1 and 2 have the id 'a': leave one out"),
        ([SUM, FILM, SUM], {}, "lines 1 and 3 say the same"),
        ([SUM, "{"], {}, r"e.jsonl:2: no JSON .* \(1 such lines\): mend it"),
        ([SUM, "[]"], {}, "no JSON object"),
        ([], {}, "holds no examples: give JSON lines"),
        ([{**row, "gold": "x"} for row in FOUR], {"search": True}, "all 4 examples have the answer 'x', so any prompt"),
    ],
)
def test_refused(read, rows, more, message):
    with pytest.raises(UserError, match=message):
        read(*rows, **more)


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: read_examples("/nowhere/e.jsonl"), "no file /nowhere/e.jsonl: give one of JSON lines"),
        (lambda: Keys(gold="id"), "must be different, not id, choices, id, group"),
        (lambda: Keys(labels=("a",)), "labels must be two different ones or more"),
    ],
)
def test_refused_before_reading(act, message):
    with pytest.raises(UserError, match=message):
        act()
