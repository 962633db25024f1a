"""The LSTM against the form that introductions print: same size, time to equal held-out loss.

Clock and score: see contest.py. The peer (article_form.py) trains two epochs of tinyshakespeare's characters. Ours: the
smallest budget on the grid whose median loss over the seeds reaches the peer's median.

    python benchmarks/lstm.py [--data ../shared/data] [--seeds 3]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import record
from article_form import CONTEXT, LanguageModel
from contest import CORPORA, HERE, Contest, Peer, read

RECIPE = HERE / "lstm.toml"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=record.data_folder())
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = read(options.data / CORPORA["tinyshakespeare"])
        sides = Contest(text, Path(folder), Peer("article_form.py", LanguageModel, CONTEXT))
        peer = [sides.peer(seed) for seed in range(options.seeds)]
        goal, peer_seconds = (statistics.median(run[key] for run in peer) for key in ("loss", "seconds"))
        print(f"peer {goal:.4f} nats/char in {peer_seconds:.1f} s (median of {options.seeds})", flush=True)
        pace = sides.pace(RECIPE)
        print(f"  ours: {pace[0]:.2f} s before the first step, {1e3 * pace[1]:.2f} ms a step", flush=True)
        reached, tried = sides.smallest_budget(RECIPE, pace, goal, peer_seconds, options.seeds)
    ratio = peer_seconds / reached if reached else None
    print(f"  reached in {reached} s, ratio {ratio}", flush=True)
    result = {"peer": peer, "peer_loss": goal, "peer_seconds": peer_seconds, "start_and_step_seconds": pace}
    result |= {"budgets": tried, "reached_budget": reached, "ratio": ratio, "recipe": RECIPE.read_text()}
    record.keep("lstm", result)


if __name__ == "__main__":
    main()
