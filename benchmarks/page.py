"""docs/benchmarks.md and docs/parity.md from benchmarks/results: no figure there is written by hand.

python benchmarks/page.py
"""

import json
import re
import statistics
from pathlib import Path

import parity_page
from decoding_page import (
    decode,
    decode_first,
    decode_formats,
    decode_lstm,
    decode_process,
    decode_t5,
    kernels,
    llamacpp,
)
from markdown_parts import table, where
from prompting_page import eval_speed, instruction_search, prompt_search
from selection_page import metrics, selection
from trained_page import bert, polarity, train_throughput, translation

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAIRS = [(other, clock) for other in ("datasets", "raw") for clock in ("seconds", "processor")]


def load(name: str) -> dict | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def reached(result: dict) -> dict:
    """The budget that was enough, else the largest that was tried."""
    enough = [row for row in result["budgets"] if row["budget"] == result["reached_budget"]]
    return enough[0] if enough else result["budgets"][-1]


def ratio(result: dict) -> str:
    return f"{result['ratio']:.1f} ×" if result["ratio"] else "not reached"


def time_to_loss(result: dict) -> list[str]:
    lines = [
        "## Time to loss",
        "",
        "`python benchmarks/time_to_loss.py`. Peer: nanoGPT's form in plain torch with its README's recipe",
        "for a processor (`benchmarks/nanogpt_form.py`). Characters; first 90 % for training, the rest held out, every",
        "character of it scored once, in windows of each side's own training context (in windows of 64 for both).",
        "Clock: start of the process to final weights. Medians over seeds. Ours: `benchmarks/time_to_loss.toml`, the",
        "smallest budget on the grid 5 · 1.25ᵏ s that reaches the peer's loss; in the peer's own time:",
        "`benchmarks/time_to_loss_long.toml`. Both were chosen on a part of tinyshakespeare's training text.",
    ]
    rows = []
    for row in result["results"]:
        ours = reached(row)
        rows.append(
            (
                row["corpus"],
                f"{row['peer_loss']:.3f}, {row['peer_seconds']:.0f} s",
                f"{ours['loss']:.3f} ({ours['loss_64']:.3f}), {ours['budget']:.2f} s",
                ratio(row),
                f"{row['in_peers_time']['loss']:.3f}",
            )
        )
    header = "corpus | peer: nats/char, time | ours: nats/char (windows of 64), budget | ratio | ours in its time"
    return [*lines, *table(header, rows), "", where(result["about"]), ""]


def lstm(result: dict) -> list[str]:
    ours = reached(result)
    return [
        "## The LSTM",
        "",
        "`python benchmarks/lstm.py`. Peer: Embedding → LSTM → Linear, Adam, cross-entropy, two epochs of",
        "tinyshakespeare's characters (`benchmarks/article_form.py`). Ours, of the same size: `benchmarks/lstm.toml`.",
        *table(
            "peer: nats/char, time | ours: nats/char, budget | ratio",
            [
                (
                    f"{result['peer_loss']:.3f}, {result['peer_seconds']:.1f} s",
                    f"{ours['loss']:.3f}, {ours['budget']:.2f} s",
                    ratio(result),
                )
            ],
        ),
        "",
        where(result["about"]),
        "",
    ]


def sources(result: dict) -> list[str]:
    """Reading, encodings and HTML: MB a second of processor time of one core."""
    peers = ", ".join(f"{name} {number}" for name, number in result["peers"].items())
    lines = [
        "## Sources",
        "",
        f"`python benchmarks/sources.py` ({peers}).",
        "MB per second of processor time, one thread, the best of five turns.",
    ]
    speeds = result["reading_MB_per_second"].items()
    lines += table(
        "file of 100 MB, paragraphs of novels shuffled | `read_documents` | a loop over `open()`, no checks",
        ((name, f"{speed['wenlu']:.0f}", f"{speed['a loop over open()']:.0f}") for name, speed in speeds),
    )
    lines += table(
        "encodings: slices of 300 to 30,000 bytes of web pages, WikiText and CMRC | wrong | of | MB/s",
        (
            (name, str(told["all_wrong"]), str(told["slices"]), f"{told['MB_per_second']:.0f}")
            for name, told in result["encodings"].items()
        ),
    )
    lines += ["", "wenlu weighs UTF-8, GB18030 and cp1252 alone; the detectors know dozens."]
    lines += table("HTML → text | MB/s", ((k, f"{speed:.0f}") for k, speed in result["html_MB_per_second"].items()))
    return [*lines, "", where(result["about"]), ""]


