"""What the dial's law of losses (wenlu/training/law.py) is fitted on: runs of many sizes and lengths on four novels.

None of them is a text that benchmarks/dial.py judges the dial by. Every run is kept as it ends, so the script goes on
where it was stopped; speed plays no part in it. At the end the constants are fitted, by least squares on the logarithm
of bits per byte, and printed, with the error for each novel when it is left out of the fit.

    python benchmarks/dial_fit.py [--data ../shared/data] [--fit-only]
"""

import argparse
import dataclasses
import json
import lzma
import math
import tempfile
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.data.shards import open_data
from wenlu.models.config import ModelConfig
from wenlu.training.law import LSTM, TRANSFORMER, Constants, Text, bits_per_byte, level_of
from wenlu.training.loop import train
from wenlu.training.plan import RATES, RATES_FROM_BIGRAMS, SCHEDULE
from wenlu.training.recipe import OptimizerConfig, Recipe, ScheduleConfig, TrainingConfig

import record

CORPORA = {
    "Bleak House": "english/Dickens_Bleak.txt.xz",
    "Emma": "english/Austen_Emma.txt.xz",
    "水浒传": "chinese/水浒传.txt.xz",
    "西游记": "chinese/西游记.txt.xz",
}
SIZES = {"B": (96, 2), "C": (128, 3), "D": (192, 4), "E": (256, 4), "F": (256, 6)}
"""Widths and layers; heads of 32 up to a width of 160, of 64 beyond."""


