"""Configuration is strict."""

import json
import math
import tomllib
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from wenlu.base.config import from_dict, read_toml, to_dict, to_toml
from wenlu.base.errors import UserError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ()
    kind: Literal["one", "two"] = "one"


@dataclass(frozen=True)
class Outer:
    steps: int = 10
    on: bool = False
    limit: int | None = None
    inner: Inner = field(default_factory=Inner)


def test_round_trip():
    value = Outer(3, True, 4, Inner(1.0, ("a", "b"), "two"))
    assert from_dict(Outer, to_dict(value)) == value
    assert from_dict(Outer, {}) == Outer()


@dataclass(frozen=True)
class Many:
    parts: tuple[Inner, ...] = ()
    one: Inner | None = None
    free: dict[str, Any] = field(default_factory=dict)


def test_dataclasses_in_lists_and_free_tables():
    value = Many((Inner(), Inner(names=("a",))), Inner(2.0), {"a": [1, None], "b": {"c": "d"}})
    assert from_dict(Many, json.loads(json.dumps(to_dict(value)))) == value
    assert to_dict(Many()) == {"parts": [], "free": {}}


@pytest.mark.parametrize(
    "mapping, message",
    [
        ({"parts": [{}, {"rat": 1}]}, r"unknown setting 'parts\[1\].rat'. Did you mean 'rate'"),
        ({"parts": [1]}, r"parts\[0\] must be a table of settings, not 1"),
        ({"one": []}, r"one must be a table of settings, not \[\]"),
        ({"free": 3}, "free must be a table, not 3"),
    ],
)
def test_refusals_in_lists_and_tables(mapping, message):
    with pytest.raises(UserError, match=message):
        from_dict(Many, mapping)


@dataclass(frozen=True)
class Values:
    text: str = ""
    texts: tuple[str, ...] = ()
    number: float = 0.0
    count: int = 0
    on: bool = False
    maybe: int | None = None
    inner: Inner = field(default_factory=lambda: Inner(0.5))


@dataclass(frozen=True)
class File:
    values: Values = field(default_factory=Values)


HARD = ('a "quoted" \\ back\\slash', "炉火\n\ttab \x7f\x01\u2028", "'", "# no comment", "")


@pytest.mark.parametrize("text", HARD)
@pytest.mark.parametrize("number", [0.0, -1e-300, 1e22, 0.1, math.inf])
def test_toml_round_trip(text, number, tmp_path):
    value = File(Values(text, HARD, number, -(2**62), True, 3, Inner(2.0, (text,), "two")))
    (tmp_path / "file.toml").write_text(to_toml(value), encoding="utf-8", newline="")
    assert from_dict(File, read_toml(tmp_path / "file.toml")) == value
    assert from_dict(File, tomllib.loads(to_toml(File()))) == File()


def test_toml_refuses_what_no_file_can_hold():
    with pytest.raises(UserError, match=r"values\.text holds what no text file can: .*; rename it"):
        to_toml(File(Values("\ud800")))


def test_defaults_are_kept_where_nothing_is_said():
    assert from_dict(Outer, {"inner": {"kind": "two"}}, default=Outer(steps=7)) == Outer(7, inner=Inner(kind="two"))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"stepps": 3}, r"unknown setting 'stepps'. Did you mean 'steps'\?"),
        ({"inner": {"rat": 3}}, r"unknown setting 'inner.rat'. Did you mean 'rate'\?"),
        ({"steps": "3"}, "steps must be a whole number, not '3'"),
        ({"steps": 3.5}, "steps must be a whole number, not 3.5"),
        ({"steps": True}, "steps must be a whole number, not True"),
        ({"on": 1}, "on must be true or false, not 1"),
        ({"inner": {"rate": "3e-4"}}, "inner.rate must be a number, not '3e-4'"),
        ({"inner": {"kind": "three"}}, "inner.kind must be one of one, two, not 'three'"),
        ({"inner": {"names": "a"}}, "inner.names must be a list, not 'a'"),
        ({"inner": 3}, r"inner is a section: write it as \[inner\]"),
    ],
)
def test_refusals(mapping, message):
    with pytest.raises(UserError, match=message):
        from_dict(Outer, mapping)


def test_toml_refusals(tmp_path):
    with pytest.raises(UserError, match="no file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 3")
    with pytest.raises(UserError, match="is not valid TOML"):
        read_toml(tmp_path / "bad.toml")
