"""Law 2 by force: forty runs killed at random steps, two hundred harmed checkpoints.

Each campaign writes what it found to benchmarks/results/{kills,damage}.json.
"""

import dataclasses
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import wenlu
from wenlu.base.config import to_dict
from wenlu.base.device import machine
from wenlu.base.files import sha256_file
from wenlu.base.log import read_rows
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.models.config import ModelConfig
from wenlu.training.checkpoint import list_checkpoints, newest_whole
from wenlu.training.recipe import Recipe, TrainingConfig

pytestmark = pytest.mark.slow

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
KILLS, HARMS, STEPS = 40, 200, 60
DEADLINE = 300.0
"""Seconds after which a process that has shown no progress counts as hung."""

CHILD = """
import json, sys
from wenlu.base.config import from_dict
from wenlu.training.loop import train
from wenlu.training.recipe import Recipe

recipe, out, resume = sys.argv[1:]
train(from_dict(Recipe, json.loads(recipe)), out, resume=resume == "resume")
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    lines = (
        f"{n * n % 97} stoves burn in house {n % 13}; 第{n % 29}炉文火慢炖，{n * 7 % 31}人读书。" for n in range(300)
    )
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    prepare(PrepareConfig((str(folder / "text.txt"),), tokenizer="char", context=16), folder / "data")
    return folder / "data"


def recipe(data: Path, family: str) -> Recipe:
    training = dict(steps=STEPS, batch=4, micro_batch=3, eval_every=20, eval_tokens=400, checkpoint_every=7)
    return Recipe(
        PrepareConfig(paths=(str(data),)),
        ModelConfig(family, dim=16, layers=2, heads=2, context=16, dropout=0.1),
        TrainingConfig(**training, log_every=1, sample_tokens=4, device="cpu", compile="off", threads=1),
    )


def start(recipe: Recipe, out: Path, resume: bool) -> subprocess.Popen:
    arguments = [json.dumps(to_dict(recipe)), str(out), "resume" if resume else "new"]
    with open(out.with_suffix(".log"), "ab") as log:
        return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=log, stderr=log)


def finish(recipe: Recipe, out: Path, resume: bool) -> None:
    assert start(recipe, out, resume).wait(DEADLINE) == 0, out.with_suffix(".log").read_text()


def events(out: Path, name: str) -> list[dict]:
    return [row for row in read_rows(out / "wenlu/events.jsonl") if row["event"] == name]


def kill_at(recipe: Recipe, out: Path, resume: bool, rows: int, delay: float) -> tuple[int, int]:
    """kill -9 once this process has written `rows` rows of metrics, and `delay` seconds more have gone.

    Returns the exit code and the step that the metrics then stand at.
    """
    metrics = out / "wenlu/metrics.jsonl"
    resumes, before = len(events(out, "resume")), 0
    process = start(recipe, out, resume)
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < deadline:
        if resume and len(events(out, "resume")) > resumes and not before:
            before = events(out, "resume")[-1]["step"]
        ready = not resume or len(events(out, "resume")) > resumes
        if ready and sum("loss" in row for row in read_rows(metrics)) >= before + rows:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    process.kill()
    code = process.wait(DEADLINE)
    return code, max((row["step"] for row in read_rows(metrics)), default=0)


def ending(out: Path) -> dict:
    """All that a resumed run must share with the one that was left alone."""
    last = list_checkpoints(out / "wenlu/checkpoints")[-1]
    rows = read_rows(out / "wenlu/metrics.jsonl")
    return {
        "root": sha256_file(out / "model.safetensors"),
        "last": (last.name, sha256_file(last / "weights.safetensors"), sha256_file(last / "optimizer.safetensors")),
        "rows": [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in rows],
        "order": [row["order"] for row in rows if "order" in row],
    }


def record(name: str, **found) -> None:
    versions = {"wenlu": wenlu.__version__, "torch": torch.__version__, "python": platform.python_version()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    body = {"campaign": name, **found, "versions": versions, "machine": machine(torch.device("cpu"))}
    (RESULTS / f"{name}.json").write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in body.items() if key != "failed"}, ensure_ascii=False))


def test_forty_kills(data, tmp_path):
    """Steps and delays by seed; every other run is killed twice. Nothing but bits is compared."""
    chance = random.Random(20)
    families = ("lstm", "qwen3")
    whole = {}
    for family in families:
        finish(recipe(data, family), tmp_path / family, resume=False)
        whole[family] = ending(tmp_path / family)
    failed, landed, at = [], 0, []
    for number in range(KILLS):
        family = families[number % 2]
        wanted, out = recipe(data, family), tmp_path / f"run-{number}"
        resume = False
        for _ in range(1 + number // 2 % 2):
            code, step = kill_at(wanted, out, resume, chance.randrange(STEPS * 3 // 5), chance.random() * 0.02)
            landed += code == -signal.SIGKILL
            at.append(step)
            resume = (out / "wenlu/recipe.json").exists()
        finish(wanted, out, resume)
        got = ending(out)
        wrong = [part for part in got if got[part] != whole[family][part]]
        if wrong:
            failed.append({"run": number, "family": family, "differs": wrong})
        shutil.rmtree(out)
    record("kills", runs=KILLS, kills=landed, killed_at_step=at, failures=len(failed), failed=failed)
    assert not failed
    assert landed >= KILLS


def harm(file: Path, chance: random.Random) -> str:
    """Cut a file short, or turn one bit of it."""
    whole = bytearray(file.read_bytes())
    place = chance.randrange(len(whole))
    if chance.random() < 0.5:
        file.write_bytes(whole[:place])
        return f"{file.name} cut to {place} bytes"
    bit = chance.randrange(8)
    whole[place] ^= 1 << bit
    file.write_bytes(whole)
    return f"{file.name} bit {bit} of byte {place}"


def test_two_hundred_harms(data, tmp_path):
    """Every harm to the newest, or to the two newest, checkpoints is seen, and the newest whole one is taken.

    Every twentieth is resumed to its end besides.
    """
    chance = random.Random(40)
    wanted = recipe(data, "lstm")
    wanted = dataclasses.replace(wanted, training=dataclasses.replace(wanted.training, keep=4))
    finish(wanted, tmp_path / "whole", resume=False)
    expected = ending(tmp_path / "whole")
    names = [path.name for path in list_checkpoints(tmp_path / "whole/wenlu/checkpoints")]
    assert len(names) == 4
    failed, resumed = [], 0
    for number in range(HARMS):
        out = tmp_path / "harmed"
        shutil.copytree(tmp_path / "whole", out)
        checkpoints = out / "wenlu/checkpoints"
        count = chance.choice((1, 2))
        what = [harm(chance.choice(sorted((checkpoints / name).iterdir())), chance) for name in names[-count:]]
        path, damaged = newest_whole(checkpoints)
        if len(damaged) != count or path is None or path.name != names[-count - 1]:
            failed.append({"harm": what, "taken": str(path and path.name), "seen": damaged})
        elif number % 20 == 0:
            os.rename(out / "wenlu/events.jsonl", out / "before.jsonl")
            kept = [row for row in read_rows(out / "before.jsonl") if row["event"] != "finished"]
            (out / "wenlu/events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
            finish(wanted, out, resume=True)
            resumed += 1
            if ending(out) != expected:
                failed.append({"harm": what, "resumed": "differs"})
        shutil.rmtree(out)
    record("damage", harms=HARMS, resumed=resumed, failures=len(failed), failed=failed)
    assert not failed
