"""A T5 from scratch that translates German to English: sacreBLEU on the tests of Multi30k.

The 29,000 pairs of its training part, `val` for the choice of the best weights; nothing is pretrained but for a few
steps on the same texts, from which the tokenizer comes too. `wenlu finetune recipes/translation.toml`, then
`wenlu eval --examples` with four beams. Published systems that see no picture reach 35 to 41 on test_2016_flickr.

    python benchmarks/translation.py [--epochs 11]
    python benchmarks/translation.py --run runs/de-en --how "..."   # score a run that was made otherwise
"""

import argparse
import tempfile
import time
from pathlib import Path

import record
from bert import wenlu

TESTS = ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")
BEAMS = 4
SOURCES = ("Ein kleiner Junge spielt im Schnee.", "Zwei Frauen kaufen Gemüse.", "Der Ofen im Haus ist warm.")


def files(name: str) -> list[str]:
    folder = record.data_folder() / "translation"
    return [str(folder / f"{name}.{language}.gz") for language in ("de", "en")]


def trained(folder: Path, epochs: float) -> tuple[Path, str]:
    """The run, and in words how it came about."""
    recipes, began = record.ROOT / "recipes", time.monotonic()
    first, run = str(folder / "t5"), folder / "de-en"
    shape = ["--model.dim", "192", "--data.tokenizer", "bpe:4000", "--training.steps", "120"]
    wenlu("train", str(recipes / "t5.toml"), *files("train"), "--out", first, *shape)
    wenlu(
        "finetune", str(recipes / "translation.toml"), first, *files("train"), "--held-out", *files("val"),
        "--out", str(run), "--epochs", str(epochs),
    )  # fmt: skip
    return run, f"120 steps on the texts alone, then {epochs:g} epochs: {(time.monotonic() - began) / 60:.0f} minutes."


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=float, default=11)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--how", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, how = (options.run, options.how) if options.run else trained(Path(folder), options.epochs)
        scores = {}
        for name in TESTS:
            scores[name] = wenlu("eval", str(run), "--examples", *files(name), "--beams", str(BEAMS))["scores"]
            print(name, scores[name]["bleu"], flush=True)
        model = wenlu("info", str(run))["model"]
        samples = []
        for source in SOURCES:
            line = ("generate", str(run), "--prompt", source, "--beams", str(BEAMS))
            samples.append([source, wenlu(*line)["samples"][0]["text"]])
            print(*samples[-1], sep=" → ", flush=True)
    record.keep("translation", {"beams": BEAMS, "how": how, "scores": scores, "samples": samples, "model": model})


if __name__ == "__main__":
    main()
