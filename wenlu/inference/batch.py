"""Continuous batching: texts join and leave between the steps of one model that writes them all (Yu et al. 2022)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.inference.adjust import UNCHANGED, Adjustments
from wenlu.inference.constrain import Matcher, masked
from wenlu.inference.prefix import PrefixCache
from wenlu.inference.reading import Finish, Reader, check_prompt, evaluating, limit_of
from wenlu.inference.sample import GREEDY, Strategy, finite
from wenlu.inference.speculative import Lookup
from wenlu.models.cache import KeyValueCache, gap_filled
from wenlu.models.config import ROTARY

NEAR = 2e-4
"""2 ε of law 8: a choice with a smaller margin may come out otherwise beside other texts, or without a cache."""


@dataclass(frozen=True)
class Request:
    """A text that is wanted."""

    ids: tuple[int, ...]
    """The prompt."""
    strategy: Strategy = GREEDY
    max_tokens: int = 200
    stop_ids: frozenset[int] = frozenset()
    """End tokens; they are not given out."""
    generator: torch.Generator | None = None
    """Of this text's draws alone (`sample.row_generators`)."""
    adjustments: Adjustments = UNCHANGED
    matcher: Matcher | None = None
    """What a constraint allows next (`constrain.Constrainer.matcher`); each text has its own."""
    alternatives: int | None = None
    """Keep log-probabilities: of the chosen tokens, and of so many likeliest ones."""


@dataclass
class Text:
    """A text in the making."""

    request: Request
    limit: int
    """How many tokens it may have."""
    last: Finish
    """Why it may have no more."""
    ids: list[int] = field(default_factory=list)
    finish: Finish | None = None
    """Why it has ended, once it has."""
    near_ties: list[int] = field(default_factory=list)
    """Places in it that were chosen by a margin less than `NEAR`."""
    log_probabilities: list[float] = field(default_factory=list)
    """In nats, of the chosen tokens by the model itself, whatever was asked for besides; where alternatives are."""
    alternatives: list[list[tuple[int, float]]] = field(default_factory=list)
    """(id, log-probability) of the likeliest tokens at each place."""

    def end(self, reason: Finish = "cancelled") -> None:
        """End it from outside: it leaves before the next step, and its mates go on as they would."""
        self.finish = reason


@dataclass(frozen=True)
class Options:
    """How an engine works; none of it changes texts but by near-ties."""

    rows: int = 64
    """Most texts side by side; others wait."""
    prefix_bytes: int = 0
    """Room for keys and values of what was read, for texts that begin alike; 0 = none are kept."""
    guesses: Lookup | None = None
    """Read tokens ahead that are guessed from the text itself (speculative decoding)."""
    batch_invariant: bool = False
    """Read each text by itself, so that its bytes do not depend on the others."""

    def __post_init__(self):
        if self.rows < 1:
            raise UserError(f"an engine needs room for at least 1 text, not {self.rows}")
        _ = PrefixCache(self.prefix_bytes)


