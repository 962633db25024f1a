"""What `--minutes` chooses: within the memory, by what the recipe leaves open, and nothing measured without it."""

import dataclasses
import itertools
import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import wenlu.training.plan as plan_module
import wenlu.training.timing as timing
from wenlu.base.errors import UserError
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.data.shards import open_data
from wenlu.models.config import ModelConfig
from wenlu.training.law import LSTM, TRANSFORMER, Text, bits_per_byte, dropout_for, error_of
from wenlu.training.loop import train
from wenlu.training.material import text_material
from wenlu.training.plan import Planner, lines
from wenlu.training.recipe import OptimizerConfig, Recipe, TrainingConfig, resolve
from wenlu.training.setup import plan_for
from wenlu.training.timing import Machine, key, work

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
NOVEL = Text(bytes=1_900_000, tokens=600_000, vocab=1920, level=2.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    lines = (
        f"{n * n % 977} stoves burn in house {n % 131}; 第{n % 29}炉文火慢炖，{n * 7 % 311}人读书。"
        for n in range(4000)
    )
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    prepare(PrepareConfig((str(folder / "text.txt"),), tokenizer="bpe:512", skip=("all",)), folder / "out", page=False)
    return open_data(folder / "out")


@pytest.fixture
def machine(monkeypatch):
    """A machine whose updates take 1 ms a layer and 1 s for 2e11 operations, a third more with dropout; what was timed
    is counted."""
    timed = []

    def time(self, recipe):
        timed.append(key(recipe))
        self._weights = None
        seconds = (1e-3 * recipe.model.layers + work(recipe) / 2e11) * (4 / 3 if recipe.model.dropout else 1)
        self.timed[key(recipe)] = recipe, seconds

    monkeypatch.setattr(Machine, "time", time)
    return timed


def recipe(minutes: float, **sections) -> Recipe:
    base = Recipe(training=TrainingConfig(minutes=minutes))
    return dataclasses.replace(base, **sections)


def planned(wanted: Recipe, data) -> tuple:
    plan = Planner(wanted, data, CPU, plan_module.time.monotonic()).plan()
    return plan, resolve(wanted, plan.chosen)


def test_a_plan_says_what_it_comes_to(data, machine):
    plan, resolved = planned(recipe(3), data)
    tokens = resolved.training.steps * resolved.training.batch * resolved.model.context
    assert plan.tokens == tokens and plan.steps == resolved.training.steps
    assert 0.85 * 180 < plan.steps * plan.step_seconds < 180
    assert plan.epochs == pytest.approx(tokens / len(data.train))
    assert plan.parameters > 0 and plan.flops > 0 and plan.memory_bytes > 0 and 0 < plan.bits_per_byte < 8
    said = dict(lines(plan, resolved))
    assert f"{plan.parameters:,} parameters" in said["model"] and "bits per byte" in said["expected"]


def test_few_shapes_are_timed_the_chosen_one_among_them(data, machine):
    plan, resolved = planned(recipe(1), data)
    assert (
        key(dataclasses.replace(resolved, model=dataclasses.replace(resolved.model, vocab=data.tokenizer.vocab)))
        in machine
    )
    assert 3 <= len(machine) <= 9 and len(plan.measured) == len(set(machine))


def test_more_time_is_foretold_to_be_better(data, machine):
    foretold = [planned(recipe(minutes), data)[0].bits_per_byte for minutes in (0.5, 1, 3, 10, 60)]
    assert foretold == sorted(foretold, reverse=True)


@pytest.mark.parametrize("family", ["lstm", "gpt2", "llama", "qwen3"])
def test_every_family_has_its_plan(data, machine, family):
    _, resolved = planned(recipe(2, model=ModelConfig(family)), data)
    assert resolved.model.family == family and resolved.training.steps >= plan_module.FEWEST_STEPS


def test_what_the_recipe_states_stays(data, machine):
    stated = recipe(
        2, model=ModelConfig(dim=96, heads=2, context=64, dropout=0.3), optimizer=OptimizerConfig(muon_lr=0.01)
    )
    odd = planned(recipe(2, model=ModelConfig(dim=330)), data)[1].model
    assert (odd.dim, odd.heads) == (330, 5), "heads follow the width that was stated"
    plan, resolved = planned(stated, data)
    assert (resolved.model.dim, resolved.model.heads, resolved.model.context) == (96, 2, 64)
    assert resolved.model.dropout == 0.3 and resolved.optimizer.muon_lr == 0.01
    assert "dim" not in plan.chosen["model"]


def test_a_stated_number_of_steps_is_refused_before_anything_is_prepared(tmp_path):
    with pytest.raises(
        UserError, match=r"the minutes decide how many steps there are: leave --steps out, or --minutes"
    ):
        train(recipe(2, training=TrainingConfig(minutes=2, steps=50)), tmp_path / "run")
    with pytest.raises(UserError, match="the minutes decide how many steps there are"):
        plan_for(recipe(2, training=TrainingConfig(minutes=2, steps=50)))
    assert not list(tmp_path.iterdir())


def test_a_plan_keeps_to_the_memory_that_is_free(data, machine, monkeypatch):
    free = planned(recipe(600), data)[0].memory_bytes
    monkeypatch.setattr(plan_module, "available_memory", lambda device: free // 2)
    assert planned(recipe(600), data)[0].memory_bytes <= plan_module.MEMORY * free // 2
    monkeypatch.setattr(plan_module, "available_memory", lambda device: 1000)
    with pytest.raises(UserError, match=r"no model that --minutes knows of fits into this memory and text"):
        planned(recipe(600), data)


def test_a_time_that_is_over_before_the_first_step_is_refused(data, machine):
    with pytest.raises(UserError, match=r"0\.001 min are over before the first step .* give more"):
        planned(recipe(0.001), data)


def test_nothing_is_measured_without_minutes(data, monkeypatch, tmp_path):
    def measured(self, recipe):
        raise AssertionError("measured")

    monkeypatch.setattr(Machine, "time", measured)
    training = TrainingConfig(steps=2, batch=2, sample_tokens=0, device="cpu", compile="off")
    model = ModelConfig(dim=16, layers=1, heads=2, context=8)
    train(Recipe(PrepareConfig((str(data.folder),)), model, training), tmp_path / "run")
    with pytest.raises(AssertionError, match="measured"):
        minutes = dataclasses.replace(training, steps=TrainingConfig.steps, minutes=1.0)
        train(Recipe(PrepareConfig((str(data.folder),)), model, minutes), tmp_path / "timed")


def test_a_busy_machine_is_not_timed_for_ever(data, monkeypatch):
    """Each look at the clock finds that two seconds have passed."""
    looks = itertools.count()
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: 2.0 * next(looks)))
    model = Machine(partial(text_material, data), CPU, 0.1)
    model.time(recipe(1, model=ModelConfig(dim=16, layers=1, heads=2, vocab=512), training=TrainingConfig(batch=2)))
    assert next(looks) == 5, "one update instead of three"
    assert [seconds for _, seconds in model.timed.values()] == [2.0]


