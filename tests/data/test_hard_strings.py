"""The hard strings of the tokenizers' tests on their way through preparation."""

import importlib.util
import json
from pathlib import Path

import pytest

from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.data.shards import open_data

SOURCE = Path(__file__).parents[1] / "tokenization" / "test_hard_strings.py"


def hard_strings() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("hard_strings", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HARD


@pytest.mark.parametrize("tokenizer", ["bpe:400", "char", "byte"])
def test_hard_strings_come_back_from_the_shards(tokenizer, tmp_path):
    """All of them, in order, but for line ends, which are read as LF."""
    texts = [text for text in hard_strings().values() if text]
    rows = [json.dumps({"text": text}) for text in texts]
    (tmp_path / "hard.jsonl").write_text("\n".join(rows), encoding="utf-8")
    config = PrepareConfig((str(tmp_path / "hard.jsonl"),), tokenizer=tokenizer, validation=0.0, skip=("all",))
    description = prepare(config, tmp_path / "data")
    assert description["sources"]["bad_lines"] == 0 and description["sources"]["line_ends"] > 0
    data = open_data(tmp_path / "data")
    expected = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    assert data.train.documents(data.tokenizer) == expected
