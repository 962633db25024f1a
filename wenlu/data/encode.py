"""Text in its parts → token ids in the shards of each side."""

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wenlu.base.log import progress
from wenlu.data.reading.sources import Piece, size_in_utf8
from wenlu.data.shards import ShardWriter
from wenlu.data.split import Side
from wenlu.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from wenlu.data.cleaning.profile import Profile

AT_ONCE = 4 << 20
"""Characters encoded together, so that every core has some to work on."""


@dataclass(frozen=True)
class Encoded:
    """What was written."""

    splits: dict[str, dict[str, int]]
    """Side → documents, tokens, bytes, shards."""
    dtype: str
    gap_bytes: int
    """Bytes between training and held-out text, which are in neither."""
    lossy: int
    """Documents that the tokenizer does not give back exactly."""

    @property
    def bytes(self) -> int:
        return self.gap_bytes + sum(part["bytes"] for part in self.splits.values())


def write_shards(
    folder: Path, parts: Iterable[tuple[Side, Piece]], size: int, tokenizer: Tokenizer, profile: "Profile | None" = None
) -> Encoded:
    """Encode all parts, `size` bytes in all, into `folder/SIDE`: each document with the token that begins a text, where
    the tokenizer has one of its own, and the one that ends it."""
    writers: dict[str, ShardWriter] = {"train": ShardWriter(folder / "train", tokenizer.vocab)}
    begin = _ids([tokenizer.bos_id] if tokenizer.bos_id not in (None, tokenizer.eos_id) else [])
    end, nothing = _ids([tokenizer.end_id]), _ids([])
    gap = lossy = 0
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress("encoding", unit_counts=False))
        stack.callback(lambda: [writer.release() for writer in writers.values()])
        task = bar.add_task("", total=size, note="")
        known = parts if tokenizer.is_known else _whole(parts)
        for batch, encoded in _encoded(_batches(known), tokenizer, stack):
            read = 0
            for (side, piece), ids in zip(batch, encoded, strict=True):
                text_bytes = size_in_utf8(piece.text)
                read += text_bytes
                if side == "gap":
                    gap += text_bytes
                    continue
                if side not in writers:
                    writers[side] = ShardWriter(folder / side, tokenizer.vocab)
                if profile:
                    profile.add(side, piece)
                if not tokenizer.is_known:
                    lossy += tokenizer.decode(ids.tolist()) != piece.text
                first = begin if writers[side].between_documents else nothing
                last = end if piece.last else nothing
                writers[side].add(np.concatenate((first, ids, last)), text_bytes, last=piece.last)
            bar.advance(task, read)
        splits = {side: writer.close() for side, writer in writers.items()}
    return Encoded(splits, writers["train"].dtype.name, gap, lossy)


def _encoded(
    batches: Iterable[list[tuple[Side, Piece]]], tokenizer: Tokenizer, stack: contextlib.ExitStack
) -> Iterator[tuple[list[tuple[Side, Piece]], list[np.ndarray]]]:
    """Every batch with its ids. While one is used, the next is read and encoded: the library works without Python's
    lock."""
    worker = stack.enter_context(ThreadPoolExecutor(1))
    before: tuple[list[tuple[Side, Piece]], Future[list[np.ndarray]]] | None = None
    for batch in batches:
        here = batch, worker.submit(tokenizer.encode_arrays, [piece.text for _, piece in batch])
        if before:
            yield before[0], before[1].result()
        before = here
    if before:
        yield before[0], before[1].result()


def _ids(ids: list[int]) -> np.ndarray:
    return np.array(ids, dtype=np.uint32)


def _whole(parts: Iterable[tuple[Side, Piece]]) -> Iterator[tuple[Side, Piece]]:
    """The pieces of a document on one side as one, for a tokenizer of which it is not known where a text may be cut."""
    waiting: list[tuple[Side, Piece]] = []
    for part in parts:
        if waiting and waiting[0][0] != part[0]:
            yield _together(waiting)
            waiting = []
        waiting.append(part)
        if part[1].last:
            yield _together(waiting)
            waiting = []
    if waiting:
        yield _together(waiting)


def _together(parts: list[tuple[Side, Piece]]) -> tuple[Side, Piece]:
    side, last = parts[-1]
    return side, Piece(last.document, "".join(piece.text for _, piece in parts), last.last)


def _batches(parts: Iterable[tuple[Side, Piece]]) -> Iterator[list[tuple[Side, Piece]]]:
    """Parts in lists of about `AT_ONCE` characters."""
    batch, size = [], 0
    for part in parts:
        batch.append(part)
        size += len(part[1].text)
        if size >= AT_ONCE or len(batch) >= 4096:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
