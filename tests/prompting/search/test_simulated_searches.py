"""A hundred simulated searches to their verdicts, by the benchmark's own code: luck is seldom called better."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def selection(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("selection")


def test_a_hundred_searches_of_each_kind(selection):
    for name in ("equal", "planted, +10 points"):
        result = selection.simulate(selection.SETTINGS[name], 100, seed=10_000)
        assert sum(result["words"].values()) == 100 and result["evaluations"] <= result["setting"]["budget"]
        if result["setting"]["planted"]:
            assert result["found"] >= 75, name
        else:
            assert result["words"]["better"] <= 6 and result["without a test part"] > 10, name
            assert abs(result["out of bag"] - 0.6) < 0.015 < result["apparent"] - 0.6


def test_the_strength_gives_the_accuracy_that_is_wanted(selection):
    import numpy as np

    difficulty = np.random.default_rng(0).normal(0, 1.5, 400_000)
    right = 1 / (1 + np.exp(difficulty - selection.strength(0.7, 1.5)))
    assert right.mean() == pytest.approx(0.7, abs=0.002)


def test_what_the_benchmark_kept_is_within_its_bounds():
    kept = json.loads((BENCHMARKS / "results" / "selection.json").read_text(encoding="utf-8"))["results"]
    planted = kept["planted, +10 points"]
    assert planted["found"] >= 0.8 * 2000 and (planted["setting"]["test"], planted["setting"]["planted"]) == (400, 0.1)
    for result in kept.values():
        assert result["searches"] == 2000 and result["setting"]["candidates"] == 32
        assert result["setting"]["planted"] or result["words"]["better"] <= 0.06 * 2000
