"""Tagged texts: entities as B-, I- and O tags, a token a line (CoNLL, BIO) or as records of tokens and tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.data.batch import NO_TARGET
from wenlu.data.reading.records import kind_of, records_of, text_lines
from wenlu.data.rows.config import Example, RowsConfig
from wenlu.data.rows.tally import Tally
from wenlu.tokenization.tokenizer import Tokenizer

TOKENS = ("tokens", "words")
TAGS = ("tags", "ner_tags", "labels")
PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"}
"""Of tags; L and U (BILOU) are E and S (BIOES) by other names."""
RECORDS = (".json", ".jsonl", ".parquet")


def read(files: list[Path], config: RowsConfig, tally: Tally) -> Iterator[Example]:
    """The tagged sentences of files; what is malformed is counted."""
    for file in files:
        if kind_of(file) in RECORDS:
            sentences, kind = _recorded(file, config, tally), "records of tokens and tags"
        else:
            sentences, kind = _columns(file, tally), "sentences of a token a line"
        for where, tokens, tags, reason in sentences:
            tally.records += 1
            tally.kinds[kind] += 1
            reason = reason or _wrong(tokens, tags)
            if reason:
                tally.drop(where, reason)
                continue
            tags = [_standard(tag) for tag in tags]
            tally.noted["entities that begin with I- instead of B-"] += _begun_inside(tags)
            yield Example(where, [tokens, tags], tokens)
    tally.noted = +tally.noted


def _columns(file: Path, tally: Tally) -> Iterator[tuple[str, list[str], list[str], str]]:
    """Sentences parted by empty lines; the first column is the token, the last its tag."""
    tokens: list[str] = []
    tags: list[str] = []
    reason, begun = "", 1
    for line, text in [*text_lines(file, tally.source), (tally.source.line + 1, "")]:
        if text is None:
            reason = "a line that cannot be decoded"
        elif text.strip() and not text.startswith("-DOCSTART-"):
            fields = text.split("\t") if "\t" in text else text.split()
            if not tokens and not reason:
                begun = line
            tokens.append(fields[0].strip())
            tags.append(fields[-1].strip())
            if len(fields) < 2:
                reason = reason or "a token without a tag"
        elif tokens or reason:
            yield f"{file}:{begun}", tokens, tags, reason
            tokens, tags, reason = [], [], ""


def _recorded(file: Path, config: RowsConfig, tally: Tally) -> Iterator[tuple[str, Any, Any, str]]:
    names = config.fields
    for line, record in records_of(file, tally.source):
        where = f"{file}:{line}"
        if not names:
            found = [next((name for name in known if name in record), None) for known in (TOKENS, TAGS)]
            if None in found:
                raise UserError(
                    f"{where}: which fields are tokens and tags? It has {', '.join(map(repr, record))}: "
                    "name them by --rows.fields TOKENS TAGS"
                )
            names = tuple(found)
        tokens, tags = record.get(names[0]), record.get(names[1])
        if not isinstance(tokens, list) or not isinstance(tags, list):
            yield where, [], [], "tokens or tags that are no list"
            continue
        if any(isinstance(tag, int) for tag in tags):
            raise UserError(
                f"{where}: tags are numbers, whose names the file does not say: write them as names (B-PER, I-PER, O)"
            )
        yield where, tokens, tags, ""


def _wrong(tokens: list[Any], tags: list[Any]) -> str:
    """What is wrong with a sentence; else ""."""
    if len(tokens) != len(tags):
        return "not as many tags as tokens"
    if not tokens:
        return "no tokens"
    if not all(isinstance(token, str) and token.strip() for token in tokens):
        return "an empty token"
    for tag in tags:
        if not isinstance(tag, str) or (
            tag != "O" and not (tag[:1] in PREFIXES and tag[1:2] == "-" and tag[2:].strip())
        ):
            return f"a tag that is no O, B-… or I-…: {str(tag)[:30]!r}"
    return ""


def _standard(tag: str) -> str:
    return tag if tag == "O" else PREFIXES[tag[0]] + tag[1:]


def _begun_inside(tags: list[str]) -> int:
    before = ["O", *tags]
    return sum(tag.startswith("I-") and last[2:] != tag[2:] for last, tag in zip(before, tags))


def label_of(example: Example) -> list[str]:
    """The tags that an example has."""
    return example.content[1]


def complete(labels: set[str]) -> list[str]:
    """O first, then for every kind of entity the tags that are used, B- and I- always, so that all can be foretold."""
    kinds = sorted({label[2:] for label in labels if label != "O"})
    prefixes = [p for p in "BIES" if p in "BI" or any(label.startswith(f"{p}-") for label in labels)]
    return ["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in prefixes)]


def encoded(
    example: Example, tokenizer: Tokenizer, context: int, tally: Tally, labels: dict[str, int]
) -> dict[str, Any] | None:
    """`ids` and `labels`, one a token: a word's tag stands at its first token, -100 at others and special tokens.

    Words are read one by one, with a space before them unless they are Chinese, so that no token spans two of them.
    """
    tokens, tags = example.content
    ids, targets, words = [tokenizer.cls_id], [NO_TARGET], 0
    for number, (word, tag) in enumerate(zip(tokens, tags, strict=True)):
        spaced = number > 0 and not (_is_ideograph(word[0]) or _is_ideograph(tokens[number - 1][-1]))
        parts = tokenizer.encode(" " + word if spaced else word)
        if not parts:
            tally.noted["words that the tokenizer reads as nothing"] += 1
            continue
        if len(ids) + len(parts) > context - 1:
            tally.truncated += 1
            tally.noted["entities beyond the context, neither learned nor judged"] += sum(
                tag[:1] in "BS" for tag in tags[number:]
            )
            break
        ids += parts
        targets += [labels[tag], *[NO_TARGET] * (len(parts) - 1)]
        words += 1
    if not words:
        tally.drop(example.where, "no word within the context")
        return None
    return {"ids": [*ids, tokenizer.sep_id], "labels": [*targets, NO_TARGET]}


def _is_ideograph(character: str) -> bool:
    return "\u2e80" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or "\uff00" <= character <= "\uffef"
