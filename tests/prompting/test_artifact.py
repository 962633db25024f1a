"""Kept prompts: written and read whole, strictly; what they export is read as what they render."""

import json
import urllib.request
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from wenlu.base.errors import UserError
from wenlu.hub.folder import load, save
from wenlu.inference.generator import Settings
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.prompting.answers import Extractor
from wenlu.prompting.artifact import (
    Artifact,
    Decoding,
    ModelMark,
    Shown,
    Spent,
    SplitMark,
    Verdict,
    diff,
    known_split,
    read_artifact,
)
from wenlu.prompting.backend import FolderBackend
from wenlu.prompting.calibrate import Prior, Scoring
from wenlu.prompting.demonstrations import Demonstrations
from wenlu.prompting.examples import Example
from wenlu.prompting.export import export
from wenlu.prompting.rendering import render
from wenlu.prompting.strategies import Direct, ReasonThenConstrain, SelfConsistency, write_strategy
from wenlu.prompting.template import Template, as_chat
from wenlu.prompting.trial import bare
from wenlu.prompting.writing import Form
from wenlu.tokenization.chat_format import with_template
from wenlu.tokenization.learn import learn

from endpoint_server import Server

POOL = [
    Example("a", {"text": "the cat sat", "n": [1, 2]}, ("no", "是"), 1),
    Example("b", {"text": "猫坐在垫子上", "n": []}, ("no", "是"), 0, group="g"),
]
ASKED = Example("q", {"text": "the mat 你好", "n": []}, ("no", "是"), 0)
WHOLE = Artifact(
    name="cats",
    template=Template(question="{{ text }}\n答：", instruction="Is it a cat?", delimiter=""),
    demonstrations=Demonstrations("fixed", ids=("b", "a")),
    pool=tuple(map(Shown.of, POOL)),
    scoring=Scoring("batch", strength=0.5),
    prior=Prior(("no", "是"), (-1.0, -0.5)),
    strategy=write_strategy(SelfConsistency(3)),
    extractor=Extractor("choice"),
    decoding=Decoding(stop=("\n",), temperature=0.5),
    model=ModelMark("runs/cat", "f0"),
    splits=(SplitMark.of("train", POOL), SplitMark.of("test", [ASKED])),
    spent=Spent(tokens=12),
    verdict=Verdict("better", "accuracy", 0.5, 0.25, 0.75, 40, "the first prompt", 0.125, 0.0, 0.25),
)
PLAIN = Artifact(name="plain")


@pytest.mark.parametrize("artifact", [WHOLE, PLAIN, replace(WHOLE, template=as_chat(WHOLE.template))])
def test_read_as_it_was_written(artifact, tmp_path):
    artifact.write(tmp_path / "p.json")
    read = read_artifact(tmp_path / "p.json")
    assert read == artifact and read.sha256 == artifact.sha256 and not diff(read, artifact)
    read.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "p.json").read_bytes()


def test_the_prompt_is_that_of_its_parts():
    assert WHOLE.prompt(ASKED) == WHOLE.template.render(ASKED, [POOL[1], POOL[0]])
    drawn = replace(WHOLE, demonstrations=Demonstrations("bm25", 1))
    assert drawn.shown_before(ASKED) == (POOL[0],)
    assert WHOLE.decoding.settings == Settings(temperature=0.5, stop=("\n",)) and WHOLE.way == SelfConsistency(3)


def test_the_answer_of_a_question_chooses_no_demonstrations():
    """A row may hold its answer in other words, which no question shows."""
    rows = [("the cat sat", "animal"), ("stocks fell", "money"), ("the cat sat down", "money")]
    pool = tuple(
        Shown(str(n), {"text": text, "label_text": label}, ("x", "y"), n % 2) for n, (text, label) in enumerate(rows)
    )
    alike = Artifact(
        name="alike", template=Template(question="{{ text }}"), demonstrations=Demonstrations("bm25", 1), pool=pool
    )
    for label in ("animal", "money", "money money money"):
        asked = Example("q", {"text": "a cat sat", "label_text": label}, ("x", "y"), 0)
        assert [one.id for one in alike.shown_before(asked)] == ["0"]
    stated = replace(alike, demonstrations=replace(alike.demonstrations, fields=("text",)))
    assert alike.compared == stated.demonstrations and bare(alike) == bare(stated), "and they are one prompt"
    hidden = replace(alike.demonstrations, fields=("text", "label_text"))
    with pytest.raises(
        UserError, match=r"may not be chosen by 'label_text', which the question does not show .* text$"
    ):
        replace(alike, demonstrations=hidden)
    with pytest.raises(UserError, match="compare by what the question shows, but it names no field of text or number"):
        replace(alike, template=Template(question="Which?"))


