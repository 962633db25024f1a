"""wenlu prepare: text files → a folder of token ids, with its tokenizer."""

import dataclasses
import json as json_format
from dataclasses import dataclass
from typing import Annotated

import tyro

from wenlu.base.errors import UserError
from wenlu.cli.flags import parse
from wenlu.data.config import PrepareConfig

DESCRIPTION = """Text → a folder of token ids, with its tokenizer. Read are txt, md, html, jsonl, csv and tsv (also .gz,
.xz, .bz2, .zst; in UTF-8, UTF-16, GB18030 or latin-1), parquet, pdf and epub; folders; 'patterns*';
hub:OWNER/NAME[:SPLIT]; - for stdin.

example: wenlu prepare books/ notes.jsonl.gz --out data/books --tokenizer bpe:8192 --validation 0.05"""


@dataclass(frozen=True)
class Command(PrepareConfig):
    out: str = ""
    """The folder to make; it must not exist yet."""
    json: bool = False
    """Print one JSON object."""
    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH")] = ()
    """Files, folders, 'patterns*', hub:OWNER/NAME[:SPLIT], or - for stdin."""


def main(arguments: list[str]) -> int:
    command = parse(Command, "prepare", arguments, DESCRIPTION)
    if not command.out:
        raise UserError("where to? give --out FOLDER")
    config = PrepareConfig(**{f.name: getattr(command, f.name) for f in dataclasses.fields(PrepareConfig)})
    from wenlu.data.prepare import prepare

    summary = prepare(config, command.out)
    if command.json:
        print(json_format.dumps(summary, ensure_ascii=False))
    return 0
