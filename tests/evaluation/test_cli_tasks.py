"""wenlu eval --tasks: tables, JSON, prompts shown, results kept, two models, and refusals."""

import json

import pytest

from wenlu.base.errors import UserError
from wenlu.cli.eval import main
from wenlu.hub.folder import save
from wenlu.tokenization.chat_format import with_template

from small_models import BYTES, random_model

TOML = """
kind = "choice"
file = "rows.jsonl"
choices = "options"
[template]
question = "Q: {{ frage }}\\nA:"
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Two models, one of them with a chat template, and a task."""
    root = tmp_path_factory.mktemp("here")
    for seed in (1, 2):
        save(random_model("llama", context=256, seed=seed), BYTES, root / f"model{seed}")
    tokenizer, _ = with_template(BYTES)
    save(random_model("llama", context=256, vocab=tokenizer.vocab), tokenizer, root / "chat")
    save(random_model("t5"), BYTES, root / "t5")
    rows = [{"frage": f"第{n}？", "options": ["是", "否"], "gold": n % 2} for n in range(8)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "mine.toml").write_text(TOML)
    pairs = [{"good": f"Good {n}.", "bad": f"Bad {n}."} for n in range(4)]
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (root / "pairs.toml").write_text('kind = "pairs"\nfile = "pairs.jsonl"\ngood = "good"\nbad = "bad"\n')
    return root


def run(here, capsys, *arguments):
    assert main([str(here / "model1"), *map(str, arguments), "--device", "cpu"]) == 0
    return capsys.readouterr()


def test_table(here, capsys):
    said = run(here, capsys, "--tasks", here / "mine.toml", here / "pairs.toml", "--limit", 3)
    assert all(word in said.out for word in ("mine", "pairs", "3 examples", "acc_norm", "95 % interval", "0.5000"))
    assert "calibration error" in said.out and "Traceback" not in said.err


def test_json_and_shown_prompts(here, capsys):
    found = json.loads(run(here, capsys, "--tasks", here / "mine.toml", "--json", "--show", 1, "--shots", 1).out)
    (task,) = found["tasks"]
    assert task["examples"] == 7 and task["shots"] == 1 and set(task["figures"]) == {"acc", "acc_norm", "acc_bytes"}
    (prompt,) = found["shown"][0]["prompts"]
    assert prompt["prompt"] == "Q: 第0？\nA: 是\n\nQ: 第1？\nA:" and prompt["beginning_tokens"] == 1
    assert [one["text"] for one in prompt["continuations"]] == [" 是", " 否"]
    begun = BYTES.encode("A:")[-1], BYTES.encode(" 是")[0]
    assert (prompt["continuations"][0]["before"][-1][0], prompt["continuations"][0]["after"][0][0]) == begun
    said = run(here, capsys, "--tasks", here / "mine.toml", "--show", 2)
    assert "Q: 第0？\nA:\n" in said.out and "Q: 第1？\nA:\n" in said.out and f"| {begun[1]} ' '" in said.out


def test_results_are_kept_and_gone_on_with(here, capsys, tmp_path):
    out = tmp_path / "rows.jsonl"
    first = json.loads(run(here, capsys, "--tasks", here / "mine.toml", "--out", out, "--json", "--limit", 3).out)
    kept = out.read_bytes()
    assert kept.count(b"\n") == 3
    whole = json.loads(run(here, capsys, "--tasks", here / "mine.toml", "--out", out, "--json").out)
    assert out.read_bytes().startswith(kept) and out.read_bytes().count(b"\n") == 8
    assert first["tasks"][0]["examples"] == 3 and whole["tasks"][0]["examples"] == 8
    again = run(here, capsys, "--tasks", here / "mine.toml", "--out", out, "--json")
    assert json.loads(again.out) == whole and f"8 answers in {out} already" in " ".join(again.err.split())
    with pytest.raises(UserError, match="other prompts, shots or settings, or by an older wenlu: give another --out"):
        run(here, capsys, "--tasks", here / "mine.toml", "--out", out, "--shots", 1)


