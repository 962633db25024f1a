"""wenlu prompt compare: prompts on the same examples."""

from __future__ import annotations

import json as json_format
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from wenlu.base.errors import UserError
from wenlu.base.log import counted, progress, say
from wenlu.cli.flags import parse
from wenlu.cli.prompting.inputs import (
    EndpointFlags,
    backend_of,
    embedder,
    examples_of,
    is_address,
    notes_of,
    read_prompt,
)
from wenlu.prompting.example_file import Keys

if TYPE_CHECKING:
    from wenlu.prompting.artifact import Artifact
    from wenlu.prompting.compare import Row
    from wenlu.prompting.examples import Example
    from wenlu.prompting.matrix import Matrix

DESCRIPTION = """Prompts on the same examples: each with its accuracy and 95 % interval, and a verdict beside the first
of them: better, worse, no worse than --delta, or undecided. Of several comparisons p is adjusted (max-T), and that
decides. --forms tries ten other forms of each prompt and more, for its robustness. Answers are kept in --out and never
computed twice.

example: wenlu prompt compare runs/chat plain.toml careful.toml --examples reviews.jsonl --gold answer"""


@dataclass(frozen=True)
class Command:
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run's folder, any Transformers folder, a hub id, or an endpoint: http://127.0.0.1:8000/v1#NAME."""
    prompts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPTS")]
    """TOML files, or the prompt.json of searches; the first is what the others are compared with."""
    examples: str = ""
    """JSON lines: fields, and the right answer."""
    limit: int = 0
    """Only so many of the examples; 0 = all."""
    delta: float = 0.0
    """The loss of accuracy that does not matter, such as 0.02."""
    forms: bool = False
    """Try other forms of each prompt too: separators, labels, letters, the order of parts."""
    out: str = ""
    """The file where answers are kept (JSON lines); none: they are forgotten."""
    dry_run: bool = False
    """Send nothing: print the exact requests to the endpoint that would be sent, as JSON lines."""
    keys: Annotated[Keys, tyro.conf.arg(name="")] = field(default_factory=Keys)
    endpoint: EndpointFlags = field(default_factory=EndpointFlags)
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print one JSON object."""


def main(arguments: list[str]) -> int:
    return run(parse(Command, "prompt compare", arguments, DESCRIPTION))


def run(command: Command) -> int:
    import tempfile

    if command.dry_run and not is_address(command.model):
        raise UserError(
            f"--dry-run shows requests to an endpoint, and {command.model} is none: see wenlu prompt render"
        )
    if not 0 <= command.delta < 1:
        raise UserError(f"delta is a part of the accuracy, from 0 up to 1, not {command.delta}")
    prompts = [read_prompt(path) for path in command.prompts]
    examples = examples_of(command.examples, command.keys, command.limit)
    from wenlu.prompting.compare import check, compare, work
    from wenlu.prompting.matrix import Matrix

    check(prompts, examples)
    total = work(prompts, examples, command.forms)
    with ExitStack() as stack:
        file = Path(command.out or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "matrix.jsonl")
        cache = Path(f"{command.out}.answers") if command.out else None
        backend = stack.enter_context(backend_of(command.model, command.device, command.endpoint, cache))
        matrix = Matrix(file, backend, embedder(prompts, backend))
        if command.dry_run:
            return dry(command, matrix, prompts, examples)
        if matrix.found:
            say(f"{counted(matrix.found, 'answer')} in {file} already")
        bar = stack.enter_context(progress("trying"))
        task = bar.add_task("", total=total, note="")
        rows = compare(
            matrix, prompts, examples, delta=command.delta, forms=command.forms,
            advance=lambda cells: bar.advance(task, cells),
        )  # fmt: skip
        tokens, notes = backend.tokens_used, notes_of(backend, matrix.embed)
    if command.json:
        facts = {"model": command.model, "examples": len(examples), "tokens": tokens, "notes": notes}
        print(json_format.dumps({**facts, "prompts": [row.as_dict() for row in rows]}, ensure_ascii=False))
    else:
        show(rows, len(examples), tokens, notes)
    return 0


def dry(command: Command, matrix: Matrix, prompts: list[Artifact], examples: list[Example]) -> int:
    """The requests on stdout."""
    from wenlu.prompting.compare import forms_of
    from wenlu.prompting.dry import requests_of

    forms = [forms_of(prompt, examples) for prompt in prompts] if command.forms else []
    forms = [replace(form, prior=None) for of_prompt in forms for _, form in of_prompt]
    found, untold = requests_of(matrix, [*prompts, *forms], examples)
    if command.json:
        print(json_format.dumps({"model": command.model, "requests": found, "notes": untold}, ensure_ascii=False))
        return 0
    for request in found:
        print(json_format.dumps(request, ensure_ascii=False))
    kept = sum(request["kept"] for request in found)
    say(f"{counted(len(found), 'request')}, of which {kept:,} are answered by what is kept; nothing was sent")
    for line in untold:
        say(line)
    return 0


def show(rows: list[Row], examples: int, tokens: int, notes: list[str]) -> None:
    """The table on stdout."""
    from rich.console import Console
    from rich.table import Table

    forms = any(row.robustness for row in rows)
    several = len(rows) > 2
    header = ["prompt", "accuracy", "95 % interval", "difference", "verdict"]
    table = Table(
        *header, *(["adjusted p"] if several else []), *(["other forms: median", "worst"] if forms else []), box=None
    )
    for row in rows:
        ends = row.accuracy.interval
        cells = [row.name, f"{row.accuracy.value:.3f}", f"{ends.low:.3f} to {ends.high:.3f}" if ends else "-"]
        cells += [f"{row.verdict.difference.value:+.3f}", row.verdict.word] if row.verdict else ["", "baseline"]
        cells += [f"{row.adjusted:.3g}" if row.adjusted is not None else ""] if several else []
        if row.robustness:
            cells += [f"{row.robustness.median:.3f}", f"{row.robustness.worst:.3f}"]
        table.add_row(*cells)
    console = Console(file=sys.stdout, highlight=False)
    console.print(table)
    for row in rows:
        if row.verdict:
            console.print(f"{row.name}: {row.verdict}", markup=False, soft_wrap=True)
        if row.robustness:
            found = row.robustness
            span = f"from {found.worst:.3f} ({found.worst_form}) to {found.best:.3f}"
            console.print(f"{row.name}: {found.forms} forms, {span}", markup=False, soft_wrap=True)
        if row.unanswered:
            console.print(f"{row.name}: {row.unanswered} of {examples} texts hold no answer", markup=False)
        if row.failed:
            told = f"{row.name}: {row.failed} of {examples} examples failed, and all are compared without them"
            console.print(told, markup=False, style="yellow")
        if row.always is not None:
            told = f"{row.name} gives every example the answer {row.always!r}: whatever it is asked"
            console.print(told, markup=False, soft_wrap=True, style="yellow")
    for note in notes:
        console.print(note, markup=False, soft_wrap=True, style="yellow")
    console.print(f"{counted(examples, 'example')}, {counted(tokens, 'token')} computed")
