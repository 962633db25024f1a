"""Continuous batching: texts join and leave between the steps of one model that writes them all (Yu et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.inference.arrivals import Arrivals
from wenlu.inference.choose import go_on
from wenlu.inference.draft import Draft
from wenlu.inference.prefix import PrefixCache
from wenlu.inference.reading import Reader, check_prompt, evaluating, limit_of
from wenlu.inference.sample import finite
from wenlu.inference.speculative import Guesser, Lookup
from wenlu.inference.text import Request, Text
from wenlu.models.cache import KeyValueCache, gap_filled
from wenlu.models.config import ROTARY


@dataclass(frozen=True)
class Options:
    """How an engine works; none of it changes texts but by near-ties."""

    rows: int = 64
    """Most texts side by side; others wait."""
    prefix_bytes: int = 0
    """Room for keys and values of what was read, for texts that begin alike; 0 = none are kept."""
    guesses: Lookup | Draft | None = None
    """Read tokens ahead that are guessed (speculative decoding): from the text itself, or by a smaller model."""
    batch_invariant: bool = False
    """Read each text by itself, so that its bytes do not depend on the others (within `kernels.fast`, with
    measured=False)."""
    chunk: int = 256
    """About so many tokens of prompts are read a step, so that texts being written do not wait for long ones (Agrawal
    et al. 2023); what t5's encoder reads is never cut."""

    def __post_init__(self):
        if self.rows < 1:
            raise UserError(f"an engine needs room for at least 1 text, not {self.rows}")
        if self.chunk < 1:
            raise UserError(f"an engine must read at least 1 token of a prompt at once, not {self.chunk}")
        _ = PrefixCache(self.prefix_bytes)
        if self.batch_invariant and self.prefix_bytes:
            raise UserError("prefixes that others have read change the bytes of a text: leave out prefix_bytes")


@dataclass
class _Group:
    """Texts that are written side by side, and what guesses for them."""

    reader: Reader
    texts: list[Text]
    guesser: Guesser | None


