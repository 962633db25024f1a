"""Whether a model knows which of its choices are right: calibration, Brier score, risk by coverage, abstention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wenlu.evaluation.kinds import Row, probabilities
from wenlu.metrics.calibration import (
    Abstention,
    Answers,
    RiskCoverage,
    abstention,
    brier_of_choices,
    calibration_error,
    risk_coverage,
)
from wenlu.metrics.intervals import Estimate


@dataclass(frozen=True)
class Uncertainty:
    """How far a model's probabilities of its choices can be believed."""

    answers: Answers
    """Probability of the choice that it took, and whether that was right."""
    calibration_error: Estimate
    brier: Estimate
    """Of all choices, 0 to 2."""
    curve: RiskCoverage
    abstention: Abstention

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "calibration_error": self.calibration_error.as_dict(),
            "brier": self.brier.as_dict(),
            "risk_coverage_area": self.curve.area.as_dict(),
            "abstention": self.abstention.as_dict(),
        }

    def rows(self) -> list[tuple[str, Estimate]]:
        """The figures with their names, for tables."""
        found = [
            ("calibration error", self.calibration_error),
            ("Brier", self.brier),
            ("risk-coverage area", self.curve.area),
            (f"coverage at risk {self.abstention.wanted:g}", self.abstention.coverage),
        ]
        if self.abstention.threshold is not None:
            found.append(("  from confidence", self.abstention.threshold))
        return found


def uncertainty(rows: Sequence[Row], groups: Sequence[str], risk: float) -> Uncertainty:
    """Of the rows of a task with choices; probabilities are those of the choices among themselves."""
    chances = [probabilities(row) for row in rows]
    table = np.zeros((len(rows), max(map(len, chances))))
    for number, values in enumerate(chances):
        table[number, : len(values)] = values
    confidence = np.minimum(1.0, table.max(1))
    answers = Answers(confidence, np.array([row["scores"]["acc"] for row in rows]), list(groups))
    return Uncertainty(
        answers,
        calibration_error(answers),
        brier_of_choices(table, [row["gold"] for row in rows], list(groups)),
        risk_coverage(answers),
        abstention(answers, risk),
    )
