"""T5 through the one decoding engine: cached = uncached, side by side = alone, text in and text out."""

from dataclasses import replace

import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.cli.main import main
from wenlu.hub.folder import save
from wenlu.inference.batch import Engine
from wenlu.inference.generate import generate
from wenlu.inference.generator import Generator, Settings
from wenlu.inference.sample import Greedy, Sampling, row_generators
from wenlu.inference.text import Request
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [5], [3, 5, 8]]


def random_model(vocab=61, seed=0, **changes):
    """All weights random, so that no layer is passed over and texts do not just repeat."""
    config = ModelConfig("t5", dim=32, layers=2, heads=4, vocab=vocab, tied=False, pad_id=0, **changes)
    model = build(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.5 if parameter.ndim == 1 else 0.0, 0.3, generator=generator)
    return model.eval()


def uncached(model, prompt, count):
    """Greedy, everything read anew for each token, and the smallest margin of its choices."""
    ids, margin = [model.begin_id], float("inf")
    for _ in range(count):
        with torch.inference_mode():
            best = model(torch.tensor([prompt]), torch.tensor([ids]))[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return ids[1:], margin


def texts_of(model, requests):
    """All of them side by side."""
    engine = Engine(model)
    texts = [engine.add(request) for request in requests]
    while engine.step():
        pass
    return texts


@pytest.mark.parametrize("prompt", PROMPTS)
def test_cached_equals_uncached(prompt):
    model = random_model()
    expected, margin = uncached(model, prompt, 30)
    assert margin > 2e-4, "a tie would make this test say nothing"
    assert list(generate(model, prompt, Greedy(), 30)) == expected
    assert len(set(expected)) > 3 or len(prompt) < 8


def test_side_by_side_is_alone():
    model = random_model()
    alone = [list(generate(model, prompt, Greedy(), 20)) for prompt in PROMPTS]
    assert [text.ids for text in texts_of(model, [Request(tuple(ids), max_tokens=20) for ids in PROMPTS])] == alone
    assert alone[0] != alone[1] != alone[2]


def test_a_row_ends_alone():
    model = random_model()
    free = [text.ids for text in texts_of(model, [Request(tuple(ids), max_tokens=20) for ids in PROMPTS])]
    end = free[0][3]
    ended = texts_of(model, [Request(tuple(ids), max_tokens=20, stop_ids=frozenset([end])) for ids in PROMPTS])
    assert [text.ids for text in ended] == [ids[: ids.index(end)] if end in ids else ids for ids in free]
    assert ended[0].finish == "eos" and not Engine(model).beyond_context(ended[0])


def test_a_sample_does_not_depend_on_how_many_there_are():
    model = random_model()

    def sample(rows):
        requests = [Request(tuple(PROMPTS[0]), Sampling(1.0), 15, generator=g) for g in row_generators(5, rows)]
        return [text.ids for text in texts_of(model, requests)]

    four = sample(4)
    assert four[:1] == sample(1) and len({tuple(ids) for ids in four}) == 4


def test_the_source_is_read_once(monkeypatch):
    model = random_model()
    read, encode = [], model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda x, *rest: read.append(tuple(x.shape)) or encode(x, *rest))
    list(generate(model, PROMPTS[0], Greedy(), 6))
    assert read == [(1, 8, model.config.dim)]


def test_refusals():
    with pytest.raises(UserError, match="a model cannot begin from nothing"):
        Engine(random_model()).add(Request(()))
    with pytest.raises(UserError, match="decoder begins with the padding token"):
        next(generate(build(replace(random_model().config, pad_id=None), 0), [1], Greedy(), 3))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with a tokenizer, and what it holds."""
    tokenizer = learn("char", ["the cat sat on the mat. 猫坐在垫子上。"])
    model = random_model(tokenizer.vocab, eos_id=tokenizer.eos_id)
    folder = tmp_path_factory.mktemp("t5")
    save(model, tokenizer, folder)
    return folder, Generator(model, tokenizer)


def test_text_in_and_text_out(written):
    _, generator = written
    settings = Settings(max_tokens=12, temperature=0)
    texts = ["the cat", "猫", "", "on the mat."]
    alone = [generator.generate(text, settings)[0] for text in texts]
    assert generator.answer(texts, settings) == alone
    assert alone[0].prompt_tokens == 8  # its end token is read too
    assert "".join(generator.stream(texts[0], settings)) == alone[0].text
    assert generator.answer([], settings) == []
    drawn = Settings(max_tokens=12, seed=4)
    assert generator.answer(texts, drawn) == [generator.generate(text, drawn)[0] for text in texts]


def test_the_command(written, capsys):
    folder, generator = written
    wanted = generator.generate("the cat", Settings(max_tokens=9, temperature=0))[0].text
    assert main(["generate", str(folder), "--prompt", "the cat", "--max-tokens", "9", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == wanted + "\n"


def test_memory_held_counts_what_the_encoder_has_read():
    model, held = random_model(), []
    for source in (8, 16):
        engine = Engine(model)
        engine.add(Request(tuple(range(3, 3 + source)), max_tokens=4))
        engine.step()
        held.append(engine.bytes)
    config = model.config
    assert held[1] - held[0] == 8 * 2 * config.decoder_layers * config.heads * config.head_dim * 4
