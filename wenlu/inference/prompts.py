"""A file of prompts, each continued: JSON lines in, JSON lines out, gone on with after an interruption."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError, did_you_mean
from wenlu.base.log import JsonLines, read_rows
from wenlu.inference.generator import Generator, Settings
from wenlu.inference.stream import Result

OWN = tuple(
    field.name
    for field in fields(Settings)
    if field.name not in ("beams", "length_penalty", "adjustments", "constraint")
)
"""Settings that a row may have of its own."""
_BEGINNING = b'{"number": '
"""Of every row of results, one that was torn by a kill too."""


@dataclass(frozen=True)
class Prompt:
    """One row of such a file."""

    number: int
    """From 0."""
    line: int
    """Of the file, from 1."""
    text: str
    settings: Settings
    kept: dict[str, Any]
    """Its other entry, `id`, which is given out again."""

    def key(self, model: str) -> str:
        """What its result depends on, in short."""
        return key_of(model, self.text, asdict(self.settings))


def key_of(*parts: Any) -> str:
    """What a row of results depends on, in short: a part of the sha256 of its JSON."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def kept_rows(out: Path, keys: list[str]) -> dict[int, dict[str, Any]]:
    """The rows of `out` by their number, which a command goes on with; nothing is changed. UserError where their keys
    are others, and for a file that holds anything else."""
    done: dict[int, dict[str, Any]] = {}
    for row in read_rows(out):
        number = row.get("number") if isinstance(row, dict) else None
        if type(number) is not int or not 0 <= number < len(keys) or row.get("key") != keys[number]:
            raise UserError(
                f"{out} holds results of another model, other prompts or settings: give another --out, or remove it"
            )
        done[number] = row
    torn = out.read_bytes().rpartition(b"\n")[2].rstrip(b"\0") if out.exists() else b""  # zeros are of a crash
    if not _BEGINNING.startswith(torn[: len(_BEGINNING)]):
        raise UserError(f"{out} ends in what is no row of results: give another --out, or remove it")
    return done


def check_out(prompts: Path | None, out: Path | None) -> None:
    """Raises UserError where results would be written into what is asked, or cannot be in a file of that name."""
    if out is None:
        return
    if prompts is not None and prompts.resolve() == out.resolve():
        raise UserError(f"--out {out} is the file of prompts itself: name another file for the results")
    if out.is_dir():
        raise UserError(f"{out} is a folder: --out names the file, such as {out / 'results.jsonl'}")
    if above := next((path for path in out.parents if path.is_file()), None):
        raise UserError(f"cannot write {out}: {above} is a file, not a folder; write elsewhere with --out")


def read_prompts(file: Path, settings: Settings) -> list[Prompt]:
    """The rows of a file of JSON lines: `prompt`, if wanted `id`, and settings of its own; each row's seed is the
    common one plus its number, unless it has one. Raises UserError, with the line, for anything else, and for two rows
    of one id."""
    if not file.is_file():
        raise UserError(f"no file {file}: give one of JSON lines, each with a prompt")
    try:
        lines = file.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 (byte {error.start}): convert it first") from None
    found: list[Prompt] = []
    for line, content in enumerate(lines, 1):
        if content.strip():
            try:
                found.append(_prompt(json.loads(content), len(found), line, settings))
            except (ValueError, UserError) as error:
                reason = error if isinstance(error, UserError) else f"this is no JSON ({error})"
                raise UserError(f"{file}, line {line}: {reason}") from None
    if not found:
        raise UserError(f"{file} holds no prompts: give JSON lines such as {{'prompt': 'It was'}}".replace("'", '"'))
    _check_ids(file, found)
    return found


def _check_ids(file: Path, prompts: list[Prompt]) -> None:
    """Results come as they are done, so an id that two rows share would tell nobody which is whose."""
    lines: dict[str, int] = {}
    for prompt in prompts:
        if (id := prompt.kept.get("id")) is None:
            continue
        first = lines.setdefault(json.dumps(id, sort_keys=True), prompt.line)
        if first != prompt.line:
            raise UserError(
                f"{file}: lines {first} and {prompt.line} have the id {id!r}: leave one out, or change its id"
            )


