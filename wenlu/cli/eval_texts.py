"""wenlu eval RUN TEXTS: how well a model predicts texts, and how well a tuned run does its own task."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wenlu.base.errors import UserError
from wenlu.base.log import console, counted, progress, say

if TYPE_CHECKING:
    from torch import nn

    from wenlu.cli.eval import Command
    from wenlu.data.reading.counts import SourceCounts
    from wenlu.evaluation import masked, spans
    from wenlu.evaluation.perplexity import Result
    from wenlu.metrics.intervals import Estimate
    from wenlu.tokenization.tokenizer import Tokenizer


def run(command: Command) -> int:
    """Carry out the command for texts; what is wrong with its flags is said before the model is read."""
    from wenlu.base.device import pick_device
    from wenlu.evaluation.perplexity import Settings
    from wenlu.hub.folder import load

    Settings(command.context, command.overlap, command.batch)
    if command.limit < 0:
        raise UserError(f"limit must be at least 0, not {command.limit}")
    if command.examples or (not command.paths and _is_tuned(command.run)):
        return _judge(command)
    if command.beams != 1:
        raise UserError("beams are for the answers of a run tuned on pairs: name --examples, or leave beams out")
    device = pick_device(command.device)
    texts, counts = _read(command) if command.paths else (_held_out(command.run), None)
    model, tokenizer = load(command.run, device)
    family = model.config.family
    _refuse_unused(command, family)
    if command.paths:
        _say_if_seen(command.run, texts, tokenizer)
    result = _evaluated(command, model, tokenizer, texts)
    if result.context > model.config.context:
        console.print(
            f"note: the model was trained on {model.config.context:,} tokens at a time, fewer than the context"
        )
    if command.json:
        facts = {"run": command.run, "paths": command.paths, **asdict(result), "source": counts and asdict(counts)}
        print(json_format.dumps(facts, ensure_ascii=False))
    else:
        {"bert": _print_masked, "t5": _print_spans}.get(family, _print_table)(result)
    return 0


def _is_tuned(run: str) -> bool:
    from wenlu.training.recipe import TuningRecipe
    from wenlu.training.run_folder import RunFolder

    folder = RunFolder(run)
    return folder.exists() and isinstance(folder.recipe(), TuningRecipe)


def _judge(command: Command) -> int:
    """The scores of the task that a run was tuned for."""
    from wenlu.inference.beam import Beams
    from wenlu.training.judge import judge

    standard = type(command)(command.run)
    fixed = ("paths", "context", "overlap", "limit", "batch", "field", "max_bad")
    if unused := [name for name in fixed if getattr(command, name) != getattr(standard, name)]:
        raise UserError(f"{unused[0].replace('_', '-')} has no effect on the scores of a task: leave it out")
    if not _is_tuned(command.run):
        raise UserError(f"{command.run} is no run of wenlu finetune, so it has no task: name texts, without --examples")
    scores = judge(command.run, command.examples, beams=Beams(command.beams).number, device=command.device)
    if not scores:
        raise UserError(f"which examples? {command.run} has held nothing out: name files by --examples")
    if command.json:
        found = {name: score.as_dict() for name, score in scores.items()}
        print(json_format.dumps({"run": command.run, "examples": command.examples, "scores": found}))
        return 0
    print_rows(*((name.replace("_", " "), score) for name, score in scores.items()))
    for name, score in scores.items():
        if score.signature:
            print(f"{name}: {score.signature}")
    return 0


def _refuse_unused(command: Command, family: str) -> None:
    """Flags that mean nothing for a family."""
    if command.limit and family != "bert":
        raise UserError(f"limit is for a BERT, whose tokens are masked one by one, not for this {family}: leave it out")
    if command.overlap and family in ("bert", "t5"):
        raise UserError(f"overlap is for models that read from left to right, not for this {family}: leave it out")


def _evaluated(command: Command, model: nn.Module, tokenizer: Tokenizer | None, texts: list[str]) -> Any:
    """What is measured of a model of this family."""
    family, total = model.config.family, 1.0
    if family == "bert":
        from wenlu.evaluation import masked

        evaluate, settings = masked.evaluate_masked, masked.Settings(command.context, command.batch)
        settings = replace(settings, limit=command.limit or settings.limit)
    elif family == "t5":
        from wenlu.evaluation import spans

        evaluate, settings = spans.evaluate_spans, spans.Settings(command.context, command.batch)
    else:
        from wenlu.evaluation import perplexity

        evaluate = perplexity.evaluate
        settings = perplexity.Settings(command.context, command.overlap, command.batch)
        total = float(sum(len(text.encode("utf-8", "surrogatepass")) for text in texts))
    bar = progress("evaluating", unit_counts=False)
    task = bar.add_task("", total=total, note="")

    def advance(size: float) -> None:  # the bar stands only once there is work: a refusal comes without
        bar.start()
        bar.advance(task, size)

    try:
        found = evaluate(model, tokenizer, texts, settings, advance)
        bar.update(task, completed=total)
        return found
    finally:
        if bar.live.is_started:
            bar.stop()


def _say_if_seen(run: str, texts: list[str], tokenizer: Tokenizer | None) -> None:
    """Say so where a run was trained on these very texts, and its training data are there to tell it."""
    from wenlu.data.shards import open_data
    from wenlu.evaluation.seen import seen
    from wenlu.training.run_folder import RunFolder

    folder = RunFolder(run)
    if tokenizer is None or not folder.exists() or _is_tuned(run):
        return
    place = folder.data if folder.data.exists() else Path(*folder.recipe().data.paths[:1])
    if not (place / "data.json").is_file():
        return
    data = open_data(place)
    found = seen(texts, tokenizer, data) if data.tokenizer.fingerprint == tokenizer.fingerprint else None
    if found and found[0]:
        say(
            f"note: {found[0]} of {found[1]} stretches of these texts stand word for word in what the run was trained "
            "on: the figures do not say how well it predicts new text",
            "yellow",
        )


def _held_out(run: str) -> list[str]:
    """The documents that a run has held out of its own text."""
    from wenlu.data.shards import open_data
    from wenlu.training.run_folder import RunFolder

    folder = RunFolder(run)
    if not folder.exists():
        if not Path(run).is_dir():
            raise UserError(f"no model folder at {run}: give the folder of a run, or name texts after a hub id")
        raise UserError(f"which texts? {run} is no run with held-out text of its own: name files or folders after it")
    data = open_data(folder.data if folder.data.exists() else Path(folder.recipe().data.paths[0]))
    if data.validation is None:
        raise UserError(f"which texts? {run} has held nothing out: name files or folders after it")
    return data.validation.documents(data.tokenizer)


def _read(command: Command) -> tuple[list[str], SourceCounts]:
    """Whole documents, put together from their pieces, and what was left out or changed, which is said."""
    from wenlu.data.reading.counts import SourceCounts, notes
    from wenlu.data.reading.sources import read_documents, spooled

    counts = SourceCounts()
    texts: list[list[str]] = []
    with spooled(command.paths) as paths:
        for piece in read_documents(paths, counts, field=command.field, max_bad=command.max_bad):
            if piece.document == len(texts):
                texts.append([])
            texts[-1].append(piece.text)
    for note in notes(counts.as_dict()):
        say(note)
    return ["".join(pieces) for pieces in texts], counts


def print_rows(*rows: tuple[str, Estimate | None]) -> None:
    """A table of figures on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "value", "95 % interval", box=None, pad_edge=False)
    for name, estimate in rows:
        table.add_row(name, *_cells(estimate))
    Console(file=sys.stdout, highlight=False).print(table)


