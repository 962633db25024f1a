"""The kernel of blocks is the blocks: their output and cache, for a row whoever stands beside it, or not taken."""

from dataclasses import replace

import pytest
import torch

from wenlu.compress.quantize import quantize
from wenlu.models import kernels as module
from wenlu.models.block import Block
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.models.fused import FusedBlocks
from wenlu.models.kernels import kernels

SHAPES = {
    "grouped, biases": ModelConfig("llama", dim=24, heads=4, kv_heads=2, attention_bias=True, mlp_bias=True),
    "odd heads, LayerNorm": ModelConfig("gpt2", dim=21, heads=3),
    "QK-norm, window": ModelConfig("qwen3", dim=40, heads=4, kv_heads=1, head_dim=34, window=7),
    "window": ModelConfig("mistral", dim=48, heads=3, head_dim=16, window=5),
    "wide heads": ModelConfig("qwen2", dim=140, heads=2, kv_heads=1, head_dim=70),
    "relu2": ModelConfig("llama", dim=32, heads=2, activation="relu2"),
    "gelu_new": ModelConfig("llama", dim=32, heads=2, activation="gelu_new"),
}
LENGTHS = (11, 3, 0, 18, 7)


@pytest.fixture
def found(kernel_cache):
    if module._found_compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    kernels.cache_clear()
    return kernels()


def model(config, form, shaken):
    torch.manual_seed(0)
    made = shaken(build(replace(config, layers=2, context=64, vocab=9), 1))
    made = quantize(made) if form.startswith("int8") else made
    return made.bfloat16() if "bf16" in form else made


def filled(made, lengths):
    """A cache of rows of these lengths; a row's numbers do not depend on the others."""
    cache = None
    for length in lengths:
        row = made.new_cache(1, length)
        part = torch.randn(2, 2, *row._store.shape[3:4], length, row._store.shape[5], generator=_generator(length))
        row.begin_with([part.to(row._store.dtype)])
        if cache is None:
            cache = row
        else:
            cache.join(row)
    return cache


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def states(made, lengths, new):
    rows = [torch.randn(new, made.config.dim, generator=_generator(100 + length)) for length in lengths]
    return torch.stack(rows).to(made.norm.weight.dtype)


def plainly(made, blocks, x, cache):
    new, window = x.shape[1], made.config.window
    for block in blocks:
        x = Block.forward(block, x, made.rotary, cache.places(new), cache.sees(new, window), cache)
    return x


@pytest.mark.parametrize("first", [0, 1], ids=["two blocks", "the second"])
@pytest.mark.parametrize("form", ["f32", "bf16", "int8", "int8 × bf16"])
@pytest.mark.parametrize("name", SHAPES)
@torch.inference_mode()
def test_it_is_the_blocks(found, shaken, name, form, first):
    made = model(SHAPES[name], form, shaken)
    blocks = [*made.blocks][first:]
    fused = FusedBlocks(found, blocks)
    for lengths, new in ((LENGTHS, 1), (LENGTHS, 3), ((6, 6), 2), ((0,), 5)):
        x, caches = states(made, lengths, new), [filled(made, lengths) for _ in range(2)]
        positions = caches[0].places(new)
        assert caches[0].in_order(positions, new)
        y, true = fused(x, made.rotary, caches[0]), plainly(made, blocks, x, caches[1])
        assert y.dtype == x.dtype
        near = {"atol": 1e-4, "rtol": 1e-5} if "bf16" not in form else {"atol": 0.03 * true.abs().max(), "rtol": 0}
        torch.testing.assert_close(y, true, **{k: float(v) for k, v in near.items()})
        for row, length in enumerate(lengths):
            kept, wanted = (cache._store[first:, :, row, :, : length + new] for cache in caches)
            torch.testing.assert_close(kept, wanted, **{k: float(v) for k, v in near.items()})


@torch.inference_mode()
def test_a_part_of_a_cache_is_written_where_it_lies(found, shaken):
    made = model(SHAPES["grouped, biases"], "f32", shaken)
    fused, lengths, x = FusedBlocks(found, [*made.blocks]), (4, 4, 4, 4), states(made, (1, 2, 3, 4), 2)
    whole, parted = filled(made, lengths), filled(made, lengths)
    y = fused(x, made.rotary, whole)
    parts = [fused(x[first:end], made.rotary, parted.part(first, end, 2)) for first, end in ((0, 1), (1, 4))]
    assert torch.equal(torch.cat(parts), y)
    for cache in (whole, parted):
        cache.advance(2)
    assert all(torch.equal(parted.cut(row, 0, 6), whole.cut(row, 0, 6)) for row in range(4))


