"""Tokenizers side by side on one text: bytes per token by script, speed, and whether the text survives."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from wenlu.base.errors import UserError
from wenlu.tokenization.survey import ScriptRow, survey
from wenlu.tokenization.tokenizer import Tokenizer

AT_ONCE = 1 << 22
"""Characters encoded together, so that every core has some to work on."""


@dataclass(frozen=True)
class Column:
    """What one tokenizer makes of the text."""

    bytes: int
    characters: int
    tokens: int
    seconds: float
    """Of encoding alone."""
    lossless: bool
    scripts: list[ScriptRow]
    """Empty where the tokenizer is not lossless: what it drops would flatter it."""

    @property
    def bytes_per_token(self) -> float | None:
        return self.bytes / self.tokens if self.lossless else None

    @property
    def megabytes_per_second(self) -> float:
        return self.bytes / 1e6 / max(self.seconds, 1e-9)


def compare(tokenizers: Iterable[Tokenizer], texts: Callable[[], Iterable[str]]) -> list[Column]:
    """A column for each tokenizer; `texts` is called for each of them, so that no text is held."""
    return [_column(tokenizer, texts) for tokenizer in tokenizers]


def _column(tokenizer: Tokenizer, texts: Callable[[], Iterable[str]]) -> Column:
    tokenizer.encode("warm up 预热")
    size = characters = tokens = 0
    seconds, lossless, rows = 0.0, True, {}
    for batch in _batches(texts()):
        began = time.perf_counter()
        ids = tokenizer.encode_batch(batch)
        seconds += time.perf_counter() - began
        size += sum(len(text.encode()) for text in batch)
        characters += sum(map(len, batch))
        tokens += sum(map(len, ids))
        lossless = lossless and all(tokenizer.decode(i) == text for i, text in zip(ids, batch, strict=True))
        for row in survey(tokenizer, batch) if lossless else ():
            old = rows.get(row.script, ScriptRow(row.script, 0, 0, 0.0))
            rows[row.script] = ScriptRow(
                row.script, old.bytes + row.bytes, old.characters + row.characters, old.tokens + row.tokens
            )
    if not tokens:
        raise UserError("the texts of --text are empty: there is nothing to measure")
    return Column(size, characters, tokens, seconds, lossless, list(rows.values()) if lossless else [])


def _batches(texts: Iterable[str]) -> Iterable[list[str]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
