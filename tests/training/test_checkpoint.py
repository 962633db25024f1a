"""Checkpoints are whole or absent; what is damaged is seen and passed over."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import wenlu.base.files as files
from wenlu.base.errors import UserError
from wenlu.base.log import read_rows
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.models.config import ModelConfig
from wenlu.training.checkpoint import Progress, list_checkpoints, load_checkpoint, newest_whole, save_checkpoint
from wenlu.training.loop import Loop, train
from wenlu.training.recipe import Recipe, TrainingConfig

FILES = ("weights.safetensors", "optimizer.safetensors", "progress.json", "manifest.json")


class Killed(BaseException):
    """Stands for a kill within this process."""


def save(folder: Path, step: int, keep: int = 2) -> Path:
    generator = torch.Generator().manual_seed(step)
    groups = {
        "weights": {"a": torch.randn(5, 3, generator=generator), "b.c": torch.randn(7, generator=generator)},
        "optimizer": {"a/step": torch.tensor(float(step))},
    }
    return save_checkpoint(folder, Progress(step=step, order="feed", loss_sum=0.1 + step), groups, keep)


def names(folder: Path) -> list[str]:
    return [path.name for path in list_checkpoints(folder)]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run whose last checkpoint, at step 6, is not the run's end: it was stopped there."""
    folder = tmp_path_factory.mktemp("checkpoint")
    lines = [f"{n} 炉火 {n * n % 89}: the stove in house {n % 7} burns" for n in range(150)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    prepare(PrepareConfig((str(folder / "text.txt"),), tokenizer="byte", context=16), folder / "data")
    training = TrainingConfig(
        steps=8, batch=2, eval_every=0, checkpoint_every=2, log_every=1, device="cpu", compile="off"
    )
    model = ModelConfig("lstm", dim=8, layers=1, context=16)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        after = Loop._after_step

        def stop(self, watch):
            after(self, watch)
            if self.progress.step == 7:
                raise Killed

        patch.setattr(Loop, "_after_step", stop)
        train(Recipe(PrepareConfig((str(folder / "data"),)), model, training), folder / "run")
    return folder / "run"


def test_what_is_saved_is_loaded(tmp_path):
    progress, tensors = load_checkpoint(save(tmp_path, 3))
    assert progress == Progress(step=3, order="feed", loss_sum=3.1)
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(tensors["weights"]["a"], torch.randn(5, 3, generator=generator))
    assert torch.equal(tensors["optimizer"]["a/step"], torch.tensor(3.0))


def test_floats_of_progress_keep_every_bit(tmp_path):
    progress = Progress(step=1, loss_sum=0.1 + 0.2, best_loss=1 / 3, held_out=2 / 7)
    assert load_checkpoint(save_checkpoint(tmp_path, progress, {}, 1))[0] == progress


def test_the_newest_are_kept(tmp_path):
    for step in (2, 4, 10, 100):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000010", "step-00000100"]
    save(tmp_path, 101, keep=1)
    assert names(tmp_path) == ["step-00000101"]


def test_order_is_by_number_and_strangers_are_left_alone(tmp_path):
    for name in ("step-9", "step-00000010", "step-123456789", "step-x", "step-1.old"):
        (tmp_path / name).mkdir()
    assert names(tmp_path) == ["step-9", "step-00000010", "step-123456789"]
    assert list_checkpoints(tmp_path / "none") == [] and newest_whole(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("harm", [cut, flip, empty, os.unlink])
@pytest.mark.parametrize("file", FILES)
def test_harm_to_any_file_is_seen_and_the_older_one_taken(file, harm, tmp_path):
    older, newer = save(tmp_path, 2), save(tmp_path, 4)
    harm(newer / file)
    path, damaged = newest_whole(tmp_path)
    assert path == older and len(damaged) == 1
    assert damaged[0].startswith("checkpoint step-00000004 is damaged (") and file in damaged[0]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newer_one_never_pushes_out_a_whole_one(keep, tmp_path):
    save(tmp_path, 2, keep=3)
    for step in (4, 6):
        cut(save(tmp_path, step, keep=3) / "progress.json")
    save(tmp_path, 3, keep)
    assert newest_whole(tmp_path) == (tmp_path / "step-00000003", [])
    assert names(tmp_path) == ["step-00000002", "step-00000003"][-keep:]


def test_a_whole_one_of_the_same_step_is_never_taken_away(tmp_path, monkeypatch):
    """A kill between the removal of the old and the rename of the new would lose both."""
    path = save(tmp_path, 2, keep=1)
    inode = path.stat().st_ino
    assert save(tmp_path, 2, keep=1).stat().st_ino == inode
    flip(path / "weights.safetensors")
    assert save(tmp_path, 2, keep=1).stat().st_ino != inode and newest_whole(tmp_path) == (path, [])


def test_another_version_is_refused(tmp_path):
    path = save(tmp_path, 2)
    fields = json.loads((path / "progress.json").read_text())
    (path / "progress.json").write_text(json.dumps({**fields, "mood": "good"}))
    with pytest.raises(UserError, match="was written by another version of wenlu: resume with that one"):
        load_checkpoint(path)


@pytest.mark.parametrize("where", ["write_tensors", "write_manifest", "replace"])
def test_a_kill_while_saving_leaves_what_was_there(where, tmp_path, monkeypatch):
    """Before its first byte, its manifest, its rename; what a real kill leaves besides is swept up by the next save."""
    save(tmp_path, 2)

    def stop(*_, **__):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if where == "write_tensors":
            patch.setattr("wenlu.training.checkpoint.write_tensors", stop)
        else:
            patch.setattr(files if where == "write_manifest" else files.os, where, stop)
        save(tmp_path, 4)
    assert names(tmp_path) == ["step-00000002"] and newest_whole(tmp_path)[0] == tmp_path / "step-00000002"
    (tmp_path / ".step-00000004.deadbeef.tmp").mkdir()
    (tmp_path / ".step-00000004.deadbeef.tmp/weights.safetensors").write_bytes(b"half")
    save(tmp_path, 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize("file", FILES)
def test_resume_goes_on_from_the_older_one_and_says_so(file, run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    flip(tmp_path / "run/wenlu/checkpoints/step-00000006" / file)
    assert train(None, tmp_path / "run", resume=True).step == 8
    said = " ".join(capsys.readouterr().err.split())
    assert "checkpoint step-00000006 is damaged" in said and "looking for an older one" in said
    assert "at step 4" in said
    event = next(row for row in read_rows(tmp_path / "run/wenlu/events.jsonl") if row["event"] == "resume")
    assert event["step"] == 4 and "step-00000006" in event["damaged"][0]
    shutil.copytree(run, tmp_path / "other")
    train(None, tmp_path / "other", resume=True)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (tmp_path / "other/model.safetensors").read_bytes()


def test_all_damaged_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for path in list_checkpoints(tmp_path / "run/wenlu/checkpoints"):
        cut(path / "weights.safetensors")
    with pytest.raises(UserError, match=r"no checkpoint in .*checkpoints is whole: remove that folder to begin again"):
        train(None, tmp_path / "run", resume=True)
    shutil.rmtree(tmp_path / "run/wenlu/checkpoints")
    assert train(None, tmp_path / "run", resume=True).step == 8
