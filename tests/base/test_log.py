"""Rows are appended whole; a torn last line is cut off. What is said, and where."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from wenlu.base import log
from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, background, read_rows, say, status


def test_rows_survive_a_torn_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = JsonLines(path)
    rows.write(step=1, text="文")
    rows.write(step=2)
    rows.close()
    with open(path, "ab") as file:
        file.write(b'{"step": 3, "te')
    assert [row["step"] for row in read_rows(path)] == [1, 2]
    rows = JsonLines(path)
    rows.write(step=4)
    rows.close()
    assert [row["step"] for row in read_rows(path)] == [1, 2, 4]


def test_a_folder_that_is_made_for_a_file_is_said(tmp_path, capsys):
    for name in ("new/inner/rows.jsonl", "new/inner/others.jsonl", "rows.jsonl"):
        JsonLines(tmp_path / name).close()
    assert capsys.readouterr().err == f"made the folder {tmp_path}/new/inner\n"


@pytest.mark.parametrize("content", [b"a,b\n1,2", b"[1, 2]", b'{"step": 1}\nan end'])
def test_a_file_of_something_else_is_left_as_it_is(content, tmp_path):
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(UserError, match="mine holds something else than rows: give another --out"):
        JsonLines(path)
    assert path.read_bytes() == content


def test_a_tail_of_zeros_that_a_crash_left_is_cut_off(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n' + bytes(9))
    JsonLines(path).close()
    assert path.read_bytes() == b'{"step": 1}\n'


def test_rows_of_steps_to_be_redone_are_dropped(tmp_path):
    rows = JsonLines(tmp_path / "rows.jsonl")
    for step in range(5):
        rows.write(step=step)
    rows.keep_while(lambda row: row["step"] <= 2)
    rows.write(step=9)
    rows.close()
    assert [row["step"] for row in read_rows(tmp_path / "rows.jsonl")] == [0, 1, 2, 9]


def test_two_writers_of_one_file_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = JsonLines(path)
    rows.write(step=1)
    with pytest.raises(UserError, match=f"another process is writing {path}: wait for it, or give another --out"):
        JsonLines(path)
    program = f"from pathlib import Path\nfrom wenlu.base.log import JsonLines\nJsonLines(Path({str(path)!r}))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert other.returncode == 1 and "another process is writing" in other.stderr
    rows.write(step=2)
    rows.close()
    again = JsonLines(path)
    again.write(step=3)
    again.close()
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3]


def test_what_is_being_done_is_shown_on_a_terminal_alone(monkeypatch, capsys):
    with status("loading [a] model"):
        pass
    assert capsys.readouterr().err == ""
    shown = io.StringIO()
    monkeypatch.setattr(log, "console", Console(file=shown, force_terminal=True, width=80))
    with status("loading [a] model"):
        pass
    assert "loading [a] model …" in shown.getvalue()
    before = len(shown.getvalue())
    with background(), status("a part"):
        pass
    assert len(shown.getvalue()) == before


def test_in_the_background_only_warnings_are_said(capsys):
    with background():
        say("one of many")
        say("a warning", "yellow")
    say("afterwards")
    assert capsys.readouterr().err == "a warning\nafterwards\n"
