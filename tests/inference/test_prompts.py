"""A file of prompts: what comes out is each prompt alone, and an interruption loses nothing."""

import json
import shutil

import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.cli.generate import main
from wenlu.hub.folder import load, save
from wenlu.inference.generator import Generator, Settings
from wenlu.inference.prefix import BLOCK
from wenlu.inference.prompts import continue_all, kept_rows, read_prompts
from wenlu.inference.reading import Reader
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn

ROWS = [
    {"prompt": "the cat", "id": "a"},
    {"prompt": "猫坐在", "temperature": 0, "max_tokens": 5},
    {"prompt": "on", "seed": 9, "stop": ["t"]},
    {"prompt": "the mat. the mat", "top_k": 3, "alternatives": 2},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory, shaken):
    tokenizer = learn("char", ["the cat sat on the mat. 猫坐在垫子上。"])
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
    model = build(ModelConfig("llama", dim=16, layers=1, heads=2, context=64, vocab=tokenizer.vocab, **ids), 0)
    folder = tmp_path_factory.mktemp("prompts") / "run"
    save(shaken(model), tokenizer, folder)
    return folder


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n", encoding="utf-8")
    return file


def rows_of(file):
    return sorted((json.loads(line) for line in file.read_text().splitlines()), key=lambda row: row["number"])


@pytest.mark.parametrize("more", [[], ["--rows", "1"], ["--speculate", "4"], ["--batch-invariant"]])
def test_each_row_is_its_prompt_alone(run, prompts, tmp_path, more, capsys):
    out = tmp_path / "out.jsonl"
    assert main([str(run), "--prompts", str(prompts), "--out", str(out), "--max-tokens", "12", "--json", *more]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["texts"], said["there_before"]) == (4, 0)
    generator, found = Generator(*load(run)), rows_of(out)
    for number, (row, made) in enumerate(zip(ROWS, found, strict=True)):
        own = {name: value for name, value in row.items() if name not in ("prompt", "id")}
        own["stop"] = tuple(own.get("stop", ()))
        settings = Settings(**{"max_tokens": 12, "seed": number} | own)
        (alone,) = generator.generate(row["prompt"], settings)
        assert (made["text"], made["finish"], made["prompt"]) == (alone.text, alone.finish, row["prompt"])
    assert found[0]["id"] == "a" and "id" not in found[1]
    assert len(found[3]["alternatives"][0]) == 2 and found[3]["log_probabilities"][0] < 0


@pytest.mark.parametrize("more, times", [([], 1), (["--rows", "1"], 1), (["--batch-invariant"], 6)])
def test_what_prompts_begin_with_alike_is_read_once(run, tmp_path, more, times, capsys, monkeypatch):
    read, tokens = Reader.read_on, []

    def counted(reader, most):
        before = reader.left
        logits = read(reader, most)
        tokens.append(len(reader._prompt) * (before - reader.left))
        return logits

    monkeypatch.setattr(Reader, "read_on", counted)
    begin = "the cat sat on the mat. 猫坐在垫子上。"  # 31 tokens and the one that begins a document: two blocks
    rows = [{"prompt": begin + end} for end in ("the", "on", "mat", "猫", "坐在", "垫子")]
    (tmp_path / "p").write_text("\n".join(json.dumps(row) for row in rows))
    line = [str(run), "--prompts", str(tmp_path / "p"), "--out", str(tmp_path / "o"), "--temperature", "0", *more]
    assert main([*line, "--max-tokens", "5"]) == 0
    generator, found = Generator(*load(run)), rows_of(tmp_path / "o")
    shared = BLOCK * (len(generator.prompt_ids(begin)) // BLOCK)
    assert shared == 2 * BLOCK
    assert sum(tokens) == sum(row["prompt_tokens"] - shared for row in found) + times * shared
    for row in found:
        assert row["text"] == generator.generate(row["prompt"], Settings(max_tokens=5, temperature=0))[0].text


def test_an_interrupted_file_is_gone_on_with(run, prompts, tmp_path, capsys, monkeypatch):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    line = [str(run), "--prompts", str(prompts), "--max-tokens", "12", "--rows", "2", "--batch-invariant", "--out"]
    assert main([*line, str(whole)]) == 0
    from wenlu.inference.batch import Engine

    steps, step = [], Engine.step

    def interrupted(engine):
        steps.append(1)
        if len(steps) == 9:
            raise KeyboardInterrupt
        return step(engine)

    monkeypatch.setattr(Engine, "step", interrupted)
    assert main([*line, str(out)]) == 130
    assert "interrupted; what was made is in" in capsys.readouterr().err
    before = rows_of(out)
    assert 0 < len(before) < 4
    with out.open("a") as file:
        file.write('{"number": 3, "text": "torn')
    assert main([*line, str(out)]) == 0
    assert f"({len(before)} there already)" in capsys.readouterr().err
    assert rows_of(out) == rows_of(whole)
    assert main([*line, str(out)]) == 0
    assert "0 texts" in capsys.readouterr().err and rows_of(out) == rows_of(whole)


def test_results_of_something_else_are_not_mixed(run, prompts, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    line = [str(run), "--prompts", str(prompts), "--out", str(out), "--max-tokens"]
    assert main([*line, "4"]) == 0
    before = out.read_bytes()
    with pytest.raises(UserError, match="holds results of another model, other prompts or settings: give another"):
        main([*line, "5"])
    with pytest.raises(UserError, match="holds results of another model"):
        main([*line, "4", "--quantize", "int8"])
    other = tmp_path / "other"
    shutil.copytree(run, other)
    model, tokenizer = load(run)
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    save(model, tokenizer, other)
    with pytest.raises(UserError, match="holds results of another model"):
        main([str(other), *line[1:], "4"])
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"my": "notes"}', "ends in what is no row of results: give another --out, or remove it"),
        ("[1, 2, 3]", "ends in what is no row of results"),
        ("a letter to a friend", "ends in what is no row of results"),
        ("KEPT" + '{"other": 1}', "ends in what is no row of results"),
        ('{"number": "x"}\n', "holds results of another model, other prompts or settings"),
        ('{"number": -1, "key": "b"}\n', "holds results of another model"),
        ('{"number": true, "key": "b"}\n', "holds results of another model"),
        ('{"number": 1.0, "key": "b"}\n', "holds results of another model"),
        ('{"number": [0]}\n', "holds results of another model"),
        ('{"number": 2, "key": "b"}\n', "holds results of another model"),
        ("a letter\nto a friend", "is damaged"),
    ],
)
def test_a_file_of_something_else_stays_as_it_is(run, prompts, tmp_path, content, message):
    out = tmp_path / "out.json"
    out.write_text(content.replace("KEPT", '{"number": 0, "key": "a", "text": "b"}\n'))
    before = out.read_bytes()
    with pytest.raises(UserError, match=message):
        kept_rows(out, ["a", "b"])
    with pytest.raises(UserError, match=r"out\.json"):
        continue_all(Generator(*load(run)), "m", read_prompts(prompts, Settings()), out, lambda rows, result: None)
    assert out.read_bytes() == before


