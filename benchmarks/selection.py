"""Searches among prompts, simulated: how often luck is called better, and how often a better prompt is found.

Whether a prompt is right on an item is drawn from a logistic model: the prompt's strength less the item's difficulty,
which all prompts share (normal, standard deviation 1.5). Strengths are set so that a prompt's accuracy over all items
is 60 %. Each search goes through the package's own code: `search.select.choose` on search and select items,
`wenlu.metrics.verdict.verdict` on the test items, against the baseline (candidate 0).

- equal: all 32 prompts have 60 %. Whatever is called better is called so by luck.
- equal, in groups: the same, items in groups of 5 that share half the variance of the difficulty, and each group likes
  some prompts better than others (standard deviation 0.5 on the logit scale).
- planted: one prompt at a random place has 70 %, all others 60 %.

    python benchmarks/selection.py [--searches 2000]
"""

import argparse
import json
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from wenlu.metrics.verdict import verdict
from wenlu.prompting.search.select import Selection, choose, optimism

import record

DIFFICULTY = 1.5
LIKING = 0.5


@dataclass(frozen=True)
class Setting:
    """One kind of search."""

    candidates: int = 32
    search: int = 400
    select: int = 200
    test: int = 400
    budget: int = 8000
    keep: int = 4
    base: float = 0.6
    planted: float = 0.0
    """How much higher the accuracy of one of them is."""
    group: int = 1
    """Items that come together."""


def strength(accuracy: float, spread: float) -> float:
    """The logit whose chance of being right, over normal difficulties of that spread, is `accuracy`."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    return brentq(lambda logit: expit(logit - spread * points) @ weights / weights.sum() - accuracy, -20, 20)


def drawn(setting: Setting, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Right or wrong [candidates, items], the items' groups, and which candidate is better (0: none)."""
    items = setting.search + setting.select + setting.test
    numbers = np.arange(items) // setting.group
    own = np.sqrt(0.5) if setting.group > 1 else 1.0
    difficulty = DIFFICULTY * own * random.standard_normal(items)
    liking = np.zeros((setting.candidates, items))
    spread = DIFFICULTY
    if setting.group > 1:
        groups = int(numbers.max()) + 1
        difficulty += DIFFICULTY * np.sqrt(0.5) * random.standard_normal(groups)[numbers]
        liking = LIKING * random.standard_normal((setting.candidates, groups))[:, numbers]
        spread = float(np.hypot(DIFFICULTY, LIKING))
    strengths = np.full(setting.candidates, strength(setting.base, spread))
    better = int(random.integers(1, setting.candidates)) if setting.planted else 0
    if setting.planted:
        strengths[better] = strength(setting.base + setting.planted, spread)
    chances = expit(strengths[:, None] - difficulty + liking)
    return (random.random(chances.shape) < chances).astype(float), numbers, better


def search(setting: Setting, seed: int) -> dict:
    """One search to its verdict."""
    right, numbers, better = drawn(setting, np.random.default_rng([seed, 6]))
    first, second = setting.search, setting.search + setting.select
    plan = Selection(
        setting.candidates, tuple(range(first)), tuple(range(first, second)), setting.budget, setting.keep, seed
    )
    chosen = choose(plan, lambda candidates, examples: right[np.ix_(candidates, examples)])
    groups = numbers if setting.group > 1 else None
    test, apart = right[:, second:], groups[second:] if setting.group > 1 else None
    said = verdict(test[0], test[chosen.number], apart, delta=0.02)
    # What is done without a test part: the best of all on the select items, compared on the same items.
    known = right[:, first:second]
    lucky = int(known.mean(1).argmax())
    same = verdict(known[0], known[lucky], groups[first:second] if setting.group > 1 else None)
    luck = optimism(known, groups[first:second] if setting.group > 1 else None, resamples=200, seed=seed)
    return {
        "word": said.word,
        "found": said.word == "better" and chosen.number == better > 0,
        "chosen": chosen.number == better > 0,
        "baseline": chosen.number == 0,
        "evaluations": chosen.evaluations,
        "smallest": said.smallest,
        "without a test part": same.word == "better",
        "apparent": luck.apparent,
        "out of bag": luck.out_of_bag,
    }


def simulate(setting: Setting, searches: int, seed: int = 0) -> dict:
    """Many searches, counted; seeds are `seed` and those after it."""
    rows = [search(setting, seed + number) for number in range(searches)]
    words = {word: sum(row["word"] == word for row in rows) for word in ("better", "no worse", "undecided", "worse")}
    counts = {name: sum(row[name] for row in rows) for name in ("found", "chosen", "baseline", "without a test part")}
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("evaluations", "apparent", "out of bag")}
    smallest = [row["smallest"] for row in rows if row["smallest"] is not None]
    means["smallest"] = float(np.median(smallest))
    return {"setting": asdict(setting), "searches": searches, "words": words, **counts, **means}


SETTINGS = {
    "equal": Setting(),
    "equal, in groups of 5": Setting(group=5),
    "planted, +10 points": Setting(planted=0.1),
    "planted, +10 points, half the budget": Setting(planted=0.1, budget=4000),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--searches", type=int, default=2000)
    options = parser.parse_args()
    result = {"difficulty": DIFFICULTY, "liking": LIKING, "results": {}}
    for name, setting in SETTINGS.items():
        result["results"][name] = simulate(setting, options.searches)
        print(name, json.dumps(result["results"][name]), flush=True)
    record.keep("selection", result)


if __name__ == "__main__":
    main()
