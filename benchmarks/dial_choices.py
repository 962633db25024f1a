"""What the dial decides by rule, measured: a start from bigrams, and dropout by how often a text is read.

On novels that the dial is not judged by, the same steps on both sides of each comparison; speed plays no part. Rates
are the dial's own for each kind of start. Every run is kept as it ends; the script goes on where it was stopped.

    python benchmarks/dial_choices.py [--data ../shared/data]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from wenlu.data.shards import open_data
from wenlu.models.build import build
from wenlu.training.bigrams import start_from_bigrams

import record
from dial_fit import CORPORA, prepared, recipe_of, run, shape

NOVELS = ("Bleak House", "水浒传")
EPOCHS = {2: (0.0, 0.1), 4: (0.0, 0.1, 0.2)}
"""Of 水浒传, and the dropouts that are compared there."""


def starts() -> list[tuple[str, dict]]:
    """0.5 million tokens from either start."""
    ours = shape("C", 0.5)
    return [(name, each) for name in NOVELS for each in (ours, ours | {"tied": True, "start": "random"})]


def repeated(tokens: int) -> list[tuple[str, dict]]:
    return [
        ("水浒传", shape("C", epochs * tokens / 1e6, dropout=dropout))
        for epochs, dropouts in EPOCHS.items()
        for dropout in dropouts
    ]


def seconds_to_start(data: Path) -> float:
    """The least of three."""
    opened, taken = open_data(data), []
    config = recipe_of(data, shape("C", 0.5) | {"vocab": opened.tokenizer.vocab}).model
    for _ in range(3):
        model, began = build(config, 0), time.perf_counter()
        start_from_bigrams(model, opened.train, 0)
        taken.append(time.perf_counter() - began)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=record.data_folder())
    options = parser.parse_args()
    kept = record.ROOT / "benchmarks" / "results" / "dial_choices.json"
    rows = json.loads(kept.read_text())["runs"] if kept.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        data = {name: prepared(name, options.data / CORPORA[name], Path(folder)) for name in NOVELS}
        seconds = {name: seconds_to_start(path) for name, path in data.items()}
        print(seconds, flush=True)
        tokens = len(open_data(data["水浒传"]).train)
        for name, wanted in (*starts(), *repeated(tokens)):
            if any(row["corpus"] == name and row["shape"] == wanted for row in rows):
                continue
            rows.append({"corpus": name, "shape": wanted, **run(data[name], wanted)})
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
            record.keep("dial_choices", {"tokens": tokens, "seconds": seconds, "runs": rows})


if __name__ == "__main__":
    main()
