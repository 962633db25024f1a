"""The READMEs' commands, and those of the guide to fine-tuning, as they stand there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

READMES = sorted(Path(__file__).parents[2].glob("README*.md"))
GUIDES = [READMES[0].parent / "docs" / f"finetune{language}.md" for language in ("", ".zh-CN")]
BLOCK = re.compile(r"(<!-- tested -->\n)?^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def novel(size: int) -> str:
    """Some `size` bytes of sentences, none like another."""
    places, things = ("hall", "garden", "kitchen", "tower", "street"), ("lamp", "letter", "kettle", "炉火", "book")
    sentences, length = [], 0
    while length < size:
        n = len(sentences)
        end = "\n\n" if n % 7 == 6 else " "
        sentence = (
            f"It was in the {places[n % 5]} of house {n * n % 997} that the {things[n * 3 % 11 % 5]} was seen.{end}"
        )
        sentences.append(sentence)
        length += len(sentence.encode())
    return "".join(sentences)


def blocks(readme: Path) -> list[tuple[bool, str]]:
    """(whether it is marked, script) of every block of shell."""
    return [(bool(mark), script) for mark, script in BLOCK.findall(readme.read_text(encoding="utf-8"))]


def test_there_are_readmes():
    assert [readme.name for readme in READMES] == ["README.md", "README.zh-CN.md"]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_whatever_calls_wenlu_is_tested(readme):
    calls = [marked for marked, script in blocks(readme) if re.search(r"^wenlu ", script, re.MULTILINE)]
    assert calls and all(calls)


def test_both_languages_show_the_same_commands():
    """But for the prompts, which are in the reader's."""
    english, chinese = ([re.sub(r'"[^"]*"', '""', script) for _, script in blocks(readme)] for readme in READMES)
    assert len(english) == len(chinese)
    assert blocks(GUIDES[0]) == blocks(GUIDES[1])
    calls = [[script for script in scripts if script.startswith("wenlu ")] for scripts in (english, chinese)]
    assert calls[0] == calls[1]


def test_the_commands_work(tmp_path):
    """In one folder, from top to bottom, with the `wenlu` that this Python has (one thread: tests share the cores)."""
    (tmp_path / "novel.txt").write_text(novel(60_000), encoding="utf-8")
    talks = [{"prompt": f"where is {n}?", "response": f"In house {n * n % 997}."} for n in range(40)]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks), encoding="utf-8")
    scripts = [script for page in (READMES[0], *GUIDES[:1]) for marked, script in blocks(page) if marked]
    wenlu = f'wenlu() {{ {sys.executable} -W error -m wenlu.cli.main "$@"; }}\n'
    line = ["sh", "-e", "-c", wenlu + "\n".join(scripts)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=tmp_path, env=alone, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "bits per byte" in done.stdout
    assert "held out, accuracy" in done.stdout and "accuracy" in done.stdout.rpartition("report: ")[2]
