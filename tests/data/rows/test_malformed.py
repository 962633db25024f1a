"""Malformed examples: each is counted, with its reason, or refused, with the way out."""

import io
import json
import re

import pytest

from wenlu.base.errors import UserError
from wenlu.data.rows.config import RowsConfig
from wenlu.data.rows.prepare import read_parts

TALK = [{"role": "user", "content": "who burns?"}, {"role": "assistant", "content": "the stove"}]


def talk(*turns: str) -> dict:
    """Turns as "u: …" and so on."""
    roles = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    return {"messages": [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]}


def squad(context: str, *answers: dict, **more) -> dict:
    question = {"id": "q", "question": "where?", "answers": list(answers), **more}
    return {"data": [{"paragraphs": [{"context": context, "qas": [question, {**GOOD, "id": "good"}]}]}]}


GOOD = {"question": "what burns?", "answers": [{"text": "stove", "answer_start": 4}]}
TEXT = "the stove burns in the house"

COUNTED = [  # task, file, content, the reason that is counted once
    ("chat", "a.jsonl", [talk("u:a", "a:")], "an empty turn of the assistant"),
    ("chat", "a.jsonl", [talk("u: ", "a:b")], "an empty turn of the user"),
    ("chat", "a.jsonl", [talk("u:a", "a:b", "a:c")], "two turns of the assistant in a row"),
    ("chat", "a.jsonl", [talk("u:a", "u:b", "a:c")], "two turns of the user in a row"),
    ("chat", "a.jsonl", [talk("a:b", "u:a", "a:b")], "the assistant speaks first"),
    ("chat", "a.jsonl", [talk("u:a", "s:b", "a:c")], "a system message after the beginning"),
    ("chat", "a.jsonl", [talk("u:a")], "no turn of the assistant: nothing to learn"),
    ("chat", "a.jsonl", [talk("u:a", "t:b", "a:c")], "an unknown speaker 'tool'"),
    ("chat", "a.jsonl", [{"messages": [{"role": "user", "content": 7}]}], "a turn without text"),
    ("chat", "a.jsonl", [{"messages": ["hello"]}], "a turn that is no object"),
    (
        "chat",
        "a.jsonl",
        [{"messages": [{"role": "user", "content": "a"}, {"from": "gpt", "value": "b"}]}],
        "turns of two forms in one record",
    ),
    (
        "chat",
        "a.jsonl",
        [{"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}],
        "calls of tools, which are not read",
    ),
    ("chat", "a.jsonl", [{"instruction": "a", "output": None}], "a turn without text"),
    ("chat", "a.jsonl", [talk("u:" + "long " * 40, "a:b")], "no target within the context (--rows.context)"),
    ("pairs", "a.tsv", "\tb\n", "an empty source"),
    ("pairs", "a.tsv", "a\t \n", "an empty target"),
    ("pairs", "a.jsonl", [{"source": "a", "target": 1}], "a source or target that is no text"),
    ("classify", "a.jsonl", [{"text": "", "label": "x"}], "an empty text"),
    ("classify", "a.jsonl", [{"text": "a", "label": None}], "no label"),
    ("classify", "a.jsonl", [{"text": "a", "label": ["x", "y"]}], "several labels, where one is learned"),
    ("tag", "a.jsonl", [{"tokens": ["a", "b"], "tags": ["O"]}], "not as many tags as tokens"),
    ("tag", "a.jsonl", [{"tokens": ["a"], "tags": ["PER"]}], "a tag that is no O, B-… or I-…: 'PER'"),
    ("tag", "a.jsonl", [{"tokens": [""], "tags": ["O"]}], "an empty token"),
    ("tag", "a.conll", "lonely\n\n", "a token without a tag"),
    ("chat", "a.jsonl", [{"instruction": "double it", "input": 5, "output": "10"}], "an input that is no text"),
    ("chat", "a.jsonl", [{"instruction": "say", "instances": []}], "no instances"),
    ("chat", "a.jsonl", [{"utterances": [{"speaker": "user", "text": "a"}, "b"]}], "a turn that is no object"),
    ("classify", "a.jsonl", [{"text": "a", "label": "\ud800"}], "a lone surrogate, which is no character"),
    ("tag", "a.jsonl", [{"tokens": ["a"], "tags": ["B-\ud800"]}], "a lone surrogate, which is no character"),
]
GOOD_OF = {
    "chat": [{"messages": TALK}],
    "pairs": [{"source": "stove", "target": "炉"}],
    "classify": [{"text": "warm", "label": "good"}, {"text": "cold", "label": "bad"}],
    "tag": [{"tokens": ["Ann", "burns"], "tags": ["B-PER", "O"]}],
}


@pytest.mark.parametrize(("task", "name", "content", "reason"), COUNTED, ids=[f"{c[0]}: {c[3][:40]}" for c in COUNTED])
def test_counted(made, task, name, content, reason):
    rows, counts = made(task, {"good.jsonl": GOOD_OF[task], name: content}, max_bad=1.0)
    assert counts["train"]["dropped"] == {reason: 1}
    assert len(rows.train) == len(GOOD_OF[task])
    assert counts["train"]["examples"][0].startswith(str(rows.folder.parent / name))


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([{"text": "house", "answer_start": 22}], "no answer stands where its offset says"),
        ([{"text": "house", "answer_start": -5}], "no answer stands where its offset says"),
        ([{"text": "house"}], "no answer stands where its offset says"),
        ([], "no answer, and is_impossible is not said"),
    ],
    ids=["off by one", "negative", "no offset", "no answer"],
)
def test_wrong_answers_are_counted(made, answers, reason):
    rows, counts = made("span", {"a.json": squad(TEXT, *answers)}, max_bad=1.0)
    assert counts["train"]["dropped"] == {reason: 1} and len(rows.train) == 1


