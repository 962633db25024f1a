"""Conversations: what the model sees, what is left out, what is kept, and the commands of the terminal."""

import io
import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.cli.chat import Chat, main, quoted
from wenlu.hub.folder import load, save
from wenlu.inference.conversation import Conversation
from wenlu.inference.generator import Settings
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.chat_format import ChatFormat, with_template
from wenlu.tokenization.learn import learn

LONG = "the cat sat on the mat. the cat sat on the mat. the cat sat "
"""Leaves room for a brief answer, not for one of half the context."""
BRIEF = Settings(max_tokens=8, temperature=0.9, alternatives=3)
WITH_BOS = "{{- bos_token }}{%- for m in messages %}{{- m['role'] + ': ' + m['content'] + eos_token }}{%- endfor %}"


def folder_with(path, shaken, template="", family="llama", **roles):
    tokenizer = learn("char", ["the cat sat on the mat. 猫坐在垫子上。你好"])
    if template is not None:
        own = template and tokenizer.extended(("<s>",), chat_template=template, **roles)
        tokenizer = own or with_template(tokenizer)[0]
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": 0 if family == "t5" else None}
    config = ModelConfig(family, dim=16, layers=1, heads=2, context=128, vocab=tokenizer.vocab, **ids)
    save(shaken(build(config, 0)), tokenizer, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, shaken):
    return folder_with(tmp_path_factory.mktemp("chat") / "run", shaken)


@pytest.fixture
def conversation(run):
    return Conversation(*load(run))


def spoken(*roles):
    """A file of messages by these, one after the other."""
    return json.dumps({"messages": [{"role": role, "content": "the cat"} for role in roles]})


def seen(conversation, monkeypatch):
    """The ids of every prompt from now on."""
    prompts, stream = [], conversation._generator.stream
    monkeypatch.setattr(
        conversation._generator, "stream", lambda ids, settings: prompts.append(ids) or stream(ids, settings)
    )
    return prompts


@pytest.mark.parametrize("text", ["the cat", "你好。"])
def test_the_model_sees_all_that_was_said(conversation, monkeypatch, text):
    prompts = seen(conversation, monkeypatch)
    conversation.system("on")
    first = conversation.ask(text, BRIEF)
    assert "".join(first) == first.result.text and first.dropped == 0
    messages = [{"role": "system", "content": "on"}, {"role": "user", "content": text}]
    assert prompts[0] == ChatFormat(load_tokenizer(conversation)).prompt(messages)
    messages.append({"role": "assistant", "content": first.result.text})
    assert conversation.messages == messages
    second = conversation.ask("the mat", BRIEF)
    assert prompts[1] == ChatFormat(load_tokenizer(conversation)).prompt([*messages, second_turn := {
        "role": "user", "content": "the mat"}])  # fmt: skip
    assert second.result.finish in ("length", "eos") and conversation.messages[-2] == second_turn


def load_tokenizer(conversation):
    return conversation._format.tokenizer


def test_the_same_answer_again_and_another_with_another_seed(conversation):
    first = conversation.ask("the cat", BRIEF).result
    assert conversation.again(BRIEF).result.text == first.text
    other = conversation.again(Settings(max_tokens=8, temperature=0.9, seed=1)).result
    assert other.text != first.text and len(conversation.messages) == 2
    assert conversation.messages[-1]["content"] == other.text


def test_an_answer_that_cannot_be_given_again_stays(conversation):
    first = conversation.ask(LONG, BRIEF).result
    before = list(conversation.messages)
    with pytest.raises(UserError, match=r"this message and the template take .* or set max_tokens lower"):
        conversation.again(Settings(max_tokens=200))
    assert conversation.messages == before
    with torch.no_grad():
        conversation._generator._model.embed.weight.fill_(float("nan"))
    for read in (list, lambda answer: answer.result):
        with pytest.raises(UserError, match="logits are not finite"):
            read(conversation.again(BRIEF))
        assert conversation.messages == before and before[-1]["content"] == first.text