@pytest.mark.parametrize("torn", ["", "{", '{"num', '{"number": ', '{"number": 1, "text": "to', "\0\0", '{"num\0\0'])
def test_a_torn_row_is_one_of_ours(tmp_path, torn):
    out = tmp_path / "out.jsonl"
    assert kept_rows(out, ["a"]) == {}
    out.write_text('{"number": 0, "key": "a"}\n' + torn)
    assert kept_rows(out, ["a", "b"]) == {0: {"number": 0, "key": "a"}}


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "holds no prompts: give JSON lines such as"),
        ("{", "line 1: this is no JSON"),
        ('{"prompt": "a"}\n[]', "line 2: a row is an object with a text named prompt"),
        ('{"text": "a"}', "line 1: a row is an object with a text named prompt"),
        ('{"prompt": "a", "temprature": 1}', "line 1: a row has no 'temprature'. Did you mean 'temperature'?"),
        (
            '{"prompt": "a", "id": "x"}\n\n{"prompt": "b", "id": "x"}',
            r"prompts.jsonl: lines 1 and 3 have the id 'x': leave one out, or change its id",
        ),
        ('{"prompt": "a", "id": [1]}\n{"prompt": "b", "id": [1]}', r"lines 1 and 2 have the id \[1\]"),
        ('{"prompt": "a", "top_p": 2}', "line 1: top_p must lie in"),
        ('{"prompt": "a", "max_tokens": 0}', "line 1: max_tokens must be at least 1"),
        ('{"prompt": "a", "max_tokens": "9"}', "line 1: max_tokens must be a whole number, not '9'"),
        ('{"prompt": "a"}\n{"prompt": "a", "max_tokens": 1000.5}', "line 2: max_tokens must be a whole number"),
        ('{"prompt": "a", "max_tokens": 50.0}', "line 1: max_tokens must be a whole number, not 50.0"),
        ('{"prompt": "a", "max_tokens": Infinity}', "line 1: max_tokens must be a whole number, not inf"),
        ('{"prompt": "a", "max_tokens": true}', "line 1: max_tokens must be a whole number, not True"),
        ('{"prompt": "a", "top_k": 2.5}', "line 1: top_k must be a whole number, not 2.5"),
        ('{"prompt": "a", "seed": 1.5}', "line 1: seed must be a whole number, not 1.5"),
        ('{"prompt": "a", "seed": null}', "line 1: seed must be a whole number, not None"),
        ('{"prompt": "a", "alternatives": 1.5}', "line 1: alternatives must be a whole number, not 1.5"),
        ('{"prompt": "a", "top_p": "0.5"}', "line 1: top_p must be a number, not '0.5'"),
        ('{"prompt": "a", "temperature": [1]}', "line 1: temperature must be a number, not "),
        ('{"prompt": "a", "stop": null}', "line 1: stop must be a tuple of texts, none of them empty, not None"),
        ('{"prompt": "a", "stop": 5}', "line 1: stop must be a tuple of texts, none of them empty, not 5"),
        ('{"prompt": "a", "stop": [1]}', "line 1: stop must be a tuple of texts, none of them empty, not .1,."),
        ('{"prompt": "a", "stop": "b"}', "line 1: stop must be a tuple of texts"),
        ('{"prompt": "a", "temperature": NaN}', "line 1: temperature must be 0"),
    ],
)
def test_wrong_rows_are_refused_with_their_line(tmp_path, content, message):
    file = tmp_path / "prompts.jsonl"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        read_prompts(file, Settings())


