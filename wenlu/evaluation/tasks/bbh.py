"""BIG-Bench Hard (Suzgun et al. 2022): 27 tasks answered in words, with three worked examples each for shots."""

from __future__ import annotations

from pathlib import Path

from wenlu.base.errors import UserError
from wenlu.evaluation.task import Task
from wenlu.evaluation.tasks.source import Source, instead_of, wanted
from wenlu.evaluation.writing import Writing
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template

ARCHIVE = "bbh.tar.xz"
KIND = Writing("verbatim", marker="answer is", stop=("\nQ:", "\n\n"), max_tokens=400)


def names(source: Source) -> list[str]:
    """The tasks of the set that are there."""
    if source.folder is None:
        raise UserError("on the hub BBH lies by task: ask for one, such as bbh/navigate")
    return [f"bbh/{Path(name).stem}" for name in source.names("bbh", ARCHIVE) if name.endswith(".json")]


def read(source: Source, name: str) -> Task:
    """One task (`bbh/navigate`). Its shots are the worked examples of its authors' prompt, answers with their thoughts;
    without shots the model may answer at once."""
    task = name.partition("/")[2]
    if source.folder is not None and source.find(f"bbh/{task}.json", ARCHIVE) is None:
        known = [one.partition("/")[2] for one in names(source)]
        raise UserError(f"BBH has no task {task!r} in {source.folder}.{instead_of(task, known)}")
    rows = source.rows(name, f"bbh/{task}.json", ARCHIVE, f"lukaemon/bbh/{task}:test")
    instruction, pool, notes = "", (), ()
    if source.folder is None:
        notes = ("the hub's rows come without BBH's instruction and worked examples",)
    else:
        prompt = source.read(name, f"cot-prompts/{task}.txt", ARCHIVE).decode()
        instruction, *worked = prompt.partition("-----\n")[2].strip().split("\n\nQ: ")
        instruction = instruction.strip()
        shown = [one.partition("\nA: ") for one in worked]
        if not all(sign for _, sign, _ in shown):
            raise UserError(f"task {name}: a worked example in cot-prompts/{task}.txt has no line that begins with A:")
        pool = tuple(
            _example(f"worked-{n}", question.strip(), answer.strip(), instruction)
            for n, (question, _, answer) in enumerate(shown)
        )
    asked = (wanted(row, ("input", "target"), f"task {name}, row {n}") for n, row in enumerate(rows))
    examples = tuple(_example(str(n), *pair, instruction) for n, pair in enumerate(asked))
    template = Template("Q: {{ input }}\nA:", instruction="{{ instruction }}")
    return Task(name, KIND, examples, template, pool, notes=notes)


def _example(id: str, question: str, answer: str, instruction: str) -> Example:
    return Example(id, {"input": question, "instruction": instruction}, answers=(answer,))
