"""Which sample at which step: a pure function of seed, step and the data's fingerprint."""

import hashlib
from functools import lru_cache

import numpy as np

from wenlu.base.errors import UserError


class Order:
    """The windows of a token stream, every one read once an epoch, in an order of its own for every epoch.

    An epoch begins at an offset below `seq`, so that windows are cut elsewhere each time. A window at `start` stands
    for `seq + 1` tokens: inputs and, one further on, targets. Batches run over the border between epochs.
    """

    def __init__(self, tokens: int, seq: int, batch: int, seed: int, fingerprint: str):
        if tokens <= 2 * seq:
            raise UserError(
                f"{tokens:,} training tokens are too few for windows of {seq:,}: give more text, or set "
                f"--model.context to {max(1, (tokens - 1) // 2)} or less"
            )
        self.tokens, self.seq, self.batch = tokens, seq, batch
        self.samples = (tokens - seq) // seq
        """Windows in an epoch, whatever its offset."""
        self._key = (seed, fingerprint)
        self._epoch = lru_cache(maxsize=2)(self._starts)

    @property
    def batches(self) -> float:
        """Steps in an epoch."""
        return self.samples / self.batch

    def epochs_at(self, step: int) -> np.ndarray:
        """The epoch in which each sample of a step lies, int64 [batch]."""
        return (step * self.batch + np.arange(self.batch)) // self.samples

    def batch_at(self, step: int) -> np.ndarray:
        """Starts of the windows of the global batch of `step`, int64 [batch]."""
        first = step * self.batch
        parts, taken = [], 0
        while taken < self.batch:
            epoch, place = divmod(first + taken, self.samples)
            part = self._epoch(epoch)[place : place + self.batch - taken]
            parts.append(part)
            taken += len(part)
        return np.concatenate(parts)

    def _starts(self, epoch: int) -> np.ndarray:
        seed, fingerprint = self._key
        digest = hashlib.sha256(f"{seed} {epoch} {fingerprint}".encode()).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
        offset = int(generator.integers(self.seq))
        return offset + self.seq * generator.permutation(self.samples)
