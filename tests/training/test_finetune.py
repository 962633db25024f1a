"""Tuning keeps the loop's laws for every task, saves the best, and grows embeddings for new tokens."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import wenlu.training.loop as loop_module
from wenlu.base.errors import UserError
from wenlu.base.files import sha256_file
from wenlu.base.log import read_rows
from wenlu.cli.main import main
from wenlu.data.rows.config import RowsConfig
from wenlu.hub.folder import load, save
from wenlu.inference.generator import Generator
from wenlu.metrics.text import bleu, chrf
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.chat_format import ChatFormat
from wenlu.tokenization.learn import learn
from wenlu.training.finetune import finetune
from wenlu.training.judge import answers, judge
from wenlu.training.recipe import TrainingConfig, TuningConfig, TuningRecipe, read_recipe
from wenlu.training.run_folder import RunFolder
from wenlu.training.setup import deterministic
from wenlu.training.tuning import set_up_tuning
from wenlu.training.update import Updates

TEXT = "the stove burns in the house; 炉火在屋里。 a cold room is warm now, Ann and Bob of Paris say."
PURPOSES = {"qwen3": "text", "gpt2": "text", "bert": "bert", "t5": "t5"}
KINDS = {"chat": "qwen3", "pairs": "t5", "classify": "bert", "tag": "bert", "span": "bert"}
"""Task → a family for it."""


def talk(n: int) -> dict:
    messages = [
        ("user", f"what is {n}?"),
        ("assistant", f"{n % 7}, {n}"),
        ("user", "and?"),
        ("assistant", "炉" * (n % 3 + 1)),
    ]
    return {"messages": [{"role": role, "content": content} for role, content in messages[: 2 + 2 * (n % 3 == 1)]]}


def asked(n: int) -> dict:
    context = f"the stove {n} burns in the house of Ann " * (1 + n % 3)
    answer = {"text": str(n), "answer_start": 10}
    return {"paragraphs": [{"context": context, "qas": [{"id": f"q{n}", "question": "which?", "answers": [answer]}]}]}


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


EXAMPLES = {
    "chat": ("chat.jsonl", lambda some: lines(map(talk, some))),
    "pairs": ("pairs.tsv", lambda some: "".join(f"stove {n}\t{'Ofen ' * (n % 4 + 1)}{n}\n" for n in some)),
    "classify": (
        "classify.jsonl",
        lambda some: lines({"text": f"room {n} is " + "cold warm".split()[n % 2], "label": n % 2} for n in some),
    ),
    "tag": (
        "tag.jsonl",
        lambda some: lines(
            {"tokens": ["Ann", str(n), "of", "Paris"][: 1 + n % 4], "tags": ["B-P", "I-P", "O", "B-L"][: 1 + n % 4]}
            for n in some
        ),
    ),
    "span": ("span.json", lambda some: json.dumps({"data": list(map(asked, some))})),
}
"""Task → name and content of a file of examples with these numbers."""


def write_all(folder: Path, dropout: float = 0.0) -> Path:
    """A folder of models by family, and files of examples by task."""
    for family, purpose in PURPOSES.items():
        tokenizer = learn("bpe", [TEXT] * 5, 300, purpose)
        ids = {name: getattr(tokenizer, name) for name in ("bos_id", "eos_id", "pad_id")}
        shape = dict(dim=16, layers=2, heads=2, context=64, dropout=dropout)
        save(build(ModelConfig(family, **shape, vocab=tokenizer.vocab, **ids), 0), tokenizer, folder / family)
    for name, content in EXAMPLES.values():
        (folder / name).write_text(content(range(48)), encoding="utf-8")
    return folder


def recipe(models: Path, task: str, family: str = "", rows: dict | None = None, tuning: dict | None = None, **training):
    """A recipe of twelve steps for a task."""
    often = dict(steps=12, batch=4, eval_every=4, checkpoint_every=3, log_every=1, device="cpu", threads=1)
    settings = {"max_bad": 0.1, "max_truncated": 0.5, **(rows or {})}
    return TuningRecipe(
        training=TrainingConfig(**{**often, **training}),
        rows=RowsConfig((str(models / EXAMPLES[task][0]),), task, **settings),
        tuning=TuningConfig(str(models / (family or KINDS[task])), **{"epochs": 0.0, **(tuning or {})}),
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield write_all(tmp_path_factory.mktemp("models"), dropout=0.1)
    torch.set_num_threads(before)


CLOCK = ("seconds", "tokens_per_second")
CASES = [*KINDS.items(), ("pairs", "gpt2")]


class Killed(BaseException):
    """Stands for a kill within this process."""


def kill_after(monkeypatch, step: int) -> None:
    whole = loop_module.Loop._step

    def counted(self, watch):
        whole(self, watch)
        if self.progress.step == step:
            raise Killed

    monkeypatch.setattr(loop_module.Loop, "_step", counted)


def ending(run) -> dict:
    """All that two equal runs must share."""
    last = max((run / "wenlu/checkpoints").glob("step-*"))
    rows = read_rows(run / "wenlu/metrics.jsonl")
    judged = [row["scores"] for row in read_rows(run / "wenlu/events.jsonl") if row["event"] == "judged"]
    return {
        "root": sha256_file(run / "model.safetensors"),
        "checkpoint": (last.name, *(sha256_file(last / f"{part}.safetensors") for part in ("weights", "optimizer"))),
        "rows": [{key: value for key, value in row.items() if key not in CLOCK} for row in rows],
        "judged": judged,
    }


def setup_of(a_recipe, out):
    folder = RunFolder(out)
    folder.create(a_recipe)
    return set_up_tuning(a_recipe, folder, 0.0)


@pytest.mark.parametrize(("task", "family"), CASES)
def test_killed_twice_and_resumed_is_the_same(models, tmp_path, monkeypatch, task, family):
    finetune(recipe(models, task, family), tmp_path / "whole")
    for step, resume in ((2, False), (7, True)):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, step)
            finetune(None if resume else recipe(models, task, family), tmp_path / "cut", resume=resume)
    assert main(["finetune", "--resume", "--out", str(tmp_path / "cut")]) == 0
    assert ending(tmp_path / "cut") == ending(tmp_path / "whole")
    assert len(ending(tmp_path / "whole")["judged"]) == 1


@pytest.mark.parametrize(("task", "family"), CASES)
def test_accumulated_gradients_are_those_of_the_batch(models, tmp_path, task, family):
    found = []
    for micro in (0, 1, 3):
        base = recipe(models, task, family, micro_batch=micro, batch=7, tuning={"dropout": 0.0})
        setup = setup_of(base, tmp_path / str(micro))
        updates = Updates(setup.recipe, setup.model.double(), setup.material, setup.objective, setup.device, False)
        gradients = updates.gradients(1)
        found.append((gradients.loss, gradients.count, [weight.grad for weight in setup.model.parameters()]))
    for loss, count, grads in found[1:]:
        assert count == found[0][1] and loss == pytest.approx(found[0][0], rel=1e-6)
        for one, other in zip(grads, found[0][2], strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_packed_conversations_are_as_if_alone(models, tmp_path, family):
    setup = setup_of(recipe(models, "chat", family, tuning={"dropout": 0.0}), tmp_path / "run")
    model, material = setup.model.double(), setup.material
    packs = material.order.packs(0)
    samples = np.array(sorted(range(len(packs)), key=lambda n: len(packs[n]))[-4:])
    batch = material.batch(samples, np.zeros_like(samples))
    assert batch["segments"].max() > 0
    rows = np.concatenate([packs[n] for n in samples])
    found = []
    for parts in ([batch], [material._of(material.rows.train, rows[n : n + 1]) for n in range(len(rows))]):
        model.zero_grad()
        total, targets = 0.0, 0
        for part in parts:
            loss, count = setup.objective.loss(model, {k: torch.from_numpy(v) for k, v in part.items()})
            loss.backward()
            total, targets = total + float(loss.detach()), targets + int(count)
        found.append((total, targets, [p.grad.clone() for p in model.parameters()]))
    assert found[0][1] == found[1][1] and found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for one, other in zip(found[0][2], found[1][2], strict=True):
        torch.testing.assert_close(one / found[0][1], other / found[0][1], atol=1e-6, rtol=1e-5)


def test_what_is_saved_is_the_best_by_held_out_loss(models, tmp_path):
    hot = recipe(models, "classify", steps=24, eval_every=2, tuning={"dropout": 0.0})
    hot = dataclasses.replace(hot, optimizer=dataclasses.replace(hot.optimizer, lr=0.05))
    outcome, scores = finetune(hot, tmp_path / "run")
    losses = [row["held_out"] for row in read_rows(tmp_path / "run/wenlu/metrics.jsonl") if "held_out" in row]
    assert outcome.held_out == min(losses) and scores["loss"].value == pytest.approx(min(losses), rel=1e-5)
    again = judge(tmp_path / "run")
    assert again == scores and 0 <= scores["accuracy"].value <= 1
    assert scores["accuracy"].interval.low <= scores["accuracy"].value <= scores["accuracy"].interval.high


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("chat", {"loss", "accuracy"}),
        ("tag", {"loss", "accuracy", "entity_f1", "entity_precision", "entity_recall"}),
        ("span", {"loss", "exact_match", "f1"}),
        ("pairs", {"loss", "accuracy", "bleu", "chrf"}),
    ],
)
def test_scores_by_task(models, tmp_path, task, names):
    _, scores = finetune(recipe(models, task, steps=2), tmp_path / "run")
    assert set(scores) == names
    page = (tmp_path / "run/wenlu/report.html").read_text()
    assert "judged" in page
    if task == "tag":
        figures = [row for row in read_rows(tmp_path / "run/wenlu/metrics.jsonl") if "held_out" in row][-1]
        assert figures["entity_f1"] == pytest.approx(scores["entity_f1"].value)


@pytest.mark.parametrize("task", ["chat", "pairs", "classify", "tag", "span"])
def test_examples_of_its_own_are_scored_as_when_the_run_ended(models, tmp_path, task, capsys):
    """What was held out, read again from a file by wenlu eval."""
    name, written = EXAMPLES[task]
    (tmp_path / name).write_text(written(range(201, 204 if task == "tag" else 213)))
    _, scores = finetune(
        recipe(models, task, steps=2, rows={"validation_paths": (str(tmp_path / name),)}), tmp_path / "run"
    )
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--examples", str(tmp_path / name), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == {name: score.as_dict() for name, score in scores.items()}
    assert main(["eval", str(tmp_path / "run"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert all(name.replace("_", " ") in said for name in scores) and ("nrefs:1|" in said) == (task == "pairs")


def test_every_example_of_a_test_counts(models, tmp_path, capsys):
    finetune(recipe(models, "classify", steps=1), tmp_path / "run")
    rows = [{"text": "cold", "label": 0}] * 3 + [{"text": "warm", "label": 7}]
    (tmp_path / "test.jsonl").write_text(lines(rows))
    with pytest.raises(UserError, match=r"1 of 4 records are bad.*a label that no training example has"):
        judge(tmp_path / "run", [str(tmp_path / "test.jsonl")])
    (tmp_path / "test.jsonl").write_text(lines(rows[:3]))
    capsys.readouterr()
    judge(tmp_path / "run", [str(tmp_path / "test.jsonl")])
    assert "examples: 3 rows of 3 records" in capsys.readouterr().err


def test_what_has_no_task_is_not_scored(models, tmp_path, capsys):
    finetune(recipe(models, "tag", steps=1, rows={"validation": 0.0}), tmp_path / "run")
    examples = str(models / EXAMPLES["tag"][0])
    for line, message in [
        ([str(models / "qwen3"), "--examples", examples], "is no run of wenlu finetune, so it has no task"),
        ([str(tmp_path / "run")], "which examples? "),
        ([str(tmp_path / "run"), "--examples", examples, "--context", "32"], "context has no effect on the scores"),
        ([str(tmp_path / "run"), "--examples", examples, "--beams", "0"], "beams must be at least 1, not 0"),
        ([str(models / "qwen3"), examples, "--beams", "2"], "beams are for the answers of a run tuned on pairs"),
    ]:
        assert main(["eval", *line, "--device", "cpu"]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="holds no run"):
        judge(models / "qwen3", [examples])


@pytest.mark.parametrize("family", ["t5", "qwen3"])
def test_answers_side_by_side_are_those_alone(models, tmp_path, family):
    finetune(recipe(models, "pairs", family, steps=3), tmp_path / "run")
    model, tokenizer = load(tmp_path / "run")
    sources = ["stove 1", "stove 22", "the room, stove 3", "stove 4"]
    for beams in (1, 3):
        assert answers(model, tokenizer, sources, beams) == [
            answers(model, tokenizer, [source], beams)[0] for source in sources
        ]


@pytest.mark.parametrize("family", ["t5", "qwen3"])
def test_bleu_is_of_what_is_written(models, tmp_path, family):
    """Sources with the run's prefix, answered by as many beams; targets as they stand in the file."""
    finetune(recipe(models, "pairs", family, steps=3, rows={"prefix": "say: "}), tmp_path / "run")
    model, tokenizer = load(tmp_path / "run")
    sources, targets = ["stove 1", "the room 2", "Ofen"], ["Ofen Ofen 1", "room 2", "stove"]
    (tmp_path / "test.tsv").write_text("".join(map("{}\t{}\n".format, sources, targets)))
    written = answers(model, tokenizer, [f"say: {source}" for source in sources], 2)
    scores = judge(tmp_path / "run", [str(tmp_path / "test.tsv")], beams=2)
    assert (scores["bleu"], scores["chrf"]) == (bleu(written, targets), chrf(written, targets))
    two = judge(tmp_path / "run", [str(tmp_path / "test.tsv")], beams=2, limit=2)
    assert two["chrf"] == chrf(written[::2], targets[::2]) and two["loss"] == scores["loss"]


