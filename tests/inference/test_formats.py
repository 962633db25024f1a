"""Law 8 in other number formats: how far logits in bf16 and int8 are from those in f32, on real texts.

ε is stated as parts of the spread (standard deviation) of the f32 logits, for a logit's size has no meaning of its
own; docs/generation.md states the same. No claim is made on ids.
"""

import pytest
import torch

from wenlu.compress.quantize import quantize
from wenlu.hub.folder import load
from wenlu.inference.kernels import fast
from wenlu.inference.reading import evaluating
from wenlu.models import kernels as compiled

EPSILON = {"bf16": 0.2, "int8": 0.1}
"""Of the logit that differs most, of 330,000."""
USUAL = {"bf16": 0.012, "int8": 0.012}
"""Of the root of the mean square of all differences."""
TOKENS, STEPS = 400, 50


def in_format(folder, form):
    return quantize(load(folder)[0]) if form == "int8" else load(folder, dtype=torch.bfloat16)[0]


def texts(data_dir, tokenizer):
    """One that the model has written itself, and one like none that it has learned."""
    own = (data_dir / "stories260K" / "greedy.txt").read_text(encoding="utf-8")
    other = (data_dir / "english" / "wikitext2_test.txt").read_text(encoding="utf-8")[:4000]
    return [[tokenizer.bos_id, *tokenizer.encode(text)][:TOKENS] for text in (own, other)]


def step_by_step(model, ids):
    cache = model.new_cache(1, ids.shape[1])
    return torch.cat([model.head(model.hidden(one, cache=cache)) for one in ids.split(1, dim=1)], dim=1)


@pytest.mark.data
@pytest.mark.parametrize("form", list(EPSILON))
@pytest.mark.parametrize("way", ["at once", "step by step by kernels"])
def test_teacher_forced_logits_are_within_epsilon_of_f32(data_dir, form, way, kernel_cache, monkeypatch):
    if way != "at once":
        if compiled._found_compiler() is None:
            pytest.skip("no C++ compiler on this machine")
        assert compiled.kernels() is not None
        monkeypatch.setattr("wenlu.inference.kernels.plain", None)  # torch's products, which nothing is to take
    folder = data_dir / "stories260K"
    exact, tokenizer = load(folder)
    rounded = in_format(folder, form)
    for number, ids in enumerate(texts(data_dir, tokenizer)):
        ids = torch.tensor([ids if way == "at once" else ids[:STEPS]])
        with evaluating(exact), evaluating(rounded):
            wanted = exact(ids)
            if way == "at once":
                found = rounded(ids)
            else:
                with fast(rounded, measured=False):
                    found = step_by_step(rounded, ids)
        away = (found.float() - wanted).abs() / wanted.std()
        assert away.max() < EPSILON[form] and away.square().mean().sqrt() < USUAL[form], number
        assert away.max() > EPSILON[form] / 20, "a format that rounds nothing is not that format"


@pytest.mark.data
def test_a_rounding_that_is_coarser_is_found(data_dir):
    """ε is no empty promise: weights of half as many digits break it."""
    exact, tokenizer = load(data_dir / "stories260K")
    coarse, _ = load(data_dir / "stories260K")
    with torch.no_grad():
        for parameter in coarse.parameters():
            parameter.copy_((parameter * 8 / parameter.abs().amax()).round() * parameter.abs().amax() / 8)
    ids = torch.tensor([texts(data_dir, tokenizer)[0]])
    with evaluating(exact), evaluating(coarse):
        wanted, found = exact(ids), coarse(ids)
    away = (found - wanted).abs() / wanted.std()
    assert away.max() > max(EPSILON.values()) and away.square().mean().sqrt() > max(USUAL.values())
