"""Who stands where: means, pairs, and what diverged."""

import math

import pytest
from scipy import stats

from wenlu.training.sweep.report import lines, verdict
from wenlu.training.sweep.standings import distinguishable, losses, ranked, standings, whole

NAMES = ["a", "b", "c"]


def rows(rungs: list[dict[int, list[float | None]]]) -> list[dict]:
    """Rows of a sweep: for every rung, configuration → losses by seed."""
    found = []
    for number, rung in enumerate(rungs):
        found.append({"event": "rung", "rung": number, "configurations": list(rung), "steps": 10 * 3**number})
        for configuration, values in rung.items():
            found += [
                {"event": "result", "rung": number, "configuration": configuration, "seed": seed, "loss": loss}
                for seed, loss in enumerate(values)
            ]
    return found


def test_means_and_paired_differences():
    last = {1: [2.0, 2.2, 2.1], 2: [2.1, 2.31, 2.2]}
    placed = standings(rows([{0: [3.0, 3.1], 1: [2.8, 2.9], 2: [2.9, 2.9]}, last]), NAMES)
    assert [s.name for s in placed] == ["b", "c", "a"] and [s.rung for s in placed] == [1, 1, 0]
    assert placed[0].interval is None and placed[0].difference == 0
    expected = stats.ttest_rel(last[2], last[1]).confidence_interval(0.95)
    assert (placed[1].interval.low, placed[1].interval.high) == pytest.approx((expected.low, expected.high))
    assert placed[2].difference == pytest.approx(0.2) and placed[2].interval is None
    assert distinguishable(placed) is True
    table = lines(placed, "bits/byte")
    assert "best" in table[1] and "[+0.0" in table[2] and table[3].rstrip().endswith("+0.2000")
    assert table[-1].startswith("best: b (2.1000 bits/byte); told from c (0.1033 better, 95 % interval [+0.0")


def test_what_seeds_do_not_tell():
    placed = standings(rows([{0: [2.0, 2.2], 1: [2.1, 2.05]}]), NAMES)
    assert distinguishable(placed) is False and "not to be told from" in verdict(placed, "bits/byte")
    placed = standings(rows([{0: [2.0], 1: [2.1]}]), NAMES)
    assert distinguishable(placed) is None and "too few seeds" in verdict(placed, "bits/byte")
    assert lines(placed, "bits/byte")[2].endswith("too few seeds")


def test_only_seeds_that_all_were_run_with_count():
    placed = standings(rows([{0: [2.0, 2.0, 1.0], 1: [2.1, 2.2]}]), NAMES)
    assert placed[0].name == "a" and placed[0].losses == {0: 2.0, 1: 2.0}
    assert whole({0: {0: 1.0}}, [0, 1]) == {} and standings(rows([{0: [2.0], 1: []}]), NAMES) == []


def test_a_last_rung_without_a_whole_seed_does_not_count():
    placed = standings(rows([{0: [2.0], 1: [2.1]}, {0: [1.0], 1: []}]), NAMES)
    assert [(s.name, s.rung, s.mean) for s in placed] == [("a", 0, 2.0), ("b", 0, 2.1)]


def test_of_a_last_rung_where_all_diverged_none_is_best():
    placed = standings(rows([{0: [2.0, 2.1], 1: [2.2, 2.2], 2: [3.0, 3.1]}, {0: [1.0, None], 1: [None, None]}]), NAMES)
    assert [(s.name, s.rung) for s in placed] == [("c", 0), ("a", 1), ("b", 1)]
    assert placed[0].difference == 0 and [s.difference for s in placed[1:]] == [None, None]
    assert verdict(placed, "bits/byte") == "best: c (3.0500 bits/byte); the others diverged"
    placed = standings(rows([{0: [2.0], 1: [2.2], 2: [3.0]}, {0: [1.0], 1: [None]}]), NAMES)
    assert [s.name for s in placed] == ["a", "c", "b"], "what diverged later comes after what did not"


def test_what_diverged_comes_last():
    found = rows([{0: [None, None], 1: [5.0, None], 2: [9.0, 9.0]}])
    assert ranked(losses(found)[0]) == [2, 1, 0]
    placed = standings(found, NAMES)
    assert [s.name for s in placed] == ["c", "b", "a"] and math.isinf(placed[1].mean)
    assert placed[1].difference is None and distinguishable(placed) is True
    assert verdict(placed, "bits/byte") == "best: c (9.0000 bits/byte); the others diverged"
    assert "diverged" in lines(placed, "bits/byte")[2]
