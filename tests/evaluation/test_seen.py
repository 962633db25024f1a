"""Whether a text was trained on: its own parts are found, others are not, and wenlu eval says so."""

import itertools

import pytest

import wenlu.evaluation.seen as module
from wenlu.cli.main import main
from wenlu.data.config import PrepareConfig
from wenlu.data.prepare import prepare
from wenlu.data.shards import open_data
from wenlu.evaluation.seen import seen


def text(first: int, last: int) -> str:
    return "".join(
        f"In the year {n * 7919 % 9973} it rained, 天气{n * 31 % 97}真好。 The cat slept {n} hours.\n"
        for n in range(first, last)
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("seen")
    (root / "text.txt").write_text(text(0, 400), encoding="utf-8")
    prepare(PrepareConfig((str(root / "text.txt"),), tokenizer="bpe:400", context=16, skip=("all",)), root / "data")
    return open_data(root / "data")


def test_what_was_trained_on_is_found_and_nothing_else(data):
    assert seen([text(0, 300)], data.tokenizer, data) == (16, 16)
    assert seen([text(50, 100), "", text(200, 290)], data.tokenizer, data) == (16, 16)
    assert seen([text(5000, 5300)], data.tokenizer, data) == (0, 16)
    found, looked = seen([text(0, 300), text(5000, 5300)], data.tokenizer, data)
    assert looked == 16 and 7 <= found <= 9
    assert seen(["short"], data.tokenizer, data) == (0, 0)


def test_what_was_held_out_is_not_found(data):
    assert seen(data.validation.documents(data.tokenizer), data.tokenizer, data)[0] == 0


def test_a_part_begins_where_a_token_does(data, monkeypatch):
    ids = data.train.tokens(0, 400).tolist()
    shifted = [(a >> 8) | ((b & 255) << 8) for a, b in itertools.pairwise(ids)][100 : 100 + module.TOKENS]
    monkeypatch.setattr(module, "_stretches", lambda texts, tokenizer: [shifted, ids[100 : 100 + module.TOKENS]])
    assert seen(["x"], data.tokenizer, data) == (1, 2)


def test_too_much_is_not_searched(data, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    assert seen([text(0, 300)], data.tokenizer, data) is None


def test_eval_says_so(data, tmp_path, capsys):
    shape = "--model.dim 16 --model.layers 1 --model.heads 2 --model.context 16 --steps 1 --training.batch 2".split()
    assert main(["train", str(data.folder), "--out", str(tmp_path / "run"), *shape, "--device", "cpu"]) == 0
    said = "16 of 16 stretches of these texts stand word for word in what the run was trained on"
    for name, content in (("old", text(0, 300)), ("new", text(5000, 5300))):
        (tmp_path / f"{name}.txt").write_text(content, encoding="utf-8")
        capsys.readouterr()
        assert main(["eval", str(tmp_path / "run"), str(tmp_path / f"{name}.txt"), "--device", "cpu"]) == 0
        assert (said in capsys.readouterr().err) == (name == "old")
