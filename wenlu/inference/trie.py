"""Texts that begin alike, read as one tree: every beginning that they share is read once, where it is worth it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from wenlu.inference.likelihood import likeliest, log_likelihoods
from wenlu.inference.sample import finite
from wenlu.models.cache import LSTMState
from wenlu.models.size import WHOLE_LOGITS

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

AT_ONCE = 512
"""Tokens of a tree read at once on a processor, where products of so many rows are at their best; half as many by
narrow models, whose attention costs more than their products; more on a GPU."""
NARROW = 512
AT_ONCE_GPU = 4096
LONG = 8
"""How many times as long as what stands before it a run of tokens is that is read in a row of its own."""
ROWS = 64
"""Edges that an LSTM reads side by side."""

Done = Callable[[int], None]
"""Told how many tokens more have been read."""


@dataclass(frozen=True)
class Trie:
    """A tree of tokens in depth-first order: a node is a token after all those on its way from the root."""

    ids: Int[np.ndarray, " nodes"]
    parents: Int[np.ndarray, " nodes"]
    """Numbers of nodes; -1 for the first token of a text."""
    wanted: Bool[np.ndarray, " nodes"]
    """Whether its probability is asked for, by any text."""
    nodes: tuple[Int[np.ndarray, " _"], ...]
    """Of each text, in the order given, its tokens that are asked for."""

    @classmethod
    def of(cls, texts: Sequence[tuple[Sequence[int] | np.ndarray, int]]) -> Trie:
        """The tree of texts (ids, how many of the first of them are not asked for)."""
        arrays = [np.asarray(ids, np.int64) for ids, _ in texts]
        order = sorted(range(len(arrays)), key=lambda number: arrays[number].astype(">u4").tobytes())
        parts, parents, nodes = [], [], [np.empty(0, np.int64)] * len(arrays)
        count, path, before = 0, np.empty(0, np.int64), np.empty(0, np.int64)
        for number in order:
            ids = arrays[number]
            shared = _shared(before, ids)
            new = len(ids) - shared
            own = np.arange(count, count + new)
            path = np.concatenate([path[:shared], own])
            parts.append(ids[shared:])
            parents.append(np.concatenate([path[shared - 1 : shared] if shared else [-1], own[:-1]])[:new])
            nodes[number] = path[texts[number][1] :]
            count, before = count + new, ids
        wanted = np.zeros(count, bool)
        for asked in nodes:
            wanted[asked] = True
        return cls(np.concatenate(parts), np.concatenate(parents).astype(np.int64), wanted, tuple(nodes))

    @cached_property
    def read(self) -> Int[np.ndarray, " read"]:
        """The nodes that must be read: those that another follows. Of a last token only the probability is needed."""
        return np.unique(self.parents[self.parents >= 0])

    def asked(self) -> tuple[Int[np.ndarray, " asked"], Int[np.ndarray, " asked"]]:
        """The nodes that are asked for in the order of their parents, and these."""
        nodes = np.flatnonzero(self.wanted)
        order = np.argsort(self.parents[nodes], kind="stable")
        return nodes[order], self.parents[nodes[order]]


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens two texts begin with alike."""
    most = min(len(one), len(other))
    differ = np.flatnonzero(one[:most] != other[:most])
    return int(differ[0]) if len(differ) else most


