"""Data sets of the hub, by a stand-in for the `datasets` package."""

import json
import sys
import types

import pytest

from wenlu.base.errors import UserError
from wenlu.cli.recipe_flags import recipe_of
from wenlu.cli.train import Command
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.data.reading.sources import read_documents, spooled
from wenlu.training.recipe import read_recipe

ROWS = [{"text": f"row {n} 天", "n": n, "title": "t", "image": b"x"} for n in range(300)]


@pytest.fixture
def calls(monkeypatch):
    """What `load_dataset` was called with."""
    made = []

    def load_dataset(*arguments, **options):
        made.append((arguments, options))
        if arguments[0].endswith("/broken"):
            raise ValueError("Config name is missing.\nPlease pick one among ['a', 'b']")
        return iter(ROWS)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return made


@pytest.mark.parametrize(
    "name, arguments, split",
    [
        ("hub:owner/name", ("owner/name", None), "train"),
        ("hub:owner/name:validation", ("owner/name", None), "validation"),
        ("hub:owner/na.me-1/zh:test", ("owner/na.me-1", "zh"), "test"),
    ],
)
def test_rows_are_streamed_once_and_no_code_is_trusted(calls, name, arguments, split):
    with spooled((name,)) as paths:
        for _ in range(2):
            assert [piece.text for piece in read_documents(paths)] == [row["text"] for row in ROWS]
    assert calls == [(arguments, {"split": split, "streaming": True})]
    with pytest.raises(UserError) as error, spooled((name,)) as paths:
        list(read_documents(paths, field="body"))
    assert f"the first at {name}:1: no text under 'body' (--field may name 'text', 'title')" in str(error.value)


def test_prepare_reads_the_hub(calls, tmp_path):
    made = prepare(PrepareConfig(("hub:owner/name",), tokenizer="byte"), tmp_path / "data")
    assert made["sources"]["documents"] == 300 and made["config"]["paths"] == ["hub:owner/name"] and len(calls) == 1
    assert json.loads((tmp_path / "data" / "data.json").read_text(encoding="utf-8")) == made


def test_refusals(calls, monkeypatch):
    for name in ("hub:name", "hub:owner/name:", "hub:https://x/y", "hub:../../etc"):
        with (
            pytest.raises(UserError, match=r"is named hub:OWNER/NAME\[/CONFIGURATION\]\[:SPLIT\], not 'hub:"),
            spooled((name,)),
        ):
            pass
    with pytest.raises(UserError) as error, spooled(("hub:owner/broken",)):
        pass
    assert str(error.value) == (
        "hub:owner/broken cannot be fetched: Config name is missing. Please pick one among ['a', 'b']"
    )
    with pytest.raises(UserError, match="hub:owner/name is fetched first: read what `spooled` makes"):
        list(read_documents(("hub:owner/name",)))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError) as error, spooled(("hub:owner/name",)):
        pass
    assert str(error.value) == 'hub:owner/name cannot be read without datasets: pip install "wenlu[hub]"'


def test_ids_of_the_hub_stay_as_they_are_in_recipes(tmp_path):
    (tmp_path / "recipe.toml").write_text('[data]\npaths = ["hub:owner/name", "-", "a.txt"]\n')
    assert read_recipe(tmp_path / "recipe.toml").data.paths == ("hub:owner/name", "-", str(tmp_path / "a.txt"))
    assert recipe_of(Command(), ("hub:owner/name:test", "-")).data.paths == ("hub:owner/name:test", "-")
