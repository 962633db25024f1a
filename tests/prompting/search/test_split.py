"""Examples parted: every one once, groups whole, no other example moves one, and looks at the test part counted."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.prompting.examples import Example
from wenlu.prompting.search.split import Looks, Shares, fingerprint, part


def examples(count: int, group: int = 0, start: int = 0) -> list[Example]:
    """Questions in two languages, in groups of that many."""
    kinds = ("问题", "question")
    return [
        Example(f"{kinds[n % 2]} {n}", {"text": str(n)}, group=f"段落 {n // group}" if group else "")
        for n in range(start, start + count)
    ]


def sides(given: list[Example], shares: Shares | None = None) -> dict[str, str]:
    """The part of each id."""
    parts = part(given, shares)
    return {given[n].id: name for name in ("search", "select", "test") for n in getattr(parts, name)}


def test_every_example_lies_in_one_part_of_about_its_size():
    found = part(examples(2000), Shares(0.5, 0.2, 0.3))
    assert sorted(found.search + found.select + found.test) == list(range(2000))
    sizes = [len(numbers) / 2000 for numbers in (found.search, found.select, found.test)]
    assert sizes == pytest.approx([0.5, 0.2, 0.3], abs=0.04)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(300)), more=st.integers(0, 200))
def test_neither_order_nor_further_examples_move_one(order, more):
    base = examples(300)
    found = sides([base[n] for n in order] + examples(more, start=1000))
    assert {name: found[name] for name in sides(base)} == sides(base)


def test_groups_stay_whole():
    given = examples(1000, group=7)
    found = sides(given)
    groups = {}
    for example in given:
        groups.setdefault(example.group, set()).add(found[example.id])
    assert all(len(names) == 1 for names in groups.values()) and len(groups) > 100


def test_the_test_part_does_not_depend_on_how_the_rest_is_parted():
    given = examples(500)
    assert part(given, Shares(0.5, 0.1, 0.4)).test == part(given, Shares(0.1, 0.5, 0.4)).test == part(given).test
    assert part(given, Shares(seed=1)).test != part(given).test
    assert part(given, Shares(4, 2, 4)) == part(given)


def test_the_same_in_every_process():
    """Known places, so that another version that parts otherwise is noticed."""
    code = "from wenlu.prompting.search.split import *; from wenlu.prompting.examples import Example; " + (
        "print(part([Example(f'问题 {n}', {}) for n in range(60)]).test)"
    )
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert said[0].stdout == said[1].stdout
    assert part([Example(f"问题 {n}", {}) for n in range(60)]).test == tuple(json.loads(f"[{said[0].stdout[1:-2]}]"))


def test_a_fingerprint_is_of_the_ids_in_any_order():
    given = examples(200)
    found = part(given)
    assert found.fingerprints["test"] == fingerprint([given[n].id for n in reversed(found.test)])
    assert len(set(found.fingerprints.values())) == 3 and len(found.fingerprints["test"]) == 16
    assert fingerprint(["a", "b"]) != fingerprint(["ab"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: part(examples(3)), "of 3 examples only . examples fall to the .* part, which needs . at least"),
        (lambda: part(examples(400, group=100)), "of 400 examples only . groups fall to the .* part"),
        (lambda: part(examples(5) + examples(1)), "two examples have the id '问题 0'"),
        (lambda: Shares(select=0), "must all be more than 0"),
        (lambda: Shares(test=-1), "shares.test must be at least 0, not -1"),
    ],
)
def test_wrong_uses_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_looks_are_counted_and_a_second_one_is_asked_for_knowingly(tmp_path):
    looks = Looks(tmp_path / "prompts" / "looks.jsonl")
    assert looks.count("abc") == 0 and looks.take("abc", "first prompt") == 1
    with pytest.raises(UserError, match=r"test part abc was looked at already, for first prompt .* no fresh evidence"):
        looks.take("abc", "第二个提示")
    assert looks.count("abc") == 1
    assert looks.take("abc", "第二个提示", again=True) == 2 and looks.count("abc") == 2
    assert looks.take("another", "first prompt") == 1


def test_a_judgement_made_again_is_the_same_look(tmp_path):
    looks = Looks(tmp_path / "looks.jsonl")
    assert [looks.take("abc", "one"), looks.take("abc", "one"), looks.take("abc", "two", again=True)] == [1, 1, 2]
    assert looks.take("abc", "one") == 1 and looks.count("abc") == 2


def test_a_torn_row_of_looks_is_no_look(tmp_path):
    looks = Looks(tmp_path / "looks.jsonl")
    looks.take("abc", "one")
    with open(looks.path, "a") as file:
        file.write('{"test": "abc", "lo')
    assert looks.count("abc") == 1 and looks.take("abc", "two", again=True) == 2