def test_a_seed_that_gave_no_answer_is_tried_again(run, monkeypatch, capsys, kernel_cache, tmp_path):
    lines = [LONG, f"/save {tmp_path}/a", "/set max_tokens 200", "/regenerate", f"/save {tmp_path}/b"]
    rows, said = chat(monkeypatch, capsys, run, [*lines, "/set max_tokens 8", "/regenerate"], "--json")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert "this message and the template take" in said and len(rows) == 2
    assert said.count("with seed") == 1 and "with seed 1" in said


def test_the_oldest_turns_are_left_out_never_the_system_message(conversation, monkeypatch):
    prompts = seen(conversation, monkeypatch)
    conversation.system("sat")
    dropped = [len(list(a)) * 0 + a.dropped for a in (conversation.ask("the cat", BRIEF) for _ in range(5))]
    assert dropped[0] == 0 < dropped[-1] and dropped == sorted(dropped)
    assert all(len(ids) <= 128 - 8 for ids in prompts)
    text = load_tokenizer(conversation).decode(prompts[-1], skip_special=False)
    assert "system\nsat" in text and text.count("user\nthe cat") == 5 - dropped[-1]
    assert len(conversation.messages) == 11, "they are kept, only not seen"


def test_a_message_without_room_is_refused_and_not_kept(conversation):
    with pytest.raises(UserError, match=r"this message and the template take .* tokens, but the model reads 128"):
        conversation.ask("the cat sat " * 20, BRIEF)
    assert conversation.messages == []
    assert conversation.ask("the cat", BRIEF).result.text is not None


def test_exactly_one_beginning(tmp_path, shaken, monkeypatch):
    folder = folder_with(tmp_path / "run", shaken, WITH_BOS, bos="<s>")
    conversation = Conversation(*load(folder))
    prompts, bos = seen(conversation, monkeypatch), load_tokenizer(conversation).bos_id
    conversation.ask("the cat <s>", BRIEF)
    assert prompts[0].count(bos) == 1 and prompts[0][0] == bos, "one that is typed is text"


def test_a_stopped_answer_is_kept_as_far_as_it_came(conversation):
    answer = conversation.ask("the cat", Settings(max_tokens=50, temperature=0.9))
    pieces = iter(answer)
    next(pieces)
    answer.stop()
    assert answer.result.finish == "cancelled" and len(answer.result.ids) < 50
    assert conversation.messages[-1] == {"role": "assistant", "content": answer.result.text}


def test_saved_and_gone_on_with(conversation, tmp_path, run):
    conversation.system("on the mat. 垫子")
    conversation.ask("猫", BRIEF)
    _ = [list(conversation.again(BRIEF))]
    conversation.save(tmp_path / "chat.json")
    other = Conversation(*load(run))
    other.load(tmp_path / "chat.json")
    assert other.messages == conversation.messages and len(other.messages) == 3


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is no saved conversation"),
        ("[]", "must hold messages, each with role and content"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "must hold messages, each with role and content"),
        ('{"messages": [{"role": "user"}]}', "must hold messages, each with role and content"),
        (spoken("user", "assistant", "system"), "holds a system message after its beginning: put it first, or remove"),
        (spoken("system", "user", "system"), "holds a system message after its beginning"),
        (spoken("assistant", "user"), "begins with an answer, which nobody would see: put what was asked before it"),
        (spoken("system", "assistant", "user"), "begins with an answer"),
    ],
)
def test_other_files_are_refused(conversation, tmp_path, content, message):
    conversation.ask("the cat", BRIEF)
    before = list(conversation.messages)
    (tmp_path / "file").write_text(content)
    with pytest.raises(UserError, match=message):
        conversation.load(tmp_path / "file")
    with pytest.raises(UserError, match="it is not overwritten: name another file"):
        conversation.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == content
    with pytest.raises(UserError, match=r"cannot read .*absent"):
        conversation.load(tmp_path / "absent")
    assert conversation.messages == before


