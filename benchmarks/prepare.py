"""wenlu prepare: against datasets.map and the bare tokenizer, in one process's time and memory; what cleaning costs.

Paragraphs of all English and Chinese corpora, shuffled, repeated up to 10, 100 and 400 MB, in documents of 2 to 12; one
tokenizer (bpe:8192, learned once), no cleaning (`--skip all`), nothing held out. `wenlu prepare` is timed as a whole
process, and so is datasets.map (num_proc=2) over the same jsonl; the bare encode_batch_fast over texts in memory only
while it encodes, and so is wenlu's own encoder (tokenizing_forms.py says all in full). By turns; the ids of all four
must be the same, by sha256.
The ratios are what counts: the machine does other things too, so seconds of processors are given beside the clock's.
Apart from that: cleaning, near-duplicates (planted as in dedup.py), the growth of memory by documents, learning a
tokenizer from the most text.

    pip install -c constraints.txt -e ".[benchmarks]"
    python benchmarks/prepare.py [--sizes 10 100 400] [--rounds 3 3 1] [--only speed|cleaning|learning]
"""

import argparse
import hashlib
import json
import lzma
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

import record
from contest import read
from dedup import judge, plant_all
from dedup import wenlu as near_duplicates
from tokenizing_forms import digest_of_arrow
from whole_process import Run, used, wenlu

HERE = Path(__file__).parent
SEED = 0
TOKENIZER = "bpe:8192"
KINDS = {"documents of 2 to 12 paragraphs": (2, 12), "documents of one paragraph": (1, 1)}


def paragraphs(data: Path) -> list[str]:
    """Of every corpus, English and Chinese, each once."""
    texts = [read(file) for file in sorted((data / "english").glob("*.txt*")) if file.stem != "names"]
    texts += [read(file) for file in sorted((data / "chinese").glob("*.txt.xz"))]
    rows = lzma.decompress((data / "english" / "c4_demo.jsonl.xz").read_bytes()).decode().splitlines()
    texts += [json.loads(row)["text"] for row in rows]
    found = [part.strip("\n") for text in texts for part in text.split("\n\n" if "\n\n" in text else "\n")]
    with tarfile.open(data / "chinese" / "chinese_poetry.tar.xz") as archive:
        for entry in archive:
            if entry.isfile() and entry.name.endswith(".json"):
                poems = json.loads(archive.extractfile(entry).read())
                found += ["\n".join(poem.get("paragraphs") or poem.get("content") or []) for poem in poems]
    return [part for part in found if part.strip()]


def write_rows(found: list[str], size: int, file: Path, lengths: tuple[int, int] = (2, 12)) -> dict[str, int]:
    """Documents of some paragraphs each, `size` bytes of text or a little more, as jsonl."""
    draw, documents, written, waiting = random.Random(SEED), 0, 0, []
    with open(file, "w", encoding="utf-8") as out:
        while written < size:
            if len(waiting) < lengths[1]:
                waiting += draw.sample(found, len(found))
                waiting.reverse()
            text = "\n\n".join(waiting.pop() for _ in range(draw.randint(*lengths)))
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            documents, written = documents + 1, written + len(text.encode())
    return {"documents": documents, "bytes": written}


def needed(run: Run) -> Run:
    if run.code:
        raise RuntimeError(run.said)
    return run


def ours(rows: Path, tokenizer: Path, folder: Path) -> dict:
    arguments = [str(rows), "--out", str(folder / "data"), "--tokenizer", str(tokenizer), "--validation", "0"]
    run = needed(wenlu("prepare", *arguments, "--skip", "all"))
    description, digest = json.loads((folder / "data" / "data.json").read_text()), hashlib.sha256()
    for file in sorted((folder / "data" / "train").glob("*.bin")):
        digest.update(np.fromfile(file, description["dtype"]).astype(np.uint32).tobytes())
    tokens = description["train"]["tokens"]
    facts = {"seconds": run.seconds, "processor": run.processor, "peak": run.peak}
    return facts | {"sha256": digest.hexdigest(), "tokens": tokens}


def peer(side: str, rows: Path, tokenizer: Path, folder: Path) -> dict:
    end = json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"]["<|endoftext|>"]
    script = [sys.executable, str(HERE / "tokenizing_forms.py"), side]
    began, work = time.perf_counter(), used()
    line = [*script, str(rows), str(tokenizer / "tokenizer.json"), str(folder), str(end)]
    done = subprocess.run(line, capture_output=True, text=True)
    seconds, work = time.perf_counter() - began, used() - work
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    if side in ("raw", "encoder"):
        return json.loads((folder / "ids.json").read_text())
    return {"seconds": seconds, "processor": work, "sha256": digest_of_arrow(folder)}


def speed(found: list[str], sizes: list[int], rounds: list[int], tokenizer: Path, keep) -> None:
    """The three sides by turns at every size; each round's ratios, and their medians."""
    for size, turns in zip(sizes, rounds, strict=True):
        with tempfile.TemporaryDirectory() as made:
            rows = Path(made, "rows.jsonl")
            facts = write_rows(found, size * 1_000_000, rows)
            runs: dict[str, list[dict]] = {"wenlu": [], "datasets": [], "raw": [], "encoder": []}
            for _ in range(turns):
                for side, own in runs.items():
                    with tempfile.TemporaryDirectory() as out:
                        work = (rows, tokenizer, Path(out))
                        own.append(ours(*work) if side == "wenlu" else peer(side, *work))
                    print(size, side, own[-1], flush=True)
                assert len({own[-1]["sha256"] for own in runs.values()}) == 1, "all sides have the same ids"
                keep(f"{size} MB", facts | ratios(runs))


