"""docs/benchmarks.md from benchmarks/results: no figure there is written by hand.

python benchmarks/page.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def load(name: str) -> dict | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def where(about: dict) -> str:
    machine = about["machine"]
    return (
        f"{machine['processor']} ({machine['cpu_capability']}), {machine['threads']} threads, "
        f"torch {machine['torch']}, Python {about['python']}, {about['date']}, commit {about['commit']}."
    )


def time_to_loss(result: dict) -> list[str]:
    lines = [
        "## Time to loss",
        "",
        "`python benchmarks/time_to_loss.py`. Peer: nanoGPT's form in plain torch with its README's recipe",
        "for a processor (`benchmarks/nanogpt_form.py`). Characters; first 90 % for training, the rest held out.",
        "Clock: start of the process to final weights. Medians over seeds. Ours: `benchmarks/time_to_loss.toml`,",
        "the smallest budget on the grid 5 · 1.25ᵏ s that reaches the peer's loss; in the peer's own time:",
        "`benchmarks/time_to_loss_long.toml`.",
        "",
        "| corpus | peer: loss, time | ours: budget, loss (in windows of 64) | ratio | ours in the peer's time |",
        "|---|---|---|---|---|",
    ]
    for row in result["results"]:
        last = row["budgets"][-1]
        runs = sorted(run["loss_64"] for run in last["runs"])
        reached = f"{row['ratio']:.1f} ×" if row["ratio"] else "not reached"
        lines.append(
            f"| {row['corpus']} | {row['peer_loss']:.3f} nats/char, {row['peer_seconds']:.0f} s "
            f"| {last['budget']:.2f} s, {last['loss']:.3f} ({runs[len(runs) // 2]:.3f}) | {reached} "
            f"| {row['in_peers_time']['loss']:.3f} |"
        )
    return [*lines, "", where(result["about"]), ""]


def lstm(result: dict) -> list[str]:
    last = result["budgets"][-1]
    ratio = f"{result['ratio']:.1f} ×" if result["ratio"] else "not reached"
    return [
        "## The LSTM",
        "",
        "`python benchmarks/lstm.py`. Peer: Embedding → LSTM → Linear, Adam, cross-entropy, two epochs of",
        "tinyshakespeare's characters (`benchmarks/article_form.py`). Ours, of the same size: `benchmarks/lstm.toml`.",
        "",
        "| peer: loss, time | ours: budget, loss | ratio |",
        "|---|---|---|",
        f"| {result['peer_loss']:.3f} nats/char, {result['peer_seconds']:.0f} s "
        f"| {last['budget']:.2f} s, {last['loss']:.3f} | {ratio} |",
        "",
        where(result["about"]),
        "",
    ]


def tokenizers(result: dict) -> list[str]:
    lines = [
        "## Tokenizers",
        "",
        "`python benchmarks/tokenization.py`. Bytes per token (characters per token) on text that ours were not",
        "learned from, and the ratio to the public tokenizer of the same size. Ours learned from novels, those of",
        "GPT-2's and BERT's size from the English ones alone; the public ones from other text, mostly of the web, so",
        "the novels favour ours. BERT's drops case and spaces, which flatters it. Encoding: MB/s over all these texts.",
        "Seconds of learning: by the clock (of processor). Bytes of training text: "
        + ", ".join(f"{language} {size:,}" for language, size in result["training_bytes"].items())
        + ".",
        "",
        "| tokenizer | text | bytes per token (characters) | ratio | lossless |",
        "|---|---|---|---|---|",
    ]
    speeds = []
    for contest in result["results"]:
        public = contest["tokenizers"][contest["public"]]["texts"]
        for kind, found in contest["tokenizers"].items():
            name = kind if kind == contest["public"] else f"ours, {kind}:{contest['vocab']}"
            for text, row in found["texts"].items():
                ratio = row["bytes_per_token"] / public[text]["bytes_per_token"]
                lines.append(
                    f"| {name} | {text} | {row['bytes_per_token']:.2f} ({row['characters_per_token']:.2f}) "
                    f"| {ratio:.2f} | {'yes' if row['lossless'] else 'no'} |"
                )
            size = sum(row["bytes"] for row in found["texts"].values())
            seconds = sum(row["bytes"] / 1e6 / row["megabytes_per_second"] for row in found["texts"].values())
            learned = "learning_seconds" in found
            learning = f"{found['learning_seconds']:.0f} ({found['learning_cpu_seconds']:.0f})" if learned else ""
            speeds.append(f"| {name}, {contest['vocab']:,} tokens | {size / 1e6 / seconds:.1f} | {learning} |")
    lines += ["", "| tokenizer | encoding, MB/s | learning, s |", "|---|---|---|", *speeds]
    return [*lines, "", where(result["about"]), ""]


def campaigns() -> list[str]:
    found = [(name, load(name)) for name in ("kills", "damage")]
    lines = ["## Campaigns", "", "`make campaigns`.", ""]
    for name, result in found:
        if result:
            facts = ", ".join(f"{key} {value}" for key, value in result.items() if isinstance(value, int | float | str))
            lines.append(f"- {name}: {facts}")
    return [*lines, ""] if any(result for _, result in found) else []


def main() -> None:
    lines = ["# Benchmarks", "", "Generated by `python benchmarks/page.py` from `benchmarks/results`.", ""]
    for name, section in (("time_to_loss", time_to_loss), ("lstm", lstm), ("tokenizers", tokenizers)):
        result = load(name)
        lines += section(result) if result else []
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join([*lines, *campaigns()]))


if __name__ == "__main__":
    main()
