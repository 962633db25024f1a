"""Text in, text out: characters stay whole, stop texts stay unseen, a document begins once."""

import json
import math
import shutil
import weakref
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

from wenlu.base.errors import UserError
from wenlu.hub.folder import load
from wenlu.inference.adjust import Adjustments
from wenlu.inference.generator import Generator, Settings
from wenlu.inference.prompts import continue_all, read_prompts
from wenlu.inference.stream import StopTexts
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer, byte_level

TEXT = "红楼梦里的人说:天气真好😀👩‍👩‍👧, naïve café! Once upon a time there was a 文炉.\n" * 3


@pytest.fixture(scope="module")
def tokenizer():
    return learn("byte", [TEXT], None)


@pytest.fixture(scope="module")
def generator(tokenizer):
    return Generator(_model(tokenizer), tokenizer)


def _model(tokenizer, family="llama", context=128, **settings):
    model = build(ModelConfig(family, dim=32, layers=1, heads=2, context=context, vocab=tokenizer.vocab, **settings), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    return model


class Scripted(torch.nn.Module):
    """A model that writes a given text, whatever it reads."""

    def __init__(self, tokenizer, text, end=True):
        super().__init__()
        self.config = ModelConfig("llama", context=10_000, vocab=tokenizer.vocab)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.script = tokenizer.encode(text) + ([tokenizer.eos_id] if end else [])

    def new_cache(self, batch, length):
        self.at = 0

    def hidden(self, ids, cache=None):
        self.read = ids
        return torch.zeros(*ids.shape, 1)

    def head(self, hidden):
        self.at += 1
        wanted = torch.tensor(self.script[self.at - 1]).expand(hidden.shape[:-1])
        return torch.nn.functional.one_hot(wanted, self.config.vocab).float()


GREEDY = Settings(max_tokens=10_000, temperature=0)


@pytest.mark.parametrize("kind, vocab", [("byte", None), ("bpe", 300), ("char", None)])
def test_streaming_equals_whole_decoding(kind, vocab):
    tokenizer = learn(kind, [TEXT], vocab)
    stream = Generator(Scripted(tokenizer, TEXT), tokenizer).stream("人", GREEDY)
    pieces = list(stream)
    assert "".join(pieces) == TEXT == stream.result.text == tokenizer.decode(list(stream.result.ids))
    assert stream.result.finish == "eos" and not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) > 50, "it comes piece by piece"


def test_a_torn_character_at_the_end_is_shown_as_such(tokenizer):
    result = Generator(Scripted(tokenizer, "a😀"), tokenizer).generate("x", Settings(max_tokens=3, temperature=0))[0]
    assert result.finish == "length" and result.text.startswith("a") and set(result.text[1:]) == {"\ufffd"}


@pytest.mark.parametrize("kind", ["byte", "bpe"])
@pytest.mark.parametrize("stop, expected", [("END", "one "), ("。完", "one END 二"), ("ne", "o"), ("nowhere", None)])
def test_stop_texts_across_token_borders(kind, stop, expected):
    text = "one END 二。完 EN"
    tokenizer = learn(kind, [text], 300 if kind == "bpe" else None)
    settings = Settings(max_tokens=100, temperature=0, stop=(stop, "absent"))
    generator = Generator(Scripted(tokenizer, text), tokenizer)
    stream = generator.stream("x", settings)
    assert "".join(stream) == (text if expected is None else expected)
    assert stream.result.finish == ("eos" if expected is None else "stop")
    assert generator.generate("x", settings) == [stream.result]


def test_a_stop_text_completed_by_the_last_token_allowed(tokenizer):
    generator = Generator(Scripted(tokenizer, "abEND"), tokenizer)
    result = generator.generate("x", Settings(max_tokens=5, temperature=0, stop=("END",)))[0]
    assert result.text == "ab" and result.finish == "stop" and len(result.ids) == 5


def test_what_only_began_like_a_stop_text_is_given_out_at_the_end(tokenizer):
    generator = Generator(Scripted(tokenizer, "abEN"), tokenizer)
    stream = generator.stream("x", Settings(max_tokens=4, temperature=0, stop=("END",)))
    assert list(stream) == ["a", "b", "EN"] and stream.result.finish == "length"


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_texts_do_not_depend_on_where_pieces_are_cut(text, stops, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]

    def cut(pieces):
        cutter = StopTexts(tuple(stops))
        return "".join(cutter.push(piece) for piece in pieces) + cutter.flush(), cutter.found

    out, found = cut(pieces)
    assert (out, found) == cut([text])
    assert found == any(stop in text for stop in stops)
    assert text.startswith(out) and not any(stop in out for stop in stops)


