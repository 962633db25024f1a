"""What a sweep tries: the configurations that lists of values over a recipe span. Free of torch."""

import itertools
import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from wenlu.base.config import from_dict
from wenlu.base.errors import UserError, did_you_mean
from wenlu.training.recipe import Recipe

MOST_CONFIGURATIONS = 256
MOST_SEEDS = 32
EXAMPLE = "--over optimizer.lr=0.003,0.01,0.03"

_SET_BY_SWEEP = "a sweep sets it itself: leave it out of --over"
_TOKENIZERS = "that is the tokenizer's, which all configurations share: leave it out of --over"
_ONE_MACHINE = "all configurations are compared on the same footing: state it in the recipe"
SETTLED = {
    "training.seed": "all configurations are tried with the same seeds: say how many by --seeds",
    "training.steps": "the rungs decide how long a run is, up to the recipe's steps: leave it out of --over",
    "training.minutes": "the rungs decide how long a run is: give --minutes for the whole sweep",
    "training.threads": _ONE_MACHINE,
    "training.device": _ONE_MACHINE,
    **{f"training.{name}": _SET_BY_SWEEP for name in ("eval_every", "eval_tokens", "sample_tokens", "patience")},
    **{f"training.{name}": _SET_BY_SWEEP for name in ("checkpoint_every", "keep", "log_every")},
    **{f"model.{name}": _TOKENIZERS for name in ("vocab", "bos_id", "eos_id", "other_eos_ids", "pad_id")},
}
"""Settings that a sweep cannot go over, and why."""


@dataclass(frozen=True)
class SweepConfig:
    """How a sweep searches."""

    over: tuple[str, ...] = ()
    """Settings and their values: section.field=a,b,c."""
    minutes: float = 0.0
    """Length of the whole sweep in time, preparing the text included."""
    eta: int = 3
    """Of the configurations of a rung, one in eta goes on, for eta times as many steps."""
    seeds: int = 2
    """Runs of each configuration on a rung; the last rung may have more."""

    def __post_init__(self):
        if not self.over:
            raise UserError(f"nothing to sweep: give settings and their values, such as {EXAMPLE}")
        if self.minutes == 0:
            raise UserError("how long? give --minutes, such as --minutes 10")
        if not 0 < self.minutes < math.inf:
            raise UserError(f"minutes must be above 0 and finite, not {self.minutes}")
        if self.eta < 2:
            raise UserError(f"eta must be at least 2, not {self.eta}")
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise UserError(f"seeds must lie in [1, {MOST_SEEDS}], not {self.seeds}")


@dataclass(frozen=True)
class Configuration:
    """One point of the space."""

    name: str
    """Its values as they were written: optimizer.lr=0.01 model.dim=128."""
    recipe: Recipe


def configurations(recipe: Recipe, over: Sequence[str]) -> list[Configuration]:
    """The product of the lists, the last of them going fastest; refused where one of them could not be trained."""
    _check(recipe)
    lists = _lists(over)
    count = math.prod(map(len, lists.values()))
    if count > MOST_CONFIGURATIONS:
        raise UserError(
            f"these lists span {count:,} configurations, more than {MOST_CONFIGURATIONS}: give fewer values"
        )
    found = [_configuration(recipe, dict(zip(lists, texts))) for texts in itertools.product(*lists.values())]
    for key, texts in lists.items():
        section, _, name = key.partition(".")
        if len({getattr(getattr(each.recipe, section), name) for each in found}) < len(texts):
            raise UserError(f"--over {key}={','.join(texts)} has the same value twice: give each once")
    return found


def _check(recipe: Recipe) -> None:
    """Refuse a recipe whose configurations could not be compared."""
    training, data = recipe.training, recipe.data
    if training.minutes:
        raise UserError(
            "a sweep decides how long its runs are: state training.steps in the recipe instead of training.minutes"
        )
    if not data.paths:
        raise UserError('nothing to train on: name texts in the recipe, by paths = ["..."] under [data]')
    if not training.eval_every:
        raise UserError("a sweep compares held-out losses: set training.eval_every above 0")
    prepared = any((Path(path) / "data.json").is_file() for path in data.paths)
    if not (data.validation or data.validation_paths or prepared):
        raise UserError("a sweep compares held-out losses: set data.validation above 0, such as 0.05")


def _lists(over: Sequence[str]) -> dict[str, list[str]]:
    """Key → values, as they were written."""
    lists: dict[str, list[str]] = {}
    for item in over:
        key, equals, values = item.partition("=")
        texts = [text.strip() for text in values.split(",")]
        if not equals or not key or not all(texts):
            raise UserError(f"--over {item} is no list of values: write it as section.field=a,b,c, such as {EXAMPLE}")
        if key in lists:
            raise UserError(f"--over {key} is there twice: give all of its values in one list")
        if key.count(".") != 1:
            raise UserError(f"--over {key} names no setting: write section.field.{_nearest(key)}")
        if key in SETTLED:
            raise UserError(f"--over {key}: {SETTLED[key]}")
        if key.startswith("data."):
            raise UserError(
                f"--over {key}: all configurations share one text and one tokenizer, or their losses could not be "
                "compared; leave it out of --over"
            )
        if len(texts) < 2:
            raise UserError(f"--over {key} has one value: give two or more, or state {key} in the recipe")
        lists[key] = texts
    return lists


def _nearest(key: str) -> str:
    settings = [f"{section.name}.{field.name}" for section in fields(Recipe) for field in fields(section.type)]
    same = [setting for setting in settings if setting.partition(".")[2] == key and not setting.startswith("data.")]
    return f" Did you mean {same[0]!r}?" if same else did_you_mean(key, settings)


def _configuration(recipe: Recipe, texts: dict[str, str]) -> Configuration:
    name = " ".join(f"{key}={text}" for key, text in texts.items())
    sections: dict[str, dict[str, Any]] = {}
    for key, text in texts.items():
        section, _, field = key.partition(".")
        sections.setdefault(section, {})[field] = _value(text)
    try:
        return Configuration(name, from_dict(Recipe, sections, default=recipe))
    except UserError as error:
        raise UserError(f"--over {name}: {error}") from None


def _value(text: str) -> Any:
    """A value as TOML reads it; a bare word is a text."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def refuse_another(saved: tuple[Recipe, SweepConfig], given: tuple[Recipe, SweepConfig]) -> None:
    """Refuse to go on with a sweep by another recipe, or other lists or lengths, than it was begun with."""
    for old, new in zip(map(_settings, saved), map(_settings, given)):
        for name, before in old.items():
            if new[name] != before:
                raise UserError(
                    f"the sweep was begun with {name} = {before!r}, not {new[name]!r}: "
                    "leave that out to resume, or begin a new sweep with another --out"
                )


def _settings(config: Recipe | SweepConfig) -> dict[str, Any]:
    """Name → value of all settings, those of sections as section.field."""
    if isinstance(config, SweepConfig):
        return vars(config)
    return {f"{section}.{name}": value for section, values in asdict(config).items() for name, value in values.items()}
