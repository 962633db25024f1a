"""Tasks of one's own: TOML files over rows, and all that may be wrong with them."""

import json
from pathlib import Path

import pytest

from wenlu.base.errors import UserError
from wenlu.evaluation.tasks.catalogue import read_tasks

ROWS = [{"frage": f"第 {n} 题", "options": ["是", "否"], "label": n % 2, "passage": str(n // 2)} for n in range(6)]
CHOICE = """
kind = "choice"
file = "rows.jsonl"
choices = "options"
gold = "label"
group = "passage"
[template]
question = "问：{{ frage }}\\n答："
delimiter = ""
"""


@pytest.fixture
def write(tmp_path):
    """Writes rows and a TOML file, and gives the task in it."""

    def made(toml=CHOICE, rows=ROWS, name="rows.jsonl"):
        lines = rows if isinstance(rows, str) else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / name).write_text(lines, encoding="utf-8")
        (tmp_path / "mine.toml").write_text(toml, encoding="utf-8")
        return read_tasks([str(tmp_path / "mine.toml")])[0]

    return made


def test_choices(write):
    task = write()
    assert task.name == "mine" and len(task.examples) == 6
    first = task.examples[1]
    assert (first.choices, first.gold, first.group) == (("是", "否"), 1, "0")
    assert task.kind.asks(task.template, first, task.examples[:1]) == (
        ("问：第 0 题\n答：是\n\n问：第 1 题\n答：", ("是", "否")),
    )
    letters = write(CHOICE.replace("[template]", '[template]\nchoices = "letters"'))
    assert letters.kind.asks(letters.template, first, ())[0][1] == ("A", "B")


def test_every_kind(write):
    labels = CHOICE.replace('"choice"', '"classify"').replace('choices = "options"', 'labels = ["ja", "nein"]')
    assert write(labels).examples[1].choices == ("ja", "nein")
    by_text = [{**row, "label": ["ja", "nein"][row["label"]]} for row in ROWS]
    assert [one.gold for one in write(labels, by_text).examples] == [0, 1, 0, 1, 0, 1]
    pairs = write('kind = "pairs"\nfile = "rows.jsonl"\ngood = "g"\nbad = "b"', [{"g": "a", "b": "c"}])
    assert pairs.examples[0].choices == ("a", "c") and pairs.examples[0].gold == 0
    cloze = write(
        'kind = "cloze"\nfile = "rows.jsonl"\n[template]\nquestion = "{{ t }}"', [{"t": "It was", "gold": "late"}]
    )
    assert cloze.kind.asks(cloze.template, cloze.examples[0], ()) == (("It was", (" late",)),)
    texts = write('kind = "texts"\nfile = "rows.jsonl"\ntext = "body"', [{"body": "天气"}])
    assert texts.kind.asks(None, texts.examples[0], ()) == (("", ("天气",)),)
    contexts = write(
        'kind = "contexts"\nfile = "rows.jsonl"\nchoices = "c"', [{"c": ["A b", "A c"], "continuation": "d", "gold": 1}]
    )
    assert contexts.kind.asks(None, contexts.examples[0], ()) == (("A b", (" d",)), ("A c", (" d",)))
    number = 'kind = "writing"\nfile = "rows.jsonl"\n[template]\nquestion = "{{ q }}"\n[extractor]\nkind = "number"\n'
    assert write(number, [{"q": "1+1", "gold": 2}]).examples[0].answers == ("2",)
    several = write(number, [{"q": "x", "gold": ["a", "b"]}])
    assert several.examples[0].answers == ("a", "b")


def test_other_forms_of_files(write):
    toml = CHOICE.replace("rows.jsonl", "rows.json")
    assert len(write(toml, json.dumps(ROWS, ensure_ascii=False), "rows.json").examples) == 6
    cloze = 'kind = "cloze"\nfile = "rows.csv"\ngold = "b"\n[template]\nquestion = "{{ a }}"'
    assert write(cloze, "a,b\nIt was,late\n", "rows.csv").examples[0].answers == ("late",)
    with pytest.raises(UserError, match=r"rows.csv:3: .*mend them"):
        write(cloze, "a,b\nIt was,late\nIt\n", "rows.csv")


def test_shots_and_parts(write, tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    task = write('train = "train.jsonl"\nshots = 1\npart = "passage"\n' + CHOICE)
    assert len(task.pool) == 1 and task.shots == 1 and task.part == "passage"


@pytest.mark.parametrize("language", ["", ".zh-CN"])
def test_the_example_of_the_page(language, write, tmp_path):
    page = (Path(__file__).parents[3] / "docs" / f"evaluation{language}.md").read_text(encoding="utf-8")
    rows = [{"question": "q", "options": ["a", "b"], "answer": n % 2, "passage": f"p {n}"} for n in range(4)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = write(page.split("```toml\n")[1].split("```")[0], rows, "test.jsonl")
    assert (task.shots, len(task.pool), task.examples[3].gold, task.examples[3].group) == (2, 4, 1, "p 3")


def test_rows_that_are_there_twice_are_left_out_and_said(write):
    task = write(rows=[*ROWS, ROWS[2]])
    assert len(task.examples) == 6
    assert task.notes == ("1 row of rows.jsonl left out, for others say the same",)


@pytest.mark.parametrize(
    ("toml", "rows", "words"),
    [
        (CHOICE.replace('kind = "choice"\n', ""), ROWS, "kind is missing: a task needs a kind and a file"),
        (CHOICE.replace("choice", "chioce", 1), ROWS, "Did you mean 'choice'?"),
        ("shotz = 2\n" + CHOICE, ROWS, "unknown setting 'shotz'. Did you mean 'shots'?"),
        (CHOICE + 'questoin = "x"', ROWS, "unknown setting 'template.questoin'. Did you mean 'question'?"),
        ("shots = -1\n" + CHOICE, ROWS, "shots must be at least 0, not -1"),
        ('shots = "2"\n' + CHOICE, ROWS, "shots must be a whole number"),
        (CHOICE.split("[template]")[0], ROWS, "a task of kind choice needs a [template] with a question"),
        (CHOICE.replace('"choice"', '"pairs"'), ROWS, "leave out [template]"),
        (CHOICE.replace('"choice"', '"classify"'), ROWS, "choices names the field with the options"),
        (CHOICE.replace("{{ frage", "{% frage"), ROWS, "is no Jinja"),
        (CHOICE.replace("rows.jsonl", "other.jsonl"), ROWS, "no file "),
        (CHOICE, "", "rows.jsonl holds no rows"),
        (CHOICE, '{"frage": "a"\n', "line 1: this is no JSON"),
        (CHOICE, json.dumps(ROWS[0]) + "\n[1, 2]\n", "line 2: this is no JSON object"),
        (CHOICE, [{**ROWS[0], "label": None}], "row 1: no gold answer under 'label'."),
        (
            CHOICE,
            [ROWS[0], {"frage": "x", "options": ["a", "b"], "lable": 1, "passage": 1}],
            "row 2: no gold answer under 'label'. ",
        ),
        (CHOICE, [{**ROWS[0], "label": 2}], "row 1: gold is 2, but the 2 choices have the numbers 0 to 1"),
        (CHOICE, [{**ROWS[0], "label": -1}], "row 1: gold is -1, but the 2 choices"),
        (CHOICE, [{**ROWS[0], "label": "maybe"}], "gold 'maybe' is not among the choices '是', '否'"),
        (CHOICE, [{**ROWS[0], "options": "a"}], "row 1: 'options' must be a list of two texts or more, not 'a'"),
        (CHOICE, [{**row, "id": "一"} for row in ROWS], "row 2: the id '一' is there already"),
        (CHOICE, [{"frage": "x", "label": 1, "passage": "p"}], "row 1: nothing for choices under 'options'. There are"),
    ],
)
def test_refusals(write, toml, rows, words):
    with pytest.raises(UserError) as error:
        write(toml, rows)
    assert words in str(error.value)
    assert str(error.value).count("\n") <= 1


def test_a_name_that_a_template_does_not_have(write):
    task = write(CHOICE.replace("{{ frage", "{{ farge"))
    with pytest.raises(UserError, match=r"'farge', which example \w+ has not. Did you mean 'frage'\?"):
        task.kind.asks(task.template, task.examples[0], ())