def test_samples_do_not_depend_on_their_number(generator):
    settings = Settings(max_tokens=12, temperature=1.0, seed=4)
    five = generator.generate("红", settings, samples=5)
    assert five[:2] == generator.generate("红", settings, samples=2)
    assert generator.stream("红", settings).result == five[0]
    assert len({result.ids for result in five}) == 5
    assert generator.generate("红", Settings(max_tokens=12, temperature=1.0, seed=5)) != five[:1]


def test_greedy_samples_are_equal(generator):
    results = generator.generate("红", Settings(max_tokens=9, temperature=0), samples=3)
    assert results[0] == results[1] == results[2] and len(results[0].ids) == 9


def test_a_document_begins_with_the_separator_once(tokenizer):
    generator = Generator(Scripted(tokenizer, "a"), tokenizer)
    assert tokenizer.bos_id is not None
    assert generator.prompt_ids("hi") == [tokenizer.bos_id, *tokenizer.encode("hi")]
    assert generator.prompt_ids("") == [tokenizer.bos_id]
    written = generator.prompt_ids("<|endoftext|>")
    assert written.count(tokenizer.bos_id) == 1 and len(written) > 2, "a special token written in a prompt is text"
    result = generator.generate("hi", GREEDY)[0]
    assert result.prompt_tokens == 3


def test_without_a_bos_nothing_is_put_before_and_an_empty_prompt_is_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config.pop("bos_token")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    plain = Tokenizer.load(tmp_path)
    assert plain.bos_id is None
    generator = Generator(_model(plain), plain)
    assert generator.prompt_ids("hi") == plain.encode("hi")
    with pytest.raises(UserError, match="empty prompt begins at the bos token, but this tokenizer has none"):
        generator.stream("", GREEDY)
    from_model = Generator(_model(plain, bos_id=7), plain)
    assert from_model.prompt_ids("") == [7]


def test_an_encoder_cannot_write(tokenizer):
    model = build(ModelConfig(family="bert", dim=16, layers=1, heads=2, context=8, vocab=tokenizer.vocab), 0)
    with pytest.raises(UserError, match="a bert reads both ways and cannot write on: take a gpt2"):
        Generator(model, tokenizer)


