"""Searches for a prompt on a model that was made here: every verdict, over ten seeds.

The model follows short instructions in two languages (`benchmarks/instructions.py`). Baselines are benchmarks/prompts;
they, and the hashes of the examples' test parts in it, were committed before the first search. For each of four tasks
(sentiment and opinion in English, source and verse in Chinese) and each seed one search: 12 candidates, 800 examples,
parted 0.4 / 0.2 / 0.4. The same test part serves all seeds of a task, so that these are ten looks at it.

    python benchmarks/instruction_search.py OUT [--seeds 10]      OUT as instructions.py has made it
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

from wenlu.cli.prompting.inputs import examples_of, read_prompt
from wenlu.hub.folder import load
from wenlu.prompting.backend import FolderBackend
from wenlu.prompting.example_file import Keys
from wenlu.prompting.search.optimize import Optimizer, Search
from wenlu.prompting.search.split import part

import record

PROMPTS = Path(__file__).parent / "prompts"
LABELS = {
    "sentiment": ("good", "bad"),
    "opinion": ("opinion", "fact"),
    "source": ("红楼梦", "水浒传", "西游记"),
    "verse": ("诗", "文"),
}


def examples(out: Path, task: str):
    return examples_of(str(out / "examples" / f"{task}.jsonl"), Keys("answer", labels=LABELS[task]), 800)


def test_hash(of_task) -> str:
    """Of the ids in the test part, which are hashes of what the examples hold."""
    ids = sorted(of_task[number].id for number in part(of_task).test)
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--write-hashes", action="store_true", help="write benchmarks/prompts/tests.json, and search not"
    )
    arguments = parser.parse_args()
    found = {task: test_hash(examples(arguments.out, task)) for task in LABELS}
    if arguments.write_hashes:
        (PROMPTS / "tests.json").write_text(json.dumps(found, indent=1) + "\n")
        return
    assert json.loads((PROMPTS / "tests.json").read_text()) == found, "the test parts are those that were committed"
    backend, rows = FolderBackend(load(arguments.out / "model"), name="instructions"), []
    for task in LABELS:
        baseline = read_prompt(str(PROMPTS / f"{task}.toml"))
        for seed in range(arguments.seeds):
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                search = Search(candidates=12, seed=seed)
                outcome = Optimizer(backend, baseline, examples(arguments.out, task), search, Path(folder)).run()
            row = {"task": task, "seed": seed, "best": outcome.best.name, "seconds": time.monotonic() - began}
            row |= {"word": outcome.verdict.word if outcome.verdict else "baseline kept"}
            row |= {"verdict": outcome.verdict and outcome.verdict.as_dict(), "evaluations": outcome.evaluations}
            row |= {"baseline": outcome.of_baseline and outcome.of_baseline.as_dict()}
            row |= {"accuracy": outcome.of_best and outcome.of_best.as_dict(), "optimism": outcome.luck.optimism}
            rows.append(row)
            print(task, seed, outcome.best.name, "·", outcome.verdict or "the baseline was kept", flush=True)
    print(Counter((row["task"], row["word"]) for row in rows))
    print(record.keep("instruction_search", {"tests": found, "rows": rows}))


if __name__ == "__main__":
    main()
