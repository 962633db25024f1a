"""How long until a character model is as good as nanoGPT's processor recipe makes it, and how good in the same time.

Clock and score: see contest.py. Ours: the smallest budget on the grid 5 · 1.25ᵏ s whose median loss over the seeds
reaches the peer's own median in a median time within the budget. Both sides run by turns, seed by seed. Every run of
ours is planned for its budget before it starts (steps = time left after the start, over the time of a step as the last
runs had it). A second column scores both in windows of 64. No choice looks at validation text: settings were chosen on
the last ninth of tinyshakespeare's training part; the novels get the same ones.

    python benchmarks/time_to_loss.py [--data ../shared/data] [--corpus tinyshakespeare] [--seeds 5]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import record
from contest import CORPORA, HERE, Contest, Peer, alternate, read
from nanogpt_form import CONTEXT, NanoGPT

RECIPE = HERE / "time_to_loss.toml"
LONG_RECIPE = HERE / "time_to_loss_long.toml"


def contest(name: str, path: Path, seeds: int, long_seeds: int) -> dict:
    print(name, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        sides = Contest(read(path), Path(folder), Peer("nanogpt_form.py", NanoGPT, CONTEXT))
        long_pace, long = sides.pace(LONG_RECIPE), []

        def in_peers_time(seed: int, peer: dict) -> None:
            if seed < long_seeds:
                long.append(sides.within(LONG_RECIPE, peer["seconds"], long_pace, seed))
                print(f"  in the peer's {peer['seconds']:.1f} s: {long[-1]['loss']:.4f}", flush=True)

        result = alternate(sides, RECIPE, seeds, also=in_peers_time)
    loss = statistics.median(run["loss"] for run in long)
    return {"corpus": name, **result, "in_peers_time": {"loss": loss, "runs": long}}


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
        long_seeds = min(3, seeds) if name == "tinyshakespeare" else 1
        results.append(contest(name, options.data / CORPORA[name], seeds, long_seeds))
        record.keep("time_to_loss", {"results": results, "recipes": recipes})


if __name__ == "__main__":
    main()
