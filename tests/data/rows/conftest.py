"""A small tokenizer with every special token, and rows made of files that a test writes."""

import json
import lzma
from pathlib import Path

import pytest

from wenlu.data.rows.config import RowsConfig
from wenlu.data.rows.prepare import Encoding, prepare_rows
from wenlu.data.rows.store import Rows, open_rows
from wenlu.tokenization.chat_format import with_template
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer

TOKENS = ["[CLS]", "[SEP]", "[PAD]"]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Bytes and a few merges; [CLS] and [SEP] beside the tokens of conversations."""
    plain = learn("bpe", ["the stove burns in the house; 炉火在屋里。" * 3], 280)
    talking, _ = with_template(plain.extended(TOKENS))
    inner = talking.copy_of_library()
    talking.cls_id, talking.sep_id = (inner.token_to_id(token) for token in TOKENS[:2])
    return talking


def written(folder: Path, name: str, content) -> str:
    """A file with the content: text as it is, a list as jsonl or (json) one list, bytes as they are."""
    file = folder / name
    if isinstance(content, list) and ".jsonl" in name:
        content = "".join(json.dumps(row) + "\n" for row in content)
    elif not isinstance(content, str | bytes):
        content = json.dumps(content, ensure_ascii=False)
    raw = content.encode() if isinstance(content, str) else content
    file.write_bytes(lzma.compress(raw) if name.endswith(".xz") else raw)
    return str(file)


@pytest.fixture
def made(tmp_path, tokenizer):
    """(task, content by file name, held-out content by file name, settings) → the rows and what was counted."""

    def make(task: str, files: dict, held_out: dict | None = None, context: int = 64, talks: bool = True, **settings):
        paths = tuple(written(tmp_path, name, content) for name, content in files.items())
        others = tuple(written(tmp_path, name, content) for name, content in (held_out or {}).items())
        if not others:
            settings.setdefault("validation", 0.0)
        config = RowsConfig(paths, task, validation_paths=others, **settings)
        folder = tmp_path / "rows"
        description = prepare_rows(config, folder, Encoding(tokenizer, context, talks))
        rows: Rows = open_rows(folder, verify=True)
        return rows, description["counts"]

    return make