@pytest.mark.parametrize("form", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("name", ["grouped, biases", "QK-norm, window", "wide heads"])
@torch.inference_mode()
def test_a_row_is_the_same_alone_and_with_other_threads(found, shaken, name, form):
    made = model(SHAPES[name], form, shaken)
    fused, lengths, threads = FusedBlocks(found, [made.blocks[1]]), tuple(range(2, 24)), torch.get_num_threads()
    together = fused(states(made, lengths, 1), made.rotary, filled(made, lengths))
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for part in (slice(0, 1), slice(3, 4), slice(5, 8), slice(6, 19)):
                some = lengths[part]
                assert torch.equal(fused(states(made, some, 1), made.rotary, filled(made, some)), together[part])
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def test_tokens_at_once_are_those_one_by_one(found, shaken):
    made = model(SHAPES["QK-norm, window"], "f32", shaken)
    fused, cache = FusedBlocks(found, [made.blocks[1]]), filled(made, LENGTHS)
    x = states(made, LENGTHS, 4)
    together = fused(x, made.rotary, filled(made, LENGTHS))
    for t in range(4):
        assert torch.equal(fused(x[:, t : t + 1], made.rotary, cache), together[:, t : t + 1])
        cache.advance(1)


@torch.inference_mode()
def test_what_is_not_finite_stays_in_its_row(found, shaken):
    made = model(SHAPES["grouped, biases"], "f32", shaken)
    fused, x = FusedBlocks(found, [made.blocks[1]]), states(made, LENGTHS, 1)
    x[1, 0, 3], x[2, 0, 3] = float("nan"), float("inf")
    y = fused(x, made.rotary, filled(made, LENGTHS))
    assert y[1].isnan().all() and not y[2].isfinite().any() and y[[0, 3, 4]].isfinite().all()


def test_it_holds_as_long_as_the_blocks_are_what_they_were(found, shaken):
    made = model(SHAPES["relu2"], "f32", shaken)
    block = made.blocks[1]
    fused = FusedBlocks(found, [block])
    with torch.no_grad():
        block.norm_1.weight.mul_(2)
    assert fused.holds([block]) and not fused.hooked
    assert not fused.holds([made.blocks[0]]) and not fused.holds([*made.blocks])
    hook = block.feed_forward.up.register_forward_hook(lambda *_: None)
    assert fused.hooked
    hook.remove()
    assert not fused.hooked
    block.feed_forward.up.weight.data = block.feed_forward.up.weight.data.clone()
    assert not fused.holds([block])
    fused = FusedBlocks(found, [block])
    block.attention.out = torch.nn.Linear(32, 32, bias=False)
    assert not fused.holds([block])
    fused = FusedBlocks(found, [block])
    del block.attention.out._parameters["weight"]
    assert not fused.holds([block])


def test_positions_that_are_not_the_next_ones_are_not_in_order(shaken):
    made = model(SHAPES["relu2"], "f32", shaken)
    even, ragged = filled(made, (4, 4)), filled(made, (4, 5))
    assert even.in_order(slice(4, 6), 2) and not even.in_order(slice(3, 5), 2)
    assert not even.in_order(torch.tensor([[4, 5], [4, 5]]), 2)
    assert ragged.in_order(ragged.places(2), 2) and not ragged.in_order(ragged.places(2).clone(), 2)


class OtherBlock(Block):
    """A block with lines of its own."""


def test_what_it_does_not_take(found, shaken):
    def refused(made, first=1):
        with pytest.raises(ValueError) as told:
            FusedBlocks(found, [*made.blocks][first:])
        return str(told.value)

    made = model(SHAPES["relu2"], "f32", shaken)
    assert refused(made, first=2) == "they are no plain blocks"
    made.blocks[1].attention.layer = 2
    assert refused(made, first=0) == "they do not follow one another"
    made.blocks[1].forward = lambda x, *_: x
    assert refused(made) == "they are no plain blocks"
    made = model(SHAPES["relu2"], "f32", shaken)
    made.blocks[1].__class__ = OtherBlock
    assert refused(made) == "they are no plain blocks"
    made.blocks[1] = torch.nn.Identity()
    assert refused(made) == "they are no plain blocks"

    made = model(ModelConfig("llama", dim=24, heads=2, activation="gelu"), "f32", shaken)
    assert refused(made) == "no kernel has the activation gelu"
    made = model(SHAPES["relu2"], "f32", shaken)
    assert "no kernel for torch.float64" in refused(made.double())
    made = model(SHAPES["relu2"], "f32", shaken)
    made.blocks[1].attention.out.bfloat16()
    assert refused(made) == "its matrices are of several types"
    made = model(SHAPES["relu2"], "f32", shaken)
    made.blocks[1].norm_2.bfloat16()
    assert refused(made) == "its norms are of another type than its matrices"
    made = model(SHAPES["relu2"], "f32", shaken)
    made.blocks[1].attention.out.weight.data = made.blocks[1].attention.out.weight.data.T
    assert refused(made) == "its weights do not lie in the processor's memory"