def dedup(result: dict) -> list[str]:
    form = result["form"]
    lines = [
        "## Near-duplicates",
        "",
        f"`python benchmarks/dedup.py`. {form['documents']:,} documents of real paragraphs, English and Chinese, with",
        f"planted copies; {form['values']} values over {form['ngram']}-grams, {form['bands']} bands of {form['rows']},",
        f"reported from an estimated similarity of {form['like']} on. Peers: rensa {result['peers']['rensa']}",
        f"(RMinHashLSH), datasketch {result['peers']['datasketch']} (MinHashLSH), with the same n-grams, values, bands",
        "and limit. Recall: planted pairs",
        "of a true Jaccard similarity of 0.8 or more; false: reported pairs below 0.6.",
    ]
    rows = []
    for side, row in result["results"].items():
        recall = f"{row['recall_from_0.8']:.4f} of {row['planted_from_0.8']:,}"
        false = f"{row['false']:,} of {row['reported']:,}"
        memory = f"{row['memory_bytes_per_document']:,.0f} B"
        rows.append((side, f"{row['documents_per_second']:,.0f}", memory, recall, false))
    lines += table("| documents/s | memory a document | recall | false", rows)
    return [*lines, "", where(result["about"]), ""]


def memory(result: dict) -> list[str]:
    lines = [
        "## Memory",
        "",
        "`python benchmarks/memory.py`. Predicted by `wenlu/models/size.py` before a run; measured: growth of resident",
        "memory at its peak over four steps, an evaluation and a checkpoint, each shape in a process of its own.",
    ]
    rows = []
    for row in result["results"]:
        shape = row["shape"]
        extra = "".join(f", {key} {shape[key]}" for key in ("optimizer", "dropout", "micro") if key in shape)
        rows.append(
            (
                shape["family"],
                f"{shape['dim']} × {shape['layers']}, {shape['context']}, {shape['batch']}{extra}",
                f"{row['parameters'] / 1e6:.1f} M",
                f"{row['measured'] / 1e6:,.0f} MB",
                f"{row['predicted']['total'] / 1e6:,.0f} MB",
                f"{row['ratio']:.2f}",
            )
        )
    header = "model | dim × layers, context, batch | parameters | measured | predicted | predicted / measured"
    return [*lines, *table(header, rows), "", where(result["about"]), ""]


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
    ]
    rows, speeds = [], []
    for contest in result["results"]:
        public = contest["tokenizers"][contest["public"]]["texts"]
        for kind, found in contest["tokenizers"].items():
            name = kind if kind == contest["public"] else f"ours, {kind}:{contest['vocab']}"
            for text, row in found["texts"].items():
                ratio = row["bytes_per_token"] / public[text]["bytes_per_token"]
                figures = f"{row['bytes_per_token']:.2f} ({row['characters_per_token']:.2f})"
                rows.append((name, text, figures, f"{ratio:.2f}", "yes" if row["lossless"] else "no"))
            size = sum(row["bytes"] for row in found["texts"].values())
            seconds = sum(row["bytes"] / 1e6 / row["megabytes_per_second"] for row in found["texts"].values())
            learned = "learning_seconds" in found
            learning = f"{found['learning_seconds']:.0f} ({found['learning_cpu_seconds']:.0f})" if learned else ""
            speeds.append((f"{name}, {contest['vocab']:,} tokens", f"{size / 1e6 / seconds:.1f}", learning))
    lines += table("tokenizer | text | bytes per token (characters) | ratio | lossless", rows)
    lines += table("tokenizer | encoding, MB/s | learning, s", speeds)
    return [*lines, "", where(result["about"]), ""]


