"""What a task is: its examples, the shots before them, and what is refused of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.evaluation.kinds import Choice, Cloze, Contexts, Pairs
from wenlu.evaluation.task import Settings, Task, asked
from wenlu.evaluation.writing import Writing
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template, as_chat

TEMPLATE = Template("{{ n }}?")


def example(n, gold=0, group="", **fields):
    return Example(str(n), {"n": n, **fields}, ("yes", "no"), gold, group=group)


def task(examples, pool=(), **more):
    return Task("t", Choice(), tuple(examples), TEMPLATE, tuple(pool), **more)


def test_questions_that_are_conversations_stand_apart_from_their_shots_too():
    twins = [example(n % 4, n % 2) for n in range(8)]
    several = task([replace(one, id=str(n)) for n, one in enumerate(twins)])
    chosen = asked(replace(several, template=as_chat(TEMPLATE)), Settings(2))
    assert [one.id for one in chosen.examples] == ["2", "3", "6", "7"]


@given(st.integers(1, 12), st.integers(0, 14), st.integers(0, 14), st.integers(1, 4), st.integers(-1, 6))
def test_no_question_has_its_own_answer_or_passage_before_it(count, shots, limit, groups, common):
    """common: of six in a pool, so many are also asked, under another id and with the choices turned; -1: no pool."""
    examples = [example(n, n % 2, str(n % groups) if groups > 1 else "") for n in range(count)]
    pooled = common >= 0
    turned = [replace(one, id=f"t{one.id}", choices=one.choices[::-1], gold=1 - one.gold) for one in examples[:common]]
    pool = [*turned, *(example(f"p{n}") for n in range(6 - len(turned)))] if pooled else []
    try:
        chosen = asked(task(examples, pool), Settings(shots, limit))
    except UserError as error:
        assert "shots" in str(error)
        assert shots > 6 or common > 0 if pooled else shots >= count or groups > 1
        return
    assert len(chosen.shots) == shots and (not limit or len(chosen.examples) <= limit)
    assert list(chosen.shots) == (pool or examples)[:shots]
    same, passages = {one.fields["n"] for one in chosen.shots}, {one.group for one in chosen.shots} - {""}
    assert not any(one.fields["n"] in same or one.group in passages for one in chosen.examples)
    left = [one for one in examples if one.fields["n"] not in same and one.group not in passages]
    assert list(chosen.examples) == left[: limit or None]
    if not pooled and shots:
        assert "serve as shots and are not asked" in chosen.notes[0]
    elif len(left) < count:
        told = f"{count - len(left)} examples are not asked, for they share passages of the {shots} shots or ask the"
        assert told in chosen.notes[0]


def test_a_limit_takes_parts_by_turns():
    examples = [example(n, part="a" if n < 6 else "b") for n in range(8)]
    chosen = asked(task(examples, part="part"), Settings(limit=5))
    assert [one.fields["n"] for one in chosen.examples] == [0, 6, 1, 7, 2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shots": -1}, "shots must be at least 0, not -1"),
        ({"limit": -3}, "limit must be at least 0, not -3"),
        ({"risk": 1.0}, "risk is a part of answers, from 0 to less than 1, not 1.0"),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(UserError) as error:
        Settings(**settings)
    assert str(error.value) == words


def test_more_shots_than_there_are():
    with pytest.raises(UserError, match="4 shots are more than task t has: there are 3 examples to take shots from"):
        asked(task([example(0)], [example(n) for n in range(3)]), Settings(4))
    with pytest.raises(
        UserError, match="2 shots are more than task t has: there are 2 examples, of which one at least"
    ):
        asked(task([example(0), example(1)]), Settings(2))
    with pytest.raises(UserError, match="no examples left beside 1 shots, 1 more share their passages or ask the same"):
        asked(task([example(0, group="a"), example(1, group="a")]), Settings(1))


@pytest.mark.parametrize(
    ("kind", "examples", "words"),
    [
        (Choice(), [], "task t has no examples: its file is empty"),
        (Choice(), [example(1), example(1)], "task t: two examples have the id '1'"),
        (Choice(), [example(1, None)], "task t: example 1 has no gold answer"),
        (Choice(), [Example("1", {}, ("one",), 0)], "example 1 has 1 choices: give at least two"),
        (Choice(), [Example("1", {}, ("one", " "), 0)], "example 1: choice 1 is empty"),
        (Choice(("a", "b")), [example(1)], "other choices than the classes a, b"),
        (Contexts(), [example(1)], "example 1 has no continuation"),
        (Cloze(), [Example("1", {})], "example 1 has no gold answer"),
        (Cloze(), [Example("1", {}, answers=(" ",))], "the gold answer is empty"),
        (Writing(), [Example("1", {})], "example 1 has no gold answer"),
    ],
)
def test_examples_that_cannot_be_judged(kind, examples, words):
    with pytest.raises(UserError) as error:
        Task("t", kind, tuple(examples), TEMPLATE)
    assert words in str(error.value)


def test_what_has_no_effect_is_refused():
    pairs = Task("p", Pairs(), (Example("1", {}, ("a", "b"), 0),))
    with pytest.raises(UserError, match="leave out --chat"):
        asked(pairs, Settings(chat=True))
    with pytest.raises(UserError, match="leave out --shots"):
        asked(pairs, Settings(shots=1))


def test_one_class_only_and_equal_pairs_are_said():
    chosen = asked(task([example(n, 1) for n in range(4)]), Settings())
    assert chosen.notes == ("only choice 1 is ever right in these 4 examples: whoever always says so is always right",)
    classes = Task("t", Choice(("yes", "no")), tuple(example(n, 1) for n in range(4)), TEMPLATE)
    assert "only 'no' is ever right" in asked(classes, Settings()).notes[0]
    same = Task("p", Pairs(), (Example("1", {}, ("a", "a"), 0), Example("2", {}, ("a", "b"), 0)))
    assert asked(same, Settings()).notes == ("1 of 2 pairs are two times the same sentence; they count as right",)
    assert asked(task([example(n, n % 2) for n in range(4)]), Settings()).notes == ()
