"""The dial against nanoGPT's recipe for a processor, given the same minutes: bits per byte of held-out text.

One English and one Chinese novel, on neither of which anything was tuned: Middlemarch and 红楼梦. Each is split as
`wenlu train` splits it; both sides get the training part, and are scored on the held-out part in windows of their own
training context, every byte once. Ours: `wenlu train TEXT --minutes M`, nothing else stated. The peer: nanogpt_form.py
with its own settings (characters), its steps scaled to the time by its pace on this machine beforehand, cosine decay
over them. Both run at the same time, each on a processor core of its own with one thread, so that no change of the
machine favours one of them. Every pair of runs is kept as it ends; the script goes on where it was stopped.

    python benchmarks/dial.py [--minutes 1 3 10] [--seeds 3] [--data ../shared/data]
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from wenlu.base.device import machine
from wenlu.data.shards import open_data
from wenlu.training.plan import CONTEXTS

import record
from contest import HERE, read, score
from nanogpt_form import CONTEXT, NanoGPT, encode

CORPORA = {"Middlemarch": "english/Eliot_Middlemarch.txt.xz", "红楼梦": "chinese/红楼梦.txt.xz"}


def start(command: list[str], core: int) -> subprocess.Popen:
    """A Python process on one core, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def finish(process: subprocess.Popen) -> str:
    said, complaint = process.communicate()
    if process.returncode:
        raise RuntimeError(complaint[-2000:])
    return said