@pytest.mark.parametrize("roles", [(), ("system",), ("user",), ("user", "user"), ("system", "user", "assistant")])
def test_what_is_loaded_is_seen_as_a_whole(conversation, tmp_path, monkeypatch, roles):
    (tmp_path / "file").write_text(spoken(*roles))
    conversation.load(tmp_path / "file")
    assert [message["role"] for message in conversation.messages] == list(roles)
    prompts = seen(conversation, monkeypatch)
    conversation.ask("sat", BRIEF)
    wanted = [*conversation.messages[: len(roles)], {"role": "user", "content": "sat"}]
    assert prompts == [ChatFormat(load_tokenizer(conversation)).prompt(wanted)]


@pytest.mark.parametrize(
    "family, template, message",
    [("llama", None, "the model's folder has no chat template: leave chat out, or tune"),
     ("t5", "", "a t5 answers every prompt as it stands"),
     ("bert", "", "a bert reads both ways and cannot write on")],
)  # fmt: skip
def test_models_that_cannot_chat(tmp_path, shaken, family, template, message):
    folder = folder_with(tmp_path / "run", shaken, template, family)
    with pytest.raises(UserError, match=message):
        Conversation(*load(folder))


def chat(monkeypatch, capsys, run, lines, *flags):
    """What a scripted chat prints: rows of JSON, and what is said besides."""
    typed = iter(lines)

    def read(_=""):
        try:
            line = next(typed)
        except StopIteration:
            raise EOFError from None
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line

    monkeypatch.setattr("builtins.input", read)
    assert main([str(run), "--max-tokens", "8", "--device", "cpu", *flags]) == 0
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()] if "--json" in flags else said.out
    return rows, " ".join(said.err.split())


def test_answers_as_json_and_as_text_are_the_same(run, monkeypatch, capsys, kernel_cache):
    rows, _ = chat(monkeypatch, capsys, run, ["the cat", "", "你好", "/quit", "never"], "--json", "--seed", "4")
    assert [set(row) for row in rows] == [
        {"text", "finish", "tokens", "beyond_context", "near_ties", "dropped_turns"}
    ] * 2  # fmt: skip
    text, _ = chat(monkeypatch, capsys, run, ["the cat", "你好"], "--seed", "4")
    assert text == "".join(row["text"] + "\n" for row in rows)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_leaving_the_trained_context_is_said(run, monkeypatch, capsys, kernel_cache, flags):
    rows, said = chat(monkeypatch, capsys, run, ["the cat", "/set max_tokens 200", "/regenerate"], *flags)
    note = "note: question and answer are longer than the 128 tokens that the model was trained on"
    assert said.count(note) == 1 and said.index("max_tokens is now 200") < said.index(note)
    assert not flags or [row["beyond_context"] for row in rows] == [False, True]


def test_near_ties_are_said(run, monkeypatch, capsys, kernel_cache):
    flags = ["--temperature", "0", "--seed", "4"]
    _, quiet = chat(monkeypatch, capsys, run, ["the cat"], *flags)
    monkeypatch.setattr("wenlu.inference.choose.NEAR", math.inf)
    (row,), _ = chat(monkeypatch, capsys, run, ["the cat"], "--json", *flags)
    _, said = chat(monkeypatch, capsys, run, ["the cat"], *flags)
    assert row["near_ties"] >= row["tokens"] > 1 and f"{row['near_ties']} near-ties" in said
    assert "near-tie" not in quiet


@pytest.mark.parametrize("read", [list, lambda answer: answer.result])
def test_what_cannot_be_answered_is_not_part_of_the_conversation(conversation, read):
    first = conversation.ask("the cat", BRIEF).result
    model, tokenizer = conversation._generator._model, conversation._generator._tokenizer
    model.lm_head = torch.nn.Linear(16, tokenizer.vocab, bias=False)
    with torch.no_grad():
        model.embed.weight[tokenizer.encode("坐")[0]] = float("nan")
    with pytest.raises(UserError, match="logits are not finite"):
        read(conversation.ask("坐", BRIEF))
    assert [message["content"] for message in conversation.messages] == ["the cat", first.text]
    assert conversation.ask("the", BRIEF).result.finish != "error" and len(conversation.messages) == 4


