"""Model folders: saved and loaded in the form of Transformers."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.base.files import atomic_write, replacing, writing
from wenlu.base.log import say
from wenlu.hub import bert
from wenlu.hub.configuration import eos_token_id, read_body, read_config, to_json
from wenlu.hub.names import IGNORED, to_ours, to_theirs
from wenlu.models.build import build, empty
from wenlu.models.config import ModelConfig
from wenlu.tokenization.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def save(model: nn.Module, tokenizer: Tokenizer | None, folder: Path | str) -> None:
    """Write config.json, model.safetensors and the tokenizer's files, each replaced atomically."""
    folder = Path(folder)
    config: ModelConfig = model.config
    tensors = their_tensors(model)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if tokenizer is not None:
            tokenizer.save(folder)
        with replacing(folder / WEIGHTS) as temporary:
            write_tensors(tensors, temporary)
    if config.family != "bert":
        ids = {"bos_token_id": config.bos_id, "eos_token_id": eos_token_id(config), "pad_token_id": config.pad_id}
        if config.family == "t5":
            ids["decoder_start_token_id"] = config.pad_id
        atomic_write(folder / "generation_config.json", json.dumps(ids, indent=1))
    atomic_write(folder / "config.json", json.dumps(to_json(config), indent=1, ensure_ascii=False))


def their_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights under Transformers' names, in f32."""
    weights = {name: p.detach().float().cpu() for name, p in model.named_parameters()}
    return to_theirs(model.config, weights, _rows(model))


def write_tensors(tensors: dict[str, Tensor], file: Path, about: dict[str, str] | None = None) -> None:
    """A safetensors file, with `about` in its metadata and a mode by the umask.

    A full disk and the like are an `OSError` with its number, which the library hides.
    """
    file.touch()
    mode = file.stat().st_mode
    try:
        save_file(tensors, file, metadata={"format": "pt", **(about or {})})
        if file.stat().st_mode != mode:  # the library puts a file of its own there, which only its owner may read
            file.chmod(mode)
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error
        raise


def load(
    reference: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    head: str | None = None,
    labels: tuple[str, ...] = (),
    seed: int = 0,
) -> tuple[nn.Module, Tokenizer | None]:
    """The model, ready to be used, and the tokenizer of a folder (or hub id); None where it has none.

    A bert may be given another `head` than the folder's, and `labels`, to be tuned: what the folder has of it is kept
    (all of it, where head and labels are the same), what it has not begins as `seed` says, and both are said.
    """
    folder = locate(reference)
    body, new = read_body(folder), frozenset()
    config = read_config(folder, body)
    if config.family != "bert" and (head or "tokens") != "tokens":
        raise UserError(
            f"{folder} is of the family {config.family}, whose only head is for tokens: the head {head!r} needs a bert"
        )
    tensors = _read_weights(folder)
    if config.family == "t5" and body.get("scale_decoder_outputs") is False and "shared.weight" in tensors:
        tensors.setdefault("lm_head.weight", tensors["shared.weight"])
    try:
        if config.family == "bert":
            config, tensors, new = bert.fit(config, tensors, head, labels, str(folder))
        model = build(config, seed) if new else empty(config)
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        weights = to_ours(config, tensors, shapes, _rows(model), new)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    if new:
        say(f"{folder}: not in it, so new, by the seed {seed}: {', '.join(sorted(new))}")
    with torch.no_grad():
        for name, tensor in weights.items():
            model.get_parameter(name).copy_(tensor)
    return model.to(device, dtype).eval(), Tokenizer.load(folder) if has_tokenizer(folder) else None


def has_tokenizer(folder: Path) -> bool:
    """Whether a model folder holds a tokenizer too."""
    return any((folder / name).exists() for name in ("tokenizer.json", "vocab.json", "vocab.txt"))


def locate(reference: Path | str) -> Path:
    """The folder that a path or hub id stands for; a hub id is fetched through huggingface_hub."""
    folder = Path(reference)
    if folder.is_dir():
        return folder
    name = str(reference)
    local = folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1
    if local or (folder.parent != Path() and folder.parent.exists()):
        raise UserError(
            f"no model folder at {reference}: give the folder of a run, or a hub id such as openai-community/gpt2"
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise UserError(f"no folder {reference}; to fetch a hub id: pip install huggingface_hub") from None
    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"no folder {reference}, and the hub cannot be reached, nor was it fetched before ({_first_line(error)}): "
            "check the path, or the connection"
        ) from None
    except Exception as error:
        raise UserError(f"no folder {reference}, and the hub gave none of that name: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _rows(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """How many rows each part of a stacked parameter has; its bias is stacked alike."""
    rows = {}
    for prefix, module in model.named_modules():
        for name, parts in getattr(module, "stacked", {}).items():
            rows[f"{prefix}.{name}"] = parts
            rows[f"{prefix}.{name.removesuffix('weight')}bias"] = parts
    return rows


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: one, or several that an index names."""
    index = folder / f"{WEIGHTS}.index.json"
    files = [folder / WEIGHTS]
    if not files[0].exists() and index.exists():
        try:
            files = [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{index} is damaged: fetch it anew") from None
    elif not files[0].exists():
        if any(folder.glob("*.bin")):
            raise UserError(
                f"{folder} holds its weights as a pickle (.bin), which can run code when opened: convert it with "
                "Transformers' save_pretrained(..., safe_serialization=True)"
            )
        raise UserError(f"{folder} holds no {WEIGHTS}")
    for file in files:
        if file.parent != folder or not file.exists():
            raise UserError(f"{index.name} names {file.name}, which is not in {folder}")
    return files


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder."""
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            tensors |= load_file(file)
        except SafetensorError as error:
            raise UserError(f"{file} is damaged: {error}") from None
    for name, tensor in tensors.items():
        if name.endswith(IGNORED):
            continue
        if tensor.dtype not in FLOATS:
            raise UserError(
                f"{folder}: {name} is stored as {str(tensor.dtype).removeprefix('torch.')}, perhaps quantised: "
                "take the weights in float32, float16 or bfloat16"
            )
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"{folder}: {name} holds NaN or infinity: these weights are spoilt, take an older checkpoint"
            )
    return {name: tensor.float() for name, tensor in tensors.items()}