def test_an_answer_over_before_it_begins_is_refused():
    lines = Template(question="{{ text }}", delimiter="\n", separator="\n")
    with pytest.raises(UserError, match=r"the delimiter '\\n' holds the separator '\\n', which ends a written answer"):
        Artifact(name="lines", template=lines)
    assert Artifact(name="lines", template=lines, decoding=Decoding(stop=("###",))).stop == ("###",)
    assert Artifact(name="lines", template=lines, scoring=Scoring("sum")).scoring
    own, chat = Template(question="{{ text }}", delimiter="\n"), as_chat(replace(lines, delimiter="\n"))
    with pytest.raises(UserError, match=r"the delimiter '\\n' holds '\\n' of decoding.stop, which ends a written"):
        Artifact(name="own", template=own, decoding=Decoding(stop=("\n",)))
    assert Artifact(name="chat", template=chat, decoding=Decoding(stop=("\n",))).stop
    assert Artifact(name="lines", template=as_chat(lines)).stop == ()
    held = Artifact(name="lines", template=lines, strategy=write_strategy(Direct(Form("regex", "a"))))
    assert held.stop == ()


def test_letters_that_the_template_does_not_give_are_refused():
    stems = Template(question="{{ text }}\n{{ options }}", choices="letters", letters="甲乙丙")
    with pytest.raises(
        UserError, match=r"gives choices the letters '甲乙丙', but the extractor looks for 'ABC.*: set ext"
    ):
        Artifact(name="stems", template=stems, extractor=Extractor("letter"))
    for letters in ("甲乙丙", "甲乙", "甲乙丙丁"):
        assert Artifact(name="stems", template=stems, extractor=Extractor("letter", letters=letters)).name
    assert Artifact(name="stems", template=stems, extractor=Extractor("letter"), scoring=Scoring("sum")).scoring


def test_splits_are_known_by_content_not_by_order():
    assert SplitMark.of("x", POOL) == SplitMark.of("x", POOL[::-1])
    other = replace(POOL[0], gold=0)
    assert SplitMark.of("x", [other, POOL[1]]).sha256 != SplitMark.of("x", POOL).sha256
    assert known_split(WHOLE, "test").examples == 1
    with pytest.raises(UserError, match=r"the prompt cats notes no split 'tset'. Did you mean 'test'"):
        known_split(WHOLE, "tset")


def test_differences_in_lines():
    other = replace(
        WHOLE,
        template=replace(WHOLE.template, instruction="Is it a dog?"),
        demonstrations=Demonstrations("fixed", ids=("a",)),
        pool=WHOLE.pool[:1],
        prior=None,
        scoring=None,
    )
    lines = diff(WHOLE, other)
    assert lines[:3] == ["template.instruction:", '  - "Is it a cat?"', '  + "Is it a dog?"']
    assert "pool[b].fields.text:" in lines and '  - "猫坐在垫子上"' in lines and "pool[a].fields.text:" not in lines
    assert "scoring.kind:" in lines and lines[lines.index("demonstrations.ids:") + 2] == '  + ["a"]'


def test_long_texts_differ_line_by_line():
    lines = diff(PLAIN, replace(PLAIN, template=Template(question="{{ question }}\n答：")))
    assert lines == ["template.question:", '  - "{{ question }}"', "  + {{ question }}", "  + 答："]
    lines = diff(PLAIN, replace(PLAIN, template=replace(PLAIN.template, delimiter="\n")))
    assert lines[-1] == '  + "\\n"', "what is nothing but space is seen"


def test_how_a_prompt_came_about_differs_last():
    lines = diff(PLAIN, replace(PLAIN, name="other", decoding=replace(PLAIN.decoding, max_tokens=7)))
    assert [line for line in lines if line.endswith(":")] == ["decoding.max_tokens:", "name:"]


def folder(path, shaken, chat=True):
    tokenizer = learn("char", ["the cat sat on the mat. 猫坐在垫子上。你好答：是 no Is it a cat?"]).extended(
        ("<s>",), bos="<s>"
    )
    tokenizer = with_template(tokenizer)[0] if chat else tokenizer
    shape = dict(dim=16, layers=1, heads=2, context=512)
    config = ModelConfig("llama", **shape, vocab=tokenizer.vocab, eos_id=tokenizer.eos_id)
    save(shaken(build(config, 0)), tokenizer, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, shaken):
    return folder(tmp_path_factory.mktemp("artifact") / "run", shaken)


def test_an_export_is_read_as_what_is_rendered(run):
    """Any client's server applies the folder's own chat template, here by Transformers."""
    backend, theirs = FolderBackend(run), AutoTokenizer.from_pretrained(run)
    chat = replace(WHOLE, template=as_chat(WHOLE.template))
    sent = json.loads(json.dumps(export(chat, ASKED, "cat").body, ensure_ascii=False))
    ids = theirs.apply_chat_template(sent["messages"], add_generation_prompt=True, return_dict=False)
    assert tuple(ids) == render(chat.prompt(ASKED), backend).ids and ids.count(theirs.bos_token_id) == 1
    text = export(WHOLE, ASKED, "cat").body["prompt"]
    assert render(WHOLE.prompt(ASKED), backend).ids == (
        theirs.bos_token_id,
        *theirs.encode(text, add_special_tokens=False),
    )


