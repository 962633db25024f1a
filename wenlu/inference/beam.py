"""Beam search: of many texts that could be written, the most probable ones that a search in breadth finds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.inference.reading import Finish, Reader, check_prompt, evaluating, limit_of
from wenlu.inference.sample import finite

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Beams:
    """How wide the search is, and how it weighs long texts against short ones."""

    number: int = 4
    """Texts kept at every step; 1 = greedy."""
    length_penalty: float = 0.6
    """α of Wu et al. (2016): log-probabilities are compared after division by ((5 + length) / 6)^α; 0 = as they are,
    which favours short texts."""

    def __post_init__(self):
        if self.number < 1:
            raise UserError(f"beams must be at least 1, not {self.number}")
        if not 0 <= self.length_penalty < float("inf"):
            raise UserError(f"length_penalty must be 0 (none) or a positive number, not {self.length_penalty}")

    def score(self, log_probability: float, length: int) -> float:
        """What a text of `length` tokens is ranked by, its end token counted."""
        return log_probability / ((5 + length) / 6) ** self.length_penalty


@dataclass(frozen=True)
class Hypothesis:
    """A text that was found."""

    ids: tuple[int, ...]
    """Without an end token."""
    log_probability: float
    """Of all its tokens, an end token included, in nats."""
    score: float
    finish: Finish


def beam_search(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    beams: Beams,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    vocab: int | None = None,
    barred: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """For each prompt `beams.number` texts, the best first (one, and empty, where no token can be made); the prompts
    side by side (see `reading.Reader`). `vocab`: choose among the first so many ids only, and none that is `barred`.

    At every step each prompt's texts are continued by every token, and the best go on. Those among the best that end
    are set aside; a prompt is done when so many of them have ended as there are beams, or at `max_tokens`, where the
    unfinished ones are counted too. Raises UserError for a prompt that the model cannot read, and for more beams than
    there are tokens.
    """
    known = min(vocab or model.config.vocab, model.config.vocab) - len({*stop_ids, *barred})
    if beams.number > known:
        raise UserError(f"{beams.number} beams need as many tokens to begin with, but there are {known}: take fewer")
    for prompt in prompts:
        check_prompt(model.config, prompt)
    if model.config.family != "t5" and len(set(map(len, prompts))) > 1:
        raise UserError(f"{model.config.family} continues prompts of one length only: t5 reads others side by side")
    limit, last = limit_of(model.config, len(prompts[0]), max_tokens)
    found: list[list[Hypothesis]] = [[] for _ in prompts]
    if limit < 1:
        return [[Hypothesis((), 0.0, 0.0, last)] for _ in prompts]
    reader, search = Reader(model, vocab), _Search(beams, frozenset(stop_ids), found)
    for made in range(1, limit + 1):
        with evaluating(model):
            logits = reader.begin(prompts, limit - 1) if made == 1 else reader.read(search.tokens[:, None])[:, 0]
            log_probabilities = finite(logits).float().log_softmax(-1)
            log_probabilities[:, list(barred)] = -torch.inf
            rows = search.advance(log_probabilities)
            if made == limit or not search.open:
                break
            reader.cache.select(rows, search.same_prompts)
    search.close(last)
    return [sorted(ended, key=lambda h: -h.score)[: beams.number] for ended in found]


class _Search:
    """The texts of all prompts that are still open: one for each at first, then as many as there are beams."""

    def __init__(self, beams: Beams, stop_ids: frozenset[int], found: list[list[Hypothesis]]):
        self._beams, self._stop_ids, self._found = beams, stop_ids, found
        self.open = list(range(len(found)))
        """Numbers of the prompts that are not done."""
        self._texts: list[list[tuple[int, ...]]] = [[()] for _ in found]
        self._sums = torch.zeros(len(found), 1)
        self.same_prompts = False
        """Whether the last step kept the rows' prompts in their places."""
        self.tokens: Tensor | None = None
        """[rows]: the newest token of each text."""

    def advance(self, log_probabilities: Float[Tensor, "rows vocab"]) -> Tensor:
        """Continue all texts by one token; the rows that the new ones continue."""
        vocab, (prompts, width) = log_probabilities.shape[1], self._sums.shape
        sums = self._sums.to(log_probabilities.device)[:, :, None] + log_probabilities.view(prompts, width, vocab)
        candidates = min(self._beams.number * (1 + len(self._stop_ids)), width * vocab)
        best, where = (t.tolist() for t in sums.flatten(1).topk(candidates))
        rows, tokens, kept, still_open = [], [], [], []
        for place, prompt in enumerate(self.open):
            going = self._one(prompt, self._texts[place], best[place], [divmod(w, vocab) for w in where[place]])
            if len(self._found[prompt]) >= self._beams.number:
                continue
            still_open.append(prompt)
            rows += [place * width + parent for parent, _, _ in going]
            tokens += [text[-1] for _, text, _ in going]
            kept.append(going)
        self.same_prompts = still_open == self.open and width == self._beams.number
        self.open = still_open
        self._texts = [[text for _, text, _ in going] for going in kept]
        self._sums = torch.tensor([[total for _, _, total in going] for going in kept])
        device = log_probabilities.device
        self.tokens = torch.tensor(tokens, dtype=torch.long, device=device)
        return torch.tensor(rows, dtype=torch.long, device=device)

    def _one(
        self, prompt: int, texts: list[tuple[int, ...]], best: list[float], where: list[tuple[int, int]]
    ) -> list[tuple[int, tuple[int, ...], float]]:
        """(parent, text, log-probability) of those of one prompt that go on; those that end are set aside."""
        going, number = [], self._beams.number
        for rank, (total, (parent, token)) in enumerate(zip(best, where, strict=True)):
            text = texts[parent]
            if token not in self._stop_ids:
                going.append((parent, (*text, token), total))
            elif rank < number:
                score = self._beams.score(total, len(text) + 1)
                self._found[prompt].append(Hypothesis(text, total, score, "eos"))
            if len(going) == number:
                break
        return going

    def close(self, reason: Finish) -> None:
        """Count what has not ended."""
        for prompt, texts, sums in zip(self.open, self._texts, self._sums.tolist(), strict=True):
            for text, total in zip(texts, sums, strict=True):
                score = self._beams.score(total, len(text))
                self._found[prompt].append(Hypothesis(text, total, score, reason))