def _print_masked(result: masked.Result) -> None:
    print_rows(
        ("pseudo-perplexity", result.pseudo_perplexity),
        ("its nats per token", result.pseudo_nats_per_token),
        ("masked: nats per token", result.masked_nats_per_token),
        ("masked: accuracy", result.masked_accuracy),
        ("the commonest token's", result.unigram_accuracy),
        ("masked: advantage", result.advantage),
    )
    print(
        f"{result.tokens:,} tokens, {counted(result.documents, 'document')}; "
        f"{result.masked_one_by_one:,} masked one by one, {result.masked_at_once:,} at once "
        f"in windows of {result.context:,}"
    )
    console.print("no bits per byte: a model that reads both ways gives no probability of a text")


def _print_spans(result: spans.Result) -> None:
    print_rows(("nats per target", result.nats_per_target), ("perplexity of targets", result.perplexity_of_targets))
    print(
        f"{result.tokens:,} tokens, {counted(result.documents, 'document')}; {counted(result.targets, 'target')}, "
        f"inputs of {result.context:,}"
    )
    console.print("no bits per byte: the loss is that of spans taken out, not of the text")
    if result.left_out:
        console.print(f"{result.left_out:,} tokens stood alone at the end of a document and were left out")


def _print_table(result: Result) -> None:
    print_rows(
        ("nats per token", result.nats_per_token),
        ("perplexity", result.perplexity),
        ("bits per byte", result.bits_per_byte),
    )
    windows = f"windows of {result.context:,}" + (f", {result.overlap:,} of them context" if result.overlap else "")
    print(f"{result.tokens:,} tokens, {result.bytes:,} bytes, {counted(result.documents, 'document')}; {windows}")
    if result.why_no_bits:
        console.print(f"no bits per byte: {result.why_no_bits}")


def _cells(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return "-", "-"
    interval = estimate.interval
    return f"{estimate.value:.4f}", f"{interval.low:.4f} to {interval.high:.4f}" if interval else "too little text"
