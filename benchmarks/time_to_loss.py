"""How long until a character model is as good as nanoGPT's processor recipe makes it, and how good in the same time.

Clock and score: see contest.py. Ours: the smallest budget on the grid 5 · 1.25ᵏ s whose median loss over the seeds
reaches the peer's own median; every run is planned for its budget (steps = time left after the start, over the time of
a step, both measured beforehand in short runs that are thrown away) and counts only if it ended within it. A second
column scores both in windows of 64. No choice looks at validation text: settings were chosen on the last ninth of
tinyshakespeare's training part; the novels get the same ones.

    python benchmarks/time_to_loss.py [--data ../shared/data] [--corpus tinyshakespeare] [--seeds 5]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import record
from contest import CORPORA, HERE, Contest, Peer, read, steps_for
from nanogpt_form import CONTEXT, NanoGPT

RECIPE = HERE / "time_to_loss.toml"
LONG_RECIPE = HERE / "time_to_loss_long.toml"


def contest(name: str, path: Path, seeds: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        sides = Contest(read(path), Path(folder), Peer("nanogpt_form.py", NanoGPT, CONTEXT))
        peer = [sides.peer(seed) for seed in range(seeds)]
        goal, peer_seconds = (statistics.median(run[key] for run in peer) for key in ("loss", "seconds"))
        print(f"{name}: peer {goal:.4f} nats/char in {peer_seconds:.1f} s (median of {seeds})", flush=True)
        pace = sides.pace(RECIPE)
        print(f"  ours: {pace[0]:.2f} s before the first step, {1e3 * pace[1]:.2f} ms a step", flush=True)
        reached, tried = sides.smallest_budget(RECIPE, pace, goal, peer_seconds, seeds)
        long_pace = sides.pace(LONG_RECIPE)
        steps = steps_for(peer_seconds, long_pace)
        long = [sides.ours(LONG_RECIPE, steps, seed) for seed in range(3 if seeds > 3 else 1)]
        in_peers_time = statistics.median(run["loss"] for run in long)
        print(f"  in the peer's time: {in_peers_time:.4f}, {max(r['seconds'] for r in long):.1f} s", flush=True)
    if reached:
        print(f"  reached in {reached:.2f} s: {peer_seconds / reached:.1f} times faster", flush=True)
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
    parser.add_argument("--novel-seeds", type=int, default=3)
    options = parser.parse_args()
    recipes = {p.name: p.read_text() for p in (RECIPE, LONG_RECIPE)}
    results = []
    for name in options.corpus or CORPORA:
        seeds = options.seeds if name == "tinyshakespeare" else options.novel_seeds
        results.append(contest(name, options.data / CORPORA[name], seeds))
        record.keep("time_to_loss", {"results": results, "recipes": recipes})


if __name__ == "__main__":
    main()
