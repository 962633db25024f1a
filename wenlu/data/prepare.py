"""Text files → a folder of token ids: split, tokenizer, shards, manifest."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.base.files import whole_folder
from wenlu.base.log import console, progress
from wenlu.data.shards import DESCRIPTION, ShardWriter, fingerprint
from wenlu.data.sources import Piece, SourceCounts, list_files, read_documents, spooled
from wenlu.data.split import Documents, Side, Split
from wenlu.tokenization.learn import learn, parse_spec
from wenlu.tokenization.tokenizer import Tokenizer

VERSION = 1
AT_ONCE = 8
"""Pieces encoded together, so that every core has one to work on."""


@dataclass(frozen=True)
class PrepareConfig:
    """Which text, how it is split and by which tokenizer it is read."""

    paths: tuple[str, ...] = ()
    """Files, folders, or - for stdin; or one folder made by `wenlu prepare`."""
    validation_paths: tuple[str, ...] = ()
    """Held-out text of its own, instead of a part of `paths`."""
    tokenizer: str = "bpe"
    """bpe (size by the corpus), bpe:N, char, char:N, byte, or the folder of a tokenizer."""
    validation: float = 0.05
    """Part held out: documents by their hash; of fewer than 20, the end of the text. 0 = none."""
    field: str = "text"
    """Where a row of jsonl keeps its text."""
    max_bad: float = 0.01
    """Part of a file's lines that may be bad before it is refused."""
    context: int = 1024
    """Tokens left out before the held-out end of a text, so that no window reaches over."""

    def __post_init__(self):
        if not 0 <= self.validation < 1:
            raise UserError(f"validation must lie in [0, 1), not {self.validation}")
        if not 0 <= self.max_bad <= 1:
            raise UserError(f"max-bad must lie in [0, 1], not {self.max_bad}")
        if self.context < 0:
            raise UserError(f"context must not be negative, not {self.context}")


def prepare(config: PrepareConfig, out: Path | str) -> dict[str, Any]:
    """Make the folder `out`, whole or not at all; returns the contents of its data.json."""
    if not config.paths:
        raise UserError("no text: name files or folders, or - for stdin")
    spec = parse_spec(config.tokenizer)
    with spooled(config.paths) as paths, whole_folder(out) as folder:
        list_files(paths, SourceCounts())
        texts = _Texts(config, paths)
        if spec.kind == "folder":
            tokenizer = Tokenizer.load(spec.folder)
        else:
            console.print(f"learning the tokenizer ({config.tokenizer}) …")
            tokenizer = learn(spec.kind, (p.text for side, p in texts.parts() if side == "train"), spec.vocab)
        if tokenizer.eos_id is None:
            raise UserError(f"the tokenizer {config.tokenizer} has no end token to part documents with: choose another")
        description = _write(folder, texts, tokenizer)
        tokenizer.save(folder)
        description["fingerprint"] = fingerprint(folder, tokenizer)
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")
    _say(description, out)
    return description


class _Texts:
    """The sources, read once to learn how long they are, then as often as wanted."""

    def __init__(self, config: PrepareConfig, paths: tuple[str, ...]):
        self._config, self._paths = config, paths
        self.counts = SourceCounts()
        self.documents = Documents.of(self._read(paths, self.counts))
        held_out = SourceCounts()
        self.given = Documents.of(self._read(config.validation_paths, held_out)) if config.validation_paths else None
        fraction = 0.0 if self.given else config.validation
        characters = config.context * (4 if config.tokenizer.startswith("bpe") else 1)
        self.split = Split(self.documents, fraction, characters)
        self.overlap = len(set(self.documents.digests) & set(self.given.digests)) if self.given else 0

    def parts(self) -> Iterator[tuple[Side, Piece]]:
        yield from self.split.parts(self._read(self._paths))
        if self.given:
            yield from (("validation", piece) for piece in self._read(self._config.validation_paths))

    def _read(self, paths: tuple[str, ...], counts: SourceCounts | None = None) -> Iterator[Piece]:
        return read_documents(paths, counts, field=self._config.field, max_bad=self._config.max_bad)


def _write(folder: Path, texts: _Texts, tokenizer: Tokenizer) -> dict[str, Any]:
    """Encode every part and write it to its split's shards."""
    writers: dict[str, ShardWriter] = {"train": ShardWriter(folder / "train", tokenizer.vocab)}
    gap = 0
    with progress("encoding", unit_counts=False) as bar:
        task = bar.add_task("", total=texts.documents.bytes + (texts.given.bytes if texts.given else 0), note="")
        for batch in _batches(texts.parts()):
            encoded = tokenizer.encode_batch([piece.text for _, piece in batch])
            for (side, piece), ids in zip(batch, encoded, strict=True):
                size = len(piece.text.encode())
                bar.advance(task, size)
                if side == "gap":
                    gap += size
                    continue
                if side not in writers:
                    writers[side] = ShardWriter(folder / side, tokenizer.vocab)
                writers[side].add([*ids, tokenizer.eos_id] if piece.last else ids, size, last=piece.last)
    splits = {side: writer.close() for side, writer in writers.items()}
    return {
        "version": VERSION,
        "dtype": writers["train"].dtype.name,
        "vocab": tokenizer.vocab,
        "tokenizer": {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
        **splits,
        "split": "given" if texts.given else "none" if "validation" not in splits else _split_name(texts.split),
        "gap_bytes": gap,
        "duplicates": texts.documents.duplicates,
        "overlap": texts.overlap,
        "sources": texts.counts.as_dict(),
        "config": {**asdict(texts._config), "paths": list(texts._config.paths)},
    }


def _split_name(split: Split) -> str:
    return "by document hash" if split.by_hash else "the last part of the text"


def _batches(parts: Iterable[tuple[Side, Piece]]) -> Iterator[list[tuple[Side, Piece]]]:
    """Parts in lists of about `AT_ONCE` pieces' worth of text."""
    batch, size = [], 0
    for part in parts:
        batch.append(part)
        size += len(part[1].text)
        if size >= AT_ONCE << 20 or len(batch) >= 4096:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _say(description: dict[str, Any], out: Path | str) -> None:
    """What was made, and everything that was left out."""
    for side in ("train", "validation"):
        if side in description:
            part = description[side]
            console.print(
                f"{side:<10} {part['documents']:,} documents, {part['bytes']:,} bytes, {part['tokens']:,} tokens "
                f"({part['bytes'] / max(1, part['tokens']):.2f} bytes a token)"
            )
    counts = description["sources"]
    console.print(f"split: {description['split']}; vocabulary {description['vocab']:,}; in {out}")
    notes = {
        "bad lines left out": counts["bad_lines"],
        "rows with an empty text": counts["empty"],
        "files that are neither txt nor jsonl": counts["skipped_files"],
        "documents that repeat another": description["duplicates"],
        "held-out documents that are also in the training text": description["overlap"],
        "bytes left out between training and held-out text": description["gap_bytes"],
    }
    for what, count in notes.items():
        if count:
            console.print(f"[yellow]{count:,} {what}[/yellow]")
    for example in counts["examples"][:5]:
        console.print(f"  {example}", markup=False)
