"""What a task is: examples of one kind, how they become prompts, and which of them are asked."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from wenlu.base.errors import UserError
from wenlu.evaluation.kinds import Cloze, Contexts, Kind, Pairs
from wenlu.evaluation.writing import Writing
from wenlu.prompting.examples import Example, distinct
from wenlu.prompting.template import Prompt, Template, as_chat


@dataclass(frozen=True)
class Task:
    """Examples, and all that is needed to ask a model about them. Raises UserError where they cannot be asked."""

    name: str
    kind: Kind
    examples: tuple[Example, ...]
    template: Template | None = None
    """How they become prompts; None for kinds whose examples are whole texts."""
    pool: tuple[Example, ...] = ()
    """Where shots are taken from; empty: the first of the examples, which are then not asked."""
    shots: int = 0
    """Examples with their answers before each question, where nothing else is asked for."""
    part: str = ""
    """A field by whose values the main figure is also given; empty: by none."""
    notes: tuple[str, ...] = ()
    """What reading left out or changed."""

    def __post_init__(self):
        if not self.examples:
            raise UserError(f"task {self.name} has no examples: its file is empty")
        try:
            distinct(self.examples)
            for example in (*self.examples, *self.pool):
                self.kind.check(example)
        except UserError as error:
            raise UserError(f"task {self.name}: {error}") from None


@dataclass(frozen=True)
class Settings:
    """How tasks are run. Raises UserError for a value out of its range."""

    shots: int | None = None
    """Examples with their answers before each question, the same for all; None: as the task says."""
    limit: int = 0
    """Ask the first so many only, of a task with parts those of each by turns; 0: all."""
    chat: bool = False
    """As a conversation, by the chat template of the model's folder."""
    cut: bool = False
    """Cut prompts that are too long from the left, instead of refusing them."""
    risk: float = 0.1
    """The part of answers that may be wrong, for the threshold from which on to answer."""

    def __post_init__(self):
        if self.shots is not None and self.shots < 0:
            raise UserError(f"shots must be at least 0, not {self.shots}")
        if self.limit < 0:
            raise UserError(f"limit must be at least 0, not {self.limit}")
        if not 0 <= self.risk < 1:
            raise UserError(f"risk is a part of answers, from 0 to less than 1, not {self.risk}")


@dataclass(frozen=True)
class Asked:
    """What is asked of a model, and by which shots."""

    task: Task
    examples: tuple[Example, ...]
    shots: tuple[Example, ...]
    chat: bool
    notes: tuple[str, ...]

    @property
    def template(self) -> Template | None:
        """The task's template, as a conversation where that is asked for."""
        return as_chat(self.task.template) if self.chat else self.task.template

    def prompts(self, example: Example) -> tuple[tuple[Prompt, tuple[str, ...]], ...]:
        """Prompts, each with the texts whose probability after it is asked for; none where one is to be written."""
        return self.task.kind.asks(self.template, example, self.shots)


def asked(task: Task, settings: Settings) -> Asked:
    """The examples and shots that settings choose.

    Shots are the first of the pool, else the first examples, which are then not asked. Nor is what asks the same as a
    shot or is of its group, wherever shots are from: no question has its own answer, or its own passage, before it; how
    many is noted. Raises UserError where there are not enough.
    """
    _refuse_unused(task, settings)
    number = task.shots if settings.shots is None else settings.shots
    source = task.pool or task.examples
    if number > len(source) - (not task.pool):
        where = "examples to take shots from" if task.pool else "examples, of which one at least must be left to ask"
        raise UserError(f"{number} shots are more than task {task.name} has: there are {len(source)} {where}")
    shots, notes = source[:number], list(task.notes)
    rest = task.examples[0 if task.pool else number :]
    examples = _apart(task, rest, shots)
    left = len(rest) - len(examples)
    more = f"{left:,} more share their passages or ask the same" if left else ""
    if shots and not task.pool:
        notes.append(f"the first {number} examples serve as shots and are not asked" + f", {more}" * bool(left))
    elif left:
        notes.append(f"{left:,} examples are not asked, for they share passages of the {number} shots or ask the same")
    if not examples:
        raise UserError(f"task {task.name} has no examples left beside {number} shots, {more}: ask for fewer shots")
    if settings.limit and task.part:
        examples = _by_turns(examples, task.part)
    examples = examples[: settings.limit or None]
    return Asked(task, examples, shots, settings.chat, (*notes, *task.kind.notes(examples)))


def _apart(task: Task, examples: tuple[Example, ...], shots: tuple[Example, ...]) -> tuple[Example, ...]:
    """The examples before which these shots may stand."""
    if not shots:
        return examples

    def what(one: Example) -> frozenset:
        """What is asked, whatever the example's id and the order of its choices."""
        return frozenset((repr(prompt), frozenset(after)) for prompt, after in task.kind.asks(task.template, one, ()))

    groups, known = {one.group for one in shots} - {""}, {what(one) for one in shots}
    return tuple(one for one in examples if one.group not in groups and what(one) not in known)


def _by_turns(examples: tuple[Example, ...], part: str) -> tuple[Example, ...]:
    """The same, one of each part after the other, so that the first few hold as much of each as there is room for."""
    parts: dict[str, list[Example]] = {}
    for example in examples:
        parts.setdefault(str(example.fields.get(part, "-")), []).append(example)
    turns = itertools.zip_longest(*parts.values())
    return tuple(example for turn in turns for example in turn if example is not None)


def _refuse_unused(task: Task, settings: Settings) -> None:
    if settings.chat and (task.template is None or isinstance(task.kind, Cloze)):
        raise UserError(f"task {task.name} asks about texts as they stand: leave out --chat")
    if settings.shots and task.template is None and not isinstance(task.kind, Contexts):
        raise UserError(f"task {task.name} asks about whole texts, before which no shots stand: leave out --shots")


def refuse_family(task: Task, family: str) -> None:
    """Raises UserError for a task that a family of models cannot do."""
    kind = task.kind
    if family == "bert" and isinstance(kind, Writing):
        raise UserError(
            f"task {task.name} wants texts written, and a bert cannot write on: take another model, or tune the bert "
            "on the task (wenlu finetune)"
        )
    if family == "bert" and not kind.judges_only:
        raise UserError(
            f"task {task.name} asks for probabilities of texts, and a bert, which reads both ways, gives none: "
            "take a model that reads from left to right"
        )
    if family == "t5" and (isinstance(kind, Pairs) or kind.whole_texts):
        raise UserError(
            f"task {task.name} asks for probabilities of whole texts, and a t5 gives those of answers only: "
            "take a model that reads from left to right"
        )
