"""How a text is drawn, as numbers: what settings and the flags of commands have in common. It needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Draws:
    """What draws a text, and what ends it; `generator.Settings` says which values there are."""

    max_tokens: int = 200
    """Longest text, in tokens."""
    temperature: float = 0.8
    """0 = greedy: always the most probable token."""
    top_k: int = 0
    """Draw among the k most probable tokens; 0 = all, 1 = greedy."""
    top_p: float = 1.0
    """Draw among the fewest tokens that hold this much probability; 1 = all."""
    min_p: float = 0.0
    """Drop tokens less probable than min_p times the most probable one; 0 = none."""
    seed: int = 0
    """Of the draws; sample k of a seed is the same however many samples are asked for."""
    stop: tuple[str, ...] = ()
    """Texts that end what is written; they are not part of it."""
