"""wenlu generate: text that continues a prompt."""

from __future__ import annotations

import json as json_format
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from wenlu.base.errors import UserError
from wenlu.base.log import console, counted, say
from wenlu.cli.flags import INTERRUPTED, parse
from wenlu.cli.writer import Writing

if TYPE_CHECKING:
    from torch import nn

    from wenlu.inference.constrain import Constraint
    from wenlu.inference.generator import Generator, Settings
    from wenlu.inference.prompts import Prompt
    from wenlu.inference.stream import Result
    from wenlu.tokenization.tokenizer import Tokenizer

DESCRIPTION = """Text that continues a prompt, on stdout as it is made; what is said about it goes to stderr.

example: wenlu generate runs/novel --prompt "It was" --max-tokens 100 --temperature 0.7 --stop "The End"
         wenlu generate runs/large --draft runs/small --prompt "It was"
         wenlu generate runs/chat --chat --prompt "Who are you?"
         wenlu generate runs/chat --chat --prompts questions.jsonl --out answers.jsonl"""


@dataclass(frozen=True, kw_only=True)
class Command(Writing):
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, any Transformers folder of a known family, or a hub id."""
    prompt: str = ""
    """The text to continue; empty = begin a document; - = read it from stdin, without its last line end."""
    prompts: Path | None = None
    """A file of many: JSON lines with prompt, if wanted id, and settings of their own (max_tokens, temperature, seed
    …). They are written side by side; called again, the rest is made."""
    out: Path | None = None
    """Where results of --prompts go, a JSON line for each as it is done."""
    chat: bool = False
    """The prompt is what a user says: it is answered, by the chat template of the model's folder."""
    samples: int = 1
    """How many continuations; sample k of a seed is the same however many there are."""
    beams: int = 1
    """More than 1: the most probable text that a search with so many beams finds, nothing drawn; --samples N: the N
    best of them."""
    length_penalty: float = 0.6
    """With beams: above 0, long texts are favoured over short ones."""
    repetition_penalty: float = 1.0
    """Above 1: logits of tokens in prompt and text are divided by it where positive, else multiplied."""
    presence_penalty: float = 0.0
    """Taken from the logits of tokens that the text holds already."""
    frequency_penalty: float = 0.0
    """Taken from them for each time that the text holds them."""
    logit_bias: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """ID:NUMBER, added to that token's logit; ID:-inf bars it. May be given several times."""
    choice: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """The text is this, or another that is given so."""
    regex: str = ""
    """The text matches this regular expression as a whole."""
    json_schema: Path | None = None
    """The text is JSON of the schema in this file."""
    grammar: Path | None = None
    """The text is what the grammar in this file, in Lark's notation, calls start."""
    alternatives: int | None = None
    """With --json or --prompts: log-probabilities of the tokens made, and so many likeliest ones at each place."""
    batch_invariant: bool = False
    """Read each text by itself, with kernels that no timing has chosen: equal bytes, whatever is written beside it."""
    rows: int = 64
    """Most texts side by side."""
    json: bool = False
    """Print one JSON object."""


def main(arguments: list[str]) -> int:
    return run(parse(Command, "generate", arguments, DESCRIPTION))


def run(command: Command) -> int:
    """Carry out the command; what is wrong with its flags and prompts is said before the model is read."""
    from wenlu.inference.batch import Options
    from wenlu.inference.generator import Generator
    from wenlu.inference.prefix import ROOM
    from wenlu.inference.prompts import read_prompts

    settings = _settings(command)
    _check(command)
    kept = ROOM if command.prompts is not None and not command.batch_invariant else 0
    options = Options(command.rows, kept, batch_invariant=command.batch_invariant)
    prompts = read_prompts(command.prompts, settings) if command.prompts is not None else []
    prompt = _read_prompt() if command.prompt == "-" else command.prompt
    with command.model(command.run, measured=not command.batch_invariant) as (model, tokenizer, guesses):
        options = replace(options, guesses=guesses)
        generator = Generator(model, tokenizer, chat=command.chat, options=options)
        if not generator.answers and tokenizer.chat_template is not None:
            console.print("note: this model's folder has a chat template; add --chat to be answered by it")
        if prompts:
            return _many(generator, (model, tokenizer), command, prompts)
        return _one(generator, command, prompt, settings, model.config.context)


