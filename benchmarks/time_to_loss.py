"""How long until a character model is as good as nanoGPT's processor recipe makes it, and how good in the same time.

Clock: start of the process to final weights on the disk, both sides, imports, tokenizer and compilation included,
scoring excluded. Ours: the smallest budget on the grid 5 · 1.25ᵏ seconds whose median loss over the seeds reaches the
peer's own median; every run is planned for its budget (steps = time left after the start, over the time of a step, both
measured beforehand in short runs that are thrown away) and counts only if it ended within it. Score: nats per character
over the whole validation part (the last 10 %), each character once, in non-overlapping windows at the model's own
context, and again with windows of 64 for both. No choice looks at validation text: settings were chosen on the last
ninth of tinyshakespeare's training part; the novels get the same ones.

    python benchmarks/time_to_loss.py [--data ../shared/data] [--corpus shakespeare] [--seeds 5]
"""

import argparse
import json
import lzma
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from wenlu.hub.folder import load

import record
from nanogpt_form import CONTEXT, NanoGPT, encode

CORPORA = {
    "shakespeare": "english/tinyshakespeare.txt",
    "middlemarch": "english/Eliot_Middlemarch.txt.xz",
    "红楼梦": "chinese/红楼梦.txt.xz",
}
HERE = Path(__file__).parent
RECIPE = HERE / "time_to_loss.toml"
LONG_RECIPE = HERE / "time_to_loss_long.toml"
GRID = [5 * 1.25**k for k in range(14)]


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


class Contest:
    """One corpus: its parts on the disk, both sides' runs, their scores."""

    def __init__(self, text: str, folder: Path):
        self.folder = folder
        cut = int(0.9 * len(text))
        self.train, self.held_out = text[:cut], text[cut:]
        self.vocabulary = "".join(sorted(set(text)))
        self.files = {}
        parts = {"train": self.train, "held_out": self.held_out, "vocabulary": self.vocabulary}
        for name, part in parts.items():
            self.files[name] = folder / f"{name}.txt"
            self.files[name].write_text(part, encoding="utf-8", newline="")

    def peer(self, seed: int) -> dict:
        out = self.folder / "peer.safetensors"
        command = [str(HERE / "nanogpt_form.py"), str(self.files["train"]), str(self.files["vocabulary"]), str(out)]
        seconds = timed([*command, "--seed", str(seed)], out)
        model = NanoGPT(len(self.vocabulary)).eval()
        model.load_state_dict(load_file(out))
        ids = torch.from_numpy(encode(self.train[-1] + self.held_out, self.vocabulary).astype("int64"))
        loss = score(model, ids, len(self.held_out), CONTEXT)
        return {"seconds": seconds, "loss": loss, "loss_64": loss, "seed": seed}

    def ours(self, recipe: Path, steps: int, seed: int) -> dict:
        run = self.folder / f"run-{time.monotonic_ns()}"
        command = ["-m", "wenlu.cli.main", "train", str(recipe), "--out", str(run), "--steps", str(steps)]
        command += ["--seed", str(seed), "--data.paths", str(self.files["train"])]
        seconds = timed(command, run / "model.safetensors")
        model, tokenizer = load(run)
        ids = torch.tensor(tokenizer.encode(self.train[-1] + self.held_out))
        scores = [score(model.eval(), ids, len(self.held_out), c) for c in (model.config.context, 64)]
        return {"seconds": seconds, "loss": scores[0], "loss_64": scores[1], "seed": seed, "steps": steps}

    def pace(self, recipe: Path) -> tuple[float, float]:
        """Seconds before the first step, and of one step, on this machine now."""
        few, many = 30, 130
        first = min(self.ours(recipe, few, 999)["seconds"] for _ in range(2))
        second = min(self.ours(recipe, many, 999)["seconds"] for _ in range(2))
        step = (second - first) / (many - few)
        return first - few * step, step


@torch.no_grad()
def score(model, ids: torch.Tensor, characters: int, context: int) -> float:
    """Nats per character: every id after the first is predicted once, in non-overlapping windows of `context`."""
    nats, batch = 0.0, 128
    inputs, targets = ids[:-1], ids[1:]
    whole = len(targets) // context
    pieces = [(inputs[: whole * context].view(-1, context), targets[: whole * context].view(-1, context))]
    pieces += [(inputs[whole * context :][None], targets[whole * context :][None])] if len(targets) % context else []
    for x, y in pieces:
        for a, b in zip(x.split(batch), y.split(batch), strict=True):
            nats += float(F.cross_entropy(model(a).flatten(0, 1), b.flatten(), reduction="sum"))
    return nats / characters


def steps_for(budget: float, pace: tuple[float, float]) -> int:
    """As many steps as fit into 96 % of a budget."""
    return max(1, math.floor((0.96 * budget - pace[0]) / pace[1]))


def contest(name: str, path: Path, seeds: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        sides = Contest(read(path), Path(folder))
        peer = [sides.peer(seed) for seed in range(seeds)]
        goal = statistics.median(run["loss"] for run in peer)
        peer_seconds = statistics.median(run["seconds"] for run in peer)
        print(f"{name}: peer {goal:.4f} nats/char in {peer_seconds:.1f} s (median of {seeds})", flush=True)
        pace = sides.pace(RECIPE)
        print(f"  ours: {pace[0]:.2f} s before the first step, {1e3 * pace[1]:.2f} ms a step", flush=True)
        tried, reached = [], None
        for budget in GRID:
            if pace[0] + 20 * pace[1] > budget or budget > peer_seconds:
                continue
            runs = [sides.ours(RECIPE, steps_for(budget, pace), seed) for seed in range(seeds)]
            loss, slowest = statistics.median(r["loss"] for r in runs), max(r["seconds"] for r in runs)
            seconds = statistics.median(r["seconds"] for r in runs)
            tried.append({"budget": budget, "loss": loss, "seconds": seconds, "slowest": slowest, "runs": runs})
            print(f"  budget {budget:.2f} s: {loss:.4f} in {seconds:.2f} s (slowest {slowest:.2f})", flush=True)
            if loss <= goal and seconds <= budget:
                reached = budget
                break
        long_pace = sides.pace(LONG_RECIPE)
        long = [sides.ours(LONG_RECIPE, steps_for(peer_seconds, long_pace), seed) for seed in range(min(seeds, 3))]
        in_peers_time = statistics.median(r["loss"] for r in long)
        print(f"  in the peer's time: {in_peers_time:.4f}, {max(r['seconds'] for r in long):.1f} s", flush=True)
    return {
        "corpus": name,
        "peer": peer,
        "peer_loss": goal,
        "peer_seconds": peer_seconds,
        "start_and_step_seconds": pace,
        "budgets": tried,
        "reached_budget": reached,
        "ratio": peer_seconds / reached if reached else None,
        "in_peers_time": {"loss": in_peers_time, "runs": long},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=record.data_folder())
    parser.add_argument("--corpus", choices=CORPORA, action="append")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    results = [contest(n, options.data / CORPORA[n], options.seeds) for n in options.corpus or CORPORA]
    for result in results:
        print(json.dumps({k: v for k, v in result.items() if k in ("corpus", "peer_loss", "peer_seconds", "ratio")}))
    recipes = {p.name: p.read_text() for p in (RECIPE, LONG_RECIPE)}
    record.keep("time_to_loss", {"results": results, "recipes": recipes})


if __name__ == "__main__":
    main()
