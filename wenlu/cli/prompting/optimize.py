"""wenlu prompt optimize: a search for a better prompt."""

from __future__ import annotations

import json as json_format
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wenlu.base.errors import UserError
from wenlu.base.files import cache_folder
from wenlu.base.log import progress, say
from wenlu.cli.flags import parse
from wenlu.cli.prompting.inputs import EndpointFlags, backend_of, embedder, examples_of, notes_of, read_prompt
from wenlu.prompting.example_file import Keys

if TYPE_CHECKING:
    from rich.progress import Progress

    from wenlu.prompting.search.outcome import Outcome

DESCRIPTION = """A search for a better prompt than a baseline: edits of it, other forms, instructions from a bank,
demonstrations. Examples are parted into search, select and test; all candidates meet the same search examples, the
worse half leaves at each turn, the select examples choose among the last few, and the verdict comes from the test
part, which nothing before has seen. --out holds everything: a search that was cut off goes on there. The best prompt is
OUT/prompt.json, the report OUT/report.html.

example: wenlu prompt optimize runs/chat plain.toml --examples reviews.jsonl --gold answer --minutes 9 --out work"""


@dataclass(frozen=True)
class Command:
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run's folder, any Transformers folder, a hub id, or an endpoint: http://127.0.0.1:8000/v1#NAME."""
    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BASELINE")]
    """The prompt to better: a TOML file, or the prompt.json of a search."""
    examples: str = ""
    """JSON lines: fields, and the right answer."""
    out: str = ""
    """The search's folder."""
    limit: int = 0
    """Only so many of the examples; 0 = all."""
    candidates: int = 24
    """Prompts that are tried, the baseline among them."""
    minutes: float = 0.0
    """Most time before the test; 0 = as `evaluations` or `tokens` say."""
    tokens: int = 0
    """Most tokens before the test."""
    evaluations: int = 0
    """Most answers before the test; 0, without minutes and tokens: so many that every prompt could meet a third of the
    search examples."""
    keep: int = 4
    """Prompts that come to the second stage."""
    scores: tuple[str, ...] = ("sum", "per_byte", "batch")
    """Ways to score choices that the last prompts are tried with: sum, per_token, per_byte, pmi, contextual, batch,
    channel."""
    strategies: tuple[str, ...] = ()
    """Other ways to write the answer that are tried, within decoding.max_tokens: direct, chain_of_thought,
    self_consistency, least_to_most, reason_then_constrain."""
    draws: int = 0
    """Draws of demonstrations, of which that one is tried under which answers are spread most evenly; 0 = none."""
    delta: float = 0.0
    """The loss of accuracy that does not matter."""
    writer: str = ""
    """A model (folder, hub id or endpoint) that words the instruction anew."""
    seed: int = 0
    again: bool = False
    """Look at a test part again that was looked at for another prompt; looks are counted beside the examples and,
    by content, in the user's cache folder."""
    keys: Annotated[Keys, tyro.conf.arg(name="")] = field(default_factory=Keys)
    endpoint: EndpointFlags = field(default_factory=EndpointFlags)
    writer_endpoint: EndpointFlags = field(default_factory=EndpointFlags)
    """The same of the writer: another host gets no key and no budget of MODEL's."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print one JSON object."""


class _Bar:
    """The search as a progress bar."""

    def __init__(self, bar: Progress):
        self._bar, self._task = bar, bar.add_task("", total=None, note="")

    def begin(self, prompts: int, evaluations: int) -> None:
        say(f"{prompts} prompts, at most {evaluations:,} answers before the test")
        self._bar.update(self._task, total=evaluations)
        self._bar.start()

    def advance(self, cells: int) -> None:
        self._bar.advance(self._task, cells)

    def best(self, name: str, accuracy: float, examples: int) -> None:
        self._bar.update(self._task, note=f"best {accuracy:.3f} of {examples}: {name[:40]}")


def main(arguments: list[str]) -> int:
    return run(parse(Command, "prompt optimize", arguments, DESCRIPTION))


