"""Before step 1 of a run that tunes: the model of a folder, rows of examples, the head that the task wants."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from wenlu.base.config import to_dict
from wenlu.base.device import pick_device
from wenlu.base.errors import UserError
from wenlu.base.files import sha256_file
from wenlu.base.log import JsonLines, counted, say
from wenlu.data.rows.material import RowMaterial
from wenlu.data.rows.prepare import Encoding, prepare_rows
from wenlu.data.rows.show import shown
from wenlu.data.rows.store import Rows, open_rows
from wenlu.hub import folder as hub_folder
from wenlu.hub.configuration import read_config
from wenlu.models.build import build, empty
from wenlu.models.config import ROTARY, ModelConfig
from wenlu.models.size import training_bytes
from wenlu.tokenization.chat_format import ChatFormat, with_template
from wenlu.tokenization.tokenizer import Tokenizer
from wenlu.training.checkpoint import list_checkpoints
from wenlu.training.objectives import TUNING, smoothed
from wenlu.training.pacing import AIM, REPORT_SECONDS
from wenlu.training.recipe import TuningRecipe, resolve
from wenlu.training.run_folder import RunFolder
from wenlu.training.setup import Setup, check_memory, refuse_patience, refuse_several_processes, use_processor
from wenlu.training.update import Updates, arithmetic, in_bf16

WRITERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
FAMILIES = {"chat": WRITERS, "pairs": (*WRITERS, "t5"), **dict.fromkeys(("classify", "tag", "span"), ("bert",))}
"""Task → the families that can be tuned for it."""
LONGEST = 1024
"""Tokens of a row by default, where the model can read more."""
RATES = {"t5": (3e-4, 512), "bert": (5e-5, 768)}
"""Peak learning rate of Adam and AdamW at a width, by family. It goes with 1 / width."""
OTHERS = (2e-4, 768)
"""Of models that read from left to right. Four times a bert's: at a bert's rate one of 4.7 million parameters had after
242 steps of talks a held-out loss of 2.55 nats, at ten times as much after 81 steps 0.71."""
HIGHEST_RATE = 2e-3
EVALUATIONS = 10
FEW = 20
"""Steps, fewer than which teach little and are not worth an evaluation."""
PROBES = 4


@dataclass(frozen=True)
class _Start:
    """What a run begins from."""

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer
    new: list[str]
    """Special tokens that the folder's tokenizer lacked."""
    hash: str


def set_up_tuning(recipe: TuningRecipe, folder: RunFolder, began: float, *, verify: bool = False) -> Setup:
    """Model, rows and device for a recipe that tunes; fails before anything expensive.

    Rows, tokenizer and all that follows from them (the model's shape, steps, learning rate) are kept in the run, so
    that a resume needs the first model's folder only before the first checkpoint.
    """
    refuse_several_processes()
    device = pick_device(recipe.training.device)
    use_processor(recipe, device)
    known = folder.chosen()
    if known is None:
        _refuse_two_lengths(recipe)
    else:
        recipe = resolve(recipe, known)
        folder.write_recipe(recipe)
    if recipe.training.compile == "on":
        raise UserError("rows differ in length, and compiled code is for one: leave training.compile at auto")
    if recipe.tuning.label_smoothing and recipe.rows.task == "span":
        raise UserError("span's targets cannot be smoothed, most tokens being no candidates: leave label_smoothing out")
    if recipe.training.start != "random":
        raise UserError("a tuned model begins with its own weights: leave training.start out")
    start = None if known and list_checkpoints(folder.checkpoints) else _start(recipe)
    rows, tokenizer = _rows(recipe, folder, start, verify)
    form = rows.description["form"]
    if known is None:
        recipe = resolve(recipe, _of_start(_config(recipe, start, rows, tokenizer), start.hash))
    material = _material(recipe, rows, tokenizer)
    refuse_patience(recipe, material)
    bf16 = in_bf16(recipe, device)
    check_memory(replace(recipe.model, context=rows.description["context"]), recipe, device, bf16)
    model = empty(recipe.model) if start is None else _model(recipe, start, rows)
    model = model.to(device).train()
    objective = smoothed(TUNING[form], recipe.tuning.label_smoothing)
    setup = Setup(recipe, material, objective, model, device, bf16, False, rows.description["context"])
    if known is None:
        setup.recipe = _decided(setup, folder, began)
    return setup


def _refuse_two_lengths(recipe: TuningRecipe) -> None:
    """Epochs, steps, minutes: one says how long a run is."""
    standard = type(recipe)()
    epochs = recipe.tuning.epochs not in (0, standard.tuning.epochs)
    steps = recipe.training.steps != standard.training.steps or not recipe.tuning.epochs
    stated = {"tuning.epochs": epochs, "training.steps": steps, "training.minutes": bool(recipe.training.minutes)}
    if sum(stated.values()) > 1:
        names = " and ".join(name for name, is_stated in stated.items() if is_stated)
        raise UserError(f"{names} say how long the run is: leave one of them")


