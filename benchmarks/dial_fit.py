"""What the dial's law of losses (wenlu/training/law.py) is fitted on: runs of many sizes and lengths, four novels.

None of them is a text that benchmarks/dial.py judges the dial by. Every run is kept as it ends, so the script goes on
where it was stopped; speed plays no part in it. At the end the constants are fitted (least squares on the logarithm of
bits per byte) and printed, with each run's error when its novel is left out of the fit.

    python benchmarks/dial_fit.py [--data ../shared/data] [--fit-only]
"""

import json
import lzma
import tempfile
from pathlib import Path

from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.models.config import ModelConfig
from wenlu.training.loop import train
from wenlu.training.recipe import OptimizerConfig, Recipe, ScheduleConfig, TrainingConfig

CORPORA = {
    "Bleak House": "english/Dickens_Bleak.txt.xz",
    "Emma": "english/Austen_Emma.txt.xz",
    "水浒传": "chinese/水浒传.txt.xz",
    "西游记": "chinese/西游记.txt.xz",
}


def prepared(name: str, source: Path, folder: Path) -> Path:
    """The novel, prepared once, as `wenlu train` would."""
    out = folder / name
    if not out.exists():
        text = folder / f"{name}.txt"
        text.write_bytes(lzma.decompress(source.read_bytes()))
        prepare(PrepareConfig((str(text),), context=512), out, page=False)
    return out


def run(data: Path, shape: dict) -> dict:
    """Train one shape; bits per byte of all held-out text, the least and the last, and what the law goes by."""
    shape = dict(shape)
    batch, steps = shape.pop("batch"), shape.pop("steps")
    optimizer, schedule = shape.pop("optimizer", {}), shape.pop("schedule", {})
    training = TrainingConfig(
        steps=steps, batch=batch, eval_every=max(1, steps // 4), eval_tokens=0, sample_tokens=0, compile="off"
    )
    recipe = Recipe(
        PrepareConfig((str(data),)),
        ModelConfig(**shape),
        training,
        OptimizerConfig(**optimizer),
        ScheduleConfig(**schedule),
    )
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(recipe, Path(folder) / "run")
        rows = [json.loads(line) for line in (Path(folder) / "run/wenlu/metrics.jsonl").read_text().splitlines()]
    bits = [row["bits_per_byte"] for row in rows if "bits_per_byte" in row]
    return {"bits": min(bits), "last": bits[-1], "seconds": outcome.seconds}