def test_new_tokens_grow_the_embedding(models, tmp_path, capsys):
    setup = setup_of(recipe(models, "chat"), tmp_path / "run")
    before, _ = load(models / "qwen3")
    said = capsys.readouterr().err
    assert "2 new tokens (<|im_start|>, <|im_end|>): the embedding grows from 300 to 302 rows" in said
    rows = setup.model.embed.weight
    torch.testing.assert_close(rows[:300], before.embed.weight)
    torch.testing.assert_close(rows[300], before.embed.weight.mean(0))
    assert setup.model.config.eos_id == 301 and setup.model.config.other_eos_ids == (0,)
    talking = setup_of(recipe(models, "pairs", "gpt2"), tmp_path / "other")
    assert talking.model.config.vocab == 302


def test_a_tuned_run_opens_in_transformers(models, tmp_path):
    import warnings

    finetune(recipe(models, "chat", steps=3), tmp_path / "chat")
    finetune(recipe(models, "classify", steps=3), tmp_path / "classify")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

        peer, reader = (kind.from_pretrained(tmp_path / "chat") for kind in (AutoModelForCausalLM, AutoTokenizer))
        judge_ = AutoModelForSequenceClassification.from_pretrained(tmp_path / "classify")
    model, tokenizer = load(tmp_path / "chat")
    messages = talk(5)["messages"]
    ids = ChatFormat(tokenizer).encode(messages).ids
    assert reader.apply_chat_template(messages, return_dict=False) == ids
    ids = torch.tensor([ids])
    with torch.no_grad():
        torch.testing.assert_close(peer(ids).logits, model(ids), atol=1e-4, rtol=0)
        ours, _ = load(tmp_path / "classify")
        ids = torch.tensor([[1, 20, 30, 2]])
        torch.testing.assert_close(judge_(ids).logits, ours(ids), atol=1e-4, rtol=0)
    assert judge_.config.id2label == {0: "0", 1: "1"}


