"""wenlu info: what is in a run, a data folder or a tokenizer."""

from __future__ import annotations

import json as json_format
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wenlu.base.errors import UserError
from wenlu.base.log import console, read_rows, say
from wenlu.cli.flags import parse

if TYPE_CHECKING:
    from wenlu.models.config import ModelConfig

DESCRIPTION = """What is in a run, a folder of data or a tokenizer: sizes, losses, checkpoints, bytes per token,
the vocabulary.

example: wenlu info runs/novel
         wenlu info runs/novel --text notes.txt --vocabulary 500:40
         wenlu info data/bpe --against data/unigram byte --text notes.txt"""


EXAMPLES = (
    "examples",
    "samples",
    "longest_lines",
    "without_commas_examples",
    "example",
    "edges",
    "documents_by_length",
)
"""Of data.json: what is looked at in audit.html or by --json, not in a table."""


@dataclass(frozen=True)
class Command:
    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """A run or any Transformers folder, a folder made by `wenlu prepare`, or a tokenizer (folder or file)."""
    text: tuple[str, ...] = ()
    """Texts, as for `wenlu prepare`, on which bytes per token are measured; else one text in ten languages."""
    against: tuple[str, ...] = ()
    """Other tokenizers (folders, files, or byte): all side by side, on the same text."""
    vocabulary: str = ""
    """START:COUNT: show so many tokens from an id on, as text."""
    json: bool = False
    """Print one JSON object."""


def main(arguments: list[str]) -> int:
    return run(parse(Command, "info", arguments, DESCRIPTION))


def run(command: Command) -> int:
    """Carry out the command; torch is not needed for it."""
    path = Path(command.path)
    wanted = _range(command.vocabulary) if command.vocabulary else None
    if command.against:
        facts = _comparison(command, wanted)
        print(json_format.dumps(facts, ensure_ascii=False)) if command.json else _print_comparison(facts)
        return 0
    kind = _kind(path)
    facts: dict[str, Any] = {"kind": kind, "path": command.path}
    facts |= {"run": _run_facts, "data": _data_facts, "tokenizer": lambda _: {}}[kind](path)
    if (path / "tokenizer.json").is_file() or kind == "tokenizer":
        facts |= _tokenizer_facts(path, command.text, wanted, survey_wanted=kind == "tokenizer" or bool(command.text))
    elif command.text or wanted:
        raise UserError(f"{path} holds no tokenizer yet, which --text and --vocabulary need")
    if command.json:
        print(json_format.dumps(facts, ensure_ascii=False))
    else:
        _print(facts)
    return 0


def _range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not int(match[2]):
        raise UserError(f"vocabulary must be START:COUNT, such as 0:100, not {text!r}")
    return int(match[1]), int(match[2])


def _check_range(wanted: tuple[int, int] | None, size: int) -> None:
    if wanted and wanted[0] >= size:
        raise UserError(f"vocabulary begins at {wanted[0]:,}, beyond the {size:,} tokens: begin below {size:,}")


def _kind(path: Path) -> str:
    """run, data or tokenizer, by what lies there."""
    if not path.exists():
        raise UserError(f"there is nothing at {path}: give a folder that exists")
    if path.is_file():
        _check_file(path)
        return "tokenizer"
    if (path / "wenlu" / "recipe.json").is_file() or (path / "config.json").is_file():
        return "run"
    if (path / "data.json").is_file():
        return "data"
    if (path / "tokenizer.json").is_file() or (path / "vocab.json").is_file():
        return "tokenizer"
    raise UserError(
        f"{path} is no run (wenlu/recipe.json or config.json), no data (data.json) and no tokenizer (tokenizer.json): "
        "give a folder that holds one of them"
    )


def _check_file(path: Path) -> None:
    """Refuse a file that cannot be a tokenizer's, which is JSON with a model in it."""
    with path.open("rb") as file:
        if file.read(4) == b"GGUF":
            raise UserError(
                f"{path} is a GGUF file, which wenlu writes for llama.cpp but does not read: "
                "give the folder that it was made of"
            )
    try:
        is_tokenizer = "model" in json_format.loads(path.read_bytes())
    except (ValueError, TypeError, RecursionError):
        is_tokenizer = False
    if not is_tokenizer:
        raise UserError(
            f"{path} is no tokenizer that can be read (copy a damaged one again): info takes a run, a prepared folder, "
            "a model or a tokenizer; texts go to --text, or to wenlu prepare"
        )


def _data_facts(path: Path) -> dict[str, Any]:
    return {"data": _read_json(path / "data.json")}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json_format.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): make or copy it again") from None


def _run_facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if (path / "config.json").is_file():
        from wenlu.hub.configuration import read_config
        from wenlu.models.size import parameters

        config = read_config(path)
        facts["model"] = {"family": config.family, "parameters": parameters(config), **used(config)}
    own = path / "wenlu"
    if (own / "recipe.json").is_file():
        facts["training"] = _training_facts(own)
    return facts


