"""What a search for a prompt comes to, and who is told how it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wenlu.base.errors import UserError
from wenlu.metrics.intervals import Estimate
from wenlu.metrics.verdict import Verdict
from wenlu.prompting.artifact import Artifact
from wenlu.prompting.search.select import Optimism


@dataclass(frozen=True)
class Finalist:
    """A prompt of the second stage, with one way to score choices."""

    prompt: Artifact
    right: tuple[float, ...]
    """On each select example that none of them failed on."""
    always: str | None = None
    """The one answer that it gave to all of them, where there was one."""


@dataclass(frozen=True)
class Outcome:
    """What a search came to."""

    baseline: Artifact
    best: Artifact
    """With its verdict and what it cost; the baseline itself where nothing was better on the select examples."""
    verdict: Verdict | None
    """On the test examples; None where the baseline was chosen, so that there is nothing to judge, and where it was
    refused (`unjudged`)."""
    of_baseline: Estimate | None
    of_best: Estimate | None
    """Accuracies on the test examples."""
    finalists: tuple[Finalist, ...]
    luck: Optimism
    """How much of the best accuracy on the select examples is the luck of being the best."""
    evaluations: int
    """Answers asked for before the test."""
    tokens: int
    """Read and written before the test, by the writer too, whatever process did."""
    writer_tokens: int
    """Those of the writer."""
    look: int
    """The how-manieth look at the test part this was; 0: none."""
    always: tuple[tuple[str, str], ...] = ()
    """(prompt, answer) of baseline and best, where one gave the same answer to every example."""
    unjudged: str = ""
    """Why the best prompt has no verdict, where one was to be had."""


class Unjudged(UserError):
    """A prompt was chosen, but the verdict on it is refused; what was found is kept."""

    def __init__(self, outcome: Outcome):
        super().__init__(outcome.unjudged)
        self.outcome = outcome


class Watcher(Protocol):
    """Told how a search goes."""

    def begin(self, prompts: int, evaluations: int) -> None:
        """What it will try, and how much that may cost."""

    def advance(self, cells: int) -> None:
        """So many answers more are there."""

    def best(self, name: str, accuracy: float, examples: int) -> None:
        """The best so far."""
