"""Rows of a data set on the hub, fetched once: hub:OWNER/NAME[/CONFIGURATION][:SPLIT]."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.base.files import writing
from wenlu.base.log import console
from wenlu.data.reading.extras import extra

PREFIX = "hub:"
_ID = re.compile(r"hub:(\w[\w.-]*/\w[\w.-]*)(?:/(\w[\w.-]*))?(?::(\S+))?")


def is_hub_id(path: str) -> bool:
    """Whether a path names a data set of the hub and no file."""
    return path.startswith(PREFIX)


def is_no_path(name: str) -> bool:
    """Whether a source lies on no disk: - for standard input, or a data set of the hub."""
    return name == "-" or is_hub_id(name)


def fetch(name: str, copy: Path) -> Path:
    """Stream the rows of `name` to the file `copy` as jsonl: those of their values that are text."""
    with writing(copy), open(copy, "w", encoding="utf-8") as out:
        for row in rows(name):
            out.write(json.dumps(_texts(row)) + "\n")
    return copy


def rows(name: str) -> Iterator[dict[str, Any]]:
    """The rows of a data set as it has them, streamed; split train where none is named.

    No code of the data set is ever run: `trust_remote_code` is never given, and a set that wants it is refused.
    """
    match = _ID.fullmatch(name)
    if not match:
        raise UserError(f"a data set of the hub is named hub:OWNER/NAME[/CONFIGURATION][:SPLIT], not {name!r}")
    data_set, configuration, split = match.groups()
    datasets = extra("datasets", "hub", name)
    console.print(f"fetching {name} …", markup=False, soft_wrap=True)
    try:
        yield from datasets.load_dataset(data_set, configuration, split=split or "train", streaming=True)
    except UserError:
        raise
    except Exception as error:  # whatever the network or a data set's form brings up
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{name} cannot be fetched: {reason}") from error


def _texts(row: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in row.items() if isinstance(value, str)}
