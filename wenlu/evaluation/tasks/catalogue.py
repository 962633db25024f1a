"""Tasks by name: one table of those that are known, and TOML files of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wenlu.base.errors import UserError, did_you_mean
from wenlu.evaluation.task import Task
from wenlu.evaluation.tasks import bbh, blimp, gauntlet, gsm8k, induction, own, polarity, reading, translation
from wenlu.evaluation.tasks.source import Source

Reader = Callable[[Source, str], Task]
READERS: dict[str, Reader] = {
    **dict.fromkeys((*gauntlet.FORMS, *gauntlet.OTHER_NAMES), gauntlet.read),
    "blimp": blimp.read,
    "bbh": bbh.read,
    "gsm8k": gsm8k.read,
    "instruction_induction": induction.read,
    **dict.fromkeys(reading.FILES, reading.read),
    **dict.fromkeys(translation.NAMES, translation.read),
    **dict.fromkeys(polarity.SETS, polarity.read),
}
"""By the name, or what stands before its /."""
SETS = {"bbh": bbh.names, "instruction_induction": induction.names}
"""Names that stand for several tasks."""
FOLDERS = ("blimp", *SETS)


def read_tasks(names: Sequence[str], data: str = "") -> list[Task]:
    """The tasks of these names, files of the user's own (ending in .toml) among them.

    data: a folder, hub, or nothing for $WENLU_DATA (`Source.named`). Raises UserError for an unknown name, and for
    whatever is wrong with a task's rows.
    """
    if not names:
        raise UserError("which tasks? Name some after --tasks, or a TOML file of your own")
    for name in names:
        _check(name)
    tasks: list[Task] = []
    for name in names:
        if name.endswith(".toml"):
            tasks.append(own.read(name))
            continue
        source = Source.named(data)
        members = SETS[name](source) if name in SETS else [name]
        if not members:
            raise UserError(f"there are no tasks of {name} in {source.folder}: name another folder by --data")
        tasks += [READERS[member.partition("/")[0]](source, member) for member in members]
    twice = [task.name for number, task in enumerate(tasks) if task.name in {one.name for one in tasks[:number]}]
    if twice:
        raise UserError(f"task {twice[0]} is named twice: name it once, or give your own another name")
    return tasks


def _check(name: str) -> None:
    head, slash, rest = name.partition("/")
    if name.endswith(".toml") or (head in READERS and (not slash or (head in FOLDERS and rest))):
        return
    known = ", ".join(sorted(set(READERS) - set(gauntlet.OTHER_NAMES)))
    others = ", ".join(f"{other} for {own}" for other, own in gauntlet.OTHER_NAMES.items())
    raise UserError(f"no task {name!r}.{did_you_mean(name, READERS)} Known: {known}; also {others}")
