"""The search, on a training that takes and comes to what a formula says."""

import json
import math

import pytest

from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, read_rows
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.models.config import ModelConfig
from wenlu.training.loop import Outcome
from wenlu.training.recipe import OptimizerConfig, Recipe, TrainingConfig, read_recipe
from wenlu.training.run_folder import RunFolder
from wenlu.training.sweep import log as log_module
from wenlu.training.sweep import runs as runs_module
from wenlu.training.sweep import search as search_module
from wenlu.training.sweep.folder import SweepFolder
from wenlu.training.sweep.search import sweep
from wenlu.training.sweep.space import SweepConfig


class World:
    """A clock, and a `train` that moves it."""

    def __init__(self):
        self.now = 1000.0
        self.trained: list[tuple[Recipe, str, bool]] = []
        self.slow = 1.0
        self.stop_before: int | None = None
        self.diverging: set[float] = set()
        self.diverging_on: set[tuple[int, int]] = set()
        """Rungs and seeds."""

    def train(self, recipe, out, *, resume=False, report=True):
        assert report == (recipe.training.steps == 2), "one to warm up, and one of the winner at the end"
        if len(self.trained) == self.stop_before:
            RunFolder(out).create(recipe)
            self.stop_before = None
            raise KeyboardInterrupt
        folder, steps, seed = RunFolder(out), recipe.training.steps, recipe.training.seed
        if not resume:
            folder.create(recipe)
        self.trained.append((recipe, folder.root.name, resume))
        lr, taken = recipe.optimizer.lr, self.slow * steps * recipe.model.dim / 2048
        self.now += 0.5 + taken
        rung = int(folder.root.name.partition("-")[0]) if folder.root.name[0].isdigit() else None
        if lr in self.diverging or (rung, seed) in self.diverging_on:
            self._note(folder.events_file, event="nonfinite", step=3)
            raise UserError("step 4: weight head is not finite")
        loss = abs(math.log10(max(lr, 1e-9)) + 2) + 10 / steps + (seed * 7 % 5) / 10 + (seed * lr * 1000 % 3) / 1000
        self._note(folder.metrics_file, step=steps, held_out=2 * loss, bits_per_byte=loss)
        self._note(folder.metrics_file, step=steps, held_out=2 * loss + 1, bits_per_byte=loss + 0.5)
        return Outcome(folder.root, "steps", steps, 2 * loss, taken)

    def _note(self, path, **row):
        log = JsonLines(path)
        log.write(**row)
        log.close()


