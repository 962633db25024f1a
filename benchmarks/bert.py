"""BERT from scratch on an English and a Chinese novel: how often it names a masked token of held-out text.

`wenlu train NOVEL --model bert --minutes M`: the dial decides all else; whole words are masked, for Chinese word-like
stretches. Beside it a baseline that always names the commonest token of the held-out text, on the same masked tokens,
and the advantage over it; all with 95 % intervals by `wenlu eval`. The novels' own last parts are held out.

    python benchmarks/bert.py [--minutes 10]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import record

NOVELS = {"Middlemarch": "english/Eliot_Middlemarch.txt.xz", "红楼梦": "chinese/红楼梦.txt.xz"}


def wenlu(*arguments: str) -> dict:
    """What a command says in JSON."""
    line = [sys.executable, "-m", "wenlu.cli.main", *arguments, "--json"]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    rows = []
    for name, path in NOVELS.items():
        with tempfile.TemporaryDirectory() as folder:
            run = str(Path(folder) / "run")
            text = str(record.data_folder() / path)
            trained = wenlu("train", text, "--out", run, "--model", "bert", "--minutes", str(options.minutes))
            found = wenlu("eval", run)
            config = json.loads(Path(run, "wenlu", "recipe.json").read_text())
        row = {"corpus": name, "steps": trained["step"], "seconds": trained["seconds"], "model": config["model"]}
        row |= {"batch": config["training"]["batch"]}
        names = ("masked_accuracy", "unigram_accuracy", "advantage", "pseudo_perplexity", "masked_at_once")
        rows.append(row | {key: found[key] for key in names})
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    record.keep("bert", {"minutes": options.minutes, "results": rows})


if __name__ == "__main__":
    main()
