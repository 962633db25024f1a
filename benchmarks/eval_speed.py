"""Tasks beside lm-evaluation-harness: the same rows, the same prompts, the same figures; how long each takes.

stories260K, and a Llama of 124 million random weights with GPT-2's vocabulary (f32, two threads), on ARC-easy, LAMBADA
and three BLiMP sets, without shots and with five. lm-evaluation-harness (HFLM over Transformers' model, JSON rows,
`first_n` shots) runs with batches of 1, 8 and 32, and the best of them counts; wenlu runs `evaluation.run.run_task`.
Both are timed from rows to figures, models and rows being loaded before, three times by turns, and the best counts: the
peer's with its best batch, found by trying each once, the first of its three. Beside each ratio stands R: tokens of all
prompts with each of their continuations over those that are different beginnings, which is what sharing can gain.

    pip install -e ".[harness]" && python benchmarks/eval_speed.py [--only stories260K]
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from wenlu.evaluation.candidate import Candidate
from wenlu.evaluation.results import Results
from wenlu.evaluation.run import run_task
from wenlu.evaluation.task import Settings, Task
from wenlu.evaluation.tasks.catalogue import read_tasks
from wenlu.hub.folder import load, save
from wenlu.metrics import intervals
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.tokenizer import Tokenizer

import record

TASKS = ("arc_easy", "lambada_openai", "blimp/wh_island", "blimp/anaphor_number_agreement", "blimp/drop_argument")
BATCHES = (1, 8, 32)
TRIES = 3


def folder_of(name: str, place: Path) -> Path:
    """A model's folder, made where it is not there."""
    if name == "stories260K":
        return record.data_folder() / name
    tokenizer = Tokenizer.load(record.data_folder() / "tokenizers" / "gpt2")
    form = ModelConfig(
        "llama", dim=768, layers=12, heads=12, context=2048, vocab=tokenizer.vocab, eos_id=tokenizer.eos_id
    )
    model = build(replace(form, bos_id=tokenizer.eos_id), 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.05, generator=generator)
    save(model, tokenizer, place / name)
    return place / name


def ours(task: Task, candidate: Candidate, shots: int, limit: int) -> dict:
    intervals._drawn.cache_clear()  # no try has its resamples drawn by the one before
    before = candidate.scorer.tokens_read, candidate.scorer.tokens_given
    began = time.perf_counter()
    outcome = run_task(task, candidate, Settings(shots=shots, limit=limit), Results())
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "figures": {name: estimate.value for name, estimate in outcome.figures.items()},
        "sums": [row.get("log_probabilities") or [-row["scores"]["nats"]] for row in outcome.rows],
        "tokens_read": candidate.scorer.tokens_read - before[0],
        "tokens_given": candidate.scorer.tokens_given - before[1],
    }


def peer_task(task: Task, shots: int, limit: int, place: Path, begin: str):
    """The same task in the peer's words, over JSON files; begin: what its tokenizer does not put before a text."""
    from lm_eval.api.task import ConfigurableTask

    name = task.name.replace("/", "_")
    rows = [
        {
            "query": "" if task.template is None else task.template.render(example, ()),
            "choices": list(example.choices) or [example.right],
            "gold": example.gold or 0,
        }
        for example in task.examples[: shots + limit]
    ]
    files = {"train": rows[:shots] or rows[:1], "test": rows[shots:]}
    for split, content in files.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (place / f"{name}-{shots}-{split}.jsonl").write_text(text, encoding="utf-8")
    cloze = not task.examples[0].choices
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(place / f"{name}-{shots}-{split}.jsonl") for split in files}},
        "test_split": "test",
        "fewshot_split": "train",
        "fewshot_config": {"sampler": "first_n", "split": "train"},
        "description": begin,
        "doc_to_text": "{{query}}",
        "fewshot_delimiter": "\n\n",
        "target_delimiter": " ",
    }
    if cloze:
        config |= {"target_delimiter": "", "output_type": "loglikelihood", "doc_to_target": "{{' ' + choices[0]}}"}
        config |= {"metric_list": [{"metric": "perplexity"}, {"metric": "acc"}]}
    else:
        config |= {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "{{gold}}"}
        config |= {"metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
    found = ConfigurableTask(config=config)
    found.set_config("num_fewshot", shots)
    return name, found


def theirs(name: str, task, model, tokenizer, batch: int, adds: bool) -> dict:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    judge = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, max_length=2048, add_bos_token=adds)
    began = time.perf_counter()
    found = evaluate(judge, {name: task}, bootstrap_iters=0, log_samples=True)
    seconds = time.perf_counter() - began
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    several = isinstance(samples[0]["filtered_resps"][0], list | tuple)
    sums = [[float(one[0] if several else one) for one in sample["filtered_resps"]] for sample in samples]
    figures = {key.partition(",")[0]: value for key, value in found["results"][name].items()}
    return {"seconds": seconds, "figures": figures, "sums": sums if several else [row[:1] for row in sums]}


