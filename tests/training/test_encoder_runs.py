"""BERT and T5 from raw text, by the one loop: stopped = never stopped, the report, a length in time, `eval`."""

import dataclasses
import json

import pytest
import torch

import wenlu.training.plan as plan_module
from wenlu.base.errors import UserError
from wenlu.base.files import sha256_file
from wenlu.base.log import read_rows
from wenlu.cli.eval import main as eval_command
from wenlu.cli.main import main
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.data.shards import open_data
from wenlu.models.config import ModelConfig
from wenlu.training.law import dropout_for
from wenlu.training.loop import Loop, train
from wenlu.training.plan import Planner, lines
from wenlu.training.recipe import Recipe, TrainingConfig, resolve
from wenlu.training.timing import Machine, key, work

FAMILIES = ["bert", "t5"]
CLOCK = ("seconds", "tokens_per_second")


class Killed(BaseException):
    """Stands for a kill within this process."""


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    rows = (f"{n * n % 97} stoves burn in house {n % 13}; 第{n % 29}炉，{n * 7 % 31}人读书。" for n in range(250))
    file = tmp_path_factory.mktemp("data") / "text.txt"
    file.write_text("\n".join(rows), encoding="utf-8")
    return file


def recipe(text, family: str, **training) -> Recipe:
    model = ModelConfig(family, dim=16, layers=2, heads=2, context=24, dropout=0.1)
    often = dict(steps=14, batch=40, eval_every=5, eval_tokens=300, checkpoint_every=4, log_every=1)
    return Recipe(
        PrepareConfig(paths=(str(text),), tokenizer="bpe:400"),
        model,
        TrainingConfig(**{**often, "device": "cpu", "compile": "off", "threads": 1, **training}),
    )


def ending(run) -> dict:
    """All that two equal runs must share."""
    last = max((run / "wenlu/checkpoints").glob("step-*"))
    rows = read_rows(run / "wenlu/metrics.jsonl")
    return {
        "root": sha256_file(run / "model.safetensors"),
        "checkpoint": [sha256_file(last / f"{part}.safetensors") for part in ("weights", "optimizer")],
        "rows": [{key: value for key, value in row.items() if key not in CLOCK} for row in rows],
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_stopped_twice_is_never_stopped(family, text, tmp_path):
    """Over two epochs, with other masks in each, in uneven micro-batches, with dropout."""
    wanted = recipe(text, family, micro_batch=15)
    train(wanted, tmp_path / "whole")
    whole = Loop._step
    for stop in (7, 10):

        def counted(self, watch, stop=stop):
            whole(self, watch)
            if self.progress.step == stop:
                raise Killed

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Loop, "_step", counted)
            train(wanted, tmp_path / "run", resume=stop == 10)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_step", lambda s, w: (seen.append(s.setup.material.order.epochs_at(13)[0]), whole(s, w)))
        train(None, tmp_path / "run", resume=True)
    assert seen[0] >= 1
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")


