"""Before step 1: data, tokenizer, model and device of a run, and every refusal that can be made beforehand."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sysconfig
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from wenlu.base.device import available_memory, keep_freed_memory, pick_device
from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, counted, say
from wenlu.data.config import PrepareConfig
from wenlu.data.prepare import prepare
from wenlu.data.shards import Data, open_data
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.models.passes import Passes
from wenlu.models.size import flops_per_token, training_bytes
from wenlu.tokenization.special import SPECIAL
from wenlu.tokenization.tokenizer import Tokenizer
from wenlu.training import bigrams
from wenlu.training.material import Material, text_material
from wenlu.training.objectives import Objective, objective_of
from wenlu.training.plan import CONTEXTS, Plan, Planner, refuse_steps
from wenlu.training.plan import announce as say_plan
from wenlu.training.recipe import Recipe, resolve
from wenlu.training.run_folder import RunFolder
from wenlu.training.update import in_bf16, kernels_for, products

COMPILE_EARNS_BACK = 3e15
"""Operations from which torch.compile's minute on a GPU is earned back."""
WITHOUT_KERNELS = 1.6
"""How much more training may take on a processor that has no compiler for `models.passes` (measured: up to that)."""


@dataclass
class Setup:
    """All that the loop works with."""

    recipe: Recipe
    material: Material
    objective: Objective
    model: nn.Module
    device: torch.device
    bf16: bool
    compile: bool
    context: int = 0
    """Longest row in tokens, where that is not the model's context."""
    kernels: Passes | None = dataclasses.field(init=False)

    def __post_init__(self):
        self.kernels = kernels_for(self.device, self.compile)


def set_up(recipe: Recipe, folder: RunFolder, began: float, *, verify: bool = False) -> Setup:
    """Data, order, model and device for a recipe; fails before anything expensive. `verify` reads all of the data.

    A recipe with a length in time is planned for it here, its clock running since `began`.
    """
    refuse_several_processes()
    if recipe.training.minutes and folder.chosen() is None:
        refuse_steps(recipe)
    device = pick_device(recipe.training.device)
    bf16 = in_bf16(recipe, device)
    data = _data(recipe, folder, verify)
    use_processor(recipe, device)
    if recipe.training.minutes:
        recipe = _planned(recipe, folder, lambda: Planner(recipe, data, device, began).plan())
        use_processor(recipe, device)
        bf16 = in_bf16(recipe, device)
    training = recipe.training
    material = text_material(data, recipe)
    refuse_patience(recipe, material)
    config = _sized(recipe.model, material.tokenizer)
    if training.start == "bigrams":
        bigrams.refuse(config)
    check_memory(config, recipe, device, bf16)
    model = build(config, training.seed)
    if training.start == "bigrams":
        bigrams.start_from_bigrams(model, data.train, training.seed)
    model = model.to(device)
    work = flops_per_token(config, config.context) * config.context * training.batch * training.steps
    compiled = _compile(training.compile, config, work, device)
    return Setup(recipe, material, objective_of(config), model, device, bf16, compiled)


def refuse_several_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("training on several processes is not built yet: start one process, without torchrun")


def refuse_patience(recipe: Recipe, material: Material) -> None:
    """Patience without anything to watch."""
    if recipe.training.patience and not material.holds_out:
        raise UserError("training.patience watches the held-out loss, and nothing is held out: leave patience at 0")


def plan_for(recipe: Recipe) -> tuple[Plan, Recipe]:
    """The plan for the recipe's length of time on this machine, and the recipe that it makes; nothing is kept."""
    began = time.monotonic()
    refuse_steps(recipe)
    with tempfile.TemporaryDirectory() as folder, deterministic():
        device = pick_device(recipe.training.device)
        data = _data(recipe, RunFolder(folder), verify=False, lasting=False)
        use_processor(recipe, device)
        plan = Planner(recipe, data, device, began).plan()
    return plan, resolve(recipe, plan.chosen)


def use_processor(recipe: Recipe, device: torch.device) -> None:
    """Processor threads and memory as training wants them."""
    if device.type == "cpu":
        keep_freed_memory()
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)


def _planned(recipe: Recipe, folder: RunFolder, plan: Callable[[], Plan]) -> Recipe:
    """The recipe as planned: by the events where they hold a plan already, else by a new one, noted before it acts."""
    chosen = folder.chosen()
    if chosen is None:
        new = plan()
        chosen = new.chosen
        say_plan(new, resolve(recipe, chosen))
        with contextlib.closing(JsonLines(folder.events_file)) as log:
            log.write(event="plan", **dataclasses.asdict(new))
            log.sync()
    resolved = resolve(recipe, chosen)
    folder.write_recipe(resolved)
    return resolved


