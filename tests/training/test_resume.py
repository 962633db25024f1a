"""Law 2, stopped = never stopped: a run killed anywhere, twice, ends with the bits of one that was left alone."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import wenlu.training.loop as loop_module
from wenlu.base.config import to_dict
from wenlu.base.errors import UserError
from wenlu.base.files import sha256_file
from wenlu.base.log import JsonLines, read_rows
from wenlu.cli.main import main
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.models.config import ModelConfig
from wenlu.training.loop import Loop, train
from wenlu.training.objectives import OBJECTIVES
from wenlu.training.recipe import Recipe, TrainingConfig

STEPS = 14
CLOCK = ("seconds", "tokens_per_second")

CHILD = """
import json, os, signal, sys
import wenlu.base.files as files
import wenlu.training.loop as loop
from wenlu.base.config import from_dict
from wenlu.cli.main import main
from wenlu.training.recipe import Recipe

recipe, out, mode, where, at = sys.argv[1:]
at = int(at)
step, move = loop.Loop._step, os.replace

def counted(self, watch):
    step(self, watch)
    if self.progress.step == at and where == "step":
        os.kill(os.getpid(), signal.SIGKILL)
    if self.progress.step == at and where == "ask":
        print("ready", flush=True)
        sys.stdin.readline()

def moved(source, target):
    if where == "rename" and str(target).endswith(f"step-{at:08d}"):
        os.kill(os.getpid(), signal.SIGKILL)
    move(source, target)

loop.Loop._step, files.os.replace = counted, moved
if mode == "resume":
    sys.exit(main(["train", "--resume", "--out", out]))
