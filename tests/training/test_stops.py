"""Runs that end early: not finite, no longer better, impossible from the start."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import wenlu.training.setup as setup
import wenlu.training.update as update
from wenlu.base.errors import UserError
from wenlu.base.log import read_rows
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.hub.folder import load
from wenlu.models.config import ModelConfig
from wenlu.training import watch as watch_module
from wenlu.training.checkpoint import list_checkpoints, load_checkpoint, newest_whole
from wenlu.training.loop import Loop, train
from wenlu.training.nonfinite import blame
from wenlu.training.objectives import causal
from wenlu.training.recipe import OptimizerConfig, Recipe, ScheduleConfig, TrainingConfig
from wenlu.training.run_folder import RunFolder
from wenlu.training.update import Updates


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stops")
    lines = [f"{n} 炉火 {n * n % 89}: the stove in house {n % 7} burns" for n in range(150)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    prepare(PrepareConfig((str(folder / "text.txt"),), tokenizer="byte", context=16), folder / "data")
    return folder / "data"


def recipe(data: Path | None, family: str = "qwen3", **training) -> Recipe:
    settings = dict(steps=8, batch=2, eval_every=0, checkpoint_every=2, log_every=1, device="cpu", compile="off")
    return Recipe(
        PrepareConfig(paths=(str(data),) if data else ()),
        ModelConfig(family, dim=16, layers=2, heads=2, context=16),
        TrainingConfig(**{**settings, "sample_tokens": 0, **training}),
    )


def before_step(monkeypatch, step: int, act) -> None:
    """Call `act(loop)` when `step` updates are done."""
    whole = Loop._step

    def wrapped(self, watch):
        if self.progress.step == step:
            act(self)
        whole(self, watch)

    monkeypatch.setattr(Loop, "_step", wrapped)


def finite(folder: Path) -> bool:
    _, tensors = load_checkpoint(folder)
    return all(torch.isfinite(t).all() for group in tensors.values() for t in group.values())


@pytest.mark.parametrize(("family", "name"), [("qwen3", "blocks.1."), ("lstm", "layers.1.")])
def test_a_weight_that_is_nan(family, name, data, tmp_path, monkeypatch):
    """Named with the step; no update; no checkpoint holds it, nor does the root."""
    seen = {}

    def spoil(loop):
        spoilt = next(n for n, p in loop.model.named_parameters() if n.startswith(name) and p.ndim == 2)
        with torch.no_grad():
            loop.model.get_parameter(spoilt)[0, 0] = float("nan")
        seen.update(loop=loop, name=spoilt, before=[p.detach().clone() for p in loop.model.parameters()])

    before_step(monkeypatch, 5, spoil)
    with pytest.raises(UserError) as refusal:
        train(recipe(data, family), tmp_path / "run")
    message = str(refusal.value)
    assert message.startswith(f"step 6: weight {seen['name']} is not finite (loss nan")
    assert "the update was not made, these weights were not saved" in message and "lower --optimizer.lr" in message
    after = list(seen["loop"].model.parameters())
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(after, seen["before"], strict=True))
    newest, damaged = newest_whole(tmp_path / "run/wenlu/checkpoints")
    assert newest.name == "step-00000004" and not damaged
    assert all(finite(path) for path in list_checkpoints(tmp_path / "run/wenlu/checkpoints"))
    load(tmp_path / "run")
    event = read_rows(tmp_path / "run/wenlu/events.jsonl")[-1]
    assert event["event"] == "nonfinite" and event["step"] == 5 and seen["name"] in event["where"]


def test_an_output_that_is_not_finite_keeps_the_weights_before_it(data, tmp_path, monkeypatch):
    def spoil(loop):
        loop.model.blocks[1].register_forward_hook(lambda module, inputs, output: output * float("inf"))

    before_step(monkeypatch, 5, spoil)
    with pytest.raises(UserError, match=r"step 6: the output of module blocks\.1 is not finite .* are kept in .*run\."):
        train(recipe(data), tmp_path / "run")
    newest, _ = newest_whole(tmp_path / "run/wenlu/checkpoints")
    assert newest.name == "step-00000005" and finite(newest)


def test_the_blame_is_found_micro_batch_by_micro_batch_on_the_model_before_compilation(data, tmp_path, monkeypatch):
    rows = []

    def spoil(loop):
        def hook(module, inputs, output):
            rows.append(len(output))
            return output * float("inf")

        loop.model.blocks[1].register_forward_hook(hook)
        loop.model.hidden = loop.model.hidden  # where the compiled one stands, which hooks may not enter

    before_step(monkeypatch, 5, spoil)
    with pytest.raises(UserError, match=r"step 6: the output of module blocks\.1 is not finite"):
        train(recipe(data, batch=4, micro_batch=2), tmp_path / "run")
    assert set(rows) == {2}


def test_a_held_out_loss_that_is_not_finite_is_never_the_best(data, tmp_path):
    wild = dataclasses.replace(
        recipe(data, "gpt2", steps=1, eval_every=1),
        optimizer=OptimizerConfig("sgd", lr=1e30, clip=0),
        schedule=ScheduleConfig("constant"),
    )
    with pytest.raises(UserError, match=r"the held-out loss after step 1 is (nan|inf); these weights were not saved"):
        train(wild, tmp_path / "run")
    assert not list(tmp_path.glob("run/model.safetensors")) and not list(tmp_path.glob("run/wenlu/checkpoints/*"))


def test_a_gpu_out_of_memory_says_what_needs_less(data, tmp_path, monkeypatch):
    def full(loop):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nMore lines")

    before_step(monkeypatch, 2, full)
    words = r"run out of memory \(CUDA out of memory\. Tried to allocate 20 GiB\.\): --training\.micro-batch 2 gives"
    with pytest.raises(UserError, match=words):
        train(recipe(data, batch=4), tmp_path / "run")
    with pytest.raises(UserError, match="use a smaller model or context"):
        train(recipe(data, batch=1), tmp_path / "other")


def test_compilation_without_pythons_headers(data, tmp_path, monkeypatch):
    monkeypatch.setattr(setup.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(UserError, match=r"needs Python's headers, and .*Python\.h is not here \(Debian: python3-dev\)"):
        train(recipe(data, compile="on"), tmp_path / "run")
    monkeypatch.setattr(setup, "COMPILE_EARNS_BACK", 0)
    train(recipe(data, steps=1, compile="auto"), tmp_path / "eager")
    assert read_rows(tmp_path / "eager/wenlu/events.jsonl")[0]["compile"] is False


def test_bits_per_byte_are_of_the_very_text_that_was_scored(tmp_path):
    """The middle of what is held out is Chinese, three bytes a token; the rest, which is not read, is not."""
    lines = [f"{n} 炉火 {n * n % 89}: the stove\n" for n in range(400)]
    (tmp_path / "text.txt").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "held.txt").write_text("the stove " * 50 + "炉火" * 100 + "the stove " * 50, encoding="utf-8")
    paths = {"paths": (str(tmp_path / "text.txt"),), "validation_paths": (str(tmp_path / "held.txt"),)}
    config = PrepareConfig(**paths, tokenizer="char", context=16, skip=("all",))
    prepare(config, tmp_path / "data")
    train(recipe(tmp_path / "data", steps=1, eval_every=1, eval_tokens=17), tmp_path / "run")
    row = next(row for row in read_rows(tmp_path / "run/wenlu/metrics.jsonl") if "held_out" in row)
    assert row["bits_per_byte"] == pytest.approx(row["held_out"] / 3 / math.log(2))


def test_no_bits_per_byte_where_the_tokenizer_loses_text(data, tmp_path, monkeypatch):
    lossy = {"lossy": 3}
    monkeypatch.setattr(Loop, "_checkpoint", lambda self: self.setup.material.data.description.update(lossy))
    train(recipe(data, steps=2, eval_every=2, checkpoint_every=1), tmp_path / "run")
    row = next(row for row in read_rows(tmp_path / "run/wenlu/metrics.jsonl") if "held_out" in row)
    assert row["held_out"] > 0 and row["bits_per_byte"] is None
    assert "no bits per byte: the tokenizer loses text" in (tmp_path / "run/wenlu/report.html").read_text()


def test_too_high_a_learning_rate_is_told_from_data(data, tmp_path):
    """The whole way: weights that run off to infinity by themselves."""
    wild = dataclasses.replace(
        recipe(data, "gpt2", steps=50),
        optimizer=OptimizerConfig("sgd", lr=1e30, clip=0),
        schedule=ScheduleConfig("constant"),
    )
    with pytest.raises(UserError, match=r"step \d+: .* is not finite .*lower --optimizer\.lr"):
        train(wild, tmp_path / "run")
    assert all(finite(path) for path in list_checkpoints(tmp_path / "run/wenlu/checkpoints"))


def test_blame_falls_on_the_gradient_where_all_outputs_are_finite(data, tmp_path):
    config = ModelConfig("qwen3", dim=16, layers=1, heads=2, context=8, vocab=11)
    model = setup.build(config, 0)
    windows = {"ids": torch.randint(11, (2, 8)), "targets": torch.randint(11, (2, 8))}
    causal(model, windows)[0].backward()
    assert blame(model, [windows], causal) == "the gradient norm is not finite"
    model.norm.weight.grad[0] = float("nan")
    assert blame(model, [windows], causal) == "the gradient of norm.weight is not finite"
    with torch.no_grad():
        model.embed.weight[3, 2] = float("inf")
    assert blame(model, [windows], causal) == "weight embed.weight is not finite"


def test_patience_ends_a_run_that_no_longer_gets_better(data, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 2.25, 1.0])
    monkeypatch.setattr(Updates, "held_out", lambda self: {"held_out": next(losses)})
    outcome = train(recipe(data, steps=100, eval_every=2, patience=2), tmp_path / "run")
    assert (outcome.finished, outcome.step, outcome.held_out) == ("patience", 8, 2.0)
    progress, _ = load_checkpoint(newest_whole(tmp_path / "run/wenlu/checkpoints")[0])
    assert (progress.best_step, progress.finished) == (4, "patience")
    again = train(None, tmp_path / "run", resume=True)
    assert (again.finished, again.step) == ("patience", 8)


def test_the_root_holds_the_best_weights(data, tmp_path, monkeypatch):
    """Those of step 4, though the run goes on to step 8."""
    kept = {}
    losses = iter([3.0, 2.0, 2.5, 2.25])

    def held_out(self):
        kept[2 * len(kept) + 2] = self.model.embed.weight.detach().clone()
        return {"held_out": next(losses)}

    monkeypatch.setattr(Updates, "held_out", held_out)
    train(recipe(data, eval_every=2), tmp_path / "run")
    model, _ = load(tmp_path / "run")
    assert torch.equal(model.embed.weight, kept[4]) and not torch.equal(model.embed.weight, kept[8])


def test_too_little_memory_names_the_micro_batch(data, tmp_path, monkeypatch):
    config = dataclasses.replace(recipe(data).model, vocab=257)
    room = setup.training_bytes(config, 2, 16, "muon", accumulating=True)["total"]
    monkeypatch.setattr(setup, "available_memory", lambda device: room)
    with pytest.raises(UserError, match=r"would take about .* are free: --training\.micro-batch 2 gives the same"):
        train(recipe(data, batch=8), tmp_path / "run")
    assert not (tmp_path / "run/model.safetensors").exists()
    assert train(recipe(data, batch=8, micro_batch=2), tmp_path / "other").finished == "steps"


def test_several_processes_are_refused(data, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="several processes is not built yet: start one process, without torchrun"):
        train(recipe(data), tmp_path / "run")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu", r"device must be auto, cpu, cuda or cuda:N, not 'tpu'"),
        ("cuda:99", r"device cuda:99 is not here \(\d+ found\): use --device cpu, or auto"),
        ("cuda:x", r"device cuda:x is not here"),
    ],
)
def test_a_device_that_is_not_here(device, message, data, tmp_path):
    with pytest.raises(UserError, match=message):
        train(recipe(data, device=device), tmp_path / "run")


def test_bf16_without_the_hardware(data, tmp_path, monkeypatch):
    monkeypatch.setattr(update, "has_bf16", lambda device: False)
    with pytest.raises(
        UserError, match=r"this cpu device has no bf16 arithmetic of its own: use --training\.dtype f32"
    ):
        train(recipe(data, dtype="bf16"), tmp_path / "run")


def test_compile_refusals(data, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"one fused operator already.*leave compile at auto"):
        train(recipe(data, "lstm", compile="on"), tmp_path / "one")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler, and none is here: use --training\.compile off"):
        train(recipe(data, compile="on"), tmp_path / "two")
    assert train(recipe(data, compile="auto"), tmp_path / "three").finished == "steps"


def test_nothing_or_too_little_to_train_on(data, tmp_path):
    with pytest.raises(UserError, match="nothing to train on: name text files or folders"):
        train(recipe(None), tmp_path / "one")
    long = recipe(data)
    long = dataclasses.replace(long, model=dataclasses.replace(long.model, context=100_000))
    with pytest.raises(
        UserError,
        match=r"training tokens are too few for windows of 100,000: give more text, or set --model\.context to",
    ):
        train(long, tmp_path / "two")


def test_torch_is_left_as_it_was(data, tmp_path):
    before = torch.get_deterministic_debug_mode()
    train(recipe(data, steps=2), tmp_path / "run")
    assert torch.get_deterministic_debug_mode() == before


def test_resume_without_a_run_and_a_run_over_a_run(data, tmp_path):
    train(recipe(data, steps=2), tmp_path / "run")
    with pytest.raises(UserError, match=r"holds no run to resume: leave out --resume"):
        train(None, tmp_path / "nothing", resume=True)
    with pytest.raises(UserError, match=r"holds a run already: go on with it by --resume"):
        train(recipe(data), tmp_path / "run")
    with pytest.raises(UserError, match=r"is not empty and holds no run: choose another --out"):
        train(recipe(data), data)
    with pytest.raises(UserError, match=r"nothing to train: give a recipe, or --resume with the --out of a run"):
        train(None, tmp_path / "nothing")
    (tmp_path / "run/wenlu/recipe.json").write_text("{")
    with pytest.raises(UserError, match=r"recipe\.json is damaged"):
        train(None, tmp_path / "run", resume=True)


def test_one_process_a_folder(data, tmp_path):
    train(recipe(data, steps=2), tmp_path / "run")
    first = RunFolder(tmp_path / "run")
    first.lock()
    try:
        with pytest.raises(UserError, match=r"another process is training in"):
            train(None, tmp_path / "run", resume=True)
    finally:
        first.unlock()
    assert train(None, tmp_path / "run", resume=True).finished == "steps"


def test_a_log_is_told_how_far_a_run_is(data, tmp_path, monkeypatch, capsys):
    """Where there is no terminal, whose bar would tell it."""
    monkeypatch.setattr(watch_module, "TOLD", 0.0)
    train(recipe(data), tmp_path / "run")
    assert "step 3 of 8 · loss " in capsys.readouterr().err


def test_what_is_held_out_must_hold_something_to_foretell(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Updates, "_placed", lambda self, batch: batch)
    updates = Updates.__new__(Updates)
    updates.recipe, updates.model = recipe(data), torch.nn.Linear(1, 1)
    updates.material = SimpleNamespace(held_out=lambda limit, at_once: iter([{}]))
    updates.device, updates.bf16 = torch.device("cpu"), False
    updates.objective = SimpleNamespace(judge=lambda model, batch: {"loss": 0.0, "count": 0})
    with pytest.raises(UserError, match=r"hold nothing to foretell: raise training\.eval-tokens"):
        updates.held_out()