def test_one_wrong_offset_among_right_ones_is_counted(made):
    answers = [{"text": "house", "answer_start": 22}, {"text": "house", "answer_start": 23}]
    _, counts = made("span", {"a.json.xz": squad(TEXT, *answers)})
    assert counts["train"]["noted"]["answers whose offset is wrong"] == 1 and not counts["train"]["dropped"]


REFUSED = [  # task, files, the message
    (
        "chat",
        {"a.jsonl": [talk("u:a")] * 2 + GOOD_OF["chat"]},
        r"2 of 3 records are bad, more than 5.0%.*--rows.max-bad 0.67",
    ),
    ("chat", {"a.jsonl": [{"story": "x"}]}, "holds no record of a known form"),
    ("chat", {"a.json": {"a": 1}}, "holds no list of records"),
    ("chat", {"a.json": "[{]"}, "is no JSON"),
    ("chat", {"a.jsonl": "nonsense\n"}, "1 of 1 record is bad.*no JSON.*; mend them$"),
    ("chat", {"a.jsonl": ""}, "training: no rows: it is empty"),
    ("chat", {"a.exe": "x"}, "is of no kind that holds records"),
    ("pairs", {"a.de": "ein\nzwei\ndrei\n", "a.en": "one\n"}, r"a.en has fewer lines than .*a.de \(1 and 3\)"),
    ("pairs", {"a.de": "ein\n"}, "its lines are one side of pairs: name two such files"),
    ("pairs", {"a.jsonl": [{"de": "ein", "en": "one"}]}, "which fields are source and target.*'de', 'en'"),
    ("pairs", {"a.tsv": "ein\n"}, "has one column only"),
    ("classify", {"a.jsonl": [{"text": "a", "label": "x"}]}, r"have 1 label \(x\): two or more"),
    ("classify", {"a.csv": "words,mood\nwarm,good\n"}, "which fields are text and label.*'words', 'mood'"),
    ("tag", {"a.jsonl": [{"tokens": ["a"], "tags": [1]}]}, "tags are numbers"),
    ("tag", {"a.conll": "I O\nsaw X-PER\n"}, "1 of 1 record is bad.*'X-PER'"),
    ("span", {"a.json": {"data": [{"context": "x"}]}}, "not of SQuAD's form"),
]


@pytest.mark.parametrize(("task", "files", "message"), REFUSED, ids=[f"{c[0]}: {c[2][:40]}" for c in REFUSED])
def test_refused(made, tmp_path, task, files, message):
    with pytest.raises(UserError, match=message):
        made(task, files)
    assert not (tmp_path / "rows").exists()


