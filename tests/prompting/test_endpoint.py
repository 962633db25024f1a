"""An endpoint beside the folder that its server answers from: the same scores, the same texts, over a real socket."""

import json

import pytest
from endpoint_server import Reply, Server

from wenlu.base.errors import UserError
from wenlu.inference.adjust import Adjustments
from wenlu.inference.constrain import Constraint
from wenlu.inference.generator import Settings
from wenlu.inference.score import Query
from wenlu.prompting.address import Address
from wenlu.prompting.backend import Level
from wenlu.prompting.budget import Budget
from wenlu.prompting.client import Sending
from wenlu.prompting.endpoint import Endpoint

QUERIES = [
    Query("Two and two are", (" four.", " five.", "")),
    Query("二加二等于", ("四。", "五。", "4!")),
    Query("炉子是热的。The stove", (" is warm", "，炉火")),
    Query("", ("It was", "从前")),
]
CONVERSATION = ({"role": "system", "content": "Answer."}, {"role": "user", "content": "炉子热吗？ Is it?"})
PROMPTS = ["It was", "炉子", CONVERSATION, ({"role": "user", "content": "Hello."},)]


def endpoint(server, **options):
    return Endpoint(Address(server.url, "small"), **options)


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
        assert [score.log_probabilities for score in one] == [pytest.approx(s.log_probabilities, abs=1e-4) for s in other]


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

    cases = {silent: (Level.C, "counts"), constant: (Level.C, "the same log-probability"), text_only: (Level.D, "no log-prob")}
    for twist, (level, reason) in cases.items():
        with Server(*pair, twist) as server, endpoint(server) as there:
            assert there.level is level
            with pytest.raises(UserError, match=rf"level {level.name} .*no scores of given texts.*{reason}"):
                there.score(QUERIES)


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
            assert f"small at 127.0.0.1 (level {level.name}): no scores: " in capsys.readouterr().err
            with pytest.raises(UserError, match=f"level {level.name} "):
                there.score(QUERIES)


def test_a_server_that_answers_nothing(pair):
    with (
        Server(*pair, lambda *_: Reply(404, {"error": "unknown"})) as server,
        endpoint(server) as there,
        pytest.raises(UserError, match="answers neither texts nor conversations: scores: .*no such path"),
    ):
        _ = there.level


def test_a_refused_key_is_no_level(pair):
    with (
        Server(*pair, lambda *_: Reply(401, {"error": "who?"})) as server,
        endpoint(server) as there,
        pytest.raises(UserError, match=r"refuses requests without a key \(401: who\?\): set the right key_variable"),
    ):
        _ = there.level


def test_kept_scores_need_no_server(pair, here, tmp_path):
    """Not even a probe: they were checked when they came, and are again when they are read."""
    with Server(*pair) as server, endpoint(server, cache=tmp_path) as there:
        before = there.score(QUERIES)
        probes = [body for _, _, body in server.seen][:4]
        assert len(server.seen) == 4 + 10, "a probe, and a request for each text"
        address = there.address
    with Endpoint(address, cache=tmp_path) as there:
        assert there.score(QUERIES) == before and there.account.requests == 0
    assert [sorted(body) for body in probes[:2]] == [["echo", "logprobs", "max_tokens", "model", "prompt", "temperature"]] * 2


def test_a_token_across_the_border_is_the_continuations_and_said(capsys):
    """Where the endpoint's tokenizer has one token for the end of a prefix and the beginning of what follows."""
    model, tokenizer = conftest_model("bpe")
    prefix, text = "The sto", "ve is"
    assert tokenizer.decode(tokenizer.encode(prefix + text)[:1]) != tokenizer.decode(tokenizer.encode(prefix)[:1])
