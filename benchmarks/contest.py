"""A contest between wenlu and a peer on one character corpus: the same text, clock and score for both.

Clock: start of the process to final weights on the disk, imports, tokenizer and compilation included, scoring excluded.
Score: nats per character over the whole validation part (the last 10 %), each character once, in non-overlapping
windows.
"""

import lzma
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from wenlu.hub.folder import load

from nanogpt_form import encode

HERE = Path(__file__).parent
GRID = [5 * 1.25**k for k in range(-3, 16)]
"""Budgets in seconds."""
CORPORA = {
    "tinyshakespeare": "english/tinyshakespeare.txt",
    "Middlemarch": "english/Eliot_Middlemarch.txt.xz",
    "红楼梦": "chinese/红楼梦.txt.xz",
}


def read(path: Path) -> str:
    """The text of a corpus, with line ends as LF."""
    raw = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    return raw.decode("utf-8-sig").replace("\r\n", "\n")


def timed(command: list[str], result: Path) -> float:
    """Seconds from the start of the process until `result` was written for the last time."""
    began = time.time()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return result.stat().st_mtime - began


@dataclass(frozen=True)
class Peer:
    """The other side: a script TRAIN VOCABULARY OUT --seed S, its model, and the context it was trained on."""

    script: str
    model: Callable[[int], torch.nn.Module]
    context: int


class Contest:
    """One corpus: its parts on the disk, both sides' runs, their scores."""

    def __init__(self, text: str, folder: Path, peer: Peer):
        self.folder, self._peer = folder, peer
        cut = int(0.9 * len(text))
        self.train, self.held_out = text[:cut], text[cut:]
        self.vocabulary = "".join(sorted(set(text)))
        self.files = {}
        parts = {"train": self.train, "held_out": self.held_out, "vocabulary": self.vocabulary}
        for name, part in parts.items():
            self.files[name] = folder / f"{name}.txt"
            self.files[name].write_text(part, encoding="utf-8", newline="")

    def peer(self, seed: int) -> dict:
        """One run of the peer, scored."""
        out = self.folder / "peer.safetensors"
        command = [str(HERE / self._peer.script), str(self.files["train"]), str(self.files["vocabulary"]), str(out)]
        seconds = timed([*command, "--seed", str(seed)], out)
        model = self._peer.model(len(self.vocabulary)).eval()
        model.load_state_dict(load_file(out))
        ids = torch.from_numpy(encode(self.train[-1] + self.held_out, self.vocabulary).astype("int64"))
        loss = score(model, ids, len(self.held_out), self._peer.context)
        return {"seconds": seconds, "loss": loss, "loss_64": score(model, ids, len(self.held_out), 64), "seed": seed}

    def ours(self, recipe: Path, steps: int, seed: int) -> dict:
        """One run of ours, scored at its own context and at 64."""
        run = self.folder / f"run-{time.monotonic_ns()}"
        command = ["-m", "wenlu.cli.main", "train", str(recipe), "--out", str(run), "--steps", str(steps)]
        command += ["--seed", str(seed), "--data.paths", str(self.files["train"])]
        seconds = timed(command, run / "model.safetensors")
        model, tokenizer = load(run)
        ids = torch.tensor(tokenizer.encode(self.train[-1] + self.held_out))
        scores = [score(model, ids, len(self.held_out), c) for c in (model.config.context, 64)]
        return {"seconds": seconds, "loss": scores[0], "loss_64": scores[1], "seed": seed, "steps": steps}

    def pace(self, recipe: Path) -> "Pace":
        """The pace on this machine now, from the medians of short runs that are thrown away."""
        few, many = 20, 220
        first = statistics.median(self.ours(recipe, few, 999)["seconds"] for _ in range(3))
        second = statistics.median(self.ours(recipe, many, 999)["seconds"] for _ in range(3))
        step = (second - first) / (many - few)
        return Pace(first - few * step, step)

    def within(self, recipe: Path, budget: float, pace: "Pace", seed: int) -> dict:
        """One run of ours planned to end within `budget` seconds; the pace learns from how long it took."""
        run = {"budget": budget, **self.ours(recipe, pace.steps(budget), seed)}
        pace.learn(run["seconds"], run["steps"])
        return run


