"""The predicted peak of training beside the measured one, on this machine: LSTM, GPT and BERT, four sizes each.

Every shape trains in a process of its own, by the loop that `wenlu train` uses: four steps, an evaluation, a
checkpoint. Measured is what the resident memory grows by at its peak over what it is before that run, after a tiny run
of the same family has loaded whatever is loaded once.

    python benchmarks/memory.py [--only lstm]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import record

SHAPES = {
    "lstm-1": {"family": "lstm", "dim": 256, "layers": 1, "context": 128, "batch": 32},
    "lstm-2": {"family": "lstm", "dim": 512, "layers": 2, "context": 128, "batch": 32},
    "lstm-3": {"family": "lstm", "dim": 768, "layers": 3, "context": 256, "batch": 16},
    "lstm-4": {"family": "lstm", "dim": 1536, "layers": 2, "context": 128, "batch": 16},
    "gpt2-1": {"family": "gpt2", "dim": 128, "layers": 4, "heads": 4, "context": 128, "batch": 16},
    "gpt2-2": {"family": "gpt2", "dim": 256, "layers": 6, "heads": 4, "context": 256, "batch": 16},
    "gpt2-3": {"family": "gpt2", "dim": 512, "layers": 8, "heads": 8, "context": 512, "batch": 4},
    "gpt2-4": {"family": "gpt2", "dim": 768, "layers": 12, "heads": 12, "context": 512, "batch": 2},
    "qwen3-1": {"family": "qwen3", "dim": 128, "layers": 4, "heads": 4, "context": 128, "batch": 16},
    "qwen3-2": {"family": "qwen3", "dim": 256, "layers": 6, "heads": 4, "context": 256, "batch": 16},
    "qwen3-3": {"family": "qwen3", "dim": 512, "layers": 8, "heads": 8, "context": 512, "batch": 4},
    "qwen3-4": {"family": "qwen3", "dim": 768, "layers": 12, "heads": 12, "context": 512, "batch": 2},
    "bert-1": {"family": "bert", "dim": 128, "layers": 4, "heads": 4, "context": 128, "batch": 16},
    "bert-2": {"family": "bert", "dim": 256, "layers": 6, "heads": 4, "context": 256, "batch": 16},
    "bert-3": {"family": "bert", "dim": 512, "layers": 8, "heads": 8, "context": 512, "batch": 4},
    "bert-4": {"family": "bert", "dim": 768, "layers": 12, "heads": 12, "context": 512, "batch": 2},
}
CHARACTERS = 4000
"""Of the text: Chinese ones, so that the vocabulary, hence the logits, are as large as is usual."""


def write_data(folder: Path) -> None:
    """Prepared folders of random characters, by what they are for."""
    from wenlu.data.prepare import PrepareConfig, prepare

    draw = random.Random(0)
    text = "".join(chr(0x4E00 + draw.randrange(CHARACTERS)) for _ in range(200_000))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    for purpose in ("text", "bert"):
        config = PrepareConfig((str(folder / "text.txt"),), tokenizer="char", context=512, purpose=purpose)
        prepare(config, folder / purpose)


def resident(key: str) -> int:
    """VmRSS, what is resident now, or VmHWM, the most since it was last reset; in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def measure(shape: dict, data: Path, out: Path) -> dict:
    """Train one shape in this process; bytes measured and predicted, by kind."""
    import dataclasses

    from wenlu.base.device import has_bf16, pick_device
    from wenlu.data.prepare import PrepareConfig
    from wenlu.models.config import ModelConfig
    from wenlu.models.size import parameters, training_bytes
    from wenlu.training.loop import train
    from wenlu.training.recipe import OptimizerConfig, Recipe, TrainingConfig
    from wenlu.training.update import products

    settings = dict(shape)
    batch, micro, optimizer = settings.pop("batch"), settings.pop("micro", 0), settings.pop("optimizer", "adamw")
    model = ModelConfig(**settings)
    training = TrainingConfig(steps=4, batch=batch, micro_batch=micro, eval_every=2, eval_tokens=5_000, compile="off")
    recipe = Recipe(PrepareConfig((str(data),)), model, training, OptimizerConfig(optimizer))
    tiny = dataclasses.replace(model, dim=32, layers=1, context=16, heads=2 if model.family != "lstm" else 1)
    small = dataclasses.replace(training, batch=2, micro_batch=0, eval_tokens=100)
    train(dataclasses.replace(recipe, model=tiny, training=small), out / "tiny")
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    train(recipe, out / "run")
    measured = resident("VmHWM") - before
    vocab = json.loads((data / "data.json").read_text())["vocab"]
    config = dataclasses.replace(model, vocab=vocab)
    dtype = products(has_bf16(pick_device("cpu")), pick_device("cpu"))
    parts = training_bytes(config, micro or batch, model.context, optimizer, dtype, accumulating=0 < micro < batch)
    return {"dtype": dtype, "parameters": parameters(config), "measured": measured, "predicted": parts}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="shapes whose name begins so; nothing is kept then")
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.shape:
        with tempfile.TemporaryDirectory() as out:
            print(json.dumps(measure(json.loads(options.shape), options.data, Path(out))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for name, shape in SHAPES.items():
            if not name.startswith(options.only):
                continue
            purpose = "bert" if shape["family"] == "bert" else "text"
            line = [sys.executable, __file__, "--shape", json.dumps(shape), "--data", f"{folder}/{purpose}"]
            done = subprocess.run(line, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            row = {"name": name, "shape": shape, **json.loads(done.stdout)}
            row["ratio"] = round(row["predicted"]["total"] / row["measured"], 4)
            rows.append(row)
            kinds = ", ".join(f"{kind} {value / 1e6:,.0f}" for kind, value in row["predicted"].items())
            print(
                f"{name}: measured {row['measured'] / 1e6:,.0f} MB, predicted {kinds}: {row['ratio']:.3f}", flush=True
            )
    if not options.only:
        record.keep("memory", {"results": rows})


if __name__ == "__main__":
    main()
