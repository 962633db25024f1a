"""What was read for fine-tuning, what was left out and why, and when that is too much."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from wenlu.base.errors import UserError
from wenlu.base.log import counted
from wenlu.data.reading.counts import SourceCounts

EXAMPLES = 20


@dataclass
class Tally:
    """Counts of one part, training or held out."""

    part: str
    source: SourceCounts = field(default_factory=SourceCounts)
    records: int = 0
    """Read, whatever became of them."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Forms of records that were recognised."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Records that are malformed, or from which nothing can be learned, by reason."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Records that are well-formed but not wanted: duplicates and what is held out."""
    noted: Counter[str] = field(default_factory=Counter)
    """What was changed or is odd in records that are kept."""
    truncated: int = 0
    rows: int = 0
    examples: list[str] = field(default_factory=list)
    """The first dropped records, as place: reason."""

    def drop(self, where: str, reason: str, about: str = "") -> None:
        """Leave a record out; `about` is told of this one only."""
        self.dropped[reason] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{where}: {reason}{f' ({about})' if about else ''}")

    def judge(self, max_bad: float, max_truncated: float) -> None:
        """Refuse what has too many bad or truncated records, or none that are good."""
        self.judge_bad(max_bad)
        if not self.rows:
            first = self._first_bad
            raise UserError(f"{self.part}: no rows" + (f"; the first bad one at {first}" if first else ": it is empty"))
        if self.truncated / self.rows > max_truncated:
            are = "is" if self.truncated == 1 else "are"
            raise UserError(
                f"{self.part}: {self.truncated:,} of {counted(self.rows, 'row')} {are} longer than the context and "
                f"would be cut, more than {max_truncated:.1%}: raise --rows.context, or allow more with "
                f"--rows.max-truncated {min(1.0, self.truncated / self.rows + 0.005):.2f}"
            )

    def judge_bad(self, max_bad: float) -> None:
        """Refuse what has too many bad records."""
        bad = sum(self.dropped.values()) + self.source.bad_lines
        read = max(self.records + self.source.bad_lines, 1)
        if bad and bad / read > max_bad:
            are = "is" if bad == 1 else "are"
            more = f", or allow more with --rows.max-bad {min(1.0, bad / read + 0.005):.2f}" if bad < read else ""
            raise UserError(
                f"{self.part}: {bad:,} of {counted(read, 'record')} {are} bad, more than {max_bad:.1%}, the first at "
                f"{self._first_bad}; mend them{more}"
            )

    @property
    def _first_bad(self) -> str:
        return (self.examples or self.source.examples or [""])[0]

    def as_dict(self) -> dict[str, Any]:
        named = ("kinds", "dropped", "left_out", "noted")
        counted = {name: dict(getattr(self, name)) for name in named}
        numbers = {name: getattr(self, name) for name in ("records", "rows", "truncated", "examples")}
        return numbers | counted | {"source": self.source.as_dict()}

    def lines(self) -> list[str]:
        """What a user should know, a line each."""
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in self.kinds.most_common())
        lines = [
            f"{self.part}: {counted(self.rows, 'row')} of {counted(self.records, 'record')}"
            + (f" ({kinds})" if kinds else "")
        ]
        lines += [f"{number:,} left out: {reason}" for reason, number in (self.dropped + self.left_out).most_common()]
        lines += [f"{reason}: {number:,}" for reason, number in self.noted.most_common()]
        if self.truncated:
            lines.append(f"{self.truncated:,} cut to the context")
        if self.source.bad_lines:
            bad = counted(self.source.bad_lines, "bad line")
            lines.append(f"{bad} left out, the first at {self.source.examples[0]}")
        return lines