def test_a_slow_measurement_ends_with_what_was_timed(data, monkeypatch):
    """Shapes that take longer than foretold, so that each choice is of another one; a clock that tells of 0.1 s, or of
    5 s of a minute, for each that is timed."""
    timed = []

    def time(self, shape):
        timed.append(key(shape))
        self._weights = None
        self.timed[key(shape)] = shape, work(shape) / 1e11 * (5 if len(timed) > 3 else 1)

    monkeypatch.setattr(Machine, "time", time)
    shapes = {}
    for each in (0.1, 5.0):
        timed.clear()
        monkeypatch.setattr(plan_module, "time", SimpleNamespace(monotonic=lambda each=each: each * len(timed)))
        Planner(recipe(1), data, CPU, 0.0).plan()
        shapes[each] = len({one[:4] for one in timed})
    assert shapes[5.0] == 4 < shapes[0.1]


@pytest.mark.parametrize(("with_one", "stated", "taken"), [(0.2, 0, 1), (0.95, 0, 0), (0.2, 4, 4)])
def test_fewer_threads_are_taken_where_they_are_faster_and_none_are_stated(data, monkeypatch, with_one, stated, taken):
    """Four threads that wait for one another: half of them take 0.8 of the time, one takes 0.2 or 0.95 of that."""

    def time(self, shape):
        self._weights = None
        factor = {2: 0.8, 1: 0.8 * with_one}.get(shape.training.threads, 1.0)
        self.timed[key(shape)] = shape, factor * work(shape) / 1e11

    monkeypatch.setattr(Machine, "time", time)
    monkeypatch.setattr(plan_module.torch, "get_num_threads", lambda: 4)
    wanted = recipe(1, training=TrainingConfig(minutes=1, threads=stated))
    plan, resolved = planned(wanted, data)
    assert resolved.training.threads == (taken or 2)
    assert {row["threads"] for row in plan.measured} >= {resolved.training.threads}


