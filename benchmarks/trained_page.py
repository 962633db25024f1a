"""The sections of docs/benchmarks.md on models that are trained and tuned: throughput, BERT, MiniLM, translation."""

from markdown_parts import between, table, where


def train_throughput(result: dict) -> list[str]:
    peers = ", ".join(f"{name} {version}" for name, version in result["peers"].items())
    lines = [
        "## Training beside Transformers' Trainer",
        "",
        f"`python benchmarks/train_throughput.py`, {peers}, {result['dtype']}: the same weights, samples, batches,",
        "AdamW and clipping; no dropout, compilation or evaluation; each side in a process of its own, in turn,",
        f"{result['rounds']} times, medians; the first {result['skipped']} of {result['steps']} steps are not timed.",
    ]
    rows = []
    for row in result["results"]:
        shape = row["shape"]
        rows.append(
            (
                f"{row['name']}, {shape['layers']} × {shape['dim']}, batch {shape['batch']} × {shape['context']}",
                *(f"{row[side]['tokens_per_second']:,.0f}" for side in ("peer", "ours")),
                f"{row['ratio']:.2f} ×",
                *(f"{row[side]['peak'] / 1e6:,.0f} MB" for side in ("peer", "ours")),
            )
        )
    header = "model | Trainer, tokens/s | ours | ratio | Trainer, peak | ours"
    return [*lines, *table(header, rows), "", where(result["about"]), ""]


def bert(result: dict) -> list[str]:
    lines = [
        "## BERT from scratch",
        "",
        f"`python benchmarks/bert.py --minutes {result['minutes']:g}`: `wenlu train NOVEL --model bert --minutes",
        f"{result['minutes']:g}` on one of two cores, then how often masked tokens of the held-out part are named,",
        "beside always naming the commonest one.",
    ]
    rows = []
    for row in result["results"]:
        model = row["model"]
        shape = f"{model['layers']} × {model['dim']}, {row['steps']:,} steps of {row['batch']} × {model['context']}"
        flat = [row[name]["interval"] | row[name] for name in ("masked_accuracy", "unigram_accuracy", "advantage")]
        rows.append((row["corpus"], shape, *map(between, flat), f"{row['pseudo_perplexity']['value']:,.0f}"))
    header = "novel | model | accuracy | commonest token | advantage | pseudo-perplexity"
    return [*lines, *table(header, rows), "", where(result["about"]), ""]


def polarity(result: dict) -> list[str]:
    sizes, ours = result["sizes"], result["ours"]
    lines = [
        "## MiniLM tuned, beside a bag of words",
        "",
        f"`python benchmarks/polarity.py`: sentence_polarity, {sizes['train']:,} sentences for training,",
        f"{sizes['held_out']:,} for the choice of the best weights (the peer learns from both), {sizes['test']:,} for",
        f"the test. all-MiniLM-L6-v2 by `wenlu finetune`, {result['epochs']:g} epochs; scikit-learn",
        f"{result['peers']['scikit-learn']}: words and pairs of words, logistic regression.",
    ]
    rows = [("MiniLM, tuned", between(ours["accuracy"]), f"{ours['seconds']:,.0f} s", "", "")]
    for name, peer in result["theirs"].items():
        low, high = peer["interval"]
        difference = f"{peer['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
        cells = between(peer["accuracy"]), f"{peer['seconds']:,.1f} s", difference, f"{peer['mcnemar']:.1g}"
        rows.append((f"bag of words, {name}", *cells))
    header = "model | accuracy | training | MiniLM's advantage | McNemar's p"
    return [*lines, *table(header, rows), "", where(result["about"]), ""]


def translation(result: dict) -> list[str]:
    lines = [
        "## Translation by a T5 from scratch",
        "",
        "`python benchmarks/translation.py`: Multi30k, German to English, 29,000 pairs, `val` for the choice of the",
        f"best weights; {result['model']['parameters']:,} parameters. {result['how']}",
        f"Scored by `wenlu eval --examples` with {result['beams']} beams.",
    ]
    rows = [
        (
            name,
            *(between(scores[metric]) for metric in ("bleu", "chrf", "accuracy")),
            "`" + scores["bleu"]["signature"].replace("|", "\\|") + "`",
        )
        for name, scores in result["scores"].items()
    ]
    header = "test | BLEU | chrF | accuracy of tokens | signature"
    said = [f"- {source} → {text}" for source, text in result["samples"]]
    return [*lines, *table(header, rows), "", *said, "", where(result["about"]), ""]
