"""What each task makes of good examples: the ids, the labels and where they stand."""

import numpy as np
import pytest

from wenlu.data.rows import span, tag
from wenlu.data.rows.config import Example
from wenlu.data.rows.tally import Tally

NO = -100


def texts(tokenizer, ids) -> str:
    return tokenizer.decode([int(id) for id in ids], skip_special=False)


def test_forms_of_conversations(made, tokenizer):
    records = [
        {"instruction": "add", "input": "1 and 1", "output": "2"},
        {"prompt": "hello", "response": "hi"},
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "a"},
                {"from": "gpt", "value": "b"},
            ]
        },
        {"instruction": "say", "instances": [{"input": "", "output": "x"}, {"input": "loud", "output": "X"}]},
        {"utterances": [{"speaker": w, "text": t} for w, t in (("user", "a"), ("user", "b"), ("assistant", "c"))]},
    ]
    rows, counts = made("chat", {"a.jsonl": records})
    found = [texts(tokenizer, rows.train[n]["ids"]) for n in range(len(rows.train))]
    said = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
    assert found[:2] == [said.format("add\n\n1 and 1", "2"), said.format("hello", "hi")]
    assert found[2].startswith("<|im_start|>system\ns<|im_end|>")
    assert found[3:] == [said.format("say", "x"), said.format("say\n\nloud", "X"), said.format("a\nb", "c")]
    row = rows.train[1]
    assert texts(tokenizer, row["ids"][row["mask"] > 0]) == "hi<|im_end|>"
    assert sum(counts["train"]["kinds"].values()) == 5 and counts["train"]["records"] == 6


def test_yaml_of_turns(made):
    rows, _ = made("chat", {"a.yml": "conversations:\n- - 你好\n  - 你好！\n- - a\n  - b\n"})
    assert len(rows.train) == 2


def test_pairs_for_an_encoder_and_for_a_decoder(made, tokenizer):
    files = {"a.de": "ein Ofen\n", "a.en": "a stove\n"}
    rows, _ = made("pairs", files, talks=False, prefix="de: ")
    row, end = rows.train[0], [tokenizer.eos_id]
    assert row["ids"].tolist() == tokenizer.encode("de: ein Ofen") + end
    assert row["targets"].tolist() == tokenizer.encode("a stove") + end


@pytest.mark.parametrize(
    ("files", "fields"),
    [
        ({"a.txt": 'Hi.\t嗨。\nHe said "no".\t"不"\n'}, ()),
        ({"a.tsv": 'en\tx\tzh\nHi.\t0\t嗨。\nHe said "no".\t0\t"不"\n'}, ("en", "zh")),
        (
            {"a.jsonl": [{"translation": {"en": "Hi.", "zh": "嗨。"}}, {"en": 'He said "no".', "zh": '"不"'}]},
            ("en", "zh"),
        ),
        ({"a.en.xz": 'Hi.\nHe said "no".\n', "a.zh": '嗨。\n"不"\n'}, ()),
        ({"a.csv": 'source,target\nHi.,嗨。\n"He said ""no"".","""不"""\n'}, ()),
    ],
    ids=["tabs", "named columns", "records", "aligned", "csv"],
)
def test_the_same_pairs_in_all_forms(made, tokenizer, files, fields):
    rows, _ = made("pairs", files, talks=False, fields=fields)
    found = [texts(tokenizer, rows.train[n][side][:-1]) for n in range(2) for side in ("ids", "targets")]
    assert found == ["Hi.", "嗨。", 'He said "no".', '"不"']


def test_pairs_for_a_decoder_are_conversations(made, tokenizer):
    rows, _ = made("pairs", {"a.tsv": "Hi.\t嗨。\n"})
    row = rows.train[0]
    assert texts(tokenizer, row["ids"][row["mask"] > 0]) == "嗨。<|im_end|>"


