"""Tuning keeps the loop's laws for every task: stopped = never stopped, accumulated = whole, packed = alone."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.cli.main import main
from wenlu.hub.folder import load, save
from wenlu.training.finetune import finetune
from wenlu.training.run_folder import RunFolder
from wenlu.training.setup import deterministic
from wenlu.training.update import Updates

from tuning_runs import (
    CASES,
    Killed,
    asked,
    ending,
    kill_after,
    lines,
    recipe,
    setup_of,
    talk,
)


@pytest.mark.parametrize(("task", "family"), CASES)
def test_killed_twice_and_resumed_is_the_same(models, tmp_path, monkeypatch, task, family):
    finetune(recipe(models, task, family), tmp_path / "whole")
    for step, resume in ((2, False), (7, True)):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, step)
            finetune(None if resume else recipe(models, task, family), tmp_path / "cut", resume=resume)
    assert main(["finetune", "--resume", "--out", str(tmp_path / "cut")]) == 0
    assert ending(tmp_path / "cut") == ending(tmp_path / "whole")
    assert len(ending(tmp_path / "whole")["judged"]) == 1


@pytest.mark.parametrize(("task", "family"), CASES)
def test_accumulated_gradients_are_those_of_the_batch(models, tmp_path, task, family):
    found = []
    for micro in (0, 1, 3):
        base = recipe(models, task, family, micro_batch=micro, batch=7, tuning={"dropout": 0.0})
        setup = setup_of(base, tmp_path / str(micro))
        updates = Updates(setup.recipe, setup.model.double(), setup.material, setup.objective, setup.device, False)
        gradients = updates.gradients(1)
        found.append((gradients.loss, gradients.count, [weight.grad for weight in setup.model.parameters()]))
    for loss, count, grads in found[1:]:
        assert count == found[0][1] and loss == pytest.approx(found[0][0], rel=1e-6)
        for one, other in zip(grads, found[0][2], strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_packed_conversations_are_as_if_alone(models, tmp_path, family):
    setup = setup_of(recipe(models, "chat", family, tuning={"dropout": 0.0}), tmp_path / "run")
    model, material = setup.model.double(), setup.material
    packs = material.order.packs(0)
    samples = np.array(sorted(range(len(packs)), key=lambda n: len(packs[n]))[-4:])
    batch = material.batch(samples, np.zeros_like(samples))
    assert batch["segments"].max() > 0
    rows = np.concatenate([packs[n] for n in samples])
    found = []
    for parts in ([batch], [material._of(material.rows.train, rows[n : n + 1]) for n in range(len(rows))]):
        model.zero_grad()
        total, targets = 0.0, 0
        for part in parts:
            loss, count = setup.objective.loss(model, {k: torch.from_numpy(v) for k, v in part.items()})
            loss.backward()
            total, targets = total + float(loss.detach()), targets + int(count)
        found.append((total, targets, [p.grad.clone() for p in model.parameters()]))
    assert found[0][1] == found[1][1] and found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for one, other in zip(found[0][2], found[1][2], strict=True):
        torch.testing.assert_close(one / found[0][1], other / found[0][1], atol=1e-6, rtol=1e-5)


def test_other_weights_on_resume_before_a_checkpoint(models, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(models / "bert", tmp_path / "bert")
    base = recipe(models, "tag")
    base = dataclasses.replace(base, tuning=dataclasses.replace(base.tuning, model=str(tmp_path / "bert")))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 1)
        finetune(base, tmp_path / "run")
    (tmp_path / "bert/model.safetensors").unlink()
    shutil.copy(models / "bert/model.safetensors", tmp_path / "bert/model.safetensors")
    other, tokenizer = load(models / "bert")
    other.embed.weight.data += 1
    save(other, tokenizer, tmp_path / "bert")
    with pytest.raises(UserError, match="are not those that the run began with"):
        finetune(None, tmp_path / "run", resume=True)


def test_killed_between_the_decision_and_the_recipe(models, tmp_path, monkeypatch):
    finetune(recipe(models, "tag"), tmp_path / "whole")
    write, calls = RunFolder.write_recipe, []

    def killed(self, given):
        calls.append(given)
        if len(calls) == 2:
            raise Killed
        write(self, given)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunFolder, "write_recipe", killed)
        patch.setattr(RunFolder, "take_back", lambda self: None)
        finetune(recipe(models, "tag"), tmp_path / "cut")
    finetune(None, tmp_path / "cut", resume=True)
    assert ending(tmp_path / "cut") == ending(tmp_path / "whole")
    assert RunFolder(tmp_path / "cut").recipe() == RunFolder(tmp_path / "whole").recipe()


def test_deterministic_mode_is_restored(models, tmp_path):
    before = torch.get_deterministic_debug_mode()
    with deterministic():
        pass
    finetune(recipe(models, "span", steps=1), tmp_path / "run")
    assert torch.get_deterministic_debug_mode() == before


def test_a_row_that_is_cut_says_nothing_of_the_end(models, tmp_path):
    """The token that ends an answer is the template's, whatever the first row ends with."""
    long = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "stove " * 90}]}
    (tmp_path / "chat.jsonl").write_text(lines([long, *map(talk, range(12))]))
    base = recipe(models, "chat", rows={"validation": 0.0, "context": 32, "max_truncated": 1.0}, steps=1)
    base = dataclasses.replace(base, rows=dataclasses.replace(base.rows, paths=(str(tmp_path / "chat.jsonl"),)))
    finetune(base, tmp_path / "run")
    model, tokenizer = load(tmp_path / "run")
    ends = [model.config.eos_id, *model.config.other_eos_ids]
    assert [tokenizer.decode([id], skip_special=False) for id in ends] == ["<|im_end|>", "<|endoftext|>"]


def test_line_separators_in_a_text(models, tmp_path):
    """U+2028 ends no line of JSON."""
    asked_of = [asked(n) for n in range(12)]
    for each in asked_of:
        each["paragraphs"][0]["context"] += "\u2028\x85 and more"
    (tmp_path / "span.json").write_text(json.dumps({"data": asked_of}))
    base = recipe(models, "span", steps=1)
    base = dataclasses.replace(base, rows=dataclasses.replace(base.rows, paths=(str(tmp_path / "span.json"),)))
    _, scores = finetune(base, tmp_path / "run")
    assert set(scores) == {"loss", "exact_match", "f1"}


def test_the_begun_command_resumes(models, tmp_path):
    begun = ["finetune", str(models / "bert"), str(models / "tag.jsonl"), "--out", str(tmp_path / "run")]
    begun += ["--task", "tag", "--steps", "1", "--device", "cpu"]
    assert main(begun) == 0 and main([*begun, "--resume"]) == 0


def test_several_processes_are_refused(models, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="training on several processes is not built yet"):
        finetune(recipe(models, "tag"), tmp_path / "run")