def used(config: ModelConfig) -> dict[str, Any]:
    """The fields of a model's shape that mean something for its family, in their order."""
    from wenlu.models.config import ROTARY, WINDOWED

    family, fields = config.family, asdict(config.resolved())
    of_some = {
        ("rope_theta", "kv_heads", "attention_bias"): family in ROTARY,
        ("rope",): config.rope.kind != "none",
        ("mlp_bias",): family == "llama",
        ("window",): family in WINDOWED,
        ("full_layers",): family in WINDOWED[1:] and config.window,
        ("decoder_layers", "gated", "buckets", "distance"): family == "t5",
        ("types",): family == "bert",
        ("labels",): config.head in ("classify", "tag"),
        ("head",): family == "bert",
        ("heads", "head_dim", "ffn", "activation", "norm_eps"): family != "lstm",
        ("other_eos_ids",): config.other_eos_ids,
    }
    unused = {name for names, used in of_some.items() if not used for name in names}
    return {name: value for name, value in fields.items() if name not in unused}


def _training_facts(own: Path) -> dict[str, Any]:
    """How far a run has come: steps done and wanted, losses per target, checkpoints."""
    rows = read_rows(own / "metrics.jsonl")
    steps = [row for row in rows if "loss" in row]
    held_out = [row for row in rows if row.get("held_out") is not None]
    turns = [row["steps"] for row in read_rows(own / "events.jsonl") if row["event"] == "turn"]  # of a run by minutes
    wanted = turns[-1] if turns else _read_json(own / "recipe.json")["training"]["steps"]
    facts: dict[str, Any] = {"steps": max((row["step"] for row in rows), default=0), "steps_wanted": wanted}
    if steps:
        facts |= {"tokens": steps[-1]["tokens"], "seconds": steps[-1]["seconds"], "loss": steps[-1]["loss"]}
    if held_out:
        best = min(held_out, key=lambda row: row["held_out"])
        facts |= {
            "held_out": held_out[-1]["held_out"],
            "best_held_out": best["held_out"],
            "best_bits_per_byte": best.get("bits_per_byte"),
            "best_step": best["step"],
        }
    facts["checkpoints"] = sorted(folder.name for folder in (own / "checkpoints").glob("step-*") if folder.is_dir())
    return facts


def _tokenizer_facts(
    path: Path, paths: tuple[str, ...], wanted: tuple[int, int] | None, *, survey_wanted: bool
) -> dict[str, Any]:
    from wenlu.tokenization.survey import SAMPLES, survey, vocabulary
    from wenlu.tokenization.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(path)
    _check_range(wanted, tokenizer.vocab)
    facts: dict[str, Any] = {
        "tokenizer": {
            "kind": tokenizer.kind,
            "vocabulary": tokenizer.vocab,
            "bos_id": tokenizer.bos_id,
            "eos_id": tokenizer.eos_id,
            "pad_id": tokenizer.pad_id,
            "fingerprint": tokenizer.fingerprint,
        }
    }
    if survey_wanted and paths:
        facts["bytes_per_token"] = _survey_facts(survey(tokenizer, _texts(paths)))
    elif survey_wanted:
        try:
            facts["bytes_per_token"] = _survey_facts(survey(tokenizer, SAMPLES.values()))
        except UserError as error:
            facts["why_no_bytes_per_token"] = str(error)
    if wanted:
        rows = vocabulary(tokenizer, *wanted)
        facts["tokens"] = [
            {"id": row.id, "text": row.text, "bytes": len(row.bytes), "special": row.special} for row in rows
        ]
    return facts


def _survey_facts(rows: list[Any]) -> list[dict[str, Any]]:
    size, characters, tokens = (sum(getattr(row, name) for row in rows) for name in ("bytes", "characters", "tokens"))
    if not rows:
        raise UserError("the texts of --text are empty: there is nothing to measure")
    return [{**asdict(row), "bytes_per_token": row.bytes_per_token} for row in rows] + [
        {"script": "all", "bytes": size, "characters": characters, "tokens": tokens, "bytes_per_token": size / tokens}
    ]


def _texts(paths: tuple[str, ...]) -> Iterable[str]:
    from wenlu.data.reading.counts import SourceCounts, notes
    from wenlu.data.reading.sources import read_documents, spooled

    counts = SourceCounts()
    with spooled(paths) as files:
        for piece in read_documents(files, counts):
            yield piece.text
    for note in notes(counts.as_dict()):
        say(note)