def prepare(result: dict) -> list[str]:
    found, peers = result["results"], result["peers"]
    lines = [
        "## Preparing",
        "",
        f"`python benchmarks/prepare.py`. Paragraphs of all corpora ({result['distinct_bytes']:,} bytes), shuffled and",
        "repeated; one tokenizer (bpe:8192); no cleaning. `wenlu prepare` and `datasets.map` (datasets",
        f"{peers['datasets']}, num_proc=2, `encode_batch_fast`) as whole processes; raw: `encode_batch_fast` alone, on",
        "texts in memory, its clock stopped outside it; encoder: raw's time by that of wenlu's encoder on the same",
        "texts. By turns; medians of the ratios; above 1: wenlu is faster.",
    ]
    rows = []
    for name, row in found.items():
        if "seconds of raw / of wenlu" not in row:
            continue
        taken = ", ".join(f"{statistics.median(row['processor'][side]):.1f}" for side in ("wenlu", "datasets", "raw"))
        medians = [row[f"{clock} of {other} / of wenlu"]["median"] for other, clock in PAIRS]
        ratios = [f"{value:.2f} ×" for value in medians]
        ratios += [f"{row[f'{clock} of raw / of encoder']['median']:.1f} ×" for clock in ("seconds", "processor")]
        rows.append((f"{name}, {row['documents']:,}", f"{len(row['seconds']['raw'])}", taken, *ratios))
    lines += table(
        "text, documents | rounds | processor s: wenlu, datasets, raw | datasets: clock | processor "
        "| raw: clock | processor | encoder: clock | processor",
        rows,
    )
    if "cleaning" in found:
        rows = []
        for row in found["cleaning"]["rows"]:
            speed, peaks = row["cleaning seconds"], (row[side]["peak"] / 1e6 for side in ("raw", "cleaned"))
            each = (f"{row['bytes'] / 1e6 / speed:.1f}", f"{row['documents'] / speed:,.0f}")
            kind = f"{row['kind']}, {row['bytes'] / 1e6:.0f} MB, {row['documents']:,}"
            rows.append((kind, *each, *(f"{peak:,.0f} MB" for peak in peaks)))
        lines += table(
            "cleaning alone, by processor time | MB/s | documents/s | peak of prepare, no cleaning | with cleaning",
            rows,
        )
        near = found["cleaning"]["near-duplicates"]
        lines += [
            "",
            f"Near-duplicates: recall {near['recall_from_0.8']:.4f} of {near['planted_from_0.8']:,} planted of a true",
            f"similarity of 0.8 or more; {near['false']:,} false of {near['reported']:,} reported.",
        ]
    learned = {name: row for name, row in found.items() if name.startswith("learning")}
    rows = [
        (name.removeprefix("learning "), f"{row['processor']:.0f} s", f"{row['peak'] / 1e6:,.0f} MB")
        for name, row in learned.items()
    ]
    lines += table("learning bpe:8192 from | processor | peak of memory", rows) if rows else []
    return [*lines, "", *memory_by_documents(found), where(result["about"]), ""]


def memory_by_documents(found: dict) -> list[str]:
    """The growth of the peak of `wenlu prepare` from the least to the most documents."""
    by_size = [row for row in found.values() if "tokens" in row or "wenlu alone" in row]
    by_size.sort(key=lambda row: row["documents"])
    if len(by_size) < 2:
        return []
    few, many = by_size[0], by_size[-1]
    slope = (many["peak"] - few["peak"]) / (many["documents"] - few["documents"])
    return [
        f"Peak of memory without cleaning: {few['peak'] / 1e6:,.0f} MB with {few['documents']:,} documents,",
        f"{many['peak'] / 1e6:,.0f} MB with {many['documents']:,}: {slope:,.0f} bytes a document.",
        "",
    ]


def dirty(result: dict) -> list[str]:
    lines = [
        "## Dirty data",
        "",
        "`python benchmarks/dirty.py`: what `wenlu prepare` says, with its default rules and a tokenizer in a folder.",
    ]
    rows = []
    for name, row in result["results"].items():
        said = next((line for line in row["said"] if line.startswith("wenlu: ")), "")
        noted = [line for line in row["said"] if re.match(r"[0-9,]+ ", line)]
        rules = [" ".join(line.split()[:1]) for line in row["said"] if line.rstrip().endswith("%")]
        shown = said.removeprefix("wenlu: ") or "; ".join([*([f"rules: {', '.join(rules)}"] if rules else []), *noted])
        verdict = "refused" if row["code"] else "made"
        rows.append((name, f"{verdict}: {shown}".replace("|", "\\|"), f"{row['seconds']}", f"{row['peak'] / 1e6:,.0f}"))
    return [*lines, *table("given | what is said | s | MB at most", rows), "", where(result["about"]), ""]


