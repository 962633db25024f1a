"""What is decided for a tuning run, what is refused, and the commands and recipes that begin one."""

import dataclasses
import json
from pathlib import Path

import pytest

from wenlu.base.errors import UserError
from wenlu.base.log import read_rows
from wenlu.cli.main import main
from wenlu.hub.folder import load
from wenlu.training.finetune import finetune
from wenlu.training.recipe import TrainingConfig, read_recipe
from wenlu.training.run_folder import RunFolder
from wenlu.training.setup import deterministic
from wenlu.training.tuning import set_up_tuning

from tuning_runs import (
    EXAMPLES,
    KINDS,
    lines,
    recipe,
    setup_of,
    talk,
)


def test_epochs_learning_rate_and_evaluations_follow_from_the_rows(models, tmp_path):
    base = recipe(models, "pairs", tuning={"epochs": 2.0}, steps=TrainingConfig.steps, eval_every=100)
    finetune(base, tmp_path / "run")
    settled = RunFolder(tmp_path / "run").recipe()
    rows = json.loads((tmp_path / "run/wenlu/data/rows.json").read_text())["counts"]["train"]["rows"]
    batches = -(-rows // 4)
    assert settled.training.steps == 2 * batches and settled.training.eval_every == -(-2 * batches // 10)
    assert settled.optimizer.lr == 2e-3 and settled.model.family == "t5"


def test_a_given_length_in_time(models, tmp_path, monkeypatch):
    import wenlu.training.tuning as tuning_module

    monkeypatch.setattr(tuning_module, "REPORT_SECONDS", 0.0)
    timed = recipe(models, "classify", steps=1000, minutes=0.1, eval_every=100, tuning={"epochs": 3.0})
    outcome, _ = finetune(timed, tmp_path / "run")
    plan = next(row for row in read_rows(tmp_path / "run/wenlu/events.jsonl") if row["event"] == "plan")
    assert plan["minutes"] == 0.1 and 0 < plan["steps"] * plan["step_seconds"] <= 6
    assert 1 < outcome.seconds <= 6
    assert "Planned and actual" in (tmp_path / "run/wenlu/report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(task="classify", family="qwen3"), "the family qwen3, which cannot be tuned for classify: that is for"),
        (dict(task="chat", family="t5"), "is of the family t5, which cannot be tuned for chat"),
        (dict(task="chat", compile="on"), "rows differ in length"),
        (dict(task="chat", start="bigrams"), "begins with its own weights"),
        (dict(task="classify", rows={"context": 100}), r"rows.context \(100\) exceeds the positions"),
        (dict(task="chat", rows={"context": 4}), "too short"),
        (dict(task="chat", rows={"validation": 0.0}, patience=2), "nothing is held out"),
        (dict(task="chat", tuning={"model": ""}), "which model is to be tuned"),
        (dict(task="chat", tuning={"hash": "0" * 16}), "are not those that the run began with"),
    ],
)
def test_refusals_leave_nothing_behind(models, tmp_path, change, message):
    tuning = change.pop("tuning", {})
    base = recipe(models, **change)
    base = dataclasses.replace(base, tuning=dataclasses.replace(base.tuning, **tuning))
    with pytest.raises(UserError, match=message):
        finetune(base, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_commands(models, tmp_path, capsys):
    out = str(tmp_path / "run")
    files = [str(models / EXAMPLES["chat"][0])]
    (tmp_path / "held.jsonl").write_text(lines(map(talk, range(100, 104))))
    flags = ["--task", "chat", "--steps", "2", "--show", "1", "--held-out", str(tmp_path / "held.jsonl"), "--json"]
    assert main(["finetune", str(models / "qwen3"), *files, "--out", out, *flags, "--device", "cpu"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["step"] == 2 and found["scores"]["loss"]["low"] < found["scores"]["loss"]["value"]
    assert "⟦0, 0<|im_end|>⟧" in said.err and "held out: 4 rows of 4 records (4 messages)" in said.err
    assert main(["finetune", "--resume", "--out", out]) == 0
    said = capsys.readouterr().out
    assert "held out, loss" in said and f"go on:  wenlu chat {out}\n" in said
    assert main(["train", "--resume", "--out", out]) == 2
    assert "is for wenlu finetune: use that command" in capsys.readouterr().err
    assert main(["finetune", str(models / "qwen3"), *files]) == 2
    assert "where to?" in capsys.readouterr().err
    (tmp_path / "a.toml").write_text("[training]\nsteps = 3\n")
    assert main(["finetune", str(tmp_path / "a.toml"), "--out", out]) == 2
    assert "is for wenlu train: use that command" in capsys.readouterr().err


def test_a_recipe_in_a_file(models, tmp_path, capsys):
    name = EXAMPLES["tag"][0]
    rows = f'[rows]\ntask = "tag"\npaths = ["{models / name}"]\n'
    (models / "tag.toml").write_text(f'[tuning]\nmodel = "bert"\nepochs = 1.0\n{rows}[training]\nbatch = 16\n')
    assert main(["finetune", str(models / "tag.toml"), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert "entity f1" in capsys.readouterr().out
    settled = RunFolder(tmp_path / "run").recipe()
    assert settled.training.steps == 3 and settled.tuning.model == str(models / "bert")
    assert main(["train", str(models / "tag.toml"), "--out", str(tmp_path / "other")]) == 2
    assert "is for wenlu finetune: use that command" in capsys.readouterr().err


def test_epochs_are_said_as_they_are(models, tmp_path, capsys):
    """Of packed rows too, whose last batch is smaller."""
    wanted = recipe(models, "chat", tuning={"epochs": 2.0})
    finetune(dataclasses.replace(wanted, training=dataclasses.replace(wanted.training, steps=1000)), tmp_path / "run")
    assert "(2.0 epochs)" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "task"), [("chat", "chat"), ("translation", "pairs")])
def test_shipped_recipes_tune(models, tmp_path, name, task):
    """A step of each; one that reads whole text first is named in their comments."""
    wanted = read_recipe(Path(__file__).parents[3] / "recipes" / f"{name}.toml")
    assert wanted.rows.task == task
    rows = dataclasses.replace(wanted.rows, paths=(str(models / EXAMPLES[task][0]),), max_bad=0.2)
    tuning = dataclasses.replace(wanted.tuning, model=str(models / KINDS[task]), epochs=0.0)
    training = dataclasses.replace(wanted.training, steps=1, batch=2, device="cpu")
    outcome, scores = finetune(
        dataclasses.replace(wanted, rows=rows, tuning=tuning, training=training), tmp_path / "run"
    )
    assert outcome.step == 1 and scores["loss"].value > 0


@pytest.mark.parametrize(
    ("tuning", "training"),
    [
        ("epochs = 2.0", "steps = 2"),
        ("epochs = 2.0", "minutes = 0.1"),
        ("", "steps = 2\nminutes = 0.1"),
    ],
)
def test_two_lengths_are_refused(models, tmp_path, tuning, training, capsys):
    rows = f'[rows]\ntask = "tag"\npaths = ["{models / "tag.jsonl"}"]\n'
    file = tmp_path / "tag.toml"
    file.write_text(f'[tuning]\nmodel = "{models / "bert"}"\n{tuning}\n{rows}[training]\n{training}\n')
    assert main(["finetune", str(file), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert "say how long the run is: leave one of them" in capsys.readouterr().err


@pytest.mark.parametrize("steps", [2, TrainingConfig.steps])
def test_steps_in_a_recipe_are_kept(models, tmp_path, steps, monkeypatch):
    rows = f'[rows]\ntask = "tag"\npaths = ["{models / "tag.jsonl"}"]\n'
    (tmp_path / "tag.toml").write_text(
        f'[tuning]\nmodel = "{models / "bert"}"\n{rows}[training]\nsteps = {steps}\nbatch = 4\ndevice = "cpu"\n'
    )
    folder = RunFolder(tmp_path / "run")
    base = read_recipe(tmp_path / "tag.toml")
    folder.create(base)
    with deterministic():
        assert set_up_tuning(base, folder, 0.0).recipe.training.steps == steps


def test_the_rates_of_other_optimisers_are_theirs(models, tmp_path):
    base = recipe(models, "tag", steps=1)
    base = dataclasses.replace(base, optimizer=dataclasses.replace(base.optimizer, name="sgd"))
    finetune(base, tmp_path / "run")
    assert RunFolder(tmp_path / "run").recipe().optimizer.lr == 0.0


def test_classes_of_a_recipe_are_named_by_their_labels(models, tmp_path):
    for name in ("warm", "cold"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} room {n}\n" for n in range(20)))
    rows = '[rows]\ntask = "classify"\npaths = ["good=warm.txt", "bad=cold.txt"]\n'
    (tmp_path / "a.toml").write_text(f'[tuning]\nmodel = "{models / "bert"}"\n{rows}[training]\nsteps = 1\n')
    assert main(["finetune", str(tmp_path / "a.toml"), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert load(tmp_path / "run")[0].config.labels == ("bad", "good")


def test_few_steps_are_said(models, tmp_path, capsys):
    few = recipe(models, "chat", tuning={"epochs": 1.0}, steps=TrainingConfig.steps, eval_every=100, batch=16)
    finetune(few, tmp_path / "run")
    assert "steps teach little: give more --epochs" in " ".join(capsys.readouterr().err.split())


def test_dropout_of_a_foreign_folder_is_said_once_it_is_trained(models, tmp_path, capsys):
    """Transformers drops out in attention alone; a run of our own has it in all places already."""
    setup_of(recipe(models, "chat"), tmp_path / "first")
    assert "says attention_dropout 0.1" in " ".join(capsys.readouterr().err.split())
    setup_of(recipe(models, "chat", tuning={"dropout": 0.0}), tmp_path / "second")
    finetune(recipe(models, "chat", steps=1), tmp_path / "run")
    capsys.readouterr()
    own = recipe(models, "chat", steps=1)
    own = dataclasses.replace(own, tuning=dataclasses.replace(own.tuning, model=str(tmp_path / "run")))
    setup_of(own, tmp_path / "third")
    assert "attention_dropout" not in capsys.readouterr().err
