"""wenlu eval: how well a model predicts texts, does what it was tuned for, and solves tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wenlu.base.errors import UserError
from wenlu.cli.flags import parse

DESCRIPTION = """Nats per token, perplexity and bits per byte of texts that the model was not trained on, each with
a 95 % interval. Bits per byte can be compared between models with different tokenizers, the others cannot. Of a BERT:
pseudo-perplexity, each token being masked in turn, and how often it names a masked token, beside a guess. Of a T5: the
loss over spans that are taken out, the same ones every time.

Without texts: the part of its own text that the run held out. Of a run of wenlu finetune: the scores of its task on
the examples that it held out, or on others, such as a test set; for pairs BLEU and chrF among them.

With --tasks: multiple choice, minimal pairs, cloze, written answers, translation, questions on passages; known ones by
name, from a folder (--data) or the hub, or your own by a TOML file. Two models: both, and what sets them apart.

example: wenlu eval runs/novel
         wenlu eval runs/novel another-novel.txt
         wenlu eval runs/de-en --examples test.de test.en --beams 4
         wenlu eval runs/novel --tasks blimp lambada --data sets --limit 500
         wenlu eval runs/a runs/b --tasks mine.toml --out results.jsonl --report report.html"""


@dataclass(frozen=True)
class Command:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, any Transformers folder of a known family, or a hub id."""
    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXTS")] = ()
    """Texts: whatever `wenlu prepare` reads, - for stdin; none = the run's own held-out text. With --tasks: a second
    model."""
    tasks: tuple[str, ...] = ()
    """Tasks by name (blimp, arc_easy, bbh/navigate …; a wrong name lists them all), or TOML files of your own."""
    data: str = ""
    """With --tasks: the folder with their files, or hub; empty = the folder that $WENLU_DATA names."""
    shots: int | None = None
    """With --tasks: examples with answers before each question, the same for all; none = as the task says, mostly 0."""
    chat: bool = False
    """With --tasks: prompts are conversations, by the chat template of the model's folder."""
    cut: bool = False
    """With --tasks: cut prompts that are too long from the left, instead of refusing them."""
    show: int = 0
    """With --tasks: print the prompts of so many examples first, verbatim, with the tokens at the border to the
    answer."""
    risk: float = 0.1
    """With --tasks: the part of answers that may be wrong, for the confidence from which on to answer."""
    delta: float = 0.0
    """With two models: the loss that does not matter."""
    out: Path | None = None
    """With --tasks: keep the result of each example in this file (JSON lines); called again, the rest is done."""
    report: Path | None = None
    """With --tasks: a page (HTML) with figures, plots and examples."""
    examples: tuple[str, ...] = ()
    """Examples of the task that the run was tuned for, in whatever form wenlu finetune reads."""
    beams: int = 1
    """For pairs: write answers by a search with so many beams; 1 = greedily."""
    context: int = 0
    """Tokens in a window; 0 = the longest sequence that the model was trained on."""
    overlap: int = 0
    """Tokens of each window that only serve as context, having been scored before; 0 = none. Not for BERT and T5."""
    limit: int = 0
    """With --tasks: ask the first so many examples of each; 0 = all. For BERT: how many tokens are masked one by one,
    evenly chosen from all; each costs a window. 0 = 2000."""
    batch: int = 16
    """Windows computed at once; it changes the speed, not the figures."""
    field: str = "text"
    """The field or column of a row (jsonl, csv, tsv, parquet, hub) that holds its text."""
    max_bad: float = 0.01
    """Part of a file's lines that may be bad (no UTF-8, no JSON, no text); they are left out and counted."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: str = "f32"
    """With --tasks: f32, or bf16."""
    quantize: str = "none"
    """With --tasks: int8: weights in int8."""
    json: bool = False
    """Print one JSON object."""


OF_TASKS = ("data", "shots", "chat", "cut", "show", "risk", "delta", "out", "report", "dtype", "quantize")
OF_TEXTS = ("examples", "beams", "context", "overlap", "batch", "field", "max_bad")


def main(arguments: list[str]) -> int:
    return run(parse(Command, "eval", arguments, DESCRIPTION))


def run(command: Command) -> int:
    """Carry out the command, for tasks or for texts."""
    from wenlu.cli import eval_tasks, eval_texts

    standard, others = Command(command.run), OF_TEXTS if command.tasks else OF_TASKS
    if unused := [name for name in others if getattr(command, name) != getattr(standard, name)]:
        why = "has no effect on tasks: leave it out" if command.tasks else "is for tasks: name some by --tasks"
        raise UserError(f"--{unused[0].replace('_', '-')} {why}")
    return (eval_tasks if command.tasks else eval_texts).run(command)
