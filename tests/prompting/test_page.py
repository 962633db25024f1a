"""The page on prompts says what works: its code runs, in both languages."""

import json
import re
from pathlib import Path

import pytest

from wenlu.prompting.backend import FolderBackend

from small_models import model_of

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["prompting.md", "prompting.zh-CN.md"])
def test_the_code_of_the_page_runs(page, tmp_path, monkeypatch, capsys):
    texts = ["A joy to watch.", "So dull.", "天气真好。", "二加二", "The stove is warm.", "naïve"]
    rows = [{"text": text, "gold": ("good", "bad")[n % 2]} for n, text in enumerate(texts)]
    (tmp_path / "films.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = {"backend": FolderBackend(model_of("byte"))}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    printed = capsys.readouterr().out
    assert "per_byte" in printed and "self_consistency:" in printed and "'messages'" in printed
    assert read_again(names) == names["kept"]


def read_again(names):
    return names["read_artifact"]("films.prompt.json")
