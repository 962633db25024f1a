"""Contamination: examples of an evaluation set that stand in the training text are found, others not."""

import gzip
import json

import pytest

from wenlu.base.errors import UserError
from wenlu.data.cleaning.contamination import EvaluationSet, read_examples
from wenlu.data.reading.sources import Piece

QUESTION = "Which of the four rivers that cross the old town is the longest of all in summer?"
CHINESE = "盖闻天地之数，有十二万九千六百岁为一元。将一元分为十二会。"
FILLER = "Other words that no one asked for, number {} of a long row of sentences that follow each other.\n"


@pytest.fixture
def evaluation(tmp_path):
    rows = [
        {"query": QUESTION, "choices": ["the first", "the second"], "gold": 1},
        {"nested": {"context": [CHINESE]}, "id": "7"},
        {"query": "This one is nowhere to be found in any of the texts that we train on, is it not so?"},
        {"query": "too short"},
    ]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path / "set.jsonl"


def search(path, *documents: str, size: int = 10**9):
    pieces = [
        Piece(number, text[start : start + size], start + size >= len(text))
        for number, text in enumerate(documents)
        for start in range(0, len(text), size)
    ]
    return EvaluationSet((str(path),)).search(pieces)


def test_what_stands_in_the_training_text_is_found(evaluation):
    filler = "".join(FILLER.format(n) for n in range(30))
    found = search(evaluation, filler, filler + QUESTION.upper().replace(" ", "  ") + filler, CHINESE + filler, filler)
    assert (found.examples, found.found, found.documents, found.too_short) == (4, 2, 2, 1)
    assert found.n == 8 and found.ngrams > 10
    assert found.shown[0] == "which of the four rivers that cross the" and found.shown[1] == "盖闻天地之数有十"
    clean = search(evaluation, filler, QUESTION[:30] + filler, CHINESE[:8] + filler)
    assert (clean.found, clean.documents, clean.ngrams, clean.shown) == (0, 0, 0, [])


def test_over_the_borders_of_pieces(evaluation):
    text = FILLER.format(1) * 3 + QUESTION
    border = len(FILLER.format(1)) * 3 + QUESTION.index("that")
    assert search(evaluation, text, size=border).found == 1


def test_n_is_the_5th_percentile_of_lengths(tmp_path):
    (tmp_path / "long.txt").write_text(f"{QUESTION}\n{QUESTION} And more of it, until the end of time.\n")
    assert search(tmp_path / "long.txt", QUESTION).n == 13


def test_files_of_other_kinds(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"paragraphs": [QUESTION, CHINESE]}]}), encoding="utf-8")
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write(f"{QUESTION}\n\n{CHINESE}\n")
    assert list(read_examples(str(tmp_path))) == [[QUESTION], [CHINESE], [f"{QUESTION}\n"], [f"{CHINESE}\n"]]


def test_refusals(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{")
    (tmp_path / "empty.txt").write_text("\n")
    for name, message in {
        "gone.txt": "no file or folder .*gone.txt to compare with: check the path of --against",
        "bad.jsonl": "bad.jsonl cannot be read as an evaluation set .*: give jsonl, json or txt",
        "empty.txt": "empty.txt holds no texts to look for: give an evaluation set by --against",
    }.items():
        with pytest.raises(UserError, match=message):
            EvaluationSet((str(tmp_path / name),))
