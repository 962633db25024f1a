"""A fast model is the same model: near-equal logits, the same state, training as before."""

import copy
import json

import pytest
import torch
from torch import nn

from wenlu.base.errors import UserError
from wenlu.compress.quantize import quantize
from wenlu.inference import kernels as module
from wenlu.inference.batch import Engine
from wenlu.inference.fast_layers import FastLinear
from wenlu.inference.kernels import fast
from wenlu.inference.text import Request
from wenlu.models import kernels as compiled
from wenlu.models import passes
from wenlu.models.block import Block
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.models.fused import FusedBlocks

SHAPES = [
    ModelConfig(family="lstm", dim=24, layers=2, context=32, vocab=70),
    ModelConfig(family="gpt2", dim=24, layers=2, heads=3, context=32, vocab=70),
    ModelConfig(family="llama", dim=24, layers=2, heads=4, kv_heads=2, context=32, vocab=70, mlp_bias=True),
    ModelConfig(family="qwen3", dim=24, layers=2, heads=2, context=32, vocab=70, tied=False),
    ModelConfig(family="bert", dim=24, layers=2, heads=2, context=32, vocab=70),
    ModelConfig(family="t5", dim=24, layers=2, heads=2, context=32, vocab=70, pad_id=0),
]
LLAMA = SHAPES[2]


@pytest.fixture(autouse=True)
def own_cache(kernel_cache):
    if compiled._found_compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    compiled.kernels.cache_clear()
    yield kernel_cache
    (kernel_cache / "products.json").unlink(missing_ok=True)


@pytest.fixture(params=SHAPES, ids=lambda config: config.family)
def model(request, shaken):
    return shaken(build(request.param, seed=1))


def quicker(monkeypatch, kernel: bool) -> list[tuple]:
    """Let the kernel, or torch, be found quicker; what was measured."""
    measured = []

    def measure(ways, x, peers):
        what = tuple(getattr(peers[0][0], "shape", ("block",)))
        measured.append((x.shape[2], ("attention", *what)) if x.ndim == 4 else (len(x), what))
        return [[0.0, 0.0], [1.0, 1.0]] if kernel else [[1.0, 1.0], [0.0, 0.0]]

    monkeypatch.setattr(module, "measure", measure)
    return measured