def _start(recipe: TuningRecipe) -> _Start:
    """The folder that the run begins from; refused where its family cannot do the task, or its weights changed."""
    if not recipe.tuning.model:
        raise UserError("which model is to be tuned? Name its folder, or a hub id, before the data")
    place = hub_folder.locate(recipe.tuning.model)
    config, task = read_config(place), recipe.rows.task
    if config.family not in FAMILIES[task]:
        raise UserError(
            f"{recipe.tuning.model} is of the family {config.family}, which cannot be tuned for {task}: "
            f"that is for {', '.join(FAMILIES[task])}; choose another --task, or another model (wenlu train --model)"
        )
    foreign = config.family in ROTARY and not RunFolder(place).exists()
    if foreign and config.dropout and recipe.tuning.dropout < 0:
        say(
            f"{recipe.tuning.model} says attention_dropout {config.dropout}: here that is dropped out after embedding "
            "and blocks too; --tuning.dropout 0 for none"
        )
    weights = sorted(place.glob("*.safetensors"))
    hash_ = "".join(sha256_file(file)[:16] for file in weights)
    if recipe.tuning.hash not in ("", hash_):
        raise UserError(f"the weights in {recipe.tuning.model} are not those that the run began with: restore them")
    tokenizer, new = Tokenizer.load(place), []
    if task == "chat" or (task == "pairs" and config.family != "t5"):
        tokenizer, new = with_template(tokenizer)
    roles = {"bert": ("cls", "sep"), "t5": ("eos", "pad")}.get(config.family, ())
    for role in roles:
        if getattr(tokenizer, f"{role}_id") is None:
            raise UserError(f"the tokenizer of {recipe.tuning.model} has no {role} token, which {task} needs")
    return _Start(place, config, tokenizer, new, hash_)


def _rows(recipe: TuningRecipe, folder: RunFolder, start: _Start | None, verify: bool) -> tuple[Rows, Tokenizer]:
    """The rows of the run, made where there are none yet, and the tokenizer that they were made by."""
    if not folder.data.exists():
        assert start is not None, "rows are there before the first checkpoint"
        config = start.config
        context = recipe.rows.context or min(config.context, LONGEST)
        if context > config.context and config.family in ("gpt2", "bert"):
            raise UserError(f"rows.context ({context}) exceeds the positions that the model has, {config.context}")
        if context < 8:
            raise UserError(f"rows.context ({context}) is too short: give 8 or more")
        encoding = Encoding(start.tokenizer, context, config.family != "t5", config.labels)
        prepare_rows(recipe.rows, folder.data, encoding)
    rows = open_rows(folder.data, verify=verify)
    tokenizer = Tokenizer.load(folder.data / "tokenizer")
    if start is not None and tokenizer.fingerprint != start.tokenizer.fingerprint:
        raise UserError(f"the tokenizer in {recipe.tuning.model} is not the one that the run began with: restore it")
    return rows, tokenizer


def _config(recipe: TuningRecipe, start: _Start, rows: Rows, tokenizer: Tokenizer) -> ModelConfig:
    """The model as it will be: the folder's, with the task's head and labels, new tokens and new ends."""
    config, task = start.config, recipe.rows.task
    if recipe.tuning.dropout >= 0:
        config = replace(config, dropout=recipe.tuning.dropout)
    if config.family == "bert":
        labels = tuple(rows.description["labels"])
        return replace(config, head=task, labels=labels)
    if start.new:
        grows = f"the embedding grows from {config.vocab:,} to {tokenizer.vocab:,} rows"
        room = f"in rows that the embedding has to spare, of {config.vocab:,}"
        say(
            f"{counted(len(start.new), 'new token')} ({', '.join(start.new)}): "
            f"{grows if tokenizer.vocab > config.vocab else room}, each new one the mean of the old"
        )
    context = config.context if config.family in ("gpt2", "lstm") else rows.description["context"]
    config = replace(config, vocab=max(config.vocab, tokenizer.vocab), context=max(config.context, context))
    if rows.description["form"] != "chat":
        return config
    talk = ChatFormat(tokenizer).encode([{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}])
    last = talk.ids[max(place for place, learned in enumerate(talk.mask) if learned)]
    ends = dict.fromkeys([tokenizer.eos_id, last, config.eos_id, *config.other_eos_ids])
    first, *others = [id for id in ends if id is not None]
    return replace(config, eos_id=first, other_eos_ids=tuple(others))


def _of_start(config: ModelConfig, hash_: str) -> dict[str, dict[str, Any]]:
    """Fields of the recipe that are known once the model is."""
    return {"model": to_dict(config), "tuning": {"hash": hash_}}


