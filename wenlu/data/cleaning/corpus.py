"""A corpus cleaned: mended by the rules for text, judged by those for documents, without duplicates.

The sources are read once: what the rules for text leave goes into a spool, and is judged and compared on the way.
Repeated lines are counted in what is left, in the spool, and taken out, and what they were taken from is judged and
compared again. Later passes read the documents that are kept.
"""

import hashlib
import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from wenlu.base.errors import UserError
from wenlu.base.log import counted
from wenlu.data.cleaning.clean import TEXT_RULES
from wenlu.data.cleaning.dedup import Signatures, joined
from wenlu.data.cleaning.quality import DOCUMENT_RULES, Measures
from wenlu.data.cleaning.repeated import RepeatedLines, without
from wenlu.data.cleaning.spool import Spool
from wenlu.data.cleaning.units import unit_numbers
from wenlu.data.reading.sources import Piece
from wenlu.data.split import Documents

EXAMPLES = 3
SHOWN, AROUND = 160, 24
"""Characters of an example, and on each side of what was changed."""


@dataclass
class RuleCounts:
    """What one rule did."""

    documents: int = 0
    """Documents it changed."""
    dropped: int = 0
    """Documents it dropped."""
    characters: int = 0
    """Characters it removed, those of dropped documents among them."""
    bytes: int = 0
    """The same in UTF-8."""
    examples: list[list[str]] = field(default_factory=list)
    """Before and after; of a dropped document its beginning, and nothing or the one it repeats."""

    def removed(self, before: str, after: str) -> None:
        """A part of a text became another."""
        self.characters += len(before) - len(after)
        self.bytes += len(before.encode()) - len(after.encode())
        if len(self.examples) < EXAMPLES:
            for old, new in differences(before, after, EXAMPLES - len(self.examples)):
                self.examples.append([old[:SHOWN], new[:SHOWN]])


