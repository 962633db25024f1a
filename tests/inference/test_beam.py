"""Beam search: one beam is greedy, what is found is what Transformers finds, prompts side by side are prompts alone."""

import json

import pytest
import torch
from transformers import T5ForConditionalGeneration

from wenlu.base.errors import UserError
from wenlu.cli.main import main
from wenlu.hub.folder import save
from wenlu.inference.beam import Beams, beam_search
from wenlu.inference.generate import generate
from wenlu.inference.generator import Generator, Settings
from wenlu.inference.sample import Greedy
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [5], [3, 5, 8]]
END = 1


def random_model(family="t5", vocab=23, seed=0):
    """All weights random, the head's small, so that texts of many kinds have similar probabilities."""
    ids = {"pad_id": 0, "eos_id": END} if family == "t5" else {"eos_id": END}
    model = build(ModelConfig(family, dim=32, layers=2, heads=4, vocab=vocab, tied=False, context=64, **ids), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = parameter.ndim == 1 and "norm" in name and not name.endswith("bias")
            parameter.normal_(0.5 if gain else 0.0, 0.4, generator=generator)
    return model.eval()


def log_probability(model, prompt, hypothesis):
    """Of a hypothesis, by one reading of the whole."""
    ids = [*hypothesis.ids, *([END] if hypothesis.finish == "eos" else [])]
    with torch.inference_mode():
        if model.config.family == "t5":
            logits = model(torch.tensor([prompt]), torch.tensor([[0, *ids[:-1]]]))[0]
        else:
            logits = model(torch.tensor([[*prompt, *ids[:-1]]]))[0, len(prompt) - 1 :]
    return sum(logits.log_softmax(-1)[place, token].item() for place, token in enumerate(ids))


@pytest.mark.parametrize("family", ["lstm", "gpt2", "qwen3", "mistral", "t5"])
def test_one_beam_is_greedy(family):
    model = random_model(family)
    for prompt in PROMPTS:
        ((found,),) = beam_search(model, [prompt], Beams(1), 25, [END])
        assert list(found.ids) == list(generate(model, prompt, Greedy(), 25, [END]))
        assert found.log_probability == pytest.approx(log_probability(model, prompt, found), abs=1e-3)


@pytest.mark.parametrize("family", ["lstm", "gpt2", "qwen3", "t5"])
def test_probabilities_and_order(family):
    model = random_model(family)
    (found,) = beam_search(model, PROMPTS[:1], Beams(5), 12, [END])
    assert len(found) == 5 and len({h.ids for h in found}) == 5
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for one in found:
        assert one.log_probability == pytest.approx(log_probability(model, PROMPTS[0], one), abs=1e-3)
        length = len(one.ids) + (one.finish == "eos")
        assert one.score == pytest.approx(one.log_probability / ((5 + length) / 6) ** 0.6)


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_that_forgets_nothing_finds_the_best(seed):
    """Two tokens of five, of which one ends: by trying all of them."""
    model = random_model(vocab=5, seed=seed)
    prompt = [[3, 2, 4]]
    (found,) = beam_search(model, prompt, Beams(4, 0.0), 2, [END])
    with torch.inference_mode():
        first = model(torch.tensor(prompt), torch.tensor([[0]]))[0, -1].log_softmax(-1)
        others = [token for token in range(5) if token != END]
        second = model(torch.tensor(prompt * 4), torch.tensor([[0, t] for t in others]))[:, -1].log_softmax(-1)
    whole = {(): first[END].item()}
    for row, token in enumerate(others):
        for last in range(5):
            ids = (token,) if last == END else (token, last)
            whole[ids] = (first[token] + second[row, last]).item()
    best = max(whole, key=whole.get)
    assert found[0].ids == best and found[0].log_probability == pytest.approx(whole[best], abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("number", [2, 3, 4])
def test_it_finds_what_transformers_finds(tmp_path, seed, number):
    model = random_model(seed=seed)
    save(model, None, tmp_path)
    reference = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    for prompt in PROMPTS:
        settings = {"num_beams": number, "num_return_sequences": number, "early_stopping": True, "length_penalty": 0.0}
        wanted = reference.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=15, **settings)
        (found,) = beam_search(model, [prompt], Beams(number, 0.0), 15, [END])
        texts = [tuple(row[1:].tolist()) for row in wanted]  # filled up with end tokens
        texts = [text[: text.index(END) + 1] if END in text else text for text in texts]
        assert [(*h.ids, END) if h.finish == "eos" else h.ids for h in found] == texts


def test_side_by_side_is_alone():
    model = random_model()
    alone = [beam_search(model, [prompt], Beams(3), 15, [END])[0] for prompt in PROMPTS]
    together = beam_search(model, PROMPTS, Beams(3), 15, [END])
    for one, other in zip(alone, together, strict=True):
        assert [(h.ids, h.finish) for h in one] == [(h.ids, h.finish) for h in other]
        assert all(a.score == pytest.approx(b.score, abs=1e-4) for a, b in zip(one, other, strict=True))


def test_gpt2_stops_where_its_positions_end():
    (found,) = beam_search(random_model("gpt2"), [[2] * 60], Beams(2), 100)
    assert {(len(h.ids), h.finish) for h in found} == {(5, "context")}


def test_length_is_paid_for():
    """By the formula of Wu et al. (2016), 14."""
    assert Beams(4, 1.0).score(-6.0, 7) == -3.0 and Beams(4, 0.0).score(-6.0, 7) == -6.0
    assert Beams(4, 2.0).score(-6.0, 7) == -1.5 and Beams(4, 0.6).score(-6.0, 1) == -6.0


def test_refusals():
    with pytest.raises(UserError, match="beams must be at least 1, not 0"):
        Beams(0)
    with pytest.raises(UserError, match=r"length_penalty must be 0 \(none\) or a positive number, not -1"):
        Beams(2, -1.0)
    with pytest.raises(UserError, match="30 beams need as many tokens to begin with, but there are 22: take fewer"):
        beam_search(random_model(), PROMPTS, Beams(30), 5, [END])
    with pytest.raises(UserError, match="llama continues prompts of one length only: t5 reads others side by side"):
        beam_search(random_model("llama"), [[2, 3], [2]], Beams(2), 5)
    with pytest.raises(UserError, match="4 beams draw nothing: leave out top_k, top_p and min_p"):
        Settings(beams=4, top_k=3)
    with pytest.raises(UserError, match="4 beams end at end tokens only: leave out stop"):
        Settings(beams=4, stop=("x",))
    with pytest.raises(UserError, match="4 beams find as many texts: samples must be no more, not 5"):
        Settings(beams=4).check_samples(5)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    tokenizer = learn("char", ["the cat sat on the mat. 猫坐在垫子上。"])
    model = random_model(vocab=tokenizer.vocab)
    folder = tmp_path_factory.mktemp("t5")
    save(model, tokenizer, folder)
    return folder, Generator(model, tokenizer)


def test_text_in_and_text_out(written):
    _, generator = written
    settings = Settings(max_tokens=12, beams=3)
    texts = ["the cat", "猫", "on the mat."]
    found = [generator.generate(text, settings, samples=3) for text in texts]
    assert [result.ids for result in generator.answer(texts, settings)] == [results[0].ids for results in found]
    assert len({result.ids for result in found[0]}) == 3
    assert generator.generate(texts[0], settings) == found[0][:1]
    with pytest.raises(UserError, match="beams know a text only when they are done"):
        generator.stream(texts[0], settings)


def test_the_command(written, capsys):
    folder, generator = written
    flags = ["generate", str(folder), "--prompt", "the cat", "--max-tokens", "9", "--beams", "3"]
    wanted = generator.generate("the cat", Settings(max_tokens=9, beams=3), samples=2)
    assert main(flags) == 0
    assert capsys.readouterr().out == wanted[0].text + "\n"
    assert main([*flags, "--samples", "2", "--json"]) == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    assert [sample["text"] for sample in samples] == [result.text for result in wanted]
    assert samples[0]["log_probability"] == pytest.approx(wanted[0].log_probability, abs=1e-4)