def test_classes_by_record_folder_and_file(made, tokenizer, tmp_path):
    rows, _ = made("classify", {"a.jsonl": [{"text": "warm", "label": 10}, {"text": "cold", "label": 2}]})
    assert rows.description["labels"] == ["2", "10"]
    assert [rows.train[n]["labels"].tolist() for n in (0, 1)] == [[1], [0]]
    ids = rows.train[0]["ids"]
    assert ids.tolist() == [tokenizer.cls_id, *tokenizer.encode("warm"), tokenizer.sep_id]


def test_folders_of_classes(tmp_path, tokenizer):
    from wenlu.data.rows.config import RowsConfig
    from wenlu.data.rows.prepare import Encoding, prepare_rows

    for name, text in (("good/1.txt", "warm\nstove"), ("good/2.txt", "fire"), ("bad/1.txt", "caf\xe9 froid")):
        file = tmp_path / "all" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("latin-1"))
    (tmp_path / "bad.txt").write_text("icy\n")
    for paths in ((str(tmp_path / "all"),), (str(tmp_path / "all"), f"bad={tmp_path / 'bad.txt'}")):
        folder = tmp_path / f"rows{len(paths)}"
        config = RowsConfig(paths, "classify", validation=0.0)
        description = prepare_rows(config, folder, Encoding(tokenizer, 64, False))
        assert description["labels"] == ["bad", "good"] and description["counts"]["train"]["rows"] == 2 + len(paths)


def test_two_texts_are_cut_evenly(made, tokenizer):
    record = {"a": "x" * 100, "b": "yz", "label": "p"}
    other = {"a": "x", "b": "y" * 100, "label": "q"}
    rows, counts = made(
        "classify", {"a.jsonl": [record, other]}, fields=("a", "b", "label"), context=32, max_truncated=1.0
    )
    assert [len(rows.train[n]["ids"]) for n in (0, 1)] == [32, 32] and counts["train"]["truncated"] == 2
    assert texts(tokenizer, rows.train[0]["ids"]).endswith("x[SEP]yz[SEP]")
    assert rows.train[0]["types"].tolist() == [0] * 29 + [1] * 3


@pytest.mark.parametrize(("one", "other"), [(100, 100), (40, 20), (20, 40), (14, 15)])
def test_two_long_texts_are_cut_to_the_room(made, tokenizer, one, other):
    record = {"a": "x" * one, "b": "y" * other, "label": "p"}
    rows, _ = made(
        "classify",
        {"a.jsonl": [record, {**record, "b": "z", "label": "q"}]},
        fields=("a", "b", "label"),
        context=32,
        max_truncated=1.0,
    )
    found = texts(tokenizer, rows.train[0]["ids"])
    assert found.count("x") + found.count("y") == min(29, one + other) and abs(found.count("x") - found.count("y")) < 2


def test_one_long_text_is_cut_to_the_room(made):
    records = [{"text": "x" * 100, "label": "p"}, {"text": "y", "label": "q"}]
    rows, _ = made("classify", {"a.jsonl": records}, context=32, max_truncated=1.0)
    assert len(rows.train[0]["ids"]) == 32


def test_one_question_lies_on_one_side(made):
    """Whatever comes after it in a talk."""
    talks = [[f"question {n}", "answer"] + ["and?", "more"] * (n % 2) for n in range(60) for _ in "ab"]
    for place, turns in enumerate(talks):
        turns[1] += " now" * (place % 2)
    whole = "conversations:\n" + "".join(
        "".join(f"{'- ' if not n else '  '}- {turn}\n" for n, turn in enumerate(turns)) for turns in talks
    )
    rows, _ = made("chat", {"a.yml": whole}, validation=0.3)
    first = [
        {tuple(row["ids"][: row["mask"].argmax()].tolist()) for row in map(store.__getitem__, range(len(store)))}
        for store in (rows.train, rows.validation)
    ]
    assert first[0] and first[1] and not first[0] & first[1]


