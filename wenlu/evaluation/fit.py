"""Whether prompts fit into a model: those that do not are refused, or cut from the left, and counted."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wenlu.base.errors import UserError
from wenlu.evaluation.candidate import Candidate
from wenlu.inference.reading import most_tokens
from wenlu.inference.score import Pair
from wenlu.models.config import ROTARY
from wenlu.prompting.template import Prompt

AT_ONCE = 256
"""Prompts whose tokens are held at once."""
KEPT = 16 << 20
"""Bytes of a task's tokens that are kept until they are scored; what is beyond is encoded anew then."""
Ask = tuple[Prompt, tuple[str, ...]]


@dataclass(frozen=True)
class Fitted:
    """Prompts as they are read, and what became of them."""

    asks: tuple[Ask, ...]
    pairs: tuple[tuple[Pair, ...], ...]
    """Of each prompt, it and every text after it as tokens; empty where answers are written, and where they are not
    kept."""
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
    lengths, pairs, apart, size = [], [], 0, 0
    for at in range(0, len(asks), AT_ONCE):
        for length, texts in _measured(candidate, asks[at : at + AT_ONCE]):
            size += 4 * sum(len(pair.continuation) for pair in texts) + 4 * len(texts[0].prefix if texts else ())
            lengths.append(length)
            pairs.append(texts if size <= KEPT else ())
            apart += sum(pair.apart for pair in texts)
    found = Fitted(tuple(asks), tuple(pairs), max(lengths), 0, 0, apart)
    most = most_tokens(candidate.model.config, written=room > 0)
    if most is None:
        return found
    if cut and room:
        most = context + 1 - min(room, context // 2)
    long = [number for number, length in enumerate(lengths) if length > most]
    if not cut and family in ROTARY:
        return replace(found, beyond=len(long))
    if long and not cut:
        raise UserError(
            f"task {name}: {len(long):,} of {len(asks):,} prompts are longer than the {context:,} tokens that this "
            f"{family} reads (the longest: {max(lengths):,}): ask for fewer --shots, or --cut them from the left"
        )
    kept = list(asks)
    for number in long:
        kept[number] = _shortened(candidate, asks[number], name, most)
        if pairs[number]:
            ((_, pairs[number]),) = _measured(candidate, [kept[number]])
    return replace(found, asks=tuple(kept), pairs=tuple(pairs), cut=len(long))


def _measured(candidate: Candidate, asks: Sequence[Ask]) -> list[tuple[int, tuple[Pair, ...]]]:
    """Of each prompt: tokens with the longest of what follows it, and both as tokens, in four bytes each; none of what
    is to be written."""
    if asks and not asks[0][1]:
        return [(len(candidate.prompt_ids(prompt)), ()) for prompt, _ in asks]
    rest = iter(candidate.scorer.pairs([candidate.query(ask) for ask in asks]))
    found = []
    for _, continuations in asks:
        texts = [next(rest) for _ in continuations]
        prefix = array("i", texts[0].prefix)
        texts = [pair._replace(prefix=prefix, continuation=array("i", pair.continuation)) for pair in texts]
        found.append((len(prefix) + max(len(pair.continuation) for pair in texts), tuple(texts)))
    return found


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