@dataclass
class Pace:
    """Seconds before the first step, and of one step: what a run of so many seconds is planned by."""

    start: float
    step: float
    before: float = 0.0
    """Seconds of a step in the run before the last."""

    def steps(self, budget: float) -> int:
        """As many steps as fit into 97.5 % of a budget at the slower of the last two paces: the machine is noisy."""
        return max(1, math.floor((0.975 * budget - self.start) / max(self.step, self.before)))

    def learn(self, seconds: float, steps: int) -> None:
        self.before, self.step = self.step, max(1e-4, (seconds - self.start) / steps)


def smallest(runs: dict[float, list[dict]], goal: float) -> float | None:
    """The smallest budget whose median loss reaches `goal` in a median time within it."""
    for budget, tried in sorted(runs.items()):
        loss, seconds = (statistics.median(run[key] for run in tried) for key in ("loss", "seconds"))
        slowest = max(run["seconds"] for run in tried)
        print(f"  budget {budget:.2f} s: {loss:.4f} in {seconds:.2f} s (slowest {slowest:.2f})", flush=True)
        if loss <= goal and seconds <= budget:
            return budget
    return None


def alternate(
    sides: Contest, recipe: Path, seeds: int, tried_at_once: int = 4, also: Callable[[int, dict], None] | None = None
) -> dict:
    """Peer and ours by turns, seed by seed, at the first budgets of the grid; then larger ones until the loss is met.

    `also(seed, peer)` runs at the end of each seed's turn.
    """
    pace = sides.pace(recipe)
    print(f"  ours: {pace.start:.2f} s before the first step, {1e3 * pace.step:.2f} ms a step", flush=True)
    first_pace = vars(pace).copy()
    grid = [budget for budget in GRID if budget > pace.start + 20 * pace.step]
    peer, runs = [], {budget: [] for budget in grid[:tried_at_once]}
    for seed in range(seeds):
        peer.append(sides.peer(seed))
        for budget in runs:
            runs[budget].append(sides.within(recipe, budget, pace, seed))
        if also:
            also(seed, peer[-1])
        print(f"  seed {seed}: peer {peer[-1]['loss']:.4f} in {peer[-1]['seconds']:.1f} s", flush=True)
    goal, peer_seconds = (statistics.median(run[key] for run in peer) for key in ("loss", "seconds"))
    print(f"  peer {goal:.4f} nats/char in {peer_seconds:.1f} s (median of {seeds})", flush=True)
    reached = smallest(runs, goal)
    for budget in grid[tried_at_once:]:
        if reached or budget > peer_seconds:
            break
        runs[budget] = [sides.within(recipe, budget, pace, seed) for seed in range(seeds)]
        reached = smallest({budget: runs[budget]}, goal)
    ratio = peer_seconds / reached if reached else None
    print(f"  reached in {reached} s, ratio {ratio}", flush=True)
    return {
        "peer": peer,
        "peer_loss": goal,
        "peer_loss_64": statistics.median(run["loss_64"] for run in peer),
        "peer_seconds": peer_seconds,
        "pace": first_pace,
        "budgets": [{"budget": budget, "runs": tried, **_medians(tried)} for budget, tried in runs.items()],
        "reached_budget": reached,
        "ratio": ratio,
    }


def _medians(runs: list[dict]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in ("loss", "loss_64", "seconds")}


@torch.no_grad()
def score(model: torch.nn.Module, ids: torch.Tensor, characters: int, context: int) -> float:
    """Nats per character: every id after the first is predicted once, in non-overlapping windows of `context`."""
    nats, batch = 0.0, 32
    inputs, targets = ids[:-1], ids[1:]
    whole = len(targets) // context * context
    pieces = [(inputs[:whole].view(-1, context), targets[:whole].view(-1, context))]
    pieces += [(inputs[whole:][None], targets[whole:][None])] if whole < len(targets) else []
    for x, y in pieces:
        for a, b in zip(x.split(batch), y.split(batch), strict=True):
            nats += float(F.cross_entropy(model(a).flatten(0, 1), b.flatten(), reduction="sum"))
    return nats / characters
