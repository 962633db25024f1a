"""Before step 1: data, tokenizer, model and device of a run, and every refusal that can be made beforehand."""

from __future__ import annotations

import dataclasses
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from wenlu.base.device import available_memory, has_bf16, pick_device
from wenlu.base.errors import UserError
from wenlu.base.log import console
from wenlu.data.order import Order
from wenlu.data.prepare import prepare
from wenlu.data.shards import Data, open_data
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.models.size import flops_per_token, training_bytes
from wenlu.training.recipe import Recipe
from wenlu.training.run_folder import RunFolder

COMPILE_EARNS_BACK = 3e13
"""Operations from which torch.compile's half minute on a processor is earned back (about five minutes of work)."""


@dataclass
class Setup:
    """All that the loop works with."""

    recipe: Recipe
    data: Data
    order: Order
    model: nn.Module
    device: torch.device
    bf16: bool
    compile: bool


def set_up(recipe: Recipe, folder: RunFolder, *, verify: bool = False) -> Setup:
    """Data, order, model and device for a recipe; fails before anything expensive. `verify` reads all of the data.

    Where it fails, what was made of a new run is removed, so that the same command can be given again.
    """
    try:
        return _set_up(recipe, folder, verify)
    except (Exception, KeyboardInterrupt):
        folder.take_back()
        raise


def _set_up(recipe: Recipe, folder: RunFolder, verify: bool) -> Setup:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("training on several processes is not built yet: start one process, without torchrun")
    device = pick_device(recipe.training.device)
    bf16 = _bf16(recipe.training.dtype, device)
    data = _data(recipe, folder, verify)
    config = dataclasses.replace(recipe.model, vocab=data.tokenizer.vocab, **_special_ids(data))
    training = recipe.training
    order = Order(len(data.train), config.context, training.batch, training.seed, data.fingerprint)
    check_memory(config, recipe, device, bf16)
    if training.threads:
        torch.set_num_threads(training.threads)
    model = build(config, training.seed).to(device)
    work = flops_per_token(config, config.context) * config.context * training.batch * training.steps
    return Setup(recipe, data, order, model, device, bf16, _compile(training.compile, config, work, device))


def _data(recipe: Recipe, folder: RunFolder, verify: bool) -> Data:
    """The prepared folder that the recipe names, or its texts prepared under RUN/wenlu/data."""
    paths = recipe.data.paths
    if not paths:
        raise UserError("nothing to train on: name text files or folders, or a folder made by `wenlu prepare`")
    if len(paths) == 1 and (Path(paths[0]) / "data.json").is_file():
        data = open_data(Path(paths[0]), verify=verify)
    else:
        if not folder.data.exists():
            prepare(dataclasses.replace(recipe.data, context=recipe.model.context), folder.data)
        data = open_data(folder.data, verify=verify)
    if data.validation is not None and len(data.validation) < 2:
        raise UserError("the held-out text has less than two tokens: hold more out, or none by --data.validation 0")
    return data


def _special_ids(data: Data) -> dict[str, int | None]:
    tokenizer = data.tokenizer
    return {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}


def _bf16(dtype: str, device: torch.device) -> bool:
    if dtype == "bf16" and not has_bf16(device):
        raise UserError(f"this {device.type} device has no bf16 arithmetic of its own: use --training.dtype f32")
    return dtype == "bf16" or (dtype == "auto" and device.type == "cuda" and has_bf16(device))


def _compile(choice: str, config: ModelConfig, work: float, device: torch.device) -> bool:
    """Whether to compile; the loop writes the answer to events.jsonl before it acts on it."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if choice == "on" and device.type == "cpu" and not compiler:
        raise UserError(
            "torch.compile on a processor needs a C++ compiler, and none is here: use --training.compile off"
        )
    if choice == "on" and config.family == "lstm":
        raise UserError(
            "the LSTM runs in one fused operator already, which torch.compile cannot enter: leave compile at auto"
        )
    if choice != "auto" or config.family == "lstm":
        return choice == "on"
    if device.type == "cuda":
        return work > 100 * COMPILE_EARNS_BACK
    return work > COMPILE_EARNS_BACK and bool(compiler)


def check_memory(config: ModelConfig, recipe: Recipe, device: torch.device, bf16: bool) -> None:
    """Refuse a run whose predicted peak exceeds what the machine has: a processor's kernel kills without a word."""
    batch = recipe.training.batch
    micro = recipe.training.micro_batch or batch
    dtype = "bf16" if bf16 else "f32"
    room = available_memory(device)
    shape = (config.context, recipe.optimizer.name, dtype, device.type)
    needed = training_bytes(config, micro, *shape, accumulating=micro < batch)["total"]
    if needed <= room:
        return
    remedy = "use a smaller model or context"
    while micro > 1:
        micro //= 2
        if training_bytes(config, micro, *shape, accumulating=True)["total"] <= room:
            remedy = f"--training.micro-batch {micro} gives the same result in less"
            break
    raise UserError(
        f"training would take about {needed / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB are free: {remedy}"
    )


@contextmanager
def deterministic():
    """torch with deterministic algorithms, and as it was before afterwards.

    Not by `torch.use_deterministic_algorithms`, which imports the compiler (a second); `compile_hidden` calls that.
    New tensors are not filled with NaN, as torch does by default in this mode: it would touch all memory once more, for
    an LSTM twice as much as is ever used, and guards only operators that read what they have not written.
    """
    before, filled = torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def compile_hidden(model: nn.Module) -> None:
    """Compile the part of a model between ids and hidden states, with kernels that repeat from process to process."""
    torch.use_deterministic_algorithms(True)
    model.hidden = torch.compile(model.hidden, dynamic=False)


def announce(setup: Setup, parameters: int) -> None:
    """One line about what is going to be trained, on what, where."""
    config, training = setup.model.config, setup.recipe.training
    tokens = training.steps * training.batch * config.context
    console.print(
        f"{config.family} · {parameters:,} parameters · vocabulary {config.vocab:,} · "
        f"{len(setup.data.train):,} training tokens · {training.steps:,} steps of "
        f"{training.batch} × {config.context} ({tokens / len(setup.data.train):.1f} epochs) · {setup.device.type} · "
        f"{'bf16' if setup.bf16 else 'f32'}{' · compiled' if setup.compile else ''}"
    )