def test_too_many_truncated_rows(made):
    long = talk("u:a", "a:" + "long " * 60)
    with pytest.raises(UserError, match=r"1 of 2 rows is longer than the context.*--rows.max-truncated 0.5"):
        made("chat", {"a.jsonl": [long, *GOOD_OF["chat"]]})
    _, counts = made("chat", {"a.jsonl": [long, *GOOD_OF["chat"]]}, max_truncated=1.0)
    assert counts["train"]["truncated"] == 1


def test_bytes_that_are_no_text(made):
    raw = '{"source": "stove", "target": "炉"}\n'.encode() * 30 + b'{"source": "\xff", "target": "a"}\n'
    rows, counts = made("pairs", {"a.jsonl": raw}, max_bad=0.1)
    assert counts["train"]["source"]["bad_lines"] == 1 and len(rows.train) == 1


@pytest.mark.parametrize("bad", ["a.en", "a.zh"])
def test_a_line_that_cannot_be_decoded_in_one_of_two_files(made, tmp_path, bad):
    files = {name: [f"炉 {name} {n}".encode() for n in range(100)] for name in ("a.en", "a.zh")}
    files[bad][50] = b"\xff"
    files = {name: b"\n".join(lines) for name, lines in files.items()}
    place = f"{tmp_path / bad}:51: "
    with pytest.raises(UserError, match=rf"1 of 100 records is bad, more than 0\.1%, the first at {re.escape(place)}"):
        made("pairs", files, max_bad=0.001)
    rows, counts = made("pairs", files)
    found = counts["train"]
    assert len(rows.train) == 99 and sum(found["dropped"].values()) + found["source"]["bad_lines"] == 1
    assert (found["examples"] or found["source"]["examples"])[0].startswith(place)


def test_a_label_of_the_held_out_part_alone(made):
    odd = {"odd.jsonl": [*GOOD_OF["classify"], {"text": "so so", "label": "none"}]}
    files = {"a.jsonl": [{"text": "hot", "label": "good"}, {"text": "icy", "label": "bad"}]}
    with pytest.raises(UserError, match=r"held out: 1 of 3 records is bad.*no training example has \(none\)"):
        made("classify", files, odd)
    rows, counts = made("classify", files, odd, max_bad=0.5)
    assert counts["validation"]["dropped"] == {"a label that no training example has": 1}
    assert len(rows.validation) == 2


def test_duplicates_within_and_across_the_split(made):
    files = {"a.jsonl": [{"messages": TALK}, {"messages": TALK}, talk("u:x", "a:y")]}
    rows, counts = made("chat", files, {"b.jsonl": [talk("u:who burns?", "a:not me")]})
    assert counts["train"]["left_out"] == {"the same as an earlier one": 1, "in the held-out part too": 1}
    assert (len(rows.train), len(rows.validation)) == (1, 1)


def test_nothing_can_be_held_out_of_one_question(made):
    files = {"a.jsonl": [talk("u:x", "a:y"), talk("u:x", "a:z")]}
    with pytest.raises(UserError, match=r"all examples ask the same.*--rows.validation 0"):
        made("chat", files, validation=0.5)


def test_records_among_others_that_lack_what_is_wanted(made):
    _, counts = made("chat", {"a.jsonl": [{"story": "x"}, {"messages": TALK}]}, max_bad=0.5)
    assert counts["train"]["dropped"] == {"of no known form": 1}


def test_a_record_without_a_field(made):
    _, counts = made("pairs", {"a.jsonl": [*GOOD_OF["pairs"], {"source": "a"}]}, max_bad=0.5)
    assert counts["train"]["dropped"] == {"no field 'target'": 1}


def test_mixed_forms_are_said(made):
    alpaca = {"instruction": "burn", "input": "the stove", "output": "ok"}
    sharegpt = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    _, counts = made("chat", {"a.jsonl": [alpaca, sharegpt, {"messages": TALK}]})
    assert counts["train"]["kinds"] == {"Alpaca": 1, "ShareGPT": 1, "messages": 1}


