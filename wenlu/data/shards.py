"""Token ids on the disk: memory-mapped shards of uint16 or uint32 with the lengths of their documents."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wenlu.base.errors import UserError
from wenlu.base.files import sha256_file, verify_folder
from wenlu.tokenization.tokenizer import Tokenizer

DESCRIPTION = "data.json"
VERSION = 1
"""Of the form of a prepared folder."""
SHARD_TOKENS = 1 << 27
AT_ONCE = 1 << 16
"""Tokens that are checked, converted and written together."""


class ShardWriter:
    """Appends documents of one split to `FOLDER/SPLIT/NNNNN.bin`, a new file every `shard_tokens` tokens."""

    def __init__(self, folder: Path, vocab: int, shard_tokens: int = SHARD_TOKENS):
        self.folder = folder
        self.dtype = np.dtype(np.uint16 if vocab <= 1 << 16 else np.uint32)
        self.tokens, self.bytes = 0, 0
        self._lengths: list[int] = []
        self._bytes: list[int] = []
        self._limit, self._vocab = shard_tokens, vocab
        self._waiting: list[np.ndarray] = []
        self._waits = 0
        self._open = (0, 0)
        self._shards, self._in_shard, self._file = 0, 0, None
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, ids: np.ndarray, text_bytes: int, *, last: bool) -> None:
        """Add a part of the current document, its text's size in UTF-8, and whether it is the document's last."""
        self._waiting.append(ids)
        self._waits += len(ids)
        if self._waits >= AT_ONCE:
            self._write()
        length, size = self._open
        self._open = (length + len(ids), size + text_bytes)
        self.tokens, self.bytes = self.tokens + len(ids), self.bytes + text_bytes
        if last:
            self._lengths.append(self._open[0])
            self._bytes.append(self._open[1])
            self._open = (0, 0)

    @property
    def between_documents(self) -> bool:
        """Whether the next part begins a document."""
        return self._open == (0, 0)

    def close(self) -> dict[str, int]:
        """Write the lengths; returns the split's figures."""
        assert self.between_documents, "every document is ended"
        self._write()
        self.release()
        _save(self.folder / "lengths.npy", self._lengths)
        _save(self.folder / "bytes.npy", self._bytes)
        return {"documents": len(self._lengths), "tokens": self.tokens, "bytes": self.bytes, "shards": self._shards}

    def _write(self) -> None:
        """Write the ids that wait."""
        ids = np.concatenate(self._waiting) if self._waiting else np.empty(0, dtype=np.int64)
        self._waiting, self._waits = [], 0
        assert not len(ids) or (ids.min() >= 0 and ids.max() < self._vocab)
        ids = ids.astype(self.dtype)
        while len(ids):
            if self._file is None or self._in_shard >= self._limit:
                self._next_shard()
            part, ids = ids[: self._limit - self._in_shard], ids[self._limit - self._in_shard :]
            self._file.write(part.data)
            self._in_shard += len(part)

    def release(self) -> None:
        """Close the file at hand; for a writer that is given up."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _next_shard(self) -> None:
        self.release()
        self._file = open(self.folder / f"{self._shards:05d}.bin", "wb")  # noqa: SIM115 - closed by close()
        self._shards, self._in_shard = self._shards + 1, 0


def _save(file: Path, values: list[int]) -> None:
    """An int64 .npy file. By way of memory: numpy's own writing to a file forgets why the system refused it."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, dtype=np.int64))
    file.write_bytes(buffer.getbuffer())


class TokenStore:
    """One split, read through memory maps."""

    def __init__(self, folder: Path, dtype: str):
        maps = [np.memmap(file, dtype=dtype, mode="r") for file in sorted(folder.glob("*.bin"))]
        self._shards = [shard.view(np.ndarray) for shard in maps]  # slicing a memmap itself takes three times as long
        self._ends = np.cumsum([len(shard) for shard in self._shards])
        self.lengths = np.load(folder / "lengths.npy")
        """Tokens of every document, its end token among them, int64 [documents]."""
        self.document_bytes = np.load(folder / "bytes.npy")
        """Bytes of every document's text in UTF-8, int64 [documents]."""
        self.bytes = int(self.document_bytes.sum())

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def tokens(self, start: int, count: int) -> np.ndarray:
        """`count` ids from `start` on, int64, over the borders of shards; fewer at the end of the split."""
        stop, parts = min(start + count, len(self)), []
        while start < stop:
            shard = int(np.searchsorted(self._ends, start, side="right"))
            begin = int(self._ends[shard]) - len(self._shards[shard])
            part = self._shards[shard][start - begin : stop - begin]
            parts.append(np.asarray(part, dtype=np.int64))
            start += len(part)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def documents(self, tokenizer: Tokenizer) -> list[str]:
        """The documents' texts, without their end tokens."""
        ends = np.cumsum(self.lengths)
        return [tokenizer.decode(self.tokens(int(e - n), int(n)).tolist()) for e, n in zip(ends, self.lengths)]

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """`length` ids from each start on, int64 [starts, length]."""
        length = min(length, len(self))
        result = np.empty((len(starts), length), dtype=np.int64)
        for row, start in enumerate(starts.tolist()):
            shard = int(np.searchsorted(self._ends, start, side="right")) if len(self._ends) > 1 else 0
            begin = start - (int(self._ends[shard]) - len(self._shards[shard]))
            if begin + length <= len(self._shards[shard]):
                result[row] = self._shards[shard][begin : begin + length]
            else:
                result[row] = self.tokens(start, length)
        return result


@dataclass(frozen=True)
class Data:
    """A prepared folder, opened."""

    folder: Path
    description: dict[str, Any]
    """The contents of data.json."""
    tokenizer: Tokenizer
    train: TokenStore
    validation: TokenStore | None

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over ids, lengths and tokenizer."""
        return self.description["fingerprint"]


def open_data(folder: Path | str, *, verify: bool = False) -> Data:
    """Open a folder that `prepare` made. Names and sizes are checked; with `verify`, every byte.

    Raises `UserError` where it is none, is damaged, or has the form of another version.
    """
    folder = Path(folder)
    if not (folder / DESCRIPTION).exists():
        raise UserError(f"{folder} is no prepared data folder (it has no {DESCRIPTION}): make one with wenlu prepare")
    problems = verify_folder(folder, contents=verify)
    if problems:
        raise UserError(f"{folder} is damaged ({'; '.join(problems[:3])}): prepare it again")
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version = description["version"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder} is damaged ({DESCRIPTION} cannot be read): prepare it again") from None
    if version != VERSION:
        raise UserError(f"{folder} has the form of version {version}, this wenlu reads {VERSION}: prepare it again")
    validation = folder / "validation"
    return Data(
        folder,
        description,
        Tokenizer.load(folder),
        TokenStore(folder / "train", description["dtype"]),
        TokenStore(validation, description["dtype"]) if validation.is_dir() else None,
    )


def fingerprint(folder: Path, tokenizer: Tokenizer) -> str:
    """Hex sha256 over all shards and lengths below `folder`, and the tokenizer."""
    digest = hashlib.sha256(tokenizer.fingerprint.encode())
    for file in sorted(p for p in folder.rglob("*") if p.suffix in (".bin", ".npy")):
        digest.update(f"{file.relative_to(folder).as_posix()} {sha256_file(file)}\n".encode())
    return digest.hexdigest()
