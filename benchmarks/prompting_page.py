"""The sections of docs/benchmarks.md about tasks and prompts."""

from collections import Counter

from markdown_parts import table, where


def eval_speed(result: dict) -> list[str]:
    peer = result["peer"]
    lines = [
        "## Tasks beside lm-evaluation-harness",
        "",
        f"`python benchmarks/eval_speed.py`: lm-evaluation-harness {peer['lm_eval']} (HFLM, Transformers",
        f"{peer['transformers']}, `first_n` shots, the best of batches of 1, 8 and 32), the same rows, f32"
        + (", the best of three tries each." if "tries" in result["rows"][0] else "."),
        "R: tokens of all prompts with each of their continuations over different beginnings, which is what reading",
        "each beginning once can gain. The last column: the largest difference of a log-likelihood, in nats.",
    ]
    rows = [
        (
            row["model"],
            row["task"],
            row["shots"],
            row["examples"],
            f"{row['seconds']:.1f} s",
            f"{min(row['peer_seconds'].values()):.1f} s (batch {row['batch']})",
            f"{row['ratio']:.1f} ×",
            f"{row['reads']:.1f}",
            "; ".join(f"{name} {ours:.3f}, {theirs:.3f}" for name, (ours, theirs) in row["figures"].items()),
            f"{row['largest_gap']:.0e}",
        )
        for row in result["rows"]
    ]
    header = "model | task | shots | rows | wenlu | peer | ratio | R | figures: ours, theirs | gap"
    return [*lines, *table(header, rows), "", where(result["about"]), ""]


def prompt_search(result: dict) -> list[str]:
    settings = result["settings"]
    lines = [
        "## What a search among prompts costs",
        "",
        f"`python benchmarks/prompt_search.py`: {settings['prompts']} prompts on {settings['examples']} examples, a",
        "Llama of 124 million random weights, f32. Naive: every prompt with every example by itself, both one-word",
        "answers read off one place, the best of batches of 1, 8 and 32. Tokens are counted for all; seconds",
        f"are measured on {settings['timed']} of the prompts, naively on {settings['naive']} examples of one,",
        "and told for all.",
    ]
    rows = [
        (
            row["length"],
            f"{row['ours']['tokens']:,}",
            f"{row['ours']['seconds']:.1f} s",
            f"{row['naive']['tokens']:,}",
            f"{row['naive']['seconds']:.0f} s (batch {row['batch']})",
            f"{row['naive']['seconds'] / row['ours']['seconds']:.1f} ×",
            f"{row['difference']:.0e}",
        )
        for row in result["rows"]
    ]
    header = "tokens of a prompt | wenlu: tokens | time | naive: tokens | time | ratio | gap, nats"
    return [*lines, *table(header, rows), "", where(result["about"]), ""]


def instruction_search(result: dict) -> list[str]:
    lines = [
        "## Searches on a model made here",
        "",
        "`python benchmarks/instruction_search.py`: a model that follows short instructions in two languages",
        "(`benchmarks/instructions.py`), baselines written by hand (`benchmarks/prompts`), which stand in the",
        "repository, as do the hashes of the test parts, since before the first search. 12 candidates, 800 examples;",
        "the test part of a task is the same for all seeds.",
    ]
    rows = []
    for row in result["rows"]:
        verdict, best = row["verdict"], row["accuracy"]
        rows.append(
            (
                row["task"],
                row["seed"],
                row["best"],
                f"{row['baseline']['value']:.3f}" if row["baseline"] else "",
                f"{best['value']:.3f}" if best else "",
                f"{verdict['difference']['value']:+.3f} ({verdict['difference']['low']:+.3f} to "
                f"{verdict['difference']['high']:+.3f})"
                if verdict
                else "",
                row["word"],
            )
        )
    header = "task | seed | chosen | baseline, test | chosen, test | difference, 95 % | verdict"
    counts = Counter((row["task"], row["word"]) for row in result["rows"])
    told = "; ".join(f"{task}: {number} × {word}" for (task, word), number in counts.items())
    return [*lines, *table(header, rows), "", f"In all: {told}.", "", where(result["about"]), ""]
