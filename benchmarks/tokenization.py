"""Bytes per token of tokenizers learned here beside public ones of the same size, on text that none of ours has seen.

Ours learn from the British novels and the Chinese novels under the data folder, of which every tenth part (of 20,000
characters) is held out; from English alone for GPT-2's and BERT's sizes, and from both for minimind's. The public ones
were learned from other text (GPT-2: web pages; BERT: Wikipedia and books; minimind: Chinese and English web text), so
the novels favour ours; wikitext-2 and the articles of CMRC 2018 are nearer to theirs. BERT's drops
case and spaces: what it counts is the text's own bytes over its tokens, which flatters it.

    python benchmarks/tokenization.py [--data ../shared/data]
"""

import argparse
import json
import lzma
import time
from pathlib import Path

import tokenizers
from tokenizers.implementations import BertWordPieceTokenizer

from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer

import record
from contest import read

PART = 20_000
"""Characters."""
KINDS = ("bpe", "unigram")


class Bert:
    """BERT's tokenizer, counted alike; it does not give the text back."""

    def __init__(self, folder: Path):
        self._inner = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
        self.vocab = self._inner.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return self._inner.encode(text, add_special_tokens=False).ids

    def lossless_on(self, text: str) -> bool:
        return self._inner.decode(self.encode(text)) == text


def parts(texts: list[str]) -> tuple[list[str], list[str]]:
    """Training and held-out parts: every tenth is held out."""
    pieces = [text[start : start + PART] for text in texts for start in range(0, len(text), PART)]
    return [p for i, p in enumerate(pieces) if i % 10], [p for i, p in enumerate(pieces) if not i % 10]


def corpora(data: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """(training text by language, held-out text by name)."""
    english = [read(path) for path in sorted((data / "english").glob("[A-Z]*_*.txt.xz"))]
    chinese = [read(path) for path in sorted((data / "chinese").glob("*.txt.xz"))]
    train, held_out = {}, {}
    for name, texts in (("English", english), ("Chinese", chinese)):
        train[name], kept = parts(texts)
        held_out[f"{name} novels"] = "".join(kept)
    held_out["wikitext-2"] = read(data / "english" / "wikitext2_valid.txt")
    cmrc = json.loads(lzma.decompress((data / "qa" / "cmrc2018_dev.json.xz").read_bytes()))
    held_out["CMRC 2018"] = "\n".join(_contexts(cmrc))
    return train, held_out


def _contexts(body) -> list[str]:
    """Every `context` in a file of questions, each once, in order."""
    if isinstance(body, dict):
        own = [value for key, value in body.items() if key in ("context", "context_text") and isinstance(value, str)]
        return list(dict.fromkeys(own + [c for value in body.values() for c in _contexts(value)]))
    return list(dict.fromkeys(c for item in body for c in _contexts(item))) if isinstance(body, list) else []


def measure(tokenizer, texts: dict[str, str]) -> dict:
    """Bytes and characters per token, and MB/s, on each text; the better of two timings."""
    figures = {}
    for name, text in texts.items():
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            ids = tokenizer.encode(text)
            seconds.append(time.perf_counter() - began)
        size = len(text.encode())
        figures[name] = {
            "bytes": size,
            "bytes_per_token": size / len(ids),
            "characters_per_token": len(text) / len(ids),
            "megabytes_per_second": size / 1e6 / min(seconds),
            "lossless": tokenizer.lossless_on(text),
        }
    return figures


def contest(name: str, public, train: list[str], texts: dict[str, str]) -> dict:
    """A public tokenizer and ours of its size."""
    result = {"public": name, "vocab": public.vocab, "tokenizers": {name: {"texts": measure(public, texts)}}}
    for kind in KINDS:
        began, work = time.perf_counter(), time.process_time()
        ours = learn(kind, train, public.vocab)
        seconds, work = time.perf_counter() - began, time.process_time() - work
        result["tokenizers"][kind] = {
            "vocab": ours.vocab,
            "learning_seconds": seconds,
            "learning_cpu_seconds": work,
            "texts": measure(ours, texts),
        }
    for text in texts:
        row = {kind: found["texts"][text]["bytes_per_token"] for kind, found in result["tokenizers"].items()}
        shown = ", ".join(f"{kind} {value:.3f} ({value / row[name]:.2f})" for kind, value in row.items())
        print(f"{name} {public.vocab}: {text}: {shown}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=record.data_folder())
    folder = (data := parser.parse_args().data) / "tokenizers"
    train, texts = corpora(data)
    sizes = {name: sum(len(text.encode()) for text in found) for name, found in train.items()}
    print(f"training bytes {sizes}; tokenizers {tokenizers.__version__}", flush=True)
    english = {name: texts[name] for name in ("English novels", "wikitext-2")}
    rounds = [
        ("minimind", Tokenizer.load(folder / "minimind_6400"), train["Chinese"] + train["English"], texts),
        ("gpt2", Tokenizer.load(folder / "gpt2"), train["English"], english),
        ("bert", Bert(folder / "bert_base_uncased"), train["English"], english),
    ]
    results = [contest(*facts) for facts in rounds]
    record.keep("tokenizers", {"training_bytes": sizes, "results": results})


if __name__ == "__main__":
    main()
