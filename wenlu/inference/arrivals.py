"""Texts whose prompts are still to be read: a bounded number of tokens a step, so that texts being written go on."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wenlu.inference.prefix import BLOCK, PrefixCache
from wenlu.inference.reading import Reader
from wenlu.inference.text import Text


@dataclass
class Begun:
    """Texts whose prompts are read at once, each prompt once."""

    reader: Reader
    prompts: list[tuple[int, ...]]
    """One for each of the reader's rows, until all is read; then there is a row for each text."""
    members: list[tuple[Text, tuple[int, ...]]]

    @property
    def texts(self) -> list[Text]:
        return [text for text, _ in self.members]

    def leave(self) -> None:
        """Go on without the texts that have ended. What is read for longer than a step is one prompt, so that no row is
        without a text while there is one."""
        self.members = [(text, ids) for text, ids in self.members if text.finish is None]


class Arrivals:
    """The prompts that a model is still to read, first come, first served; alike ones of them together.

    About `chunk` tokens are read a step. How a prompt is cut depends on those that are read at once with it alone.
    """

    def __init__(
        self, model: nn.Module, vocab: int | None, chunk: int, alone: bool = False, prefixes: PrefixCache | None = None
    ):
        """alone: read each prompt by itself. prefixes: where what prompts begin with is found, and kept."""
        self._model, self._vocab, self._chunk, self._alone, self._prefixes = model, vocab, chunk, alone, prefixes
        self._waiting: deque[tuple[Text, tuple[int, ...]]] = deque()
        self._begun: Begun | None = None
        self._weights: tuple[tuple[int, int], ...] = ()
        """Those by which the prefixes were read."""

    @property
    def texts(self) -> list[Text]:
        """Those whose prompt is being read; those that wait for that are not among them."""
        return self._begun.texts if self._begun else []

    @property
    def bytes(self) -> int:
        """Memory held for them."""
        return self._begun.reader.cache.bytes if self._begun else 0

    def __bool__(self) -> bool:
        return bool(self._waiting or self._begun)

    def add(self, text: Text, ids: Sequence[int]) -> None:
        """A text that is to go on after these tokens."""
        self._waiting.append((text, tuple(ids)))

    def leave(self) -> None:
        """Forget the texts that have ended."""
        self._waiting = deque((text, ids) for text, ids in self._waiting if text.finish is None)
        if self._begun is not None:
            self._begun.leave()
            self._begun = self._begun if self._begun.members else None

    def read(self, room: int) -> list[tuple[Begun, Tensor]]:
        """Read on, with room for so many texts: those whose prompts are read now, and logits of what follows each."""
        done, left = [], self._chunk
        room -= len(self.texts)
        while left > 0:
            if self._begun is None:
                members = self._next(room)
                if not members:
                    break
                room -= len(members)
                self._begun = self._open(members)
            begun, before = self._begun, self._begun.reader.left
            logits = begun.reader.read_on(max(1, self._chunk // len(begun.prompts)))
            left -= len(begun.prompts) * (before - begun.reader.left)
            if logits is not None:
                done.append((begun, self._ready(begun, logits)))
                self._begun = None
        return done

    def _next(self, room: int) -> list[tuple[Text, tuple[int, ...]]]:
        """Those that are read next at once: the first that waits, and whoever there is room for and is like it."""
        if not self._waiting or room < 1:
            return []
        ahead = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        begun = Counter(ids[:BLOCK] for ids in {ids for _, ids in ahead})
        kind, length, prompts = self._kind(ahead[0][1], begun), len(ahead[0][1]), set()
        members, others = [], []
        for text, ids in ahead:
            longest, rows = max(length, len(ids)), len(prompts | {ids})
            fits = not members or rows == len(prompts) or rows * longest <= self._chunk
            if fits and self._kind(ids, begun) == kind and not (self._alone and members):
                members.append((text, ids))
                prompts.add(ids)
                length = longest
            else:
                others.append((text, ids))
        self._waiting.extendleft(reversed(others))
        return members

    def _kind(self, ids: tuple[int, ...], begun: Counter[tuple[int, ...]]) -> Hashable:
        """What prompts that can be read at once have in common: their length, for rows are even; all, where half of
        one or more need not be read, since it is kept, or may be once another has been read that begins alike
        (`begun`: how many do)."""
        if self._model.config.family == "t5":
            return None
        if self._prefixes and len(ids) > BLOCK:
            kept = self._prefixes.kept(ids)
            if 2 * kept >= len(ids) or (begun[ids[:BLOCK]] > 1 and not kept):
                return ids
        return len(ids)

    def _open(self, members: list[tuple[Text, tuple[int, ...]]]) -> Begun:
        prompts = list(dict.fromkeys(ids for _, ids in members))
        reader, known = Reader(self._model, self._vocab), ()
        if self._prefixes:
            if self._weights != (weights := _weights(self._model)):
                self._prefixes.clear()
                self._weights = weights
            known = self._prefixes.find(prompts[0]) if len(prompts) == 1 else ()
        reader.open(prompts, max(text.limit for text, _ in members) - 1, known)
        return Begun(reader, prompts, members)

    def _ready(self, begun: Begun, logits: Tensor) -> Tensor:
        """A row for each text, of those that were for each prompt."""
        cache = begun.reader.cache
        if self._prefixes and self._weights == _weights(self._model):
            for row, prompt in enumerate(begun.prompts):
                self._prefixes.add(prompt, cache, row)
        if len(begun.prompts) == len(begun.members):
            return logits
        at = {prompt: row for row, prompt in enumerate(begun.prompts)}
        rows = torch.tensor([at[ids] for _, ids in begun.members], device=logits.device)
        cache.select(rows)
        return logits[rows]


def _weights(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """What is another once weights were trained on or replaced: where each lies, and how often it was written to (of a
    tensor made for inference only, that is not counted)."""
    return tuple((one.data_ptr(), -1 if one.is_inference() else one._version) for one in model.parameters())
