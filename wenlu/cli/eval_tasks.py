"""wenlu eval MODEL --tasks: tasks put to a model, or to two that are compared."""

from __future__ import annotations

import json as json_format
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from wenlu.base.errors import UserError
from wenlu.base.log import console, counted, progress, say
from wenlu.cli.flags import INTERRUPTED

if TYPE_CHECKING:
    from wenlu.cli.eval import Command
    from wenlu.evaluation.candidate import Candidate
    from wenlu.evaluation.compare import Comparison
    from wenlu.evaluation.results import Results
    from wenlu.evaluation.run import Outcome, Plan
    from wenlu.evaluation.task import Settings


def run(command: Command) -> int:
    """Carry out the command for tasks; what is wrong with flags, tasks or prompts is said before anything is scored."""
    from wenlu.cli.loading import check_format
    from wenlu.evaluation.compare import compare
    from wenlu.evaluation.report import write
    from wenlu.evaluation.results import Results
    from wenlu.evaluation.run import plan
    from wenlu.evaluation.task import Settings
    from wenlu.evaluation.tasks.catalogue import read_tasks

    settings = Settings(command.shots, command.limit, command.chat, command.cut, command.risk)
    _check(command)
    check_format(command.dtype, command.quantize)
    names = [name for given in command.tasks for name in given.split(",") if name]
    tasks = read_tasks(names, command.data)
    with ExitStack() as stack:
        candidates = [_candidate(stack, command, name) for name in (command.run, *command.paths)]
        if len({one.identity for one in candidates}) < len(candidates):
            raise UserError(f"{command.run} and {command.paths[0]} hold the same weights: there is nothing to compare")
        plans = [[plan(task, candidate, settings) for task in tasks] for candidate in candidates]
        shown = _show(command, plans, candidates)
        results = Results(command.out)
        try:
            outcomes = [
                [_run(one, candidate, settings, results) for one in of_model]
                for of_model, candidate in zip(plans, candidates, strict=True)
            ]
        except KeyboardInterrupt:
            kept = f"; what was done is in {command.out}: the same command goes on with it" if command.out else ""
            say(f"interrupted{kept}")
            return INTERRUPTED
        finally:
            results.close()
    comparisons = [compare(*pair, command.delta) for pair in zip(*outcomes, strict=True)] if command.paths else []
    _print(command, outcomes, comparisons, shown)
    if command.report is not None:
        write(command.report, outcomes, comparisons)
        say(f"report: {command.report}", style="dim")
    return 0


def _check(command: Command) -> None:
    if len(command.paths) > 1:
        raise UserError(f"one model is evaluated, or two are compared, not {1 + len(command.paths)}: name two at most")
    if command.show < 0:
        raise UserError(f"show must be at least 0, not {command.show}")
    if command.delta < 0:
        raise UserError(f"delta is a loss that does not matter, 0 or more, not {command.delta}")
    if command.delta and not command.paths:
        raise UserError("--delta is for two models: name a second one")


def _candidate(stack: ExitStack, command: Command, name: str) -> Candidate:
    from wenlu.cli.loading import loaded
    from wenlu.evaluation.candidate import Candidate
    from wenlu.prompting.backend import FolderBackend

    model, tokenizer = stack.enter_context(loaded(name, command.device, command.dtype, command.quantize))
    # What a result depends on besides its prompt: weights as they are used, configuration, tokenizer, chat template.
    identity = FolderBackend((model, tokenizer)).fingerprint[:16] + " chat" * command.chat
    return Candidate(model, tokenizer, name, identity)


def _show(command: Command, plans: list[list[Plan]], candidates: list[Candidate]) -> list[dict]:
    """The prompts asked for, printed unless they become part of a JSON object."""
    from wenlu.evaluation.show import as_text, shown

    found = []
    for of_model, candidate in zip(plans, candidates, strict=True) if command.show else ():
        for one in of_model:
            entries = shown(one, candidate, command.show)
            found.append({"model": candidate.name, "task": one.asked.task.name, "prompts": entries})
            if not command.json:
                print(f"=== {one.asked.task.name}, as {candidate.name} reads it\n{as_text(entries)}", flush=True)
    return found


def _run(planned: Plan, candidate: Candidate, settings: Settings, results: Results) -> Outcome:
    """One task, with a bar that shows the time left."""
    from wenlu.evaluation.run import run_plan

    total = len(planned.keys)
    with progress(planned.asked.task.name) as bar:
        task = bar.add_task("", total=total, note=candidate.name)
        return run_plan(planned, candidate, settings, results, lambda done: bar.advance(task, done))


def _print(command: Command, outcomes: list[list[Outcome]], comparisons: list[Comparison], shown: list[dict]) -> None:
    found = [outcome for of_model in outcomes for outcome in of_model]
    if command.json:
        facts: dict = {"models": [command.run, *command.paths], "tasks": [outcome.as_dict() for outcome in found]}
        facts |= {"comparisons": [one.as_dict() for one in comparisons]} if comparisons else {}
        facts |= {"shown": shown} if shown else {}
        print(json_format.dumps(facts, ensure_ascii=False))
        return
    for of_model in outcomes:
        _table(of_model, of_model[0].model if len(outcomes) > 1 else "")
    for outcome in found:
        of_model = f" ({outcome.model})" if len(outcomes) > 1 else ""
        for note in outcome.notes:
            console.print(f"{outcome.task.name}{of_model}: {note}", markup=False, soft_wrap=True)
        for name, figure in outcome.figures.items():
            if figure.signature:
                print(f"{outcome.task.name}, {name}: {figure.signature}")
    for one in comparisons:
        for name, verdict in one.verdicts.items():
            print(f"{one.task}, {name}: {one.models[1]} beside {one.models[0]} is {verdict}")
        for note in one.notes:
            console.print(f"{one.task}: {note}", markup=False, soft_wrap=True)


def _table(outcomes: list[Outcome], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from wenlu.evaluation.report import figure_rows

    table = Table("task", "figure", "value", "95 % interval", "chance", box=None, pad_edge=False, title=title or None)
    for outcome in outcomes:
        shots = f", {counted(outcome.shots, 'shot')}" if outcome.shots else ""
        named = [outcome.task.name, f"{len(outcome.rows):,} examples{shots}"]
        rows = figure_rows(outcome)
        for number, row in enumerate(rows):
            table.add_row(named[number] if number < len(named) else "", *row)
        for name in named[len(rows) :]:
            table.add_row(name)
    width = None if sys.stdout.isatty() else 200
    Console(file=sys.stdout, highlight=False, width=width).print(table)