outcome = loop.train(from_dict(Recipe, json.loads(recipe)), out)
sys.exit(130 if outcome.finished == "interrupted" else 0)
"""


class Killed(BaseException):
    """Stands for a kill within this process."""


def prose(lines: int) -> str:
    """Text that repeats itself but never quite, in two scripts."""
    return "\n".join(
        f"{n * n % 97} stoves burn in house {n % 13}; 第{n % 29}炉文火慢炖，{n * 7 % 31}人读书。" for n in range(lines)
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text(prose(300), encoding="utf-8")
    prepare(PrepareConfig((str(folder / "text.txt"),), tokenizer="byte", context=16), folder / "prepared")
    return folder / "prepared"


def recipe(data: Path, family: str = "lstm", dropout: float = 0.0, **training) -> Recipe:
    model = ModelConfig(family, dim=16, layers=2, heads=2, context=16, dropout=dropout)
    often = dict(steps=STEPS, batch=4, eval_every=5, eval_tokens=400, checkpoint_every=4, log_every=1, sample_tokens=4)
    return Recipe(
        PrepareConfig(paths=(str(data),)),
        model,
        TrainingConfig(**{**often, "device": "cpu", "compile": "off", "threads": 1, **training}),
    )


def ending(run: Path) -> dict:
    """All that two equal runs must share."""
    last = max((run / "wenlu/checkpoints").glob("step-*"))
    rows = read_rows(run / "wenlu/metrics.jsonl")
    return {
        "root": sha256_file(run / "model.safetensors"),
        "checkpoint": (last.name, *(sha256_file(last / f"{part}.safetensors") for part in ("weights", "optimizer"))),
        "rows": [{key: value for key, value in row.items() if key not in CLOCK} for row in rows],
        "order": json.loads((last / "progress.json").read_text())["order"],
    }


def kill_after(monkeypatch, step: int) -> None:
    whole = Loop._step

    def counted(self, watch):
        whole(self, watch)
        if self.progress.step == step:
            raise Killed

    monkeypatch.setattr(Loop, "_step", counted)


def kill_in_micro_batch(monkeypatch, call: int) -> None:
    """In the given micro-batch since now, counted over training only."""
    calls = iter(range(1, 1000))
    for kind, objective in OBJECTIVES.items():

        def counted(model, batch, loss=objective.loss):
            if model.training and next(calls) == call:
                raise Killed
            return loss(model, batch)

        monkeypatch.setitem(OBJECTIVES, kind, dataclasses.replace(objective, loss=counted))


def child(recipe: Recipe, out: Path, mode: str, where: str, at: int, **environment: str) -> subprocess.Popen:
    arguments = [json.dumps(to_dict(recipe)), str(out), mode, where, str(at)]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def killed(recipe: Recipe, out: Path, mode: str, where: str, at: int, **environment: str) -> None:
    process = child(recipe, out, mode, where, at, **environment)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors


@pytest.mark.parametrize(
    ("family", "dropout", "training"),
    [
        ("lstm", 0.0, {}),
        ("lstm", 0.1, {"micro_batch": 3}),
        ("qwen3", 0.0, {"micro_batch": 1}),
        ("qwen3", 0.1, {}),
        ("gpt2", 0.1, {"micro_batch": 2}),
        ("llama", 0.0, {}),
    ],
)
def test_stopped_twice_is_never_stopped(family, dropout, training, data, tmp_path):
    wanted = recipe(data, family, dropout, **training)
    train(wanted, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 7)
        train(wanted, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 10)
        train(None, tmp_path / "run", resume=True)
    outcome = train(wanted, tmp_path / "run", resume=True)
    assert outcome.finished == "steps" and outcome.step == STEPS
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")
    resumed = [e["step"] for e in read_rows(tmp_path / "run/wenlu/events.jsonl") if e["event"] == "resume"]
    assert resumed == [4, 8]


@pytest.mark.parametrize("family", ["lstm", "qwen3"])
def test_killed_between_micro_batches(family, data, tmp_path):
    wanted = recipe(data, family, 0.1, micro_batch=3)
    train(wanted, tmp_path / "whole")
    for call in (12, 6):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            kill_in_micro_batch(patch, call)
            train(None if call == 6 else wanted, tmp_path / "run", resume=call == 6)
    train(None, tmp_path / "run", resume=True)
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")


def test_stopped_in_a_later_epoch(tmp_path):
    (tmp_path / "text.txt").write_text(prose(12), encoding="utf-8")
    config = PrepareConfig((str(tmp_path / "text.txt"),), tokenizer="char", context=16, validation=0.0)
    prepare(config, tmp_path / "data")
    wanted = recipe(tmp_path / "data", "qwen3", steps=60)
    train(wanted, tmp_path / "whole")
    for step in (43, 51):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, step)
            train(wanted, tmp_path / "run", resume=step == 51)
    with pytest.MonkeyPatch.context() as patch:
        epochs = []
        whole = Loop._step
        patch.setattr(
            Loop,
            "_step",
            lambda s, watch: (epochs.extend(s.setup.material.order.epochs_at(s.progress.step)), whole(s, watch)),
        )
        train(wanted, tmp_path / "run", resume=True)
    assert epochs[0] >= 2
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")


def test_texts_prepared_in_the_run_folder_and_checkpoints_by_the_clock(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(prose(200), encoding="utf-8")
    wanted = recipe(tmp_path, checkpoint_every=0, log_every=3)
    data = PrepareConfig((str(tmp_path / "text.txt"),), tokenizer="char")
    wanted = dataclasses.replace(wanted, data=data)
    train(wanted, tmp_path / "whole")
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", -1.0)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 8)
        train(wanted, tmp_path / "run")
    train(wanted, tmp_path / "run", resume=True)
    resumed = [e["step"] for e in read_rows(tmp_path / "run/wenlu/events.jsonl") if e["event"] == "resume"]
    assert resumed == [7]
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")


def test_before_the_first_checkpoint_resume_starts_at_step_0(data, tmp_path, capsys):
    wanted = recipe(data)
    train(wanted, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        train(wanted, tmp_path / "run")
    assert not list((tmp_path / "run").glob("wenlu/checkpoints/step-*"))
    capsys.readouterr()
    train(None, tmp_path / "run", resume=True)
    assert "at step 0" in " ".join(capsys.readouterr().err.split())
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")


def test_killed_while_rows_are_dropped_how_far_the_run_had_come_is_kept(data, tmp_path):
    wanted = recipe(data)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 7)
        train(wanted, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        whole = JsonLines.keep_while

        def dropped(*given):
            whole(*given)
            raise Killed

        patch.setattr(JsonLines, "keep_while", dropped)
        train(None, tmp_path / "run", resume=True)
    assert read_rows(tmp_path / "run/wenlu/metrics.jsonl")[-1]["step"] == 4
    assert read_rows(tmp_path / "run/wenlu/events.jsonl")[-1]["reached"] == 7


def test_killed_before_there_is_data(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(prose(100), encoding="utf-8")
    config = PrepareConfig((str(tmp_path / "text.txt"),), tokenizer="byte")
    wanted = dataclasses.replace(recipe(tmp_path), data=config)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("wenlu.data.prepare._write", lambda *_: (_ for _ in ()).throw(Killed))
        train(wanted, tmp_path / "run")
    train(None, tmp_path / "run", resume=True)
    train(wanted, tmp_path / "whole")
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")


def test_killed_before_there_is_a_recipe(data, tmp_path):
    (tmp_path / "run/wenlu").mkdir(parents=True)
    (tmp_path / "run/wenlu/.recipe.json.0a1b2c3d.tmp").write_text('{"da')
    with pytest.raises(UserError, match="holds no run to resume"):
        train(None, tmp_path / "run", resume=True)
    assert train(recipe(data, steps=2), tmp_path / "run").step == 2


def test_a_torn_last_row_is_written_anew(data, tmp_path):
    wanted = recipe(data)
    train(wanted, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 7)
        train(wanted, tmp_path / "run")
    for name in ("metrics", "events"):
        with open(tmp_path / f"run/wenlu/{name}.jsonl", "ab") as file:
            file.write(b'{"step": 8, "lo')
    train(None, tmp_path / "run", resume=True)
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")


def test_a_finished_run_says_so(data, tmp_path, capsys):
    train(recipe(data), tmp_path / "run")
    before = ending(tmp_path / "run")
    capsys.readouterr()
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--json"]) == 0
    said = capsys.readouterr()
    assert "is finished: 14 steps; nothing to resume" in " ".join(said.err.split())
    assert json.loads(said.out)["finished"] == "steps"
    assert ending(tmp_path / "run") == before


def test_a_finished_run_is_finished_on_any_machine(data, tmp_path, monkeypatch, capsys):
    train(recipe(data), tmp_path / "run")
    monkeypatch.setattr(loop_module, "machine", lambda device: {"threads": 99})
    assert train(None, tmp_path / "run", resume=True).finished == "steps"
    assert "nothing to resume" in " ".join(capsys.readouterr().err.split())


def test_without_its_last_checkpoint_a_finished_run_trains_on_and_not_on_any_machine(data, tmp_path, monkeypatch):
    train(recipe(data), tmp_path / "run")
    before = ending(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/wenlu/checkpoints" / before["checkpoint"][0])
    with monkeypatch.context() as patch:
        true = loop_module.machine
        patch.setattr(loop_module, "machine", lambda device: {**true(device), "threads": 99})
        with pytest.raises(UserError, match=r"begun with threads = 1, here it is 99.*add --inexact"):
            train(None, tmp_path / "run", resume=True)
    assert train(None, tmp_path / "run", resume=True).finished == "steps"
    assert ending(tmp_path / "run") == before


def test_killed_between_the_last_checkpoint_and_the_report(data, tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Loop, "conclude", lambda self: (_ for _ in ()).throw(Killed))
        train(recipe(data), tmp_path / "run")
    assert not (tmp_path / "run/wenlu/report.html").exists()
    assert train(None, tmp_path / "run", resume=True).finished == "steps"
    assert (tmp_path / "run/wenlu/report.html").exists()
    assert read_rows(tmp_path / "run/wenlu/events.jsonl")[-1]["event"] == "finished"


@pytest.mark.parametrize("family", ["lstm", "qwen3"])
def test_sigkill_twice(family, data, tmp_path):
    """By the kernel: after a step, then between a checkpoint's last byte and its rename."""
    wanted = recipe(data, family, 0.1)
    train(wanted, tmp_path / "whole")
    killed(wanted, tmp_path / "run", "new", "step", 6)
    killed(wanted, tmp_path / "run", "resume", "rename", 12)
    checkpoints = tmp_path / "run/wenlu/checkpoints"
    assert [p.name for p in sorted(checkpoints.glob("step-*"))] == ["step-00000004", "step-00000008"]
    assert len(list(checkpoints.glob(".step-*.tmp"))) == 1
    train(None, tmp_path / "run", resume=True)
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")
    assert not list(checkpoints.glob(".step-*.tmp"))


