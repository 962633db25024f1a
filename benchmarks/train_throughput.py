"""Tokens a second and peak memory of training, beside Transformers' Trainer on the same GPT-2, BERT and T5.

Both sides train the same weights on the same samples, which lie ready: the same batches, context, AdamW with the same
rates, clipping at 1, no dropout, no compilation, no accumulation, the same number format (bf16 where the hardware
multiplies in it, else f32), nothing evaluated, logged or saved on the way. The Trainer (TrainingArguments' other values
as they come) and our loop each run in a process of their own, in turn. Timed are the steps after the first four.

    python benchmarks/train_throughput.py [--rounds 3] [--steps 24]
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record
from memory import resident

SHAPES = {
    "gpt2": {"family": "gpt2", "dim": 256, "layers": 6, "heads": 4, "context": 256, "batch": 8},
    "bert": {"family": "bert", "dim": 256, "layers": 6, "heads": 4, "context": 128, "batch": 32},
    "t5": {"family": "t5", "dim": 256, "layers": 3, "heads": 4, "context": 128, "batch": 16},
}
PURPOSES = {"gpt2": "text", "bert": "bert", "t5": "t5"}
SKIPPED = 4
"""Steps before the clock: what is made once is made in them."""
RATE = 3e-4


def recipe_of(shape: dict, data: Path, steps: int):
    from wenlu.data.prepare import PrepareConfig
    from wenlu.models.config import ModelConfig
    from wenlu.training.recipe import OptimizerConfig, Recipe, TrainingConfig

    settings = dict(shape)
    training = TrainingConfig(
        steps=steps, batch=settings.pop("batch"), eval_every=0, log_every=1, checkpoint_every=10**6, compile="off"
    )
    optimizer = OptimizerConfig("adamw", lr=RATE, weight_decay=0.01, clip=1.0)
    return Recipe(PrepareConfig((str(data),)), ModelConfig(**settings), training, optimizer)


def write_all(folder: Path, steps: int) -> None:
    """The text prepared for each family, the weights that both sides begin with, and the peer's samples."""
    import numpy as np

    from wenlu.data.prepare import PrepareConfig, prepare
    from wenlu.data.shards import open_data
    from wenlu.hub.folder import save
    from wenlu.models.build import build
    from wenlu.training.material import text_material

    text = str(record.data_folder() / "english" / "Dickens_Bleak.txt.xz")
    for name, shape in SHAPES.items():
        place = folder / name
        config = PrepareConfig((text,), tokenizer="bpe:8192", purpose=PURPOSES[name], context=shape["context"])
        prepare(config, place / "data", page=False)
        data = open_data(place / "data")
        recipe = recipe_of(shape, place / "data", steps)
        ids = {name: getattr(data.tokenizer, name) for name in ("bos_id", "eos_id", "pad_id")}
        model = build(dataclasses.replace(recipe.model, vocab=data.tokenizer.vocab, **ids), 0)
        save(model, data.tokenizer, place / "model")
        material = text_material(data, recipe)
        batches = [
            material.batch(material.order.batch_at(step), material.order.epochs_at(step)) for step in range(steps)
        ]
        names = {"ids": "input_ids", "decoder_ids": "decoder_input_ids", "targets": "labels"}
        for key, theirs in names.items():
            if key in batches[0]:
                rows = np.concatenate(
                    [batch["ids" if (name, key) == ("gpt2", "targets") else key] for batch in batches]
                )
                np.save(place / f"{theirs}.npy", rows.astype(np.int64))


def ours(shape: dict, place: Path, steps: int) -> tuple[float, int]:
    """Seconds of the timed steps, and the peak."""
    from wenlu.base.log import read_rows
    from wenlu.training.loop import train

    with tempfile.TemporaryDirectory() as out:
        train(recipe_of(shape, place / "data", steps), Path(out) / "run")
        rows = [row for row in read_rows(Path(out) / "run/wenlu/metrics.jsonl") if "loss" in row]
    return rows[-1]["seconds"] - rows[SKIPPED - 1]["seconds"], resident("VmHWM")


def peer(shape: dict, place: Path, steps: int) -> tuple[float, int]:
    """The same by Transformers' Trainer."""
    import numpy as np
    import torch
    import transformers
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from wenlu.base.device import has_bf16

    kind = {"gpt2": "AutoModelForCausalLM", "bert": "AutoModelForMaskedLM", "t5": "AutoModelForSeq2SeqLM"}
    model = getattr(transformers, kind[shape["family"]]).from_pretrained(place / "model")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    columns = {file.stem: torch.from_numpy(np.load(file)) for file in place.glob("*.npy")}
    rows = [{name: column[n] for name, column in columns.items()} for n in range(len(columns["labels"]))]
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

    cuda = torch.cuda.is_available()
    bf16 = has_bf16(torch.device("cuda" if cuda else "cpu"))
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out, per_device_train_batch_size=shape["batch"], max_steps=steps, learning_rate=RATE, weight_decay=0.01,
            max_grad_norm=1.0, bf16=bf16, use_cpu=not cuda, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=rows, callbacks=[Clock()]).train()
    return ends[-1] - ends[SKIPPED - 1], resident("VmHWM")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side, name = options.side.split()
        seconds, peak = {"ours": ours, "peer": peer}[side](SHAPES[name], options.place, options.steps)
        print(json.dumps([seconds, peak]))
        return
    from importlib.metadata import version

    import torch

    from wenlu.base.device import has_bf16

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder), options.steps)
        for name, shape in SHAPES.items():
            found: dict[str, list] = {"ours": [], "peer": []}
            for side in ("peer", "ours") * options.rounds:
                line = [sys.executable, __file__, "--side", f"{side} {name}", "--place", f"{folder}/{name}"]
                done = subprocess.run([*line, "--steps", str(options.steps)], capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(done.stderr[-2000:])
                found[side].append(json.loads(done.stdout.splitlines()[-1]))
            tokens = (options.steps - SKIPPED) * shape["batch"] * shape["context"]
            row = {"name": name, "shape": shape, "tokens": tokens}
            for side, runs in found.items():
                row[side] = {"seconds": [run[0] for run in runs], "peak": statistics.median(run[1] for run in runs)}
                row[side]["tokens_per_second"] = tokens / statistics.median(row[side]["seconds"])
            row["ratio"] = row["ours"]["tokens_per_second"] / row["peer"]["tokens_per_second"]
            rows.append(row)
            rates = ", ".join(f"{side} {row[side]['tokens_per_second']:,.0f}" for side in found)
            peaks = ", ".join(f"{side} {row[side]['peak'] / 1e6:,.0f}" for side in found)
            print(f"{name}: tokens/s {rates}: {row['ratio']:.2f} times; peak MB {peaks}", flush=True)
    dtype = "bf16" if has_bf16(torch.device("cpu")) else "f32"
    versions = {package: version(package) for package in ("transformers", "accelerate")}
    facts = {"rounds": options.rounds, "steps": options.steps, "skipped": SKIPPED, "dtype": dtype, "peers": versions}
    record.keep("train_throughput", {**facts, "results": rows})


if __name__ == "__main__":
    main()
