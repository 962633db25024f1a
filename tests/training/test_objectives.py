"""Losses: in chunks as at once, batches in parts as whole."""

import tempfile

import pytest
import torch
import torch.nn.functional as F

import wenlu.training.objectives as objectives
from wenlu.base.errors import UserError
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.training.objectives import (
    NO_TARGET,
    TUNING,
    best_span,
    by_row,
    causal,
    classification,
    objective_of,
    span_extraction,
    tagging,
)

FORMS = [("lstm", True), ("lstm", False), ("gpt2", True), ("llama", True), ("qwen3", True), ("qwen3", False)]


def model_and_windows(family: str, tied: bool, dtype: torch.dtype = torch.float32):
    config = ModelConfig(family, dim=16, layers=2, heads=2, kv_heads=0, context=12, vocab=37, tied=tied)
    model = build(config, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    windows = torch.randint(37, (5, 13), generator=generator)
    return model.to(dtype), {"ids": windows[:, :-1], "targets": windows[:, 1:]}


def gradients(model, loss) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(("family", "tied"), FORMS)
def test_the_loss_is_the_summed_cross_entropy(family, tied):
    model, windows = model_and_windows(family, tied)
    loss, count = causal(model, windows)
    assert count == 5 * 12
    wanted = -model(windows["ids"]).log_softmax(-1).gather(2, windows["targets"][:, :, None]).sum()
    assert torch.allclose(loss, wanted, rtol=1e-5)


@pytest.mark.parametrize(("family", "tied"), FORMS)
@pytest.mark.parametrize("rows", [1, 7, 20, 59])
def test_chunked_is_whole(family, tied, rows, monkeypatch):
    model, windows = model_and_windows(family, tied)
    whole, _ = causal(model, windows)
    expected = gradients(model, whole)
    monkeypatch.setattr(objectives, "WHOLE_LOGITS", rows * 37)
    chunked, _ = causal(model, windows)
    assert chunked.grad_fn.name().startswith("_ChunkedLoss")
    assert abs(float(chunked.detach()) / float(whole.detach()) - 1) < 1e-5
    for name, gradient in gradients(model, chunked).items():
        assert torch.allclose(gradient, expected[name], rtol=1e-5, atol=1e-5 * float(expected[name].abs().max())), name


@pytest.mark.parametrize("rows", [7, 1000])
def test_smoothed_targets_are_certain_to_a_part_only(rows, monkeypatch):
    """Szegedy et al. (2016): (1 - s) of the loss, and s of the mean over all classes; gradients in chunks too."""
    model, windows = model_and_windows("qwen3", False)
    logs = model(windows["ids"]).log_softmax(-1)
    picked = logs.gather(2, windows["targets"][:, :, None]).sum()
    wanted = -(0.9 * picked + 0.1 * logs.mean(-1).sum())
    expected = gradients(model, wanted)
    monkeypatch.setattr(objectives, "WHOLE_LOGITS", rows * 37)
    loss = objectives.head_loss(model, model.hidden(windows["ids"]), windows["targets"], 0.1)
    assert torch.allclose(loss, wanted, rtol=1e-5)
    for name, gradient in gradients(model, loss).items():
        assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=1e-5 * float(expected[name].abs().max())), name


def test_smoothing_is_for_training_and_not_for_what_is_held_out():
    plain = objectives.TUNING["pairs"]
    assert objectives.smoothed(plain, 0.0) is plain
    softer = objectives.smoothed(plain, 0.1)
    assert softer.judge is plain.judge and softer.loss.keywords == {"smoothing": 0.1}


def test_a_chunked_loss_may_be_scaled(monkeypatch):
    model, windows = model_and_windows("qwen3", False)
    expected = gradients(model, causal(model, windows)[0] / 60)
    monkeypatch.setattr(objectives, "WHOLE_LOGITS", 8 * 37)
    for name, gradient in gradients(model, causal(model, windows)[0] / 60).items():
        assert torch.allclose(gradient, expected[name], rtol=1e-5, atol=1e-7), name


def test_a_chunked_loss_computes_no_gradients_in_evaluation(monkeypatch):
    model, windows = model_and_windows("qwen3", False)
    monkeypatch.setattr(objectives, "WHOLE_LOGITS", 8 * 37)

    def never(*_, **__):
        raise AssertionError("a gradient was computed")

    monkeypatch.setattr(torch.autograd, "grad", never)
    with torch.no_grad():
        assert not causal(model, windows)[0].requires_grad


def test_a_chunk_never_makes_all_logits(monkeypatch):
    model, windows = model_and_windows("qwen3", True)
    heights, head = [], model.head
    model.head = lambda hidden: (heights.append(len(hidden)), head(hidden))[1]
    monkeypatch.setattr(objectives, "WHOLE_LOGITS", 8 * 37)
    causal(model, windows)
    assert max(heights) == 8 and sum(heights) == 60