@dataclass
class Cleaning:
    """What was read, and what each rule did to it."""

    documents: int = 0
    bytes: int = 0
    rules: dict[str, RuleCounts] = field(default_factory=dict)
    near_groups: int = 0
    """Groups of documents that are nearly the same."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def of(self, rule: str) -> RuleCounts:
        return self.rules.setdefault(rule, RuleCounts())

    @property
    def bytes_dropped(self) -> int:
        """By all rules but those about duplicates."""
        return sum(counts.bytes for name, counts in self.rules.items() if name not in ("duplicates", "near-duplicates"))

    def most(self, figure: str) -> str:
        """The rule with the most of a figure, for a message."""
        rules = {name: getattr(counts, figure) for name, counts in self.rules.items()}
        return f", most by the rule {max(rules, key=rules.get)}" if rules else ""

    @property
    def duplicates_dropped(self) -> int:
        return sum(self.rules[name].dropped for name in ("duplicates", "near-duplicates") if name in self.rules)


class Kept:
    """The documents of a spool that are kept, on one side of a split that is given, or all."""

    def __init__(self, spool: Spool, numbers: list[int], documents: Documents):
        self._spool, self._numbers, self.documents = spool, numbers, documents

    def pieces(self) -> Iterator[Piece]:
        return self._spool.pieces(self._numbers)


def clean(parts: list[Iterable[Piece]], rules: frozenset[str], spool: Spool) -> tuple[list[Kept], Cleaning]:
    """Read all parts (training text, and held-out text where it is given) and clean them by the same rules.

    Duplicates are dropped within a part; what both have in common is told by equal `Documents.groups`.
    """
    made = Cleaning()
    judge = _Judge(rules, spool, made)
    kept = [_fill(part, pieces, rules, spool, judge) for part, pieces in enumerate(parts)]
    groups, made.documents = judge.near.groups(), len(spool)
    kept = [_without_near_duplicates(groups, numbers, rules, judge) for numbers in kept]
    if "repeated" in rules:  # after that, lest the lines of copies be taken from the original
        kept = _without_repeated(kept, judge)
    if "repeated" in made.rules:  # without them, more may be the same
        more = judge.near.groups()
        kept = [_without_near_duplicates(more, numbers, rules, judge) for numbers in kept]
        groups = joined([*groups, *more])
    made.near_groups = len(groups)
    decisive, alike = (_least_digests(found, judge) for found in (groups, judge.near.groups()))
    if not kept[0]:
        raise UserError(f"no text is left: {_drops(made)}; the rules are switched off by --skip NAME, or --skip all")
    result = []
    for numbers in kept:
        documents = Documents(
            [judge.digests[d] for d in numbers],
            array("q", [judge.characters[d] for d in numbers]),
            sum(map(spool.size, numbers)),
            [decisive.get(d, judge.digests[d]) for d in numbers],
            [alike.get(d, judge.digests[d]) for d in numbers],
        )
        result.append(Kept(spool, numbers, documents))
    return result, made


def _least_digests(groups: list[list[int]], judge: "_Judge") -> dict[int, bytes]:
    """For every document of a group the smallest digest in it."""
    found: dict[int, bytes] = {}
    for group in groups:
        found |= dict.fromkeys(group, min(judge.digests[document] for document in group))
    return found


def _fill(part: int, pieces: Iterable[Piece], rules: frozenset[str], spool: Spool, judge: "_Judge") -> list[int]:
    """Mend the text of a part into the spool, and judge its documents; the numbers of those that are kept."""
    mender, kept = _Mender(rules, judge.made), []
    for piece in pieces:
        judge.made.bytes += len(piece.text.encode())
        text = mender.mend(piece.text, last=piece.last)
        spool.write(text)
        judge.add(text)
        if piece.last:
            document = spool.end()
            if judge.keeps(document, part):
                kept.append(document)
    return kept


class _Mender:
    """Applies the rules for text, and counts what they do."""

    def __init__(self, rules: frozenset[str], made: Cleaning):
        self._rules = [(name, rule) for name, rule in TEXT_RULES.items() if name in rules]
        self._made, self._touched = made, set()

    def mend(self, text: str, *, last: bool) -> str:
        for name, rule in self._rules:
            after = rule(text)
            if after is not text and after != text:
                self._touched.add(name)
                self._made.of(name).removed(text, after)
                text = after
        if last:
            for name in self._touched:
                self._made.of(name).documents += 1
            self._touched.clear()
        return text


def differences(before: str, after: str, most: int = EXAMPLES) -> Iterator[tuple[str, str]]:
    """Where two texts differ: some characters of each around the first places; after a place that is no plain
    removal, and so gives no way to go on, it ends."""
    old, new = 0, 0
    for _ in range(most):
        same = _same(before, old, after, new)
        old, new = old + same, new + same
        if old == len(before) and new == len(after):
            return
        left = min(AROUND, old, new)
        rest = before.find(after[new : new + 2 * AROUND], old) if new < len(after) else len(before)
        if rest <= old:
            yield before[old - left : old + 3 * AROUND], after[new - left : new + 3 * AROUND]
            return
        yield before[old - left : rest + AROUND], after[new - left : new + AROUND]
        old = rest


def _same(before: str, old: int, after: str, new: int) -> int:
    """How many characters from two places on are the same."""
    low, high = 0, min(len(before) - old, len(after) - new)
    while low < high:
        middle = (low + high + 1) // 2
        equal = before[old + low : old + middle] == after[new + low : new + middle]
        low, high = (middle, high) if equal else (low, middle - 1)
    return low


class _Judge:
    """Documents one after another: rules for documents, digests, signatures."""

    def __init__(self, rules: frozenset[str], spool: Spool, made: Cleaning):
        self.made, self.spool = made, spool
        self.near = Signatures()
        self.digests: list[bytes] = []
        self.characters = array("q")
        self._wanted = [(name, rule) for name, rule in DOCUMENT_RULES.items() if name in rules]
        self._exact = "duplicates" in rules
        self._seen: dict[int, set[bytes]] = {}
        self._begin()

    def _begin(self) -> None:
        self._measures, self._digest, self._length, self._head = Measures(), hashlib.sha256(), 0, ""

    def add(self, text: str) -> None:
        """A part of the document at hand."""
        numbers = unit_numbers(text)
        self._measures.add(text, numbers)
        self._digest.update(text.encode())
        self._length += len(text)
        self._head = self._head or text[:SHOWN]
        self.near.add(numbers)

    def keeps(self, document: int, part: int, *, again: bool = False) -> bool:
        """Whether the document that ends is kept; `again`: it was judged before, and has changed."""
        digest = self._digest.digest()[:16]
        self.digests[document : document + 1] = [digest]
        self.characters[document : document + 1] = array("q", [self._length])
        rule = next((name for name, drops in self._wanted if drops(self._measures)), "")
        seen = self._seen.setdefault(part, set())
        if not rule and self._exact and digest in seen:
            rule = "duplicates"
        seen.add(digest)
        if rule:
            self.drop(rule, document, self._head, self._head if rule == "duplicates" else "")
        (self.near.replace if again else self.near.end)(document, keep=not rule)
        self._begin()
        return not rule

    def drop(self, rule: str, document: int, head: str, original: str) -> None:
        """Count a document that goes."""
        counts = self.made.of(rule)
        counts.dropped += 1
        counts.characters += self.characters[document]
        counts.bytes += self.spool.size(document)
        if len(counts.examples) < EXAMPLES:
            counts.examples.append([head, original])

    def head(self, document: int) -> str:
        return next(self.spool.texts(document))[:SHOWN]


def _without_near_duplicates(
    groups: list[list[int]], numbers: list[int], rules: frozenset[str], judge: _Judge
) -> list[int]:
    """All documents of a part but those that follow the first of their group, where that rule is on; exact duplicates
    stay where their own rule is skipped."""
    if "near-duplicates" not in rules:
        return numbers
    inside, dropped = set(numbers), set()
    for group in groups:
        first, *others = [d for d in group if d in inside] or [-1]
        for document in others:
            if "duplicates" in rules or judge.digests[document] != judge.digests[first]:
                dropped.add(document)
                judge.near.forget(document)
                judge.drop("near-duplicates", document, judge.head(document), judge.head(first))
    return [d for d in numbers if d not in dropped]


def _without_repeated(kept: list[list[int]], judge: _Judge) -> list[list[int]]:
    """Take repeated lines out of the documents that have any, which are then judged again."""
    lines, spool = RepeatedLines(), judge.spool
    for document in itertools.chain(*kept):
        for text in spool.texts(document):
            lines.add(text)
        lines.end(document)
    left: list[list[int]] = []
    for part, numbers in enumerate(kept):
        left.append([])
        for document in numbers:
            keys, at_end = lines.in_document(document), lines.at_ends()
            if (keys or at_end) and _rewrite(document, keys, at_end, judge):
                for text in spool.texts(document):
                    judge.add(text)
                if not judge.keeps(document, part, again=True):
                    continue
            left[-1].append(document)
    return left


def _rewrite(document: int, keys: set[int], at_end: set[int], judge: _Judge) -> bool:
    """Take lines of these keys out of a document, and others from its end; whether there were any."""
    spool, changed = judge.spool, False
    parts = itertools.pairwise(itertools.chain(spool.texts(document), [None]))
    for index, (text, after) in enumerate(parts):
        left = without(text, keys, at_end if after is None else None)
        if left is not text:
            judge.made.of("repeated").removed(text, left)
            if not changed:
                changed = True
                for earlier in itertools.islice(spool.texts(document), index):
                    spool.write(earlier)
        if changed:
            spool.write(left)
    if changed:
        judge.made.of("repeated").documents += 1
        spool.replace(document)
    return changed


def _drops(made: Cleaning) -> str:
    drops = Counter({name: counts.dropped for name, counts in made.rules.items() if counts.dropped})
    named = ", ".join(f"{name} {count:,}" for name, count in drops.most_common())
    return f"of {counted(made.documents, 'document')} the rules dropped {sum(drops.values()):,} ({named})"
