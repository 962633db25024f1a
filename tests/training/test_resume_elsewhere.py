"""A resume on other ground than the run was begun on, recipe, data or machine, is refused; what was decided is not."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

import wenlu.training.loop as loop_module
from wenlu.base import device
from wenlu.base.errors import UserError
from wenlu.base.log import read_rows
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.models.config import ModelConfig
from wenlu.training.loop import Loop, train
from wenlu.training.recipe import Recipe, TrainingConfig


class Killed(BaseException):
    """Stands for a kill within this process."""


def text(lines: int) -> str:
    return "\n".join(f"{n} stoves 炉火 burn in house {n * n % 89}" for n in range(lines))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text(text(300), encoding="utf-8")
    prepare(PrepareConfig((str(folder / "text.txt"),), tokenizer="byte", context=16), folder / "prepared")
    return folder / "prepared"


def recipe(data: Path) -> Recipe:
    training = TrainingConfig(
        steps=14, batch=4, eval_every=5, eval_tokens=400, checkpoint_every=4, log_every=1, sample_tokens=0,
        device="cpu", compile="off", threads=1,
    )  # fmt: skip
    return Recipe(PrepareConfig(paths=(str(data),)), ModelConfig("lstm", dim=16, layers=2, context=16), training)


def kill_after(monkeypatch, step: int) -> None:
    whole = Loop._step

    def counted(self, watch):
        whole(self, watch)
        if self.progress.step == step:
            raise Killed

    monkeypatch.setattr(Loop, "_step", counted)


@pytest.fixture
def half(data, tmp_path) -> Path:
    """A run stopped after step 7, its data its own."""
    shutil.copytree(data, tmp_path / "data")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 7)
        train(recipe(tmp_path / "data"), tmp_path / "run")
    return tmp_path / "run"


def test_another_recipe_is_refused(half, tmp_path):
    same = recipe(tmp_path / "data")
    longer = dataclasses.replace(same, training=dataclasses.replace(same.training, steps=99))
    with pytest.raises(UserError, match=r"begun with training\.steps = 14, not 99: leave that out to resume, or begin"):
        train(longer, half, resume=True)
    wider = dataclasses.replace(same, model=dataclasses.replace(same.model, dim=32))
    with pytest.raises(UserError, match=r"begun with model\.dim = 16, not 32"):
        train(wider, half, resume=True)


@pytest.mark.parametrize("tokenizer", ["byte", "bpe:300"])
def test_other_data_are_refused(half, tokenizer, tmp_path):
    """Also where the model would have another size by them."""
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "text.txt").write_text(text(301), encoding="utf-8")
    prepare(PrepareConfig((str(tmp_path / "text.txt"),), tokenizer=tokenizer, context=16), tmp_path / "data")
    with pytest.raises(UserError, match="the data differ from those the run was begun with"):
        train(None, half, resume=True, inexact=True)


def test_one_changed_byte_of_the_data_is_refused(half, tmp_path):
    shard = tmp_path / "data/train/00000.bin"
    whole = bytearray(shard.read_bytes())
    whole[100] ^= 1
    shard.write_bytes(whole)
    with pytest.raises(UserError, match=r"is damaged \(train/00000\.bin was changed"):
        train(None, half, resume=True)


@pytest.mark.parametrize(
    ("name", "value"), [("threads", 99), ("torch", "1.0"), ("cpu_capability", "DEFAULT"), ("onednn_limit", "AVX2")]
)
def test_another_machine_is_refused_unless_inexact(name, value, half, monkeypatch):
    true = loop_module.machine
    monkeypatch.setattr(loop_module, "machine", lambda device: {**true(device), name: value})
    with pytest.raises(UserError, match=rf"begun with {name} = .*here it is {value!r}.*add --inexact"):
        train(None, half, resume=True)
    assert train(None, half, resume=True, inexact=True).finished == "steps"


def test_a_processor_without_an_instruction_set_is_another_machine(half, monkeypatch):
    events = half / "wenlu/events.jsonl"
    rows = read_rows(events)
    rows[0]["machine"]["instructions"] += ["amx_far", "amx_near"]
    events.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="begun with amx_far, amx_near, not there now, so the bits would differ: add"):
        train(None, half, resume=True)
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset({"avx512_far", "fma", "amx_far", "amx_near"}))
    rows[0]["machine"]["instructions"] = ["fma", "amx_far", "amx_near"]
    events.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="begun without avx512_far, there now, so"):
        train(None, half, resume=True)


def test_a_run_of_before_instruction_sets_were_noted_is_compared_by_what_it_noted(half):
    events = half / "wenlu/events.jsonl"
    rows = read_rows(events)
    for name in ("instructions", "onednn_limit"):
        del rows[0]["machine"][name]
    events.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train(None, half, resume=True).finished == "steps"


def test_after_an_inexact_resume_the_new_machine_is_the_one_to_stay_on(half, monkeypatch):
    true = loop_module.machine
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "machine", lambda device: {**true(device), "threads": 99})
        kill_after(patch, 10)
        with pytest.raises(Killed):
            train(None, half, resume=True, inexact=True)
    with pytest.raises(UserError, match="begun with threads = 99"):
        train(None, half, resume=True)
    noted = [row for row in read_rows(half / "wenlu/events.jsonl") if row["event"] == "inexact"]
    assert len(noted) == 1 and noted[0]["changed"] == ["threads"] and noted[0]["machine"]["threads"] == 99


def test_compile_is_replayed_not_decided_again(half, monkeypatch):
    events = half / "wenlu/events.jsonl"
    compiled = []
    monkeypatch.setattr(loop_module, "compile_hidden", compiled.append)
    begun = re.sub('"kernels": "[^"]*"', '"kernels": null', events.read_text())  # torch compiles what they would do
    events.write_text(begun.replace('"compile": false', '"compile": true'))
    train(None, half, resume=True)
    assert len(compiled) == 1


def test_the_kernels_of_a_run_are_those_it_goes_on_with(half, monkeypatch):
    events = half / "wenlu/events.jsonl"
    used = []
    using = loop_module.arithmetic

    def noted(bf16, kernels):
        used.append(kernels)
        return using(bf16, kernels)

    monkeypatch.setattr(loop_module, "arithmetic", noted)
    begun = events.read_text()
    assert begun.count('"kernels": "') == 1
    events.write_text(re.sub('"kernels": "[^"]*"', '"kernels": "of another compiler"', begun))
    with pytest.raises(UserError, match=r"begun with kernels = 'of another compiler', here it is '[0-9a-f]{16}'"):
        train(None, half, resume=True)
    events.write_text(re.sub('"kernels": "[^"]*"', '"kernels": null', begun))
    train(None, half, resume=True)
    assert used == [None]
