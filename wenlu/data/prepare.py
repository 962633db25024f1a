"""Text files → a folder of token ids: cleaning, duplicates, split, tokenizer, shards, audit, manifest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wenlu.base.config import to_dict
from wenlu.base.errors import UserError
from wenlu.base.files import whole_folder
from wenlu.base.log import console
from wenlu.data.cleaning.audit import say, say_rules
from wenlu.data.cleaning.limits import check
from wenlu.data.cleaning.rules import active_rules
from wenlu.data.config import PrepareConfig
from wenlu.data.encode import write_shards
from wenlu.data.reading.counts import SourceCounts
from wenlu.data.reading.sources import Piece, list_files, read_documents, spooled
from wenlu.data.shards import DESCRIPTION, VERSION, fingerprint
from wenlu.data.split import Documents, Side, Split
from wenlu.tokenization.learn import Spec, learn, parse_spec
from wenlu.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:  # what only cleaning needs is imported where it begins: training on raw text starts sooner
    from wenlu.data.cleaning.contamination import Contamination, EvaluationSet
    from wenlu.data.cleaning.corpus import Cleaning, Kept
    from wenlu.data.cleaning.profile import Profile
    from wenlu.data.cleaning.spool import Spool

PAGE = "audit.html"


def prepare(config: PrepareConfig, out: Path | str, *, page: bool = True, lasting: bool = True) -> dict[str, Any]:
    """Make the folder `out`, whole or not at all; returns the contents of its data.json.

    With `page` the audit is also written as OUT/audit.html. A folder that is not `lasting` is not told of.
    """
    if not config.paths:
        raise UserError("no text: name files or folders, or - for stdin")
    spec = parse_spec(config.tokenizer)
    given = _load(spec) if spec.kind == "folder" else None
    evaluation = _evaluation_set(config.against)
    for parent in Path(out).parents:
        if parent.exists() and not parent.is_dir():
            raise UserError(f"cannot write {out}: {parent} is a file, not a folder; write elsewhere with --out")
    with whole_folder(out) as folder, spooled((*config.paths, *config.validation_paths)) as paths:
        list_files(paths, SourceCounts())
        with contextlib.ExitStack() as stack:
            spool = _spool(folder, stack) if active_rules(config.skip) else None
            texts = _Texts(config, paths[: len(config.paths)], paths[len(config.paths) :], spool)
            contamination = _judge(texts, evaluation)
            tokenizer = given or _learn(spec, texts, config.tokenizer)
            texts.leave_gap(tokenizer)
            profile = _profile(texts) if page or texts.cleaning else None
            description = _write(folder, texts, tokenizer, profile)
        if contamination:
            description["contamination"] = asdict(contamination)
        if profile:
            description["profile"] = profile.as_dict()
        tokenizer.save(folder)
        description["fingerprint"] = fingerprint(folder, tokenizer)
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")
        if page:
            from wenlu.data.cleaning.audit_page import write_page

            write_page(description, folder / PAGE)
    say(description, out if lasting else None)
    if page:
        console.print(f"audit: {Path(out) / PAGE}", markup=False, soft_wrap=True)
    return description


def _evaluation_set(paths: tuple[str, ...]) -> EvaluationSet | None:
    if not paths:
        return None
    from wenlu.data.cleaning.contamination import EvaluationSet

    return EvaluationSet(paths)


def _spool(folder: Path, stack: contextlib.ExitStack) -> Spool:
    from wenlu.data.cleaning.spool import Spool

    return stack.enter_context(Spool(folder / "cleaned"))


def _profile(texts: _Texts) -> Profile:
    from wenlu.data.cleaning.profile import Profile

    return Profile(texts.documents)


def _load(spec: Spec) -> Tokenizer:
    tokenizer = Tokenizer.load(spec.folder)
    if tokenizer.end_id is None:
        raise UserError(f"the tokenizer {spec.folder} has no end token to part documents with: choose another")
    return tokenizer


def _learn(spec: Spec, texts: _Texts, name: str) -> Tokenizer:
    """Learned from what comes before the held-out text alone; how wide the gap is, is known only by its tokens."""
    console.print(f"learning the tokenizer ({name}) …", markup=False, soft_wrap=True)
    train = (piece.text for side, piece in texts.parts() if side == "train")
    return learn(spec.kind, train, spec.vocab, texts.config.purpose)


class _Raw:
    """Text as the sources give it, read anew by every pass."""

    def __init__(self, read: Callable[[], Iterator[Piece]], first: Iterable[Piece]):
        self._read = read
        self.documents = Documents.of(first)

    def pieces(self) -> Iterator[Piece]:
        return self._read()


class _Texts:
    """The text in its parts: read (and cleaned, into the spool that is given) once, then as often as wanted."""

    def __init__(
        self,
        config: PrepareConfig,
        paths: tuple[str, ...],
        held_out: tuple[str, ...],
        spool: Spool | None,
    ):
        self.config, self._paths, self._held_out = config, paths, held_out
        self.counts, self.held_out_counts = SourceCounts(), SourceCounts()
        self.cleaning: Cleaning | None = None
        read = [(paths, self.counts), *([(held_out, self.held_out_counts)] if held_out else [])]
        parts: list[_Raw] | list[Kept]
        if spool is not None:
            from wenlu.data.cleaning.corpus import clean

            console.print("cleaning …")
            parts, self.cleaning = clean([self._read(*part) for part in read], active_rules(config.skip), spool)
            _judge_cleaning(self.cleaning, config.allow)
        else:
            parts = [_Raw(partial(self._read, names), self._read(names, counts)) for names, counts in read]
        self.training, self.given = parts[0], parts[1] if held_out else None
        self.split = Split(self.training.documents, 0.0 if self.given else config.validation)
        trained = set(self.training.documents.likenesses) if self.given else set()
        self.overlap = sum(k in trained for k in self.given.documents.likenesses) if self.given else self.split.overlap
        for counts in (self.counts, self.held_out_counts):
            counts.examples = [self._as_given(example) for example in counts.examples]

    def leave_gap(self, tokenizer: Tokenizer) -> None:
        """Leave one context of tokens out before a held-out end of the text."""
        self.split.leave_out(self.config.context, lambda text: len(tokenizer.encode(text)), self.training.pieces())

    def parts(self) -> Iterator[tuple[Side, Piece]]:
        """Every piece with its side; documents are numbered through both."""
        yield from self.split.parts(self.training.pieces())
        first = len(self.training.documents.digests)
        for piece in self.given.pieces() if self.given else ():
            yield "validation", Piece(first + piece.document, piece.text, piece.last)

    @property
    def bytes(self) -> int:
        """Of all text, in UTF-8, by the first reading."""
        return self.training.documents.bytes + (self.given.documents.bytes if self.given else 0)

    @property
    def documents(self) -> int:
        return len(self.training.documents.digests) + (len(self.given.documents.digests) if self.given else 0)

    @property
    def held_out(self) -> int:
        """Documents that lie at least partly on the held-out side."""
        return len(self.given.documents.digests) if self.given else self.split.held_out

    def _read(self, paths: tuple[str, ...], counts: SourceCounts | None = None) -> Iterator[Piece]:
        return read_documents(paths, counts, field=self.config.field, max_bad=self.config.max_bad)

    def _as_given(self, example: str) -> str:
        """With the path that the user named, where a temporary copy of it was read."""
        named = (*self.config.paths, *self.config.validation_paths)
        for path, read in zip(named, (*self._paths, *self._held_out), strict=True):
            if path != read:
                example = example.replace(read, "stdin" if path == "-" else path)
        return example


def _judge_cleaning(cleaning: Cleaning, allowed: tuple[str, ...]) -> None:
    """Stop where the rules took too much, showing what each took."""
    try:
        check("dropped", cleaning.bytes_dropped, cleaning.bytes, allowed, cleaning.most("bytes"))
        check("duplicates", cleaning.duplicates_dropped, cleaning.documents, allowed)
    except UserError:
        say_rules(cleaning.as_dict())
        raise


def _judge(texts: _Texts, evaluation: EvaluationSet | None) -> Contamination | None:
    """Stop where a limit is passed, before anything expensive; what was found of an evaluation set."""
    allowed = texts.config.allow
    dropped, read = (texts.cleaning.duplicates_dropped, texts.cleaning.documents) if texts.cleaning else (0, 0)
    training = texts.training.documents
    check("duplicates", dropped + training.duplicates, read or len(training.digests), allowed)
    check("overlap", texts.overlap, texts.held_out, allowed)
    if evaluation is None:
        return None
    found = evaluation.search(piece for side, piece in texts.parts() if side == "train")
    short = f", {found.too_short:,} more being too short to look for" if found.too_short else ""
    shown = f", such as: {found.shown[0]}" if found.shown else ""
    check("contamination", found.found, found.looked_for, allowed, short + shown)
    return found


def _write(folder: Path, texts: _Texts, tokenizer: Tokenizer, profile: Profile | None) -> dict[str, Any]:
    """Write the shards; returns the contents of data.json."""
    encoded = write_shards(folder, texts.parts(), texts.bytes, tokenizer, profile)
    if encoded.bytes != texts.bytes:
        raise UserError("the text changed while it was read: wait until nothing writes to it, and try again")
    held_out = "validation" in encoded.splits
    return {
        "version": VERSION,
        "dtype": encoded.dtype,
        "vocab": tokenizer.vocab,
        "tokenizer": {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
        **encoded.splits,
        "split": "given" if texts.given else _split_name(texts.split) if held_out else "none",
        "gap_bytes": encoded.gap_bytes,
        "lossy": encoded.lossy,
        "duplicates": texts.training.documents.duplicates,
        "overlap": texts.overlap,
        "sources": texts.counts.as_dict(),
        **({"validation_sources": texts.held_out_counts.as_dict()} if texts.given else {}),
        **({"cleaning": texts.cleaning.as_dict()} if texts.cleaning else {}),
        "config": to_dict(texts.config),
    }


def _split_name(split: Split) -> str:
    return "by document hash" if split.by_hash else "the last part of the text"
