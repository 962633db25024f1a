"""A run of a given length in time: turns at the marks, a schedule without jumps, the same turns after a resume."""

import dataclasses
import json
import shutil

import pytest

import wenlu.training.pacing as pacing_module
import wenlu.training.setup as setup
from wenlu.base import log
from wenlu.base.errors import UserError
from wenlu.base.files import sha256_file
from wenlu.base.log import JsonLines, read_rows
from wenlu.data.prepare import PrepareConfig
from wenlu.models.config import ModelConfig
from wenlu.training.checkpoint import Progress
from wenlu.training.loop import train
from wenlu.training.pacing import Pacing
from wenlu.training.plan import Plan
from wenlu.training.recipe import OptimizerConfig, Recipe, ScheduleConfig, TrainingConfig
from wenlu.training.schedules import factor


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told to go on."""
    now = [100.0]
    monkeypatch.setattr(pacing_module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def events(tmp_path):
    lines = JsonLines(tmp_path / "events.jsonl")
    yield lines
    lines.close()


def walk(pacing: Pacing, progress: Progress, clock: list[float], seconds: float) -> list[list[int]]:
    """Step at so many seconds a step until the planned number is reached; the turns."""
    pacing.start()
    while progress.step < pacing.steps:
        clock[0] += seconds
        progress.step += 1
        pacing.after_step()
    return progress.turns


@pytest.mark.parametrize(("planned", "seconds"), [(500, 0.05), (500, 0.1), (500, 0.2), (28, 0.15), (2, 0.05)])
def test_the_time_is_met_whatever_the_pace(clock, events, planned, seconds):
    progress = Progress()
    pacing = Pacing(1.0, planned, clock[0], progress, events)
    clock[0] += 5
    walk(pacing, progress, clock, seconds)
    assert 0.9 * 60 <= pacing.clock() + pacing_module.REPORT_SECONDS <= 60


def test_the_time_left_is_that_of_the_clock_not_of_the_steps(clock, events, monkeypatch):
    pacing = Pacing(2.0, 10, clock[0], Progress(step=9), events)
    clock[0] += 20
    assert pacing.left() == pytest.approx(pacing_module.AIM * 120 - 20)
    bar = log.progress("training", left=pacing.left)
    bar.add_task("", total=10, completed=9, note="")
    task = bar.tasks[0]
    assert bar.columns[-2].render(task).plain == "01:36"
    clock[0] += 1000
    assert pacing.left() == 0
    assert Pacing(0, 10, clock[0], Progress(), events).left() is None
    assert log.progress("training", left=lambda: 3700).columns[-2].render(task).plain == "1:01:40"
    assert log.progress("training", left=lambda: None).columns[-2].render(task).plain == "--:--"


def test_a_machine_that_slows_down_still_ends_in_time(clock, events):
    progress = Progress()
    pacing = Pacing(2.0, 1000, clock[0], progress, events)
    pacing.start()
    while progress.step < pacing.steps:
        clock[0] += 0.1 if clock[0] < 150 else 0.15
        progress.step += 1
        pacing.after_step()
    assert 0.9 * 120 <= pacing.clock() + pacing_module.REPORT_SECONDS <= 120
    assert len(progress.turns) == len(pacing_module.MARKS)


def test_turns_are_noted_before_they_act(clock, events, tmp_path):
    progress = Progress()
    pacing = Pacing(1.0, 500, clock[0], progress, events)
    turns = walk(pacing, progress, clock, 0.2)
    rows = read_rows(tmp_path / "events.jsonl")
    assert turns and [[row["step"], row["steps"]] for row in rows] == turns
    assert {row["event"] for row in rows} == {"turn"}


def test_the_schedule_does_not_jump_at_a_turn(clock, events):
    progress = Progress()
    pacing = Pacing(1.0, 500, clock[0], progress, events)
    schedule = ScheduleConfig(warmup=0.1, decay=1.0)
    rates, at = [], []
    pacing.start()
    while progress.step < pacing.steps:
        rates.append(factor(schedule, pacing.place, pacing.steps))
        clock[0] += 0.3 if progress.step < 60 else 0.1
        progress.step += 1
        if pacing.after_step():
            at.append(progress.step)
    assert at and all(rates[step] < rates[step - 1] < rates[step] + 0.02 for step in at)
    assert rates[-1] < 0.02


def test_without_a_turn_the_schedule_goes_by_whole_steps(clock, events):
    progress = Progress(step=7)
    pacing = Pacing(0.0, 10, clock[0], progress, events)
    assert (pacing.place, pacing.steps) == (7, 10) and not pacing.after_step()


def test_recorded_turns_are_taken_at_their_steps_whatever_the_clock_says(clock, events, tmp_path):
    progress = Progress()
    pacing = Pacing(1.0, 500, clock[0], progress, events)
    pacing.replay([[40, 300], [90, 200]], reached=150)
    clock[0] += 10_000
    pacing.start()
    while progress.step < 90:
        progress.step += 1
        assert pacing.after_step() == (progress.step in (40, 90))
    assert progress.turns == [[40, 300], [90, 200]] and pacing.steps == 200
    while progress.step < 150:  # the run had come so far without another turn
        clock[0] += 10
        progress.step += 1
        assert not pacing.after_step()
    assert not read_rows(tmp_path / "events.jsonl")


def test_a_turn_at_the_step_of_the_checkpoint_is_taken_and_so_are_those_after_it(clock, events, tmp_path):
    progress = Progress(step=40)  # the checkpoint was written before the turn of its step
    pacing = Pacing(1.0, 500, clock[0], progress, events)
    pacing.replay([[40, 300], [55, 200]], reached=60)
    assert progress.turns == [[40, 300]] and pacing.steps == 300
    pacing.start()
    while progress.step < 60:
        progress.step += 1
        assert pacing.after_step() == (progress.step == 55)
    assert progress.turns == [[40, 300], [55, 200]] and pacing.steps == 200
    again = Pacing(1.0, 500, clock[0], Progress(step=45, turns=[[40, 300]]), events)
    again.replay([[40, 300], [55, 200]], reached=60)
    assert again.steps == 300 and not read_rows(tmp_path / "events.jsonl")


def test_the_clock_goes_on_from_the_checkpoint(clock, events):
    pacing = Pacing(1.0, 500, clock[0] - 3, Progress(clock=20.0), events)
    assert pacing.clock() == 23.0


@pytest.fixture
def timed(tmp_path, monkeypatch) -> Recipe:
    """A recipe of about a second, planned at once for more steps than fit."""
    plan = {name: 1 for name in (field.name for field in dataclasses.fields(Plan))}
    plan |= {
        "minutes": 0.02,
        "chosen": {"model": {"dim": 16}, "training": {"steps": 10**6}},
        "measured": [],
        "unforetold": "",
    }

    class Planner:
        def __init__(self, *given):
            pass

        def plan(self):
            return Plan(**plan)

    monkeypatch.setattr(setup, "Planner", Planner)
    monkeypatch.setattr(pacing_module, "REPORT_SECONDS", 0.0)
    text = tmp_path / "text.txt"
    text.write_text(
        "\n".join(f"{n * n % 97} stoves burn; 第{n % 29}炉文火慢炖。" for n in range(300)), encoding="utf-8"
    )
    training = TrainingConfig(
        minutes=0.02, batch=2, eval_every=60, eval_tokens=200, checkpoint_every=25, keep=10_000, log_every=5,
        sample_tokens=0, device="cpu", compile="off", threads=1,
    )  # fmt: skip
    model = ModelConfig(layers=1, heads=2, context=8)
    return Recipe(
        PrepareConfig((str(text),), tokenizer="byte", skip=("all",)), model, training, OptimizerConfig("adamw")
    )


def checkpoints(run) -> dict[str, str]:
    return {path.parent.name: sha256_file(path) for path in run.glob("wenlu/checkpoints/*/weights.safetensors")}


def test_a_resumed_run_takes_the_same_turns_to_the_same_bits(timed, tmp_path):
    whole = tmp_path / "whole"
    train(timed, whole)
    turns = [row for row in read_rows(whole / "wenlu/events.jsonl") if row["event"] == "turn"]
    assert turns, "a run this short on time has turned"
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    kept = sorted((again / "wenlu/checkpoints").iterdir())
    for folder in kept[1:]:
        shutil.rmtree(folder)
    outcome = train(timed, again, resume=True)
    assert outcome.finished == "steps"
    assert checkpoints(again) == checkpoints(whole)
    rows = read_rows(again / "wenlu/events.jsonl")
    assert [row for row in rows if row["event"] == "turn"] == turns
    assert sum(row["event"] == "plan" for row in rows) == 1


def test_the_planned_recipe_is_what_is_saved(timed, tmp_path):
    train(timed, tmp_path / "run")
    saved = json.loads((tmp_path / "run/wenlu/recipe.json").read_text())
    assert saved["model"]["dim"] == 16 and saved["training"]["minutes"] == 0.02
    assert json.loads((tmp_path / "run/config.json").read_text())["hidden_size"] == 16
    page = (tmp_path / "run/wenlu/report.html").read_text()
    assert "Planned and actual" in page
    rows = read_rows(tmp_path / "run/wenlu/events.jsonl")
    held = next(row["held_bytes"] for row in rows if row["event"] == "plan")
    peak = next(row["peak"] for row in rows if row["event"] == "finished")
    assert f"{(peak - held) / 2**20:,.0f} MiB more, {peak / 2**20:,.0f} MiB in all" in page


def test_another_recipe_is_refused_on_resume_but_not_what_was_left_open(timed, tmp_path):
    train(timed, tmp_path / "run")
    assert train(timed, tmp_path / "run", resume=True).finished == "steps"
    other = dataclasses.replace(timed, model=dataclasses.replace(timed.model, dim=64))
    with pytest.raises(UserError, match=r"the run was begun with model.dim = 16, not 64"):
        train(other, tmp_path / "run", resume=True)
