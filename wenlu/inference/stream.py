"""A continuation as it is written: pieces of text that never tear a character and never show part of a stop text."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from wenlu.base.errors import UserError
from wenlu.inference.batch import Engine
from wenlu.inference.reading import Finish
from wenlu.inference.text import Text
from wenlu.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Result:
    """One continuation of a prompt."""

    text: str
    """The continuation alone, cut before a stop text."""
    ids: tuple[int, ...]
    """Every token that was made, those of a stop text included, an end token not."""
    finish: Finish
    """stop (a stop text, or a constraint that is met), length (max_tokens), eos (an end token), context (a gpt2 out of
    positions), cancelled, error (of what `Stream.so_far` gives)."""
    prompt_tokens: int
    """Tokens of the prompt, the one that begins a document included."""
    beyond_context: bool
    """Whether a rotary model was led past the longest sequence it was trained on, where its text may get worse."""
    log_probability: float | None = None
    """In nats, of a text that beams found."""
    near_ties: int = 0
    """Tokens that were chosen by so small a margin that beside other texts others may be (`batch.NEAR`)."""
    log_probabilities: tuple[float, ...] = ()
    """In nats, of the ids, where alternatives were asked for."""
    alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()
    """(id, log-probability) of the likeliest tokens at each place."""
    guessed: int = 0
    """Tokens that were guessed and read ahead (speculative decoding)."""
    taken: int = 0
    """Those of them that were right."""


class StopTexts:
    """Cuts a text, given in pieces, before the first stop text; holds back what may be the beginning of one.

    Of several stop texts the one completed first counts (of those, the longest), so the result does not depend on
    where the pieces are cut.
    """

    def __init__(self, stops: tuple[str, ...]):
        self._stops = stops
        self._held = ""
        self.found = False
        """Whether a stop text has been read; nothing is given out after it."""

    def push(self, piece: str) -> str:
        """What is now certain to belong to the text."""
        if self.found:
            return ""
        text = self._held + piece
        ends = [(i + len(stop), i) for stop in self._stops if (i := text.find(stop)) >= 0]
        if ends:
            self.found, self._held = True, ""
            return text[: min(ends)[1]]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, now that no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


class Row:
    """One continuation in the making: ids in, certain text out."""

    def __init__(self, tokenizer: Tokenizer, prompt: list[int], stops: tuple[str, ...]):
        # The prompt goes through the decoder too: whether a space stands before the first new word depends on it.
        self._stream = tokenizer.stream()
        for token in prompt:
            self._stream.push(token)
        self._stops = StopTexts(stops)
        self.ids: list[int] = []
        self.text = ""

    def push(self, token: int) -> str:
        self.ids.append(token)
        return self._add(self._stops.push(self._stream.push(token)))

    def flush(self) -> str:
        return self._add(self._stops.push(self._stream.flush()) + self._stops.flush())

    @property
    def stopped(self) -> bool:
        return self._stops.found

    def _add(self, piece: str) -> str:
        self.text += piece
        return piece


class Stream:
    """The pieces of one continuation, as they become certain; `result` once they have all been read.

    Streams of one Generator are written side by side: each step of one is a step of all. One that is dropped before
    its end is cancelled.
    """

    def __init__(self, engine: Engine, text: Text, row: Row):
        self._engine, self._text, self._row = engine, text, row
        # Nothing else may hold on to a Stream, or it would not be known when it is dropped.
        weakref.finalize(self, _abandon, text).atexit = False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        """Raises UserError where the text has ended by an error, once all that came before is given out."""
        while True:
            if piece := self.pull():
                return piece
            if self._text.error is not None:
                raise self._text.error
            if self.done:
                raise StopIteration
            self._engine.step()

    @property
    def done(self) -> bool:
        """Whether the text has ended."""
        return self._text.finish is not None

    def cancel(self) -> None:
        """End the text where it is; its place is free with the next step."""
        if not self.done:
            self._text.end()

    def pull(self) -> str:
        """What has become certain of the text since the last pull; nothing is computed."""
        text, row, piece = self._text, self._row, ""
        for token in text.ids[len(row.ids) :]:
            piece += row.push(token)
            if row.stopped:
                # Tokens that were guessed beyond the stop text do not count.
                del text.ids[len(row.ids) :]
                text.end("stop")
                return piece
        return piece + (row.flush() if text.finish is not None else "")

    @property
    def result(self) -> Result:
        """The whole; the rest of it is made first if it has not been read yet. Raises UserError where that fails."""
        for _ in self:
            pass
        return self.so_far

    @property
    def error(self) -> UserError | None:
        """Why the text ended before its end; None where it did not."""
        return self._text.error

    @property
    def so_far(self) -> Result:
        """What there is of a text that has ended, be it by an error."""
        text, made = self._text, len(self._text.ids)
        assert text.finish is not None
        return Result(
            self._row.text, tuple(text.ids), text.finish, len(text.request.ids), self._engine.beyond_context(text),
            near_ties=sum(place <= made for place in text.near_ties),
            log_probabilities=tuple(text.log_probabilities[:made]),
            alternatives=tuple(map(tuple, text.alternatives[:made])), guessed=text.guessed, taken=text.taken,
        )  # fmt: skip


def _abandon(text: Text) -> None:
    if text.finish is None:
        text.end()
