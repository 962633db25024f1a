"""wenlu predict: labels, tags and answers for new texts, by a tuned model."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, counted, progress, say
from wenlu.cli.flags import INTERRUPTED, parse

if TYPE_CHECKING:
    from wenlu.training.predict import Predictor, Question

DESCRIPTION = """Labels with their probabilities, tags of words, or answers found in texts, by a model that was tuned
for it (wenlu finetune --task classify, tag or span), or any BERT folder with such a head. A file goes in, JSON lines
come out: on stdout, or with --out in a file, to which the same command adds what is missing after an interruption.

example: wenlu predict runs/reviews --prompts new.txt
         wenlu predict runs/reviews --prompts new.jsonl --out labels.jsonl"""


@dataclass(frozen=True, kw_only=True)
class Command:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run's folder, a Transformers folder of a BERT with a head for a task, or a hub id."""
    prompts: Path
    """Texts: records (jsonl, json, csv, tsv, parquet) with text; tokens, a list of words; or question and context. For
    labels also .txt, a text a line. A record may have an id."""
    fields: tuple[str, ...] = ()
    """Names of the fields where they are others: TEXT, or TEXT TEXT; TOKENS; CONTEXT QUESTION."""
    out: Path | None = None
    """Where results go, a JSON line for each."""
    rows: int = 32
    """Texts read at once."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """With --out: print one JSON object at the end."""


def main(arguments: list[str]) -> int:
    return run(parse(Command, "predict", arguments, DESCRIPTION))


def run(command: Command) -> int:
    """Carry out the command."""
    from wenlu.base.config import to_dict
    from wenlu.base.device import pick_device
    from wenlu.hub.folder import load
    from wenlu.inference.prompts import check_out, kept_rows, key_of
    from wenlu.prompting.backend import weights_hash
    from wenlu.training.predict import Predictor, read_questions

    if command.rows < 1:
        raise UserError(f"rows must be at least 1, not {command.rows}")
    if command.json and command.out is None:
        raise UserError("without --out each line is JSON already: leave --json out")
    check_out(command.prompts, command.out)
    model, tokenizer = load(command.run, pick_device(command.device))
    predictor = Predictor(model, tokenizer)
    questions = read_questions(command.prompts, predictor.task, command.fields)
    keys = [""] * len(questions)
    if command.out is not None:
        identity = [weights_hash(model), to_dict(model.config), tokenizer.fingerprint]
        keys = [key_of(identity, question.content) for question in questions]
    before = kept_rows(command.out, keys) if command.out else {}
    rest = [number for number in range(len(questions)) if number not in before]
    try:
        cut = _answer(command, predictor, questions, keys, rest)
    except KeyboardInterrupt:
        kept = f"; what was found is in {command.out}: the same command goes on with it" if command.out else ""
        say(f"interrupted{kept}")
        return INTERRUPTED
    if cut:
        say(
            f"{cut:,} of {counted(len(rest), 'text')} cut to the {model.config.context:,} tokens that are read",
            "yellow",
        )
    if command.out:
        there = f" ({len(before):,} there already)" if before else ""
        say(f"{counted(len(rest), 'text')}{there}; in {command.out}", "dim")
    if command.json:
        facts = {"out": str(command.out), "texts": len(questions), "there_before": len(before), "cut": cut}
        print(json_format.dumps(facts, ensure_ascii=False))
    return 0


def _answer(command: Command, predictor: Predictor, questions: list[Question], keys: list[str], rest: list[int]) -> int:
    """Give out a row for each question of `rest`, by number; how many texts were cut."""
    file, cut = JsonLines(command.out) if command.out else None, 0
    bar = progress("predict")
    bar.disable = file is None and sys.stdout.isatty()  # there the lines are the progress
    try:
        with bar:
            task = bar.add_task("", total=len(questions), completed=len(questions) - len(rest), note="")
            for first in range(0, len(rest), command.rows):
                numbers = rest[first : first + command.rows]
                for number, found in zip(numbers, predictor.predict([questions[n] for n in numbers]), strict=True):
                    cut += found["cut"]
                    if file:
                        file.write(number=number, key=keys[number], **questions[number].kept, **found)
                    else:
                        row = {"number": number, **questions[number].kept, **found}
                        print(json_format.dumps(row, ensure_ascii=False), flush=True)
                bar.advance(task, len(numbers))
    finally:
        if file:
            file.sync()
            file.close()
    return cut
