"""A smaller model that guesses what a larger one will write (Leviathan et al. 2023).

Both draw by the text's own random numbers, so that models that agree draw alike (common random numbers): the guess is
then the very token that the larger model chooses, and is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.inference.arrivals import Arrivals
from wenlu.inference.choose import chosen
from wenlu.inference.reading import Reader, evaluating
from wenlu.inference.speculative import Guesser
from wenlu.inference.text import Text
from wenlu.models.cache import KeyValueCache, gap_filled
from wenlu.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Draft:
    """Guesses what another model would write."""

    model: nn.Module
    tokens: int = 4
    """Most tokens guessed at once."""

    def __post_init__(self):
        if self.tokens < 1:
            raise UserError(f"a draft must guess at least 1 token, not {self.tokens}")
        if self.model.config.family in ("lstm", "bert"):
            why = {"lstm": "an lstm cannot take back what it has read", "bert": "a bert cannot write on"}
            raise UserError(f"a model that drafts must go back where it was wrong: {why[self.model.config.family]}")

    def check(self, model: nn.Module, vocab: int | None) -> None:
        """Raises UserError where it cannot draft for this model, which chooses among the first `vocab` ids."""
        ours, theirs = model.config, self.model.config
        if (ours.family == "t5") != (theirs.family == "t5"):
            raise UserError(
                f"the family {theirs.family} cannot draft for {ours.family}: t5 reads a source, the others do not"
            )
        needed = min(vocab or ours.vocab, ours.vocab)
        if theirs.vocab < needed:
            raise UserError(f"the draft knows {theirs.vocab} ids, but the model chooses among {needed}: take another")

    def guesser(self, model: nn.Module, vocab: int | None, chunk: int) -> Guesser:
        """For texts of this model."""
        return _Drafts(self, min(vocab or model.config.vocab, model.config.vocab), chunk)


def check_same_tokens(draft: Tokenizer | None, tokenizer: Tokenizer) -> None:
    """Raises UserError unless both mean the same tokens by the same ids."""
    if draft is None:
        raise UserError("the draft's folder holds no tokenizer: put its tokenizer.json there")
    if draft.vocab != tokenizer.vocab:
        raise UserError(
            f"the draft's tokenizer has {draft.vocab} ids, the model's {tokenizer.vocab}: "
            "take a draft with the same tokenizer"
        )
    for id in range(tokenizer.vocab):
        theirs, ours = _bytes_of(draft, id), _bytes_of(tokenizer, id)
        if theirs != ours:
            raise UserError(
                f"the id {id} is {theirs!r} to the draft's tokenizer, {ours!r} to the model's: "
                "take a draft with the same tokenizer"
            )


def _bytes_of(tokenizer: Tokenizer, id: int) -> bytes | None:
    """None where a tokenizer has left out an id."""
    try:
        return tokenizer.token_bytes(id)
    except UserError:
        return None


class _Drafts:
    """`Draft` for texts side by side: its own rows, in an order of their own, as far as they are right."""

    def __init__(self, draft: Draft, vocab: int, chunk: int):
        self._draft, self._model = draft, draft.model
        self._t5 = self._model.config.family == "t5"
        self._device = next(self._model.parameters()).device
        self._arrivals = Arrivals(self._model, vocab, chunk)
        self._reader: Reader | None = None
        self._texts: list[Text] = []
        self._seen: list[list[int]] = []
        """Of each row, the text's tokens that the draft has read, those that it guessed included."""
        self._known: set[Text] = set()

    @property
    def bytes(self) -> int:
        return self._arrivals.bytes + (self._reader.cache.bytes if self._reader else 0)

    def guess(self, texts: Sequence[Text], most: Sequence[int]) -> list[list[int]]:
        """Raises nothing where the draft itself fails at a text: it then guesses no more of it."""
        room = {text: min(one, self._draft.tokens) for text, one in zip(texts, most, strict=True)}
        with evaluating(self._model):
            self._leave(room)
            self._join(texts)
            self._keep_within_context()
            wanted = max((room[text] for text in self._texts), default=0)
            guesses = self._go_on(room, wanted) if wanted else {}
        return [guesses.get(text, []) for text in texts]

    @property
    def _cache(self) -> KeyValueCache:
        assert self._reader is not None and isinstance(self._reader.cache, KeyValueCache)
        return self._reader.cache

    def _leave(self, going: dict[Text, int]) -> None:
        """Drop the rows of texts that have ended, and what was guessed wrongly of the others."""
        self._arrivals.leave()
        self._known &= set(going)
        self._drop([row for row, text in enumerate(self._texts) if text not in going])
        self._take_back()

    def _keep_within_context(self) -> None:
        """Drop the rows of texts that a gpt2's context has no more room for."""
        if self._model.config.family == "gpt2" and self._texts:
            behind = max(len(text.ids) - len(seen) for text, seen in zip(self._texts, self._seen, strict=True))
            room = self._model.config.context - behind - self._draft.tokens
            self._drop([row for row, length in enumerate(self._cache.lengths) if length > room])

    def _drop(self, rows: list[int]) -> None:
        if rows:
            order = gap_filled(len(self._texts), rows)
            self._texts, self._seen = [self._texts[row] for row in order], [self._seen[row] for row in order]
            if order:
                self._cache.keep(order)
            else:
                self._reader = None

    def _take_back(self) -> None:
        """Forget what was guessed wrongly; the newest token of a text is left to be read in any case."""
        if not self._texts:
            return
        lengths = []
        for text, seen, length in zip(self._texts, self._seen, self._cache.lengths, strict=True):
            right = min(len(seen), len(text.ids) - 1)
            # Only the guesses at the end can be wrong.
            first = max(0, len(seen) - self._draft.tokens)
            right = next((place for place in range(first, right) if seen[place] != text.ids[place]), right)
            lengths.append(length - len(seen) + right)
            del seen[right:]
        self._cache.crop(lengths)

    def _join(self, texts: Sequence[Text]) -> None:
        """Read the prompts of new texts, some each step, and what was written after them meanwhile."""
        for text in texts:
            if text not in self._known:
                self._known.add(text)
                ids = text.request.ids if self._t5 else (*text.request.ids, *text.ids[:-1])
                if self._reads(ids) and text.request.matcher is None:
                    self._arrivals.add(text, ids)
        for begun, _ in self._arrivals.read(len(texts)):
            read = [0 if self._t5 else len(ids) - len(text.request.ids) for text, ids in begun.members]
            self._seen += [text.ids[:count] for (text, _), count in zip(begun.members, read, strict=True)]
            self._texts += begun.texts
            if self._reader is None:
                self._reader = begun.reader
            else:
                self._cache.join(begun.reader.cache)

    def _reads(self, ids: Sequence[int]) -> bool:
        config = self._model.config
        long = config.family == "gpt2" and len(ids) + 1 + self._draft.tokens > config.context
        return not long and max(ids) < config.vocab

    def _go_on(self, room: dict[Text, int], wanted: int) -> dict[Text, list[int]]:
        """Read what is new of each text, then guess token by token."""
        new = [text.ids[len(seen) :] for text, seen in zip(self._texts, self._seen, strict=True)]
        most = max(map(len, new))
        logits = self._read([[*ids, *ids[-1:] * (most - len(ids))] for ids in new])
        self._cache.crop([n - most + len(ids) for n, ids in zip(self._cache.lengths, new, strict=True)])
        logits = logits[range(len(new)), [len(ids) - 1 for ids in new]]
        for seen, ids in zip(self._seen, new, strict=True):
            seen += ids
        guesses: list[list[int]] = [[] for _ in self._texts]
        going = [room[text] > 0 for text in self._texts]
        dice = [_ahead(text.request.generator) for text in self._texts]
        for count in range(1, wanted + 1):
            rows = [row for row, on in enumerate(going) if on]
            requests = [self._texts[row].request for row in rows]
            written = [self._written(row, guesses[row]) for row in rows]
            found = chosen(requests, written, logits[rows], [dice[row] for row in rows])
            for row, choice in zip(rows, found, strict=True):
                text = self._texts[row]
                if isinstance(choice, UserError) or choice[0] in text.request.stop_ids:
                    going[row] = False
                else:
                    guesses[row].append(choice[0])
                    going[row] = count < room[text]
            if not any(going):
                break
            logits = self._step(guesses, going)
        return dict(zip(self._texts, guesses, strict=True))

    def _written(self, row: int, guess: list[int]) -> list[int]:
        """What penalties count: the text and its guesses."""
        text = self._texts[row]
        return text.ids if text.request.adjustments.none else [*text.ids, *guess]

    def _step(self, guesses: list[list[int]], going: list[bool]) -> Tensor:
        """Read the newest guess of those that go on: logits of what follows."""
        pairs, before = zip(self._texts, guesses, strict=True), self._cache.lengths
        step = [[guess[-1] if guess else text.ids[-1]] for text, guess in pairs]
        logits = self._read(step)[:, 0]
        self._cache.crop([length + on for length, on in zip(before, going, strict=True)])
        for seen, token, on in zip(self._seen, step, going, strict=True):
            seen += token if on else []
        return logits

    def _read(self, ids: list[list[int]]) -> Tensor:
        assert self._reader is not None
        return self._reader.read(torch.tensor(ids, device=self._device))


def _ahead(generator: torch.Generator | None) -> torch.Generator | None:
    """One that draws what this one will draw next, and leaves it as it is; without one, torch's own is not touched."""
    return torch.Generator().set_state(generator.get_state()) if generator is not None else torch.Generator()
