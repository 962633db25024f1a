"""A model's int8 weights beside the model that they were made from: FOLDER/wenlu/int8.safetensors.

The file is whole by itself, with the model's configuration, and names the sha256 of its source: where that was
trained further or replaced, it is refused. Transformers does not read it, and sees the float weights as before.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wenlu.base.config import from_dict, to_dict
from wenlu.base.errors import UserError
from wenlu.base.files import replacing, sha256_file, writing
from wenlu.hub.configuration import read_config
from wenlu.hub.folder import WEIGHTS, has_tokenizer, locate, weight_files, write_tensors
from wenlu.models.build import empty
from wenlu.models.config import ModelConfig
from wenlu.models.quantized import is_int8, to_int8_form
from wenlu.tokenization.tokenizer import Tokenizer

FILE = Path("wenlu") / "int8.safetensors"


def save_int8(model: nn.Module, folder: Path | str) -> Path:
    """Write a quantised model beside the weights of `folder`, from which it was made; returns the file."""
    folder = Path(folder)
    assert is_int8(model), "the model is not in int8"
    file = folder / FILE
    about = {"source_sha256": source_hash(folder), "config": json.dumps(to_dict(model.config))}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            write_tensors(tensors, temporary, about)
    return file


def load_int8(reference: Path | str, device: torch.device | str = "cpu") -> tuple[nn.Module, Tokenizer | None]:
    """The quantised model of a folder (or hub id), ready to be used, and its tokenizer; None where it has none.

    UserError where there are no int8 weights, or where they are not those of the folder's `model.safetensors` and
    configuration.
    """
    folder = locate(reference)
    file = folder / FILE
    if not file.exists():
        raise UserError(f"{folder} has no int8 weights yet ({FILE}): quantise its model first")
    about, tensors = _read(file)
    if about.get("source_sha256") != source_hash(folder):
        raise UserError(
            f"{file} was made from other weights than {folder} holds now: remove it, and quantise the model anew"
        )
    config = from_dict(ModelConfig, json.loads(about["config"]), str(file))
    known = read_config(folder)
    if (known.head, config.head) == ("pool", "none"):  # what a bert without a pooler was read as
        known = replace(known, head="none")
    if known.resolved() != config.resolved():
        raise UserError(
            f"{file} was made with another configuration than {folder} holds now: "
            "remove it, and quantise the model anew"
        )
    model = empty(config)
    to_int8_form(model)
    wanted = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    if wanted != {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}:
        raise UserError(f"{file} does not hold the model that it names: remove it, and quantise the model anew")
    model.load_state_dict(tensors)
    return model.to(device).eval(), Tokenizer.load(folder) if has_tokenizer(folder) else None


def source_hash(folder: Path) -> str:
    """sha256 of model.safetensors; of a model in several files, of their names and hashes."""
    files = weight_files(folder)
    if files == [folder / WEIGHTS]:
        return sha256_file(files[0])
    lines = [f"{file.name} {sha256_file(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(file, "pt") as opened:
            about = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dict
    except SafetensorError as error:
        raise UserError(f"{file} is damaged ({error}): remove it, and quantise the model anew") from None
    if "config" not in about:
        raise UserError(f"{file} does not say what model it holds: remove it, and quantise the model anew")
    return about, tensors