def test_a_draft_answers_the_same(run, monkeypatch, capsys, kernel_cache):
    lines, flags = ["the cat", "你好"], ["--json", "--seed", "4"]
    plain, _ = chat(monkeypatch, capsys, run, lines, *flags)
    drafted, _ = chat(monkeypatch, capsys, run, lines, *flags, "--draft", str(run))
    assert [row["text"] for row in drafted] == [row["text"] for row in plain]
    assert sum(row["taken"] for row in drafted) > 0


def test_several_lines_are_one_message(run, monkeypatch, capsys, kernel_cache, tmp_path):
    chat(monkeypatch, capsys, run, ["the\\", "cat", f"/save {tmp_path / 'a.json'}"], "--json")
    assert json.loads((tmp_path / "a.json").read_text())["messages"][0]["content"] == "the\ncat"


def test_pieces_of_characters_are_shown_by_their_bytes_whole_ones_as_they_stand():
    pieces = {0: "天气".encode(), 1: " 好".encode()[:2], 2: b"\xbd", 3: b"a\n\\", 4: "气".encode() + b"\xe5"}
    shower = Chat.__new__(Chat)
    shower._tokenizer = SimpleNamespace(token_bytes=pieces.__getitem__)
    assert [shower._shown(id) for id in pieces] == ["天气", " <0xE5>", "<0xBD>", "a\n\\", "气<0xE5>"]
    assert [quoted(text) for text in ("天气", " a\n\\")] == ['"天气"', '" a\\n\\"']


def test_what_a_command_did_is_said(run, monkeypatch, capsys, tmp_path):
    lines = ["/system on", "the cat", "/system", "/set temperature 0", "/set max_tokens 9999", f"/save {tmp_path}/a",
             "/reset", "the mat", f"/load {tmp_path}/a", "/system off", "/reset"]  # fmt: skip
    _, said = chat(monkeypatch, capsys, run, lines)
    for told in (
        "the system's message is now: on ",
        "no system's message; the 2 messages so far stay",
        "temperature is now 0.0 (before: 0.7)",
        "max_tokens is now 9999 (before: 8) note: that is more than the ",
        "tokens that the model reads, question and answer together",
        "they take the place of the 2 messages before last, assistant: ",
        "the system's message is now: off; the 2 messages so far stay",
        "2 messages forgotten; the system's message stays",
    ):
        assert told in said
    assert said.index("2 messages forgotten") < said.index("2 messages forgotten; the")


def test_why_is_what_the_model_says(run, monkeypatch, capsys, kernel_cache):
    (answer, why), _ = chat(monkeypatch, capsys, run, ["the cat", "/why"], "--json", "--temperature", "0")
    model, tokenizer = load(run)
    ids = ChatFormat(tokenizer).prompt([{"role": "user", "content": "the cat"}])
    assert len(why["why"]) == answer["tokens"] > 0
    shower = Chat.__new__(Chat)
    shower._tokenizer = tokenizer
    for row in why["why"]:
        with torch.inference_mode():
            chances = model(torch.tensor([ids]))[0, -1].softmax(-1)
        best = int(chances.argmax())
        assert row["token"] == row["likeliest"][0][0] == Chat._shown(shower, best)
        assert row["probability"] == pytest.approx(chances[best].item(), abs=1e-4) and len(row["likeliest"]) == 3
        ids.append(best)
    _, table = chat(monkeypatch, capsys, run, ["the cat", "/why"])
    assert "probability" in table and "%" in table


