"""wenlu info: the facts of a run, of data, of a tokenizer, told apart by what lies there."""

import json
import re
import subprocess
import sys

import pytest

from wenlu.base.errors import UserError
from wenlu.cli.info import main
from wenlu.hub.folder import save
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.compare import compare
from wenlu.tokenization.learn import learn


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    tokenizer = learn("bpe", ["It was the best of times. 天气真好。\n" * 3], 280)
    config = ModelConfig("qwen3", dim=16, layers=1, heads=2, context=32, vocab=tokenizer.vocab)
    path = tmp_path_factory.mktemp("runs") / "run"
    save(build(config, 0), tokenizer, path)
    own = path / "wenlu"
    (own / "checkpoints" / "step-00000020").mkdir(parents=True)
    (own / "recipe.json").write_text(json.dumps({"training": {"steps": 30}}))
    rows = [
        {"step": 10, "loss": 4.0, "tokens": 100, "seconds": 1.0},
        {"step": 10, "held_out": 3.5, "bits_per_byte": 2.5, "sample": "x"},
        {"step": 20, "loss": 3.0, "tokens": 200, "seconds": 2.0},
        {"step": 20, "held_out": 3.6, "bits_per_byte": 2.6, "sample": "y"},
    ]
    (own / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _json(capsys, *arguments):
    assert main([*map(str, arguments), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_a_run(run, capsys):
    facts = _json(capsys, run)
    model = build(ModelConfig("qwen3", dim=16, layers=1, heads=2, context=32, vocab=facts["model"]["vocab"]), 0)
    assert facts["kind"] == "run" and facts["model"]["family"] == "qwen3"
    assert facts["model"]["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["training"] == {
        "steps": 20, "steps_wanted": 30, "tokens": 200, "seconds": 2.0, "loss": 3.0, "held_out": 3.6,
        "best_held_out": 3.5, "best_bits_per_byte": 2.5, "best_step": 10, "checkpoints": ["step-00000020"],
    }  # fmt: skip
    assert facts["tokenizer"]["kind"] == "bpe"
    assert main([str(run)]) == 0
    out = capsys.readouterr().out
    assert "family" in out and "best held out" in out and "step-00000020" in out


def test_a_run_that_has_only_begun(tmp_path, capsys):
    (tmp_path / "wenlu").mkdir()
    (tmp_path / "wenlu" / "recipe.json").write_text(json.dumps({"training": {"steps": 30}}))
    assert _json(capsys, tmp_path)["training"] == {"steps": 0, "steps_wanted": 30, "checkpoints": []}
    with pytest.raises(UserError, match="holds no tokenizer yet"):
        main([str(tmp_path), "--vocabulary", "0:3"])


def test_the_steps_wanted_are_those_after_the_last_turn_of_a_run_by_minutes(tmp_path, capsys):
    own = tmp_path / "wenlu"
    own.mkdir()
    (own / "recipe.json").write_text(json.dumps({"training": {"steps": 492, "minutes": 1.0}}))
    (own / "metrics.jsonl").write_text('{"step": 254, "loss": 3.0, "tokens": 9, "seconds": 58.0}\n')
    events = [{"event": "plan"}, *({"event": "turn", "step": n, "steps": n + 90} for n in (123, 164)), {"event": "end"}]
    (own / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in events))
    facts = _json(capsys, tmp_path)["training"]
    assert (facts["steps"], facts["steps_wanted"]) == (254, 254)


def test_a_tokenizer_with_its_survey_and_vocabulary(tmp_path, capsys):
    tokenizer = learn("bpe", ["It was the best of times. 天气真好。\n" * 3], 280)
    tokenizer.save(tmp_path)
    facts = _json(capsys, tmp_path, "--vocabulary", "256:5")
    assert facts["kind"] == "tokenizer" and facts["tokenizer"]["vocabulary"] == tokenizer.vocab
    assert [row["id"] for row in facts["tokens"]] == list(range(256, 261))
    whole = facts["bytes_per_token"][-1]
    assert whole["script"] == "all" and whole["bytes_per_token"] == whole["bytes"] / whole["tokens"]
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("天气真好。", encoding="utf-8")
    scripts = {
        row["script"]
        for row in _json(capsys, tmp_path / "tokenizer.json", "--text", tmp_path / "text")["bytes_per_token"]
    }
    assert "Latin" not in scripts and len(scripts) >= 2
    assert main([str(tmp_path), "--vocabulary", "0:3"]) == 0
    assert "bytes per token" in capsys.readouterr().out


def test_data(tmp_path, capsys):
    (tmp_path / "data.json").write_text(json.dumps({"train": {"tokens": 12345}, "name": "x"}))
    assert _json(capsys, tmp_path)["data"]["train"]["tokens"] == 12345
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "train.tokens" in out and "12,345" in out


def test_what_is_not_known_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is no run .* no data .* and no tokenizer"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="there is nothing at"):
        main([str(tmp_path / "absent")])
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(UserError, match=r"data.json is damaged"):
        main([str(tmp_path)])


@pytest.mark.parametrize("text", ["5", "a:b", "0:0", "-1:3"])
def test_the_range_is_checked(text, run):
    with pytest.raises(UserError, match="vocabulary must be START:COUNT"):
        main([str(run), f"--vocabulary={text}"])


def test_no_torch_is_imported(run):
    code = f"import sys; from wenlu.cli.info import main; main([{str(run)!r}]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    for name in ("generate", "eval", "info"):
        code = f"import sys, wenlu.cli.{name}; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def two(tmp_path):
    for kind in ("bpe", "unigram"):
        learn(kind, ["It was the best of times. 天气真好。\n" * 9], 290).save(tmp_path / kind)
    (tmp_path / "text.txt").write_text("It was 天气 [bold]\n", encoding="utf-8")
    return tmp_path


def test_tokenizers_side_by_side(two, capsys):
    facts = _json(capsys, two / "bpe", "--against", two / "unigram", "byte", "--text", two / "text.txt")
    names = [str(two / "bpe"), str(two / "unigram"), "byte"]
    assert [column["name"] for column in facts["tokenizers"]] == names
    assert [column["kind"] for column in facts["tokenizers"]] == ["bpe", "unigram", "byte"]
    assert facts["bytes"] == len((two / "text.txt").read_bytes())
    for column in facts["tokenizers"]:
        assert column["lossless"] and column["megabytes_per_second"] > 0
        assert column["bytes_per_token"] == facts["bytes"] / column["tokens"]
    assert facts["tokenizers"][2]["bytes_per_token_by_script"] == {
        "Latin": 1, "Han": 1, "punctuation": 1, "space": 1,
    }  # fmt: skip
    assert main([str(two / "bpe"), "--against", str(two / "unigram"), "--vocabulary", "257:3"]) == 0
    out = capsys.readouterr().out
    assert "MB/s" in out and "  Han" in out and "257" in out and "lossless" in out


def test_bad_lines_of_the_text_are_said_beside_a_comparison_too(two, capsys):
    bad = two / "[bold].txt"
    bad.write_bytes("天气真好\n".encode() * 200 + b"\xff\n")
    for arguments in ([two / "bpe"], [two / "bpe", "--against", two / "unigram", "byte"]):
        _json(capsys, *arguments, "--text", bad)
        assert main([*map(str, arguments), "--text", str(bad)]) == 0
        said = capsys.readouterr().err
        assert said.count("1 bad line left out") == 1 and f"{bad}:201: no UTF-8" in said


def test_a_comparison_fits_eighty_columns(two, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main([str(two / "bpe"), "--against", str(two / "unigram"), "byte", "--vocabulary", "250:9"]) == 0
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, out.splitlines())) <= 80


def test_a_lossy_tokenizer_has_no_bytes_per_token(two, capsys):
    import tokenizers
    from tokenizers import decoders, models

    inner = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "I": 1}, merges=[]))
    inner.decoder = decoders.ByteLevel()
    inner.save(str(two / "lossy.json"))
    arguments = [str(two / "lossy.json"), "--against", "byte", "--text", str(two / "text.txt")]
    column = _json(capsys, *arguments)["tokenizers"][0]
    assert (column["lossless"], column["bytes_per_token"], column["bytes_per_token_by_script"]) == (False, None, {})
    assert main(arguments) == 0
    assert "not lossless on this text" in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_compared_is_refused(two):
    with pytest.raises(UserError, match=r"bpe:300 is yet to be learned.*wenlu prepare .* --tokenizer bpe:300"):
        main([str(two / "bpe"), "--against", "bpe:300"])
    with pytest.raises(UserError, match="is neither bpe"):
        main([str(two / "bpe"), "--against", "absent"])
    with pytest.raises(UserError, match="the texts of --text are empty"):
        compare([learn("byte", [])], lambda: ["", ""])
