"""What a recipe takes, on paper: parameters, work, days, and memory by kind on GPUs of a table. Free of torch."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.models.config import ModelConfig
from wenlu.models.size import flops_per_token, parameters, training_bytes, unit_weights
from wenlu.training.gpus import Gpu, find_gpu
from wenlu.training.recipe import Recipe

DAY = 86400.0
KINDS = ("weights", "gradients", "optimizer", "activations", "logits", "update")


@dataclass(frozen=True)
class Cluster:
    """The machine that is thought of."""

    gpu: str
    gpus: int = 1
    utilisation: float = 0.4
    """Of the GPUs' printed speed, what the model's own operations come to (Chowdhery et al. 2022: MFU)."""
    recompute: bool = False
    """Keep no more of a block than its input, and compute it again when its gradients are due (Chen et al. 2016)."""

    def __post_init__(self):
        find_gpu(self.gpu)
        if self.gpus < 1:
            raise UserError(f"gpus must be at least 1, not {self.gpus}")
        if not 0 < self.utilisation <= 1:
            raise UserError(
                f"utilisation must lie above 0 and at most at 1, not {self.utilisation}: 0.4 is usual for a large model"
            )


@dataclass(frozen=True)
class Memory:
    """Of one GPU, in bytes, by kind; `total` is their sum, which the peak does not exceed."""

    at_once: int
    """Sequences computed at once."""
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    """With the gradients that are made of them."""
    update: int
    """What Muon needs while it moves the weights."""
    total: int
    fits: bool


@dataclass(frozen=True)
class Estimate:
    """Everything that `wenlu plan` prints."""

    model: dict[str, Any]
    parameters: int
    embedding_parameters: int
    """Of those, what the vocabulary and learned positions take."""
    tokens: int
    steps: int
    batch: int
    epochs: float | None
    """Over the recipe's prepared data, where it names some."""
    dtype: str
    flops: float
    """Of the model, forward and backward, causal attention counted."""
    flops_6nd: float
    """The usual 6 · parameters · tokens."""
    balance: float
    """Part of the GPUs that have a sequence to work on, over a step."""
    days: float
    kilowatt_hours: float
    """At the boards' full draw, without cooling and the rest of the machine."""
    memory_bytes: float
    """Of one GPU, all there is."""
    whole: Memory
    """When every GPU holds everything."""
    sharded: Memory | None
    """When weights, gradients and optimiser are spread over the GPUs; None for one GPU."""


def estimate(recipe: Recipe, cluster: Cluster) -> Estimate:
    """Work, time and memory of `recipe` on `cluster`; the assumptions are said in docs/planning.md.

    Raises `UserError` where the vocabulary is not known, or where there are more GPUs than sequences in a batch.
    """
    gpu, training = find_gpu(cluster.gpu), recipe.training
    vocab, data_tokens = _vocabulary(recipe)
    config = replace(recipe.model, vocab=vocab).resolved()
    if cluster.gpus > training.batch:
        raise UserError(
            f"a batch of {training.batch:,} sequences cannot be shared by {cluster.gpus:,} GPUs: give --gpus "
            f"{training.batch} or less, or a larger --training.batch"
        )
    dtype = _dtype(training.dtype, gpu, cluster.gpu)
    share = math.ceil(training.batch / cluster.gpus)
    balance = training.batch / (share * cluster.gpus)
    tokens = training.steps * training.batch * config.context
    flops = flops_per_token(config, config.context) * tokens
    speed = 1e12 * (gpu.bf16 if dtype == "bf16" else gpu.f32) * cluster.utilisation
    days = flops / (speed * cluster.gpus * balance) / DAY
    count = parameters(config)
    return Estimate(
        model=asdict(config),
        parameters=count,
        embedding_parameters=_embeddings(config),
        tokens=tokens,
        steps=training.steps,
        batch=training.batch,
        epochs=tokens / data_tokens if data_tokens else None,
        dtype=dtype,
        flops=flops,
        flops_6nd=6.0 * count * tokens,
        balance=balance,
        days=days,
        kilowatt_hours=days * 24 * cluster.gpus * gpu.watts / 1000,
        memory_bytes=gpu.memory * 1e9,
        whole=_memory(config, recipe, cluster, dtype, share, sharded=False),
        sharded=_memory(config, recipe, cluster, dtype, share, sharded=True) if cluster.gpus > 1 else None,
    )


def _vocabulary(recipe: Recipe) -> tuple[int, int]:
    """Rows of the embedding, and the training tokens of prepared data (0 where there are none)."""
    paths = recipe.data.paths
    file = Path(paths[0]) / "data.json" if len(paths) == 1 else None
    if file is not None and file.is_file():
        try:
            description = json.loads(file.read_text(encoding="utf-8"))
            return int(description["vocab"]), int(description["train"]["tokens"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file} is damaged: prepare the data again") from None
    if not recipe.model.vocab:
        raise UserError(
            "the size of the vocabulary is not known before there is a tokenizer: state it (--model.vocab 50257, or "
            "vocab under [model] in the recipe), or name data made by `wenlu prepare`"
        )
    return recipe.model.vocab, 0


def _dtype(wanted: str, gpu: Gpu, name: str) -> str:
    """As `wenlu train` chooses it: bf16 where the card computes in it."""
    if wanted == "bf16" and not gpu.bf16:
        raise UserError(f"a {name} has no bf16 arithmetic of its own: use --training.dtype f32")
    return "bf16" if wanted != "f32" and gpu.bf16 else "f32"


def _embeddings(config: ModelConfig) -> int:
    learned = {"gpt2": config.context, "bert": config.context + config.types}.get(config.family, 0) * config.dim
    return config.vocab * config.dim * (1 if config.tied else 2) + learned


def _memory(config: ModelConfig, recipe: Recipe, cluster: Cluster, dtype: str, share: int, *, sharded: bool) -> Memory:
    """With as many sequences at once as the recipe says; where it says nothing, as fit when the share is halved."""
    room = find_gpu(cluster.gpu).memory * 1e9
    at_once = min(share, recipe.training.micro_batch or share)
    while True:
        kinds = _kinds(config, recipe, cluster, dtype, at_once, sharded=sharded)
        total = sum(kinds.values())
        if total <= room or at_once == 1 or recipe.training.micro_batch:
            return Memory(at_once, **kinds, total=total, fits=total <= room)
        at_once = math.ceil(at_once / 2)


def _kinds(
    config: ModelConfig, recipe: Recipe, cluster: Cluster, dtype: str, at_once: int, *, sharded: bool
) -> dict[str, int]:
    """Bytes by kind.

    Sharded as FSDP2 does it, over f32 weights: a GPU keeps its part of weights, gradients and state; the weights of a
    block are gathered in the products' format while it works, those of the next one meanwhile; embedding and head stay
    gathered; gradients are whole, in f32 too, for one block at a time, until they are summed over the GPUs.
    """
    parts = training_bytes(
        config, at_once, config.context, recipe.optimizer.name, dtype, "cuda", recompute=cluster.recompute
    )
    kinds = {kind: parts[kind] for kind in KINDS}
    if not sharded:
        return kinds
    block, ends = unit_weights(config)
    number = 4 if dtype == "f32" else 2
    parameter_share = math.ceil(4 * parameters(config) / cluster.gpus)
    kinds["weights"] = parameter_share + number * (2 * block + ends)
    kinds["gradients"] = parameter_share + (number + 4) * max(block, ends)
    kinds["optimizer"] = math.ceil(kinds["optimizer"] / cluster.gpus)
    return kinds
