"""The LSTM against the form that introductions print: same size, time to equal held-out loss.

Clock and score: see contest.py. The peer (article_form.py) trains two epochs of tinyshakespeare's characters. Ours: the
smallest budget on the grid whose median loss over the seeds reaches the peer's median.

    python benchmarks/lstm.py [--data ../shared/data] [--seeds 3]
"""

import argparse
import tempfile
from pathlib import Path

import record
from article_form import CONTEXT, LanguageModel
from contest import CORPORA, HERE, Contest, Peer, alternate, read

RECIPE = HERE / "lstm.toml"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=record.data_folder())
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = read(options.data / CORPORA["tinyshakespeare"])
        sides = Contest(text, Path(folder), Peer("article_form.py", LanguageModel, CONTEXT))
        result = alternate(sides, RECIPE, options.seeds)
    record.keep("lstm", {**result, "recipe": RECIPE.read_text()})


if __name__ == "__main__":
    main()
