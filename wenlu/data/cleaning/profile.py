"""What the text that is kept is like: scripts, lengths, signs of damage, longest lines, samples."""

import heapq
import re
from typing import Any

import numpy as np

from wenlu.data.reading.sources import Piece
from wenlu.tokenization.survey import SCRIPTS, script_of

LINES, SAMPLES, SHOWN = 5, 6, 240
ENOUGH_LETTERS = 2000
"""Letters of a document from which missing commas are no matter of style."""
FEW_COMMAS = {"Han": 10.0, "Latin": 1.0}
"""Commas in a thousand letters below which they were lost; usual are 60 to 120 in Chinese, 10 to 20 in English."""
DAMAGE = {
    "U+FFFD, in place of lost characters": re.compile("\ufffd"),
    "asterisks in place of words": re.compile(r"(?<=[\u4e00-\u9fff])\*{2,}|\*{2,}(?=[\u4e00-\u9fff])"),
    "single Latin letters or signs between ideographs": re.compile(
        r"(?<=[\u4e00-\u9fff])[A-Za-z^~{}|_?]{1,2}(?=[\u4e00-\u9fff])"
    ),
    "sentences without a space between them, as where line ends were lost": re.compile(
        r"[.!?](?<=[a-z]{3}[.!?])(?=[A-Z][a-z])"
    ),
}
"""Signs of damage that no rule can mend, and how they are found."""

CLASSES = (*SCRIPTS, "commas", "ends")
"""What characters are counted as: punctuation but for commas and the ends of sentences, which have their own."""
COMMAS, ENDS = ",，、", ".!?。！？"
PER_DOCUMENT = (*FEW_COMMAS, "commas", "ends")
AT_ONCE = 1 << 20
"""Characters counted together."""
UNKNOWN = 255


class _Classes:
    """The class of every character, looked up once for each."""

    def __init__(self):
        self._of = np.full(0x110000, UNKNOWN, dtype=np.uint8)

    def count(self, texts: list[str]) -> tuple[list[list[int]], list[bool]]:
        """How many characters of each class each text has, in the order of `CLASSES`; whether it may be damaged:
        whether any ideograph stands beside a letter or sign of ASCII, or a capital behind the end of a sentence."""
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
        classes = self._of[codes]
        if (new := classes == UNKNOWN).any():
            for code in np.unique(codes[new]).tolist():
                self._of[code] = CLASSES.index(_class_of(chr(code)))
            classes = self._of[codes]
        lengths = [len(text) for text in texts]
        keys = np.repeat(np.arange(len(texts)) * len(CLASSES), lengths)
        keys += classes
        counts = np.bincount(keys, minlength=len(texts) * len(CLASSES))
        ideographs, signs = classes == CLASSES.index("Han"), (codes > ord(" ")) & (codes < 128)
        capitals, ends = (codes >= ord("A")) & (codes <= ord("Z")), classes == CLASSES.index("ends")
        suspect, borders = np.zeros(len(texts), dtype=bool), np.cumsum(lengths)
        for left, right in ((ideographs, signs), (signs, ideographs), (ends, capitals)):
            places = np.flatnonzero(left[:-1] & right[1:]) + 1
            suspect[np.searchsorted(borders, places, side="right")] = True
        return counts.reshape(len(texts), len(CLASSES)).tolist(), suspect.tolist()


def _class_of(character: str) -> str:
    return "commas" if character in COMMAS else "ends" if character in ENDS else script_of(character)


