"""Labelled texts: records with a text and a label, folders of one class each, or files of one class each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.data.reading.records import records_of, text_lines
from wenlu.data.reading.text import text_parts, text_stream
from wenlu.data.rows.config import Example, RowsConfig
from wenlu.data.rows.tally import Tally
from wenlu.tokenization.tokenizer import Tokenizer

TEXTS = ("text", "sentence", "content", "review")
LABELS = ("label", "class", "category", "labels", "target")


def split_name(path: str) -> tuple[str, str]:
    """(label, path) of LABEL=FILE; the label is empty for a path alone."""
    label, equals, file = path.partition("=")
    return (label, file) if equals and not Path(path).exists() else ("", path)


def read(paths: tuple[str, ...], config: RowsConfig, tally: Tally) -> Iterator[Example]:
    """The labelled texts of paths; what is malformed is counted."""
    for path in paths:
        label, name = split_name(path)
        file = Path(name)
        if label:
            found = (
                (f"{file}:{line}", text, label) for line, text in text_lines(file, tally.source) if text is not None
            )
            kind = "lines of a class"
        elif file.is_dir():
            found, kind = _folders(file, tally), "files in a class's folder"
        else:
            found, kind = _recorded(file, config, tally), "records"
        for where, text, given in found:
            tally.records += 1
            tally.kinds[kind] += 1
            if example := _checked(where, text, given, tally):
                yield example


def _folders(folder: Path, tally: Tally) -> Iterator[tuple[str, Any, Any]]:
    """Every file of every subfolder, whose name is the class."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise UserError(f"{folder} holds no folders: a folder of examples holds one folder for each class")
    tally.source.skipped_files += sum(path.is_file() for path in folder.iterdir())
    for each in classes:
        for file in sorted(path for path in each.rglob("*") if path.is_file() and not path.name.startswith(".")):
            tally.source.begin(file)
            with text_stream(file, tally.source) as stream:
                yield str(file), "".join(text_parts(stream, tally.source)), each.name


def _recorded(file: Path, config: RowsConfig, tally: Tally) -> Iterator[tuple[str, Any, Any]]:
    names = config.fields
    for line, record in records_of(file, tally.source):
        where = f"{file}:{line}"
        if not names:
            text = next((name for name in TEXTS if name in record), None)
            label = next((name for name in LABELS if name in record), None)
            if text is None or label is None:
                raise UserError(
                    f"{where}: which fields are text and label? It has {', '.join(map(repr, record))}: "
                    "name them by --fields TEXT LABEL (a table's first line names its columns)"
                )
            names = (text, label)
        if missing := [name for name in names if name not in record]:
            tally.records += 1
            tally.drop(where, f"no field {missing[0]!r}")
            continue
        texts = [record[name] for name in names[:-1]]
        yield where, texts if len(texts) > 1 else texts[0], record[names[-1]]


def _checked(where: str, text: Any, label: Any, tally: Tally) -> Example | None:
    texts = text if isinstance(text, list) else [text]
    if not all(isinstance(one, str) for one in texts):
        tally.drop(where, "a text that is none")
    elif not all(one.strip() for one in texts):
        tally.drop(where, "an empty text")
    elif isinstance(label, list):
        tally.drop(where, "several labels, where one is learned")
    elif label is None or isinstance(label, dict) or not str(label).strip():
        tally.drop(where, "no label")
    else:
        return Example(where, [texts, str(label).strip()], texts)
    return None


def label_of(example: Example) -> list[str]:
    """The labels that an example has."""
    return [example.content[1]]


def encoded(
    example: Example, tokenizer: Tokenizer, context: int, tally: Tally, labels: dict[str, int]
) -> dict[str, Any] | None:
    """`ids`, `types` and `labels` (one): [CLS] text [SEP], or with a second text [CLS] text [SEP] text [SEP].

    Where they are too long for `context`, the longer text is cut first (Devlin et al. 2018).
    """
    texts, label = example.content
    parts = [tokenizer.encode(text) for text in texts]
    room = context - 1 - len(parts)
    if sum(map(len, parts)) > room:
        tally.truncated += 1
        longer, *shorter = sorted(parts, key=len, reverse=True)
        del longer[max(room - room // len(parts) * len(shorter), room - sum(map(len, shorter))) :]
        for other in shorter:
            del other[room - len(longer) :]
    ids, types = [tokenizer.cls_id], [0]
    for number, part in enumerate(parts):
        ids += [*part, tokenizer.sep_id]
        types += [number] * (len(part) + 1)
    return {"ids": ids, "types": types, "labels": labels[label]}