class Pair:
    """One novel, and one run of either side at the same time."""

    def __init__(self, source: Path, folder: Path):
        self.folder, self.text = folder, folder / "text.txt"
        self.text.write_text(read(source), encoding="utf-8", newline="")
        self.split: tuple[str, str] | None = None

    def parts(self, run: Path) -> tuple[str, str]:
        """Training and held-out text, as a run of ours has split them."""
        data = open_data(run / "wenlu" / "data")
        return tuple("".join(store.documents(data.tokenizer)) for store in (data.train, data.validation))

    def prepare(self) -> None:
        """The split, by a run of one step; the peer's vocabulary covers both parts."""
        run = self.folder / "split"
        command = ["-m", "wenlu.cli.main", "train", str(self.text), "--out", str(run), "--steps", "1"]
        command += ["--model.context", str(max(CONTEXTS))]  # as wide a gap before the held-out text as a plan leaves
        finish(start([*command, "--training.eval-every", "0"], 0))
        train, held_out = self.split = self.parts(run)
        self.vocabulary = "".join(sorted(set(train + held_out)))
        for name, part in {"train": train, "vocabulary": self.vocabulary}.items():
            (self.folder / f"{name}.txt").write_text(part, encoding="utf-8", newline="")

    def peer(self, steps: int, seed: int, out: Path) -> list[str]:
        files = [str(self.folder / f"{name}.txt") for name in ("train", "vocabulary")]
        return [str(HERE / "nanogpt_form.py"), *files, str(out), "--steps", str(steps), "--seed", str(seed)]

    def ours(self, minutes: float, seed: int, out: Path) -> list[str]:
        command = ["-m", "wenlu.cli.main", "train", str(self.text), "--out", str(out), "--minutes", str(minutes)]
        return [*command, "--seed", str(seed), "--training.threads", "1"]

    def pace(self) -> tuple[float, float]:
        """Seconds before the peer's first step, and of a step, while the other core is as busy as later."""
        taken = []
        for steps in (20, 320):
            other = start(self.peer(100_000, 1, self.folder / "busy.safetensors"), 1)
            began = time.monotonic()
            finish(start(self.peer(steps, 0, self.folder / "pace.safetensors"), 0))
            taken.append(time.monotonic() - began)
            other.kill()
            other.wait()
        step = (taken[1] - taken[0]) / 300
        return taken[0] - 20 * step, step

    def run(self, minutes: float, seed: int, pace: tuple[float, float]) -> dict:
        """Both sides at once, each scored on the same held-out bytes."""
        steps = max(200, math.floor((0.985 * 60 * minutes - pace[0]) / pace[1]))
        run, weights = self.folder / f"run-{minutes}-{seed}", self.folder / "peer.safetensors"
        began = time.monotonic()
        sides = {"ours": start(self.ours(minutes, seed, run), 1), "peer": start(self.peer(steps, seed, weights), 0)}
        seconds = {}
        while len(seconds) < 2:
            time.sleep(0.05)
            for name, process in sides.items():
                if name not in seconds and process.poll() is not None:
                    seconds[name] = round(time.monotonic() - began, 2)
        said = {name: finish(process) for name, process in sides.items()}
        assert self.parts(run) == self.split, "both sides have the same text"
        return {
            "minutes": minutes,
            "seed": seed,
            "ours": {"seconds": seconds["ours"], **self.score_ours(run), "said": said["ours"][-300:]},
            "peer": {"seconds": seconds["peer"], "steps": steps, "bits": self.score_peer(weights)},
        }

    def score_peer(self, weights: Path) -> float:
        train, held_out = self.split
        model = NanoGPT(len(self.vocabulary)).eval()
        model.load_state_dict(load_file(weights))
        ids = torch.from_numpy(encode(train[-1] + held_out, self.vocabulary).astype("int64"))
        nats = score(model, ids, 1, CONTEXT)
        return nats / len(held_out.encode()) / math.log(2)

    def score_ours(self, run: Path) -> dict:
        command = ["-m", "wenlu.cli.main", "eval", str(run), "--json"]
        found = json.loads(subprocess.run([sys.executable, *command], capture_output=True, text=True).stdout)
        events = [json.loads(line) for line in (run / "wenlu/events.jsonl").read_text().splitlines()]
        plan = next(event for event in events if event["event"] == "plan")
        took = next(event for event in events if event["event"] == "finished")["clock"]
        samples = ["-m", "wenlu.cli.main", "generate", str(run), "--prompt", "", "--max-tokens", "80"]
        return {
            "bits": found["bits_per_byte"]["value"],
            "eval": found,
            "plan": plan,
            "clock": took,
            "turns": [event for event in events if event["event"] == "turn"],
            "sample": subprocess.run([sys.executable, *samples], capture_output=True, text=True).stdout,
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=record.data_folder())
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    kept = record.ROOT / "benchmarks" / "results" / "dial.json"
    before = json.loads(kept.read_text()) if kept.exists() else {"runs": []}
    runs, noted = before["runs"], {name: before[name] for name in ("note",) if name in before}
    processor = machine(torch.device("cpu"))["processor"]
    for name, source in CORPORA.items():
        wanted = [(minutes, seed) for minutes in options.minutes for seed in range(options.seeds)]
        done = {(row["minutes"], row["seed"]) for row in runs if row["corpus"] == name}
        if not set(wanted) - done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            pair = Pair(options.data / source, Path(folder))
            pair.prepare()
            pace = pair.pace()
            print(f"{name}: peer {pace[0]:.1f} s before its first step, {1e3 * pace[1]:.1f} ms a step", flush=True)
            for minutes, seed in wanted:
                if (minutes, seed) in done:
                    continue
                row = {"corpus": name, "processor": processor, "pace": pace, **pair.run(minutes, seed, pace)}
                runs.append(row)
                record.keep("dial", {"runs": runs, **noted})
                ours, peer = row["ours"], row["peer"]
                part = ours["clock"] / 60 / minutes
                print(
                    f"  {minutes:g} min, seed {seed}: ours {ours['bits']:.4f} bits/byte (foretold "
                    f"{ours['plan']['bits_per_byte']:.3f}; {part:.3f} of the time), peer {peer['bits']:.4f} in "
                    f"{peer['seconds']:.1f} s: {100 * (1 - ours['bits'] / peer['bits']):.1f} % fewer",
                    flush=True,
                )
    for name in CORPORA:
        for minutes in sorted({row["minutes"] for row in runs}):
            rows = [row for row in runs if row["corpus"] == name and row["minutes"] == minutes]
            if rows:
                ours, peer = (statistics.median(row[side]["bits"] for row in rows) for side in ("ours", "peer"))
                print(
                    f"{name}, {minutes:g} min, {len(rows)} seeds: {ours:.4f} against {peer:.4f}, {1 - ours / peer:.1%}"
                )


if __name__ == "__main__":
    main()