@pytest.mark.parametrize(("number", "mode"), [(signal.SIGTERM, "new"), (signal.SIGINT, "resume")])
def test_a_signal_saves_and_says_how_to_go_on(number, mode, data, tmp_path):
    wanted = recipe(data, "qwen3", 0.1)
    train(wanted, tmp_path / "whole")
    if mode == "resume":
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, 5)
            train(wanted, tmp_path / "run")
    process = child(wanted, tmp_path / "run", mode, "ask", 6)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate("\n")
    assert process.returncode == 130, errors
    said = " ".join(errors.split())
    assert "stopped after step 6, everything saved" in said and "wenlu train --resume --out" in said
    assert (tmp_path / "run/wenlu/checkpoints/step-00000006").is_dir()
    assert read_rows(tmp_path / "run/wenlu/events.jsonl")[-1] == {"event": "interrupted", "step": 6}
    train(None, tmp_path / "run", resume=True)
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on a processor needs g++")
def test_compiled_in_three_processes_is_compiled_in_one(data, tmp_path):
    """Every process compiles for itself: nothing is shared but the checkpoints."""
    wanted = recipe(data, "qwen3", 0.1, compile="on")
    for out, mode, where, at in (("whole", "new", "none", 0), ("run", "new", "step", 6), ("run", "resume", "step", 10)):
        cache = str(tmp_path / f"cache-{out}-{at}")
        process = child(wanted, tmp_path / out, mode, where, at, TORCHINDUCTOR_CACHE_DIR=cache)
        _, errors = process.communicate()
        assert process.returncode == (-signal.SIGKILL if at else 0), errors
    process = child(wanted, tmp_path / "run", "resume", "none", 0, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")
