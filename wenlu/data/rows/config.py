"""What examples a model is tuned on, and how they are read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wenlu.base.config import at_least
from wenlu.base.errors import UserError
from wenlu.data.reading.hub_rows import is_no_path

Task = Literal["chat", "pairs", "classify", "tag", "span"]


def located(name: str, folder: Path) -> str:
    """A file of examples, or LABEL=FILE, named in `folder`, as it is from anywhere; what is no path stays as it is."""
    label, equals, file = name.partition("=")
    if is_no_path(name):
        return name
    if equals and not (folder / name).exists() and (folder / file).exists():
        return f"{label}={(folder / file).absolute()}"
    return str((folder / name).absolute())


@dataclass(frozen=True)
class RowsConfig:
    """Examples, the task they are for, and what is held out."""

    paths: tuple[str, ...] = ()
    """Files of examples (json, jsonl, csv, tsv, parquet, txt; also .gz, .xz, .bz2, .zst), by task."""
    task: Task = "chat"
    """chat, pairs (text to text), classify, tag (entities) or span (answers within a text)."""
    validation: float = 0.1
    """Part of the examples held out, by hash. 0 = none."""
    validation_paths: tuple[str, ...] = ()
    """Held-out examples of their own, instead of a part of `paths`."""
    fields: tuple[str, ...] = ()
    """Names of the fields that are read, where they are not recognised: source and target (pairs), text or two texts
    and label (classify), tokens and tags (tag)."""
    context: int = 0
    """Longest row in tokens; 0 = the model's context, at most 1,024."""
    stride: int = 64
    """Tokens by which windows of a long text overlap (span)."""
    prefix: str = ""
    """Put before every source (pairs), such as "translate German to English: "."""
    max_bad: float = 0.05
    """Part of the records that may be malformed or without a target."""
    max_truncated: float = 0.1
    """Part of the rows that may be cut to the context."""

    def __post_init__(self):
        for name in ("max_bad", "max_truncated"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"rows.{name} must lie in [0, 1], not {getattr(self, name)}")
        if not 0 <= self.validation < 1:
            raise UserError(f"rows.validation must lie in [0, 1), not {self.validation}")
        at_least("rows", self, 0, "context", "stride")
        wanted = {"pairs": (2,), "classify": (2, 3), "tag": (2,)}.get(self.task, ())
        if self.fields and len(self.fields) not in wanted:
            names = " or ".join(map(str, wanted)) or "no"
            raise UserError(f"rows.fields for {self.task} are {names} names, not {len(self.fields)}: {self.fields}")
        for name, task, default in (("prefix", "pairs", ""), ("stride", "span", RowsConfig.stride)):
            if getattr(self, name) != default and self.task != task:
                raise UserError(f"rows.{name} is for {task} and has no effect on {self.task}: leave it out")
        if self.validation_paths and self.validation not in (0, RowsConfig.validation):
            raise UserError("rows.validation has no effect beside rows.validation-paths: leave one of them out")


@dataclass(frozen=True)
class Example:
    """One record, read and well-formed."""

    where: str
    """file:line."""
    content: Any
    """What the task makes of it; as JSON would hold it."""
    prompt: Any
    """What decides the side it lies on: examples that share it are never parted."""