def run(command: Command) -> int:
    if not command.out:
        raise UserError("where to? name a folder for the search by --out")
    if command.writer_endpoint != EndpointFlags() and not command.writer:
        raise UserError("--writer-endpoint is of a writer: name one by --writer, or leave it out")
    prompt = read_prompt(command.prompt)
    examples = examples_of(command.examples, command.keys, command.limit, search=True)
    from wenlu.prompting.search.optimize import Optimizer, Search
    from wenlu.prompting.search.outcome import Unjudged
    from wenlu.prompting.search.page import write_page
    from wenlu.prompting.search.split import Looks

    search = Search(
        command.candidates, command.evaluations, command.minutes, command.tokens, command.keep, command.scores,
        command.strategies, command.delta, command.seed, draws=command.draws,
    )  # fmt: skip
    out = Path(command.out)
    with ExitStack() as stack:
        backend = stack.enter_context(backend_of(command.model, command.device, command.endpoint, out / "answers"))
        bar = progress("searching")
        more: dict[str, Any] = {"watcher": _Bar(bar), "again": command.again, "embed": embedder([prompt], backend)}
        more["looks"] = Looks(Path(f"{command.examples}.looks"), cache_folder() / "looks.jsonl")
        if command.writer:
            place = (command.device, command.writer_endpoint, out / "answers", "--writer-endpoint")
            more["writer"] = stack.enter_context(backend_of(command.writer, *place))
        optimizer = Optimizer(backend, prompt, examples, search, out, **more)
        refusal = None
        try:
            outcome = optimizer.run()
        except Unjudged as error:
            refusal, outcome = error, error.outcome
        finally:
            if bar.live.is_started:
                bar.stop()
        notes = notes_of(backend, optimizer.embed)
    outcome.best.write(out / "prompt.json")
    write_page(out / "report.html", optimizer, outcome)
    if refusal is not None:
        say(f"{outcome.best.name} was chosen and is kept, without a verdict, in {out / 'prompt.json'}")
        raise refusal
    if command.json:
        print(json_format.dumps({**facts(outcome, out), "notes": notes}, ensure_ascii=False))
    else:
        show(outcome, out, notes)
    return 0


def facts(outcome: Outcome, out: Path) -> dict[str, Any]:
    """The result as JSON."""
    return {
        "best": outcome.best.name,
        "verdict": outcome.verdict and outcome.verdict.as_dict(),
        "accuracy": outcome.of_best and outcome.of_best.as_dict(),
        "baseline": outcome.of_baseline and outcome.of_baseline.as_dict(),
        "apparent": outcome.luck.apparent,
        "optimism": outcome.luck.optimism,
        "evaluations": outcome.evaluations,
        "tokens": outcome.tokens,
        "writer_tokens": outcome.writer_tokens,
        "always": dict(outcome.always),
        "look": outcome.look,
        "prompt": str(out / "prompt.json"),
        "report": str(out / "report.html"),
    }


def show(outcome: Outcome, out: Path, notes: list[str]) -> None:
    """The result on stdout."""
    from rich.console import Console
    from rich.table import Table

    from wenlu.prompting.search.page import constant

    console = Console(file=sys.stdout, highlight=False)
    table = Table("on the select examples", "accuracy", "chosen in", box=None)
    ranked = sorted(zip(outcome.finalists, outcome.luck.chosen, strict=True), key=lambda pair: -sum(pair[0].right))
    for finalist, part in ranked:
        table.add_row(finalist.prompt.name, f"{sum(finalist.right) / len(finalist.right):.3f}", f"{part:.0%}")
    console.print(table)
    luck = outcome.luck
    console.print(f"the best there reads {luck.apparent:.3f}, of which about {max(0.0, luck.optimism):.3f} is luck")
    if outcome.verdict is None:
        console.print("the baseline was chosen: nothing tried was better, and the test part was not looked at")
    else:
        console.print(f"test: {outcome.best.name}: {outcome.verdict}", markup=False, soft_wrap=True)
        if outcome.look > 1:
            console.print(f"this was look {outcome.look} at this test part: less than fresh evidence", style="yellow")
    for line in [*constant(outcome), *notes]:
        console.print(line, markup=False, soft_wrap=True, style="yellow")
    writer = f", {outcome.writer_tokens:,} of them by the writer" * bool(outcome.writer_tokens)
    console.print(f"{outcome.evaluations:,} answers and {outcome.tokens:,} tokens before the test{writer}")
    say(f"prompt: {out / 'prompt.json'}\nreport: {out / 'report.html'}")