@pytest.fixture
def world(monkeypatch):
    world = World()
    for module in (search_module, log_module, runs_module):
        monkeypatch.setattr(module, "monotonic", lambda: world.now)
    monkeypatch.setattr(runs_module, "train", world.train)
    monkeypatch.setattr(runs_module, "write_report", lambda folder: None)
    monkeypatch.setattr(search_module, "write_report", lambda folder: folder.report_file.write_text("report"))
    monkeypatch.setattr(search_module, "write_page", lambda path, *facts: path.write_text("page"))
    return world


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    lines = [f"{n} 炉火 {n * n % 89}: the stove in house {n % 7} burns" for n in range(150)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    prepare(PrepareConfig((str(folder / "text.txt"),), tokenizer="byte", context=16, skip=("all",)), folder / "data")
    return folder / "data"


@pytest.fixture
def recipe(data):
    return Recipe(
        PrepareConfig((str(data),)),
        ModelConfig(dim=16, layers=1, heads=2, context=16),
        TrainingConfig(steps=2000, batch=2, threads=1, seed=5, eval_every=50, patience=3, device="cpu"),
        OptimizerConfig(lr=0.001),
    )


NINE = "optimizer.lr=0.0001,0.0003,0.001,0.003,0.01,0.03,0.1,0.3,1"


def rows_of(folder, event=None):
    return [row for row in read_rows(folder / "sweep.jsonl") if event in (None, row["event"])]


def test_the_best_go_on_with_the_same_seeds_and_the_time_is_filled(recipe, world, tmp_path):
    began = world.now
    outcome = sweep(recipe, SweepConfig((NINE,), 3.0), tmp_path / "lr", began=began)
    rungs = rows_of(tmp_path / "lr", "rung")
    assert [len(rung["configurations"]) for rung in rungs] == [9, 3, 2] and [r["then"] for r in rungs] == [3, 2, 0]
    assert set(rungs[1]["configurations"]) == {3, 4, 5} and rungs[1]["configurations"][0] == 4
    assert rungs[0]["steps"] * 9 == pytest.approx(rungs[2]["steps"], rel=0.2)
    results = rows_of(tmp_path / "lr", "result")
    for rung in rungs:
        mine = [row for row in results if row["rung"] == rung["rung"]]
        seeds = {c: [row["seed"] for row in mine if row["configuration"] == c] for c in rung["configurations"]}
        assert len({tuple(s) for s in seeds.values()}) == 1 and seeds[4][:2] == [5, 6]
    assert 0.8 * 180 <= world.now - began <= 180
    assert outcome.finished == "rungs" and outcome.unit == "bits/byte" and outcome.seconds <= 180
    assert outcome.standings[0].name == "optimizer.lr=0.01" and len(outcome.standings) == 9
    assert len(outcome.standings[0].losses) >= 3 and outcome.standings[1].interval is not None


def test_what_is_left_behind(recipe, world, tmp_path):
    outcome = sweep(recipe, SweepConfig((NINE,), 3.0), tmp_path / "lr", began=world.now)
    best = outcome.standings[0]
    assert {path.name for path in (tmp_path / "lr").iterdir()} == {
        *("sweep.jsonl", "lock", "best", "recipe.toml", "sweep.html")
    }
    kept = RunFolder(tmp_path / "lr/best").recipe()
    assert kept.optimizer.lr == 0.01 and kept.training.seed == min(best.losses, key=best.losses.get)
    winner = read_recipe(tmp_path / "lr/recipe.toml")
    assert winner.optimizer.lr == 0.01 and winner.training == recipe.training and winner.data == recipe.data


def test_runs_are_compared_alike(recipe, world, tmp_path):
    sweep(recipe, SweepConfig((NINE,), 3.0), tmp_path / "lr", began=world.now)
    for trained, name, resumed in world.trained:
        training = trained.training
        assert not resumed and training.eval_tokens == training.sample_tokens == training.patience == 0
        assert math.ceil(training.steps / training.eval_every) <= 2 and training.compile == "off"
        assert (trained.optimizer.lr == 1e-6) == (name == "pilot")


def plain(rows):
    return [{key: value for key, value in row.items() if key not in ("clock", "later_seconds")} for row in rows]


def test_killed_at_any_row_it_ends_the_same(recipe, world, tmp_path):
    config = SweepConfig(("optimizer.lr=0.001,0.01", "model.dim=16,32"), 0.6)
    sweep(recipe, config, tmp_path / "whole", began=world.now)
    lines = (tmp_path / "whole/sweep.jsonl").read_bytes().splitlines(keepends=True)
    expected = rows_of(tmp_path / "whole")
    assert len(rows_of(tmp_path / "whole", "pilot")) == 2 and len(expected) > 15
    for count in range(1, len(lines) + 1):
        folder = tmp_path / f"killed-{count}"
        folder.mkdir()
        torn = lines[count][: len(lines[count]) // 2] if count < len(lines) else b""
        (folder / "sweep.jsonl").write_bytes(b"".join(lines[:count]) + torn)
        outcome = sweep(None, None, folder, resume=True, began=world.now)
        assert plain(rows_of(folder)) == plain(expected), count
        assert outcome.standings[0].name == "optimizer.lr=0.01 model.dim=16"
        assert (folder / "recipe.toml").read_text() == (tmp_path / "whole/recipe.toml").read_text()


def test_interrupted_in_a_run_it_goes_on_with_that_run(recipe, world, tmp_path, capsys):
    config = SweepConfig(("optimizer.lr=0.001,0.01,0.1",), 1.0)
    world.stop_before = 5
    outcome = sweep(recipe, config, tmp_path / "lr", began=world.now)
    assert outcome.finished == "interrupted" and outcome.standings == []
    assert f"wenlu sweep --resume --out {tmp_path}/lr" in capsys.readouterr().err.replace("\n", " ")
    stopped = rows_of(tmp_path / "lr")
    assert stopped[-1]["event"] == "interrupted"
    under_way = [path.name for path in (tmp_path / "lr/runs").iterdir()]
    assert len(under_way) == 1
    assert sweep(None, None, tmp_path / "lr", resume=True, began=world.now).finished == "rungs"
    assert [name for _, name, resumed in world.trained if resumed] == under_way
    assert sweep(recipe, config, tmp_path / "lr", resume=True, began=world.now).finished == "rungs"


def test_time_before_a_kill_counts(recipe, world, tmp_path, monkeypatch):
    """No row tells how long the run that was killed had been going; the run itself does."""
    sweep(recipe, SweepConfig((NINE,), 3.0), tmp_path / "lr", began=world.now)
    lines = (tmp_path / "lr/sweep.jsonl").read_bytes().splitlines(keepends=True)
    killed = tmp_path / "killed"
    killed.mkdir()
    first = next(n for n, line in enumerate(lines) if json.loads(line)["event"] == "result")
    (killed / "sweep.jsonl").write_bytes(b"".join(lines[:first]))
    row = json.loads(lines[first])
    run = RunFolder(killed / "runs" / f"0-{row['configuration']}-{row['seed']}")
    run.create(recipe)
    monotonic, world.slow = world.now, 0.0  # what is left of the run takes no time
    whole = World.train

    def rest(world, recipe, out, *, resume=False, report=True):
        outcome = whole(world, recipe, out, resume=resume, report=report)
        return Outcome(outcome.run, outcome.finished, outcome.step, outcome.held_out, 8.0 if resume else 0.0)

    monkeypatch.setattr(runs_module, "train", lambda *a, **k: rest(world, *a, **k))
    sweep(None, None, killed, resume=True, began=monotonic)
    before, after = rows_of(killed)[first - 1 : first + 1]
    assert after["resumed"] and after["clock"] - before["clock"] == pytest.approx(8.0)


def test_a_configuration_that_diverges_is_the_worst_and_ends_nothing(recipe, world, tmp_path, capsys):
    world.diverging = {0.01}
    outcome = sweep(recipe, SweepConfig(("optimizer.lr=0.001,0.01,0.1",), 1.0), tmp_path / "lr", began=world.now)
    assert outcome.standings[-1].name == "optimizer.lr=0.01" and math.isinf(outcome.standings[-1].mean)
    assert "optimizer.lr=0.01 · seed 5: diverged" in capsys.readouterr().err
    assert rows_of(tmp_path / "lr", "rung")[1]["configurations"] == [0, 2]
    world.diverging = {0.001, 0.01, 0.1}
    with pytest.raises(UserError, match="every configuration diverged: begin a new sweep over lower"):
        sweep(recipe, SweepConfig(("optimizer.lr=0.001,0.01,0.1",), 1.0), tmp_path / "all", began=world.now)
    world.diverging = {0.001, 0.1}
    outcome = sweep(recipe, SweepConfig(("optimizer.lr=0.001,0.01,0.1",), 1.0), tmp_path / "one", began=world.now)
    assert outcome.standings[0].name == "optimizer.lr=0.01" and outcome.standings[0].rung == 1


def test_where_each_of_the_last_rung_diverged_the_best_that_did_not_wins(recipe, world, tmp_path, capsys):
    config = SweepConfig(("optimizer.lr=0.001,0.01,0.1",), 1.0)
    seed, world.diverging_on = recipe.training.seed, {(1, recipe.training.seed + 1)}
    outcome = sweep(recipe, config, tmp_path / "lr", began=world.now)
    last = rows_of(tmp_path / "lr", "rung")[1]["configurations"]
    left = ({0, 1, 2} - set(last)).pop()
    assert [standing.rung for standing in outcome.standings] == [0, 1, 1]
    best, *others = outcome.standings
    assert best.configuration == left and all(map(math.isfinite, best.losses.values()))
    assert all(math.isfinite(standing.losses[seed]) and math.isinf(standing.mean) for standing in others)
    assert read_recipe(tmp_path / "lr/recipe.toml").optimizer.lr == (0.001, 0.01, 0.1)[left]
    assert not (tmp_path / "lr/best").exists()
    said = " ".join(capsys.readouterr().err.split())
    assert "every configuration of this rung diverged: the best that did not wins" in said
    assert sweep(None, None, tmp_path / "lr", resume=True, began=world.now).standings == outcome.standings
    world.diverging = {(0.001, 0.01, 0.1)[left]}
    with pytest.raises(UserError, match="every configuration diverged: begin a new sweep over lower"):
        sweep(recipe, config, tmp_path / "all", began=world.now)


def test_a_later_rung_is_planned_by_what_the_earlier_took(recipe, world, tmp_path, monkeypatch):
    """Real runs are four times as slow as the pilot: the end comes in time all the same."""
    whole = World.train

    def slower(world, recipe, out, *, resume=False, report=True):
        world.slow = 1.0 if out.name == "pilot" else 4.0
        return whole(world, recipe, out, resume=resume, report=report)

    monkeypatch.setattr(runs_module, "train", lambda *a, **k: slower(world, *a, **k))
    began = world.now
    outcome = sweep(recipe, SweepConfig((NINE,), 3.0), tmp_path / "lr", began=began)
    assert world.now - began <= 180 and outcome.standings[0].name == "optimizer.lr=0.01"


def test_the_time_is_over_within_a_rung(recipe, world, tmp_path, monkeypatch):
    whole = World.train

    def stalling(world, recipe, out, *, resume=False, report=True):
        if out.name == "0-1-6":
            world.now += 45
        return whole(world, recipe, out, resume=resume, report=report)

    monkeypatch.setattr(runs_module, "train", lambda *a, **k: stalling(world, *a, **k))
    outcome = sweep(recipe, SweepConfig(("optimizer.lr=0.001,0.01,0.1",), 1.0), tmp_path / "lr", began=world.now)
    assert outcome.standings[0].name == "optimizer.lr=0.01" and outcome.standings[0].rung == 0
    assert rows_of(tmp_path / "lr", "cut") or rows_of(tmp_path / "lr", "over")
    assert not (tmp_path / "lr/best").exists() and read_recipe(tmp_path / "lr/recipe.toml").optimizer.lr == 0.01


def test_of_many_shapes_a_few_are_timed_and_the_others_reckoned(recipe, world, tmp_path):
    began, dims = world.now, ",".join(str(16 * n) for n in range(1, 9))
    outcome = sweep(recipe, SweepConfig((f"model.dim={dims}",), 3.0), tmp_path / "dim", began=began)
    pilots = [row["configuration"] for row in rows_of(tmp_path / "dim", "pilot")]
    assert len(pilots) == 5 and pilots[0] == 0 and pilots[-1] == 7
    assert 0.8 * 180 <= world.now - began <= 180 and outcome.standings[0].rung >= 1


def test_stopped_while_the_text_is_prepared(recipe, world, data, tmp_path, monkeypatch):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    text = PrepareConfig((str(data.parent / "text.txt"),), tokenizer="byte", skip=("all",))
    raw = Recipe(text, recipe.model, recipe.training, recipe.optimizer)
    monkeypatch.setattr(runs_module, "prepare", stop)
    config = SweepConfig(("optimizer.lr=0.001,0.01",), 1.0)
    assert sweep(raw, config, tmp_path / "lr", began=world.now).finished == "interrupted"
    monkeypatch.setattr(runs_module, "prepare", prepare)
    assert sweep(None, None, tmp_path / "lr", resume=True, began=world.now).finished == "rungs"
    assert {trained.data.paths for trained, *_ in world.trained} == {(str(tmp_path / "lr/data"),)}
    assert read_recipe(tmp_path / "lr/recipe.toml").data == text


def test_one_process_at_a_time(recipe, world, tmp_path):
    world.stop_before = 3
    sweep(recipe, SweepConfig(("optimizer.lr=0.001,0.01",), 1.0), tmp_path / "lr", began=world.now)
    with SweepFolder(tmp_path / "lr").locked(), pytest.raises(UserError, match=r"another process is searching in .*lr"):
        sweep(None, None, tmp_path / "lr", resume=True)


def test_too_little_time_is_refused_and_leaves_nothing(recipe, world, tmp_path):
    with pytest.raises(UserError, match=r"9 configurations of 2 seeds and 20 steps at least want about 0\.4 minutes"):
        sweep(recipe, SweepConfig((NINE,), 0.1), tmp_path / "lr", began=world.now)
    assert not (tmp_path / "lr").exists()
    sweep(recipe, SweepConfig((NINE,), 0.4), tmp_path / "lr", began=world.now)


def test_folders_that_are_refused(recipe, world, tmp_path):
    config = SweepConfig(("optimizer.lr=0.001,0.01",), 1.0)
    with pytest.raises(UserError, match=r"none holds no sweep to resume: leave out --resume"):
        sweep(None, None, tmp_path / "none", resume=True)
    with pytest.raises(UserError, match="nothing to sweep: give a recipe and --over"):
        sweep(None, None, tmp_path / "none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thing").write_text("x")
    with pytest.raises(UserError, match="full is not empty and holds no sweep: choose another --out"):
        sweep(recipe, config, tmp_path / "full")
    with pytest.raises(UserError, match=r"thing: it is a file, not a folder; choose another --out"):
        sweep(recipe, config, tmp_path / "full/thing")
    sweep(recipe, config, tmp_path / "lr", began=world.now)
    with pytest.raises(UserError, match="lr holds a sweep already: go on with it by --resume"):
        sweep(recipe, config, tmp_path / "lr")
    with pytest.raises(UserError, match=r"begun with minutes = 1\.0, not 2\.0"):
        sweep(recipe, SweepConfig(config.over, 2.0), tmp_path / "lr", resume=True)


def test_text_without_a_held_out_part(recipe, world, data, tmp_path):
    text = str(data.parent / "text.txt")
    prepare(PrepareConfig((text,), tokenizer="byte", validation=0.0, skip=("all",)), tmp_path / "bare")
    bare = Recipe(PrepareConfig((str(tmp_path / "bare"),)), recipe.model, recipe.training)
    with pytest.raises(UserError, match=r"nothing is held out in .*bare, and a sweep compares held-out losses"):
        sweep(bare, SweepConfig(("optimizer.lr=0.001,0.01",), 1.0), tmp_path / "lr", began=world.now)
    assert not (tmp_path / "lr").exists()


def test_what_one_configuration_may_not_is_said_with_its_name(recipe, world, tmp_path):
    with pytest.raises(UserError, match=r"model\.context=4000: .* training tokens are too few for windows of 4,000"):
        sweep(recipe, SweepConfig(("model.context=16,4000",), 1.0), tmp_path / "lr", began=world.now)
    assert not (tmp_path / "lr").exists()


def test_other_data_and_another_machine_on_resume(recipe, world, data, tmp_path, capsys):
    config = SweepConfig(("optimizer.lr=0.001,0.01",), 1.0)
    world.stop_before = 3
    sweep(recipe, config, tmp_path / "lr", began=world.now)
    log = tmp_path / "lr/sweep.jsonl"
    before = log.read_text()
    log.write_text(before.replace('"fingerprint": "', '"fingerprint": "x'))
    with pytest.raises(UserError, match="the data differ from those the sweep was begun with"):
        sweep(None, None, tmp_path / "lr", resume=True, began=world.now)
    log.write_text(before.replace('"threads": 1, "torch"', '"threads": 7, "torch"'))
    sweep(None, None, tmp_path / "lr", resume=True, began=world.now)
    assert "another machine" in capsys.readouterr().err
    assert not any(resumed for _, _, resumed in world.trained)
