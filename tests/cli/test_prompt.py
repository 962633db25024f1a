"""wenlu prompt: each of its commands on files, and what they refuse: exit code 2, and nothing computed is lost."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from wenlu.cli import prompt as commands
from wenlu.cli.main import main
from wenlu.hub.folder import save
from wenlu.prompting.artifact import Artifact, ModelMark, Shown
from wenlu.prompting.backend import FolderBackend
from wenlu.prompting.demonstrations import Demonstrations
from wenlu.prompting.examples import Example
from wenlu.prompting.similarity import FolderEmbedder
from wenlu.prompting.template import Template

from endpoint_server import Reply, Server
from small_models import model_of

PLAIN = """
[template]
instruction = "Read it. Say what fits. 看仔细。"
question = "Text: {{ text }}\\nAnswer:"
[scoring]
kind = "sum"
"""
CAREFUL = PLAIN.replace("Read it.", "Take care.")
POOL = ("天气真好", "it is warm", "炉子是热的", "two and two", "naïve café", "红楼梦里的人说")
COLUMNS = ["--examples", "examples.jsonl", "--gold", "answer", "--labels", "four", "热的"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of random weights that knows conversations."""
    place = tmp_path_factory.mktemp("model")
    save(*model_of("char"), place)
    return place


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with prompts and examples, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [{"text": f"炉子{n} is warm", "answer": ("four", "热的")[n % 2]} for n in range(60)]
    write("examples.jsonl", rows)
    Path("plain.toml").write_text(PLAIN, encoding="utf-8")
    Path("careful.toml").write_text(CAREFUL, encoding="utf-8")
    return tmp_path