def _prompt(row: Any, number: int, line: int, settings: Settings) -> Prompt:
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise UserError('a row is an object with a text named prompt, such as {"prompt": "It was"}')
    changes = {name: value for name, value in row.items() if name not in ("prompt", "id")}
    for name, value in changes.items():
        if name not in OWN:
            raise UserError(f"a row has no {name!r}.{did_you_mean(name, OWN)} It may hold prompt, id, {', '.join(OWN)}")
        changes[name] = tuple(value) if isinstance(value, list) else value
    if settings.beams == 1:
        changes.setdefault("seed", settings.seed + number)
    return Prompt(number, line, row["prompt"], replace(settings, **changes), {k: row[k] for k in ("id",) if k in row})


def continue_all(
    generator: Generator, model: str, prompts: list[Prompt], out: Path, advance: Callable[[int, Result | None], None]
) -> int:
    """Write a row for each prompt to `out` as it is done, and how many of them were there already.

    `advance` is told of those that were there, and of each result. Raises UserError where `out` holds rows of other
    prompts or settings (it is never overwritten), before the first step for prompts that the model cannot read, and at
    the end where texts have failed, which have no row then.
    """
    keys = [prompt.key(model) for prompt in prompts]
    done = kept_rows(out, keys)
    rest = [prompt for prompt in prompts if prompt.number not in done]
    _check(generator, rest)
    file = JsonLines(out)  # only now: it cuts off a torn row
    try:
        done = kept_rows(out, keys)  # another process may have ended meanwhile
        rest = [prompt for prompt in rest if prompt.number not in done]
        advance(len(done), None)
        _write_rest(generator, model, rest, file, advance)
        file.sync()
        return len(done)
    finally:
        file.close()


def _check(generator: Generator, prompts: list[Prompt]) -> None:
    """Raises UserError that names the lines of prompts that cannot be read."""
    wrong: list[tuple[int, UserError]] = []
    for prompt in prompts:
        try:
            generator.check(prompt.text)
        except UserError as error:
            wrong.append((prompt.line, error))
    if wrong:
        lines = ", ".join(str(line) for line, _ in wrong[:10]) + ", …" * (len(wrong) > 10)
        raise UserError(
            f"{len(wrong)} of the prompts cannot be read (lines {lines}), and none is begun; the first: {wrong[0][1]}"
        )


def _write_rest(generator: Generator, model: str, prompts: list[Prompt], file: JsonLines, advance) -> None:
    waiting, going, failed, room = prompts[::-1], [], [], generator.options.rows

    def give_out(prompt: Prompt, result: Result) -> None:
        file.write(number=prompt.number, key=prompt.key(model), **prompt.kept, prompt=prompt.text, **as_row(result))
        advance(1, result)

    while waiting or going:
        while waiting and len(going) < room:
            prompt = waiting.pop()
            if prompt.settings.beams > 1:
                give_out(prompt, generator.generate(prompt.text, prompt.settings)[0])
            else:
                going.append((prompt, generator.stream(prompt.text, prompt.settings)))
        generator.engine.step()
        still = []
        for prompt, stream in going:
            stream.pull()
            if not stream.done:
                still.append((prompt, stream))
                continue
            try:
                give_out(prompt, stream.result)
            except UserError as error:
                failed.append((prompt.number, error))
        going = still
    if failed:
        number, error = failed[0]
        many = f"{len(failed)} of the texts have failed" if len(failed) > 1 else "a text has failed"
        raise UserError(f"{many}, the others are written; prompt {number}: {error}")


def as_row(result: Result) -> dict[str, Any]:
    """A result as it is written to JSON; what was not asked for is left out."""
    row = {"text": result.text, "tokens": len(result.ids), "prompt_tokens": result.prompt_tokens}
    row |= {"finish": result.finish, "beyond_context": result.beyond_context, "near_ties": result.near_ties}
    if result.guessed:
        row |= {"guessed": result.guessed, "taken": result.taken}
    if result.log_probability is not None:
        row["log_probability"] = result.log_probability
    if result.log_probabilities:
        row["ids"], row["log_probabilities"] = list(result.ids), list(result.log_probabilities)
    if any(result.alternatives):
        row["alternatives"] = [[list(pair) for pair in best] for best in result.alternatives]
    return row