class Engine:
    """One model that writes many texts; each is what it would be alone (law 8).

    >>> engine = Engine(model)
    >>> texts = [engine.add(Request((1, 2, 3))), engine.add(Request((1, 2, 4)))]
    >>> while engine.step(): pass
    """

    def __init__(self, model: nn.Module, vocab: int | None = None, options: Options | None = None):
        """vocab: choose among the first so many ids only.

        Raises UserError for guesses of an LSTM, which cannot forget wrong ones. Prefixes are kept of models with keys
        and values that grow with the text: not of an LSTM's state, nor of what t5's encoder reads.
        """
        options, family = options or Options(), model.config.family
        if family == "lstm" and options.guesses is not None:
            raise UserError("an lstm cannot take back what it has read: leave out guesses (speculative decoding)")
        self._model, self._vocab, self._rows = model, vocab, options.rows
        self._guesses, self._alone = options.guesses, options.batch_invariant
        kept = options.prefix_bytes and family not in ("lstm", "t5")
        self.prefixes = PrefixCache(options.prefix_bytes) if kept else None
        self._waiting: deque[Text] = deque()
        self._groups: list[tuple[Reader, list[Text]]] = []

    @property
    def texts(self) -> list[Text]:
        """Those that are being written, in the order of their rows."""
        return [text for _, texts in self._groups for text in texts]

    @property
    def bytes(self) -> int:
        """Memory that is held for texts being written."""
        return sum(reader.cache.bytes for reader, _ in self._groups)

    def add(self, request: Request) -> Text:
        """A text that joins with the next step, or when there is room. Raises UserError for a prompt that the model
        cannot read."""
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
            self._waiting.append(text)
        return text

    def step(self) -> bool:
        """One token more, or several that were guessed, of every text; whether any is still to be written."""
        with evaluating(self._model):
            self._leave()
            for reader, texts in self._groups:
                guesses = self._guess(reader, texts)
                self._advance(reader, texts, guesses, self._read(reader, texts, guesses))
            for reader, texts, logits in self._begun():
                self._advance(reader, texts, [[] for _ in texts], logits[:, None], first=True)
                self._join(reader, texts)
        return bool(self._waiting) or any(text.finish is None for text in self.texts)

    def beyond_context(self, text: Text) -> bool:
        """Whether a rotary model has been led past the longest sequence that it was trained on."""
        config = self._model.config
        return config.family in ROTARY and len(text.request.ids) + len(text.ids) - 1 > config.context

    def _leave(self) -> None:
        """Free the rows of texts that have ended."""
        self._waiting = deque(text for text in self._waiting if text.finish is None)
        staying = []
        for reader, texts in self._groups:
            ended = [row for row, text in enumerate(texts) if text.finish is not None]
            if len(ended) < len(texts):
                if ended:
                    order = gap_filled(len(texts), ended)
                    reader.cache.keep(order)
                    texts = [texts[row] for row in order]
                staying.append((reader, texts))
        self._groups = staying

    def _begun(self) -> list[tuple[Reader, list[Text], Tensor]]:
        """The texts for which there is now room, their prompts read: those read at once, and logits for each."""
        new = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._rows - len(self.texts)))]
        t5, batches = self._model.config.family == "t5", {}
        for number, text in enumerate(new):
            key = number if self._alone else 0 if t5 else text.request.ids if self.prefixes else len(text.request.ids)
            batches.setdefault(key, []).append(text)
        return [self._begin(texts) for texts in batches.values()]

    def _begin(self, texts: list[Text]) -> tuple[Reader, list[Text], Tensor]:
        """Read the prompts of texts that can be read at once, each prompt once."""
        prompts = list(dict.fromkeys(text.request.ids for text in texts))
        reader = Reader(self._model, self._vocab)
        known = self.prefixes.find(prompts[0]) if self.prefixes and len(prompts) == 1 else ()
        logits = reader.begin(prompts, max(text.limit for text in texts) - 1, known)
        if self.prefixes:
            for row, prompt in enumerate(prompts):
                self.prefixes.add(prompt, reader.cache, row)
        if len(prompts) < len(texts):
            rows = torch.tensor([prompts.index(text.request.ids) for text in texts], device=logits.device)
            reader.cache.select(rows)
            logits = logits[rows]
        return reader, texts, logits

    def _join(self, reader: Reader, texts: list[Text]) -> None:
        if self._groups and not self._alone:
            self._groups[0][0].cache.join(reader.cache)
            self._groups[0][1].extend(texts)
        else:
            self._groups.append((reader, texts))

    def _guess(self, reader: Reader, texts: list[Text]) -> list[list[int]]:
        """Tokens of each text to be read ahead, none of which would be beyond its end, or a gpt2's last position."""
        if self._guesses is None:
            return [[] for _ in texts]
        config = self._model.config
        room = config.context - reader.cache.length - 1 if config.family == "gpt2" else self._guesses.tokens
        guesses = []
        for text in texts:
            known = text.ids if config.family == "t5" else [*text.request.ids, *text.ids]
            most = 0 if text.request.matcher is not None else min(room, text.limit - len(text.ids) - 1)
            guesses.append(self._guesses.guess(known, most))
        return guesses

    def _read(self, reader: Reader, texts: list[Text], guesses: list[list[int]]) -> Tensor:
        """Logits after the newest token of each text and after its guesses, [rows, 1 + most guesses, vocab]."""
        most = max(map(len, guesses))
        rows = [[text.ids[-1], *guess, *[0] * (most - len(guess))] for text, guess in zip(texts, guesses, strict=True)]
        return reader.read(torch.tensor(rows, device=next(self._model.parameters()).device))

    def _advance(
        self, reader: Reader, texts: list[Text], guesses: list[list[int]], logits: Tensor, first: bool = False
    ) -> None:
        """Choose the next tokens; forget what was guessed wrongly."""
        before = [len(text.ids) for text in texts]
        self._choose(texts, logits[:, 0])
        for row, (text, guess) in enumerate(zip(texts, guesses, strict=True)):
            for place, token in enumerate(guess, 1):
                if text.finish is not None or text.ids[-1] != token:
                    break
                self._choose([text], logits[row : row + 1, place])
        if not first and logits.shape[1] > 1:
            assert isinstance(reader.cache, KeyValueCache)
            read = logits.shape[1]
            # A text that has just ended may have made one token less than it was given room for; it leaves anyway.
            made = [max(1, len(text.ids) - count) for text, count in zip(texts, before, strict=True)]
            reader.cache.crop([n - read + new for n, new in zip(reader.cache.lengths, made, strict=True)])

    def _choose(self, texts: list[Text], logits: Tensor) -> None:
        """The next token of each text, from logits [rows, vocab]; texts with the same strategy together."""
        finite(logits)
        alike: dict[Strategy, list[int]] = {}
        for row, text in enumerate(texts):
            if text.finish is None:
                alike.setdefault(text.request.strategy, []).append(row)
        for strategy, rows in alike.items():
            of_rows = logits if len(rows) == len(texts) else logits[rows]
            members = [texts[row] for row in rows]
            choice = strategy.choose(_adjusted(of_rows, members), [text.request.generator for text in members])
            margins = choice.margin.tolist()
            for text, token, margin, row in zip(members, choice.ids.tolist(), margins, of_rows, strict=True):
                _add(text, token, margin < NEAR, row)