def test_a_missing_path_and_a_folder(made, tmp_path, tokenizer):
    from wenlu.data.rows.config import RowsConfig
    from wenlu.data.rows.prepare import Encoding, prepare_rows

    for path, message in (("none.jsonl", "no file"), (".", "is a folder"), ("hub:a/b", "read from files")):
        with pytest.raises(UserError, match=message):
            prepare_rows(RowsConfig((path,)), tmp_path / "rows", Encoding(tokenizer, 64, True))
    with pytest.raises(UserError, match="name files of examples"):
        prepare_rows(RowsConfig(), tmp_path / "rows", Encoding(tokenizer, 64, True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_bad": 2}, r"rows.max_bad must lie in \[0, 1\]"),
        ({"validation": 1.0}, r"rows.validation must lie in \[0, 1\)"),
        ({"task": "chat", "fields": ("a", "b")}, "rows.fields for chat are no names"),
        ({"validation": 0.3, "validation_paths": ("a",)}, "no effect beside"),
        ({"stride": -1}, "rows.stride must be at least 0, not -1"),
    ],
)
def test_settings(settings, message):
    from wenlu.data.rows.config import RowsConfig

    with pytest.raises(UserError, match=message):
        RowsConfig(**settings)


def test_surrogates_in_a_text_that_is_asked_about(made):
    whole = squad(TEXT, {"text": "house", "answer_start": 23})
    whole["data"][0]["paragraphs"][0]["qas"][0]["question"] = "where\ud800?"
    _, counts = made("span", {"a.json": json.dumps(whole)}, max_bad=1.0)
    assert counts["train"]["dropped"] == {"a lone surrogate, which is no character": 1}


def test_answers_of_uneven_lists(made):
    record = {"context": TEXT, "question": "what?", "answers": {"text": ["stove", "house"], "answer_start": [4]}}
    none = {**record, "question": "where?", "answers": {"text": ["stove"], "answer_start": None}}
    _, counts = made("span", {"a.json": [record, none]}, max_bad=1.0)
    assert counts["train"]["noted"] == {"answers without a text or a place": 1}
    assert counts["train"]["dropped"] == {"answers that are no list of objects": 1}


def test_the_same_question_twice(made):
    record = {"context": TEXT, "question": "what?", "answers": [{"text": "stove", "answer_start": 4}]}
    rows, counts = made("span", {"a.jsonl": [record, record, record]})
    assert len(rows.train) == 1 and counts["train"]["left_out"] == {"the same as an earlier one": 2}


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ("", "held out: no rows: it is empty"),
        ('{"text": "a", "label": "other"}\n' * 3, "held out: 1 of 3 records is bad"),
        ("nonsense\n" * 9, "held out: 9 of 9 records are bad"),
    ],
    ids=["empty", "unknown labels", "malformed"],
)
def test_a_held_out_part_of_which_nothing_is_left(made, held_out, message):
    with pytest.raises(UserError, match=message):
        made("classify", {"a.jsonl": GOOD_OF["classify"]}, {"b.jsonl": held_out})


def test_two_columns_of_one_name(made):
    with pytest.raises(UserError, match=r"a\.csv has two columns 'text': rename one"):
        made("classify", {"a.csv": "text,text,label\na,b,c\n"})


def test_yaml_that_is_nested_too_deeply(made):
    with pytest.raises(UserError, match=r"a\.yml is no YAML"):
        made("chat", {"a.yml": "[" * 4000})


def test_thoughts_beside_a_message_are_noted(made):
    turns = [TALK[0], {**TALK[1], "reasoning_content": "hm"}]
    _, counts = made("chat", {"a.jsonl": [{"messages": turns}]})
    assert counts["train"]["noted"] == {"thoughts beside a message (reasoning_content) left out": 1}


@pytest.mark.parametrize(("setting", "task"), [({"prefix": "de: "}, "pairs"), ({"stride": 3}, "span")])
def test_settings_without_effect(made, setting, task):
    with pytest.raises(UserError, match=f"is for {task} and has no effect on classify: leave it out"):
        made("classify", {"a.jsonl": GOOD_OF["classify"]}, **setting)


@pytest.mark.parametrize("name", ["-", "hub:a/b"])
def test_classes_come_from_files(name, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"warm\n")))
    message = "examples are read from files" if name != "-" else "is of no kind that holds records"
    with pytest.raises(UserError, match=message):
        read_parts(RowsConfig((name,), "classify", validation=0.0))
