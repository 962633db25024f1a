"""Answers of endpoints: what is missing, miscounted or impossible is refused by name."""

import copy
import math

import pytest

from wenlu.base.errors import UserError
from wenlu.prompting.endpoint.reply import read_chat, read_completion, read_echo

TEXT = "It was 炉子"
TOKENS = ["<s>", "It", " was", " ", "炉", "子", "!"]
VALUES = [None, -1.0, -2.0, -3.0, -0.5, -0.25, -4.0]
TOP = [None, {"It": -1.0}, {" is": -0.5}, {" ": -3.0}, {"炉": -0.5, "火": -1.0}, {"子": -0.25}, {"!": -4.0}]


def answer(tokens=TOKENS, values=VALUES, top=TOP, usage=(6, 1)):
    lists = {"tokens": tokens, "token_logprobs": values, "top_logprobs": top}
    body = {"choices": [{"text": TEXT + "!", "finish_reason": "length", "logprobs": lists}]}
    if usage:
        body["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), usage))
    return copy.deepcopy(body)


@pytest.mark.parametrize("usage", [(6, 1), None])
def test_a_prompt_is_read_without_the_beginning_and_what_is_written(usage):
    echo = read_echo(answer(usage=usage), TEXT)
    assert echo.tokens == ("It", " was", " ", "炉", "子") and echo.log_probabilities == (-1, -2, -3, -0.5, -0.25)
    assert echo.border("It was") == 2 and echo.after(2) == (-3, -0.5, -0.25) and echo.greedy(2) is True
    assert echo.border("It") == 1 and echo.greedy(1) is False and echo.border("It w") == 1, "a token that holds both"
    assert echo.border(TEXT) == 5 and echo.after(5) == () and echo.greedy(5) is True
    assert echo.border("") == 0 and echo.after(0) == (-1, -2, -3, -0.5, -0.25)


def test_without_a_token_that_begins_there_is_nothing_before_the_first():
    values = [None, *VALUES[2:]]
    echo = read_echo(answer(TOKENS[1:], values, [None, *TOP[2:]], (5, 1)), TEXT)
    assert echo.after(1) == (-2, -3, -0.5, -0.25)
    with pytest.raises(UserError, match="no log-probability of a text's first token"):
        echo.after(echo.border(""))


def test_what_is_likeliest_may_be_unknown():
    assert read_echo(answer(top=None), TEXT).greedy(2) is None
    torn = [*TOKENS[:4], "\ufffd", "\ufffd", "!"]
    echo = read_echo(answer(torn, top=[*TOP[:4], {"\ufffd": -0.5}, {"\ufffd": -0.25}, TOP[6]]), TEXT)
    assert echo.greedy(4) is None, "two tokens may share the entry"


BROKEN = [
    (answer(values=VALUES[:6]), "has 7 tokens, 6 log-probabilities and likeliest ones at 7 places"),
    (answer(top=TOP[:3]), "likeliest ones at 3 places"),
    (answer(usage=(9, 1)), "counts 9 tokens in the prompt, but gives log-probabilities of 7"),
    (answer(usage=(4, 1)), "counts 4 tokens in the prompt, but gives log-probabilities of 7"),
    (answer(TOKENS[-1:], VALUES[-1:], TOP[-1:]), "counts 6 tokens in the prompt, but gives log-probabilities of 1"),
    (answer(values=[-1.0, *VALUES[1:]]), "to a first token, which follows nothing"),
    (answer(values=[*VALUES[:3], None, *VALUES[4:]]), "token 3 of the prompt (' ') the log-probability None"),
    (answer(values=[*VALUES[:3], math.nan, *VALUES[4:]]), "log-probability nan, which is none"),
    (answer(values=[*VALUES[:3], -math.inf, *VALUES[4:]]), "log-probability -inf, which is none"),
    (answer(values=[*VALUES[:3], 0.5, *VALUES[4:]]), "log-probability 0.5, which is none"),
    (answer(values=[*VALUES[:3], "-1", *VALUES[4:]]), "log-probability -1, which is none"),
    (answer(values=[*VALUES[:3], True, *VALUES[4:]]), "log-probability True, which is none"),
    (answer(top=[*TOP[:3], {" ": None}, *TOP[4:]]), "a likely token (' ') the log-probability None"),
    (answer(["<s>", "It", " is", " ", "炉", "子", "!"]), "do not spell the text that was sent ('It was 炉子')"),
    (answer([*TOKENS[:2], 7, *TOKENS[3:]]), "names tokens that are no texts"),
]


@pytest.mark.parametrize("broken, message", BROKEN, ids=range(len(BROKEN)))
def test_scores_that_are_none(broken, message):
    with pytest.raises(UserError) as caught:
        read_echo(broken, TEXT)
    assert message in str(caught.value)


def test_no_log_probabilities_at_all():
    silent = answer()
    silent["choices"][0]["logprobs"] = None
    with pytest.raises(UserError, match=r"no log-probabilities of prompts \(no level B\)"):
        read_echo(silent, TEXT)
    with pytest.raises(UserError, match=r"of what it writes \(level D\): leave out alternatives"):
        read_completion(silent, True)
    assert read_completion(silent, False).text == TEXT + "!"


def test_a_text_with_what_else_might_have_been():
    lists = {"tokens": ["bytes:\\xe7"], "token_logprobs": [-1], "top_logprobs": [{"a": -2.0, "bytes:\\xe7": -1}]}
    choice = {"text": "", "finish_reason": "content_filter", "logprobs": lists}
    written = read_completion({"choices": [choice]}, True)
    assert written.alternatives == ((("\ufffd", -1), ("a", -2.0)),) and written.log_probabilities == (-1.0,)
    assert written.finish == "content_filter" and written.tokens is None


def chat(**changes):
    entry = {
        "token": "热",
        "logprob": -0.5,
        "top_logprobs": [{"token": "冷", "logprob": -1.0}, {"token": "热", "logprob": -0.5}],
    }
    message = {"role": "assistant", "content": "热"}
    choice = {"message": message, "finish_reason": "stop", "logprobs": {"content": [entry]}, **changes}
    return {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}


def test_a_reply_in_a_conversation():
    written = read_chat(chat(), True)
    assert (written.text, written.finish, written.prompt_tokens, written.tokens) == ("热", "stop", 9, 2)
    assert written.alternatives == ((("热", -0.5), ("冷", -1.0)),) and read_chat(chat(), False).alternatives == ()


@pytest.mark.parametrize("broken, message", [
    (chat(message={"content": None}), "no choices[0].message.content (there is 'None')"),
    (chat(message="热"), "no choices[0].message "),
    (chat(logprobs=None), "of what it writes (level D)"),
    (chat(logprobs={"content": ["热"]}), "no object at each place of logprobs.content"),
    (chat(logprobs={"content": [{"token": "热"}]}), "log-probability None, which is none"),
    (chat(logprobs={"content": [{"logprob": -1, "top_logprobs": [{"logprob": -1}]}]}), "names None as a token"),
    (chat(logprobs={"content": [{"logprob": -1}] * 5}), "wrote 2 tokens, but gives log-probabilities of 5"),
])  # fmt: skip
def test_replies_that_are_none(broken, message):
    with pytest.raises(UserError) as caught:
        read_chat(broken, True)
    assert message in str(caught.value)
