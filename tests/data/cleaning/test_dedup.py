"""Near-duplicates: found where planted, in both languages, and not where texts only look alike."""

import random
import zlib

import numpy as np
import pytest

from wenlu.data.cleaning import dedup, units
from wenlu.data.cleaning.dedup import Signatures
from wenlu.data.cleaning.units import ngrams, unit_numbers

HAN = [chr(code) for code in range(0x4E00, 0x5600)]
WORDS = [f"w{zlib.crc32(str(number).encode()) % 10**6}" for number in range(3000)]


def groups(texts: list[str]) -> list[list[int]]:
    made = Signatures()
    for number, text in enumerate(texts):
        made.add(unit_numbers(text))
        made.end(number)
    return made.groups()


def text(chooser: random.Random, length: int, letters: list[str], joint: str) -> list[str]:
    return [chooser.choice(letters) for _ in range(length)]


def changed(chooser: random.Random, given: list[str], letters: list[str], share: float) -> list[str]:
    return [chooser.choice(letters) if chooser.random() < share else unit for unit in given]


def jaccard(a: str, b: str) -> float:
    one, two = (set(ngrams(unit_numbers(text), dedup.NGRAM).tolist()) for text in (a, b))
    return len(one & two) / len(one | two)


@pytest.mark.parametrize("letters, joint", [(WORDS, " "), (HAN, "")], ids=["words", "ideographs"])
def test_planted_ones_are_found_and_no_others(letters, joint):
    chooser = random.Random(7)
    originals = [text(chooser, chooser.randrange(60, 400), letters, joint) for _ in range(300)]
    copies = [changed(chooser, given, letters, 0.018) for given in originals]
    texts = [joint.join(given) for given in originals + copies]
    found = {tuple(group) for group in groups(texts)}
    pairs = [(k, k + 300) for k in range(300)]
    like = [pair for pair in pairs if jaccard(*(texts[k] for k in pair)) >= 0.8]
    assert len(like) > 150 and sum(pair in found for pair in like) >= 0.95 * len(like)
    assert all(pair in set(pairs) for pair in found)


def test_texts_that_differ_enough_are_not_the_same():
    chooser = random.Random(3)
    frame = " ".join(text(chooser, 30, WORDS, " "))
    forms = [f"{frame} {' '.join(text(chooser, 40, WORDS, ' '))}" for _ in range(100)]
    assert groups(forms) == [], "a common beginning alone"
    assert groups(["document number 17 of very many", "document number 18 of very many"]) == [], "too short to tell"


def test_a_group_is_named_in_order_and_case_and_punctuation_do_not_count():
    given = [" ".join(text(random.Random(k), 60, WORDS, " ")) for k in range(3)]
    assert groups([given[0], given[1], given[0].upper(), given[2], given[0].replace(" ", ", ")]) == [[0, 2, 4]]


def test_parts_and_batches_give_the_same_signatures(monkeypatch):
    numbers = [unit_numbers(" ".join(text(random.Random(k), 100, WORDS, " "))) for k in range(7)]

    def rows(parts):
        made = Signatures()
        for number, own in enumerate(numbers):
            for part in parts(own):
                made.add(part)
            made.end(number, keep=number != 3)
        made.groups()
        return bytes(made._rows), list(made._documents)

    whole = rows(lambda own: [own])
    assert whole[1] == [0, 1, 2, 4, 5, 6] and len(whole[0]) == 7 * 504
    overlapping = rows(lambda own: [own[:50], own[46:]])
    monkeypatch.setattr(dedup, "AT_ONCE", 120)
    assert rows(lambda own: [own[:50], own[46:]]) == overlapping == whole


@pytest.mark.parametrize("at_once", [1, 2, 4096])
def test_a_document_that_changes_is_compared_as_it_is_then(at_once, monkeypatch):
    monkeypatch.setattr(dedup, "PARTS_AT_ONCE", at_once)
    given = [unit_numbers(" ".join(text(random.Random(k), 60, WORDS, " "))) for k in range(6)]
    made = Signatures()
    for number in range(5):
        made.add(given[number if number != 4 else 0])
        made.end(number)
    assert made.groups() == [[0, 4]]
    for number, numbers in ((1, given[2]), (3, given[2][:20]), (4, given[5])):
        made.add(numbers[:40])
        made.add(numbers[36:])
        made.replace(number)
    assert made.groups() == [[1, 2]] and len(made._rows) == 5 * 504
    made.add(given[2])
    made.replace(0, keep=False)
    assert made.groups() == [[1, 2]], "0 is forgotten, and 3 has become too short"
    made.add(given[2])
    made.end(5)
    assert made.groups() == [[1, 2, 5]]
    made.forget(2)
    assert made.groups() == [[1, 5]]


def test_groups_with_a_document_in_common_are_one():
    assert dedup.joined([[3, 9], [1, 2], [2, 5, 9], [6, 7]]) == [[1, 2, 3, 5, 9], [6, 7]]


def test_units_and_their_numbers_agree(monkeypatch):
    given = "Hello, World! 天气真好 don't x_y 123abc 🙂ok ไทย Ñandú ÉTÉ été \n" * 40
    found, numbers = units.units(given), unit_numbers(given)
    assert found[:8] == ["hello", "world", "天", "气", "真", "好", "don", "t"]
    by_unit = dict(zip(found, numbers.tolist(), strict=True))
    assert len(set(by_unit.values())) == len(by_unit) and [by_unit[unit] for unit in found] == numbers.tolist()
    monkeypatch.setattr(units, "BLOCK", 100)
    assert np.array_equal(unit_numbers(given), numbers)
    assert len(unit_numbers("… !")) == len(unit_numbers("")) == 0
