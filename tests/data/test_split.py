"""The split: documents by hash, or the end of the text; never an empty side; nothing lost but the gap."""

import hashlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.data.reading.sources import Piece
from wenlu.data.split import Documents, Split, paragraph_at


def pieces(texts, size=10**9):
    """Documents cut into pieces of `size` characters."""
    result = []
    for number, text in enumerate(texts):
        parts = [text[i : i + size] for i in range(0, len(text), size)]
        result += [Piece(number, part, i == len(parts) - 1) for i, part in enumerate(parts)]
    return result


def split(texts, fraction, gap=0, size=10**9):
    """(side → its text, side → its documents, the split)."""
    parts = pieces(texts, size)
    made = Split(Documents.of(parts), fraction, gap)
    sides, documents = {}, {}
    for side, piece in made.parts(parts):
        sides[side] = sides.get(side, "") + piece.text
        documents.setdefault(side, [""])[-1] += piece.text
        if piece.last:
            documents[side].append("")
    return sides, {side: texts[:-1] for side, texts in documents.items()}, made


def test_a_first_reading_knows_digests_and_lengths():
    found = Documents.of(pieces(["天气", "fine", "天气"], size=1))
    assert found.digests[0] == found.digests[2] == hashlib.sha256("天气".encode()).digest()[:16]
    assert found.characters == [2, 4, 2] and found.bytes == 16 and found.duplicates == 1


def test_documents_go_by_their_hash():
    texts = [f"document {i}" for i in range(1000)]
    _, sides, made = split(texts, 0.1)
    assert made.by_hash and sorted(sides["train"] + sides["validation"]) == sorted(texts)
    assert 60 < len(sides["validation"]) < 140
    _, again, _ = split([*texts[500:], "another", *texts[:500:-1]], 0.1)
    assert set(again["validation"]) - {"another"} <= set(sides["validation"])
    _, more, _ = split(texts, 0.2)
    assert set(sides["validation"]) < set(more["validation"])


def test_the_same_document_lies_on_one_side():
    texts = [f"document {i % 50}" for i in range(200)]
    sides, documents, made = split(texts, 0.3, size=4)
    assert not set(documents["train"]) & set(documents["validation"]) and made.overlap == 0
    assert sum(map(len, sides.values())) == sum(map(len, texts))


@pytest.mark.parametrize("fraction, word, way", [(0.0001, "none", "raise"), (0.9999, "all", "lower")])
def test_a_side_without_documents_is_refused_with_a_figure_that_works(fraction, word, way):
    texts = [f"document {i}" for i in range(25)]
    message = rf"of 25 documents {word} would be held out by --validation {fraction}: {way} it \(--validation (\S+) do"
    with pytest.raises(UserError, match=message) as error:
        split(texts, fraction)
    _, sides, _ = split(texts, float(re.search(message, str(error.value))[1]))
    assert sides["train"] and sides["validation"]


def test_equal_documents_cannot_be_split():
    with pytest.raises(UserError, match="all documents are the same: none can be held out; give more text"):
        split(["same"] * 30, 0.5)


def test_few_documents_are_cut_at_a_paragraph_with_a_gap():
    text = "".join(f"Paragraph {i}.\nIts second line.\n\n" for i in range(100))
    sides, documents, made = split([text], 0.1, gap=40)
    assert not made.by_hash and sides["train"] + sides["gap"] + sides["validation"] == text
    assert sides["validation"].startswith("Paragraph ") and len(documents["validation"]) == 1
    assert 0.07 * len(text) < len(sides["validation"]) <= 0.1 * len(text)
    assert 40 <= len(sides["gap"]) < 40 + 35
    assert documents["train"] == [sides["train"]]


@pytest.mark.parametrize(
    "text, beginning",
    [("line of words\n" * 100, "line"), ("word " * 300, "word"), ("天气" * 300, "天")],
    ids=["lines", "words", "nothing"],
)
def test_without_paragraphs_it_is_cut_at_a_line_or_a_word(text, beginning):
    sides, _, _ = split([text], 0.2, gap=5)
    assert sides["train"] + sides["gap"] + sides["validation"] == text
    assert sides["validation"].startswith(beginning) and len(sides["validation"]) > 0.1 * len(text)