class Engine:
    """One model that writes many texts; each is what it would be alone (law 8).

    >>> engine = Engine(model)
    >>> texts = [engine.add(Request((1, 2, 3))), engine.add(Request((1, 2, 4)))]
    >>> while engine.step(): pass

    A text of which no token can be chosen (its logits are not finite, or all are barred) ends with `Text.error`; the
    others go on.
    """

    def __init__(
        self,
        model: nn.Module,
        vocab: int | None = None,
        options: Options | None = None,
        barred: Sequence[int] = (),
    ):
        """vocab: choose among the first so many ids only, but for those that are barred.

        Raises UserError for guesses of an LSTM, which cannot forget wrong ones, and for a draft that does not fit.
        Prefixes are kept of models with keys and values that grow with the text: not of an LSTM's state, nor of what
        t5's encoder reads.
        """
        options, family = options or Options(), model.config.family
        if options.guesses is not None:
            if family == "lstm":
                raise UserError("an lstm cannot take back what it has read: leave out guesses (speculative decoding)")
            options.guesses.check(model, vocab)
        _ = model.begin_id if family == "t5" else None  # refused here, not once texts are being written
        self._model, self._vocab, self._options = model, vocab, options
        kept = options.prefix_bytes and family not in ("lstm", "t5")
        self.prefixes = PrefixCache(options.prefix_bytes) if kept else None
        self._arrivals = Arrivals(model, vocab, options.chunk, options.batch_invariant, self.prefixes)
        self._groups: list[_Group] = []
        self._barred = torch.tensor(barred, device=next(model.parameters()).device) if barred else None

    @property
    def texts(self) -> list[Text]:
        """Those that are being written, in the order of their rows."""
        return [text for group in self._groups for text in group.texts]

    @property
    def bytes(self) -> int:
        """Memory that is held for texts being written, or read for."""
        guessers = (group.guesser.bytes for group in self._groups if group.guesser)
        return self._arrivals.bytes + sum(group.reader.cache.bytes for group in self._groups) + sum(guessers)

    def add(self, request: Request) -> Text:
        """A text that joins with the next step, or when there is room and its prompt is read. Raises UserError for a
        prompt that the model cannot read."""
        config = self._model.config
        check_prompt(config, request.ids)
        if request.max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1, not {request.max_tokens}")
        known = min(self._vocab or config.vocab, config.vocab)
        unknown = next((id for id, _ in request.adjustments.logit_bias if id >= known), None)
        if unknown is not None:
            raise UserError(f"logit_bias names the id {unknown}, but there are {known} only")
        text = Text(request, *limit_of(config, len(request.ids), request.max_tokens))
        if text.limit < 1:
            text.finish = text.last
        else:
            self._arrivals.add(text, request.ids)
        return text

    def step(self) -> bool:
        """One token more, or several that were guessed, of every text, and a part of the prompts that are still to be
        read; whether any text is still to be written."""
        with evaluating(self._model):
            self._leave()
            for group in self._groups:
                guesses = self._guess(group)
                self._advance(group, guesses, self._read(group, guesses))
            for begun, logits in self._arrivals.read(self._options.rows - len(self.texts)):
                guesses = self._options.guesses
                guesser = guesses.guesser(self._model, self._vocab, self._options.chunk) if guesses else None
                group = _Group(begun.reader, begun.texts, guesser)
                self._advance(group, [[] for _ in group.texts], logits[:, None], first=True)
                self._join(group)
        return bool(self._arrivals) or any(text.finish is None for text in self.texts)

    def beyond_context(self, text: Text) -> bool:
        """Whether a rotary model has been led past the longest sequence that it was trained on."""
        config = self._model.config
        return config.family in ROTARY and len(text.request.ids) + len(text.ids) - 1 > config.context

    def _leave(self) -> None:
        """Free the rows of texts that have ended."""
        self._arrivals.leave()
        for group in self._groups:
            ended = [row for row, text in enumerate(group.texts) if text.finish is not None]
            if ended:
                order = gap_filled(len(group.texts), ended)
                if order:
                    group.reader.cache.keep(order)
                group.texts = [group.texts[row] for row in order]
        self._groups = [group for group in self._groups if group.texts]

    def _join(self, group: _Group) -> None:
        if self._groups and not self._options.batch_invariant:
            self._groups[0].reader.cache.join(group.reader.cache)
            self._groups[0].texts.extend(group.texts)
        else:
            self._groups.append(group)

    def _guess(self, group: _Group) -> list[list[int]]:
        """Tokens of each text to be read ahead, none of which would be beyond its end, or a gpt2's last position."""
        if group.guesser is None:
            return [[] for _ in group.texts]
        most, config = [], self._model.config
        for text in group.texts:
            room = text.limit - len(text.ids) - 1
            if config.family == "gpt2":
                room = min(room, config.context - group.reader.cache.length - 1)
            most.append(0 if text.request.matcher is not None else room)
        return group.guesser.guess(group.texts, most)

    def _read(self, group: _Group, guesses: list[list[int]]) -> Tensor:
        """Logits after the newest token of each text and after its guesses, [rows, 1 + most guesses, vocab]."""
        most, pairs = max(map(len, guesses)), zip(group.texts, guesses, strict=True)
        # What fills a row is a token that is read anyway: one of which the model has no numbers would harm the others.
        rows = [[text.ids[-1], *guess, *text.ids[-1:] * (most - len(guess))] for text, guess in pairs]
        return group.reader.read(torch.tensor(rows, device=next(self._model.parameters()).device))

    def _advance(self, group: _Group, guesses: list[list[int]], logits: Tensor, first: bool = False) -> None:
        """Choose the next tokens, place by place where guesses were right; forget those that were wrong."""
        texts, read = group.texts, logits.shape[1]
        before = [len(text.ids) for text in texts]
        unsound = {} if _all_finite(logits) else _not_finite(logits)
        if self._barred is not None:
            logits = logits.index_fill(-1, self._barred, -torch.inf)
        going = list(range(len(texts)))
        for place in range(read):
            for row in going:
                texts[row].guessed += place == 0 and len(guesses[row])
                texts[row].taken += place > 0
                if (row, place) in unsound:
                    texts[row].fail(unsound[row, place])
            going = [row for row in going if texts[row].finish is None]
            if going:
                go_on(
                    [texts[row] for row in going],
                    logits[:, place] if len(going) == len(texts) else logits[going, place],
                )
            going = [row for row in going if _right(texts[row], guesses[row], place)]
            if not going:
                break
        if not first and read > 1:
            # A text that has just ended may have made one token less than it was given room for; it leaves anyway.
            made = [max(1, len(text.ids) - count) for text, count in zip(texts, before, strict=True)]
            _crop(group.reader, [n - read + new for n, new in zip(group.reader.cache.lengths, made, strict=True)])
        if unsound:
            _wipe(group, {row for row, _ in unsound})


def _right(text: Text, guess: list[int], place: int) -> bool:
    """Whether a text goes on with what was guessed at this place."""
    return text.finish is None and place < len(guess) and text.ids[-1] == guess[place]


def _crop(reader: Reader, lengths: list[int]) -> None:
    assert isinstance(reader.cache, KeyValueCache)
    reader.cache.crop(lengths)


def _all_finite(logits: Tensor) -> bool:
    # A sum is finite of finite numbers only, and quick; where it overflows they are looked at one by one.
    return bool(torch.isfinite(logits.sum(dtype=torch.float32))) or bool(torch.isfinite(logits).all())


def _not_finite(logits: Tensor) -> dict[tuple[int, int], UserError]:
    """The rows and places where they are not, and what is to be said of it."""
    found = {}
    for row, place in (~torch.isfinite(logits).all(-1)).nonzero().tolist():
        try:
            finite(logits[row, place])
        except UserError as error:
            found[row, place] = error
    return found


def _wipe(group: _Group, rows: set[int]) -> None:
    """Leave no numbers that are not finite where these rows' mates may come to lie."""
    cache = group.reader.cache
    if isinstance(cache, KeyValueCache):
        failed = {row for row in rows if group.texts[row].error is not None}
        cache.crop([0 if row in failed else length for row, length in enumerate(cache.lengths)])
        for row in rows:
            cache.wipe(row)
