"""Near-duplicates: which library makes the signatures, what is found of planted ones, what it costs.

Real paragraphs of novels (English and Chinese), in documents of about 150 words or 300 ideographs; of a part of them a
copy is planted in which every unit is replaced with a probability drawn from [0, 0.08], so that the true Jaccard
similarities of 5-grams (computed exactly) lie between 0.4 and 1. All sides get the same n-grams as 64-bit numbers, and
each runs in a process of its own, by turns: wenlu (rensa's signatures, bands sorted by numpy, pairs compared by all
126 values), rensa's own index (RMinHashLSH) and datasketch's (MinHashLSH), pairs compared likewise. Memory is the
growth of the process to its peak, over the number of documents. False: pairs reported of a true similarity below 0.6.

    python benchmarks/dedup.py [--data ../shared/data] [--documents 40000] [--turns 3]
"""

import argparse
import json
import lzma
import pickle
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from wenlu.data.cleaning.dedup import BANDS, LIKE, NGRAM, ROWS, SEED, VALUES, Signatures
from wenlu.data.cleaning.units import ngrams, unit_numbers, units

import record

SIDES = ("wenlu", "rensa", "datasketch")


def documents(data: Path, wanted: int) -> list[list[str]]:
    """Documents as lists of units, English and Chinese by turns as long as both last."""
    found: dict[str, list[list[str]]] = {"english": [], "chinese": []}
    for language, size in (("english", 150), ("chinese", 300)):
        for file in sorted((data / language).glob("*.txt.xz")):
            own = units(lzma.decompress(file.read_bytes()).decode("utf-8-sig"))
            found[language] += [own[start : start + size] for start in range(0, len(own) - size, size)]
        random.Random(1).shuffle(found[language])
    half = min(wanted // 2, len(found["chinese"]))
    return found["chinese"][:half] + found["english"][: wanted - half]


def plant(given: list[list[str]], copies: int) -> list[list[str]]:
    """Copies of the first documents of a shuffled order, with units replaced by others of the same text."""
    chooser = random.Random(2)
    made = []
    for original in given[:copies]:
        rate = chooser.uniform(0, 0.08)
        made.append([chooser.choice(original) if chooser.random() < rate else unit for unit in original])
    return made


def wenlu(texts: list[np.ndarray]) -> list[tuple[int, int]]:
    found = Signatures()
    for document, own in enumerate(texts):
        found.add(own)
        found.end(document)
    return [(group[0], other) for group in found.groups() for other in group[1:]]


def rensa(texts: list[np.ndarray]) -> list[tuple[int, int]]:
    from rensa import RMinHash, RMinHashLSH

    index, made, pairs = RMinHashLSH(0.8, VALUES, BANDS), [], []
    for document, own in enumerate(texts):
        one = RMinHash(VALUES, SEED)
        one.update([number.to_bytes(8) for number in ngrams(own, NGRAM).tolist()])
        pairs += [(other, document) for other in index.query(one) if made[other].jaccard(one) >= LIKE]
        index.insert(document, one)
        made.append(one)
    return pairs


def datasketch(texts: list[np.ndarray]) -> list[tuple[int, int]]:
    from datasketch import MinHash, MinHashLSH

    index, values, pairs = MinHashLSH(num_perm=VALUES, params=(BANDS, ROWS)), [], []
    for document, own in enumerate(texts):
        one = MinHash(num_perm=VALUES, seed=1, hashfunc=int)
        one.update_batch((ngrams(own, NGRAM) & np.uint64(0xFFFFFFFF)).tolist())
        pairs += [(other, document) for other in index.query(one) if (values[other] == one.hashvalues).mean() >= LIKE]
        index.insert(document, one)
        values.append(one.hashvalues)
    return pairs


def resident(name: str) -> int:
    """Bytes of this process in memory now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


RUN = {"wenlu": wenlu, "rensa": rensa, "datasketch": datasketch}


def child(side: str, folder: Path) -> None:
    """One side in its own process: seconds, memory and pairs to a file."""
    texts = pickle.loads((folder / "texts.pickle").read_bytes())
    RUN[side](texts[:50])
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    began = time.perf_counter()
    pairs = RUN[side](texts)
    seconds = time.perf_counter() - began
    memory = (resident("VmHWM") - before) / len(texts)
    (folder / f"{side}.json").write_text(json.dumps({"seconds": seconds, "memory": memory, "pairs": pairs}))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    one, two = (set(ngrams(own, NGRAM).tolist()) for own in (a, b))
    return len(one & two) / max(1, len(one | two))


def judge(pairs: list[list[int]], texts: list[np.ndarray], planted: dict[int, tuple[int, float]]) -> dict:
    """Recall of planted pairs by their true similarity, and reported pairs that are not alike."""
    root = list(range(len(texts)))

    def find(document: int) -> int:
        while root[document] != document:
            root[document] = document = root[root[document]]
        return document

    for a, b in pairs:
        root[find(a)] = find(b)
    bins: dict[str, list[bool]] = {}
    for copy, (original, like) in planted.items():
        name = f"{int(like * 20) / 20:.2f}"
        bins.setdefault(name, []).append(find(copy) == find(original))
    from_08 = [found for name, marks in bins.items() if float(name) >= 0.8 for found in marks]
    return {
        "recall_from_0.8": sum(from_08) / len(from_08),
        "planted_from_0.8": len(from_08),
        "recall_by_similarity": {name: sum(bins[name]) / len(bins[name]) for name in sorted(bins)},
        "reported": len(pairs),
        "false": sum(jaccard(texts[a], texts[b]) < 0.6 for a, b in pairs),
    }


def plant_all(data: Path, wanted: int) -> tuple[list[np.ndarray], dict[int, tuple[int, float]]]:
    """(texts as numbers of units, copy → (its original, their true similarity)): a quarter of the texts are copies."""
    given = documents(data, wanted * 3 // 4)
    random.Random(3).shuffle(given)
    copies = plant(given, wanted - len(given))
    texts = [unit_numbers(" ".join(document)) for document in given + copies]
    return texts, {len(given) + k: (k, jaccard(texts[k], texts[len(given) + k])) for k in range(len(copies))}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=record.data_folder())
    parser.add_argument("--documents", type=int, default=40_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.side:
        child(options.side, options.folder)
        return
    texts, planted = plant_all(options.data, options.documents)
    runs: dict[str, list[dict]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "texts.pickle").write_bytes(pickle.dumps(texts))
        for _ in range(options.turns):
            for side in SIDES:
                subprocess.run([sys.executable, __file__, "--side", side, "--folder", folder], check=True)
                runs[side].append(json.loads(Path(folder, f"{side}.json").read_text()))
    results = {}
    for side, own in runs.items():
        seconds = statistics.median(run["seconds"] for run in own)
        results[side] = {
            "documents_per_second": len(texts) / seconds,
            "seconds": [run["seconds"] for run in own],
            "memory_bytes_per_document": statistics.median(run["memory"] for run in own),
            **judge(own[0]["pairs"], texts, planted),
        }
        print(side, json.dumps(results[side]), flush=True)
    form = {"ngram": NGRAM, "values": VALUES, "bands": BANDS, "rows": ROWS, "like": LIKE, "documents": len(texts)}
    peers = {package: version(package) for package in ("rensa", "datasketch")}
    record.keep("dedup", {"form": form, "peers": peers, "results": results})


if __name__ == "__main__":
    main()