def write(name, rows):
    Path(name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def run(capsys, *arguments):
    """What a command prints on stdout."""
    capsys.readouterr()
    assert main(["prompt", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_render_shows_text_and_ids(folder, work, capsys):
    shown = run(capsys, "render", folder, "plain.toml", *COLUMNS, "--show", 2)
    assert "Text: 炉子0 is warm\nAnswer:" in shown and "right: 热的" in shown
    (row,) = json.loads(run(capsys, "render", folder, "plain.toml", *COLUMNS, "--json"))["rendered"]
    assert row["text"].endswith("Text: 炉子0 is warm\nAnswer:") and len(row["ids"]) > 20


def test_compare_keeps_its_answers(folder, work, capsys):
    line = ("compare", folder, "plain.toml", "careful.toml", *COLUMNS, "--limit", 20, "--out", "matrix.jsonl")
    first = json.loads(run(capsys, *line, "--json"))
    assert [row["name"] for row in first["prompts"]] == ["plain", "careful"] and first["tokens"] > 0
    assert main(["prompt", *map(str, line), "--json"]) == 0
    said = capsys.readouterr()
    again = json.loads(said.out)
    assert "40 answers in matrix.jsonl already" in said.err and again["tokens"] == 0
    assert again["prompts"] == first["prompts"]
    table = run(capsys, *line, "--forms")
    assert "baseline" in table and "careful: " in table and "forms, from" in table and "20 examples" in table


def test_what_is_longer_than_a_model_was_trained_on_is_said(work, capsys):
    model, tokenizer = model_of("char")
    model.config = replace(model.config, context=40)
    save(model, tokenizer, "short")
    line = ("compare", "short", "plain.toml", *COLUMNS, "--limit", 4)
    told = "8 texts went on beyond the 40 tokens that short was trained on"
    assert json.loads(run(capsys, *line, "--json"))["notes"] == [told]
    assert told in run(capsys, *line)


def test_optimize_ends_in_a_prompt_a_report_and_a_verdict(folder, work, capsys):
    line = ("optimize", folder, "plain.toml", *COLUMNS, "--candidates", 5, "--keep", 2, "--out", "work")
    found = json.loads(run(capsys, *line, "--json"))
    assert found["evaluations"] > 0 and 0 <= found["apparent"] <= 1
    assert Path(found["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(Path(found["prompt"]).read_text(encoding="utf-8"))["wenlu_prompt"] == 1
    assert main(["prompt", *map(str, line)]) == 0
    shown, said = capsys.readouterr()
    assert "work holds this search already: what it found is told again; a new one needs another --out" in said
    assert "the best there reads" in shown and "before the test" in shown
    assert (found["verdict"] is None) == ("the baseline was chosen" in shown)
    changed = run(capsys, "diff", "plain.toml", "work/prompt.json")
    assert "model.backend:" in changed
    assert run(capsys, "diff", "plain.toml", "plain.toml") == "the prompts are the same\n"
    exported = json.loads(run(capsys, "export", "work/prompt.json", *COLUMNS, "--model", "m"))
    assert exported["body"]["model"] == "m" and exported["path"] in ("/completions", "/chat/completions")


def test_the_writer_sees_its_own_key_alone(folder, work, capsys, monkeypatch):
    monkeypatch.setenv("KEY_OF_MODEL", "a-secret")
    monkeypatch.setenv("KEY_OF_WRITER", "b-secret")
    line = ("optimize", *COLUMNS, "--candidates", 4, "--keep", 1, "--evaluations", 80, "--json")
    own = ("--writer-endpoint.key-variable", "KEY_OF_WRITER")
    with Server(*model_of("char")) as model, Server(*model_of("char")) as writer:
        to = ("plain.toml", "--writer", f"{writer.url}#w")
        run(capsys, *line, f"{model.url}#m", *to, "--out", "a", "--endpoint.key-variable", "KEY_OF_MODEL")
        assert {seen[1].get("Authorization") for seen in model.seen} == {"Bearer a-secret"}
        assert {seen[1].get("Authorization") for seen in writer.seen} == {None}
        writer.seen.clear()
        found = json.loads(run(capsys, *line, folder, *to, "--out", "b", *own))
        assert {seen[1].get("Authorization") for seen in writer.seen} == {"Bearer b-secret"}
        assert found["writer_tokens"] > 0
    refused(capsys, "(--writer-endpoint.…)", *line, folder, "plain.toml", "--writer", folder, "--out", "c", *own)
    refused(capsys, "name one by --writer, or leave", *line, folder, "plain.toml", "--out", "c", *own)


@pytest.mark.parametrize("kind", ["nearest", "mmr"])
def test_an_export_shows_the_demonstrations_that_the_prompt_was_made_with(kind, folder, work, capsys):
    backend = FolderBackend(folder)
    pool = tuple(Shown(f"p{n}", {"text": text}, ("four", "热的"), n % 2) for n, text in enumerate(POOL))
    prompt = Artifact("near", Template("{{ text }}"), Demonstrations(kind, 2), pool, model=ModelMark.of(backend))
    prompt.write("near.json")
    line = ("export", "near.json", *COLUMNS, "--limit", "3", "--embed-with")
    rows = [json.loads(row) for row in run(capsys, *line, folder).splitlines()]
    examples = [
        Example(row["example"], {"text": f"炉子{n} is warm"}, ("four", "热的"), n % 2) for n, row in enumerate(rows)
    ]
    embed = FolderEmbedder(backend.model, backend.tokenizer)
    assert [row["body"]["prompt"] for row in rows] == [prompt.prompt(one, embed) for one in examples]
    refused(capsys, f"{kind} demonstrations are chosen by a model's vectors: name the model's folder", *line[:-1])
    refused(capsys, "none demonstrations are chosen by no vectors", "export", "plain.toml", *line[2:], folder)
    save(*model_of("char", seed=5), work / "other")
    assert main(["prompt", *map(str, line), "other"]) == 0
    assert "the model is not that of" in capsys.readouterr().err


def test_answers_of_an_endpoint_are_kept_beside_out(work, capsys):
    Path("plain.toml").write_text(PLAIN.split("[scoring]")[0] + "[decoding]\nmax_tokens = 3\n", encoding="utf-8")
    with Server(*model_of("char")) as server:
        line = ("compare", f"{server.url}#m", "plain.toml", *COLUMNS, "--limit", 6, "--out")
        first = run(capsys, *line, "matrix.jsonl")
        asked = len(server.seen)
        Path("matrix.jsonl").unlink()
        again = run(capsys, *line, "matrix.jsonl")
        assert asked and len(server.seen) == asked and Path("matrix.jsonl.answers").is_dir()
        assert again.splitlines()[:-1] == first.splitlines()[:-1] and ", 0 tokens" in again


def test_a_dry_run_prints_what_would_be_sent_and_sends_nothing(work, capsys, monkeypatch):
    written = PLAIN.split("[scoring]")[0] + "[decoding]\nmax_tokens = 3\n"
    Path("plain.toml").write_text(written + "[strategy]\nkind = 'self_consistency'\nsamples = 2\n", encoding="utf-8")
    Path("batch.toml").write_text(CAREFUL.replace("sum", "batch"), encoding="utf-8")
    Path("steps.toml").write_text(
        written.replace("= 3", "= 9") + "[strategy]\nkind = 'least_to_most'\nmost = 2\n", encoding="utf-8"
    )
    with Server(*model_of("char")) as server:
        line = ("compare", f"{server.url}#m", "plain.toml", "batch.toml", *COLUMNS, "--limit", 4, "--out", "m.jsonl")
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        own = ("--endpoint.limit-name", "max_completion_tokens", "--endpoint.extra", '{"top_k": 40}')
        keyless = ("--endpoint.key-variable", "NO_SUCH_KEY", "--endpoint.timeout", 9, "--endpoint.plain-http")
        shown = run(capsys, *line[:3], *line[4:], "--dry-run", *own, *keyless)
        bodies = [json.loads(row)["body"] for row in shown.splitlines()]
        assert len(bodies) == 8 and {body["seed"] for body in bodies} == {0, 1} and not server.seen
        assert all(body["max_completion_tokens"] == 1 and body["top_k"] == 40 for body in bodies)
        planned = [json.loads(row) for row in run(capsys, *line, "--dry-run").splitlines()]
        found = json.loads(run(capsys, *line[:2], "steps.toml", *line[4:], "--dry-run", "--json"))
        assert len(found["requests"]) == 4 and "steps: its further requests go on with" in found["notes"][0]
        scored = json.loads(run(capsys, *line[:2], "batch.toml", *line[4:], "--dry-run", "--json"))
        assert [len(one["notes"]) for one in (found, scored)] == [1, 1] and "four to six" in scored["notes"][0]
        assert not server.seen and not Path("m.jsonl").exists()
        run(capsys, *line)
        sent = {json.dumps(body, sort_keys=True) for _, _, body in server.seen}
        wanted = {json.dumps(one["body"], sort_keys=True) for one in planned}
        assert wanted <= sent and len(sent - wanted) <= 6 and len(planned) == 16, "beside these, the probe's"
        assert run(capsys, *line, "--dry-run") == "", "what is kept is not asked again"


def test_a_dry_run_asks_for_other_forms_only_where_they_are_wanted(work, capsys):
    """A prompt that is one bare line has too few of them."""
    Path("bare.toml").write_text(
        "[template]\nquestion = '{{ text }}'\n\n[decoding]\nmax_tokens = 3\n", encoding="utf-8"
    )
    with Server(*model_of("char")) as server:
        line = ("compare", f"{server.url}#m", "bare.toml", *COLUMNS, "--limit", 4, "--dry-run")
        assert len(run(capsys, *line).splitlines()) == 4
        refused(capsys, "other forms, and its robustness is told by 10 at least", *line, "--forms")
        assert not server.seen


def test_an_endpoint_that_refuses_the_key_is_answered_by_its_flag(work, capsys):
    with Server(*model_of("char"), lambda *_: Reply(401, {"error": "who?"})) as server:
        line = ("compare", f"{server.url}#m", "plain.toml", *COLUMNS)
        refused(capsys, "without a key (401: who?): set the right --endpoint.key-variable", *line)


def test_what_a_spent_budget_has_paid_for_is_lost_or_kept_as_is_said(work, capsys):
    Path("write.toml").write_text(PLAIN.split("[scoring]")[0] + "[decoding]\nmax_tokens = 3\n", encoding="utf-8")
    lost = "2 of 6 answers came, and all is lost: give --out FILE or --endpoint.cache FOLDER to keep it"
    with Server(*model_of("char")) as server:
        line = ("compare", f"{server.url}#m", "write.toml", *COLUMNS, "--limit", 6, "--endpoint.requests", 2)
        refused(capsys, lost, *line)
        for more in (("--out", "m.jsonl"), ("--endpoint.cache", "kept")):
            server.seen.clear()
            folder = more[1].replace("m.jsonl", "m.jsonl.answers")
            refused(capsys, f"2 of 6 answers are kept in {folder}; the same call goes on from there", *line, *more)
            refused(capsys, f"4 of 6 answers are kept in {folder}", *line, *more)
            assert len(server.seen) == 4


def test_an_endpoint_without_scores_refuses_them_before_texts_are_paid_for(work, capsys):
    Path("write.toml").write_text(PLAIN.split("[scoring]")[0] + "[decoding]\nmax_tokens = 3\n", encoding="utf-8")

    def silent(_, body, reply):
        reply.body["choices"][0]["logprobs"] = None
        return reply

    with Server(*model_of("char"), silent) as server:
        line = ("compare", f"{server.url}#m", "write.toml", "plain.toml", *COLUMNS, "--limit", 6)
        assert main(["prompt", *map(str, line)]) == 2
        said = capsys.readouterr().err
        assert "which has no scores of given texts" in said and said.count("log-probabilities of prompts") == 1
        assert all(body["max_tokens"] != 3 for _, _, body in server.seen) and len(server.seen) <= 6


def test_help_names_every_command(capsys):
    shown = run(capsys, "--help")
    assert all(name in shown for name in commands.COMMANDS) and "example: wenlu prompt" in shown


BAD_ROWS = {
    "no-gold": ([{"text": "a"}], "line 1: no gold answer under 'answer'"),
    "other-gold": ([{"text": "a", "answer": "fuor"}], "gold 'fuor' is not among the labels 'four', '热的'."),
    "one-class": ([{"text": str(n), "answer": "four"} for n in range(9)], "all 9 examples have the answer 'four'"),
    "few": ([{"text": str(n), "answer": ("four", "热的")[n % 2]} for n in range(3)], "of 3 examples only"),
    "small": ([{"text": str(n), "answer": ("four", "热的")[n % 2]} for n in range(9)], "which needs"),
    "twins": ([{"id": "x", "text": text, "answer": "four"} for text in "ab"], "have the id 'x'"),
    "same": ([{"text": "a", "answer": "four"}] * 2, "lines 1 and 2 say the same"),
    "bare": ([{"answer": "four"}], "nothing but an answer"),
    "empty": ([], "holds no examples"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
def test_refused_examples(name, folder, work, capsys):
    rows, message = BAD_ROWS[name]
    write("examples.jsonl", rows)
    refused(capsys, message, "optimize", folder, "plain.toml", *COLUMNS, "--out", "work")


BAD_PROMPTS = {
    "[template]\nquestion = '{{ txet }}'": "the template's question asks for 'txet', which example",
    "[template]\nquestion = '{{ text'": "the template's question is no Jinja",
    "[template]\nquestion = '{{ text.__class__.__mro__ }}'": "templates may not see",
    "[template]\ninstruction = 'x'": "a template needs a question",
    "[template]\nqeustion = 'x'": "Did you mean 'question'?",
    "[template]\nquestion = 'x'\n[scoring]\nkind = 'summ'": "a score is one of sum",
    "[template]\nquestion = 'x'\n[scoring]\nkind = 'sum'\npremise = 'x'": "the score sum has no premise: leave it out",
    "[template]\nquestion = 'x'\n[demonstrations]\nkind = 'random'": "need a count of at least 1",
    "[template]\nquestion = 'x'\n[decoding]\nmax_tokens = 0": "max_tokens must be at least 1, not 0",
    "[template]\nquestion = 'x'\n[strategy]\nkind = 'think'": "strategy.kind must be one of direct",
    "[template]\nquestion = 'x'\n[extractor]\nkind = 'regex'\npattern = '('": "is no regular expression",
    "[template": "is not valid TOML",
    "[template]\nquestion = '" + "long " * 200 + "'\n[scoring]\nkind = 'sum'": "the baseline comes to",
}


@pytest.mark.parametrize("body", BAD_PROMPTS)
def test_refused_prompts(body, folder, work, capsys):
    Path("bad.toml").write_text(body, encoding="utf-8")
    refused(capsys, BAD_PROMPTS[body], "optimize", folder, "bad.toml", *COLUMNS, "--out", "work")


REFUSED = {
    "of 8 examples only": ["optimize", "NOWHERE", "plain.toml", *COLUMNS, "--limit", "8", "--out", "w"],
    "no command 'prompt optimise'. Did you mean 'optimize'?": ["optimise"],
    "no prompt gone.toml": ["render", "MODEL", "gone.toml", *COLUMNS],
    "which examples? name a file of JSON lines": ["render", "MODEL", "plain.toml"],
    "no file gone.jsonl": ["render", "MODEL", "plain.toml", "--examples", "gone.jsonl"],
    "show must be at least 1": ["render", "MODEL", "plain.toml", *COLUMNS, "--show", "0"],
    "limit must be 0 (all) or more": ["compare", "MODEL", "plain.toml", *COLUMNS, "--limit", "-1"],
    "delta is a part of the accuracy": ["compare", "MODEL", "plain.toml", *COLUMNS, "--delta", "2"],
    "two prompts have the name 'plain'": ["compare", "NOWHERE", "plain.toml", "plain.toml", *COLUMNS],
    "where to? name a folder for the search": ["optimize", "MODEL", "plain.toml", *COLUMNS],
    "give evaluations or tokens, not both": [
        "optimize", "MODEL", "plain.toml", *COLUMNS, "--out", "w", "--evaluations", "9", "--tokens", "9"
    ],
    "a budget of 9 evaluations is too small": [
        "optimize", "MODEL", "plain.toml", *COLUMNS, "--out", "w", "--evaluations", "9"
    ],
    "candidates must be at least 2": [
        "optimize", "MODEL", "plain.toml", *COLUMNS, "--out", "w", "--candidates", "1"
    ],
    "which model at http://127.0.0.1:9/v1?": ["compare", "http://127.0.0.1:9/v1", "plain.toml", *COLUMNS],
    "leave out the settings of an endpoint": [
        "compare", "MODEL", "plain.toml", *COLUMNS, "--endpoint.requests", "3"
    ],
    "does not show how it reads a prompt": ["render", "http://127.0.0.1:9/v1#m", "plain.toml", *COLUMNS],
    "--endpoint.money needs prices: give --endpoint.prompt-price and --endpoint.written-price": [
        "compare", "http://127.0.0.1:9/v1#m", "plain.toml", *COLUMNS, "--endpoint.money", "3"
    ],
    "--dry-run shows requests to an endpoint, and": ["compare", "MODEL", "plain.toml", *COLUMNS, "--dry-run"],
    "--endpoint.extra must be a JSON object": [
        "compare", "http://127.0.0.1:9/v1#m", "plain.toml", *COLUMNS, "--endpoint.extra", "[1]"
    ],
    "--endpoint.timeout must be at least 0.001": [
        "compare", "http://127.0.0.1:9/v1#m", "plain.toml", *COLUMNS, "--endpoint.timeout", "0"
    ],
    "without encryption: use https, or set --endpoint.plain-http": [
        "compare", "http://10.0.0.7/v1#m", "plain.toml", *COLUMNS, "--endpoint.key-variable", "HOME"
    ],
    "--endpoint.extra holds stop, which settings decide": [
        "compare", "http://127.0.0.1:9/v1#m", "plain.toml", *COLUMNS, "--endpoint.extra", '{"stop": 1}'
    ],
    "without encryption: use https, or set --writer-endpoint.plain-http": [
        "optimize", "MODEL", "plain.toml", *COLUMNS, "--out", "w", "--writer", "http://10.0.0.7/v1#m",
        "--writer-endpoint.key-variable", "HOME"
    ],
    "labels must be two different ones": ["render", "MODEL", "plain.toml", *COLUMNS[:-1]],
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_refused_lines(message, folder, work, capsys):
    refused(capsys, message, *(folder if part == "MODEL" else part for part in REFUSED[message]))


def test_a_test_part_is_not_looked_at_twice_unasked(folder, work, capsys):
    line = ("optimize", folder, "plain.toml", *COLUMNS, "--candidates", 5, "--keep", 2)
    found = json.loads(run(capsys, *line, "--out", "one", "--json"))
    if found["verdict"] is None:
        return
    for looks in (Path("examples.jsonl.looks"), Path("cache/wenlu/looks.jsonl")):
        row = json.loads(looks.read_text())
        looks.write_text(json.dumps({**row, "look": "another"}) + "\n")
    message = "was chosen and is kept, without a verdict, in two/prompt.json"
    refused(capsys, "were looked at already, last for another", *line, "--out", "two")
    kept = json.loads(Path("two/prompt.json").read_text(encoding="utf-8"))
    assert kept["verdict"] is None and kept["splits"] and "no verdict" in Path("two/report.html").read_text("utf-8")
    assert json.loads(run(capsys, *line, "--out", "two", "--again", "--json"))["look"] == 2
    Path("copy.jsonl").write_bytes(Path("examples.jsonl").read_bytes())
    assert main(["prompt", *map(str, line), "--examples", "copy.jsonl", "--out", "three"]) == 2
    said = capsys.readouterr().err
    assert "cache/wenlu/looks.jsonl" in said and message.replace("two", "three") in said


def test_a_search_is_not_continued_with_other_settings(folder, work, capsys):
    line = ("optimize", folder, "plain.toml", *COLUMNS, "--candidates", 4, "--keep", 1, "--out", "work")
    run(capsys, *line)
    refused(capsys, "work holds another search", *line, "--seed", 3)
    body = json.loads(Path("work/prompt.json").read_text(encoding="utf-8"))
    body["template"]["instruction"] = "changed"
    Path("work/prompt.json").write_text(json.dumps(body))
    refused(capsys, "was changed since it was written", "diff", "plain.toml", "work/prompt.json")


def refused(capsys, message, *arguments):
    capsys.readouterr()
    assert main(["prompt", *map(str, arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and message in said.err and "Traceback" not in said.err
    told = said.err[said.err.index("wenlu: ") :]
    assert told.count("\n") <= 3