def test_epochs_learning_rate_and_evaluations_follow_from_the_rows(models, tmp_path):
    base = recipe(models, "pairs", tuning={"epochs": 2.0}, steps=TrainingConfig.steps, eval_every=100)
    finetune(base, tmp_path / "run")
    settled = RunFolder(tmp_path / "run").recipe()
    rows = json.loads((tmp_path / "run/wenlu/data/rows.json").read_text())["counts"]["train"]["rows"]
    batches = -(-rows // 4)
    assert settled.training.steps == 2 * batches and settled.training.eval_every == -(-2 * batches // 10)
    assert settled.optimizer.lr == 2e-3 and settled.model.family == "t5"


def test_a_given_length_in_time(models, tmp_path, monkeypatch):
    import wenlu.training.tuning as tuning_module

    monkeypatch.setattr(tuning_module, "REPORT_SECONDS", 0.0)
    timed = recipe(models, "classify", steps=1000, minutes=0.1, eval_every=100, tuning={"epochs": 3.0})
    outcome, _ = finetune(timed, tmp_path / "run")
    plan = next(row for row in read_rows(tmp_path / "run/wenlu/events.jsonl") if row["event"] == "plan")
    assert plan["minutes"] == 0.1 and 0 < plan["steps"] * plan["step_seconds"] <= 6
    assert 1 < outcome.seconds <= 6
    assert "Planned and actual" in (tmp_path / "run/wenlu/report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(task="classify", family="qwen3"), "holds a qwen3, which cannot be tuned for classify: that is for bert"),
        (dict(task="chat", family="t5"), "holds a t5, which cannot be tuned for chat"),
        (dict(task="chat", compile="on"), "rows differ in length"),
        (dict(task="chat", start="bigrams"), "begins with its own weights"),
        (dict(task="classify", rows={"context": 100}), r"rows.context \(100\) exceeds the positions"),
        (dict(task="chat", rows={"context": 4}), "too short"),
        (dict(task="chat", rows={"validation": 0.0}, patience=2), "nothing is held out"),
        (dict(task="chat", tuning={"model": ""}), "which model is to be tuned"),
        (dict(task="chat", tuning={"hash": "0" * 16}), "are not those that the run began with"),
    ],
)
def test_refusals_leave_nothing_behind(models, tmp_path, change, message):
    tuning = change.pop("tuning", {})
    base = recipe(models, **change)
    base = dataclasses.replace(base, tuning=dataclasses.replace(base.tuning, **tuning))
    with pytest.raises(UserError, match=message):
        finetune(base, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_weights_on_resume_before_a_checkpoint(models, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(models / "bert", tmp_path / "bert")
    base = recipe(models, "tag")
    base = dataclasses.replace(base, tuning=dataclasses.replace(base.tuning, model=str(tmp_path / "bert")))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 1)
        finetune(base, tmp_path / "run")
    (tmp_path / "bert/model.safetensors").unlink()
    shutil.copy(models / "bert/model.safetensors", tmp_path / "bert/model.safetensors")
    other, tokenizer = load(models / "bert")
    other.embed.weight.data += 1
    save(other, tokenizer, tmp_path / "bert")
    with pytest.raises(UserError, match="are not those that the run began with"):
        finetune(None, tmp_path / "run", resume=True)


def test_a_tuned_model_can_be_tuned_on(models, tmp_path):
    finetune(recipe(models, "classify", steps=2), tmp_path / "one")
    more = recipe(models, "classify", steps=2)
    more = dataclasses.replace(more, tuning=dataclasses.replace(more.tuning, model=str(tmp_path / "one")))
    finetune(more, tmp_path / "two")
    chat = recipe(models, "chat", steps=2)
    finetune(chat, tmp_path / "chat")
    more = dataclasses.replace(chat, tuning=dataclasses.replace(chat.tuning, model=str(tmp_path / "chat")))
    setup = setup_of(more, tmp_path / "again")
    assert setup.model.config.vocab == 302


def test_the_commands(models, tmp_path, capsys):
    out = str(tmp_path / "run")
    files = [str(models / EXAMPLES["chat"][0])]
    (tmp_path / "held.jsonl").write_text(lines(map(talk, range(100, 104))))
    flags = ["--task", "chat", "--steps", "2", "--show", "1", "--held-out", str(tmp_path / "held.jsonl"), "--json"]
    assert main(["finetune", str(models / "qwen3"), *files, "--out", out, *flags, "--device", "cpu"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["step"] == 2 and found["scores"]["loss"]["low"] < found["scores"]["loss"]["value"]
    assert "⟦0, 0<|im_end|>⟧" in said.err and "held out: 4 rows of 4 records (4 messages)" in said.err
    assert main(["finetune", "--resume", "--out", out]) == 0
    assert "held out, loss" in capsys.readouterr().out
    assert main(["train", "--resume", "--out", out]) == 2
    assert "is for wenlu finetune: use that command" in capsys.readouterr().err
    assert main(["finetune", str(models / "qwen3"), *files]) == 2
    assert "where to?" in capsys.readouterr().err
    (tmp_path / "a.toml").write_text("[training]\nsteps = 3\n")
    assert main(["finetune", str(tmp_path / "a.toml"), "--out", out]) == 2
    assert "is for wenlu train: use that command" in capsys.readouterr().err


def test_a_recipe_in_a_file(models, tmp_path, capsys):
    name = EXAMPLES["tag"][0]
    rows = f'[rows]\ntask = "tag"\npaths = ["{models / name}"]\n'
    (models / "tag.toml").write_text(f'[tuning]\nmodel = "bert"\nepochs = 1.0\n{rows}[training]\nbatch = 16\n')
    assert main(["finetune", str(models / "tag.toml"), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert "entity f1" in capsys.readouterr().out
    settled = RunFolder(tmp_path / "run").recipe()
    assert settled.training.steps == 3 and settled.tuning.model == str(models / "bert")
    assert main(["train", str(models / "tag.toml"), "--out", str(tmp_path / "other")]) == 2
    assert "is for wenlu finetune: use that command" in capsys.readouterr().err


def test_a_talk_is_had_by_the_template(models, tmp_path, capsys):
    """--chat reads the prompt as Transformers' apply_chat_template does, and is answered."""
    finetune(recipe(models, "chat", steps=2), tmp_path / "run")
    model, tokenizer = load(tmp_path / "run")
    peer = AutoTokenizer.from_pretrained(tmp_path / "run")
    wanted = peer.apply_chat_template([{"role": "user", "content": "who?"}], add_generation_prompt=True)["input_ids"]
    assert Generator(model, tokenizer, chat=True).prompt_ids("who?") == wanted
    line = ["generate", str(tmp_path / "run"), "--prompt", "who?", "--max-tokens", "3", "--device", "cpu"]
    capsys.readouterr()
    assert main([*line, "--chat", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["prompt_tokens"] == len(wanted) and "chat template" not in said.err
    assert main(line) == 0
    assert "has a chat template; add --chat" in " ".join(capsys.readouterr().err.split())
    for name, message in (
        ("qwen3", "has no chat template: leave chat out"),
        ("t5", "answers every prompt as it stands"),
    ):
        with pytest.raises(UserError, match=message):
            Generator(*load(models / name), chat=True)
    with pytest.raises(UserError, match="make the Generator with chat=True"):
        Generator(model, tokenizer).answer(["who?"])


def test_epochs_are_said_as_they_are(models, tmp_path, capsys):
    """Of packed rows too, whose last batch is smaller."""
    wanted = recipe(models, "chat", tuning={"epochs": 2.0})
    finetune(dataclasses.replace(wanted, training=dataclasses.replace(wanted.training, steps=1000)), tmp_path / "run")
    assert "(2.0 epochs)" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "task"), [("chat", "chat"), ("translation", "pairs")])
def test_shipped_recipes_tune(models, tmp_path, name, task):
    """A step of each; one that reads whole text first is named in their comments."""
    wanted = read_recipe(Path(__file__).parents[2] / "recipes" / f"{name}.toml")
    assert wanted.rows.task == task
    rows = dataclasses.replace(wanted.rows, paths=(str(models / EXAMPLES[task][0]),), max_bad=0.2)
    tuning = dataclasses.replace(wanted.tuning, model=str(models / KINDS[task]), epochs=0.0)
    training = dataclasses.replace(wanted.training, steps=1, batch=2, device="cpu")
    outcome, scores = finetune(
        dataclasses.replace(wanted, rows=rows, tuning=tuning, training=training), tmp_path / "run"
    )
    assert outcome.step == 1 and scores["loss"].value > 0


def test_killed_between_the_decision_and_the_recipe(models, tmp_path, monkeypatch):
    finetune(recipe(models, "tag"), tmp_path / "whole")
    write, calls = RunFolder.write_recipe, []

    def killed(self, given):
        calls.append(given)
        if len(calls) == 2:
            raise Killed
        write(self, given)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunFolder, "write_recipe", killed)
        patch.setattr(RunFolder, "take_back", lambda self: None)
        finetune(recipe(models, "tag"), tmp_path / "cut")
    finetune(None, tmp_path / "cut", resume=True)
    assert ending(tmp_path / "cut") == ending(tmp_path / "whole")
    assert RunFolder(tmp_path / "cut").recipe() == RunFolder(tmp_path / "whole").recipe()


def test_deterministic_mode_is_restored(models, tmp_path):
    before = torch.get_deterministic_debug_mode()
    with deterministic():
        pass
    finetune(recipe(models, "span", steps=1), tmp_path / "run")
    assert torch.get_deterministic_debug_mode() == before


def test_a_row_that_is_cut_says_nothing_of_the_end(models, tmp_path):
    """The token that ends an answer is the template's, whatever the first row ends with."""
    long = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "stove " * 90}]}
    (tmp_path / "chat.jsonl").write_text(lines([long, *map(talk, range(12))]))
    base = recipe(models, "chat", rows={"validation": 0.0, "context": 32, "max_truncated": 1.0}, steps=1)
    base = dataclasses.replace(base, rows=dataclasses.replace(base.rows, paths=(str(tmp_path / "chat.jsonl"),)))
    finetune(base, tmp_path / "run")
    model, tokenizer = load(tmp_path / "run")
    ends = [model.config.eos_id, *model.config.other_eos_ids]
    assert [tokenizer.decode([id], skip_special=False) for id in ends] == ["<|im_end|>", "<|endoftext|>"]


def test_line_separators_in_a_text(models, tmp_path):
    """U+2028 ends no line of JSON."""
    asked_of = [asked(n) for n in range(12)]
    for each in asked_of:
        each["paragraphs"][0]["context"] += "\u2028\x85 and more"
    (tmp_path / "span.json").write_text(json.dumps({"data": asked_of}))
    base = recipe(models, "span", steps=1)
    base = dataclasses.replace(base, rows=dataclasses.replace(base.rows, paths=(str(tmp_path / "span.json"),)))
    _, scores = finetune(base, tmp_path / "run")
    assert set(scores) == {"loss", "exact_match", "f1"}


@pytest.mark.parametrize(
    ("tuning", "training"),
    [
        ("epochs = 2.0", "steps = 2"),
        ("epochs = 2.0", "minutes = 0.1"),
        ("", "steps = 2\nminutes = 0.1"),
    ],
)
def test_two_lengths_are_refused(models, tmp_path, tuning, training, capsys):
    rows = f'[rows]\ntask = "tag"\npaths = ["{models / "tag.jsonl"}"]\n'
    file = tmp_path / "tag.toml"
    file.write_text(f'[tuning]\nmodel = "{models / "bert"}"\n{tuning}\n{rows}[training]\n{training}\n')
    assert main(["finetune", str(file), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert "say how long the run is: leave one of them" in capsys.readouterr().err


@pytest.mark.parametrize("steps", [2, TrainingConfig.steps])
def test_steps_in_a_recipe_are_kept(models, tmp_path, steps, monkeypatch):
    rows = f'[rows]\ntask = "tag"\npaths = ["{models / "tag.jsonl"}"]\n'
    (tmp_path / "tag.toml").write_text(
        f'[tuning]\nmodel = "{models / "bert"}"\n{rows}[training]\nsteps = {steps}\nbatch = 4\ndevice = "cpu"\n'
    )
    folder = RunFolder(tmp_path / "run")
    base = read_recipe(tmp_path / "tag.toml")
    folder.create(base)
    with deterministic():
        assert set_up_tuning(base, folder, 0.0).recipe.training.steps == steps


def test_the_rates_of_other_optimisers_are_theirs(models, tmp_path):
    base = recipe(models, "tag", steps=1)
    base = dataclasses.replace(base, optimizer=dataclasses.replace(base.optimizer, name="sgd"))
    finetune(base, tmp_path / "run")
    assert RunFolder(tmp_path / "run").recipe().optimizer.lr == 0.0


def test_the_begun_command_resumes(models, tmp_path):
    begun = ["finetune", str(models / "bert"), str(models / "tag.jsonl"), "--out", str(tmp_path / "run")]
    begun += ["--task", "tag", "--steps", "1", "--device", "cpu"]
    assert main(begun) == 0 and main([*begun, "--resume"]) == 0


def test_classes_of_a_recipe_are_named_by_their_labels(models, tmp_path):
    for name in ("warm", "cold"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} room {n}\n" for n in range(20)))
    rows = '[rows]\ntask = "classify"\npaths = ["good=warm.txt", "bad=cold.txt"]\n'
    (tmp_path / "a.toml").write_text(f'[tuning]\nmodel = "{models / "bert"}"\n{rows}[training]\nsteps = 1\n')
    assert main(["finetune", str(tmp_path / "a.toml"), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert load(tmp_path / "run")[0].config.labels == ("bad", "good")


def test_several_processes_are_refused(models, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="training on several processes is not built yet"):
        finetune(recipe(models, "tag"), tmp_path / "run")


def test_new_tokens_in_rows_to_spare_are_said(models, tmp_path, capsys):
    model, tokenizer = load(models / "qwen3")
    config = dataclasses.replace(model.config, vocab=tokenizer.vocab + 20)
    save(build(config, 0), tokenizer, tmp_path / "padded")
    base = recipe(models, "chat", steps=1)
    base = dataclasses.replace(base, tuning=dataclasses.replace(base.tuning, model=str(tmp_path / "padded")))
    finetune(base, tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert "2 new tokens (<|im_start|>, <|im_end|>): in rows that the embedding has to spare" in said
    assert load(tmp_path / "run")[0].config.vocab == config.vocab


def test_few_steps_are_said(models, tmp_path, capsys):
    few = recipe(models, "chat", tuning={"epochs": 1.0}, steps=TrainingConfig.steps, eval_every=100, batch=16)
    finetune(few, tmp_path / "run")
    assert "steps teach little: give more --epochs" in " ".join(capsys.readouterr().err.split())


def test_longer_rows_than_before_are_what_the_model_was_trained_on(models, tmp_path):
    """So that generate does not warn of them; a gpt2 has no more positions than it has."""
    long = recipe(models, "chat", steps=1, rows={"context": 80})
    finetune(long, tmp_path / "run")
    assert load(tmp_path / "run")[0].config.context == 80
    with pytest.raises(UserError, match="exceeds the positions that the model has, 64"):
        finetune(recipe(models, "chat", "gpt2", steps=1, rows={"context": 80}), tmp_path / "other")
