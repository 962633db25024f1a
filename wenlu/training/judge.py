"""What a tuned run's weights are worth: the scores of its task on what it held out, or on other examples."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wenlu.base.device import pick_device
from wenlu.base.errors import UserError
from wenlu.base.log import progress, read_rows
from wenlu.data.rows.material import RowMaterial
from wenlu.data.rows.prepare import TEXTS, Encoding, prepare_test
from wenlu.data.rows.store import open_rows
from wenlu.hub import folder as hub_folder
from wenlu.inference.generator import Generator, Settings
from wenlu.metrics.intervals import Estimate, ratio
from wenlu.metrics.scores import cmrc_score, confusion, macro_f1, macro_f1_interval, squad_score
from wenlu.metrics.text import bleu, chrf, is_chinese
from wenlu.tokenization.tokenizer import Tokenizer
from wenlu.training.objectives import by_row
from wenlu.training.recipe import TuningRecipe
from wenlu.training.run_folder import RunFolder

AT_ONCE = 64
"""Sources that are answered side by side."""


def judge(
    root: Path | str, paths: Sequence[str] = (), *, beams: int = 1, limit: int = 0, device: str = "auto"
) -> dict[str, Estimate]:
    """The scores, by name, of a tuned run's best weights on the examples in `paths`, else on all that it held out.

    For pairs the model writes an answer to every source, by so many beams, and BLEU and chrF are among the scores;
    with a `limit`, to so many of them at most, evenly chosen. Empty where nothing is held out. Raises UserError for a
    run that was not tuned, beams for another task than pairs, and whatever reading the examples raises.
    """
    folder = RunFolder(root)
    recipe = folder.recipe()
    if not isinstance(recipe, TuningRecipe):
        raise UserError(f"{root} was not tuned for a task: examples are for runs of wenlu finetune")
    if beams != 1 and recipe.rows.task != "pairs":
        raise UserError(f"beams are for the answers of pairs; {root} was tuned for {recipe.rows.task}: leave them out")
    model, tokenizer = hub_folder.load(folder.root, pick_device(device))
    if not paths:
        return _of_rows(recipe, folder.data, model, tokenizer, beams, limit)
    known = open_rows(folder.data).description
    config = replace(recipe.rows, paths=(), validation=0.1, validation_paths=tuple(paths))
    encoding = Encoding(tokenizer, known["context"], recipe.model.family != "t5", tuple(known["labels"]))
    with tempfile.TemporaryDirectory() as temporary:
        prepare_test(config, Path(temporary) / "rows", encoding)
        return _of_rows(recipe, Path(temporary) / "rows", model, tokenizer, beams, limit)


def _of_rows(
    recipe: TuningRecipe, place: Path, model: nn.Module, tokenizer: Tokenizer, beams: int, limit: int
) -> dict[str, Estimate]:
    rows = open_rows(place)
    if rows.validation is None:
        return {}
    material = RowMaterial(rows, tokenizer, recipe.training.batch, recipe.training.seed, types=recipe.model.types)
    found = found_by_row(model, material, recipe.training.micro_batch or recipe.training.batch)
    scores = _scores(material, found)
    if rows.description["task"] == "pairs":
        sources, references = zip(*read_rows(place / TEXTS), strict=True)
        count = min(limit or len(sources), len(sources))
        chosen = np.linspace(0, len(sources) - 1, count, dtype=int).tolist()
        texts = answers(model, tokenizer, [recipe.rows.prefix + sources[number] for number in chosen], beams)
        wanted = [references[number] for number in chosen]
        scores |= {"bleu": bleu(texts, wanted), "chrf": chrf(texts, wanted)}
    return scores


def answers(model: nn.Module, tokenizer: Tokenizer, sources: Sequence[str], beams: int = 1) -> list[str]:
    """What a model tuned on pairs writes for each source: greedily, or the best that so many beams find."""
    generator = Generator(model, tokenizer, chat=model.config.family != "t5")
    settings = Settings(max_tokens=model.config.context, temperature=0.0, beams=beams)
    order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
    texts = [""] * len(sources)
    with progress("writing") as bar:
        task = bar.add_task("", total=len(sources), note="")
        for first in range(0, len(order), AT_ONCE):
            part = order[first : first + AT_ONCE]
            for number, result in zip(part, generator.answer([sources[n] for n in part], settings), strict=True):
                texts[number] = " ".join(result.text.split())
            bar.advance(task, len(part))
    return texts


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
    chinese = is_chinese("".join(text for example in examples for text in example[3]))
    sums: dict[str, list[float]] = {}
    for number, (score, text) in sorted(best.items()):
        context, *_, texts = examples[number]
        given = "" if unanswerable and score < 0 else text
        exact, f1 = (cmrc_score if chinese else squad_score)(given, texts)
        group = sums.setdefault(context, [0.0, 0.0, 0.0])
        sums[context] = [group[0] + exact, group[1] + f1, group[2] + 1]
    exact, f1, count = np.array(list(sums.values())).T
    return {"exact_match": ratio(exact, count), "f1": ratio(f1, count)}
