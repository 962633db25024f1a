"""Labels, tags and answers for new texts: those that the scores are made of, and what is no such text is refused."""

import json

import pytest

from wenlu.base.log import read_rows
from wenlu.cli.main import main
from wenlu.hub.folder import load
from wenlu.metrics.scores import entity_counts
from wenlu.training.finetune import finetune
from wenlu.training.judge import judge
from wenlu.training.predict import Predictor, Question, read_questions

from tuning_runs import lines, recipe

TEXTS = ["cold and wet", "warm", "a warm day, 天气真好", "wet " * 100]


@pytest.fixture(scope="module")
def runs(models, tmp_path_factory):
    root = tmp_path_factory.mktemp("predicting")
    for task in ("classify", "tag", "span"):
        finetune(recipe(models, task, steps=8), root / task)
    return root


def predicted(runs, task, rows, tmp_path, capsys):
    (tmp_path / "new.jsonl").write_text(lines(rows))
    capsys.readouterr()
    assert main(["predict", str(runs / task), "--prompts", str(tmp_path / "new.jsonl"), "--device", "cpu"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_labels_are_those_that_the_scores_count(runs, tmp_path, capsys):
    rows = [{"text": text, "label": label} for text in TEXTS[:3] for label in (0, 1)]
    found = predicted(runs, "classify", rows, tmp_path, capsys)
    right = [one["label"] == str(row["label"]) for one, row in zip(found, rows, strict=True)]
    scores = judge(runs / "classify", [str(tmp_path / "new.jsonl")])
    assert scores["accuracy"].value == sum(right) / len(rows)
    for one in found:
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert one["probability"] == max(one["probabilities"].values()) == one["probabilities"][one["label"]]


def test_tags_are_those_that_the_scores_count(runs, tmp_path, capsys):
    kinds = [label[2:] for label in load(runs / "tag")[0].config.labels if label.startswith("B-")]
    rows = [{"tokens": text.split(), "tags": [f"B-{kinds[0]}", *["O"] * (len(text.split()) - 1)]} for text in TEXTS[:3]]
    found = predicted(runs, "tag", rows, tmp_path, capsys)
    right, given, gold = map(sum, zip(*(entity_counts(r["tags"], f["tags"]) for r, f in zip(rows, found, strict=True))))
    scores = judge(runs / "tag", [str(tmp_path / "new.jsonl")])
    assert scores["entity_f1"].value == pytest.approx(2 * right / (given + gold))
    assert all(len(row["tokens"]) == len(one["tags"]) == len(one["probabilities"]) for row, one in zip(rows, found))


def test_answers_are_those_that_the_scores_count(runs, tmp_path, capsys):
    contexts = ["the stove is red. " * 12 + "the room is blue.", "Ann is here"]
    rows = [{"context": text, "question": "where?", "id": number} for number, text in enumerate(contexts)]
    found = predicted(runs, "span", rows, tmp_path, capsys)
    for row, one in zip(rows, found, strict=True):
        assert row["id"] == one["id"] and row["context"][one["start"] : one["end"]] == one["answer"] != ""
    answered = [
        {
            **row,
            "answers": [{"text": one["answer"].strip(), "answer_start": row["context"].index(one["answer"].strip())}],
        }
        for row, one in zip(rows, found, strict=True)
    ]
    (tmp_path / "gold.jsonl").write_text(lines(answered))
    assert judge(runs / "span", [str(tmp_path / "gold.jsonl")])["exact_match"].value == 1


def test_beside_others_as_alone_and_a_long_text_is_said_to_be_cut(runs):
    predictor = Predictor(*load(runs / "classify"))
    together = predictor.predict([Question("", [text]) for text in TEXTS])
    for text, one in zip(TEXTS, together, strict=True):
        alone = predictor.predict([Question("", [text])])[0]
        assert alone["label"] == one["label"] and alone["probability"] == pytest.approx(one["probability"], abs=1e-5)
    assert [one["cut"] for one in together] == [False, False, False, True]
    tags = Predictor(*load(runs / "tag")).predict([Question("", ["wet"] * 100)])[0]
    assert tags["cut"] and len(tags["tags"]) == 100 and tags["tags"][-1] is None and tags["tags"][0] is not None


def test_a_file_is_gone_on_with_and_never_overwritten(runs, tmp_path, capsys):
    texts, out = tmp_path / "new.txt", tmp_path / "labels.jsonl"
    texts.write_text("".join(f"{text}\n" for text in TEXTS))
    line = [
        "predict",
        str(runs / "classify"),
        "--prompts",
        str(texts),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--rows",
        "2",
    ]
    assert main([*line, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"out": str(out), "texts": 4, "there_before": 0, "cut": 1}
    assert "1 of 4 texts cut to the " in said.err
    whole = out.read_bytes()
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]) + b'{"number": 3, "la')
    assert main(line) == 0
    assert "1 text (3 there already)" in capsys.readouterr().err
    numbers = [row["number"] for row in read_rows(out)]
    assert numbers == [0, 1, 2, 3] and [row["label"] for row in read_rows(out)] == [
        json.loads(row)["label"] for row in whole.splitlines()
    ]
    texts.write_text("others\n")
    before = out.read_bytes()
    assert main(line) == 2
    assert "holds results of another model, other prompts" in capsys.readouterr().err and out.read_bytes() == before


