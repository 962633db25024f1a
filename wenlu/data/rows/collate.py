"""Rows → a batch: a dictionary of padded arrays, by the names that models and objectives read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wenlu.data.batch import NO_TARGET, PADDING, Batch
from wenlu.data.rows.store import Row

MULTIPLE = 8
"""Widths are rounded up to it, so that there are fewer of them."""


def padded(parts: Sequence[np.ndarray], fill: int, width: int = 0) -> np.ndarray:
    """Arrays of any length as rows of one, int64 [rows, width], filled up at the end."""
    width = width or _round_up(max((len(part) for part in parts), default=1))
    result = np.full((len(parts), width), fill, dtype=np.int64)
    for row, part in zip(result, parts, strict=True):
        row[: len(part)] = part
    return result


def packed(packs: Sequence[Sequence[Row]], pad: int) -> Batch:
    """Conversations, several in a row: `ids`, `positions`, `segments` (numbers of them) and `targets`.

    A target is the token after, where that is one of the assistant's and of the same conversation. Attention does not
    go from one segment to another, so that a conversation is read as if it stood alone.
    """
    ids, targets, segments, positions = [], [], [], []
    for rows in packs:
        ids.append(np.concatenate([row["ids"][:-1] for row in rows]))
        learned = [np.where(row["mask"][1:] > 0, row["ids"][1:], NO_TARGET) for row in rows]
        targets.append(np.concatenate(learned))
        segments.append(np.concatenate([np.full(len(t), number) for number, t in enumerate(learned)]))
        positions.append(np.concatenate([np.arange(len(t)) for t in learned]))
    return {
        "ids": padded(ids, pad),
        "targets": padded(targets, NO_TARGET),
        "segments": padded(segments, PADDING),
        "positions": padded(positions, 0),
    }


def text_to_text(rows: Sequence[Row], pad: int, begin: int) -> Batch:
    """Sources and targets for a T5; its decoder begins with `begin` and reads the target one token late."""
    shifted = [np.concatenate([[begin], row["targets"][:-1]]) for row in rows]
    return {
        **read(rows, pad),
        "decoder_ids": padded(shifted, pad),
        "decoder_segments": padded([np.zeros(len(row["targets"])) for row in rows], PADDING),
        "targets": padded([row["targets"] for row in rows], NO_TARGET),
    }


def classified(rows: Sequence[Row], pad: int) -> Batch:
    """One label a row: `labels` [batch]."""
    return {**read(rows, pad), **types(rows), "labels": np.array([int(row["labels"][0]) for row in rows])}


def tagged(rows: Sequence[Row], pad: int) -> Batch:
    """One label a token: `labels` [batch, seq], -100 where none is learned."""
    return {**read(rows, pad), "labels": padded([row["labels"] for row in rows], NO_TARGET)}


def spans(rows: Sequence[Row], pad: int) -> Batch:
    """Where the answer begins and ends: `starts`, `ends` [batch], 0 (the first token) where it is not in the window.

    `within` [batch, seq] marks the tokens among which it is looked for: the context's, and the first.
    """
    return {
        **read(rows, pad),
        **types(rows),
        "starts": np.array([int(row["starts"][0]) for row in rows]),
        "ends": np.array([int(row["ends"][0]) for row in rows]),
        "within": padded([row["within"] for row in rows], 0),
    }


def read(rows: Sequence[Row], pad: int) -> Batch:
    """`ids` and `segments`: one text a row."""
    return {
        "ids": padded([row["ids"] for row in rows], pad),
        "segments": padded([np.zeros(len(row["ids"])) for row in rows], PADDING),
    }


def types(rows: Sequence[Row]) -> Batch:
    """Which of two texts a token belongs to."""
    return {"types": padded([row["types"] for row in rows], 0)}


def _round_up(width: int) -> int:
    return -(-max(width, 1) // MULTIPLE) * MULTIPLE
