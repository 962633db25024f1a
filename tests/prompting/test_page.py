"""The page on prompts says what works: its code runs, in both languages."""

import json
import re
from pathlib import Path

import pytest

from wenlu.cli.prompting.inputs import read_prompt
from wenlu.prompting.backend import FolderBackend
from wenlu.prompting.examples import Example

from small_models import model_of

DOCS = Path(__file__).parents[2] / "docs"
PAGES = pytest.mark.parametrize("page", ["prompting.md", "prompting.zh-CN.md"])


@PAGES
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


@PAGES
def test_the_prompt_file_of_the_page_shows_its_demonstrations(page, tmp_path):
    blocks = re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "films.toml").write_text("\n".join(blocks), encoding="utf-8")
    prompt = read_prompt(str(tmp_path / "films.toml"))
    asked = Example("q", {"text": "So dull."}, ("bad", "good"), 0)
    assert len(blocks) == 2 and prompt.scoring.kind == "sum"
    assert {one.right for one in prompt.shown_before(asked)} == {"bad", "good"}
    assert all(f"Review: {shown.fields['text']}\nSentiment:" in prompt.prompt(asked) for shown in prompt.pool)


def read_again(names):
    return names["read_artifact"]("films.prompt.json")
