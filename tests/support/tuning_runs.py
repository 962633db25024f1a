"""Small models, examples of every task and recipes of a few steps, for the tests of tuning."""

import json
from pathlib import Path

import wenlu.training.loop as loop_module
from wenlu.base.files import sha256_file
from wenlu.base.log import read_rows
from wenlu.data.rows.config import RowsConfig
from wenlu.hub.folder import save
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn
from wenlu.training.recipe import TrainingConfig, TuningConfig, TuningRecipe
from wenlu.training.run_folder import RunFolder
from wenlu.training.tuning import set_up_tuning

TEXT = "the stove burns in the house; 炉火在屋里。 a cold room is warm now, Ann and Bob of Paris say."
PURPOSES = {"qwen3": "text", "gpt2": "text", "bert": "bert", "t5": "t5"}
KINDS = {"chat": "qwen3", "pairs": "t5", "classify": "bert", "tag": "bert", "span": "bert"}
"""Task → a family for it."""


def talk(n: int) -> dict:
    messages = [
        ("user", f"what is {n}?"),
        ("assistant", f"{n % 7}, {n}"),
        ("user", "and?"),
        ("assistant", "炉" * (n % 3 + 1)),
    ]
    return {"messages": [{"role": role, "content": content} for role, content in messages[: 2 + 2 * (n % 3 == 1)]]}


def asked(n: int) -> dict:
    context = f"the stove {n} burns in the house of Ann " * (1 + n % 3)
    answer = {"text": str(n), "answer_start": 10}
    return {"paragraphs": [{"context": context, "qas": [{"id": f"q{n}", "question": "which?", "answers": [answer]}]}]}


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


EXAMPLES = {
    "chat": ("chat.jsonl", lambda some: lines(map(talk, some))),
    "pairs": ("pairs.tsv", lambda some: "".join(f"stove {n}\t{'Ofen ' * (n % 4 + 1)}{n}\n" for n in some)),
    "classify": (
        "classify.jsonl",
        lambda some: lines({"text": f"room {n} is " + "cold warm".split()[n % 2], "label": n % 2} for n in some),
    ),
    "tag": (
        "tag.jsonl",
        lambda some: lines(
            {"tokens": ["Ann", str(n), "of", "Paris"][: 1 + n % 4], "tags": ["B-P", "I-P", "O", "B-L"][: 1 + n % 4]}
            for n in some
        ),
    ),
    "span": ("span.json", lambda some: json.dumps({"data": list(map(asked, some))})),
}
"""Task → name and content of a file of examples with these numbers."""


def write_all(folder: Path, dropout: float = 0.0) -> Path:
    """A folder of models by family, and files of examples by task."""
    for family, purpose in PURPOSES.items():
        tokenizer = learn("bpe", [TEXT] * 5, 300, purpose)
        ids = {name: getattr(tokenizer, name) for name in ("bos_id", "eos_id", "pad_id")}
        shape = dict(dim=16, layers=2, heads=2, context=64, dropout=dropout)
        save(build(ModelConfig(family, **shape, vocab=tokenizer.vocab, **ids), 0), tokenizer, folder / family)
    for name, content in EXAMPLES.values():
        (folder / name).write_text(content(range(48)), encoding="utf-8")
    return folder


def recipe(models: Path, task: str, family: str = "", rows: dict | None = None, tuning: dict | None = None, **training):
    """A recipe of twelve steps for a task."""
    often = dict(steps=12, batch=4, eval_every=4, checkpoint_every=3, log_every=1, device="cpu", threads=1)
    settings = {"max_bad": 0.1, "max_truncated": 0.5, **(rows or {})}
    return TuningRecipe(
        training=TrainingConfig(**{**often, **training}),
        rows=RowsConfig((str(models / EXAMPLES[task][0]),), task, **settings),
        tuning=TuningConfig(str(models / (family or KINDS[task])), **{"epochs": 0.0, **(tuning or {})}),
    )


CLOCK = ("seconds", "tokens_per_second")
CASES = [*KINDS.items(), ("pairs", "gpt2")]


class Killed(BaseException):
    """Stands for a kill within this process."""


def kill_after(monkeypatch, step: int) -> None:
    whole = loop_module.Loop._step

    def counted(self, watch):
        whole(self, watch)
        if self.progress.step == step:
            raise Killed

    monkeypatch.setattr(loop_module.Loop, "_step", counted)


def ending(run) -> dict:
    """All that two equal runs must share."""
    last = max((run / "wenlu/checkpoints").glob("step-*"))
    rows = read_rows(run / "wenlu/metrics.jsonl")
    judged = [row["scores"] for row in read_rows(run / "wenlu/events.jsonl") if row["event"] == "judged"]
    return {
        "root": sha256_file(run / "model.safetensors"),
        "checkpoint": (last.name, *(sha256_file(last / f"{part}.safetensors") for part in ("weights", "optimizer"))),
        "rows": [{key: value for key, value in row.items() if key not in CLOCK} for row in rows],
        "judged": judged,
    }


def setup_of(a_recipe, out):
    folder = RunFolder(out)
    folder.create(a_recipe)
    return set_up_tuning(a_recipe, folder, 0.0)
