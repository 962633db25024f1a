"""The space of a sweep: products of lists, read as strictly as a recipe, and every refusal."""

import pytest

from wenlu.base.errors import UserError
from wenlu.data.prepare import PrepareConfig
from wenlu.training.recipe import Recipe, TrainingConfig
from wenlu.training.sweep.space import SETTLED, SweepConfig, configurations, refuse_another

RECIPE = Recipe(data=PrepareConfig(paths=("novel.txt",)))


def test_the_product_in_order_with_values_of_their_types():
    over = ("optimizer.lr=1,3e-2", "optimizer.name=muon,adamw", "model.tied=true, false")
    found = configurations(RECIPE, over)
    assert len(found) == 8 and found[0].name == "optimizer.lr=1 optimizer.name=muon model.tied=true"
    assert found[-1].name == "optimizer.lr=3e-2 optimizer.name=adamw model.tied=false"
    optimizers = [(c.recipe.optimizer.lr, c.recipe.optimizer.name, c.recipe.model.tied) for c in found]
    assert optimizers[:3] == [(1.0, "muon", True), (1.0, "muon", False), (1.0, "adamw", True)]
    assert isinstance(found[0].recipe.optimizer.lr, float)
    assert all(c.recipe.training == RECIPE.training for c in found)


def test_what_only_fits_together_is_judged_together():
    found = configurations(RECIPE, ("model.dim=64,128", "model.heads=2,4"))
    assert [(c.recipe.model.dim, c.recipe.model.heads) for c in found] == [(64, 2), (64, 4), (128, 2), (128, 4)]


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ("optimizer.lrr=1,2", "--over optimizer.lrr=1: unknown setting 'optimizer.lrr'. Did you mean 'lr'?"),
        ("optimiser.lr=1,2", "unknown setting 'optimiser'. Did you mean 'optimizer'?"),
        ("lr=1,2", "--over lr names no setting: write section.field. Did you mean 'optimizer.lr'?"),
        ("a.b.c=1,2", "--over a.b.c names no setting: write section.field."),
        ("optimizer.lr=0.1,high", "optimizer.lr must be a number, not 'high'"),
        ("optimizer.lr=0.1,.5", "optimizer.lr must be a number, not '.5'"),
        ("model.layers=2,2.5", "model.layers must be a whole number, not 2.5"),
        ("optimizer.name=muon,sgdd", "must be one of muon, adamw, adam, sgd, not 'sgdd'. Did you mean 'sgd'?"),
        ("optimizer.lr=0.1,-1", "--over optimizer.lr=-1: optimizer.lr must be at least 0, not -1"),
        ("optimizer.lr=0.1,nan", "optimizer.lr must be at least 0 and finite, not nan"),
        ("model.dim=64,100", "--over model.dim=64: model.dim (64) must be a multiple of model.heads (3)"),
        (
            "optimizer.lr=0.1",
            "optimizer.lr has one value: give two or more, or state optimizer.lr in the recipe",
        ),
        ("optimizer.lr=1,1.0", "--over optimizer.lr=1,1.0 has the same value twice: give each once"),
        ("optimizer.lr=1,,2", "--over optimizer.lr=1,,2 is no list of values: write it as section.field=a,b,c"),
        ("optimizer.lr", "--over optimizer.lr is no list of values"),
        ("=1,2", "--over =1,2 is no list of values"),
        ("data.tokenizer=bpe,char", "all configurations share one text and one tokenizer"),
        ("optimizer.clip=" + ",".join(map(str, range(257))), "these lists span 257 configurations, more than 256"),
    ],
)
def test_lists_that_are_refused(over, words):
    with pytest.raises(UserError) as refusal:
        configurations(RECIPE, (over,))
    assert words in str(refusal.value)


@pytest.mark.parametrize("key", SETTLED)
def test_settings_that_a_sweep_settles_itself(key):
    with pytest.raises(UserError) as refusal:
        configurations(RECIPE, (f"{key}=1,2",))
    assert str(refusal.value) == f"--over {key}: {SETTLED[key]}"


def test_a_key_twice():
    with pytest.raises(UserError, match=r"--over optimizer\.lr is there twice: give all of its values in one list"):
        configurations(RECIPE, ("optimizer.lr=1,2", "optimizer.lr=3,4"))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe(RECIPE.data, training=TrainingConfig(minutes=3)), "instead of training.minutes"),
        (Recipe(RECIPE.data, training=TrainingConfig(eval_every=0)), "set training.eval_every above 0"),
        (Recipe(PrepareConfig(("novel.txt",), validation=0.0)), "set data.validation above 0, such as 0.05"),
        (Recipe(), 'nothing to train on: name texts in the recipe, by paths = ["..."] under [data]'),
    ],
)
def test_recipes_that_are_refused(recipe, words):
    with pytest.raises(UserError) as refusal:
        configurations(recipe, ("optimizer.lr=1,2",))
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"over": ()}, "nothing to sweep: give settings and their values, such as --over optimizer.lr=0.003,0.01,0.03"),
        ({"minutes": 0.0}, "how long? give --minutes, such as --minutes 10"),
        ({"minutes": -1.0}, "minutes must be above 0 and finite, not -1.0"),
        ({"minutes": float("nan")}, "minutes must be above 0 and finite, not nan"),
        ({"eta": 1}, "eta must be at least 2, not 1"),
        ({"seeds": 0}, "seeds must lie in [1, 32], not 0"),
        ({"seeds": 33}, "seeds must lie in [1, 32], not 33"),
    ],
)
def test_ways_of_searching_that_are_refused(settings, words):
    with pytest.raises(UserError) as refusal:
        SweepConfig(**{"over": ("optimizer.lr=1,2",), "minutes": 1.0, **settings})
    assert str(refusal.value).startswith(words)


def test_another_sweep_is_told_by_what_differs():
    config = SweepConfig(("optimizer.lr=1,2",), 1.0)
    refuse_another((RECIPE, config), (RECIPE, SweepConfig(("optimizer.lr=1,2",), 1.0)))
    other = Recipe(RECIPE.data, training=TrainingConfig(batch=3))
    with pytest.raises(UserError, match=r"begun with training\.batch = 16, not 3: leave that out to resume"):
        refuse_another((RECIPE, config), (other, config))
    with pytest.raises(UserError, match=r"begun with over = .*, not .*optimizer\.lr=1,3"):
        refuse_another((RECIPE, config), (RECIPE, SweepConfig(("optimizer.lr=1,3",), 1.0)))