@pytest.mark.parametrize("change", [lambda template: template, as_chat], ids=["text", "chat"])
def test_a_plain_client_gets_the_backends_own_text(pair, here, change):
    artifact = replace(WHOLE, template=change(WHOLE.template), decoding=Decoding(max_tokens=9, temperature=0.9, seed=4))
    sent = export(artifact, ASKED, "cat")
    with Server(*pair) as server:
        request = urllib.request.Request(
            server.url + sent.path, json.dumps(sent.body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            choice = json.load(answer)["choices"][0]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    assert sent.body.get("stop", []) == list(artifact.stop) == list(artifact.template.stop)
    settings = replace(artifact.decoding, stop=artifact.stop).settings
    assert text == here.generate([artifact.prompt(ASKED)], settings)[0].text


def test_what_an_export_says_and_what_it_cannot():
    found = export(WHOLE, ASKED, "cat")
    assert found.path == "/completions" and {k: v for k, v in found.body.items() if k != "prompt"} == {
        "model": "cat", "max_tokens": 200, "temperature": 0.5, "top_p": 1.0, "seed": 0, "stop": ["\n"],
    }  # fmt: skip
    assert [said.split()[2] for said in found.unsaid] == ["self_consistency", "is"], "the strategy, and the score"
    schema = '{"type": "object"}'
    form = replace(
        PLAIN, strategy=write_strategy(Direct(Form("json_schema", schema))), template=as_chat(WHOLE.template)
    )
    body = export(form, ASKED, "cat").body
    assert body["response_format"]["json_schema"]["schema"] == json.loads(schema) and "seed" not in body
    form = replace(PLAIN, strategy=write_strategy(Direct(Form("choices"))), template=WHOLE.template)
    form = replace(form, decoding=Decoding(temperature=1.0, top_k=3))
    assert [s[:18] for s in export(form, ASKED, "cat").unsaid] == ["the answer's form ", "top_k is no field "]


def test_another_model_is_told(run, tmp_path, shaken):
    backend = FolderBackend(run)
    artifact = replace(WHOLE, model=ModelMark.of(backend))
    assert artifact.differs_from(backend) == [] and artifact.differs_from(FolderBackend(load(run), name="it")) == []
    other = FolderBackend(folder(tmp_path / "bare", shaken, chat=False))
    assert (
        len(artifact.differs_from(other)) == 3 and "the chat template is not that of" in artifact.differs_from(other)[2]
    )


def changed(body, **changes):
    return json.dumps({**body, **changes})


@pytest.mark.parametrize(
    "content, message",
    [
        (lambda body: "{", "is no JSON .*: mend it, or write the prompt anew"),
        (lambda body: "[]", "is no prompt of wenlu's"),
        (lambda body: changed(body, wenlu_prompt=2), "is of version 2, but this wenlu reads 1"),
        (lambda body: changed(body, tempalte={}), "p.json: unknown setting 'tempalte'. Did you mean 'template'"),
        (lambda body: changed(body, decoding={"temprature": 1}), "unknown setting 'decoding.temprature'. Did you mean"),
        (lambda body: changed(body, name="dogs"), "was changed since it was written"),
        (lambda body: changed(body, pool=[{"idd": "a"}]), r"unknown setting 'pool\[0\].idd'"),
        (lambda body: changed(body, pool={}), "pool must be a list"),
        (lambda body: changed(body, strategy={"kind": "x"}), "strategy.kind must be one of"),
        (lambda body: changed(body, demonstrations={"kind": "fixed", "ids": ["c"]}), "no example 'c' in the pool"),
    ],
)
def test_refused_when_read(tmp_path, content, message):
    file = tmp_path / "p.json"
    WHOLE.write(file)
    file.write_text(content(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_artifact(file)


def test_a_file_without_its_hash_is_read_and_told(tmp_path, capsys):
    WHOLE.write(tmp_path / "p.json")
    body = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    del body["sha256"]
    (tmp_path / "p.json").write_text(json.dumps(body | {"name": "dogs"}))
    assert read_artifact(tmp_path / "p.json").name == "dogs"
    assert "has no sha256: it may have been changed since its verdict" in capsys.readouterr().err


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: Decoding(temperature=-1), "temperature must be 0"),
        (lambda: read_artifact("/nowhere/p.json"), "cannot read /nowhere/p.json: No such file"),
        (lambda: Artifact(), "a prompt that is kept needs a name"),
        (lambda: Artifact("x", pool=WHOLE.pool), "a pool of examples without demonstrations"),
        (lambda: replace(WHOLE, pool=()), r"wants 2 demonstrations, but has no pool .*, each as \[\[pool\]\] with id"),
        (lambda: Artifact("x", demonstrations=Demonstrations("bm25", 1)), "wants 1 demonstration, but has no pool"),
        (lambda: Artifact("x", prior=WHOLE.prior), "a prior belongs to the score batch"),
        (lambda: Artifact("x", strategy={"kind": "direct", "a": 1}), "unknown setting 'strategy.a'"),
        (lambda: replace(WHOLE, strategy=write_strategy(ReasonThenConstrain()) | {"answer_tokens": 0}), "at least 1"),
    ],
)
def test_refused(act, message):
    with pytest.raises(UserError, match=message):
        act()
