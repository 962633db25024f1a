"""An endpoint beside the folder that its server answers from: the same scores, the same texts, over a real socket."""

import json
import sys
from dataclasses import replace

import pytest

from wenlu.base.errors import UserError
from wenlu.inference.adjust import Adjustments
from wenlu.inference.constrain import Constraint
from wenlu.inference.generator import Settings
from wenlu.inference.score import Query, Scorer
from wenlu.prompting.backend import Level
from wenlu.prompting.endpoint.address import Address
from wenlu.prompting.endpoint.client import Sending
from wenlu.prompting.endpoint.endpoint import Endpoint

from endpoint_server import Reply, Server
from small_models import model_of

QUERIES = [
    Query("Two and two are", (" four.", " five.", " four.")),
    Query("二加二等于", ("四。", "五。", "4!")),
    Query("炉子是热的。The stove", (" is warm", "，炉火")),
    Query("", ("It was", "从前")),
    Query("Is it warm? ", ("yes", "no")),
    Query("热吗？\n", ("热", "不")),
]
CONVERSATION = ({"role": "system", "content": "Answer."}, {"role": "user", "content": "炉子热吗？ Is it?"})
PROMPTS = ["It was", "炉子", CONVERSATION, ({"role": "user", "content": "Hello."},)]

CHARACTERS = pytest.mark.parametrize("kind", ["char"], indirect=True, scope="session")


def endpoint(server, **options):
    return Endpoint(Address(server.url, "small"), **{"sending": Sending(attempts=1), **options})


def alike(found, expected):
    """Whether scores of many queries are equal within 1e-4."""
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.log_probabilities == pytest.approx(b.log_probabilities, abs=1e-4)
            assert (a.bytes, a.greedy, a.tokens) == (b.bytes, b.greedy, b.tokens)
    return True


def test_scores_are_the_folders(pair, here):
    with Server(*pair) as server, endpoint(server) as there:
        assert there.level is Level.B and there.verified.texts and there.verified.conversations
        assert alike(there.score(QUERIES), here.score(QUERIES))


def test_scores_of_greedy_texts_are_greedy(pair, here):
    """Of a text that the model writes in whole characters, and that reads as the same tokens."""
    greedy = Settings(max_tokens=1, temperature=0, alternatives=0)
    for prompt in map(chr, range(ord("!"), ord("~"))):
        written = here.generate([prompt], greedy)[0]
        again = here.tokenizer.encode(prompt + written.text)
        if written.text.isprintable() and "\ufffd" not in written.text and len(again) == 2:
            break
    queries = [Query(prompt, (written.text, written.text + "炉"))]
    expected = here.score(queries)
    assert [score.greedy for score in expected[0]] == [True, False]
    assert expected[0][0].log_probabilities == pytest.approx(written.log_probabilities, abs=1e-4)
    with Server(*pair) as server, endpoint(server) as there:
        assert alike(there.score(queries), expected)


@pytest.mark.parametrize("settings", [
    Settings(max_tokens=6, temperature=0, alternatives=2),
    Settings(max_tokens=6, temperature=0.9, top_p=0.8, seed=3, alternatives=0),
    Settings(max_tokens=6, temperature=0, stop=("e",), adjustments=Adjustments(1.0, 0.5, 0.5)),
])  # fmt: skip
def test_texts_are_the_folders(pair, here, settings):
    with Server(*pair) as server, endpoint(server) as there:
        found = there.generate(PROMPTS, settings)
    expected = here.generate(PROMPTS, settings)
    for one, other in zip(found, expected, strict=True):
        assert (one.text, one.tokens, one.prompt_tokens) == (other.text, other.tokens, other.prompt_tokens)
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)
        assert (one.finish == "length") == (other.finish == "length")
        for a, b in zip(one.alternatives, other.alternatives, strict=True):
            assert [value for _, value in a] == pytest.approx([value for _, value in b], abs=1e-4)


def test_torn_characters_are_found_by_the_prefix_alone(pair, here):
    """Shown as U+FFFD, half characters do not tell where a continuation begins: the prefix's own tokens do."""
    with Server(*pair, torn=True) as server, endpoint(server) as there:
        assert there.level is Level.B
        found, expected = there.score(QUERIES), here.score(QUERIES)
    for one, other in zip(found, expected, strict=True):
        assert [score.log_probabilities for score in one] == [
            pytest.approx(s.log_probabilities, abs=1e-4) for s in other
        ]


@CHARACTERS
def test_where_torn_characters_leave_the_border_open(pair):
    """The prefix alone is asked for too: its tokens are those that the whole begins with, or there is no telling."""
    torn = {"炉火": ["\ufffd"] * 4, "炉": ["\ufffd"] * 2, "火炉": ["\ufffd"] * 4, "火": ["火"]}

    def twist(_, body, reply):
        if (tokens := torn.get(body.get("prompt"))) is not None:
            values = [-1.0 - place for place in range(len(tokens))]
            lists = {"tokens": ["<s>", *tokens], "token_logprobs": [None, *values], "top_logprobs": None}
            reply.body["choices"][0]["logprobs"] = lists
            reply.body["usage"] = {"prompt_tokens": 1 + len(tokens), "completion_tokens": 0}
        return reply

    with Server(*pair, twist) as server, endpoint(server) as there:
        assert there.level is Level.B
        assert there.score([Query("炉", ("火",))])[0][0].log_probabilities == (-3.0, -4.0)
        with pytest.raises(UserError, match="cannot be told where '炉' begins: let continuations begin with a space"):
            there.score([Query("火", ("炉",))])


