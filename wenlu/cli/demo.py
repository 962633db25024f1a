"""wenlu demo: the whole path in about three minutes, on a text that every Python carries."""

import json as json_format
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from wenlu.base.errors import UserError
from wenlu.base.files import atomic_write
from wenlu.base.log import console
from wenlu.cli.flags import INTERRUPTED, parse
from wenlu.data.config import PrepareConfig
from wenlu.training.recipe import Recipe, TrainingConfig, resolve
from wenlu.training.run_folder import RunFolder

DESCRIPTION = """All of it in about three minutes of two processor cores, without network: a model is trained on
Python's own documentation and docstrings, scored on held-out text beside xz, and asked to write.

example: wenlu demo --out demo-run"""

PROMPTS = ("The", "Return the", "If the argument is")


@dataclass(frozen=True)
class Command:
    out: str = "demo-run"
    """The run's folder; where the demo has been before, it goes on, or shows its figures again."""
    minutes: float = 3.0
    """Length of the training, for which the model is planned on this machine."""
    steps: int = 0
    """Updates of the default model's weights, instead of a length in time."""
    json: bool = False
    """Print one JSON object."""


def recipe(corpus: Path, minutes: float, steps: int) -> Recipe:
    """What the demo trains: what is planned for the time, or so many steps of the default model."""
    training = TrainingConfig(steps=steps) if steps else TrainingConfig(minutes=minutes)
    return Recipe(data=PrepareConfig(paths=(str(corpus),)), training=training)


def main(arguments: list[str]) -> int:
    began = time.monotonic()
    command = parse(Command, "demo", arguments, DESCRIPTION)
    if command.minutes <= 0 and not command.steps:
        raise UserError(f"minutes must be above 0, not {command.minutes:g}: 3 are enough to see a model write")
    out = Path(command.out).absolute()
    corpus = out.with_name(f".{out.name}.jsonl")
    wanted, folder = recipe(corpus, command.minutes, command.steps), RunFolder(out)
    begun = folder.exists()
    if begun and folder.recipe() != resolve(wanted, folder.chosen() or {}):
        raise UserError(f"{command.out} holds another run: look at it by wenlu info, or give another --out")
    from wenlu.data.default_corpus import documents, sha256

    texts = list(documents())
    digest = sha256(texts)
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    console.print(f"corpus: {len(texts):,} texts of Python's documentation, {size:,} bytes, sha256 {digest[:16]}…")
    rows = (json_format.dumps({"text": text.encode("utf-8", "replace").decode()}) for text in texts)
    atomic_write(corpus, "\n".join(rows) + "\n")
    try:
        from wenlu.training.loop import train

        outcome = train(wanted, out, resume=begun, began=began)
    finally:
        corpus.unlink(missing_ok=True)
    if outcome.finished == "interrupted":
        return INTERRUPTED
    facts = {"corpus_sha256": digest, "corpus_bytes": size, "seconds": outcome.seconds, **score(out)}
    if command.json:
        print(json_format.dumps({**facts, "samples": write(out)}, ensure_ascii=False))
        return 0
    width = shutil.get_terminal_size().columns
    print(f"\nheld-out text, {facts['held_out_bytes']:,} bytes in bits per byte (less is better)")
    low, high = facts["interval"]
    print(f"  this model  {facts['bits_per_byte']:.3f}   95 % interval {low:.3f} to {high:.3f}")
    print(f"  xz          {facts['xz_bits_per_byte']:.3f}   preset 9e, knowing the training text")
    for text in write(out):
        print(f"\n{'-' * min(width, 60)}\n{text}")
    print(f"\nreport: {Path(command.out) / 'wenlu' / 'report.html'}")
    print(f'go on:  wenlu generate {command.out} --prompt "The function "')
    return 0


def score(run: Path) -> dict:
    """Bits per byte of the run on its own held-out documents, and xz's."""
    from wenlu.data.default_corpus import xz_bits_per_byte
    from wenlu.data.shards import open_data
    from wenlu.evaluation.perplexity import evaluate
    from wenlu.hub.folder import load

    data = open_data(run / "wenlu" / "data")
    held_out, train = (store.documents(data.tokenizer) for store in (data.validation, data.train))
    model, tokenizer = load(run)
    bits = evaluate(model, tokenizer, held_out).bits_per_byte
    joined = ["\n\n".join(texts).encode() for texts in (train, held_out)]
    return {
        "held_out_bytes": sum(len(text.encode()) for text in held_out),
        "bits_per_byte": bits.value,
        "interval": [bits.interval.low, bits.interval.high],
        "xz_bits_per_byte": xz_bits_per_byte(*joined),
    }


def write(run: Path) -> list[str]:
    """What the model writes after three beginnings."""
    from wenlu.hub.folder import load
    from wenlu.inference.generator import Generator, Settings

    generator = Generator(*load(run))
    settings = Settings(max_tokens=80, temperature=0.7)
    return [prompt + generator.generate(prompt, settings)[0].text for prompt in PROMPTS]