def _one(generator: Generator, command: Command, prompt: str, settings: Settings, context: int) -> int:
    """Continue one prompt."""
    began = time.monotonic()
    try:
        if command.samples == 1 and not command.json and command.beams == 1:
            results = [_stream(generator, prompt, settings)]
        else:
            results = generator.generate(prompt, settings, samples=command.samples)
    except KeyboardInterrupt:
        console.print("interrupted")
        return INTERRUPTED
    seconds = time.monotonic() - began
    if command.json:
        print(json_format.dumps(_as_json(command.run, prompt, settings, results), ensure_ascii=False))
    elif command.beams > 1 and command.samples == 1:
        print(results[0].text, flush=True)
    elif command.samples > 1:
        for number, result in enumerate(results, 1):
            print(f"=== sample {number} of {len(results)} ({result.finish})\n{result.text}", flush=True)
    _say_how_it_ended(results, seconds, context, settings.constraint is not None)
    return 0


def _settings(command: Command) -> Settings:
    from wenlu.inference.adjust import Adjustments
    from wenlu.inference.generator import Settings

    adjusted = ("repetition_penalty", "presence_penalty", "frequency_penalty")
    adjustments = Adjustments(*(getattr(command, name) for name in adjusted), _biases(command.logit_bias))
    chosen = {name: getattr(command, name) for name in ("beams", "length_penalty", "alternatives")}
    return Settings(**command.sampling, **chosen, adjustments=adjustments, constraint=_constraint(command))


def _constraint(command: Command) -> Constraint | None:
    """The form asked for; at most one."""
    from wenlu.inference.constrain import Constraint

    asked = {"choices": command.choice, "regex": command.regex}
    asked |= {"json_schema": command.json_schema, "grammar": command.grammar}
    asked = {kind: source for kind, source in asked.items() if source}
    if len(asked) > 1:
        raise UserError("a text has one form: give one of --choice, --regex, --json-schema and --grammar")
    for kind, source in asked.items():
        if isinstance(source, Path):
            try:
                source = source.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"cannot read {source}: {error}") from None
        return Constraint(kind, source)
    return None


def _biases(given: tuple[str, ...]) -> tuple[tuple[int, float], ...]:
    try:
        return tuple((int(id), float(bias)) for id, bias in (one.split(":", 1) for one in given))
    except ValueError:
        raise UserError(f"logit-bias must be ID:NUMBER, such as 42:-inf, not {', '.join(given)}") from None


def _check(command: Command) -> None:
    """Raises UserError for flags that do not belong together."""
    from wenlu.inference.prompts import check_out

    command.check()
    _settings(command).check_samples(command.samples)
    if command.beams > 1 and (command.speculate or command.draft):
        raise UserError(f"{command.beams} beams guess nothing: leave out --speculate and --draft")
    if command.samples > 1 and command.temperature == 0 and command.beams == 1:
        raise UserError(f"at temperature 0 all {command.samples} samples are the same: ask for one, or a higher one")
    if (command.prompts is None) != (command.out is None):
        raise UserError("--prompts FILE and --out FILE belong together: give both, or --prompt TEXT")
    check_out(command.prompts, command.out)
    if command.prompts is not None and (command.prompt or command.samples > 1):
        raise UserError("--prompts holds the prompts, one text for each: leave out --prompt and --samples")
    if command.alternatives is not None and not command.json and command.prompts is None:
        raise UserError("alternatives are given out as JSON only: add --json")