@pytest.mark.parametrize("family", FAMILIES)
def test_from_raw_text_to_figures_by_the_commands(family, text, tmp_path, capsys):
    run = str(tmp_path / "run")
    flags = ["--model.dim", "16", "--model.layers", "1", "--model.heads", "2", "--model.context", "24", "--tokenizer"]
    flags += ["bpe:400", "--steps", "6", "--training.batch", "4", "--training.eval-every", "3", "--device", "cpu"]
    assert main(["train", str(text), "--out", run, "--model", family, *flags]) == 0
    said = capsys.readouterr()
    unit = {"bert": "nats/masked token", "t5": "nats/token"}[family]
    assert unit in said.out and "go on:  wenlu eval" in said.out
    page = (tmp_path / "run/wenlu/report.html").read_text()
    objective = {"bert": "masked tokens", "t5": "text to text"}[family]
    assert objective in page and unit in page and "bits per byte" not in page
    start = read_rows(tmp_path / "run/wenlu/events.jsonl")[0]
    assert (start["objective"], start["unit"]) == (objective, unit)
    row = next(row for row in read_rows(tmp_path / "run/wenlu/metrics.jsonl") if "held_out" in row)
    assert set(row) == {"step", "held_out", "sample"} | ({"masked_accuracy"} if family == "bert" else set())
    assert row["sample"] == ""
    assert main(["eval", run, "--json", "--device", "cpu"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main(["eval", run, str(text), "--device", "cpu"]) == 0
    table = capsys.readouterr().out
    if family == "bert":
        assert alone["pseudo_perplexity"]["value"] > 1 and 0 <= alone["masked_accuracy"]["value"] <= 1
        assert all(words in table for words in ("pseudo-perplexity", "masked: accuracy", "the commonest token's"))
        assert main(["eval", run, str(text), "--limit", "30", "--json", "--device", "cpu"]) == 0
        assert json.loads(capsys.readouterr().out)["masked_one_by_one"] == 30
    else:
        assert alone["nats_per_target"]["value"] > 0 and "nats per target" in table
        with pytest.raises(UserError, match="limit is for a BERT, whose tokens are masked one by one, not for this t5"):
            eval_command([run, str(text), "--limit", "30"])
    with pytest.raises(UserError, match=f"overlap is for models that read from left to right, not for this {family}"):
        eval_command([run, str(text), "--overlap", "3"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_for_a_length_of_time_makes_no_prediction(family, text, tmp_path, monkeypatch):
    def time(self, recipe):
        self._weights = None
        self.timed[key(recipe)] = recipe, 1e-3 * recipe.model.layers + work(recipe) / 2e11

    monkeypatch.setattr(Machine, "time", time)
    prepare(PrepareConfig((str(text),), tokenizer="bpe:400", purpose=family, context=24), tmp_path / "d", page=False)
    wanted = Recipe(PrepareConfig((str(tmp_path / "d"),)), ModelConfig(family), TrainingConfig(minutes=1))
    plan = Planner(wanted, open_data(tmp_path / "d"), torch.device("cpu"), plan_module.time.monotonic()).plan()
    assert plan.bits_per_byte is None and plan.steps >= plan_module.FEWEST_STEPS
    assert plan.epochs > 6 and resolve(wanted, plan.chosen).model.dropout == dropout_for(0.15 * plan.epochs)
    said = dict(lines(plan, resolve(wanted, plan.chosen)))["expected"]
    assert said.startswith("no prediction: shapes were compared as if for the next token, and for ")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_of_a_length_in_time_ends_in_it(family, text, tmp_path):
    wanted = recipe(text, family)
    training = dataclasses.replace(wanted.training, steps=TrainingConfig.steps, minutes=0.1, eval_every=100)
    train(dataclasses.replace(wanted, training=training), tmp_path / "run")
    events = read_rows(tmp_path / "run/wenlu/events.jsonl")
    # How well the time is kept is told by benchmarks: here a machine that is busy must not fail what is right.
    assert events[-1]["event"] == "finished" and events[-1]["clock"] < 4 * 6
    assert next(event for event in events if event["event"] == "plan")["unforetold"]
    assert "–" in (tmp_path / "run/wenlu/report.html").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_text_prepared_for_others_is_refused(family, text, tmp_path):
    prepare(PrepareConfig((str(text),), tokenizer="byte", context=24), tmp_path / "data", page=False)
    wanted = dataclasses.replace(recipe(text, family), data=PrepareConfig((str(tmp_path / "data"),)))
    with pytest.raises(UserError, match=f"--purpose {family}"):
        train(wanted, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    if family == "bert":
        tagging = dataclasses.replace(recipe(text, "bert"), model=ModelConfig("bert", head="tag", labels=("a", "b")))
        with pytest.raises(UserError, match="the head 'tag' learns from examples, not from text alone"):
            train(tagging, tmp_path / "tagging")
        with pytest.raises(UserError, match="the head 'tag' learns from examples"):
            minutes = dataclasses.replace(tagging.training, steps=TrainingConfig.steps, minutes=1.0)
            train(dataclasses.replace(tagging, training=minutes), tmp_path / "tagging")
    config = dataclasses.replace(recipe(text, family), data=PrepareConfig((str(text),), purpose="t5"))
    with pytest.raises(UserError, match=r"data\.purpose follows from the model's family when one is trained: leave it"):
        train(config, tmp_path / "run")
