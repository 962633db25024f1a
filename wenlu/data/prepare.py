"""Text files → a folder of token ids: split, tokenizer, shards, manifest."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wenlu.base.config import to_dict
from wenlu.base.errors import UserError
from wenlu.base.files import whole_folder
from wenlu.base.log import console, progress
from wenlu.data.shards import DESCRIPTION, VERSION, ShardWriter, fingerprint
from wenlu.data.sources import Piece, SourceCounts, list_files, read_documents, spooled
from wenlu.data.split import Documents, Side, Split
from wenlu.tokenization.learn import Spec, learn, parse_spec
from wenlu.tokenization.tokenizer import Tokenizer

AT_ONCE = 8 << 20
"""Characters encoded together, so that every core has some to work on."""
TOKEN_CHARACTERS = 4
"""Of a token of byte BPE or Unigram, about: how wide the gap of one context is."""


@dataclass(frozen=True)
class PrepareConfig:
    """Which text, how it is split and by which tokenizer it is read."""

    paths: tuple[str, ...] = ()
    """Files, folders, or - for stdin; or one folder made by `wenlu prepare`."""
    validation_paths: tuple[str, ...] = ()
    """Held-out text of its own, instead of a part of `paths`."""
    tokenizer: str = "bpe"
    """bpe (size by the corpus), bpe:N, unigram, unigram:N, char, char:N, byte, or the folder of a tokenizer."""
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
    given = _load(spec) if spec.kind == "folder" else None
    for parent in Path(out).parents:
        if parent.exists() and not parent.is_dir():
            raise UserError(f"cannot write {out}: {parent} is a file, not a folder; write elsewhere with --out")
    with whole_folder(out) as folder, spooled((*config.paths, *config.validation_paths)) as paths:
        list_files(paths, SourceCounts())
        texts = _Texts(config, paths[: len(config.paths)], paths[len(config.paths) :], given)
        tokenizer = given or _learn(spec, texts, config.tokenizer)
        description = _write(folder, texts, tokenizer)
        tokenizer.save(folder)
        description["fingerprint"] = fingerprint(folder, tokenizer)
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")
    _say(description, out)
    return description


def _load(spec: Spec) -> Tokenizer:
    tokenizer = Tokenizer.load(spec.folder)
    if tokenizer.eos_id is None:
        raise UserError(f"the tokenizer {spec.folder} has no end token to part documents with: choose another")
    return tokenizer


def _learn(spec: Spec, texts: "_Texts", name: str) -> Tokenizer:
    """Learned from the training part alone."""
    console.print(f"learning the tokenizer ({name}) …", markup=False, soft_wrap=True)
    return learn(spec.kind, (piece.text for side, piece in texts.parts() if side == "train"), spec.vocab)


class _Texts:
    """The sources, read once to learn how long they are, then as often as wanted."""

    def __init__(
        self, config: PrepareConfig, paths: tuple[str, ...], held_out: tuple[str, ...], tokenizer: Tokenizer | None
    ):
        self.config, self._paths, self._held_out = config, paths, held_out
        self.counts, self.held_out_counts = SourceCounts(), SourceCounts()
        self.documents = Documents.of(self._read(paths, self.counts))
        self.given = Documents.of(self._read(held_out, self.held_out_counts)) if held_out else None
        kind = tokenizer.kind if tokenizer else config.tokenizer.partition(":")[0]
        characters = config.context * (1 if kind in ("char", "byte") else TOKEN_CHARACTERS)
        self.split = Split(self.documents, 0.0 if self.given else config.validation, characters)
        trained = set(self.documents.digests) if self.given else set()
        self.overlap = sum(d in trained for d in self.given.digests) if self.given else self.split.overlap
        for counts in (self.counts, self.held_out_counts):
            counts.examples = [self._as_given(example) for example in counts.examples]

    def parts(self) -> Iterator[tuple[Side, Piece]]:
        yield from self.split.parts(self._read(self._paths))
        if self.given:
            yield from (("validation", piece) for piece in self._read(self._held_out))

    @property
    def bytes(self) -> int:
        """Of all text, in UTF-8, by the first reading."""
        return self.documents.bytes + (self.given.bytes if self.given else 0)

    def _read(self, paths: tuple[str, ...], counts: SourceCounts | None = None) -> Iterator[Piece]:
        return read_documents(paths, counts, field=self.config.field, max_bad=self.config.max_bad)

    def _as_given(self, example: str) -> str:
        """With the path that the user named, where a temporary copy of it was read."""
        named = (*self.config.paths, *self.config.validation_paths)
        for path, read in zip(named, (*self._paths, *self._held_out), strict=True):
            if path != read:
                example = example.replace(read, "stdin" if path == "-" else path)
        return example


def _write(folder: Path, texts: _Texts, tokenizer: Tokenizer) -> dict[str, Any]:
    """Encode every part and write it to its split's shards."""
    writers: dict[str, ShardWriter] = {"train": ShardWriter(folder / "train", tokenizer.vocab)}
    gap = 0
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress("encoding", unit_counts=False))
        stack.callback(lambda: [writer.release() for writer in writers.values()])
        task = bar.add_task("", total=texts.bytes, note="")
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
    if gap + sum(part["bytes"] for part in splits.values()) != texts.bytes:
        raise UserError("the text changed while it was read: wait until nothing writes to it, and try again")
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
        **({"validation_sources": texts.held_out_counts.as_dict()} if texts.given else {}),
        "config": to_dict(texts.config),
    }


def _split_name(split: Split) -> str:
    return "by document hash" if split.by_hash else "the last part of the text"


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


def _say(description: dict[str, Any], out: Path | str) -> None:
    """What was made, and everything that was left out."""
    for side in ("train", "validation"):
        if side in description:
            part = description[side]
            console.print(
                f"{side:<10} {part['documents']:,} documents, {part['bytes']:,} bytes, {part['tokens']:,} tokens "
                f"({part['bytes'] / max(1, part['tokens']):.2f} bytes a token)"
            )
    console.print(
        f"split: {description['split']}; vocabulary {description['vocab']:,}; in {out}", markup=False, soft_wrap=True
    )
    read = [description[name] for name in ("sources", "validation_sources") if name in description]
    notes = {
        "bad lines left out": sum(counts["bad_lines"] for counts in read),
        "rows with an empty text": sum(counts["empty"] for counts in read),
        "parts of texts with CRLF or CR line ends read as LF": sum(counts["line_ends"] for counts in read),
        "files that are neither txt nor jsonl": sum(counts["skipped_files"] for counts in read),
        "documents that repeat another": description["duplicates"],
        "held-out documents that are also in the training text": description["overlap"],
        "bytes left out between training and held-out text": description["gap_bytes"],
    }
    for what, count in notes.items():
        if count:
            console.print(f"[yellow]{count:,} {what}[/yellow]")
    for example in [example for counts in read for example in counts["examples"]][:5]:
        console.print(f"  {example}", markup=False, soft_wrap=True)
