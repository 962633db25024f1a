"""32 prompts of 30, 150 and 600 tokens on 200 examples each: what a search among prompts costs.

A Llama of 124 million random weights (12 layers, 768 wide) with GPT-2's vocabulary, f32. Examples are sentences of
sentence_polarity, to be judged by two words of one token each; prompts are other such sentences, cut to length.

- wenlu: `Scorer.score_all`, every beginning read once.
- naive: each prompt with each example as a text of its own, so many in a batch, sorted by length; both words are read
  off the same last place (the reuse that one-token answers allow), and logits are made for that place only. The best
  of the batches of 1, 8 and 32 is taken.

Tokens are counted for all prompts and examples. Seconds are measured on some of them (--timed prompts with all
examples; --naive examples of the first prompt), all of which cost alike, and told for all by the number of tokens.

    python benchmarks/prompt_search.py [--prompts 32] [--timed 2] [--naive 24]
"""

import argparse
import io
import time
import zipfile

import numpy as np
import torch

from wenlu.inference.reading import evaluating
from wenlu.inference.score import Query, Scorer
from wenlu.inference.trie import Trie
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.tokenizer import Tokenizer

import record

LENGTHS = (30, 150, 600)
ANSWERS = (" good", " bad")


def sentences() -> list[str]:
    archive = zipfile.ZipFile(record.data_folder() / "classification" / "sentence_polarity.zip")
    name = "sentence_polarity/rt-polarity.pos"
    return io.TextIOWrapper(archive.open(name), encoding="latin-1").read().splitlines()


def queries(tokenizer: Tokenizer, length: int, prompts: int, examples: int) -> list[list[Query]]:
    """Of each prompt, its queries."""
    lines = sentences()
    asked, rest = lines[:examples], iter(tokenizer.encode("\n".join(lines[examples:])))
    found = []
    for _ in range(prompts):
        prompt = tokenizer.decode([next(rest) for _ in range(length)])
        found.append([Query(f"{prompt}\nReview: {line}\nIt is", ANSWERS) for line in asked])
    return found


def naive(scorer: Scorer, model: torch.nn.Module, asked: list[Query], batch: int) -> tuple[float, int, list[float]]:
    """Seconds, tokens (padding left out), and log-probabilities of the answers."""
    pairs = scorer.pairs(asked)
    rows = [pair.prefix for pair in pairs[:: len(ANSWERS)]]
    targets = torch.tensor([pair.continuation for pair in pairs]).view(-1, len(ANSWERS))
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    found = torch.empty(len(rows), len(ANSWERS))
    began = time.perf_counter()
    with evaluating(model):
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            longest = max(len(rows[row]) for row in part)
            ids = torch.tensor([rows[row] + [0] * (longest - len(rows[row])) for row in part])
            last = torch.tensor([len(rows[row]) - 1 for row in part])
            logits = model.head(model.hidden(ids)[torch.arange(len(part)), last])
            found[part] = logits.log_softmax(-1).gather(1, targets[part])
    return time.perf_counter() - began, sum(map(len, rows)), found.flatten().tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--timed", type=int, default=2, help="prompts that wenlu is timed on")
    parser.add_argument("--naive", type=int, default=24, help="examples that naive scoring is timed on")
    arguments = parser.parse_args()
    tokenizer = Tokenizer.load(record.data_folder() / "tokenizers" / "gpt2")
    form = ModelConfig("llama", dim=768, layers=12, heads=12, context=1024, vocab=tokenizer.vocab)
    model = build(form, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(parameter.shape[0]))
    found = []
    for length in LENGTHS:
        asked = queries(tokenizer, length, arguments.prompts, arguments.examples)
        pairs = Scorer(model, tokenizer).pairs([query for of_prompt in asked for query in of_prompt])
        unique = len(Trie.of([([*before, *after], len(before)) for before, after, *_ in pairs]).read)
        whole = sum(len(pair.prefix) for pair in pairs[:: len(ANSWERS)])
        scorer = Scorer(model, tokenizer)
        began = time.perf_counter()
        scores = scorer.score_all([query for of_prompt in asked[: arguments.timed] for query in of_prompt])
        taken, read = time.perf_counter() - began, scorer.tokens_read
        part = asked[0][: arguments.naive]
        tries = {batch: naive(scorer, model, part, batch) for batch in (1, 8, 32)}
        batch = min(tries, key=lambda batch: tries[batch][0])
        seconds, tokens, theirs = tries[batch]
        mine = [score.log_probability for of_query in scores[: len(part)] for score in of_query]
        row = {"length": length, "batch": batch, "timed": {"ours": [taken, read], "naive": [seconds, tokens]}}
        row |= {"ours": {"seconds": taken * unique / read, "tokens": unique}}
        row |= {"naive": {"seconds": seconds * whole / tokens, "tokens": whole}}
        row |= {"difference": float(np.abs(np.array(mine) - theirs).max())}
        found.append(row)
        times = row["naive"]["seconds"] / row["ours"]["seconds"]
        print(
            f"prompts of {length}: {unique:,} tokens, {row['ours']['seconds']:.1f} s; naive {whole:,} tokens, "
            f"{row['naive']['seconds']:.1f} s (batch {batch}): {times:.1f} x, "
            f"log-probabilities within {row['difference']:.1e}",
            flush=True,
        )
    print(record.keep("prompt_search", {"settings": vars(arguments), "rows": found}))


if __name__ == "__main__":
    main()
