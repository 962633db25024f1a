"""Random numbers that are functions of a key, whole arrays at once: no generator whose history could matter."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Int64, UInt64

HELD_OUT = -1
"""The epoch of what is held out: every evaluation meets the same."""
_STEP = np.uint64(0x9E3779B97F4A7C15)


def keys(
    seed: int, samples: Int64[np.ndarray, " batch"], epochs: Int64[np.ndarray, " batch"]
) -> UInt64[np.ndarray, " batch"]:
    """A key for each reading of a sample: a function of seed, sample number and epoch, whatever batch it lies in."""
    start = np.uint64(int.from_bytes(hashlib.sha256(f"{seed}".encode()).digest()[:8], "little"))
    return _mix(_mix(start + samples.astype(np.uint64) * _STEP) + epochs.astype(np.uint64) * _STEP)


def draws(keys: UInt64[np.ndarray, "*shape"], places: Int64[np.ndarray, "*others"], stream: int) -> np.ndarray:
    """A number in [0, 1) for every place of every key, broadcast; another `stream` of the same keys is independent.

    Those that SplitMix64 gives one after another when started at each key (Steele, Lea & Flood 2014).
    """
    states = _mix(keys + np.uint64(stream + 1)) + (places.astype(np.uint64) + np.uint64(1)) * _STEP
    return (_mix(states) >> np.uint64(11)) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
