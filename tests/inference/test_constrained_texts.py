"""Constraints within the engine, beside texts without, and at the command line."""

import json
import re

import pytest

from wenlu.base.errors import UserError
from wenlu.cli.generate import main
from wenlu.hub.folder import save
from wenlu.inference.constrain import Constraint
from wenlu.inference.generator import Generator, Settings
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn

SCHEMA = {
    "type": "object",
    "properties": {"名": {"type": "string", "maxLength": 4}, "n": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["名", "n"],
    "additionalProperties": False,
}
LIST = 'start: "[" item ("," item)* "]"\nitem: "a" | "猫" | start\n'


def is_schema(text):
    found = json.loads(text)
    return set(found) == {"名", "n"} and len(found["名"]) <= 4 and 1 <= found["n"] <= 99


def is_list(text):
    found = eval(text.replace("a", "0").replace("猫", "1"), {})
    return isinstance(found, list) and len(found) > 0


FORMS = {
    "choices": (
        Constraint("choices", ("yes", "no (a+b)", "你好", "你")),
        {"yes", "no (a+b)", "你好", "你"}.__contains__,
    ),
    "regex": (
        Constraint("regex", r"[a-c]{2,5}[\u4e00-\u9fff][0-9]"),
        re.compile(r"[a-c]{2,5}[\u4e00-\u9fff][0-9]").fullmatch,
    ),
    "json": (Constraint("json_schema", json.dumps(SCHEMA)), is_schema),
    "grammar": (Constraint("grammar", LIST), is_list),
}


def small(tokenizer, shaken, family="llama"):
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": 0 if family == "t5" else None}
    return shaken(build(ModelConfig(family, dim=16, layers=1, heads=2, context=600, vocab=tokenizer.vocab, **ids), 0))


@pytest.mark.parametrize("family", ["llama", "lstm", "t5"])
def test_a_model_writes_what_it_is_held_to(shaken, family):
    tokenizer = learn("byte", ["x"], None)
    generator = Generator(small(tokenizer, shaken, family), tokenizer)
    settings = [Settings(300, 1.0, seed=seed, constraint=FORMS["regex"][0]) for seed in range(4)]
    streams = [generator.stream("文炉", one) for one in settings] + [generator.stream("x", Settings(20, 1.0))]
    results = generator._finished(streams)
    for one, result in zip(settings, results, strict=False):
        assert FORMS["regex"][1](result.text) and result.finish == "stop"
        assert generator.generate("文炉", one)[0].text == result.text
    assert results[4].finish in ("length", "eos")


def test_a_form_that_may_go_on_ends_at_an_end_token(shaken):
    tokenizer = learn("byte", ["x"], None)
    generator = Generator(small(tokenizer, shaken), tokenizer)
    results = [
        generator.generate("x", Settings(400, 1.0, seed=s, constraint=Constraint("regex", "a+")))[0] for s in range(6)
    ]
    assert {result.finish for result in results} <= {"eos", "length"} and any(r.finish == "eos" for r in results)
    assert all(set(result.text) == {"a"} for result in results)


def test_at_the_command_line(shaken, tmp_path, capsys, kernel_cache):
    tokenizer = learn("byte", ["x"], None)
    save(small(tokenizer, shaken), tokenizer, tmp_path / "run")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "list.lark").write_text(LIST)
    line = [str(tmp_path / "run"), "--prompt", "q", "--max-tokens", "300", "--json"]
    for flags, holds in (
        (["--choice", "yes", "--choice", "你好"], {"yes", "你好"}.__contains__),
        (["--regex", "[ab]{3}"], re.compile("[ab]{3}").fullmatch),
        (["--grammar", str(tmp_path / "list.lark"), "--seed", "1"], is_list),
    ):
        assert main([*line, *flags]) == 0
        assert holds(json.loads(capsys.readouterr().out)["samples"][0]["text"])
    for flags, message in (
        (["--choice", "a", "--regex", "b"], "a text has one form"),
        (["--json-schema", str(tmp_path / "none")], "cannot read .*none"),
        (["--regex", "a", "--stop", "b"], "a constraint says where a text ends: leave out stop and beams"),
        (["--regex", "a", "--beams", "2", "--temperature", "0"], "a constraint says where a text ends"),
    ):
        with pytest.raises(UserError, match=message):
            main([*line, *flags])