def logits(model: nn.Module, rows: int = 2) -> torch.Tensor:
    """Of a few tokens, one at a time where the model decodes."""
    ids = torch.randint(1, 70, (rows, 6), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        if model.config.family == "bert":
            return model(ids[:1, :5])
        source = (ids,) if model.config.family == "t5" else ()
        cache = model.new_cache(rows)
        return torch.stack([model(*source, ids[:, i : i + 1], cache=cache) for i in range(6)])


@pytest.mark.parametrize("form", ["f32", "bf16", "int8"])
def test_a_fast_model_is_the_same_model(model, form, monkeypatch):
    measured = quicker(monkeypatch, kernel=True)
    model = {"f32": lambda m: m, "bf16": nn.Module.bfloat16, "int8": quantize}[form](model)
    before, state = logits(model), copy.deepcopy(model.state_dict())
    kinds = [type(m) for m in model.modules()]
    with fast(model) as same:
        assert same is model
        during = logits(model)
        assert model.state_dict().keys() == state.keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert measured, "kernels were in use"
    assert (during - before).abs().max() < (1e-4 if form != "bf16" else 0.05 * before.abs().max())
    assert [type(m) for m in model.modules()] == kinds and torch.equal(logits(model), before)
    assert not any("chooser" in vars(m) for m in model.modules())


def test_training_is_torchs_own_within_and_after(model, monkeypatch):
    quicker(monkeypatch, kernel=True)
    ids = torch.randint(1, 70, (1, 4), generator=torch.Generator().manual_seed(3))
    given = (ids, ids) if model.config.family == "t5" else (ids,)

    def gradients():
        model.zero_grad()
        model(*given).square().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    before = gradients()
    with fast(model):
        within = gradients()
    assert all(map(torch.equal, before, within)) and all(map(torch.equal, before, gradients()))


def test_many_rows_and_copies(monkeypatch, shaken):
    measured = quicker(monkeypatch, kernel=True)
    model = shaken(build(LLAMA, seed=1))
    with torch.inference_mode(), fast(model):
        model(torch.ones(300, 2, dtype=torch.long))
        assert {rows for rows, what in measured if what[0] != "attention"} == {512}, (
            "more than the last class are taken for that"
        )
        measured.clear()
        monkeypatch.setattr(compiled, "MOST", 599)
        monkeypatch.setattr(module, "MOST", 599)
        model(torch.ones(300, 2, dtype=torch.long))
        assert not measured, "600 rows are torch's now"
        other = copy.deepcopy(model)
        assert torch.equal(logits(other), logits(model))


def test_it_may_hold_twice(monkeypatch, shaken):
    quicker(monkeypatch, kernel=True)
    model = shaken(build(LLAMA, seed=1))
    with fast(model):
        with fast(model):
            pass
        assert type(model.blocks[0].attention.qkv) is FastLinear
    assert type(model.blocks[0].attention.qkv) is nn.Linear


def read_whole(model: nn.Module) -> torch.Tensor:
    """Logits of whole texts, read at once."""
    ids = torch.randint(1, 70, (3, 20), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        source = (ids,) if model.config.family == "t5" else ()
        cache = {} if model.config.family == "bert" else {"cache": model.new_cache(3)}
        return model(*source, ids, **cache)


@pytest.mark.parametrize("form", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("kernel", [True, False], ids=["kernels", "torch"])
def test_texts_are_read_with_passes_and_attention_of_our_own(model, form, kernel, monkeypatch):
    quicker(monkeypatch, kernel)
    model = {"f32": lambda m: m, "bf16": nn.Module.bfloat16, "int8": quantize}[form](model)
    called, before = [], read_whole(model)
    for kind, name in ((passes.Passes, "call"), (compiled.Kernels, "attend")):
        own = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *a, name=name, own=own: called.append(name) or own(self, *a))
    with fast(model):
        during = read_whole(model)
    assert (during - before).abs().max() < (1e-4 if form != "bf16" else 0.05 * before.abs().max())
    assert ("attend" in called) == (kernel and model.config.family != "lstm")
    assert ("call" in called) == (model.config.family != "lstm")
    called.clear()
    assert torch.equal(read_whole(model), before) and not called


def test_models_that_are_not_fast_are_as_before_while_others_are(monkeypatch, shaken):
    quicker(monkeypatch, kernel=True)
    one, two, other = (shaken(build(LLAMA, seed=seed)) for seed in range(3))
    (before, plain), first, second = map(read_whole, (other, one)), fast(one), fast(two)
    first.__enter__()
    second.__enter__()
    assert torch.equal(read_whole(other), before)
    first.__exit__(None, None, None)  # not the last that was entered
    assert torch.equal(read_whole(one), plain)
    second.__exit__(None, None, None)
    called = []
    monkeypatch.setattr(passes.Passes, "call", lambda *arguments: called.append(arguments))
    for model in (one, two, other):
        read_whole(model)
    assert not called


def test_positions_may_be_of_any_type_and_layout_but_not_negative(monkeypatch, shaken):
    quicker(monkeypatch, kernel=True)
    model, ids = shaken(build(LLAMA, seed=1)), torch.arange(30).view(3, 10)
    whole = torch.arange(10).flip(0).expand(3, 10)
    for positions in (whole, whole.int(), whole.contiguous()):
        with torch.inference_mode():
            before = model(ids, positions=positions)
            with fast(model):
                assert (model(ids, positions=positions) - before).abs().max() < 1e-4
    with pytest.raises(UserError, match="positions are counted from 0, and -1 is asked for"):
        model(ids, positions=whole - 1)


def test_attention_that_begins_elsewhere_is_torchs(monkeypatch, shaken):
    """Without a mask the kernel's last query sees all, the first of torch's one."""
    quicker(monkeypatch, kernel=True)
    model = shaken(build(LLAMA, seed=1))
    q, k = torch.ones(1, 4, 3, 6), torch.ones(1, 2, 5, 6)
    with fast(model), torch.inference_mode():
        chooser = model.blocks[0].attention.chooser
        assert chooser.attention(q, k, k, None, None, True) is None
        assert chooser.attention(q, k, k, None, None, False) is not None


def test_hooks_still_see_their_modules(shaken):
    model, seen = shaken(build(LLAMA, seed=1)), []
    model.blocks[1].attention.out.register_forward_hook(lambda m, args, y: seen.append(y.shape))
    with fast(model):
        logits(model)
    assert len(seen) == 6


def test_blocks_are_kernels_where_new_tokens_stand_in_order(monkeypatch, shaken):
    quicker(monkeypatch, kernel=True)
    model, used = shaken(build(LLAMA, seed=1)), []
    called = FusedBlocks.__call__
    monkeypatch.setattr(FusedBlocks, "__call__", lambda *given: used.append(given) or called(*given))
    ids = torch.randint(1, 70, (2, 9), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode(), fast(model):
        cache = model.new_cache(2)
        model(ids[:, :4], cache=cache)
        assert len(used) == 1
        used.clear()
        model(ids[:, 4:5], positions=torch.full((2, 1), 4), cache=cache)
        model(ids)
        assert not used, "positions from outside, and texts without a cache, are torch's"
        model(ids[:, 5:6], cache=cache)
        assert len(used) == 1
        model.train()
        model(ids[:, 6:7], cache=cache)
        assert len(used) == 1


class Skipped(Block):
    def forward(self, x, *given):
        return x


def _other_block(model):
    model.blocks[1] = build(LLAMA, seed=2).eval().blocks[1]


def _no_block(model):
    model.blocks[1].__class__ = Skipped


def _own_lines(model):
    model.blocks[1].forward = lambda x, *given: x


def _fewer(model):
    del model.blocks[0]


def _norm_of_queries(model):
    model.blocks[1].attention.q_norm = nn.Parameter(torch.arange(1.0, 7.0))
    model.blocks[1].attention.k_norm = nn.Parameter(torch.ones(6))


def _own_attention(model):
    model.blocks[1].attention.attended = lambda q, k, v, mask: q


@pytest.mark.parametrize("change", [_other_block, _no_block, _own_lines, _fewer, _norm_of_queries, _own_attention])
@pytest.mark.parametrize("measured", [True, False])
def test_blocks_changed_while_a_model_is_fast_are_those_that_are_used(monkeypatch, shaken, change, measured):
    quicker(monkeypatch, kernel=True)
    ids = torch.randint(1, 70, (2, 9), generator=torch.Generator().manual_seed(3))

    def written(model):
        cache = model.new_cache(2)
        return torch.cat([model(ids[:, place : place + 1], cache=cache) for place in range(9)], dim=1)

    model, plain = (shaken(build(LLAMA, seed=1)).eval() for _ in range(2))
    with torch.inference_mode(), fast(model, measured):
        before = written(model)
        change(model), change(plain)
        after = written(model)
        torch.testing.assert_close(after, written(plain), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(before, after, atol=1e-2)


def test_texts_of_a_fast_model_are_those_of_each_alone(monkeypatch, shaken):
    quicker(monkeypatch, kernel=True)
    model = shaken(build(LLAMA, seed=1))
    requests = [Request(tuple(range(3, 3 + length)), max_tokens=12) for length in (1, 4, 9, 4)]

    def written(*some):
        engine = Engine(model)
        texts = [engine.add(request) for request in some]
        while engine.step():
            pass
        return texts

    plain = written(*requests)
    with fast(model):
        together, alone = written(*requests), [written(request)[0] for request in requests]
    for kind in (together, plain):
        for text, other in zip(kind, alone, strict=True):
            pairs = zip(text.ids, other.ids, strict=True)
            parted = next((place for place, (a, b) in enumerate(pairs) if a != b), None)
            assert parted is None or parted in {*text.near_ties, *other.near_ties}


def test_what_is_quicker_is_measured_once(monkeypatch, shaken, own_cache):
    monkeypatch.setattr(passes, "passes", lambda: None)  # what is not measured
    measured = quicker(monkeypatch, kernel=False)
    model = shaken(build(LLAMA, seed=1))
    with fast(model):
        first = logits(model, rows=3)
    assert len(measured) == len(set(measured)) == 8
    assert {rows for rows, what in measured if what[0] != "attention"} == {4}
    assert {what[3] for _, what in measured if what[0] == "attention"} == {16, 64}, (
        "the text's keys, a measured block's"
    )
    assert torch.equal(first, logits(model, rows=3)), "torch is quicker, and used"
    with fast(model):
        logits(model, rows=4)
    assert len(measured) == 8
    (answers,) = json.loads((own_cache / "products.json").read_text()).values()
    assert len(answers) == 8 and set(answers.values()) == {"torch"}


@pytest.mark.parametrize("form", ["f32", "int8"])
def test_what_is_not_measured_is_the_kernel(model, form, monkeypatch, own_cache):
    """Whatever was found quicker before."""
    model = quantize(model) if form == "int8" else model
    quicker(monkeypatch, kernel=True)
    with fast(model):
        by_kernel = logits(model)
    (own_cache / "products.json").unlink()
    measured = quicker(monkeypatch, kernel=False)
    with fast(model):
        logits(model)
    known = (own_cache / "products.json").read_bytes()
    measured.clear()
    with fast(model, measured=False):
        assert torch.equal(logits(model), by_kernel)
    assert not measured and (own_cache / "products.json").read_bytes() == known


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 3}', '{"x": {"y": 3}}', "\ud800"])
def test_a_damaged_file_of_measurements_is_written_anew(monkeypatch, shaken, own_cache, content):
    measured = quicker(monkeypatch, kernel=True)
    (own_cache / "products.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    model = shaken(build(LLAMA, seed=1))
    with fast(model):
        logits(model, rows=1)
    assert len(measured) == 7
    written = json.loads((own_cache / "products.json").read_text())
    assert [set(answers.values()) for answers in written.values()][-1] == {"kernel"}


@pytest.mark.parametrize("unsteady", [0, 1])
def test_what_is_measured_beside_other_work_is_not_kept(monkeypatch, shaken, own_cache, unsteady):
    """A way whose least time did not come again: the choice holds for the process, and the next one measures anew."""
    times = [[1.0, 1.4, 9.0], [2.0, 2.9, 9.0]]
    times[unsteady][1] = 4.0
    monkeypatch.setattr(module, "measure", lambda ways, x, peers: times)
    model = shaken(build(LLAMA, seed=1))
    with fast(model):
        first = logits(model, rows=1)
        monkeypatch.setattr(module, "measure", None)
        assert torch.equal(logits(model, rows=1), first)
    assert not (own_cache / "products.json").exists()
    measured = quicker(monkeypatch, kernel=True)
    with fast(model):
        logits(model, rows=1)
    assert len(measured) == 7 and (own_cache / "products.json").exists()


def test_it_measures(shaken, own_cache, monkeypatch):
    monkeypatch.setattr(module, "STEADY", float("inf"))
    model = shaken(build(LLAMA, seed=1))
    before = logits(model)
    with fast(model):
        assert (logits(model) - before).abs().max() < 1e-4
    (answers,) = json.loads((own_cache / "products.json").read_text()).values()
    assert len(answers) in (7, 8) and set(answers.values()) <= {"kernel", "torch"}
    assert any(shape.startswith("float32 × float32, 2 × 24 → 70, ") for shape in answers)
    assert any(shape.startswith("attention 4/2 × 6 float32, 1 to 64, open, ") for shape in answers)


def test_without_a_compiler_all_is_as_before(monkeypatch, shaken, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    model = shaken(build(LLAMA, seed=1))
    before = logits(model)
    for _ in range(2):
        with fast(model):
            assert type(model.blocks[0].attention.qkv) is nn.Linear
            assert torch.equal(logits(model), before)
    compiled.kernels.cache_clear()
    assert capsys.readouterr().err.count("no fast kernels") == 1


def test_small_models_are_not_worth_a_compilation():
    small = build(LLAMA, seed=1)
    assert not module.gains(small)
    assert module.gains(torch.nn.Linear(2048, 1025)) and not module.gains(torch.nn.Linear(2048, 1000))
    assert not module.gains(torch.nn.Linear(2048, 2048, device="meta"))