def _comparison(command: Command, wanted: tuple[int, int] | None) -> dict[str, Any]:
    from wenlu.data.reading.counts import SourceCounts, notes
    from wenlu.data.reading.sources import read_documents, spooled
    from wenlu.tokenization.compare import compare
    from wenlu.tokenization.survey import SAMPLES, vocabulary

    names = [command.path, *command.against]
    tokenizers, readings = [_named(name) for name in names], []
    _check_range(wanted, max(tokenizer.vocab for tokenizer in tokenizers))
    with spooled(command.text) as files:

        def texts() -> Iterable[str]:
            readings.append(SourceCounts())
            return (piece.text for piece in read_documents(files, readings[-1]))

        columns = compare(tokenizers, texts if files else SAMPLES.values)
    for note in notes(*(counts.as_dict() for counts in readings[:1])):  # all have read the same
        say(note)
    facts: dict[str, Any] = {"kind": "comparison", "bytes": columns[0].bytes, "characters": columns[0].characters}
    facts["tokenizers"] = [
        {
            "name": name,
            "kind": tokenizer.kind,
            "vocabulary": tokenizer.vocab,
            "tokens": column.tokens,
            "bytes_per_token": column.bytes_per_token,
            "bytes_per_token_by_script": {row.script: row.bytes_per_token for row in column.scripts},
            "megabytes_per_second": column.megabytes_per_second,
            "lossless": column.lossless,
        }
        for name, tokenizer, column in zip(names, tokenizers, columns, strict=True)
    ]
    if wanted:
        for tokenizer, facts_of in zip(tokenizers, facts["tokenizers"], strict=True):
            facts_of["shown"] = {row.id: row.text for row in vocabulary(tokenizer, *wanted)}
    return facts


def _named(name: str) -> Any:
    """The tokenizer of a folder or file, or byte; others would have to be learned first."""
    from wenlu.tokenization.learn import learn, parse_spec
    from wenlu.tokenization.tokenizer import Tokenizer

    spec = parse_spec(name)
    if spec.kind == "folder":
        if spec.folder.is_file():
            _check_file(spec.folder)
        return Tokenizer.load(spec.folder)
    if spec.kind == "byte":
        return learn("byte", [])
    raise UserError(
        f"{name} is yet to be learned, and not from the text it is measured on: make it with "
        f"`wenlu prepare PATH... --out DATA --tokenizer {name}`, and give DATA"
    )


def _print_comparison(facts: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from wenlu.tokenization.survey import SCRIPTS

    out, columns = _stdout(), facts["tokenizers"]
    table = Table(box=None, title=f"{facts['bytes']:,} bytes of text", title_justify="left", pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(escape(column["name"]), justify="right", overflow="fold")
    for name in ("kind", "vocabulary", "tokens", "lossless"):
        table.add_row(name, *(_shown(column[name]) for column in columns))
    table.add_row("MB/s", *(f"{column['megabytes_per_second']:.2f}" for column in columns))
    table.add_row("bytes per token", *(_figure(column["bytes_per_token"]) for column in columns))
    scripts = [column["bytes_per_token_by_script"] for column in columns]
    for script in SCRIPTS:
        if any(script in found for found in scripts):
            table.add_row(f"  {script}", *(_figure(found.get(script)) for found in scripts))
    out.print(table)
    if "shown" in columns[0]:
        table = Table(box=None, title="vocabulary", title_justify="left", pad_edge=False)
        table.add_column("id", justify="right", no_wrap=True)
        for column in columns:
            table.add_column(escape(column["name"]), overflow="fold")
        for id in sorted({id for column in columns for id in column["shown"]}):
            table.add_row(str(id), *(escape(column["shown"].get(id, "")) for column in columns))
        out.print(table)
    if lossy := [column["name"] for column in columns if not column["lossless"]]:
        console.print(f"not lossless on this text, so without bytes per token: {', '.join(lossy)}", markup=False)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _stdout() -> Any:
    from rich.console import Console

    # A pipe has no width: nothing is to be cut or wrapped there.
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 400)


def _print(facts: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = _stdout()
    out.print(f"[bold]{escape(facts['path'])}[/bold] ({facts['kind']})")
    for section in ("model", "training", "data", "tokenizer"):
        if section in facts:
            table = Table(show_header=False, box=None, title=section, title_justify="left", pad_edge=False)
            for name, value in _flat(facts[section]):
                table.add_row(name.replace("_", " "), escape(value))
            out.print(table)
    for section, title in (("bytes_per_token", "bytes per token"), ("tokens", "vocabulary")):
        if section in facts:
            table = Table(box=None, title=title, title_justify="left", pad_edge=False)
            for name in facts[section][0] if facts[section] else ():
                table.add_column(name.replace("_", " "), justify="left" if name in ("script", "text") else "right")
            for row in facts[section]:
                table.add_row(*(escape(str(row[n]) if n == "id" else _shown(row[n])) for n in row))
            out.print(table)
    if "why_no_bytes_per_token" in facts:
        console.print(facts["why_no_bytes_per_token"], markup=False)


def _flat(facts: dict[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    """(name, value) of every figure, names of nested ones joined by dots; what is not set is left out."""
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None and value != [] and not (before and name in EXAMPLES):
            yield before + name, str(value) if name.endswith("_id") else _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e-3 else f"{value:,.4f}".rstrip("0").rstrip(".")
    return ", ".join(map(_shown, value)) if isinstance(value, list | tuple) else str(value)
