"""Beside prepare.py: datasets.map with a tokenizer's encode_batch_fast, encode_batch_fast alone, wenlu's encoder alone.

    python benchmarks/tokenizing_forms.py datasets ROWS.jsonl TOKENIZER.json CACHE END
    python benchmarks/tokenizing_forms.py raw|encoder ROWS.jsonl TOKENIZER.json CACHE END

`datasets`: load_dataset("json") and map(batched=True, num_proc=2) in batches of 1,000 rows as by default, one thread a
process (TOKENIZERS_PARALLELISM=false: two on two cores are slower), the end token END after each document; what is
left are arrow files in CACHE. `raw`: batches of 1,000 texts that are in memory, on all cores; its clock runs only while
the library encodes, so that neither the reading nor the making of lists counts. `encoder`: the same with
`Tokenizer.encode_arrays`, whose opening counts. Afterwards, and off the clock, both write to CACHE/ids.json the sha256
of all ids in order as uint32, and their seconds.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tokenizers

BATCH = 1000


def opened(file: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_file(file)
    tokenizer.encode_special_tokens = True
    return tokenizer


def by_datasets(rows: str, file: str, cache: str, end: int) -> None:
    from datasets import load_dataset

    tokenizer = opened(file)

    def encode(batch: dict) -> dict:
        found = tokenizer.encode_batch_fast(batch["text"], add_special_tokens=False)
        return {"ids": [[*encoding.ids, end] for encoding in found]}

    data = load_dataset("json", data_files=rows, split="train", cache_dir=cache)
    data = data.map(encode, batched=True, num_proc=2, remove_columns=data.column_names)
    files = [entry["filename"] for entry in data.cache_files]
    Path(cache, "files.json").write_text(json.dumps(files))


def digest_of_arrow(cache: Path) -> str:
    """Of the ids in the arrow files that `by_datasets` left."""
    import pyarrow

    digest = hashlib.sha256()
    for file in json.loads((cache / "files.json").read_text()):
        with pyarrow.memory_map(file) as source:
            for batch in pyarrow.ipc.open_stream(source):
                ids = batch.column("ids").flatten().to_numpy(zero_copy_only=False)
                digest.update(ids.astype(np.uint32).tobytes())
    return digest.hexdigest()


def raw(rows: str, file: str, cache: str, end: int) -> None:
    encode = partial(opened(file).encode_batch_fast, add_special_tokens=False)
    timed(encode, lambda found: found.ids, rows, cache, end)


def encoder(rows: str, file: str, cache: str, end: int) -> None:
    from wenlu.tokenization.tokenizer import Tokenizer

    timed(Tokenizer.load(Path(file).parent).encode_arrays, lambda found: found, rows, cache, end)


def timed(encode: Callable, ids_of: Callable, rows: str, cache: str, end: int) -> None:
    digest, seconds, work = hashlib.sha256(), 0.0, 0.0
    with open(rows, encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        began, worked = time.perf_counter(), time.process_time()
        found = encode(batch)
        seconds, work = seconds + time.perf_counter() - began, work + time.process_time() - worked
        for encoding in found:
            digest.update(np.array([*ids_of(encoding), end], dtype=np.uint32).tobytes())
    Path(cache, "ids.json").write_text(
        json.dumps({"seconds": seconds, "processor": work, "sha256": digest.hexdigest()})
    )


if __name__ == "__main__":
    side, rows, file, cache, end = sys.argv[1:]
    if side == "datasets":
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    {"datasets": by_datasets, "raw": raw, "encoder": encoder}[side](rows, file, cache, int(end))