def dial(result: dict) -> list[str]:
    lines = [
        "## The dial",
        "",
        "`python benchmarks/dial.py`. `wenlu train TEXT --minutes M`, nothing else stated, beside nanoGPT's recipe for",
        "a processor (characters) with its steps scaled to the same minutes. Both at the same time, each on one core",
        "with one thread; bits per byte of one held-out text, each in windows of its own training length. Medians.",
    ]
    rows = []
    for name, minutes in sorted({(row["corpus"], row["minutes"]) for row in result["runs"]}):
        runs = [row for row in result["runs"] if (row["corpus"], row["minutes"]) == (name, minutes)]
        ours, peer = ([row[side]["bits"] for row in runs] for side in ("ours", "peer"))
        foretold = statistics.median(row["ours"]["plan"]["bits_per_byte"] for row in runs)
        used = [row["ours"]["clock"] / 60 / minutes for row in runs]
        fewer = 1 - statistics.median(ours) / statistics.median(peer)
        rows.append(
            (
                f"{name}, {minutes:g} min",
                f"{len(runs)}",
                f"{statistics.median(ours):.3f}",
                f"{statistics.median(peer):.3f}",
                f"{fewer:.1%}",
                f"{foretold:.3f}",
                f"{min(used):.2f} to {max(used):.2f}",
                ", ".join(sorted({row["processor"] for row in runs})),
            )
        )
    header = "text, time | seeds | ours | nanoGPT's recipe | fewer bits | foretold | part of the time used | processor"
    noted = [result["note"], ""] if "note" in result else []
    return [*lines, *table(header, rows), "", *noted, where(result["about"]), ""]


def dial_fit(result: dict) -> list[str]:
    lines = [
        "## The dial's law",
        "",
        f"`python benchmarks/dial_fit.py`: {len(result['runs'])} runs on four novels, none of them one of the dial's",
        "contest. Errors of the foretold bits per byte for each novel when the law is fitted to the other ones.",
    ]
    rows = [
        (family, name, f"{len(errors)}", f"{min(errors):+.0%} to {max(errors):+.0%}")
        for family, fitted in result["fitted"].items()
        for name, errors in fitted["errors_left_out"].items()
    ]
    return [*lines, *table("models | novel left out | runs | error", rows), "", where(result["about"]), ""]


def dial_choices(result: dict) -> list[str]:
    lines = [
        "## The dial's rules",
        "",
        "`python benchmarks/dial_choices.py`: qwen3, 3 layers of 128, batches of 8 × 128; the same steps in each",
        "comparison. Bits per byte of all held-out text at the end, and the least on the way.",
    ]
    rows = []
    for row in result["runs"]:
        shape = row["shape"]
        tokens = shape["steps"] * shape["batch"] * shape["context"]
        cells = f"{tokens / 1e6:.1f} M", f"{shape['dropout']:g}", f"{row['last']:.3f}", f"{row['bits']:.3f}"
        rows.append((row["corpus"], shape["start"], *cells))
    taken = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in result["seconds"].items())
    header = "novel | start | tokens read | dropout | at the end | the least"
    return [*lines, *table(header, rows), "", f"The start from bigrams takes: {taken}.", "", where(result["about"]), ""]


def campaigns() -> list[str]:
    found = [(name, load(name)) for name in ("kills", "damage", "mixes")]
    lines = ["## Campaigns", "", "`make campaigns`.", ""]
    for name, result in found:
        if result:
            facts = ", ".join(f"{key} {value}" for key, value in result.items() if isinstance(value, int | float | str))
            lines.append(f"- {name}: {facts}")
    return [*lines, ""] if any(result for _, result in found) else []


def main() -> None:
    lines = ["# Benchmarks", "", "Generated by `python benchmarks/page.py` from `benchmarks/results`.", ""]
    sections = {
        "time_to_loss": time_to_loss,
        "lstm": lstm,
        "dial": dial,
        "dial_fit": dial_fit,
        "dial_choices": dial_choices,
        "train_throughput": train_throughput,
        "bert": bert,
        "polarity": polarity,
        "translation": translation,
        "decode": decode,
        "decode_t5": decode_t5,
        "decode_lstm": decode_lstm,
        "decode_first": decode_first,
        "decode_process": decode_process,
        "decode_formats": decode_formats,
        "llamacpp": llamacpp,
        "kernels": kernels,
        "sources": sources,
        "prepare": prepare,
        "dirty": dirty,
        "dedup": dedup,
        "memory": memory,
        "tokenizers": tokenizers,
        "selection": selection,
        "metrics": metrics,
        "eval_speed": eval_speed,
        "prompt_search": prompt_search,
        "instruction_search": instruction_search,
    }
    for name, section in sections.items():
        result = load(name)
        lines += section(result) if result else []
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join([*lines, *campaigns()]))
    if parity := load("parity"):
        parity_page.write(parity, ROOT / "docs", table, where)


if __name__ == "__main__":
    main()