def test_every_command(run, monkeypatch, capsys, kernel_cache, tmp_path):
    file = tmp_path / "chat.json"
    lines = ["/system on", "the cat", "/regenerate", f"/save {file}", "/reset", f"/load {file}", "/set temperature 0",
             "/set max_tokens 3", "the mat", "/help"]  # fmt: skip
    rows, said = chat(monkeypatch, capsys, run, lines, "--json")
    assert len(rows) == 3 and rows[0]["text"] != rows[1]["text"] and rows[2]["tokens"] <= 3
    assert "with seed 1" in said and "3 messages in" in said and "/regenerate the last answer again" in said
    assert [m["role"] for m in json.loads(file.read_text())["messages"]] == ["system", "user", "assistant"]
    _, said = chat(monkeypatch, capsys, run, [f"/save {tmp_path}/new/a", f"/save {tmp_path}/new/b"], "--json")
    assert said.count(f"made the folder {tmp_path}/new ") == 1
    rows, _ = chat(monkeypatch, capsys, run, [f"/save {file}"], "--json", "--load", str(file), "--system", "sat")
    assert json.loads(file.read_text())["messages"][0] == {"role": "system", "content": "sat"}


@pytest.mark.parametrize(
    "line, message",
    [
        ("/sytem x", "no command /sytem. Did you mean 'system'? /help lists them"),
        ("/set temprature 1", "no setting 'temprature'. Did you mean 'temperature'?"),
        ("/set temperature hot", "temperature must be a number, not 'hot'"),
        ("/set top_k 1.5", "top_k must be a whole number, not '1.5'"),
        ("/set temperature nan", "temperature must be 0 (greedy) or a positive number"),
        ("/set max_tokens 0", "max_tokens must be at least 1"),
        ("/why", "there is no answer yet to explain"),
        ("/regenerate", "there is no answer to give again"),
        ("/regenerate zzz", "/regenerate takes nothing after it, but 'zzz' was given: leave it out"),
        ("/why foo", "/why takes nothing after it"),
        ("/reset  x y", "/reset takes nothing after it, but 'x y' was given"),
        ("/quit now", "/quit takes nothing after it"),
        ("/save", "name a file: /save FILE"),
        ("/load /nowhere/at/all", "cannot read /nowhere/at/all"),
        ("/save ~nobody-at-all/x", "nobody has a home folder called ~nobody-at-all/x: name the file by its whole path"),
        ("/load ~nobody-at-all/x", "nobody has a home folder called ~nobody-at-all/x"),
        ("the cat sat " * 20, "this message and the template take"),
    ],
)
def test_a_mistake_is_said_and_the_chat_goes_on(run, monkeypatch, capsys, kernel_cache, line, message):
    rows, said = chat(monkeypatch, capsys, run, [line, "the cat"], "--json")
    assert message in said and len(rows) == 1


def test_what_is_not_utf8_is_said_and_the_chat_goes_on(run, monkeypatch, capsys, kernel_cache):
    typed = b"the cat\n" + b"the \xff\xfe\n" + "你好\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8"))
    assert main([str(run), "--max-tokens", "8", "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    assert said.out.count('"text"') == 2 and said.err.count("what is typed is not UTF-8: convert it first") == 1


def test_interrupted_answers_and_input(run, monkeypatch, capsys, kernel_cache):
    from wenlu.inference.batch import Engine

    steps, step = [], Engine.step

    def interrupted(engine):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step(engine)

    monkeypatch.setattr(Engine, "step", interrupted)
    rows, _ = chat(monkeypatch, capsys, run, ["the cat", "the mat", KeyboardInterrupt], "--json", "--temperature", "2")
    assert rows[0]["finish"] == "cancelled" and rows[0]["tokens"] == 3 and len(rows) == 2


def test_probabilities_are_those_of_the_tokens(conversation):
    result = conversation.ask("the cat", BRIEF).result
    assert len(result.log_probabilities) == len(result.ids) == len(result.alternatives)
    assert all(0 < math.exp(value) <= 1 for value in result.log_probabilities)