def shape(size: str, tokens: float, context: int = 128, batch: int = 8, dropout: float = 0.0) -> dict:
    """One run: about `tokens` million tokens."""
    dim, layers = SIZES[size]
    steps = round(1e6 * tokens / (context * batch))
    shape = dict(dim=dim, layers=layers, heads=dim // (32 if dim <= 160 else 64), tied=False, start="bigrams")
    return shape | dict(context=context, batch=batch, steps=steps, dropout=dropout, family="qwen3")


def lstm(dim: int, layers: int, tokens: float, dropout: float = 0.0) -> dict:
    return dict(
        dim=dim, layers=layers, heads=1, context=128, batch=16, steps=round(1e6 * tokens / 2048), dropout=dropout,
        family="lstm",
    )  # fmt: skip


RUNS = [
    ("Bleak House", shape("C", 0.4)),
    ("水浒传", shape("C", 0.4)),
    ("Bleak House", shape("D", 0.4)),
    ("水浒传", shape("D", 0.4)),
    ("Emma", shape("C", 1.2, dropout=0.2)),
    ("西游记", shape("C", 0.4)),
    ("水浒传", shape("C", 1.2, dropout=0.1)),
    ("Bleak House", shape("B", 0.4)),
    ("Bleak House", shape("C", 0.4, batch=32)),
    ("Bleak House", shape("C", 0.4, context=256, batch=4)),
    ("西游记", shape("D", 0.8, dropout=0.1)),
    ("Bleak House", shape("C", 1.2, dropout=0.1)),
    ("水浒传", shape("C", 2.4, dropout=0.2)),
    ("Bleak House", shape("F", 0.4)),
    ("Emma", shape("D", 0.6, dropout=0.1)),
    ("Bleak House", shape("D", 1.2, dropout=0.1)),
    ("水浒传", shape("D", 1.8, dropout=0.2)),
    ("Bleak House", shape("C", 0.2)),
    ("水浒传", shape("C", 0.2)),
    ("Bleak House", shape("D", 0.2)),
    ("水浒传", shape("D", 0.2)),
    ("Bleak House", lstm(256, 1, 0.4)),
    ("水浒传", lstm(384, 1, 0.4)),
    ("Emma", lstm(384, 1, 0.6)),
]


def prepared(name: str, source: Path, folder: Path) -> Path:
    """The novel, prepared once, as `wenlu train` would."""
    out = folder / name
    if not out.exists():
        text = folder / f"{name}.txt"
        text.write_bytes(lzma.decompress(source.read_bytes()))
        prepare(PrepareConfig((str(text),), context=512), out, page=False)
    return out


def recipe_of(data: Path, wanted: dict) -> Recipe:
    wanted = dict(wanted)
    batch, steps, start = wanted.pop("batch"), wanted.pop("steps"), wanted.pop("start", "random")
    every = max(1, steps // 4)
    training = TrainingConfig(
        steps=steps, batch=batch, eval_every=every, eval_tokens=0, sample_tokens=0, compile="off", start=start
    )
    return Recipe(
        PrepareConfig((str(data),)),
        ModelConfig(**wanted),
        training,
        OptimizerConfig(**(RATES_FROM_BIGRAMS if start == "bigrams" else RATES)),
        ScheduleConfig(**SCHEDULE),
    )


def run(data: Path, wanted: dict) -> dict:
    """Train one shape: bits per byte of all held-out text, the least and the last."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(recipe_of(data, wanted), Path(folder) / "run", report=False)
        rows = [json.loads(line) for line in (Path(folder) / "run/wenlu/metrics.jsonl").read_text().splitlines()]
    bits = [row["bits_per_byte"] for row in rows if "bits_per_byte" in row]
    return {"bits": min(bits), "last": bits[-1], "seconds": outcome.seconds}


def text_of(data: Path) -> Text:
    """What the law knows of a prepared novel."""
    opened = open_data(data)
    part = opened.description["train"]
    return Text(part["bytes"], part["tokens"], opened.tokenizer.vocab, level_of(opened))


def fit(rows: list[dict], texts: dict[str, Text], start: Constants) -> Constants:
    """Constants of one family: logarithms are fitted, so that all stay positive; large misses count less."""
    names = [field.name for field in dataclasses.fields(Constants)]

    def misses(logs: np.ndarray) -> np.ndarray:
        constants = Constants(**dict(zip(names, np.exp(logs).tolist(), strict=True)))
        return np.array([math.log(_predicted(row, texts, constants) / row["bits"]) for row in rows])

    def pull(logs: np.ndarray) -> np.ndarray:
        """Towards where the fit starts: what so few runs cannot tell keeps its usual value."""
        return np.concatenate([misses(logs), 0.1 * (logs - first)])

    first = np.log([getattr(start, name) for name in names])
    found = least_squares(pull, first, loss="soft_l1", f_scale=0.03)
    return Constants(**{name: float(f"{value:.4g}") for name, value in zip(names, np.exp(found.x), strict=True)})


def _predicted(row: dict, texts: dict[str, Text], constants: Constants) -> float:
    recipe = recipe_of(Path(), row["shape"])
    return bits_per_byte(texts[row["corpus"]], recipe.model, recipe.training.batch, recipe.training.steps, constants)


def judged(rows: list[dict], texts: dict[str, Text], start: Constants) -> dict:
    """The constants, and the errors of prediction for each novel from the other ones."""
    errors = {}
    for name in sorted({row["corpus"] for row in rows}):
        others = fit([row for row in rows if row["corpus"] != name], texts, start)
        left_out = [row for row in rows if row["corpus"] == name]
        errors[name] = [round(_predicted(row, texts, others) / row["bits"] - 1, 4) for row in left_out]
    constants = fit(rows, texts, start)
    inside = [round(_predicted(row, texts, constants) / row["bits"] - 1, 4) for row in rows]
    return {"constants": dataclasses.asdict(constants), "errors_left_out": errors, "errors": inside}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=record.data_folder())
    parser.add_argument("--fit-only", action="store_true")
    options = parser.parse_args()
    kept = record.ROOT / "benchmarks" / "results" / "dial_fit.json"
    rows = json.loads(kept.read_text())["runs"] if kept.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        data = {name: prepared(name, options.data / source, Path(folder)) for name, source in CORPORA.items()}
        texts = {name: text_of(path) for name, path in data.items()}
        about = {name: dataclasses.asdict(text) for name, text in texts.items()}
        for name, wanted in [] if options.fit_only else RUNS:
            if any(row["corpus"] == name and row["shape"] == wanted for row in rows):
                continue
            rows.append({"corpus": name, "shape": wanted, **run(data[name], wanted)})
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
            record.keep("dial_fit", {"texts": about, "runs": rows})
    families = {"transformer": TRANSFORMER, "lstm": LSTM}
    fitted = {
        name: judged([row for row in rows if (row["shape"]["family"] == "lstm") == (name == "lstm")], texts, start)
        for name, start in families.items()
    }
    print(json.dumps(fitted, indent=1, ensure_ascii=False))
    record.keep("dial_fit", {"texts": about, "runs": rows, "fitted": fitted})


if __name__ == "__main__":
    main()
