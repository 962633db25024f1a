"""Whether prompts fit into a model: those that do not are refused, or cut from the left, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wenlu.base.errors import UserError
from wenlu.evaluation.candidate import Candidate
from wenlu.inference.reading import most_tokens
from wenlu.models.config import ROTARY
from wenlu.prompting.template import Prompt

AT_ONCE = 256
"""Prompts whose tokens are held at once."""
Ask = tuple[Prompt, tuple[str, ...]]


@dataclass(frozen=True)
class Fitted:
    """Prompts as they are read, and what became of them."""

    asks: tuple[Ask, ...]
    longest: int
    """Tokens of the longest, with what follows it."""
    cut: int
    """Prompts that were cut."""
    beyond: int
    """Prompts that are longer than what the model was trained on, and are read all the same."""
    apart: int
    """Texts in which a token would span the border between prompt and answer, so that both were encoded apart."""

    def notes(self, context: int) -> tuple[str, ...]:
        """What became of them, in words."""
        lines = []
        if self.cut:
            lines.append(
                f"{self.cut:,} of {len(self.asks):,} prompts were cut from the left, to fit into {context:,} tokens"
            )
        if self.beyond:
            lines.append(
                f"{self.beyond:,} of {len(self.asks):,} prompts are longer than the {context:,} tokens that the model "
                f"was trained on (the longest: {self.longest:,}); --cut leaves out what stands furthest left"
            )
        if self.apart:
            lines.append(
                f"in {self.apart:,} texts a token would span the border between prompt and answer: "
                "there both are encoded apart"
            )
        return tuple(lines)


def fitted(candidate: Candidate, asks: Sequence[Ask], name: str, room: int, cut: bool) -> Fitted:
    """The prompts of a task, each short enough.

    room: tokens of an answer to be written; 0 where texts are scored. A gpt2 and a bert cannot read more than their
    context; a rotary model can, which is counted; `cut` shortens prompts for all of these. An LSTM and a t5 have no
    end. Raises UserError for prompts that do not fit, and those that cannot be cut.
    """
    family, context = candidate.family, candidate.model.config.context
    measured = [found for at in range(0, len(asks), AT_ONCE) for found in _measured(candidate, asks[at : at + AT_ONCE])]
    lengths, apart = [length for length, _ in measured], sum(number for _, number in measured)
    most = most_tokens(candidate.model.config, written=room > 0)
    if most is None:
        return Fitted(tuple(asks), max(lengths), 0, 0, apart)
    if cut and room:
        most = context + 1 - min(room, context // 2)
    long = [number for number, length in enumerate(lengths) if length > most]
    if not cut and family in ROTARY:
        return Fitted(tuple(asks), max(lengths), 0, len(long), apart)
    if long and not cut:
        raise UserError(
            f"task {name}: {len(long):,} of {len(asks):,} prompts are longer than the {context:,} tokens that this "
            f"{family} reads (the longest: {max(lengths):,}): ask for fewer --shots, or --cut them from the left"
        )
    kept = list(asks)
    for number in long:
        kept[number] = _shortened(candidate, asks[number], name, most)
    return Fitted(tuple(kept), max(lengths), len(long), 0, apart)


def _measured(candidate: Candidate, asks: Sequence[Ask]) -> list[tuple[int, int]]:
    """Of each prompt: tokens with the longest of what follows it, and in how many of its texts a token would span the
    border between them."""
    if asks and not asks[0][1]:
        return [(len(candidate.prompt_ids(prompt)), 0) for prompt, _ in asks]
    pairs = candidate.scorer.pairs([candidate.query(ask) for ask in asks])
    texts = [(prompt, after) for prompt, continuations in asks for after in continuations]
    split = [isinstance(prompt, str) and bool(prompt) and candidate.family != "t5" for prompt, _ in texts]
    wholes = iter(
        candidate.tokenizer.encode_batch([a + b for (a, b), known in zip(texts, split, strict=True) if known])
    )
    spans = [known and _ends(next(wholes), *pair) for pair, known in zip(pairs, split, strict=True)]
    found, at = [], 0
    for _, continuations in asks:
        part = slice(at, at + len(continuations))
        found.append((max(len(a) + len(b) for a, b in pairs[part]), sum(spans[part])))
        at += len(continuations)
    return found


def _ends(whole: list[int], prefix: list[int], after: list[int]) -> bool:
    """Whether the tokens of a text differ from those of its halves; the prefix has the token that begins a document."""
    both = [*prefix, *after]
    return both[len(both) - len(whole) :] != whole


def _shortened(candidate: Candidate, ask: Ask, name: str, most: int) -> Ask:
    """The longest end of a prompt that fits, found by halving; the token that begins a document stays before it."""
    prompt, continuations = ask
    if not isinstance(prompt, str):
        raise UserError(f"task {name}: a conversation of more than {most:,} tokens cannot be cut: ask for fewer shots")

    def fits(start: int) -> bool:
        return _measured(candidate, [(prompt[start:], continuations)])[0][0] <= most

    low, high = 0, len(prompt)
    if not fits(high):
        raise UserError(f"task {name}: {most:,} tokens hold not even an answer without its prompt: take another model")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return prompt[high:], continuations