def compared(task: Task, candidate: Candidate, peer, shots: int, limit: int, place: Path) -> dict:
    first = peer[1]("a").input_ids[0]
    begin = "" if first == peer[1].bos_token_id else peer[1].bos_token
    name, its = peer_task(task, shots, limit, place, begin)
    of_batches = {batch: theirs(name, its, *peer, batch, not begin) for batch in BATCHES}
    batch = min(of_batches, key=lambda one: of_batches[one]["seconds"])
    mines, bests = [ours(task, candidate, shots, limit)], [of_batches[batch]]
    while len(mines) < TRIES:
        bests.append(theirs(name, its, *peer, batch, not begin))
        mines.append(ours(task, candidate, shots, limit))
    mine, best = (min(tries, key=lambda one: one["seconds"]) for tries in (mines, bests))
    ratio = best["seconds"] / mine["seconds"]
    reads = mine["tokens_given"] / mine["tokens_read"]
    gaps = [abs(a - b) for row, other in zip(mine["sums"], best["sums"], strict=True) for a, b in zip(row, other)]
    same = {key: (mine["figures"][key], best["figures"][key]) for key in ("acc", "acc_norm") if key in mine["figures"]}
    row = {"task": task.name, "shots": shots, "examples": len(mine["sums"]), "seconds": mine["seconds"], "batch": batch}
    seconds = {one: found["seconds"] for one, found in of_batches.items()} | {batch: best["seconds"]}
    row |= {"peer_seconds": {str(one): value for one, value in seconds.items()}, "ratio": ratio, "reads": reads}
    row |= {"tries": {"ours": [one["seconds"] for one in mines], "peer": [one["seconds"] for one in bests]}}
    row |= {"figures": same, "largest_gap": max(gaps), "beyond": sum(gap > 1e-4 for gap in gaps), "sums": len(gaps)}
    print(
        f"{task.name}, {shots} shots, {row['examples']} rows: {mine['seconds']:.1f} s, peer {best['seconds']:.1f} s "
        f"(batch {batch}): {ratio:.1f} x, R = {reads:.1f}; figures {same}, largest gap {max(gaps):.1e}",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="one of the models")
    parser.add_argument("--limits", type=int, nargs=2, default=(200, 16), help="examples for the two models")
    arguments = parser.parse_args()
    os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["HF_HOME"] = folder
        for form, limit in zip(("stories260K", "llama-124M"), arguments.limits, strict=True):
            if arguments.only not in ("", form):
                continue
            reference = folder_of(form, place)
            candidate = Candidate(*load(reference), form)
            peer = (
                AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32),
                AutoTokenizer.from_pretrained(reference),
            )
            for task in read_tasks(TASKS, str(record.data_folder())):
                for shots in (0, 5) if task.template is not None else (0,):
                    rows.append({"model": form, **compared(task, candidate, peer, shots, limit, place)})
    peer_about = {package: version(package) for package in ("lm_eval", "transformers")}
    print(record.keep("eval_speed", {"peer": peer_about, "rows": rows}))


if __name__ == "__main__":
    main()