def test_ids_that_are_no_text_or_none_are_apart(tmp_path):
    file, given = tmp_path / "prompts.jsonl", [1, "1", True, None, None, [1]]
    file.write_text("".join(json.dumps({"prompt": "a", "id": id}) + "\n" for id in given))
    assert [prompt.kept["id"] for prompt in read_prompts(file, Settings())] == given


def test_lines_end_at_line_ends_only(tmp_path):
    """JSON may hold other separators as they are."""
    file, texts = tmp_path / "prompts.jsonl", ["a\u2028b", "猫\x85坐", "\u2029"]
    file.write_bytes("\r\n".join(json.dumps({"prompt": text}, ensure_ascii=False) for text in texts).encode())
    assert [(one.text, one.line) for one in read_prompts(file, Settings())] == list(zip(texts, (1, 2, 3)))


@pytest.mark.parametrize("beams", [1, 2])
def test_prompts_that_cannot_be_read_are_named_before_any_is_begun(tmp_path, beams):
    tokenizer = learn("char", ["the cat sat on the mat. 猫坐在垫子上。"])
    model = build(ModelConfig("gpt2", dim=16, layers=1, heads=2, context=8, vocab=tokenizer.vocab), 0)
    file, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    rows = ["the", "the cat sat", "猫坐", "猫坐在垫子上。猫坐"]
    file.write_text("\n\n".join(json.dumps({"prompt": row}) for row in rows))
    settings = Settings(max_tokens=2, beams=beams)
    with pytest.raises(
        UserError, match=r"2 of the prompts cannot be read .lines 3, 7., and none is begun; the first: "
    ):
        continue_all(Generator(model, tokenizer), "m", read_prompts(file, settings), out, lambda rows, result: None)
    assert not out.exists() or not out.read_bytes()


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no file .*: give one of JSON lines"):
        read_prompts(tmp_path / "absent", Settings())
    (tmp_path / "bad").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"is not UTF-8 .byte 0.: convert it first"):
        read_prompts(tmp_path / "bad", Settings())


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--prompts", "x"], "--prompts FILE and --out FILE belong together"),
        (["--out", "x"], "--prompts FILE and --out FILE belong together"),
        (["--prompts", "x", "--out", "y", "--prompt", "z"], "leave out --prompt and --samples"),
        (["--alternatives", "3"], "alternatives are given out as JSON only: add --json"),
        (["--alternatives", "-1", "--json"], "alternatives must be 0 .the tokens made. or more, not -1"),
        (["--logit-bias", "3"], "logit-bias must be ID:NUMBER, such as 42:-inf, not 3"),
        (["--logit-bias", "3:x"], "logit-bias must be ID:NUMBER"),
        (["--speculate", "-2"], "speculate must be 0 .guess nothing. or more, not -2"),
        (["--rows", "0"], "needs room for at least 1 text, not 0"),
        (["--dtype", "int4"], "dtype must be f32 or bf16, not 'int4'"),
        (["--repetition-penalty", "0"], "repetition_penalty must be a positive number"),
        (["--beams", "2", "--temperature", "0", "--presence-penalty", "1"], "2 beams search by the model's own logits"),
    ],
)
def test_flags_that_do_not_belong_together(run, flags, message):
    with pytest.raises(UserError, match=message):
        main([str(run), *flags])


def test_a_prompt_that_fails_leaves_the_others_written(run, prompts, tmp_path, capsys, kernel_cache):
    """Its row is left out, so that the same command tries it again."""
    out = tmp_path / "out.jsonl"
    model, tokenizer = load(run)
    model.lm_head = torch.nn.Linear(16, tokenizer.vocab, bias=False)  # else it would be the embedding
    with torch.no_grad():
        model.embed.weight[tokenizer.encode("坐")[0]] = float("nan")
    prompts.write_text('{"prompt": "坐"}\n{"prompt": "the"}\n{"prompt": "坐在"}\n')
    generator, settings = Generator(model, tokenizer), Settings(max_tokens=6)
    told = []
    with pytest.raises(UserError, match="2 of the texts have failed, the others are written; prompt 0: the model's lo"):
        continue_all(generator, "m", read_prompts(prompts, settings), out, lambda rows, result: told.append(result))
    assert [row["number"] for row in rows_of(out)] == [1] and sum(one is not None for one in told) == 1