@pytest.mark.parametrize(("family", "tied"), FORMS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_accumulated_is_whole(family, tied, size):
    """To 1e-6 of each gradient's largest entry, in f64, so that only a wrong sum can differ."""
    model, windows = model_and_windows(family, tied, torch.float64)
    logits = model(windows["ids"]).flatten(0, 1)
    expected = gradients(model, F.cross_entropy(logits, windows["targets"].flatten()))
    model.zero_grad()
    total = 0
    for first in range(0, 5, size):
        loss, count = causal(model, {name: part[first : first + size] for name, part in windows.items()})
        loss.backward()
        total += count
    assert total == 60
    for name, parameter in model.named_parameters():
        bound = 1e-6 * float(expected[name].abs().max()) + 1e-12
        assert float((parameter.grad / total - expected[name]).abs().max()) <= bound, name


def heads(head: str, labels: tuple[str, ...] = ()):
    """A tiny BERT of ours and Transformers' of the same weights, with a head."""
    from transformers import AutoConfig, BertForQuestionAnswering, BertForSequenceClassification
    from transformers import BertForTokenClassification as ForTags

    from wenlu.hub.folder import load, save

    kinds = {"classify": BertForSequenceClassification, "tag": ForTags, "span": BertForQuestionAnswering}
    config = ModelConfig("bert", dim=16, layers=2, heads=2, context=32, vocab=50, head=head, labels=labels)
    model = build(config, 0)
    for parameter in model.parameters():
        parameter.data.add_(
            0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
        )
    with tempfile.TemporaryDirectory() as folder:
        save(model, None, folder)
        peer = kinds[head].from_pretrained(folder, config=AutoConfig.from_pretrained(folder)).eval()
        return load(folder)[0], peer


def rows_of(generator: torch.Generator) -> tuple[dict, dict]:
    """A padded batch as ours and as theirs."""
    ids = torch.randint(3, 50, (3, 12), generator=generator)
    segments = torch.where(torch.arange(12) < torch.tensor([[12], [7], [9]]), 0, -1)
    types = torch.randint(0, 2, (3, 12), generator=generator)
    theirs = {"input_ids": ids, "attention_mask": (segments >= 0).long(), "token_type_ids": types}
    return {"ids": ids, "segments": segments, "types": types}, theirs


@torch.no_grad()
def test_losses_of_the_heads_are_those_of_transformers():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = rows_of(generator)
    model, peer = heads("classify", ("a", "b", "c"))
    labels = torch.tensor([2, 0, 1])
    loss, count = classification(model, {**ours, "labels": labels})
    assert count == 3 and float(loss / 3) == pytest.approx(float(peer(**theirs, labels=labels).loss), abs=1e-5)

    model, peer = heads("tag", ("O", "B-X", "I-X"))
    labels = torch.randint(0, 3, (3, 12), generator=generator).masked_fill(ours["segments"] < 0, NO_TARGET)
    labels[:, 0] = NO_TARGET
    loss, count = tagging(model, {**ours, "labels": labels})
    assert count == 25 and float(loss / count) == pytest.approx(float(peer(**theirs, labels=labels).loss), abs=1e-5)

    model, peer = heads("span")
    starts, ends = torch.tensor([3, 0, 2]), torch.tensor([5, 0, 8])
    within = torch.ones(3, 12, dtype=torch.int64)
    ours["segments"], theirs["attention_mask"] = torch.zeros_like(within), within
    loss, count = span_extraction(model, {**ours, "starts": starts, "ends": ends, "within": within})
    expected = peer(**theirs, start_positions=starts, end_positions=ends).loss
    assert count == 3 and float(loss / count) == pytest.approx(2 * float(expected), abs=1e-4)


@pytest.mark.parametrize("form", ["classify", "tag", "span"])
@torch.no_grad()
def test_what_is_found_by_row_adds_up_to_the_loss(form):
    ours, _ = rows_of(torch.Generator().manual_seed(1))
    model, _ = heads(form, {"classify": ("a", "b"), "tag": ("O", "B-X"), "span": ()}[form])
    batch = {
        "classify": {"labels": torch.tensor([1, 0, 1])},
        "tag": {"labels": torch.tensor([[NO_TARGET, 1, 0, 0, 1, *[NO_TARGET] * 7]] * 3)},
        "span": {
            "starts": torch.tensor([3, 0, 2]),
            "ends": torch.tensor([5, 0, 4]),
            "within": torch.tensor([[1, 0, *[1] * 5, *[0] * 5]] * 3),
        },
    }[form]
    loss, count = TUNING[form].loss(model, {**ours, **batch})
    found = by_row(form, model, {**ours, **batch})
    assert float(found["loss"].sum()) == pytest.approx(float(loss), rel=1e-5)
    assert int(found["count"].sum()) == int(count) and all(len(values) == 3 for values in found.values())
    assert float(TUNING[form].judge(model, {**ours, **batch})["loss"]) == pytest.approx(float(loss), rel=1e-5)


def test_the_best_span_ends_after_it_begins_and_is_not_too_long():
    logits = torch.zeros(1, 6, 2)
    logits[0, 4, 0], logits[0, 2, 1], logits[0, 5, 1] = 5.0, 9.0, 1.0
    assert [int(n) for n in best_span(logits)[:2]] == [1, 2]
    assert [int(n) for n in best_span(logits, longest=1)[:2]] == [2, 2]
    logits[0, 0] = 9.0
    assert [int(n) for n in best_span(logits)[:2]] == [0, 0]
    start, end, score = best_span(logits, empty=False)
    assert (int(start), int(end), float(score)) == (1, 2, 9.0 - 18.0)


def test_a_head_that_nothing_is_known_to_train():
    with pytest.raises(UserError, match="no training is known for the family bert with the head 'pool': take"):
        objective_of(ModelConfig("bert", dim=16, heads=2, head="pool"))