def _data(recipe: Recipe, folder: RunFolder, verify: bool, lasting: bool = True) -> Data:
    """The prepared folder that the recipe names, or its texts prepared under RUN/wenlu/data."""
    paths = recipe.data.paths
    if not paths:
        raise UserError("nothing to train on: name text files or folders, or a folder made by `wenlu prepare`")
    prepared = [path for path in paths if (Path(path) / "data.json").is_file()]
    if prepared and len(paths) > 1:
        raise UserError(f"{prepared[0]} is a prepared folder: give it alone, or all of the texts")
    if prepared:
        _refuse_unused(recipe.data)
        data = open_data(Path(paths[0]), verify=True)
    else:
        if recipe.data.purpose != PrepareConfig.purpose:
            raise UserError("data.purpose follows from the model's family when one is trained: leave it out")
        if recipe.data.context not in (PrepareConfig.context, recipe.model.context):
            raise UserError("data.context is model.context when a model is trained: leave data.context out")
        if not folder.data.exists():
            longest = max(CONTEXTS) if recipe.training.minutes else 0
            config = dataclasses.replace(
                recipe.data,
                context=max(recipe.model.context, longest),
                purpose=purpose_of(recipe.model),
            )
            prepare(config, folder.data, page=lasting and "all" not in config.skip, lasting=lasting)
        data = open_data(folder.data, verify=verify)
    if data.validation is not None and len(data.validation) < 2:
        raise UserError("the held-out text has less than two tokens: hold more out, or none by --data.validation 0")
    return data


def purpose_of(config: ModelConfig) -> str:
    """Whose special tokens a tokenizer for the family is learned with."""
    return config.family if config.family in SPECIAL else "text"


def _refuse_unused(config: PrepareConfig) -> None:
    """How text is prepared is settled where it has been."""
    for field in dataclasses.fields(config):
        if field.name != "paths" and getattr(config, field.name) != field.default:
            raise UserError(
                f"data.{field.name.replace('_', '-')} has no effect on data that are prepared already: leave it out, "
                "or give the texts themselves"
            )


def _sized(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The model with the tokenizer's vocabulary and special ids; other ones in the recipe are refused."""
    ids = {name: getattr(tokenizer, name) for name in ("bos_id", "eos_id", "pad_id")}
    for name, known in {"vocab": tokenizer.vocab, **ids}.items():
        if getattr(config, name) not in (None, known) and not (name == "vocab" and config.vocab == 0):
            raise UserError(f"model.{name} is the tokenizer's, {known}, not {getattr(config, name)}: leave it out")
    return dataclasses.replace(config, vocab=tokenizer.vocab, **ids)


def _compile(choice: str, config: ModelConfig, work: float, device: torch.device) -> bool:
    """Whether to compile; the loop writes the answer to events.jsonl before it acts on it."""
    lacking = _lacking_to_compile() if device.type == "cpu" else ""
    if choice == "on" and lacking:
        raise UserError(f"torch.compile on a processor needs {lacking}: use --training.compile off")
    if choice == "on" and config.family == "lstm":
        raise UserError(
            "the LSTM runs in one fused operator already, which torch.compile cannot enter: leave compile at auto"
        )
    if choice != "auto" or config.family == "lstm":
        return choice == "on"
    return device.type == "cuda" and work > COMPILE_EARNS_BACK  # on a processor models.passes are faster


def _lacking_to_compile() -> str:
    """What torch.compile on a processor wants and does not find here; empty where it finds all."""
    if not (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")):
        return "a C++ compiler, and none is here"
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return "" if headers.is_file() else f"Python's headers, and {headers} is not here (Debian: python3-dev)"


def check_memory(config: ModelConfig, recipe: Recipe, device: torch.device, bf16: bool) -> None:
    """Refuse a run whose predicted peak exceeds what the machine has: a processor's kernel kills without a word."""
    batch = recipe.training.batch
    micro = recipe.training.micro_batch or batch
    room = available_memory(device)
    shape = (config.context, recipe.optimizer.name, products(bf16, device), device.type)
    if device.type == "cpu" and kernels_for(device) is None:
        room = int(room / WITHOUT_KERNELS)
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


def with_less(recipe: Recipe) -> str:
    """What needs less memory than a step of this recipe."""
    micro = recipe.training.micro_batch or recipe.training.batch
    half = f"--training.micro-batch {micro // 2} gives the same result in less"
    return half if micro > 1 else "use a smaller model or context"


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


@contextmanager
def eager(model: nn.Module):
    """The model as it was before `compile_hidden`, for a while."""
    compiled = model.__dict__.pop("hidden", None)
    try:
        yield
    finally:
        if compiled is not None:
            model.hidden = compiled


def announce(setup: Setup, parameters: int) -> None:
    """One line about what is going to be trained, on what, where."""
    config, training, order = setup.model.config, setup.recipe.training, setup.material.order
    context = setup.context or config.context
    say(
        f"{config.family} · {parameters:,} parameters · vocabulary {config.vocab:,} · {setup.objective.name} · "
        f"{setup.material.size} · {counted(training.steps, 'step')} of "
        f"{training.batch} × {context} ({training.steps / order.batches:.1f} epochs) · "
        f"{setup.device.type} · {'bf16' if setup.bf16 else 'f32'}{' · compiled' if setup.compile else ''}"
    )