def test_threads_are_as_they_were_after_a_shape_is_timed_with_fewer(data, monkeypatch):
    seen, updates = [], timing.Updates.gradients

    def gradients(self, step):
        seen.append(torch.get_num_threads())
        return updates(self, step)

    monkeypatch.setattr(timing.Updates, "gradients", gradients)
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        small = ModelConfig(dim=16, layers=1, heads=2, vocab=512)
        Machine(partial(text_material, data), CPU, 0.0).time(
            recipe(1, model=small, training=TrainingConfig(batch=2, threads=1))
        )
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)


def test_the_machine_is_modelled_from_what_was_timed(data, machine):
    model = Machine(partial(text_material, data), CPU, 0.0)
    shapes = [
        recipe(1, model=ModelConfig(dim=dim, layers=layers, heads=2, vocab=512), training=TrainingConfig(batch=batch))
        for dim, layers, batch in itertools.product((128, 192, 256), (2, 4), (8, 32))
    ]
    for shape in shapes[::3]:
        model.time(shape)
    for shape in shapes:
        assert model.seconds(shape) == pytest.approx(1e-3 * shape.model.layers + work(shape) / 2e11, rel=0.5)


def bits(
    text: Text = NOVEL, dim: int = 192, batch: int = 16, steps: int = 1000, family: str = "qwen3", **model
) -> float:
    return bits_per_byte(text, ModelConfig(family, dim=dim, heads=2, vocab=text.vocab, **model), batch, steps)


@pytest.mark.parametrize("family", ["lstm", "qwen3"])
def test_the_law_goes_the_right_way(family):
    assert bits(family=family, steps=2000) < bits(family=family, steps=1000)
    assert bits(family=family, dim=256) < bits(family=family, dim=128)
    assert bits(family=family, batch=16, steps=1000) < bits(family=family, batch=64, steps=250)
    assert bits(family=family, context=256, batch=8) < bits(family=family, context=64, batch=32)
    again = dataclasses.replace(NOVEL, bytes=190_000, tokens=60_000)
    assert bits(again, family=family) > bits(family=family)


def test_reading_for_ever_helps_only_so_much():
    assert bits(steps=10**6) == pytest.approx(bits(steps=10**7), rel=0.01)


def test_dropout_comes_with_repetition():
    """Where it was measured, what was best: benchmarks/results/dial_choices.json."""
    assert [dropout_for(epochs) for epochs in (0.5, 2, 4, 10, 30)] == [0, 0, 0.1, 0.2, 0.2]


def test_the_constants_are_those_that_were_fitted():
    fitted = json.loads((ROOT / "benchmarks/results/dial_fit.json").read_text(encoding="utf-8"))["fitted"]
    assert vars(TRANSFORMER) == fitted["transformer"]["constants"]
    assert vars(LSTM) == fitted["lstm"]["constants"]


@pytest.mark.parametrize(("family", "kind"), [("lstm", "lstm"), ("qwen3", "transformer")])
def test_the_error_is_that_within_which_two_of_three_novels_were_foretold_when_left_out(family, kind):
    fitted = json.loads((ROOT / "benchmarks/results/dial_fit.json").read_text(encoding="utf-8"))["fitted"]
    novels = fitted[kind]["errors_left_out"].values()
    misses = sorted(sum(map(abs, errors)) / len(errors) for errors in novels)
    least = misses[math.ceil(len(misses) * 2 / 3) - 1]
    assert least <= error_of(ModelConfig(family, heads=1)) <= least + 0.01