@pytest.mark.parametrize(
    ("task", "rows", "said"),
    [
        ("classify", [{"text": "x"}, {"txt": "y"}], ":2: it must hold a text, such as {"),
        ("classify", [{"text": " "}], ":1: it must hold a text"),
        ("tag", [{"tokens": "in Paris"}], ":1: it must hold a list of words"),
        ("span", [{"question": "who?"}], ":1: it must hold a question and a context"),
        (
            "span",
            [{"question": "who " * 90, "context": "a b c d e f g h i"}],
            "leaves no room for its text: shorten it",
        ),
        ("classify", [], "new.jsonl is empty"),
    ],
)
def test_what_is_no_such_text_is_refused(task, rows, said, runs, tmp_path, capsys):
    (tmp_path / "new.jsonl").write_text(lines(rows))
    line = ["predict", str(runs / task), "--prompts", str(tmp_path / "new.jsonl"), "--device", "cpu"]
    assert main(line) == 2
    assert said in capsys.readouterr().err


def test_other_refusals(models, runs, tmp_path, capsys):
    texts = tmp_path / "new.txt"
    texts.write_bytes(b"fine\nfine\n" * 50 + b"\xff bad\n")
    for line, said in (
        ([str(models / "qwen3"), "--prompts", str(texts)], "this qwen3 gives no labels, tags or spans: tune a bert by"),
        ([str(runs / "classify"), "--prompts", str(tmp_path / "no")], "give one of records, each with a text, such as"),
        ([str(runs / "classify"), "--prompts", str(texts), "--out", str(texts)], "is the file of prompts itself"),
        ([str(runs / "classify"), "--prompts", str(texts), "--json"], "each line is JSON already: leave --json out"),
        ([str(runs / "classify"), "--prompts", str(texts), "--rows", "0"], "rows must be at least 1, not 0"),
        ([str(runs / "tag"), "--prompts", str(texts)], "is of no kind that holds records"),
    ):
        assert main(["predict", *line, "--device", "cpu"]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_fields_by_other_names_and_two_texts(tmp_path):
    (tmp_path / "a.tsv").write_text("premise\thypothesis\tid\nit rains\tit is wet\t7\n")
    assert read_questions(tmp_path / "a.tsv", "classify", ("premise", "hypothesis")) == [
        Question(f"{tmp_path / 'a.tsv'}:2", ["it rains", "it is wet"], {"id": "7"})
    ]