def test_a_gap_is_at_most_half_of_what_is_held_out():
    sides, _, _ = split(["a" * 1000], 0.1, gap=10**6)
    assert {side: len(text) for side, text in sides.items()} == {"train": 850, "gap": 50, "validation": 100}


@pytest.mark.parametrize("size", [7, 35, 10**9])
def test_a_gap_of_tokens_is_counted_up_to_the_cut(size):
    parts = pieces(["".join(f"Paragraph {i}, of words.\n\n" for i in range(200))], size)
    made = Split(Documents.of(parts), 0.1)
    for tokens, widest in ((0, 6), (1, 6), (30, 30), (10**6, 100)):
        made.leave_out(tokens, lambda text: len(text.split()), parts)
        gap = "".join(piece.text for side, piece in made.parts(parts) if side == "gap")
        assert min(tokens, 35) <= len(gap.split()) <= widest


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(st.text(st.sampled_from("ab \n"), min_size=1, max_size=60), min_size=1, max_size=6),
    fraction=st.floats(0.05, 0.6),
    gap=st.integers(0, 30),
    size=st.integers(1, 25),
)
def test_nothing_is_lost_and_every_document_is_ended(texts, fraction, gap, size):
    try:
        sides, documents, _ = split(texts, fraction, gap, size)
    except UserError:
        return
    assert "".join(sides.get(side, "") for side in ("train", "gap", "validation")) == "".join(texts)
    for side in ("train", "validation"):
        assert sides[side] and "".join(documents[side]) == sides[side]


@pytest.mark.parametrize("size", [10, 35, 70, 100])
def test_a_training_document_is_ended_where_the_gap_begins_with_a_piece(size):
    _, documents, _ = split(["a" * 100], 0.2, gap=10, size=size)
    assert list(map(len, documents["train"])) == [70]


@pytest.mark.parametrize("text", ["x", "two words"])
def test_too_little_text_is_refused(text):
    few = "1 character is" if len(text) == 1 else f"{len(text)} characters are"
    with pytest.raises(UserError, match=rf"{few} too few to hold 5% of them out: give more text"):
        split([text], 0.05)
    sides, _, _ = split([text], 0.0)
    assert sides == {"train": text}


def test_the_same_words_before_and_in_the_held_out_end_are_counted():
    _, _, made = split(["same text\n" * 9, "other\n" * 9, "same text\n" * 9], 0.2)
    assert made.overlap == 1
    assert split(["one\n" * 9, "other\n" * 9, "same text\n" * 9], 0.2)[2].overlap == 0


def test_the_overlap_is_told_by_what_is_alike_not_by_how_the_sides_were_chosen():
    digests = [hashlib.sha256(str(number).encode()).digest()[:16] for number in range(40)]
    made = Split(Documents(digests, [9] * 40, alike=[digests[number // 2] for number in range(40)]), 0.5, 0)
    sides = [side == "validation" for side in map(made._side, digests)]
    apart = sum(one != other for one, other in zip(sides[::2], sides[1::2]))
    assert made.overlap == apart > 0
    groups = [digests[number // 2] for number in range(40)]
    assert Split(Documents(digests, [9] * 40, groups=groups, alike=groups), 0.5, 0).overlap == 0


def test_a_text_that_grew_is_refused():
    texts = [f"document {i}" for i in range(30)]
    made = Split(Documents.of(pieces(texts)), 0.5, 0)
    with pytest.raises(UserError, match="the text grew while it was read: wait until nothing writes to it"):
        list(made.parts(pieces([*texts, "more"])))


def test_paragraph_at_skips_all_empty_lines():
    assert paragraph_at("one\n\n\n\ntwo", 1) == 7
    assert paragraph_at("one two", 1) == 4
    assert paragraph_at("one", 1) == 1
