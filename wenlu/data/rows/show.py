"""Rows as a person reads them: their ids, their text, and what of it is learned."""

from __future__ import annotations

import itertools

import numpy as np

from wenlu.data.rows.store import Rows
from wenlu.tokenization.tokenizer import Tokenizer

OPEN, CLOSE = "⟦", "⟧"
"""Around what is learned."""


def shown(rows: Rows, tokenizer: Tokenizer, count: int) -> list[str]:
    """The first rows, some lines each."""
    lines = []
    for number in range(min(count, len(rows.train))):
        row, form = rows.train[number], rows.description["form"]
        ids = row["ids"].tolist()
        lines.append(f"row {number + 1}: {len(ids):,} tokens")
        lines.append(f"  ids   {_listed(ids)}")
        if form == "chat":
            mask = row["mask"]
            lines.append(f"  mask  {_listed(mask.tolist())}  ({int(mask.sum()):,} tokens learned)")
            lines.append(f"  text  {_text(tokenizer, ids, mask)}")
            continue
        lines.append(f"  text  {tokenizer.decode(ids, skip_special=False)}")
        if form == "pairs":
            targets = row["targets"].tolist()
            lines.append(f"  target ids  {_listed(targets)}")
            lines.append(f"  target      {OPEN}{tokenizer.decode(targets, skip_special=False)}{CLOSE}")
        elif form == "classify":
            lines.append(f"  label {OPEN}{rows.description['labels'][int(row['labels'][0])]}{CLOSE}")
        elif form == "tag":
            names = rows.description["labels"]
            starts = [*np.flatnonzero(row["labels"] >= 0).tolist(), len(ids) - 1]
            words = [tokenizer.decode(ids[start:end]).strip() for start, end in itertools.pairwise(starts)]
            tags = [names[n] for n in row["labels"].tolist() if n >= 0]
            lines.append("  tags  " + " ".join(f"{word} {OPEN}{tag}{CLOSE}" for word, tag in zip(words, tags)))
        else:
            span = ids[int(row["starts"][0]) : int(row["ends"][0]) + 1]
            lines.append(f"  span  {OPEN}{tokenizer.decode(span, skip_special=False)}{CLOSE}")
    return lines


def _text(tokenizer: Tokenizer, ids: list[int], mask: np.ndarray) -> str:
    """The text, with brackets around what is learned."""
    borders = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(ids)]
    parts = []
    for start, end in itertools.pairwise(borders):
        part = tokenizer.decode(ids[start:end], skip_special=False)
        parts.append(f"{OPEN}{part}{CLOSE}" if mask[start] else part)
    return "".join(parts)


def _listed(numbers: list[int], most: int = 64) -> str:
    shown = " ".join(map(str, numbers[:most]))
    return f"{shown} … ({len(numbers) - most:,} more)" if len(numbers) > most else shown
