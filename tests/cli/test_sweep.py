"""The command that sweeps: on real runs from end to end, stopped and resumed, and what it refuses."""

import json
from pathlib import Path

import pytest

from wenlu.base.log import read_rows
from wenlu.cli.main import main
from wenlu.training.loop import Loop
from wenlu.training.run_folder import RunFolder

RECIPE = """
[data]
paths = ["text.txt"]
tokenizer = "byte"
skip = ["all"]
[model]
dim = 16
layers = 1
heads = 2
context = 16
[training]
steps = 40
batch = 2
threads = 1
device = "cpu"
compile = "off"
"""
LINE = "sweep recipe.toml --over optimizer.lr=0.0001,0.01,0.03 --minutes 5 --seeds 1".split()


@pytest.fixture
def recipe(here):
    (here / "recipe.toml").write_text(RECIPE)
    return here


def results(folder: str) -> list[dict]:
    wanted = ("rung", "configuration", "seed", "loss", "steps")
    rows = (row for row in read_rows(Path(folder, "sweep.jsonl")) if row["event"] == "result")
    return [{key: row[key] for key in wanted} for row in rows]


def test_from_end_to_end_and_the_same_when_stopped_on_the_way(recipe, capsys, monkeypatch):
    assert main([*LINE, "--out", "whole"]) == 0
    said = capsys.readouterr()
    header, best, *_ = said.out.splitlines()
    assert header.split()[:4] == ["configuration", "rung", "steps", "seeds"] and "bits/byte" in header
    assert best.split()[1:4] == ["2", "40", "1"] and best.split()[-1] == "best"
    assert "too few seeds" in said.out and "go on:  wenlu train whole/recipe.toml --out RUN" in said.out
    assert "rung 1 of 2: 3 configurations, 1 seed, 20 steps each" in said.err and "left" in said.err
    assert RunFolder("whole/best").recipe().training.steps == 40 and not Path("whole/runs").exists()
    assert "Run best" in Path("whole/best/wenlu/report.html").read_text()
    page = Path("whole/sweep.html").read_text()
    assert page.count("<svg") == 1 and "optimizer.lr=0.0001" in page and "http" not in page.split("</style>")[1][:200]

    step, done = Loop._step, []

    def stopped(self, watch):
        done.append(1)
        if len(done) == 2 + 12 + 30:
            raise KeyboardInterrupt
        step(self, watch)

    monkeypatch.setattr(Loop, "_step", stopped)
    assert main([*LINE, "--out", "parts"]) == 130
    said = capsys.readouterr()
    assert said.out == "" and "Go on with:\n  wenlu sweep --resume --out parts" in said.err
    assert main(["sweep", "--resume", "--out", "parts", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert results("parts") == results("whole") and facts["winner"] == best.split()[0]
    assert facts["distinguishable"] is None and facts["unit"] == "bits/byte" and facts["finished"] == "rungs"
    assert next(row["configuration"] for row in facts["configurations"]) == facts["winner"]
    assert main(["train", facts["recipe"], "--out", "run", "--steps", "2"]) == 0
    assert main(["sweep", "--resume", "--out", "parts"]) == 0
    assert "parts is finished; nothing to resume" in capsys.readouterr().err


def test_what_resume_refuses(recipe, refuse, capsys):
    assert main([*LINE, "--out", "lr", "--training.steps", "20"]) == 0
    refuse("sweep --resume --out lr --training.batch 3", "begun with training.batch = 2, not 3")
    refuse("sweep --resume --out lr --over optimizer.lr=0.1,0.2", "begun with over =", "0.0001")
    refuse("sweep --resume --out lr --minutes 7", "begun with minutes = 5.0, not 7.0: leave that out to resume")
    refuse("sweep recipe.toml --resume --out lr", "begun with training.steps = 20, not 40")
    refuse([*LINE, "--out", "lr"], "lr holds a sweep already: go on with it by --resume")


REFUSED = {
    "sweep recipe.toml --over optimizer.lr=1,2 --minutes 1": ("where to? give --out SWEEP",),
    "sweep --over optimizer.lr=1,2 --minutes 1 --out new": ("which recipe? give the path of one TOML file",),
    "sweep text.txt --over optimizer.lr=1,2 --minutes 1 --out new": ("which recipe?", "not text.txt"),
    "sweep none.toml --over optimizer.lr=1,2 --minutes 1 --out new": ("no file none.toml",),
    "sweep recipe.toml recipe.toml --out new": ("one recipe at a time, not 2",),
    "sweep recipe.toml --minutes 1 --out new": ("nothing to sweep", "--over optimizer.lr=0.003,0.01,0.03"),
    "sweep recipe.toml --over optimizer.lr=1,2 --out new": ("how long? give --minutes",),
    "sweep recipe.toml --over optimizer.lr=1 --minutes 1 --out new": ("optimizer.lr has one value",),
    "sweep recipe.toml --over optimizer.lrr=1,2 --minutes 1 --out new": ("unknown setting", "Did you mean 'lr'?"),
    "sweep recipe.toml --over training.seed=1,2 --minutes 1 --out new": ("tried with the same seeds", "--seeds"),
    "sweep recipe.toml --over optimizer.lr=1,2 --minutes 1 --seeds 0 --out new": ("seeds must lie in [1, 32]",),
    "sweep recipe.toml --over optimizer.lr=1,2 --minutes 1 --data.validation 0 --out new": ("data.validation above 0",),
    "sweep recipe.toml --over optimizer.lr=1,2 --minutes 1 --training.minutes 3 --out new": ("training.minutes",),
    "sweep recipe.toml --over optimizer.lr=1,2 --minutes 0.001 --out new": ("2 configurations of 2 seeds", "--minutes"),
    "sweep recipe.toml --over optimizer.lr=1,2 --minutes 1 --data.paths gone.txt --out a/new": ("gone.txt",),
    "sweep recipe.toml --over optimizer.lr=1,2 --minutes 1 --out pictures": ("pictures is not empty",),
    "sweep recipe.toml --over optimizer.lr=1,2 --minutes 1 --out text.txt": ("it is a file, not a folder",),
    "sweep recipe.toml --over optimizer.lr=1,2 --minutes 1 --out text.txt/new": ("a part of the path is a file",),
    "sweep --resume --out none": ("none holds no sweep to resume",),
}


@pytest.mark.parametrize("line", REFUSED)
def test_wrong_uses(line, recipe, refuse):
    refuse(line, *REFUSED[line])