def test_what_the_probe_sees_is_the_level(pair):
    def silent(_, body, reply):
        if body.get("echo"):
            lists = reply.body["choices"][0]["logprobs"]
            reply.body["choices"][0]["logprobs"] = {name: values[-1:] for name, values in lists.items()}
        return reply

    def constant(_, body, reply):
        if body.get("echo"):
            lists = reply.body["choices"][0]["logprobs"]
            lists["token_logprobs"] = [None] + [0.0] * (len(lists["tokens"]) - 1)
        return reply

    def text_only(_, body, reply):
        reply.body["choices"][0]["logprobs"] = None
        return reply

    cases = {
        silent: (Level.C, "counts"),
        constant: (Level.C, "the same log-probability"),
        text_only: (Level.D, "no log-prob"),
    }
    for twist, (level, reason) in cases.items():
        with Server(*pair, twist) as server, endpoint(server) as there:
            assert there.level is level
            with pytest.raises(UserError, match=rf"level {level.name} .*no scores of given texts.*{reason}"):
                there.score(QUERIES)


@CHARACTERS
def test_a_server_that_makes_numbers_up_is_found_out(pair):
    """They are finite, differ, and are as many as there are tokens, but one beginning has two of them."""

    def made_up(number, body, reply):
        if body.get("echo"):
            lists = reply.body["choices"][0]["logprobs"]
            lists["token_logprobs"][1:] = [-0.5 * number - place % 3 for place in range(1, len(lists["tokens"]))]
        return reply

    with Server(*pair, made_up) as server, endpoint(server) as there:
        assert there.level is Level.C
        assert any("one token after one text two log-probabilities" in note for note in there.verified.notes)


@CHARACTERS
@pytest.mark.parametrize("code", [400, 404, 500])
def test_what_a_server_does_not_have(pair, capsys, code):
    """Only conversations; or only texts, of which no log-probabilities."""

    def only(path):
        refused = Reply(code, {"error": {"message": "unknown"}})
        return lambda _, body, reply: reply if (path == "chat") == ("messages" in body) else refused

    def plain_texts(_, body, reply):
        return Reply(code, {"error": "unknown"}) if "messages" in body or "logprobs" in body else reply

    for twist, level in ((only("chat"), Level.C), (plain_texts, Level.D)):
        with Server(*pair, twist) as server, endpoint(server) as there:
            assert (there.level, there.verified.conversations) == (level, level is Level.C)
            assert there.verified.texts is (level is Level.D)
            with pytest.raises(UserError, match=rf"level {level.name} .*, or another server \(scores: [^;]*\)$"):
                there.score(QUERIES)
            assert capsys.readouterr().err == "", "why stands in the refusal, once"


@CHARACTERS
def test_what_nobody_asked_for_is_not_missed(pair, here, capsys):
    """Scores of texts want nothing of conversations, nor of log-probabilities of what is written."""

    def silent(_, body, reply):
        if "messages" in body:
            reply.body["choices"][0]["logprobs"] = None
        return reply

    with Server(*pair, silent) as server, endpoint(server) as there:
        assert alike(there.score(QUERIES), here.score(QUERIES))
        assert there.verified.notes[0].startswith("conversations, with log-probabilities: ")
    assert capsys.readouterr().err == ""


@CHARACTERS
def test_a_server_that_answers_nothing(pair):
    with (
        Server(*pair, lambda *_: Reply(404, {"error": "unknown"})) as server,
        endpoint(server) as there,
        pytest.raises(UserError, match=r"answers neither texts nor conversations: scores: .*no such path"),
    ):
        _ = there.level


@CHARACTERS
def test_a_refused_key_is_no_level(pair):
    with (
        Server(*pair, lambda *_: Reply(401, {"error": "who?"})) as server,
        endpoint(server) as there,
        pytest.raises(UserError, match=r"refuses requests without a key \(401: who\?\): set the right key_variable"),
    ):
        _ = there.level


@CHARACTERS
def test_kept_scores_need_no_server(pair, here, tmp_path):
    """Not even a probe: they were checked when they came, and are again when they are read."""
    with Server(*pair) as server, endpoint(server, cache=tmp_path) as there:
        before = there.score(QUERIES)
        probes = [body for _, _, body in server.seen][:4]
        assert len(server.seen) == 4 + 14 - 1, "a probe, and a request for each text"
        address = there.address
    with Endpoint(address, cache=tmp_path) as there:
        assert there.score(QUERIES) == before and there.account.requests == 0
    assert [sorted(body) for body in probes[:2]] == [
        ["echo", "logprobs", "max_tokens", "model", "prompt", "temperature"]
    ] * 2


