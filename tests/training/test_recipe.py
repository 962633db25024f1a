"""Recipes: read strictly, written so that they read back."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from wenlu.base.config import from_dict, to_dict
from wenlu.base.errors import UserError
from wenlu.training.recipe import OptimizerConfig, Recipe, ScheduleConfig, TrainingConfig, read_recipe

TOML = """
[data]
paths = ["texts", "/far/away.txt", "-"]
validation_paths = ["held.txt"]
[model]
family = "lstm"
dim = 32
dropout = 0
[training]
steps = 7
[optimizer]
name = "adamw"
lr = 1
[schedule]
name = "cosine"
"""


def test_a_file_is_read_over_the_defaults(tmp_path):
    (tmp_path / "recipe.toml").write_text(TOML)
    recipe = read_recipe(tmp_path / "recipe.toml")
    assert recipe.data.paths == (str(tmp_path / "texts"), "/far/away.txt", "-")
    assert recipe.data.validation_paths == (str(tmp_path / "held.txt"),)
    assert (recipe.model.family, recipe.model.dim, recipe.training.steps) == ("lstm", 32, 7)
    assert recipe.optimizer.lr == 1.0 and isinstance(recipe.optimizer.lr, float)
    assert recipe.training.batch == TrainingConfig().batch


def test_written_and_read_it_is_the_same(tmp_path):
    (tmp_path / "recipe.toml").write_text(TOML)
    for recipe in (Recipe(), read_recipe(tmp_path / "recipe.toml")):
        assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nstep = 3", r"unknown setting 'training\.step'\. Did you mean 'steps'\?"),
        ("[trainin]\nsteps = 3", r"unknown setting 'trainin'\. Did you mean 'training'\?"),
        ("steps = 3", r"unknown setting 'steps'"),
        ("training = 3", r"training is a section: write it as \[training\]"),
        ('[training]\nsteps = "3"', r"training\.steps must be a whole number, not '3'"),
        ("[training]\nsteps = true", r"training\.steps must be a whole number, not True"),
        ('[optimizer]\nname = "adamv"', r"optimizer\.name must be one of muon, adamw, adam, sgd, not 'adamv'"),
        ('[data]\npaths = "a.txt"', r"data\.paths must be a list, not 'a\.txt'"),
        ("[training", r"is not valid TOML"),
    ],
)
def test_mistakes_are_named(text, message, tmp_path):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_recipe(tmp_path / "recipe.toml")


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"no file .*none\.toml: give the path of a TOML file"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingConfig(steps=0), r"training\.steps must be at least 1, not 0"),
        (lambda: TrainingConfig(batch=0), r"training\.batch must be at least 1, not 0"),
        (lambda: TrainingConfig(keep=0), r"training\.keep must be at least 1, not 0"),
        (lambda: TrainingConfig(log_every=0), r"training\.log_every must be at least 1, not 0"),
        (lambda: TrainingConfig(seed=-1), r"training\.seed must be at least 0, not -1"),
        (lambda: TrainingConfig(threads=-1), r"training\.threads must be at least 0, not -1"),
        (lambda: TrainingConfig(batch=2, micro_batch=3), r"micro_batch \(3\) must not exceed training\.batch \(2\)"),
        (lambda: TrainingConfig(patience=1, eval_every=0), r"patience needs evaluations: set training\.eval_every"),
        (lambda: OptimizerConfig(lr=-1.0), r"optimizer\.lr must be at least 0, not -1"),
        (lambda: OptimizerConfig(lr=float("nan")), r"optimizer\.lr must be at least 0 and finite, not nan"),
        (lambda: OptimizerConfig(muon_lr=float("inf")), r"optimizer\.muon_lr must be at least 0 and finite, not inf"),
        (lambda: OptimizerConfig(beta2=1.0), r"optimizer\.beta2 must lie in \[0, 1\), not 1\.0"),
        (lambda: OptimizerConfig(momentum=-0.1), r"optimizer\.momentum must lie in \[0, 1\), not -0\.1"),
        (lambda: ScheduleConfig(warmup=1.5), r"schedule\.warmup must lie in \[0, 1\], not 1\.5"),
        (lambda: ScheduleConfig(floor=-1), r"schedule\.floor must lie in \[0, 1\], not -1"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


SHIPPED = Path(__file__).parents[2] / "recipes"
SMALL = ("lstm", "shakespeare", "bert", "t5", "chinese-poetry")


@pytest.mark.parametrize("name", [file.stem for file in sorted(SHIPPED.glob("*.toml"))])
def test_shipped_recipes_are_read(name):
    assert read_recipe(SHIPPED / f"{name}.toml") != Recipe()


@pytest.mark.parametrize("name", SMALL)
def test_shipped_recipes_train(name, tmp_path):
    """A step of each that is meant for a laptop; the text is shorter than their batches read at once."""
    from wenlu.training.loop import train

    lines = "明月几时有？把酒问青天。 The cat sat on the mat again.\n" * 300
    (tmp_path / "text.txt").write_text(lines, encoding="utf-8")
    recipe = read_recipe(SHIPPED / f"{name}.toml")
    data = dataclasses.replace(recipe.data, paths=(str(tmp_path / "text.txt"),), skip=("all",))
    training = dataclasses.replace(recipe.training, steps=1, batch=2, eval_tokens=300, sample_tokens=0)
    outcome = train(dataclasses.replace(recipe, data=data, training=training), tmp_path / "run", report=False)
    assert outcome.step == 1 and outcome.held_out > 0


def test_recipes_are_free_of_torch():
    code = "import sys, wenlu.training.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_learning_rate_of_zero_is_the_rules():
    assert [OptimizerConfig(name).rate("gpt2") for name in ("muon", "adamw", "adam", "sgd")] == [
        0.01,
        0.003,
        0.003,
        1.0,
    ]
    assert [OptimizerConfig(name).rate("bert") for name in ("muon", "adamw")] == [0.003, 0.003]
    assert OptimizerConfig("sgd", lr=0.5).rate("bert") == 0.5
    assert [OptimizerConfig().muon_rate(family) for family in ("gpt2", "bert", "t5")] == [0.02, 0.02, 0.005]
    assert OptimizerConfig(muon_lr=0.1).muon_rate("t5") == 0.1


def test_a_tokenizer_in_a_recipe_is_sought_beside_it(tmp_path):
    (tmp_path / "tok").mkdir()
    (tmp_path / "recipe.toml").write_text('[data]\ntokenizer = "tok"\n')
    assert read_recipe(tmp_path / "recipe.toml").data.tokenizer == str(tmp_path / "tok")
    (tmp_path / "recipe.toml").write_text('[data]\ntokenizer = "bpe:300"\n')
    assert read_recipe(tmp_path / "recipe.toml").data.tokenizer == "bpe:300"
