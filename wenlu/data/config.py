"""Which text is prepared, and how. Free of numpy, so that commands are quick to say what they take."""

from dataclasses import dataclass
from typing import Literal

from wenlu.base.errors import UserError
from wenlu.data.cleaning.limits import check_names
from wenlu.data.cleaning.rules import active_rules


@dataclass(frozen=True)
class PrepareConfig:
    """Which text, how it is split and by which tokenizer it is read."""

    paths: tuple[str, ...] = ()
    """Files, folders, 'patterns*', hub:OWNER/NAME, - for stdin; or one folder made by `wenlu prepare`."""
    validation_paths: tuple[str, ...] = ()
    """Held-out text of its own, instead of a part of `paths`."""
    tokenizer: str = "bpe"
    """bpe (size by the corpus), bpe:N, unigram, unigram:N, char, char:N, byte, or the folder of a tokenizer."""
    purpose: Literal["text", "bert", "t5"] = "text"
    """Whose special tokens a tokenizer is learned with: text (an end token), bert (pad, cls, sep, mask) or t5 (pad, end
    and 100 sentinels, beyond its size)."""
    validation: float = 0.05
    """Part held out: documents by their hash; of fewer than 20, the end of the text. 0 = none."""
    field: str = "text"
    """Where a row of jsonl, csv, tsv, parquet or a data set of the hub keeps its text."""
    max_bad: float = 0.01
    """Part of a file's lines that may be bad before it is refused."""
    context: int = 1024
    """Tokens left out before the held-out end of a text, so that no window reaches over."""
    skip: tuple[str, ...] = ()
    """Rules of cleaning switched off (unicode, html, …; docs/cleaning.md lists them); all = raw text."""
    against: tuple[str, ...] = ()
    """Evaluation sets (jsonl, json, txt) whose texts are looked for in the training text."""
    allow: tuple[str, ...] = ()
    """Limits that may be passed: dropped, duplicates, contamination, overlap."""

    def __post_init__(self):
        if not 0 <= self.validation < 1:
            raise UserError(f"validation must lie in [0, 1), not {self.validation}")
        if not 0 <= self.max_bad <= 1:
            raise UserError(f"max-bad must lie in [0, 1], not {self.max_bad}")
        if self.context < 0:
            raise UserError(f"context must not be negative, not {self.context}")
        active_rules(self.skip)
        check_names(self.allow)
