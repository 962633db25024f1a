"""Examples → rows on the disk: read, duplicates and overlap taken out, split by hash, encoded, counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.base.log import counted, say
from wenlu.data.reading.hub_rows import is_hub_id
from wenlu.data.reading.sources import spooled
from wenlu.data.reading.text import no_character
from wenlu.data.rows import chat, classify, pairs, span, tag
from wenlu.data.rows.config import Example, RowsConfig
from wenlu.data.rows.store import write_rows
from wenlu.data.rows.tally import Tally
from wenlu.data.split import place_of
from wenlu.tokenization.chat_format import ChatFormat
from wenlu.tokenization.tokenizer import Tokenizer

COLUMNS = {
    "chat": ("ids", "mask"),
    "pairs": ("ids", "targets"),
    "classify": ("ids", "types", "labels"),
    "tag": ("ids", "labels"),
    "span": ("ids", "types", "starts", "ends", "within", "offsets", "example"),
}
TEXTS = "held_out.jsonl"
"""The held-out questions, or pairs, as they were read, for scores that look at texts."""
_LABELLED = {"classify": classify.label_of, "tag": tag.label_of}


@dataclass(frozen=True)
class Encoding:
    """How rows become ids."""

    tokenizer: Tokenizer
    context: int
    """Longest row, in tokens."""
    talks: bool
    """Pairs become conversations of a question and an answer, for models without an encoder."""
    labels: tuple[str, ...] = ()
    """Those that a model has already; where none, those of the training examples."""


@dataclass
class _Part:
    """Examples of one side."""

    tally: Tally
    examples: list[Example] = field(default_factory=list)


def prepare_rows(config: RowsConfig, folder: Path, encoding: Encoding) -> dict[str, Any]:
    """Write the rows that `config` names to `folder`, and say what was found; returns their description.

    Raises `UserError` where files are of no known form, where too much is malformed or cut, and where nothing is left.
    """
    train, held_out = read_parts(config)
    train.tally.judge_bad(config.max_bad)
    labels = _labels(config, encoding, train, held_out)
    parts = {"train": train} | ({"validation": held_out} if config.validation or config.validation_paths else {})
    return _written(config, folder, encoding, labels, parts)


def prepare_test(config: RowsConfig, folder: Path, encoding: Encoding) -> dict[str, Any]:
    """Write the rows of `config.validation_paths` alone, for a model to be judged by that was tuned already.

    Every example counts, those that are the same as an earlier one too: a test is taken as it stands.
    """
    test = _Part(Tally("examples"))
    test.examples = list(_writable(_read(config, config.validation_paths, test.tally), test.tally))
    labels = list(encoding.labels)
    if config.task in _LABELLED:
        _drop_unknown(test, set(labels), config.task)
    return _written(config, folder, encoding, labels, {"validation": test})


def _written(
    config: RowsConfig, folder: Path, encoding: Encoding, labels: list[str], parts: dict[str, _Part]
) -> dict[str, Any]:
    form = "chat" if config.task == "pairs" and encoding.talks else config.task
    description: dict[str, Any] = {
        "task": config.task,
        "form": form,
        "labels": labels,
        "columns": COLUMNS[form],
        "context": encoding.context,
        "tokenizer": encoding.tokenizer.fingerprint,
    }
    splits = {name: _encoded(config, encoding, form, labels, part) for name, part in parts.items()}
    splits.setdefault("train", iter(()))
    with write_rows(folder, splits, description) as temporary:
        if config.task in ("span", "pairs"):
            examples = parts["validation"].examples if "validation" in parts else []
            lines = [json.dumps(example.content, ensure_ascii=False) + "\n" for example in examples]
            (temporary / TEXTS).write_text("".join(lines), encoding="utf-8")
        encoding.tokenizer.save(temporary / "tokenizer")
        description["counts"] = {name: part.tally.as_dict() for name, part in parts.items()}
    for part in parts.values():
        for line in part.tally.lines():
            say(line)
    return description


def read_parts(config: RowsConfig) -> tuple[_Part, _Part]:
    """Training and held-out examples: no example twice in the first, none of the first in the second."""
    if not config.paths:
        raise UserError("nothing to learn from: name files of examples")
    train = _Part(Tally("training"))
    held_out = _Part(Tally("held out"))
    given = _unique(_read(config, config.paths, train.tally), train.tally)
    if config.validation_paths:
        held_out.examples = list(_unique(_read(config, config.validation_paths, held_out.tally), held_out.tally))
        known = {_digest(example.prompt) for example in held_out.examples}
        for example in given:
            if _digest(example.prompt) in known:
                train.tally.left_out["in the held-out part too"] += 1
            else:
                train.examples.append(example)
    else:
        _split(list(given), config.validation, train, held_out)
    return train, held_out


def _read(config: RowsConfig, paths: tuple[str, ...], tally: Tally) -> Iterator[Example]:
    classes = config.task == "classify"
    for path in (classify.split_name(path)[1] if classes else path for path in paths):
        if is_hub_id(path):
            raise UserError(
                f"{path}: examples are read from files: save the data set as jsonl or parquet, and name that"
            )
        if path != "-" and not Path(path).exists():
            raise UserError(f"no file{' or folder' if classes else ''} {path}: check the path")
        if Path(path).is_dir() and not classes:
            raise UserError(f"{path} is a folder: name its files")
    readers = {"chat": chat.read, "pairs": pairs.read, "tag": tag.read, "span": span.read}
    with spooled(paths) as copies:
        if classes:
            yield from classify.read(copies, config, tally)
        else:
            yield from readers[config.task]([Path(path) for path in copies], config, tally)


def _writable(examples: Iterator[Example], tally: Tally) -> Iterator[Example]:
    """Examples whose texts can be written."""
    for example in examples:
        if reason := no_character(json.dumps(example.content, ensure_ascii=False)):
            tally.drop(example.where, reason)
        else:
            yield example


def _unique(examples: Iterator[Example], tally: Tally) -> Iterator[Example]:
    """Those of them that are not the same as an earlier one."""
    known: set[bytes] = set()
    for example in _writable(examples, tally):
        digest = _digest(example.content)
        if digest in known:
            tally.left_out["the same as an earlier one"] += 1
        else:
            known.add(digest)
            yield example


def _split(examples: list[Example], fraction: float, train: _Part, held_out: _Part) -> None:
    """By the hash of what is asked, so that the same always lies on the same side; at least one example on each."""
    places = [place_of(_digest(example.prompt)) for example in examples]
    border = fraction
    distinct = sorted(set(places))
    if fraction and len(distinct) > 1:
        border = min(max(fraction, distinct[0] + 2**-53), distinct[-1])
    elif fraction and examples:
        raise UserError("all examples ask the same, so none can be held out: give more, or --rows.validation 0")
    for example, place in zip(examples, places, strict=True):
        (held_out if place < border else train).examples.append(example)
    held_out.tally.records = len(held_out.examples)


def _labels(config: RowsConfig, encoding: Encoding, train: _Part, held_out: _Part) -> list[str]:
    """The labels of a task that has some; held-out examples with others are left out and counted."""
    label_of = _LABELLED.get(config.task)
    if label_of is None:
        return []
    found = {label for example in train.examples for label in label_of(example)}
    if config.task == "tag":
        labels = tag.complete(found)
    else:
        labels = sorted(found, key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))
    if set(found) <= set(encoding.labels):
        labels = list(encoding.labels)
    if len(labels) < 2:
        named = f" ({', '.join(labels)})" if labels else ""
        raise UserError(f"the training examples have {counted(len(labels), 'label')}{named}: two or more are wanted")
    _drop_unknown(held_out, set(labels), config.task)
    return labels


def _drop_unknown(part: _Part, labels: set[str], task: str) -> None:
    """Leave out examples with labels that are not among these."""
    kept = []
    for example in part.examples:
        unknown = next((label for label in _LABELLED[task](example) if label not in labels), None)
        if unknown is None:
            kept.append(example)
        else:
            part.tally.drop(example.where, "a label that no training example has", unknown)
    part.examples = kept


def _encoded(
    config: RowsConfig, encoding: Encoding, form: str, labels: list[str], part: _Part
) -> Iterator[dict[str, Any]]:
    """The rows of a part; at their end they are judged."""
    tally, tokenizer, context = part.tally, encoding.tokenizer, encoding.context
    numbers = {label: number for number, label in enumerate(labels)}
    talks = ChatFormat(tokenizer) if form == "chat" else None
    windows = span.Windows(tokenizer, context, config.stride) if form == "span" else None
    for number, example in enumerate(part.examples):
        if talks:
            talk = example if config.task == "chat" else _as_talk(example, config.prefix)
            rows = [chat.encoded(talk, talks, context, tally)]
        elif windows:
            rows = windows.encoded(example, number, tally)
        elif form == "pairs":
            rows = [pairs.encoded(example, tokenizer, context, tally, config.prefix)]
        else:
            encode = classify.encoded if form == "classify" else tag.encoded
            rows = [encode(example, tokenizer, context, tally, numbers)]
        for row in rows:
            if row is not None:
                tally.rows += 1
                yield row
    tally.judge(config.max_bad, config.max_truncated)


def _as_talk(example: Example, prefix: str) -> Example:
    source, target = example.content
    messages = [{"role": "user", "content": prefix + source}, {"role": "assistant", "content": target}]
    return Example(example.where, messages, example.prompt)


def _digest(content: Any) -> bytes:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).digest()