def test_a_token_across_the_border_is_the_continuations_and_said(capsys):
    """Where the endpoint's tokenizer has one token for the end of a prefix and the beginning of what follows."""
    model, tokenizer = model_of("bpe")
    pieces = [tokenizer.token_bytes(id).decode() for id in tokenizer.encode("It is warm")]
    word = next(piece for piece in pieces[1:] if len(piece) > 2)
    before, after = "It is warm".split(word)
    query = Query(before + word[:2], (word[2:] + after,))
    with Server(model, tokenizer) as server, endpoint(server) as there:
        found = there.score([query])[0][0]
    whole = Scorer(model, tokenizer).score(before, [word + after])[0]
    assert found.log_probabilities == pytest.approx(whole.log_probabilities, abs=1e-4)
    assert "1 beginning within a token that holds a prefix's end too" in capsys.readouterr().err


@pytest.mark.parametrize("query, message", [
    (Query((1, 2), ("a",)), "a prefix of ids means something to one tokenizer only"),
    (Query("a", ("b", "")), "a continuation is empty"),
    (Query("a", ("\ud800",)), "lone surrogate"),
])  # fmt: skip
def test_queries_that_are_none(query, message):
    with Endpoint(Address("http://127.0.0.1:1/v1", "m")) as there, pytest.raises(UserError, match=message):
        there.score([query])


@pytest.mark.parametrize("settings, name", [
    (Settings(beams=2), "beams"), (Settings(top_k=5), "top_k"), (Settings(min_p=0.1), "min_p"),
    (Settings(constraint=Constraint("choices", ("a", "b"))), "a constraint"),
    (Settings(adjustments=Adjustments(1.2)), "repetition_penalty"),
    (Settings(adjustments=Adjustments(logit_bias=((1, 2.0),))), "logit_bias"),
])  # fmt: skip
def test_settings_that_no_protocol_knows(settings, name):
    with Endpoint(Address("http://127.0.0.1:1/v1", "m")) as there, pytest.raises(UserError, match=f"have no {name} in"):
        there.generate(["It was"], settings)


def test_wrong_uses():
    address = Address("http://127.0.0.1:1/v1", "m")
    with pytest.raises(UserError, match="extra holds echo, stop, which settings decide"):
        Endpoint(address, extra={"stop": ["a"], "echo": False, "top_k": 4})
    with Endpoint(address) as there, pytest.raises(UserError, match="needs at least one message"):
        there.generate([()], Settings())


@CHARACTERS
def test_a_dry_run_sends_nothing_and_shows_what_would_be_sent(pair, here, tmp_path):
    """Without the key even; afterwards exactly these are sent."""
    settings = Settings(max_tokens=2, stop=("x",), seed=7, top_p=0.9)
    with Server(*pair) as server:
        address = Address(server.url, "small", "WENLU_NO_SUCH_KEY")
        planned = Endpoint(address, extra={"top_k": 40}).requests(QUERIES, PROMPTS, settings)
        assert not server.seen and not any(one["kept"] for one in planned)
        with Endpoint(replace(address, key_variable=""), extra={"top_k": 40}, cache=tmp_path) as there:
            _ = there.level
            probes = len(server.seen)
            there.score(QUERIES)
            there.generate(PROMPTS, settings)
            assert all(one["kept"] for one in there.requests(QUERIES, PROMPTS, settings))
        sent = [json.dumps([path, body], sort_keys=True) for path, _, body in server.seen[probes:]]
    assert {json.dumps(["/v1" + one["url"].split("/v1")[1], one["body"]], sort_keys=True) for one in planned} == {*sent}
    assert planned[-1] == {
        "method": "POST",
        "url": f"{address.base}/chat/completions",
        "body": {
            "model": "small", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 2, "temperature": 0.8,
            "top_p": 0.9, "seed": 7, "stop": ["x"], "top_k": 40,
        },
        "kept": False,
    }  # fmt: skip


@CHARACTERS
def test_progress_counts_queries(pair):
    told = []
    with Server(*pair) as server, endpoint(server, sending=Sending(concurrency=3)) as there:
        there.score(QUERIES, told.append)
    assert sum(told) == len(QUERIES)


def test_a_key_is_needed_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("WENLU_NO_SUCH_KEY", raising=False)
    there = Endpoint(Address("https://example.invalid/v1", "m", "WENLU_NO_SUCH_KEY"))
    with there, pytest.raises(UserError, match="environment variable WENLU_NO_SUCH_KEY is not set"):
        there.generate(["It was"], Settings())


def test_fingerprints_tell_endpoints_apart():
    prints = {
        Endpoint(Address(url, model), extra=extra).fingerprint
        for url in ("https://a.b/v1", "https://a.b/v2")
        for model in ("m", "n")
        for extra in ({}, {"top_k": 4})
    }
    assert len(prints) == 8
    assert Endpoint(Address("https://a.b/v1/", "m")).fingerprint in prints


def test_without_httpx(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with (
        Endpoint(Address("http://127.0.0.1:1/v1", "m")) as there,
        pytest.raises(UserError, match=r'pip install "wenlu\[endpoint\]"'),
    ):
        there.generate(["It was"], Settings())
