"""Constrained decoding: whatever the logits, the text is what was asked for; only where it is may it end."""

import json
import random
import re

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models

from wenlu.base.errors import UserError
from wenlu.inference.constrain import Constrainer, Constraint, masked
from wenlu.inference.sample import row_generators
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer

CORPUS = [
    'The cat sat on the mat; the dogs don\'t. {"name": "Ann", "age": 31}\n',
    '天地玄黄，宇宙洪荒。{"城市": "北京", "人": [1, 2]}日月盈昃，辰宿列张。\n',
] * 5
KINDS = ("bpe", "unigram", "char", "byte", "sentencepiece")
BYTES = learn("byte", [])
CHOICES = ("yes", "yesterday", "no", "北京", "北方 (N)", ' a "b"\n', "the cat", "龘🙂")
SCHEMA = {
    "type": "object",
    "properties": {
        "名字": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mood": {"enum": ["好", "bad", None]},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-c天]{1,3}$"}, "maxItems": 3},
    },
    "required": ["名字", "age", "mood", "tags"],
    "additionalProperties": False,
}
SUM = 'start: term ("+" term)*\nterm: NUMBER | "(" start ")"\nNUMBER: /[0-9]{1,3}/'
REGEX = r"[A-C]{2,4}-[0-9]{1,3}(和|与)?[一-三]{1,4}x*"


@pytest.fixture(scope="module")
def learned() -> dict[str, Tokenizer]:
    return {
        "bpe": learn("bpe", CORPUS, 400),
        "unigram": learn("unigram", CORPUS, 400),
        "char": learn("char", CORPUS),
        "byte": learn("byte", []),
        "sentencepiece": _sentencepiece(),
    }


def _sentencepiece(byte_tokens: bool = True) -> Tokenizer:
    """A tokenizer of Llama's form: a space before the text, byte fallback, the space taken off again."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256 * byte_tokens)), "▁", *"abcdehty中北"]
    tokens += ["▁t", "he", "▁the", "▁yes", "▁北", "▁▁"]
    vocab = {token: id for id, token in enumerate(tokens)}
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[("h", "e")], unk_token="<unk>", byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    inner.decoder = decoders.Sequence(steps)
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    return Tokenizer(inner, bos="<s>", eos="</s>")


def _constrainer(tokenizer: Tokenizer, more: int = 3) -> Constrainer:
    return Constrainer(tokenizer, tokenizer.vocab + more, [tokenizer.end_id])


def _draw(matcher, tokenizer, generator, end: float = 2.0, limit: int = 400) -> list[int]:
    """The ids of a text drawn from random logits; the end token's is raised by `end`."""
    ids = []
    while len(ids) < limit:
        allowed = matcher.allowed()
        assert allowed[tokenizer.end_id] == matcher.complete
        logits = torch.randn(len(allowed), generator=generator)
        logits[tokenizer.end_id] += end
        id = int(torch.multinomial(masked(logits, allowed).softmax(-1), 1, generator=generator))
        matcher.push(id)
        if id == tokenizer.end_id:
            return ids
        assert id in tokenizer and id not in tokenizer.special_ids and tokenizer.token_bytes(id)
        ids.append(id)
    raise AssertionError("the text did not end")


def _texts(tokenizer: Tokenizer, constraint: Constraint, draws: int) -> list[str]:
    matcher = _constrainer(tokenizer).matcher(constraint)
    return [tokenizer.decode(_draw(matcher.copy(), tokenizer, one)) for one in row_generators(0, draws)]


