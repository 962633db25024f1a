"""A trained model tuned on rows of examples: the run, then what its best weights are worth on what is held out."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wenlu.base.device import pick_device
from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, read_rows
from wenlu.data.rows.material import RowMaterial
from wenlu.data.rows.prepare import TEXTS
from wenlu.data.rows.store import open_rows
from wenlu.hub import folder as hub_folder
from wenlu.metrics.intervals import Estimate, Interval, ratio
from wenlu.metrics.scores import cmrc_score, confusion, macro_f1, macro_f1_interval, squad_score
from wenlu.training.loop import Outcome, train
from wenlu.training.objectives import by_row
from wenlu.training.recipe import TuningRecipe
from wenlu.training.report import write_report
from wenlu.training.run_folder import RunFolder
from wenlu.training.tuning import show_rows

CHINESE = 0.3
"""Part of the characters of answers from which on they are compared as CMRC does, character by character."""


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
    rows, by name, their intervals by resampling rows; they are noted in the run's events too. Raises `UserError` for
    whatever the user can mend.
    """
    if resume and not isinstance(RunFolder(out).recipe(), TuningRecipe):
        raise UserError(f"{out} holds a run that wenlu train began: go on with it by that command")
    outcome = train(recipe, out, resume=resume, inexact=inexact, began=began, look=lambda setup: show_rows(setup, show))
    folder = RunFolder(out)
    if outcome.finished == "interrupted":
        return outcome, {}
    noted = next((row["scores"] for row in read_rows(folder.events_file) if row["event"] == "judged"), None)
    if noted is not None:
        return outcome, {name: Estimate(row["value"], _interval(row)) for name, row in noted.items()}
    began = time.monotonic()
    scores = judge(folder)
    if scores:
        body = {name: _noted(score) for name, score in scores.items()}
        log = JsonLines(folder.events_file)
        log.write(event="judged", step=outcome.step, seconds=round(time.monotonic() - began, 3), scores=body)
        log.close()
        write_report(folder)
    return outcome, scores


def _noted(score: Estimate) -> dict[str, float]:
    return {"value": score.value} | (vars(score.interval) if score.interval else {})


def _interval(row: dict[str, float]) -> Interval | None:
    return Interval(row["low"], row["high"]) if "low" in row else None


def judge(folder: RunFolder) -> dict[str, Estimate]:
    """The scores of the weights at the root of a run on all of its held-out rows; none where nothing is held out."""
    recipe = folder.recipe()
    rows = open_rows(folder.data)
    if rows.validation is None:
        return {}
    device = pick_device(recipe.training.device)
    model, tokenizer = hub_folder.load(folder.root, device)
    material = RowMaterial(rows, tokenizer, recipe.training.batch, recipe.training.seed, types=recipe.model.types)
    found = found_by_row(model, material, recipe.training.micro_batch or recipe.training.batch)
    return _scores(material, found)


@torch.no_grad()
def found_by_row(model: nn.Module, material: RowMaterial, at_once: int) -> dict[str, np.ndarray]:
    """What the model finds for each held-out row, [rows] each, in the order of the rows."""
    device = next(model.parameters()).device
    parts: dict[str, list[np.ndarray]] = {}
    for batch in material.held_out(0, at_once):
        tensors = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
        found = by_row(material.form, model, tensors) | {"row": tensors["row"]}
        for name, values in found.items():
            parts.setdefault(name, []).append(values.cpu().numpy())
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    order = np.argsort(whole["row"])
    return {name: values[order] for name, values in whole.items()}


def _scores(material: RowMaterial, found: dict[str, np.ndarray]) -> dict[str, Estimate]:
    scores = {"loss": ratio(found["loss"], found["count"])}
    if material.form == "span":
        return scores | _answers(material, found)
    scores["accuracy"] = ratio(found["right"], found["count"])
    if material.form == "tag":
        both = found["entities_found"] + found["entities_gold"]
        scores["entity_f1"] = ratio(2 * found["entities_right"], both)
        scores["entity_precision"] = ratio(found["entities_right"], found["entities_found"])
        scores["entity_recall"] = ratio(found["entities_right"], found["entities_gold"])
    if material.form == "classify":
        counts = confusion(found["gold"], found["found"], len(material.rows.description["labels"]))
        scores["macro_f1"] = Estimate(float(macro_f1(counts)), macro_f1_interval(counts))
    return scores


def _answers(material: RowMaterial, found: dict[str, np.ndarray]) -> dict[str, Estimate]:
    """Exact match and F1 of the answers as texts, the best of a question's windows; questions on one text are
    resampled together."""
    store, folder = material.rows.validation, material.rows.folder
    examples = read_rows(folder / TEXTS)
    unanswerable = any(not texts for *_, texts in examples)
    best: dict[int, tuple[float, str]] = {}
    for row in range(len(store)):
        number = int(store.column("example", row)[0])
        offsets = store.column("offsets", row).reshape(-1, 2)
        text = examples[number][0][int(offsets[found["first"][row], 0]) : int(offsets[found["last"][row], 1])]
        best[number] = max(best.get(number, (-math.inf, "")), (float(found["score"][row]), text.strip()))
    chinese = _is_chinese("".join(text for example in examples for text in example[3]))
    sums: dict[str, list[float]] = {}
    for number, (score, text) in sorted(best.items()):
        context, *_, texts = examples[number]
        given = "" if unanswerable and score < 0 else text
        exact, f1 = (cmrc_score if chinese else squad_score)(given, texts)
        group = sums.setdefault(context, [0.0, 0.0, 0.0])
        sums[context] = [group[0] + exact, group[1] + f1, group[2] + 1]
    exact, f1, count = np.array(list(sums.values())).T
    return {"exact_match": ratio(exact, count), "f1": ratio(f1, count)}


def _is_chinese(text: str) -> bool:
    return sum("\u4e00" <= character <= "\u9fff" for character in text) > CHINESE * len(text)
