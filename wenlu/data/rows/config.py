"""What examples a model is tuned on, and how they are read."""

from dataclasses import dataclass
from typing import Any, Literal

from wenlu.base.config import at_least
from wenlu.base.errors import UserError

Task = Literal["chat", "pairs", "classify", "tag", "span"]


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
    """Longest row in tokens; 0 = the model's context, at most 512 for encoders."""
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