class Profile:
    """Figures of the text that is kept, gathered as it is encoded. A document that lies on both sides of the split is
    one: its pieces bear one number."""

    def __init__(self, documents: int):
        self._classes, self._totals = _Classes(), dict.fromkeys(CLASSES, 0)
        self._waiting: list[tuple[str, Piece]] = []
        self._size = self._shortest_shown = 0
        self._sampled = set(np.linspace(0, max(0, documents - 1), SAMPLES, dtype=int).tolist())
        self._samples: list[dict[str, Any]] = []
        self._longest: list[tuple[int, int, str]] = []
        self._damage = {name: [0, ""] for name in DAMAGE}
        self._lengths: list[int] = []
        self._here = dict.fromkeys((*PER_DOCUMENT, "characters"), 0)
        self._few_commas: list[dict[str, Any]] = []
        self._document: int | None = None

    def add(self, side: str, piece: Piece) -> None:
        """A piece of the text, and its side of the split. Characters are counted for many pieces at a time."""
        self._waiting.append((side, piece))
        self._size += len(piece.text)
        if self._size >= AT_ONCE:
            self._count()

    def _count(self) -> None:
        waiting, self._waiting, self._size = self._waiting, [], 0
        rows, suspect = self._classes.count([piece.text for _, piece in waiting])
        for (side, piece), row, is_suspect in zip(waiting, rows, suspect):
            if piece.document != self._document:
                self._begin(side, piece)
            self._add(piece.text, dict(zip(CLASSES, row)))
            self._look_for_damage(piece.text, is_suspect)

    def _begin(self, side: str, piece: Piece) -> None:
        """A document begins, and the one before it has ended."""
        self._end()
        self._document, self._head = piece.document, piece.text[:60]
        if len(self._lengths) in self._sampled:
            self._samples.append({"side": side, "text": piece.text[:SHOWN]})

    def _add(self, text: str, counts: dict[str, int]) -> None:
        number, here = len(self._lengths), self._here
        for name, count in counts.items():
            if count:
                self._totals[name] += count
        for name in PER_DOCUMENT:
            here[name] += counts[name]
        here["characters"] += len(text)
        if len(text) >= self._shortest_shown:
            line = max(text.split("\n"), key=len)
            self._longest = heapq.nlargest(LINES, [*self._longest, (len(line), number, line[:SHOWN])])
            self._shortest_shown = self._longest[-1][0] if len(self._longest) == LINES else 0

    def _look_for_damage(self, text: str, is_suspect: bool) -> None:
        for index, (name, pattern) in enumerate(DAMAGE.items()):
            if not (is_suspect if index else "\ufffd" in text):
                continue
            for match in pattern.finditer(text):
                self._damage[name][0] += 1
                self._damage[name][1] = self._damage[name][1] or text[max(0, match.start() - 20) : match.end() + 20]

    def _end(self) -> None:
        if self._document is None:
            return
        here, self._document = self._here, None
        script = max(FEW_COMMAS, key=lambda name: here[name])
        commas = 1000 * here["commas"] / max(1, here[script])
        prose = here["ends"] > 2e-3 * here[script] > 2e-3 * ENOUGH_LETTERS
        if prose and commas < FEW_COMMAS[script]:
            self._few_commas.append({"document": len(self._lengths), "text": self._head, "commas": round(commas, 2)})
        self._lengths.append(here["characters"])
        self._here = dict.fromkeys((*PER_DOCUMENT, "characters"), 0)

    def as_dict(self) -> dict[str, Any]:
        """For data.json."""
        self._count()
        self._end()
        scripts = {name: self._totals[name] for name in SCRIPTS}
        scripts["punctuation"] += self._totals["commas"] + self._totals["ends"]
        lengths = np.array(self._lengths or [0])
        marks = {"shortest": 0, "5 %": 5, "median": 50, "95 %": 95, "longest": 100}
        edges = np.geomspace(max(1, lengths.min()), max(2, lengths.max() + 1), 25)
        return {
            "characters": {name: count for name, count in scripts.items() if count},
            "document_characters": {name: int(np.percentile(lengths, q)) for name, q in marks.items()},
            "length_histogram": {
                "edges": [round(float(edge), 1) for edge in edges],
                "documents_by_length": np.histogram(lengths, edges)[0].tolist(),
            },
            "damage": {name: {"times": n, "example": shown} for name, (n, shown) in self._damage.items() if n},
            "documents_without_commas": len(self._few_commas),
            "without_commas_examples": self._few_commas[:LINES],
            "longest_lines": [{"characters": n, "document": d, "text": text} for n, d, text in self._longest],
            "samples": self._samples,
        }
