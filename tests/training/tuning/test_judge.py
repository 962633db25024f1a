"""What a tuned run is worth: its task's scores on what it held out, and on other examples by wenlu eval."""

import dataclasses
import json

import pytest

from wenlu.base.errors import UserError
from wenlu.base.log import read_rows
from wenlu.cli.main import main
from wenlu.hub.folder import load
from wenlu.metrics.text import bleu, chrf
from wenlu.training.finetune import finetune
from wenlu.training.judge import answers, judge

from tuning_runs import (
    EXAMPLES,
    lines,
    recipe,
)


def test_what_is_saved_is_the_best_by_held_out_loss(models, tmp_path):
    hot = recipe(models, "classify", steps=24, eval_every=2, tuning={"dropout": 0.0})
    hot = dataclasses.replace(hot, optimizer=dataclasses.replace(hot.optimizer, lr=0.05))
    outcome, scores = finetune(hot, tmp_path / "run")
    losses = [row["held_out"] for row in read_rows(tmp_path / "run/wenlu/metrics.jsonl") if "held_out" in row]
    assert outcome.held_out == min(losses) and scores["loss"].value == pytest.approx(min(losses), rel=1e-5)
    again = judge(tmp_path / "run")
    assert again == scores and 0 <= scores["accuracy"].value <= 1
    assert scores["accuracy"].interval.low <= scores["accuracy"].value <= scores["accuracy"].interval.high


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("chat", {"loss", "accuracy"}),
        ("tag", {"loss", "accuracy", "entity_f1", "entity_precision", "entity_recall"}),
        ("span", {"loss", "exact_match", "f1"}),
        ("pairs", {"loss", "accuracy", "bleu", "chrf"}),
    ],
)
def test_scores_by_task(models, tmp_path, task, names):
    _, scores = finetune(recipe(models, task, steps=2), tmp_path / "run")
    assert set(scores) == names
    page = (tmp_path / "run/wenlu/report.html").read_text()
    assert "judged" in page
    if task == "tag":
        figures = [row for row in read_rows(tmp_path / "run/wenlu/metrics.jsonl") if "held_out" in row][-1]
        assert figures["entity_f1"] == pytest.approx(scores["entity_f1"].value)


@pytest.mark.parametrize("task", ["chat", "pairs", "classify", "tag", "span"])
def test_examples_of_its_own_are_scored_as_when_the_run_ended(models, tmp_path, task, capsys):
    """What was held out, read again from a file by wenlu eval."""
    name, written = EXAMPLES[task]
    (tmp_path / name).write_text(written(range(201, 204 if task == "tag" else 213)))
    _, scores = finetune(
        recipe(models, task, steps=2, rows={"validation_paths": (str(tmp_path / name),)}), tmp_path / "run"
    )
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--examples", str(tmp_path / name), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == {name: score.as_dict() for name, score in scores.items()}
    assert main(["eval", str(tmp_path / "run"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert all(name.replace("_", " ") in said for name in scores) and ("nrefs:1|" in said) == (task == "pairs")


def test_every_example_of_a_test_counts(models, tmp_path, capsys):
    finetune(recipe(models, "classify", steps=1), tmp_path / "run")
    rows = [{"text": "cold", "label": 0}] * 3 + [{"text": "warm", "label": 7}]
    (tmp_path / "test.jsonl").write_text(lines(rows))
    with pytest.raises(UserError, match=r"1 of 4 records is bad.*a label that no training example has"):
        judge(tmp_path / "run", [str(tmp_path / "test.jsonl")])
    (tmp_path / "test.jsonl").write_text(lines(rows[:3]))
    capsys.readouterr()
    judge(tmp_path / "run", [str(tmp_path / "test.jsonl")])
    assert "examples: 3 rows of 3 records" in capsys.readouterr().err


def test_what_has_no_task_is_not_scored(models, tmp_path, capsys):
    finetune(recipe(models, "tag", steps=1, rows={"validation": 0.0}), tmp_path / "run")
    examples = str(models / EXAMPLES["tag"][0])
    for line, message in [
        ([str(models / "qwen3"), "--examples", examples], "is no run of wenlu finetune, so it has no task"),
        ([str(tmp_path / "run")], "which examples? "),
        ([str(tmp_path / "run"), "--examples", examples, "--context", "32"], "context has no effect on the scores"),
        ([str(tmp_path / "run"), "--examples", examples, "--beams", "0"], "beams must be at least 1, not 0"),
        ([str(tmp_path / "run"), "--examples", examples, "--beams", "4"], "was tuned for tag: leave them out"),
        ([str(models / "qwen3"), examples, "--beams", "2"], "beams are for the answers of a run tuned on pairs"),
    ]:
        assert main(["eval", *line, "--device", "cpu"]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="holds no run"):
        judge(models / "qwen3", [examples])


@pytest.mark.parametrize("family", ["t5", "qwen3"])
def test_answers_side_by_side_are_those_alone(models, tmp_path, family):
    finetune(recipe(models, "pairs", family, steps=3), tmp_path / "run")
    model, tokenizer = load(tmp_path / "run")
    sources = ["stove 1", "stove 22", "the room, stove 3", "stove 4"]
    for beams in (1, 3):
        assert answers(model, tokenizer, sources, beams) == [
            answers(model, tokenizer, [source], beams)[0] for source in sources
        ]


@pytest.mark.parametrize("family", ["t5", "qwen3"])
def test_bleu_is_of_what_is_written(models, tmp_path, family):
    """Sources with the run's prefix, answered by as many beams; targets as they stand in the file."""
    finetune(recipe(models, "pairs", family, steps=3, rows={"prefix": "say: "}), tmp_path / "run")
    model, tokenizer = load(tmp_path / "run")
    sources, targets = ["stove 1", "the room 2", "Ofen"], ["Ofen Ofen 1", "room 2", "stove"]
    (tmp_path / "test.tsv").write_text("".join(map("{}\t{}\n".format, sources, targets)))
    written = answers(model, tokenizer, [f"say: {source}" for source in sources], 2)
    scores = judge(tmp_path / "run", [str(tmp_path / "test.tsv")], beams=2)
    assert (scores["bleu"], scores["chrf"]) == (bleu(written, targets), chrf(written, targets))
    two = judge(tmp_path / "run", [str(tmp_path / "test.tsv")], beams=2, limit=2)
    assert two["chrf"] == chrf(written[::2], targets[::2]) and two["loss"] == scores["loss"]
