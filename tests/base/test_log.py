"""Rows are appended whole; a torn last line is cut off."""

from wenlu.base.log import JsonLines, background, read_rows, say


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


def test_rows_of_steps_to_be_redone_are_dropped(tmp_path):
    rows = JsonLines(tmp_path / "rows.jsonl")
    for step in range(5):
        rows.write(step=step)
    rows.keep_while(lambda row: row["step"] <= 2)
    rows.write(step=9)
    rows.close()
    assert [row["step"] for row in read_rows(tmp_path / "rows.jsonl")] == [0, 1, 2, 9]


def test_in_the_background_only_warnings_are_said(capsys):
    with background():
        say("one of many")
        say("a warning", "yellow")
    say("afterwards")
    assert capsys.readouterr().err == "a warning\nafterwards\n"
