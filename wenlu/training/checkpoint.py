"""Checkpoints: everything the next update depends on, in a folder that is whole or absent."""

import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from wenlu.base.errors import UserError
from wenlu.base.files import verify_folder, whole_folder
from wenlu.hub.folder import write_tensors

_NAME = re.compile(r"step-(\d+)")


@dataclass
class Progress:
    """Where a run stands after `step` updates; whatever the loop remembers from one step to the next."""

    step: int = 0
    tokens: int = 0
    """Targets learned from so far."""
    order: str = ""
    """Running digest of which samples were read, in order."""
    loss_sum: float = 0.0
    """Nats since the last row of metrics."""
    loss_count: int = 0
    best_loss: float | None = None
    best_step: int = 0
    held_out: float | None = None
    evaluations_since_best: int = 0
    seconds: float = 0.0
    """Time spent training, resumed parts included."""
    clock: float = 0.0
    """Seconds of the run's life up to here: preparing, evaluating and saving included, pauses not."""
    turns: list[list[int]] = field(default_factory=list)
    """Of a run of a given length in time: updates done, and updates in all from then on."""
    finished: str = ""
    """Why the run ended, once it has."""


def save_checkpoint(folder: Path, progress: Progress, tensors: dict[str, dict[str, Tensor]], keep: int) -> Path:
    """Write `folder/step-N` whole, then remove all but the newest `keep` up to it.

    Newer ones can only be damaged ones that a resume has passed over: they go too, lest they count as kept. A whole one
    of the same step holds the same already and stays, so that only a damaged one is ever replaced.

    `tensors` holds named groups (weights, optimizer), each saved as one safetensors file.
    """
    path = folder / f"step-{progress.step:08d}"
    if not path.exists() or verify_folder(path):
        with whole_folder(path, replace=True) as temporary:
            for group, members in tensors.items():
                tensors_now = {name: t.detach().cpu().contiguous() for name, t in members.items()}
                write_tensors(tensors_now, temporary / f"{group}.safetensors")
            (temporary / "progress.json").write_text(json.dumps(asdict(progress), indent=1))
    found = list_checkpoints(folder)
    newest = found.index(path) + 1
    for unwanted in found[: max(0, newest - keep)] + found[newest:]:
        shutil.rmtree(unwanted, ignore_errors=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [p for p in folder.glob("step-*") if _NAME.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(found, key=lambda p: int(_NAME.fullmatch(p.name)[1]))


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose every byte is as it was written, and what was wrong with each newer one."""
    damaged = []
    for path in reversed(list_checkpoints(folder)):
        problems = verify_folder(path)
        if not problems:
            return path, damaged
        damaged.append(f"checkpoint {path.name} is damaged ({'; '.join(problems)})")
    return None, damaged


def load_checkpoint(path: Path) -> tuple[Progress, dict[str, dict[str, Tensor]]]:
    """What `save_checkpoint` wrote."""
    fields: dict[str, Any] = json.loads((path / "progress.json").read_text())
    tensors = {file.stem: load_file(file) for file in path.glob("*.safetensors")}
    try:
        return Progress(**fields), tensors
    except TypeError:
        raise UserError(f"{path} was written by another version of wenlu: resume with that one") from None


def restore_weights(model: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Put saved weights back in place."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
