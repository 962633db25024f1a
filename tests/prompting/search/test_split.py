"""Examples parted: every one once, groups whole, no other example moves one, and looks at the test part counted."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.base.log import read_rows
from wenlu.prompting.examples import Example
from wenlu.prompting.search.select import optimism
from wenlu.prompting.search.split import Looks, Shares, part


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


def test_what_was_parted_can_be_chosen_and_judged_by():
    parted = 0
    for start in range(0, 2000, 20):
        try:
            found = part(examples(20, start=start))
        except UserError as error:
            assert "part, which needs" in str(error)
            continue
        parted += 1
        assert len(found.test) >= 6 and optimism(np.eye(2, len(found.select))).apparent > 0
    assert 50 < parted < 100


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: part(examples(3)), "of 3 examples only . examples? fell to the .* part, which needs . at least"),
        (lambda: part(examples(400, group=100)), "of 400 examples only . groups? fell to the .* part"),
        (lambda: part(examples(5) + examples(1)), "two examples have the id '问题 0'"),
        (lambda: Shares(select=0), "must all be more than 0"),
        (lambda: Shares(test=-1), "shares.test must be at least 0, not -1"),
    ],
)
def test_wrong_uses_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def asked(*names: str) -> list[Example]:
    return [Example(name, {"text": f"about {name}"}, answers=("a",)) for name in names]


TEST = asked("问题 1", "question 2", "c")


def test_looks_are_counted_and_a_second_one_is_asked_for_knowingly(tmp_path):
    looks = Looks(tmp_path / "prompts" / "looks.jsonl")
    assert looks.take(TEST, "first prompt") == 1
    with pytest.raises(UserError, match=r"3 of the 3 test examples were looked at already, last for first prompt \("):
        looks.take(TEST, "第二个提示")
    assert looks.take(TEST, "第二个提示", again=True) == 2
    assert looks.take(asked("another"), "first prompt") == 1


def test_an_example_more_makes_no_fresh_test_part(tmp_path):
    looks = Looks(tmp_path / "looks.jsonl")
    looks.take(TEST, "one")
    d, e = asked("d", "e")
    for test, seen in (([*TEST, d], 3), (TEST[:2], 2), ([d, TEST[2], e], 1)):
        with pytest.raises(UserError, match=f"{seen} of the {len(test)} test examples were looked"):
            looks.take(test, "two")
    with pytest.raises(UserError, match="no fresh evidence"):
        looks.take([*TEST, d], "one")
    assert looks.take([*TEST, d], "two", again=True) == 2 and looks.take([d], "three", again=True) == 2


def test_a_judgement_made_again_is_the_same_look(tmp_path):
    looks = Looks(tmp_path / "looks.jsonl")
    assert [looks.take(TEST, "one"), looks.take(TEST[::-1], "one"), looks.take(TEST, "two", again=True)] == [1, 1, 2]
    assert looks.take(TEST, "one") == 1 and looks.take(TEST, "three", again=True) == 3


def test_copied_examples_under_other_ids_are_no_fresh_test_part(tmp_path):
    machine = tmp_path / "cache" / "wenlu" / "looks.jsonl"
    assert Looks(tmp_path / "a.looks", machine).take(TEST, "one") == 1
    copy, copied = Looks(tmp_path / "b.looks", machine), [replace(one, id=f"x{n}") for n, one in enumerate(TEST)]
    with pytest.raises(UserError, match=r"3 of the 3 test examples were looked at already, last for one \(.*cache"):
        copy.take(copied, "two")
    assert copy.take(copied, "two", again=True) == 2 and copy.take(copied, "two") == 2, "the larger count"
    machine.unlink()
    assert copy.take(copied, "two") == 1, "what no file tells of is not known"
    with pytest.raises(UserError, match="already, last for one"):
        Looks(tmp_path / "a.looks", machine).take(TEST, "three")
    same_ids = [replace(one, fields={"text": "else"}) for one in TEST]
    assert Looks(tmp_path / "c.looks", machine).take(same_ids, "one") == 1, "ids alone mean nothing across files"


def test_where_the_machine_keeps_nothing_it_is_said(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert Looks(tmp_path / "a.looks", tmp_path / "file" / "wenlu" / "looks.jsonl").take(TEST, "one") == 1
    assert "looks are counted beside the examples only: cannot write" in capsys.readouterr().err


def test_looks_by_ids_alone_count_and_older_forms_are_refused(tmp_path):
    looks = Looks(tmp_path / "looks.jsonl")
    looks.take(TEST, "one")
    (row,) = read_rows(looks.path)
    del row["contents"]
    looks.path.write_text(json.dumps(row) + "\n")
    assert looks.take(TEST, "one") == 1
    with pytest.raises(UserError, match="3 of the 3 test examples were looked at already, last for one"):
        looks.take(TEST, "two")
    looks.path.write_text('{"test": "0123abcd", "look": "one"}\n')
    with pytest.raises(
        UserError, match=r"holds looks in a form that names no examples .* move the file away knowingly"
    ):
        looks.take(TEST, "two", again=True)


def test_a_torn_row_of_looks_is_no_look(tmp_path):
    looks = Looks(tmp_path / "looks.jsonl")
    looks.take(TEST, "one")
    with open(looks.path, "a") as file:
        file.write('{"look": "two", "exam')
    assert looks.take(TEST, "two", again=True) == 2
