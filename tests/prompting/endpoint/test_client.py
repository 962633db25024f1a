"""What goes wrong between here and an endpoint: nothing that came is lost or paid for twice, no key is shown."""

import json
import threading
from dataclasses import replace
from email.utils import formatdate

import pytest

from wenlu.base.errors import UserError
from wenlu.inference.generator import Settings
from wenlu.inference.score import Query
from wenlu.prompting.backend import Failed
from wenlu.prompting.endpoint.address import Address
from wenlu.prompting.endpoint.budget import Budget
from wenlu.prompting.endpoint.client import IN_A_ROW, Clock, Sending
from wenlu.prompting.endpoint.endpoint import Endpoint

from endpoint_server import Reply, Server

KEY = "sk-secret-0123456789"
SETTINGS = Settings(max_tokens=3, temperature=0)
PROMPTS = ["It was", "炉子", "Two and", "二加二", "warm"]
pytestmark = pytest.mark.parametrize("kind", ["char"], indirect=True, scope="session")
ONE_BY_ONE = Sending(concurrency=1)


@pytest.fixture
def served(pair, monkeypatch):
    """A server, begun with a twist."""
    monkeypatch.setenv("WENLU_TEST_KEY", KEY)
    begun = []

    def start(twist=None):
        begun.append(Server(*pair, twist))
        return begun[-1].__enter__()

    yield start
    for server in begun:
        server.__exit__()


def endpoint(server, clock, **options):
    options = {"sending": ONE_BY_ONE, **options}
    return Endpoint(Address(server.url, "small", "WENLU_TEST_KEY"), clock=clock, **options)


def status(code, body=None, **headers):
    return Reply(
        code, body or {"error": {"message": f"said {code}"}}, {k.replace("_", "-"): v for k, v in headers.items()}
    )


def failing(times, reply):
    """Answers so the first times, then as usual."""
    return lambda number, _, usual: replace(reply) if number <= times else usual


@pytest.mark.parametrize("code", [429, 500, 503, 529])
def test_a_busy_endpoint_is_tried_again_with_longer_waits(served, clock, time, here, code):
    with endpoint(served(failing(3, status(code))), clock) as there:
        assert there.generate(["It was"], SETTINGS)[0].text == here.generate(["It was"], SETTINGS)[0].text
    assert sum(time.slept) == 1 + 2 + 4 and (there.account.requests, there.account.retries) == (4, 3)


@pytest.mark.parametrize("asked", ["17", "date"])
def test_retry_after_is_honoured(served, clock, time, asked):
    header = formatdate(time.now + 17, usegmt=True) if asked == "date" else asked
    with endpoint(served(failing(1, status(429, Retry_After=header))), clock) as there:
        there.generate(["It was"], SETTINGS)
    assert sum(time.slept) == 17


