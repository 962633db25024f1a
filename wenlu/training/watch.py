"""What a run shows and notes while it goes on: the progress bar, rows of metrics, samples of what it writes."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import torch
from torch import nn

from wenlu.base.errors import UserError
from wenlu.base.log import console, progress, say
from wenlu.inference.generator import Generator, Settings
from wenlu.inference.reading import evaluating
from wenlu.tokenization.tokenizer import Tokenizer
from wenlu.training.checkpoint import Progress
from wenlu.training.pacing import Pacing
from wenlu.training.run_folder import RunFolder
from wenlu.training.setup import Setup, eager

TOLD = 30.0
"""Seconds between lines where there is no terminal for a bar, such as in a log."""


class Watch:
    """A progress bar (loss, held-out loss, tokens/s, time left) over the steps of a run."""

    def __init__(self, setup: Setup, folder: RunFolder, state: Progress, pacing: Pacing):
        self._setup, self._folder, self._state, self._pacing = setup, folder, state, pacing
        self._bar = progress("training", left=lambda: self._pacing.left())
        self._recent: deque[tuple[float, int]] = deque([(time.monotonic(), state.tokens)], maxlen=50)
        self._loss, self._shown = 0.0, 0
        self._told = time.monotonic()
        self._rate_from = (state.seconds, state.tokens)

    def __enter__(self) -> Watch:
        self._bar.start()
        self._task = self._bar.add_task("", total=self._pacing.steps, completed=self._state.step, note="")
        return self

    def turned(self) -> None:
        """The number of steps was planned anew."""
        self._bar.update(self._task, total=self._pacing.steps)

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def advance(self, loss: float, count: int) -> None:
        """One step is done; `loss` is in nats per token."""
        self._shown += 1
        weight = max(0.05, 1 / self._shown)  # the plain mean at first, so that a short run does not show its beginning
        self._loss += weight * (loss - self._loss)
        self._recent.append((time.monotonic(), self._state.tokens))
        (began, before), (now, tokens) = self._recent[0], self._recent[-1]
        speed = (tokens - before) / max(1e-9, now - began)
        held_out = f" · held-out {self._state.held_out:.3f}" if self._state.held_out is not None else ""
        note = f"loss {self._loss:.3f}{held_out} · {_short(speed)} tokens/s"
        self._bar.update(self._task, completed=self._state.step, note=note)
        if not console.is_terminal and now - self._told >= TOLD:
            self._told = now
            say(f"step {self._state.step:,} of {self._pacing.steps:,} · {note}")

    def row(self, scale: float, norm: float) -> dict[str, Any]:
        """A row of metrics: figures of all steps since the last row."""
        state = self._state
        (seconds, tokens), self._rate_from = self._rate_from, (state.seconds, state.tokens)
        return {
            "step": state.step,
            "loss": state.loss_sum / state.loss_count,
            "lr_factor": scale,
            "grad_norm": norm,
            "tokens": state.tokens,
            "tokens_per_second": round((state.tokens - tokens) / max(1e-9, state.seconds - seconds)),
            "seconds": round(state.seconds, 4),
            "order": state.order,
        }

    def held_out_row(self, figures: dict[str, Any], sample: str) -> dict[str, Any]:
        """A row of metrics: what an evaluation found."""
        return {"step": self._state.step, **figures, "sample": sample}

    def sample(self, model: nn.Module, tokenizer: Tokenizer) -> str:
        """What the model writes from the beginning of a document, the same random draws at every evaluation.

        Empty where the family cannot write.
        """
        tokens = self._setup.recipe.training.sample_tokens
        if not tokens or not self._setup.objective.writes:
            return ""
        torch.set_deterministic_debug_mode("default")
        try:
            with evaluating(model), eager(model):
                return Generator(model, tokenizer).generate("", Settings(max_tokens=tokens, temperature=0.8))[0].text
        except UserError:
            return ""
        finally:
            torch.set_deterministic_debug_mode("error")


def _short(speed: float) -> str:
    """A number that leaves room for the rest of a line of eighty columns."""
    return f"{speed:.0f}" if speed < 1000 else f"{speed / 1000:.3g}k"