def _check_person(text: str) -> None:
    person = json.loads(text)
    text.encode()
    assert list(person) == ["名字", "age", "mood", "tags"], "in the schema's order"
    assert len(person["名字"]) <= 6 and 0 <= person["age"] <= 150 and person["mood"] in ("好", "bad", None)
    assert len(person["tags"]) <= 3 and all(re.fullmatch("[a-c天]{1,3}", tag) for tag in person["tags"])
    assert re.search(r"[\n\t]", text) is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_is_one_of_the_choices_and_each_is_reached(learned, kind):
    texts = _texts(learned[kind], Constraint("choices", CHOICES), 150)
    assert set(texts) <= set(CHOICES)
    assert len(set(texts)) >= 7


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_matches_the_expression(learned, kind):
    texts = _texts(learned[kind], Constraint("regex", REGEX), 40)
    assert all(re.fullmatch(REGEX, text) for text in texts) and len(set(texts)) > 30


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_is_json_of_the_schema(learned, kind):
    for text in _texts(learned[kind], Constraint("json_schema", SCHEMA), 12):
        _check_person(text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_is_of_the_grammar(learned, kind):
    for text in _texts(learned[kind], Constraint("grammar", SUM), 25):
        assert re.fullmatch(r"[0-9+()]+", text)
        assert isinstance(eval(re.sub(r"0+(?=\d)", "", text)), int)


@pytest.mark.data
@pytest.mark.parametrize("name", ["gpt2", "minimind_6400"])
def test_real_vocabularies(data_dir, name):
    tokenizer = Tokenizer.load(data_dir / "tokenizers" / name)
    for text in _texts(tokenizer, Constraint("json_schema", SCHEMA), 4):
        _check_person(text)
    assert set(_texts(tokenizer, Constraint("choices", CHOICES), 8)) <= set(CHOICES)


@pytest.mark.data
def test_wordpiece_writes_what_its_tokens_can_spell(data_dir):
    tokenizer = Tokenizer.load(data_dir / "tokenizers" / "bert_base_uncased")
    texts = _texts(tokenizer, Constraint("choices", ("the cat sat", "yes", "no idea")), 12)
    assert set(texts) == {"the cat sat", "yes", "no idea"}
    with pytest.raises(UserError, match="choices cannot be kept at its beginning: no token"):
        _constrainer(tokenizer).matcher(Constraint("choices", ("Capitals",)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("begins", [True, False])
def test_exactly_the_tokens_that_go_on_are_allowed(learned, kind, begins):
    """By force: a token may come iff its bytes, after those before, begin one of the choices."""
    tokenizer, rng = learned[kind], random.Random(0)
    goals = [choice.encode() for choice in CHOICES]
    prompt = [tokenizer.bos_id] if begins else tokenizer.encode("the")
    first = _constrainer(tokenizer).matcher(Constraint("choices", CHOICES), prompt)
    for _ in range(12):
        matcher, ids, written = first.copy(), [], b""
        while True:
            after = {
                id: b"".join(tokenizer.pieces([*prompt, *ids, id])[len(prompt) :])
                for id in range(tokenizer.vocab)
                if id in tokenizer and id not in tokenizer.special_ids
            }
            wanted = {id for id, now in after.items() if now != written and any(goal.startswith(now) for goal in goals)}
            wanted |= {tokenizer.end_id} if written in goals else set()
            assert set(matcher.allowed().nonzero().flatten().tolist()) == wanted
            assert matcher.done == (wanted == {tokenizer.end_id})
            id = rng.choice(sorted(wanted))
            matcher.push(id)
            if id == tokenizer.end_id:
                break
            ids, written = [*ids, id], after[id]
        assert matcher.done and matcher.complete and written in goals


def test_the_space_before_a_text_is_the_tokenizers_own(learned):
    tokenizer = learned["sentencepiece"]
    yes = tokenizer.copy_of_library().token_to_id("▁yes")
    constrainer, constraint = _constrainer(tokenizer), Constraint("choices", ("yes",))
    assert constrainer.matcher(constraint, [tokenizer.bos_id]).allowed()[yes]
    assert not constrainer.matcher(constraint, tokenizer.encode("the")).allowed()[yes]


def test_a_character_of_bytes_is_written_whole(learned):
    tokenizer = learned["char"]
    matcher = _constrainer(tokenizer).matcher(Constraint("regex", "龘+"))
    for byte in "龘".encode():
        assert not matcher.complete and not matcher.allowed()[tokenizer.end_id]
        assert matcher.allowed().sum() == 1 and matcher.forced()[0] == byte
        matcher.push(int(matcher.allowed().nonzero()))
    assert matcher.complete and not matcher.done


@pytest.mark.parametrize("kind", KINDS)
def test_taken_back_is_never_pushed(learned, kind):
    tokenizer, rng = learned[kind], random.Random(1)
    constrainer, constraint = _constrainer(tokenizer), Constraint("regex", "(yes|the|中){1,4}")
    matcher = constrainer.matcher(constraint)
    kept, ids = [matcher.copy()], []
    for _ in range(60):
        if ids and (ids[-1] == tokenizer.end_id or rng.random() < 0.3):
            back = rng.randint(1, len(ids))
            matcher.rollback(back)
            del ids[-back:], kept[-back:]
        assert torch.equal(matcher.allowed(), kept[-1].allowed())
        assert (matcher.complete, matcher.done) == (kept[-1].complete, kept[-1].done)
        ids.append(rng.choice(matcher.allowed().nonzero().flatten().tolist()))
        matcher.push(ids[-1])
        kept.append(matcher.copy())
    fresh = constrainer.matcher(constraint)
    for id in ids:
        fresh.push(id)
    assert fresh.done == matcher.done and fresh.complete == matcher.complete


def test_special_tokens_written_out_are_text(learned):
    for kind in KINDS:
        tokenizer = learned[kind]
        name = tokenizer.token_bytes(tokenizer.end_id).decode()
        assert set(_texts(tokenizer, Constraint("choices", (name,)), 3)) == {name}


def test_several_end_tokens_and_a_narrow_head(learned):
    tokenizer = learned["byte"]
    other = tokenizer.encode("z")[0]
    matcher = Constrainer(tokenizer, tokenizer.vocab, [other, tokenizer.end_id]).matcher(Constraint("regex", "a|z"))
    assert not matcher.allowed()[other], "an end token is no text"
    matcher.push(tokenizer.encode("a")[0])
    assert matcher.done
    assert matcher.allowed().nonzero().flatten().tolist() == sorted([other, tokenizer.end_id])
    narrow = learned["bpe"]
    matcher = Constrainer(narrow, narrow.vocab - 50, [narrow.end_id]).matcher(Constraint("regex", ".*"))
    assert matcher.allowed().shape == (narrow.vocab - 50,)


def test_masked_leaves_what_is_allowed():
    logits, allowed = torch.randn(2, 4), torch.tensor([[True, False, True, False], [False, True, True, True]])
    out = masked(logits, allowed)
    assert torch.equal(out[allowed], logits[allowed]) and (out[~allowed] == -torch.inf).all()
    assert torch.equal(masked(logits, allowed[:1])[1] == -torch.inf, ~allowed[0])


def test_json_may_be_given_as_text_and_a_constraint_is_a_value():
    one, other = Constraint("json_schema", SCHEMA), Constraint("json_schema", json.dumps(SCHEMA))
    assert one == other and hash(one) == hash(other) and Constraint("choices", ["a"]).source == ("a",)


def test_whitespace_is_as_the_schema_says(learned):
    schema = {"enum": [{"a": [1, 2]}]}
    assert set(_texts(learned["byte"], Constraint("json_schema", schema), 30)) <= {
        f'{{"a":{space}[1,{more}2]}}' for space in ("", " ") for more in ("", " ")
    }
    tight = schema | {"x-guidance": {"item_separator": ",", "key_separator": ":"}}
    assert set(_texts(learned["byte"], Constraint("json_schema", tight), 3)) == {'{"a":[1,2]}'}


def test_a_dead_end_is_said():
    tokenizer = _sentencepiece(byte_tokens=False)
    matcher = _constrainer(tokenizer).matcher(Constraint("choices", ("the cat",)))
    for piece in ("▁the", "▁", "c", "a"):
        matcher.push(tokenizer.copy_of_library().token_to_id(piece))
        if piece != "a":
            matcher.allowed()
    goal = matcher.copy()
    goal.push(tokenizer.copy_of_library().token_to_id("t"))
    assert goal.done
    matcher = _constrainer(tokenizer).matcher(Constraint("regex", "the dog"))
    for piece in ("▁the", "▁", "d"):
        matcher.push(tokenizer.copy_of_library().token_to_id(piece))
    with pytest.raises(UserError, match="the regex cannot be kept after 'the d': no token of this tokenizer") as error:
        matcher.allowed()
    assert "loosen it, or take a tokenizer that has every byte" in str(error.value)


def test_what_is_too_much_to_follow_is_said(learned, monkeypatch):
    matcher = _constrainer(learned["byte"]).matcher(Constraint("regex", "a+b"))
    matcher.push(learned["byte"].encode("a")[0])

    class Exhausted:
        def is_accepting(self):
            return False

        def is_error(self):
            return True

        is_stopped = is_error

        def get_error(self):
            return "LexerTooComplex: out of fuel\n<state>\nmore"

    monkeypatch.setattr(matcher, "_inner", Exhausted())
    with pytest.raises(UserError, match="the regex is too much to follow: LexerTooComplex: out of fuel; simplify it"):
        matcher.allowed()


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4, unique=True))
def test_any_text_may_be_a_choice(texts):
    matcher = _constrainer(BYTES).matcher(Constraint("choices", texts))
    for text in texts:
        one = matcher.copy()
        for id in BYTES.encode(text):
            one.push(id)
        assert one.complete and one.done == (not any(t != text and t.startswith(text) for t in texts))


def test_a_token_that_may_not_come_is_our_mistake(learned):
    matcher = _constrainer(learned["byte"]).matcher(Constraint("regex", "a"))
    with pytest.raises(AssertionError, match="may not come next"):
        matcher.push(learned["byte"].encode("b")[0])
    with pytest.raises(AssertionError, match="cannot be taken back"):
        matcher.rollback(1)


@pytest.mark.parametrize(
    "kind, source, message",
    [
        ("regx", "a", r"one of choices, regex, json_schema, grammar, not 'regx'\. Did you mean 'regex'\?"),
        ("choices", (), "choices must be a list of texts, at least one"),
        ("choices", "yes", "choices must be a list of texts"),
        ("choices", ("a", 3), "choices must be a list of texts"),
        ("choices", ("a", ""), "choices must not hold an empty text: remove it"),
        ("choices", ("a", "b", "a"), "choices hold 'a' twice: remove one"),
        ("choices", ("\ud800",), "lone surrogate"),
        ("regex", "", "a regex must be a text, and not an empty one"),
        ("regex", 3, "a regex must be a text"),
        ("regex", "(a", r"the regex '\(a' cannot be used: unclosed group\nuse Rust's syntax"),
        ("regex", "a$b", "cannot be used: lookarounds not supported yet; End in regex"),
        ("regex", "a(?=b)", "look-around, including look-ahead and look-behind, is not supported"),
        ("regex", "a\ud800", "lone surrogate"),
        ("json_schema", "{", r"the json_schema '\{' is not JSON \(Expecting.*mend it"),
        ("json_schema", {"const": {1}}, "is not JSON"),
        ("json_schema", {"const": float("nan")}, "is not JSON"),
        ("json_schema", "[]", "must be an object such as"),
        ("json_schema", {"not": {}}, r'cannot be used: Unimplemented keys: \["not"\]\nleave out or change'),
        ("json_schema", {"enum": []}, "Unsatisfiable schema"),
        ("json_schema", {"type": "string", "pattern": "("}, "unclosed group"),
        ("json_schema", {"x-guidance": 1}, "x-guidance in a json_schema must be an object"),
        ("json_schema", {"x-guidance": {"foo": 1}}, "unknown field `foo`"),
        ("grammar", "start: a", "line 1, column 8: unknown name"),
        ("grammar", 'foo: "a"', "no start rule found\nwrite it in llguidance's Lark, with a rule `start`"),
        ("grammar", 'start: "a" <x>', "it names a special token, and those are no text"),
        ("grammar", 'start: "a" <[1]>', "it names a special token, and those are no text"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(kind, source, message):
    with pytest.raises(UserError, match=message) as error:
        Constraint(kind, source)
    assert str(error.value).count("\n") <= 1


def test_a_grammar_without_any_text_is_refused(learned):
    with pytest.raises(UserError, match="the grammar cannot be kept at its beginning"):
        _constrainer(learned["byte"]).matcher(Constraint("grammar", 'start: start "a"'))


@pytest.mark.parametrize("eos_ids, given", [([], "none"), ([9999], "9999"), ([-1], "-1")])
def test_a_text_that_could_never_end_is_refused(learned, eos_ids, given):
    with pytest.raises(UserError, match=rf"needs end tokens with ids in 0 to 256, not {given}: name an eos"):
        Constrainer(learned["byte"], 257, eos_ids)