@pytest.mark.parametrize("asked", ["soon", "-5", "nan", "inf", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_wait_that_is_none_is_the_usual_one(served, clock, time, asked):
    with endpoint(served(failing(1, status(429, Retry_After=asked))), clock) as there:
        there.generate(["It was"], SETTINGS)
    assert sum(time.slept) == 1


def test_a_wait_holds_for_all_that_are_sent(served, clock, time):
    """Others do not go on asking meanwhile."""
    with endpoint(served(failing(1, status(429, Retry_After="17"))), clock, sending=Sending(concurrency=2)) as there:
        there.generate(PROMPTS, SETTINGS)
    assert 17 <= sum(time.slept) <= 34 and there.account.retries == 1


def test_a_wait_that_is_too_long_is_said(served, clock, time):
    with (
        endpoint(served(failing(1, status(429, Retry_After="3600"))), clock) as there,
        pytest.raises(UserError, match="asks to wait 3600 s, beyond the longest wait of 60 s"),
    ):
        there.generate(["It was"], SETTINGS)
    assert not time.slept


def test_waits_are_drawn_and_bounded(served, time, capsys):
    clock = Clock(lambda: time.now, time.sleep, lambda: 0.0)
    sending = Sending(concurrency=1, attempts=4, first_wait=8, longest_wait=10)
    with (
        endpoint(served(failing(9, status(503))), clock, sending=sending) as there,
        pytest.raises(UserError, match=r"127.0.0.1 fails \(503: said 503\), 4 times"),
    ):
        there.generate(["It was"], SETTINGS)
    assert sum(time.slept) == 4 + 5 + 5
    assert " ".join(capsys.readouterr().err.split()).count("trying again after a while, 4 times in all") == 1


REFUSALS = [
    (status(401), "refuses the key in WENLU_TEST_KEY (401: said 401): set the right key_variable"),
    (status(404), "has no such path, or no model 'small' (404: said 404)"),
    (status(400, {"detail": "too long"}), "refuses the request (400: too long)"),
    (status(422, b"<html>no</html>"), "refuses the request (422: <html>no</html>)"),
    (status(302, Location="https://other.example/v1"), "redirects to https://other.example/v1, which is not followed"),
    (Reply(200, b"{oh"), "answers with what is no JSON object ('{oh')"),
    (Reply(200, b'{"choices": "\xff"}'), "answers with what is no JSON object"),
    (Reply(200, b"[" * 100_000), "answers with what is no JSON object ('[[["),
    (Reply(200, b"[1]"), "answers with what is no JSON object"),
    (Reply(200, {"error": {"message": "overloaded"}}), "answers with an error: overloaded"),
    (Reply(200, {"choices": []}), "has 0 choices instead of 1"),
    (Reply(200, {"choices": [{"text": None}]}), "has no choices[0].text (there is 'None')"),
    (Reply(200, {"choices": [{"text": "a"}]}), "has no choices[0].finish_reason"),
    (Reply(200, {}), "has no choices"),
]  # fmt: skip


@pytest.mark.parametrize("reply, message", REFUSALS, ids=range(len(REFUSALS)))
def test_what_is_no_answer_is_refused_at_once(served, clock, time, tmp_path, reply, message):
    """What was answered before is kept, and said; the same call goes on from there."""
    server = served(lambda number, _, usual: replace(reply) if number == 3 else usual)
    with endpoint(server, clock, cache=tmp_path) as there:
        if reply.status in (401, 404, 302):
            with pytest.raises(UserError) as caught:
                there.generate(PROMPTS, SETTINGS)
            assert message in str(caught.value)
            assert f"2 of 5 answers are kept in {tmp_path}; the same call goes on from there" in str(caught.value)
            assert not time.slept and len(server.seen) == 3
        else:
            written = there.generate(PROMPTS, SETTINGS)
            assert [one.finish == "error" for one in written] == [False, False, True, False, False]
            assert message in written[2].error and written[2].text == "" and not time.slept
        asked = len(server.seen)
        assert [written.tokens for written in there.generate(PROMPTS, SETTINGS)] == [3] * 5
    assert len(server.seen) == 6 and asked in (3, 5), "what came is kept, what failed is asked for again"
    assert len(list(tmp_path.rglob("*.json"))) == 5


def test_where_all_or_many_in_a_row_fail_no_more_is_sent(served, clock, tmp_path):
    many = [f"It was {number}" for number in range(30)]
    server = served(lambda number, _, usual: status(400) if number > 2 else usual)
    with endpoint(server, clock, cache=tmp_path) as there:
        with pytest.raises(Failed, match=r"refuses the request \(400: said 400\). 2 of 30 answers are kept in"):
            there.generate(many, SETTINGS)
        assert len(server.seen) == 2 + IN_A_ROW
        with pytest.raises(Failed, match="0 of 3 answers are kept"):
            there.generate(many[-3:], SETTINGS)


def test_a_text_that_the_endpoint_itself_ends_by_an_error_is_none_and_not_kept(served, clock, tmp_path, capsys):
    def breaks_off(number, _, usual):
        usual.body["choices"][0]["finish_reason"] = "error" if number == 2 else "length"
        return usual

    with endpoint(served(breaks_off), clock, cache=tmp_path) as there:
        found = there.generate(PROMPTS, SETTINGS)
        assert [one.finish for one in found] == ["length", "error", "length", "length", "length"]
        assert (
            "1 of 5 were not answered by small at 127.0.0.1; the first: the endpoint ended" in capsys.readouterr().err
        )
        assert [one.finish for one in there.generate(PROMPTS, SETTINGS)] == ["length"] * 5


def test_scores_that_fail_leave_the_others(served, clock, here):
    queries = [Query(prompt, (" a", " b")) for prompt in PROMPTS]
    with endpoint(
        served(lambda _, body, usual: status(400) if body.get("prompt") == "Two and b" else usual), clock
    ) as there:
        found = there.score(queries)
    assert [isinstance(one, Failed) for one in found] == [False, False, True, False, False]
    assert "refuses the request (400" in str(found[2])
    for own, others in zip(found, here.score(queries), strict=True):
        if isinstance(own, list):
            assert [one.log_probability for one in own] == pytest.approx(
                [one.log_probability for one in others], abs=1e-4
            )


def test_kept_answers_tell_what_they_would_cost(served, clock, tmp_path):
    server = served()
    with endpoint(server, clock, cache=tmp_path) as there:
        there.generate(PROMPTS, SETTINGS)
        used = there.tokens_used
        assert there.tokens_kept == 0
    with endpoint(server, clock, cache=tmp_path) as there:
        there.generate(PROMPTS, SETTINGS)
        assert (there.tokens_used, there.tokens_kept) == (0, used)


def test_an_endpoint_that_dies_half_way(served, clock, time, tmp_path, here):
    server = served(lambda number, _, usual: Reply(0) if number > 2 else usual)
    with endpoint(server, clock, cache=tmp_path) as there:
        found = there.generate(PROMPTS, SETTINGS)
    assert [bool(one.error) for one in found] == [False, False, True, True, True]
    assert "127.0.0.1 broke off" in found[2].error and "6 times" in found[2].error
    server.twist = None
    with endpoint(server, clock, cache=tmp_path) as there:
        found = there.generate(PROMPTS, SETTINGS)
        assert there.account.requests == 3, "another process pays for what is missing"
    assert [one.text for one in found] == [one.text for one in here.generate(PROMPTS, SETTINGS)]


def test_nobody_there(clock, pair):
    with Server(*pair) as server:
        address = Address(server.url, "small")
    with (
        Endpoint(address, clock=clock, sending=Sending(attempts=2)) as there,
        pytest.raises(UserError, match=r"cannot reach http://127.0.0.1.*, 2 times. 0 of 1 answers are kept in memory"),
    ):
        there.generate(["It was"], SETTINGS)


def test_an_answer_that_does_not_end(served, clock):
    released = threading.Event()

    def late(_, __, usual):
        released.wait(5)
        return usual

    sending = Sending(concurrency=1, timeout=0.05, attempts=1)
    with endpoint(served(late), clock, sending=sending) as there:
        with pytest.raises(UserError, match=r"did not answer within 0\.05 s"):
            there.generate(["It was"], SETTINGS)
        assert there.account.prompt_tokens > 0 and there.account.estimated == 1, "it may have cost something"
        released.set()


def test_an_answer_that_is_too_large(served, clock, monkeypatch):
    monkeypatch.setattr("wenlu.prompting.endpoint.exchange.LARGEST", 20)
    with (
        endpoint(served(), clock, sending=Sending(attempts=1)) as there,
        pytest.raises(UserError, match=r"127\.0\.0\.1 sent no end of its answer"),
    ):
        there.generate(["It was"], SETTINGS)


def test_a_kept_answer_that_is_none_is_asked_for_again(served, clock, tmp_path, capsys):
    server = served()
    with endpoint(server, clock, cache=tmp_path) as there:
        there.generate(["It was"], SETTINGS)
    file = next(tmp_path.rglob("*.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"answer": {"choices": []}}))
    with endpoint(server, clock, cache=tmp_path) as there:
        assert there.generate(["It was"], SETTINGS)[0].tokens == 3
    assert len(server.seen) == 2 and "1 kept answer in" in capsys.readouterr().err


def test_the_key_is_sent_and_seen_nowhere_else(served, clock, tmp_path, capsys):
    """Not even where the endpoint itself says it."""

    def says_the_key(number, _, usual):
        if number == 2:
            return status(401, {"error": {"message": f"no such key: {KEY}"}})
        usual.body["choices"][0]["text"] = f"yours is {KEY}"
        return usual

    server = served(says_the_key)
    with endpoint(server, clock, cache=tmp_path) as there:
        with pytest.raises(UserError) as caught:
            there.generate(PROMPTS, SETTINGS)
        kept = "".join(file.read_text() for file in tmp_path.rglob("*.json"))
        dry = json.dumps(there.requests(prompts=PROMPTS, settings=SETTINGS))
        shown = [str(caught.value), repr(there.__dict__), repr(there._client._exchange._client.headers), kept, dry]
        assert there.generate(PROMPTS[:1], SETTINGS)[0].text == "yours is (the key)"
    assert all(headers["Authorization"] == f"Bearer {KEY}" for _, headers, _ in server.seen)
    assert not any(KEY in text for text in (*shown, *capsys.readouterr()))
    assert "no such key: (the key)" in shown[0] and caught.value.__cause__ is None


def test_a_redirect_gets_no_key(served, clock):
    elsewhere = served()
    server = served(lambda *_: status(307, Location=f"{elsewhere.url}/completions"))
    with endpoint(server, clock) as there, pytest.raises(UserError, match=r"the key is for 127\.0\.0\.1 only"):
        there.generate(["It was"], SETTINGS)
    assert not elsewhere.seen


@pytest.mark.parametrize("budget, sent, message", [
    (Budget(requests=2), 2, "requests must be no more than 2"),
    (Budget(tokens=88), 2, "16 of 88 tokens are used, and the next request may need"),
    (Budget(money=8.5e-4, prompt_price=10), 3, "0.00018 of 0.00085 is spent, and the next request may cost"),
    (Budget(tokens=3), 0, "0 of 3 tokens are used"),
])  # fmt: skip
def test_a_budget_is_never_passed(served, clock, budget, sent, message):
    server = served()
    with endpoint(server, clock, budget=budget) as there:
        with pytest.raises(UserError, match=f"the budget is spent: .*{message}.* {sent} of 5 answers are kept"):
            there.generate(PROMPTS, SETTINGS)
        assert len(server.seen) == sent and there.account.tokens == 3 * sent
        assert len(there.generate(PROMPTS[:sent], SETTINGS)) == sent, "what is kept costs nothing"


def test_an_endpoint_that_does_not_count_is_taken_for_the_most(served, clock):
    server = served(lambda _, __, usual: Reply(200, {"choices": usual.body["choices"]}))
    with endpoint(server, clock) as there:
        written = there.generate(["炉"], SETTINGS)[0]
        assert (written.tokens, written.prompt_tokens) == (None, None)
        assert (there.account.prompt_tokens, there.account.tokens, there.account.estimated) == (64 + 3, 3, 1)


def test_equal_requests_are_sent_once_and_in_order(served, clock, here):
    server, told = served(), []
    with endpoint(server, clock, sending=Sending(concurrency=8)) as there:
        found = there.generate(PROMPTS * 4, SETTINGS, told.append)
    assert len(server.seen) == 5 and sum(told) == 20
    assert [one.text for one in found] == [one.text for one in here.generate(PROMPTS, SETTINGS)] * 4


def test_stopped_from_elsewhere(served, clock, tmp_path):
    """What is under way is kept, nothing more is begun."""
    server = served(lambda number, _, usual: there.stop() or usual if number == 2 else usual)
    with endpoint(server, clock, cache=tmp_path) as there:
        with pytest.raises(UserError, match=r"stopped\. 2 of 5 answers are kept"):
            there.generate(PROMPTS, SETTINGS)
        assert len(server.seen) == 2


def test_interrupted(served, clock, tmp_path):
    """By the keyboard, while some are under way."""

    def interrupt(_):
        raise KeyboardInterrupt

    server = served()
    with endpoint(server, clock, cache=tmp_path) as there, pytest.raises(KeyboardInterrupt):
        there.generate(PROMPTS, SETTINGS, interrupt)
    assert len(server.seen) == 1 == len(list(tmp_path.rglob("*.json")))


def test_a_damaged_file_is_asked_for_again_and_said(served, clock, tmp_path, capsys):
    server = served()
    with endpoint(server, clock, cache=tmp_path) as there:
        there.generate(PROMPTS, SETTINGS)
    files = sorted(tmp_path.rglob("*.json"))
    files[0].write_text("{")
    files[1].write_text(files[2].read_text())
    with endpoint(server, clock, cache=tmp_path) as there:
        there.generate(PROMPTS, SETTINGS)
    assert len(server.seen) == 7 and "2 kept answers in" in capsys.readouterr().err


def test_another_model_or_address_is_another_request(served, clock, tmp_path):
    server = served()
    for model in ("small", "other"):
        with Endpoint(Address(server.url, model), cache=tmp_path, clock=clock) as there:
            there.generate(["It was"], SETTINGS)
            there.generate(["It was"], replace(SETTINGS, max_tokens=2))
    assert len(server.seen) == 4
