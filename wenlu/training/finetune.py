"""A trained model tuned on rows of examples: the run, then what its best weights are worth on what is held out."""

from __future__ import annotations

import time
from pathlib import Path

from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, read_rows
from wenlu.metrics.intervals import Estimate
from wenlu.training.judge import judge
from wenlu.training.loop import Outcome, train
from wenlu.training.recipe import TuningRecipe
from wenlu.training.report import write_report
from wenlu.training.run_folder import RunFolder
from wenlu.training.tuning import show_rows

WRITTEN = 500
"""Held-out pairs at most for which answers are written at the end of a run; the others are judged token by token."""


def finetune(
    recipe: TuningRecipe | None,
    out: Path | str,
    *,
    resume: bool = False,
    inexact: bool = False,
    began: float | None = None,
    show: int = 0,
) -> tuple[Outcome, dict[str, Estimate]]:
    """Tune as `recipe` says into the folder `out`, or go on with the run there, then judge the weights that are kept.

    So many rows as `show` says are printed before the first step. Returns the outcome and the scores of all held-out
    rows, by name, their intervals by resampling rows; for pairs, BLEU and chrF of what is written for `WRITTEN` of them
    too. They are noted in the run's events. Raises `UserError` for whatever the user can mend.
    """
    if resume and not isinstance(RunFolder(out).recipe(), TuningRecipe):
        raise UserError(f"{out} holds a run that wenlu train began: go on with it by that command")
    outcome = train(recipe, out, resume=resume, inexact=inexact, began=began, look=lambda setup: show_rows(setup, show))
    folder = RunFolder(out)
    if outcome.finished == "interrupted":
        return outcome, {}
    noted = next((row["scores"] for row in read_rows(folder.events_file) if row["event"] == "judged"), None)
    if noted is not None:
        return outcome, {name: Estimate.from_dict(row) for name, row in noted.items()}
    began = time.monotonic()
    scores = judge(folder.root, limit=WRITTEN, device=folder.recipe().training.device)
    if scores:
        body = {name: score.as_dict() for name, score in scores.items()}
        log = JsonLines(folder.events_file)
        log.write(event="judged", step=outcome.step, seconds=round(time.monotonic() - began, 3), scores=body)
        log.close()
        write_report(folder)
    return outcome, scores