def test_a_table_may_name_its_columns(made, tokenizer):
    rows, _ = made("pairs", {"a.tsv": "Target\tSource\nstove\tOfen\n"}, talks=False)
    assert len(rows.train) == 1
    assert texts(tokenizer, rows.train[0]["targets"][:-1]) == "stove"


def test_entities_beyond_the_context_are_said(made):
    record = {"tokens": ["Ann", "burns"] * 30, "tags": ["B-P", "O"] * 30}
    rows, counts = made("tag", {"a.jsonl": [record]}, context=32, max_truncated=1.0)
    kept = sum(int(label) == 1 for label in rows.train[0]["labels"])
    assert counts["train"]["noted"] == {"entities beyond the context, neither learned nor judged": 30 - kept}


def test_tags_stand_at_first_tokens(made, tokenizer):
    columns = "-DOCSTART- -X- O\n\nAnn NNP B-PER\nBurns NNP I-PER\nin IN O\n上 NN B-LOC\n海 NN I-LOC\n\n"
    rows, _ = made("tag", {"a.conll": columns})
    labels = rows.description["labels"]
    assert labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    row = rows.train[0]
    assert texts(tokenizer, row["ids"]) == "[CLS]Ann Burns in上海[SEP]"
    found = [labels[n] for n in row["labels"] if n != NO]
    assert found == ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"] and row["labels"][0] == row["labels"][-1] == NO


def test_odd_tags_are_noted(made):
    rows, counts = made("tag", {"a.jsonl": [{"tokens": ["a", "b", "c"], "tags": ["I-X", "L-X", "U-Y"]}]})
    assert rows.description["labels"] == ["O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y", "E-Y", "S-Y"]
    assert counts["train"]["noted"]["entities that begin with I- instead of B-"] == 1
    assert tag.complete({"O"}) == ["O"]


@pytest.mark.parametrize("context", ["the stove burns in the house. " * 12, "炉火在屋里烧。" * 20])
def test_windows_hold_the_answer(tokenizer, context):
    answer, start = context[100:106], 100
    example = Example("f:1", [context, "where?", [[answer, start]], [answer]], context)
    tally = Tally("training")
    rows = span.Windows(tokenizer, 64, 20).encoded(example, 3, tally)
    assert len(rows) > 2 and tally.noted["windows beyond the first of a long text"] == len(rows) - 1
    holding = [row for row in rows if row["ends"]]
    assert holding
    for row in rows:
        ids, offsets = np.array(row["ids"]), np.array(row["offsets"]).reshape(-1, 2)
        assert len(ids) == len(row["types"]) == len(row["within"]) == len(offsets) <= 64
        inside = np.array(row["within"], bool) & (offsets[:, 0] >= 0)
        first, last = offsets[inside][0][0], offsets[inside][-1][1]
        assert texts(tokenizer, ids[inside]).strip("\ufffd") in context[first:last]
        if row["ends"]:
            found = context[offsets[row["starts"]][0] : offsets[row["ends"]][1]]
            assert answer in found and len(found) <= len(answer) + 6
    covered = {c for row in rows for a, b in np.array(row["offsets"]).reshape(-1, 2) if a >= 0 for c in range(a, b)}
    assert covered == set(range(len(context)))


def test_a_question_without_an_answer(made):
    qa = {"id": "1", "question": "why?", "answers": [], "is_impossible": True}
    rows, _ = made("span", {"a.json": {"data": [{"paragraphs": [{"context": "the stove", "qas": [qa]}]}]}})
    assert rows.train[0]["starts"].tolist() == rows.train[0]["ends"].tolist() == [0]


def test_flat_records_of_questions(made):
    record = {"context": "the stove", "question": "what?", "answers": {"text": ["stove"], "answer_start": [4]}}
    rows, _ = made("span", {"a.jsonl": [record]})
    assert rows.train[0]["starts"][0] > 0