def test_an_interruption_keeps_what_was_done(here, capsys, tmp_path, monkeypatch):
    from wenlu.evaluation.results import Results

    out, add = tmp_path / "rows.jsonl", Results.add

    def interrupted(self, row):
        add(self, row)
        raise KeyboardInterrupt

    monkeypatch.setattr(Results, "add", interrupted)
    assert main([str(here / "model1"), "--tasks", str(here / "mine.toml"), "--out", str(out)]) == 130
    assert f"what was done is in {out}: the same command goes on with it" in capsys.readouterr().err
    assert out.read_bytes().count(b"\n") == 1


def test_two_models(here, capsys, tmp_path):
    page = tmp_path / "report.html"
    said = run(here, capsys, here / "model2", "--tasks", here / "mine.toml", "--report", page)
    assert f"mine, acc: {here / 'model2'} beside {here / 'model1'} is " in said.out
    assert page.read_text(encoding="utf-8").count("<svg") == 5
    found = json.loads(run(here, capsys, here / "model2", "--tasks", here / "mine.toml", "--json").out)
    assert len(found["tasks"]) == 2 and found["comparisons"][0]["verdicts"]["acc"]["examples"] == 8


def test_a_conversation(here, capsys):
    arguments = ["--tasks", str(here / "mine.toml"), "--chat", "--show", "1", "--shots", "1", "--json"]
    assert main([str(here / "chat"), *arguments]) == 0
    (prompt,) = json.loads(capsys.readouterr().out)["shown"][0]["prompts"]
    turn = "<|im_start|>{}\n{}<|im_end|>\n"
    before = turn.format("user", "Q: 第0？\nA:") + turn.format("assistant", "是") + turn.format("user", "Q: 第1？\nA:")
    assert prompt["prompt"] == before + "<|im_start|>assistant\n"
    assert [one["text"] for one in prompt["continuations"]] == ["是", "否"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tasks", "arc_esy"], "no task 'arc_esy'. Did you mean 'arc_easy'?"),
        (["--tasks", "mine.toml", "--limit", "-1"], "limit must be at least 0, not -1"),
        (["--tasks", "mine.toml", "--shots", "9"], "9 shots are more than task mine has: there are 8 examples"),
        (["--tasks", "mine.toml", "--show", "-1"], "show must be at least 0"),
        (["--tasks", "mine.toml", "--delta", "0.1"], "--delta is for two models"),
        (["--tasks", "mine.toml", "--beams", "2"], "--beams has no effect on tasks: leave it out"),
        (["--tasks", "mine.toml", "--max-bad", "0.2"], "--max-bad has no effect on tasks"),
        (["--tasks", "mine.toml", "--chat"], "model1 has no chat template: write the prompts as text"),
        (["--tasks", "pairs.toml", "--chat"], "leave out --chat"),
        (["--shots", "1"], "--shots is for tasks: name some by --tasks"),
        (["--report", "r.html"], "--report is for tasks"),
        (["model1", "--tasks", "mine.toml"], "hold the same weights: there is nothing to compare"),
        (["model2", "model2", "--tasks", "mine.toml"], "two are compared, not 3"),
        (["t5", "--tasks", "pairs.toml"], "a t5 gives those of answers only"),
        (["--tasks", "mine.toml", "--out", "."], ". is a folder"),
        (["--tasks", "mine.toml", "--dtype", "f16"], "dtype must be f32 or bf16"),
    ],
)
def test_refusals(here, arguments, words, monkeypatch, capsys):
    monkeypatch.chdir(here)
    monkeypatch.delenv("WENLU_DATA", raising=False)
    before = sorted(here.rglob("*"))
    with pytest.raises(UserError) as error:
        main(["model1", *arguments])
    assert words in str(error.value)
    assert capsys.readouterr().out == "" and sorted(here.rglob("*")) == before