def _many(generator: Generator, pair: tuple[nn.Module, Tokenizer], command: Command, prompts: list[Prompt]) -> int:
    """Continue a file of prompts, with a bar; what was made is kept when interrupted."""
    from wenlu.base.log import progress
    from wenlu.inference.prompts import continue_all
    from wenlu.prompting.backend import FolderBackend

    # What a text depends on besides its row: weights as they are used, configuration, tokenizer, chat template.
    identity = f"{FolderBackend(pair).fingerprint} {command.chat}"
    began, made, guessed, taken, near = time.monotonic(), 0, 0, 0, 0
    with progress("generate") as bar:
        task = bar.add_task("", total=len(prompts), note="")

        def advance(rows: int, result: Result | None) -> None:
            nonlocal made, guessed, taken, near
            if result is not None:
                made, guessed, taken = made + len(result.ids), guessed + result.guessed, taken + result.taken
                near += result.near_ties
            bar.update(task, advance=rows, note=f"{made / max(1e-9, time.monotonic() - began):,.0f} tokens/s")

        try:
            before = continue_all(generator, identity, prompts, command.out, advance)
        except KeyboardInterrupt:
            say(f"interrupted; what was made is in {command.out}: the same command goes on with it")
            return INTERRUPTED
    seconds = time.monotonic() - began
    there = f" ({before:,} there already)" if before else ""
    told = f"{counted(made, 'token')} in {seconds:.1f} s{_acceptance(guessed, taken)}{_closeness(near)}"
    say(f"{counted(len(prompts) - before, 'text')}{there}, {told}; in {command.out}", style="dim")
    if command.json:
        found = {"out": str(command.out), "texts": len(prompts), "there_before": before, "tokens": made}
        found |= {"near_ties": near, **({"acceptance": taken / guessed} if guessed else {})}
        print(json_format.dumps({**found, "seconds": seconds}, ensure_ascii=False))
    return 0


def _read_prompt() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(f"the prompt on stdin is not UTF-8 (byte {error.start}): convert it first") from None


def _stream(generator: Generator, prompt: str, settings: Settings) -> Result:
    """Print a continuation as it is made; the prompt goes before it on stderr, so that both read as one text.

    What answers a prompt (t5) goes on a line of its own.
    """
    stream = generator.stream(prompt, settings)
    console.print(prompt, end="\n" if generator.answers else "", style="dim", markup=False, emoji=False, soft_wrap=True)
    try:
        for piece in stream:
            print(piece, end="", flush=True)
    finally:
        print(flush=True)
    return stream.result


def _as_json(run: str, prompt: str, settings: Settings, results: list[Result]) -> dict:
    from wenlu.inference.prompts import as_row

    guessed, taken = (sum(getattr(result, name) for result in results) for name in ("guessed", "taken"))
    return {
        "run": run,
        "prompt": prompt,
        "prompt_tokens": results[0].prompt_tokens,
        "settings": asdict(settings),
        **({"acceptance": taken / guessed} if guessed else {}),
        "samples": [as_row(result) for result in results],
    }


def _say_how_it_ended(results: list[Result], seconds: float, context: int, formed: bool) -> None:
    tokens = sum(len(result.ids) for result in results)
    reasons = ", ".join(dict.fromkeys(result.finish for result in results))
    right = _acceptance(sum(result.guessed for result in results), sum(result.taken for result in results))
    right += _closeness(sum(result.near_ties for result in results))
    console.print(f"{counted(tokens, 'token')} in {seconds:.1f} s{right}; ended by {reasons}", style="dim")
    if formed and any(result.finish == "length" for result in results):
        say("a text was cut by --max-tokens before its form was whole: give more of them", "yellow")
    if any(result.finish == "context" for result in results):
        console.print(f"stopped early: this gpt2 has no positions beyond {context} tokens")
    if any(result.beyond_context for result in results):
        console.print(f"note: the text is longer than the {context} tokens that the model was trained on")


def _acceptance(guessed: int, taken: int) -> str:
    return f", {taken:,} of {guessed:,} guessed tokens right ({taken / guessed:.0%})" if guessed else ""


def _closeness(near_ties: int) -> str:
    return f", {counted(near_ties, 'near-tie')}" if near_ties else ""