def _material(recipe: TuningRecipe, rows: Rows, tokenizer: Tokenizer) -> RowMaterial:
    training = recipe.training
    return RowMaterial(rows, tokenizer, training.batch, training.seed, recipe.tuning.hash, recipe.model.types)


def _model(recipe: TuningRecipe, start: _Start, rows: Rows) -> nn.Module:
    """The weights of the folder, in the model as it will be."""
    config = recipe.model
    if config.family == "bert":
        model, _ = hub_folder.load(start.folder, head=config.head, labels=config.labels, seed=recipe.training.seed)
    else:
        model, _ = hub_folder.load(start.folder)
    library = start.tokenizer.copy_of_library()
    return grown(model, config, [library.token_to_id(token) for token in start.new])


def grown(model: nn.Module, config: ModelConfig, new: list[int]) -> nn.Module:
    """The model with another configuration of the same shapes but for more tokens; those of `new` are the mean token.

    What an embedding or head says of a token that no text had is then what it says of tokens in general (Hewitt 2021).
    """
    if config == model.config:
        return model
    result = build(config, 0)
    old = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            before = old[name]
            parameter[: len(before)].copy_(before)
            if new and (name.removesuffix(".weight") in ("embed", "lm_head") or name == "head_bias"):
                known = torch.ones(len(before), dtype=torch.bool)
                known[[id for id in new if id < len(before)]] = False
                parameter[new] = before[known].mean(0)
    return result


def _decided(setup: Setup, folder: RunFolder, began: float) -> TuningRecipe:
    """The recipe with all that follows from model and rows, noted before it acts."""
    recipe, material = setup.recipe, setup.material
    training, batches = recipe.training, material.order.batches
    chosen: dict[str, dict[str, Any]] = _of_start(recipe.model, recipe.tuning.hash)
    chosen["training"] = {"steps": training.steps}
    if not recipe.optimizer.lr and recipe.optimizer.name in ("adam", "adamw"):
        rate, width = RATES.get(recipe.model.family, OTHERS)
        lr = float(f"{min(HIGHEST_RATE, rate * width / recipe.model.dim):.2g}")
        chosen["optimizer"] = {"lr": lr}
        recipe = resolve(recipe, {"optimizer": {"lr": lr}})
    plan: dict[str, Any] = {}
    if training.minutes:
        plan = _timed(dataclasses.replace(setup, recipe=recipe), began)
        chosen["training"]["steps"] = plan["steps"]
    elif training.steps == type(training).steps and recipe.tuning.epochs:
        chosen["training"]["steps"] = max(1, round(recipe.tuning.epochs * batches))
    if training.eval_every == type(training).eval_every:
        every = math.ceil(chosen["training"]["steps"] / EVALUATIONS)
        chosen["training"]["eval_every"] = max(1, min(every, max(batches, FEW)))
    if chosen["training"]["steps"] < FEW and training.steps == type(training).steps:
        say(
            f"note: {chosen['training']['steps']} steps teach little: give more --epochs, or a smaller --training.batch"
        )
    resolved = resolve(recipe, chosen)
    counts = material.rows.description["counts"]
    with contextlib.closing(JsonLines(folder.events_file)) as log:
        log.write(event="plan" if plan else "tuning", **plan, chosen=chosen, rows=counts)
        log.sync()
    folder.write_recipe(resolved)
    return resolved


def _timed(setup: Setup, began: float) -> dict[str, Any]:
    """How many updates fit into the recipe's time: a few are made with a copy of the model, and timed."""
    recipe, config = setup.recipe, setup.recipe.model
    copy = empty(config).to(setup.device)
    copy.load_state_dict(setup.model.state_dict())
    updates = Updates(recipe, copy.train(), setup.material, setup.objective, setup.device, setup.bf16)
    taken, tokens = [], 0
    with arithmetic(setup.bf16, setup.kernels):
        for step in range(PROBES):
            before = time.monotonic()
            found = updates.gradients(step)
            updates.apply(found.count, found.norm, 0.0)
            taken.append(time.monotonic() - before)
            tokens += found.tokens
    pace = float(np.mean(taken[1:]))
    left = AIM * 60 * recipe.training.minutes - (time.monotonic() - began) - REPORT_SECONDS
    steps = max(1, math.floor(left / pace))
    micro = recipe.training.micro_batch or recipe.training.batch
    shape = (setup.material.rows.description["context"], recipe.optimizer.name)
    return {
        "minutes": recipe.training.minutes,
        "steps": steps,
        "tokens": steps * tokens // PROBES,
        "step_seconds": pace,
        "memory_bytes": training_bytes(config, micro, *shape)["total"],
        "bits_per_byte": None,
        "unforetold": "how well a model is tuned is not foretold",
    }


def show_rows(setup: Setup, count: int) -> None:
    """Print the first rows: ids, text, and what of it is learned."""
    for line in shown(setup.material.rows, setup.material.tokenizer, count):
        say(line)