def _adjusted(logits: Tensor, texts: Sequence[Text]) -> Tensor:
    """The same logits where nothing is asked for but the prompt."""
    changed = None
    for row, text in enumerate(texts):
        request = text.request
        if request.adjustments.none and request.matcher is None:
            continue
        changed = logits.float().clone() if changed is None else changed
        if not request.adjustments.none:
            changed[row] = request.adjustments.applied(logits[row], request.ids, text.ids)
        if request.matcher is not None:
            changed[row] = masked(changed[row], request.matcher.allowed()[: logits.shape[1]])
    return logits if changed is None else changed


def _add(text: Text, token: int, near: bool, logits: Tensor) -> None:
    """Note a chosen token, and whether the text ends with it."""
    request = text.request
    if near:
        text.near_ties.append(len(text.ids))
    if token in request.stop_ids:
        text.finish = "eos"
        return
    text.ids.append(token)
    if request.matcher is not None:
        request.matcher.push(token)
        text.finish = "stop" if request.matcher.done else None
    if request.alternatives is not None:
        log_probabilities = logits.float().log_softmax(-1)
        text.log_probabilities.append(log_probabilities[token].item())
        best = log_probabilities.topk(min(request.alternatives, len(logits)))
        text.alternatives.append(list(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
    if len(text.ids) == text.limit:
        text.finish = text.finish or text.last