def ratios(runs: dict[str, list[dict]]) -> dict:
    result = {"peak": statistics.median(run["peak"] for run in runs["wenlu"])}
    for clock in ("seconds", "processor"):
        taken = {side: [run[clock] for run in own] for side, own in runs.items()}
        result[clock] = taken
        for other in ("datasets", "raw"):
            each = [them / us for them, us in zip(taken[other], taken["wenlu"])]
            result[f"{clock} of {other} / of wenlu"] = {"median": statistics.median(each), "each": each}
            print(f"{clock} of {other} / of wenlu: {statistics.median(each):.2f} ({each})", flush=True)
        each = [raw / own for raw, own in zip(taken["raw"], taken["encoder"])]
        result[f"{clock} of raw / of encoder"] = {"median": statistics.median(each), "each": each}
    return result | {"tokens": runs["wenlu"][0]["tokens"], "same ids": True}


def cleaning(found: list[str], tokenizer: Path, data: Path, keep) -> None:
    """Seconds and peaks with the rules and without, by the number of documents; planted near-duplicates."""
    rows = []
    for kind, lengths in KINDS.items():
        for size in (5, 15):
            with tempfile.TemporaryDirectory() as out:
                file = Path(out, "rows.jsonl")
                facts = write_rows(found, size * 1_000_000, file, lengths) | {"kind": kind}
                given = [str(file), "--tokenizer", str(tokenizer), "--validation", "0"]
                for name, more in (("cleaned", ["--allow", "dropped", "duplicates"]), ("raw", ["--skip", "all"])):
                    run = needed(wenlu("prepare", *given, "--out", str(Path(out, name)), *more))
                    facts[name] = {"seconds": run.seconds, "peak": run.peak}
                facts["cleaning seconds"] = clean_alone(file, Path(out))
                rows.append(facts)
                print(facts, flush=True)
    texts, planted = plant_all(data, 8000)
    keep("cleaning", {"rows": rows, "near-duplicates": judge(near_duplicates(texts), texts, planted)})


def clean_alone(file: Path, folder: Path) -> float:
    """Seconds of processor for reading and cleaning, in this process."""
    from wenlu.data.cleaning.corpus import clean
    from wenlu.data.cleaning.rules import active_rules
    from wenlu.data.cleaning.spool import Spool
    from wenlu.data.reading.sources import read_documents

    began = time.process_time()
    with Spool(folder / "spool") as spool:
        clean([read_documents((str(file),))], active_rules(()), spool)
    return time.process_time() - began


def learning(found: list[str], sizes: list[int], keep) -> None:
    """Learning by itself, at the end of which nothing is kept but what it took: beyond 100 MB it is from a sample."""
    code = (
        "import sys, time; from wenlu.tokenization.learn import learn\n"
        "from wenlu.data.reading.sources import read_documents\n"
        "learn('bpe', (p.text for p in read_documents((sys.argv[1],))), 8192)\n"
        "peak = next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]\n"
        "print(time.process_time(), int(peak) * 1024)"
    )
    for size in sizes:
        with tempfile.TemporaryDirectory() as out:
            facts = write_rows(found, size * 1_000_000, file := Path(out, "rows.jsonl"))
            done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
        work, peak = done.stdout.split()
        said = " ".join(done.stderr.split())
        keep(f"learning {size} MB", facts | {"processor": float(work), "peak": int(peak), "said": said})
        print(size, done.stdout, said, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=record.data_folder())
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 400])
    parser.add_argument("--rounds", type=int, nargs="+", default=[3, 3, 1])
    parser.add_argument("--only", choices=("speed", "cleaning", "learning"))
    options = parser.parse_args()
    found = paragraphs(options.data)
    distinct = sum(len(part.encode()) for part in found)
    print(f"{len(found):,} paragraphs, {distinct:,} bytes", flush=True)
    path = HERE / "results" / "prepare.json"
    results = json.loads(path.read_text())["results"] if options.only and path.exists() else {}

    def keep(name: str, facts: dict) -> None:
        results[name] = facts
        peers = {package: version(package) for package in ("datasets", "pyarrow")}
        record.keep("prepare", {"peers": peers, "distinct_bytes": distinct, "results": results})

    with tempfile.TemporaryDirectory() as folder:
        rows, tokenizer = Path(folder, "rows.jsonl"), Path(folder, "learned")
        write_rows(found, 10_000_000, rows)
        needed(wenlu("prepare", str(rows), "--out", str(tokenizer), "--tokenizer", TOKENIZER, "--skip", "all"))
        if options.only in (None, "speed"):
            speed(found, options.sizes, options.rounds, tokenizer, keep)
        if options.only in (None, "cleaning"):
            cleaning(found, tokenizer, options.data, keep)
        if options.only in (None, "learning"):
            learning(found, [100, 400], keep)


if __name__ == "__main__":
    main()