def test_a_larger_tokenizer_is_refused(tokenizer):
    model = build(ModelConfig("lstm", dim=8, layers=1, vocab=20), 0)
    with pytest.raises(UserError, match=f"tokenizer has {tokenizer.vocab} ids, but the model only 20"):
        Generator(model, tokenizer)
    with pytest.raises(UserError, match="holds no tokenizer"):
        Generator(model, None)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": -1}, "temperature must be 0"),
        ({"temperature": 0, "top_p": 0}, "top_p must lie in"),
        ({"seed": -1}, "seed must not be negative"),
        ({"stop": ("a", "")}, "stop must be a tuple of texts"),
        ({"stop": "END"}, "stop must be a tuple of texts"),
        ({"stop": ["END"]}, "stop must be a tuple of texts"),
        ({"stop": None}, "stop must be a tuple of texts, none of them empty, not None"),
        ({"stop": (1,)}, "stop must be a tuple of texts"),
        ({"max_tokens": 50.0}, "max_tokens must be a whole number, not 50.0"),
        ({"max_tokens": float("inf")}, "max_tokens must be a whole number, not inf"),
        ({"max_tokens": None}, "max_tokens must be a whole number, not None"),
        ({"top_k": 2.5}, "top_k must be a whole number, not 2.5"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"beams": 2.0}, "beams must be a whole number, not 2.0"),
        ({"alternatives": 1.5}, "alternatives must be a whole number, not 1.5"),
        ({"temperature": "0.5"}, "temperature must be a number, not '0.5'"),
        ({"min_p": None}, "min_p must be a number, not None"),
        ({"beams": 3, "temperature": 0.1}, "3 beams draw nothing: leave out temperature and seed"),
        ({"beams": 3, "seed": 5}, "3 beams draw nothing: leave out temperature and seed"),
        ({"length_penalty": 2.0}, "length_penalty is for beams: give more than one, or leave it out"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(UserError, match=message):
        Settings(**settings)


def test_the_number_of_samples_is_checked(generator):
    with pytest.raises(UserError, match="samples must be at least 1, not 0"):
        generator.generate("a", samples=0)


def test_ids_without_a_token_are_never_chosen(tmp_path):
    """A tokenizer of which every other id is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    gaps = Tokenizer(byte_level(BPE({piece: 2 * id for id, piece in enumerate(alphabet)}, []), use_regex=False))
    generator = Generator(_model(gaps), gaps)
    bias = Adjustments(logit_bias=((1, 50.0), (0, -math.inf)))
    settings = Settings(max_tokens=40, temperature=1.0)
    found = generator.generate("ab", settings, samples=5)
    found += generator.generate("ab", Settings(max_tokens=20, beams=4), samples=4)
    found += generator.generate("ab", replace(settings, adjustments=bias))
    assert all(len(result.ids) >= 20 and all(id in gaps for id in result.ids) for result in found)
    (likeliest,) = generator.generate("ab", replace(settings, alternatives=gaps.vocab))
    assert all({id for id, _ in place} == set(range(0, gaps.vocab, 2)) for place in likeliest.alternatives)
    (tmp_path / "prompts").write_text('{"prompt": "ab"}\n{"prompt": "ba"}')
    prompts = read_prompts(tmp_path / "prompts", settings)
    assert continue_all(generator, "m", prompts, tmp_path / "out", lambda rows, result: None) == 0
    assert (tmp_path / "out").read_bytes().count(b"\n") == 2
    with pytest.raises(UserError, match="257 beams need as many tokens to begin with, but there are 256: take fewer"):
        generator.generate("ab", Settings(beams=257))


def test_a_model_that_goes_on_with_texts_answers_none(generator):
    with pytest.raises(UserError, match="this model goes on with texts: to be answered, make the Generator with chat="):
        generator.answer(["红"])


def test_length_and_context_are_told(tokenizer):
    gpt2 = Generator(_model(tokenizer, "gpt2", context=8), tokenizer)
    result = gpt2.generate("abc", Settings(max_tokens=50, temperature=0))[0]
    assert result.finish in ("context", "eos") and len(result.ids) <= 5
    llama = Generator(_model(tokenizer, "llama", context=8), tokenizer)
    long, short = (llama.generate("abc", Settings(max_tokens=n, temperature=0))[0] for n in (20, 5))
    assert (long.beyond_context, short.beyond_context) == (True, False)


@pytest.mark.data
def test_a_published_greedy_text_to_the_letter(data_dir, tmp_path):
    for file in (data_dir / "stories260K").iterdir():
        shutil.copy(file, tmp_path)
    expected = (tmp_path / "greedy.txt").read_text(encoding="utf-8")
    generator = Generator(*load(tmp_path))
    stream = generator.stream("", Settings(max_tokens=300, temperature=0))
    text = "".join(stream)
    assert text.startswith(expected.rstrip("\n")) and stream.result.prompt_tokens == 1
    begun = generator.generate("Once upon a time, there was a", Settings(max_tokens=20, temperature=0))[0]
    assert expected.startswith("Once upon a time, there was a" + begun.text) and begun.text.startswith(" little")


def test_every_end_token_of_the_configuration_ends_a_text(tokenizer):
    model = Scripted(tokenizer, "ab", end=False)
    other = tokenizer.encode("c")[0]
    model.script += [other] * 3
    assert Generator(model, tokenizer).generate("x", Settings(max_tokens=5, temperature=0))[0].text == "abccc"
    model.config = replace(model.config, eos_id=tokenizer.eos_id, other_eos_ids=(other,))
    result = Generator(model, tokenizer).generate("x", Settings(max_tokens=5, temperature=0))[0]
    assert (result.text, result.finish) == ("ab", "eos")


@pytest.mark.parametrize("dropped", ["half-read", "unread", "in a loop"])
def test_a_stream_that_is_dropped_is_cancelled(generator, dropped):
    engine = generator.engine
    other = generator.stream("一", replace(GREEDY, max_tokens=40))
    stream = generator.stream("红楼梦", replace(GREEDY, max_tokens=90))
    text, known = stream._text, weakref.ref(stream)
    if dropped == "half-read":
        next(stream)
    elif dropped == "in a loop":
        for _ in stream:
            break
    assert not stream.done
    del stream
    assert known() is None, "nothing else holds on to it"
    assert text.finish == "cancelled"
    engine.step()
    assert text not in engine.texts and other._text in engine.texts
    assert other.result.finish == "length", "its mate goes on"


def test_a_loop_over_a_stream_keeps_it(generator):
    settings = replace(GREEDY, max_tokens=30)
    assert "".join(generator.stream("红", settings)) == generator.generate("红", settings)[0].text


def test_a_text_that_fails_is_told_to_whoever_reads_it_and_to_nobody_else(tokenizer):
    model = _model(tokenizer, tied=False)
    bad = tokenizer.encode("好")[0]
    with torch.no_grad():
        model.embed.weight[bad] = float("nan")
    generator = Generator(model, tokenizer)
    fine, failing = (generator.stream(prompt, replace(GREEDY, max_tokens=6)) for prompt in ("x", "好"))
    with pytest.raises(UserError, match="logits are not finite"):
        list(failing)
    assert failing.done and fine.result.finish == "length"
    with pytest.raises(UserError, match="logits are not finite"):
        _ = failing.result
    with pytest.raises(UserError, match="logits are not finite"):
        generator.generate("好", GREEDY)
