"""wenlu export: a model as one GGUF file."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wenlu.base.errors import UserError
from wenlu.base.log import progress, say
from wenlu.cli.flags import parse

DESCRIPTION = """A model as one GGUF file, for llama.cpp and what is built on it: weights, tokenizer, chat template.
Transformers needs no export: it opens RUN as it is.

example: wenlu export runs/novel --out novel.gguf --dtype q8_0"""


@dataclass(frozen=True)
class Command:
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run's folder, a Transformers folder of gpt2, llama, mistral, qwen2 or qwen3, or a hub id."""
    out: Path
    """The file, such as novel.gguf."""
    dtype: str = "f32"
    """Of the matrices: f32, bf16, or q8_0 (8 bits, a scale for every 32 numbers)."""
    json: bool = False
    """Print one JSON object."""


def main(arguments: list[str]) -> int:
    return run(parse(Command, "export", arguments, DESCRIPTION))


def run(command: Command) -> int:
    """Carry out the command."""
    if command.out.is_dir():
        raise UserError(f"{command.out} is a folder: --out names the file, such as {command.out / 'model.gguf'}")
    from wenlu.hub.gguf import export

    bar = progress("tensors")
    task = bar.add_task("", total=None, note="")

    def show(done: int, of: int) -> None:
        bar.start()  # only now: a refusal needs no bar
        bar.update(task, completed=done, total=of)

    try:
        written = export(command.model, command.out, command.dtype, show)
    finally:
        if bar.live.is_started:
            bar.stop()
    for note in written.notes:
        say(f"note: {note}")
    if written.kept_f32:
        say(f"note: {len(written.kept_f32)} matrices stay in f32, their rows being no multiple of 32 numbers")
    if command.json:
        print(json_format.dumps({**asdict(written), "file": str(written.file)}, ensure_ascii=False))
    else:
        kind = f"tokenizer {written.tokenizer}" if written.tokenizer else "no tokenizer"
        print(f"{written.file}: {written.bytes:,} bytes, {written.tensors} tensors, {written.architecture}, {kind}")
    return 0
