"""Contamination: texts of an evaluation set that stand in the training text, by n-grams.

The rule of GPT-3 (Brown et al. 2020, appendix C): an example is contaminated where one of its n-grams stands in the
training text, n being the 5th percentile of the examples' lengths, at least 8 and at most 13. A unit is a word, case
and punctuation left out; in Chinese and other scripts without spaces a character. GPT-3's exception for n-grams found
more than ten times is not made, so that a copied example counts however often it was copied.
"""

import gzip
import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wenlu.base.errors import UserError
from wenlu.data.cleaning.units import ngrams, unit_numbers, units
from wenlu.data.reading.sources import Piece

SHORTEST, LONGEST = 8, 13
EXAMPLES = 5


@dataclass
class Contamination:
    """What was looked for, and found."""

    examples: int = 0
    too_short: int = 0
    """Examples without any n-gram, which cannot be looked for."""
    n: int = 0
    found: int = 0
    """Examples of which an n-gram stands in the training text."""
    documents: int = 0
    """Documents of the training text in which one stands."""
    ngrams: int = 0
    """Different n-grams found."""
    shown: list[str] = field(default_factory=list)
    """Some of them."""

    @property
    def looked_for(self) -> int:
        """Examples that are long enough."""
        return self.examples - self.too_short


class EvaluationSet:
    """The n-grams of an evaluation set, as sorted numbers: 16 bytes each."""

    def __init__(self, paths: Iterable[str]):
        rows = [[unit_numbers(text) for text in example] for path in paths for example in read_examples(path)]
        if not rows:
            raise UserError(f"{', '.join(paths)} holds no texts to look for: give an evaluation set by --against")
        lengths = [sum(map(len, row)) for row in rows]
        n = int(np.clip(np.percentile(lengths, 5), SHORTEST, LONGEST))
        grams = [np.concatenate([ngrams(numbers, n) for numbers in row]) if row else np.empty(0, "u8") for row in rows]
        owners = np.repeat(np.arange(len(rows)), [len(found) for found in grams])
        order = np.argsort(flat := np.concatenate(grams), kind="stable")
        self._grams, self._owners = flat[order], owners[order]
        self.result = Contamination(len(rows), sum(not len(found) for found in grams), n)

    def search(self, pieces: Iterable[Piece]) -> Contamination:
        """Look for the n-grams in a text."""
        result, n = self.result, self.result.n
        hit = np.zeros(len(self._grams), dtype=bool)
        left, touched = np.empty(0, dtype=np.uint64), False
        for piece in pieces:
            numbers = np.concatenate([left, unit_numbers(piece.text)])
            grams = ngrams(numbers, n)
            places = np.searchsorted(self._grams, grams)
            inside = places < len(self._grams)
            where = np.flatnonzero(inside)[self._grams[places[inside]] == grams[inside]]
            if len(where):
                touched = True
                hit[places[where]] = True
                if len(result.shown) < EXAMPLES:
                    result.shown.append(_shown(piece.text, int(where[0]) - len(left), n))
            left = np.empty(0, dtype=np.uint64) if piece.last else numbers[-(n - 1) :]
            if piece.last:
                result.documents, touched = result.documents + touched, False
        found = np.unique(self._grams[hit])
        result.ngrams = len(found)
        result.found = len(np.unique(self._owners[np.isin(self._grams, found)]))
        return result


def _shown(text: str, start: int, n: int) -> str:
    """The units of an n-gram, as they stand in a text, in lower case."""
    found = units(text)[max(0, start) : start + n]
    return ("" if all(len(unit) == 1 for unit in found) else " ").join(found)


def read_examples(path: str) -> Iterator[list[str]]:
    """The examples of a file or folder: rows of jsonl (all texts in it, however deep), texts of json, lines of txt."""
    if Path(path).is_dir():
        for file in sorted(p for p in Path(path).rglob("*") if p.is_file() and not p.name.startswith(".")):
            yield from read_examples(str(file))
        return
    name = path.lower().removesuffix(".gz").removesuffix(".xz")
    openers = {".gz": gzip.open, ".xz": lzma.open}
    try:
        with openers.get(Path(path).suffix.lower(), open)(path, "rb") as stream:
            if name.endswith(".json"):
                yield from ([text] for text in _texts(json.load(stream)))
                return
            for line in stream:
                if line.strip():
                    yield list(_texts(json.loads(line))) if name.endswith(".jsonl") else [line.decode("utf-8")]
    except FileNotFoundError:
        raise UserError(f"no file or folder {path} to compare with: check the path of --against") from None
    except (ValueError, EOFError, OSError, lzma.LZMAError) as error:
        raise UserError(f"{path} cannot be read as an evaluation set ({error}): give jsonl, json or txt") from None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