def log_probabilities(
    model: nn.Module, trie: Trie, vocab: int | None = None, done: Done | None = None
) -> tuple[Float[np.ndarray, " nodes"], Bool[np.ndarray, " nodes"]]:
    """Of every node that is asked for: its log-probability in nats (others 0), and whether it is the likeliest there.

    Of models that read from left to right, without an encoder. Raises UserError where logits are not finite.
    """
    values, best = np.zeros(len(trie.ids)), np.zeros(len(trie.ids), bool)
    asked, after = trie.asked()
    reading = _levels if model.config.family == "lstm" else _rows_and_chunks
    for nodes, hidden in reading(model, trie):
        # Nodes of a chunk, or of a level's edges, stand in rising order; only parents of what is asked for have logits.
        places = np.searchsorted(after, nodes, side="left"), np.searchsorted(after, nodes, side="right")
        (rows,) = np.nonzero(places[1] > places[0])
        first, counts = places[0][rows], (places[1] - places[0])[rows]
        inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        targets = asked[np.repeat(first, counts) + inside]
        values[targets], best[targets] = _of_targets(model, hidden, rows, counts, trie.ids[targets], vocab)
        if done:
            done(len(nodes))
    return values, best


def _of_targets(
    model: nn.Module, hidden: Tensor, rows: np.ndarray, counts: np.ndarray, targets: np.ndarray, vocab: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of `targets`, `counts` of them after each of these rows of states, and which are best."""
    values, best, first, most = [], [], 0, max(1, WHOLE_LOGITS // model.config.vocab)
    for start in range(0, len(rows), most):
        part = torch.from_numpy(rows[start : start + most]).to(hidden.device)
        logits = model.head(hidden[part])[:, :vocab]
        of_part = counts[start : start + most]
        wanted = torch.from_numpy(targets[first : first + of_part.sum()]).to(hidden.device)
        row = torch.from_numpy(np.repeat(np.arange(len(of_part)), of_part)).to(hidden.device)
        values.append(finite(log_likelihoods(logits, wanted, row)).cpu().numpy())
        best.append(likeliest(logits, wanted, row).cpu().numpy())
        first += int(of_part.sum())
    return np.concatenate(values or [np.empty(0)]), np.concatenate(best or [np.empty(0, bool)])


def _rows_and_chunks(model: nn.Module, trie: Trie) -> Iterator[tuple[np.ndarray, Tensor]]:
    """The nodes that must be read, so many at once, and the last layer's states of them, [nodes, dim].

    A run that nothing follows and that is long beside what stands before it is read with that in a row of its own:
    among the nodes of a tree, most others would have to be hidden from it.
    """
    on_gpu = next(model.parameters()).device.type != "cpu"
    most = AT_ONCE_GPU if on_gpu else AT_ONCE
    before, alone, rest = {-1: 0}, [], []
    edges = _edges(trie.parents, trie.read)
    forks = {int(trie.parents[edge[0]]) for edge in edges}
    for edge in edges:
        way = before[int(trie.parents[edge[0]])]
        before[int(edge[-1])] = way + len(edge)
        apart = int(edge[-1]) not in forks and LONG * way <= len(edge) <= most - way
        (alone if apart else rest).append(edge)
    yield from _rows(model, trie, alone, most)
    if rest:
        size = most if on_gpu or model.config.dim >= NARROW else -(-most // 2)
        yield from _chunks(model, trie, np.concatenate(rest), size)


def _rows(model: nn.Module, trie: Trie, edges: list[np.ndarray], most: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Edges that nothing follows with the ways to them, those of like length side by side, `most` tokens at once."""
    device, start = next(model.parameters()).device, 0
    ways = [_way(trie.parents, int(edge[0])) for edge in edges]
    texts = sorted(zip(ways, edges, strict=True), key=lambda text: len(text[0]) + len(text[1]))
    while start < len(texts):
        end, longest = start, 0
        while end < len(texts) and (end + 1 - start) * (length := sum(map(len, texts[end]))) <= most:
            end, longest = end + 1, length
        nodes, own = np.zeros((end - start, longest), np.int64), np.zeros((end - start, longest), bool)
        for row, (way, edge) in enumerate(texts[start:end]):
            nodes[row, : len(way)], nodes[row, len(way) : len(way) + len(edge)] = way, edge
            own[row, len(way) : len(way) + len(edge)] = True
        hidden = model.hidden(torch.from_numpy(trie.ids[nodes]).to(device))
        order = np.argsort(nodes[own])
        yield nodes[own][order], hidden.flatten(0, 1)[torch.from_numpy(np.flatnonzero(own)[order]).to(device)]
        start = end


def _chunks(model: nn.Module, trie: Trie, read: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Nodes of the tree with all on the ways to them, `size` at once.

    What is remembered is the way from the root to the parent of the next node: in depth-first order, every node that
    comes later follows either one on this way or one that comes later too.
    """
    device = next(model.parameters()).device
    column = np.full(len(trie.ids) + 1, -1, np.int64)  # of nodes that are remembered; the last: of no node at all
    cache = model.new_cache(1, min(size, len(read)))
    for start in range(0, len(read), size):
        nodes = read[start : start + size]
        if start:
            way = _way(trie.parents, int(nodes[0]))
            cache.keep_path(column[way])
            column[way] = np.arange(len(way))
        before = cache.length
        column[nodes] = before + np.arange(len(nodes))
        with cache.branching(column[trie.parents[nodes]]):
            hidden = model.hidden(torch.from_numpy(trie.ids[nodes])[None].to(device), cache=cache)
        yield nodes, hidden[0]


def _way(parents: np.ndarray, node: int) -> np.ndarray:
    """The nodes before one on its way from the root."""
    way = []
    while (node := int(parents[node])) >= 0:
        way.append(node)
    return np.array(way[::-1], np.int64)


def _levels(model: nn.Module, trie: Trie) -> Iterator[tuple[np.ndarray, Tensor]]:
    """The same for a model whose memory is a state: edges of the tree that begin equally many forks below the root are
    read side by side, each from its fork's state."""
    states: dict[int, Tensor] = {}
    levels: list[list[np.ndarray]] = []
    depth = {-1: 0}
    for edge in _edges(trie.parents, trie.read):
        at = depth[int(trie.parents[edge[0]])]
        depth[int(edge[-1])] = at + 1
        if at == len(levels):
            levels.append([])
        levels[at].append(edge)
    for level in levels:
        level.sort(key=len)
        for start in range(0, len(level), ROWS):
            yield from _side_by_side(model, trie, level[start : start + ROWS], states)


def _side_by_side(
    model: nn.Module, trie: Trie, edges: list[np.ndarray], states: dict[int, Tensor]
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Edges, the shortest first: all are read as far as that one goes, then the others on; adds their last states."""
    device, state, at = next(model.parameters()).device, LSTMState(), 0
    if (begin := [int(trie.parents[edge[0]]) for edge in edges])[0] >= 0:
        known = torch.stack([states[node] for node in begin], 2)
        state = LSTMState(list(known[0]), list(known[1]), 1)
    while edges:
        end = min(len(edges[0]), at + max(1, AT_ONCE // len(edges)))
        nodes = np.stack([edge[at:end] for edge in edges])
        hidden = model.hidden(torch.from_numpy(trie.ids[nodes]).to(device), cache=state)
        order = np.argsort(nodes.ravel())
        yield nodes.ravel()[order], hidden.flatten(0, 1)[torch.from_numpy(order).to(device)]
        ended, at = sum(len(edge) == end for edge in edges), end
        if ended:
            after = torch.stack((torch.stack(state.hidden), torch.stack(state.cell)))[:, :, :ended]
            states |= {int(edge[-1]): after[:, :, row] for row, edge in enumerate(edges[:ended])}
            state.keep(range(ended, len(edges)))
            edges = edges[ended:]


def _edges(parents: np.ndarray, read: np.ndarray) -> list[np.ndarray]:
    """The nodes that must be read as runs without a fork, in their order."""
    followers = np.bincount(parents[read] + 1, minlength=len(parents) + 1)
    begins = (parents[read] != read - 1) | (followers[parents[read] + 1] > 1) | (read == 0)
    return np.split(read, np.flatnonzero(begins)[1:]) if len(read) else []
