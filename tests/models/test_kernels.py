"""Kernels equal torch's products for any size, rows do not touch each other, and no compiler breaks nothing."""

import platform
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from wenlu.models import kernels as module
from wenlu.models.kernels import MOST, kernels
from wenlu.models.quantized import rounded

ROWS = 8
"""That meet a weight at once."""
SIZES = [(1, 1), (5, 7), (16, 16), (17, 33), (3, 2049), (301, 257), (130, 512)]
TYPES = ["f32", "bf16", "int8", "int8 × bf16"]
QUICK = ("-O0", "-march=native", "-std=c++17", "-fPIC")


@pytest.fixture
def found(kernel_cache):
    if module._found_compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    kernels.cache_clear()
    return kernels()


@pytest.fixture
def compiled_with(monkeypatch, tmp_path):
    """The kernels, compiled with more flags."""

    def compiled(*flags):
        monkeypatch.setattr(module, "FLAGS", (*QUICK, *flags))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        kernels.cache_clear()
        return kernels()

    yield compiled
    kernels.cache_clear()


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(module, "say", lambda text, style="": lines.append(text))
    kernels.cache_clear()
    yield lines
    kernels.cache_clear()


def factors(kind: str, outputs: int, inputs: int, rows: int):
    generator = torch.Generator().manual_seed(outputs + inputs)
    weight, x = (torch.randn(n, inputs, generator=generator) for n in (outputs, rows))
    bias, scale = torch.randn(outputs, generator=generator), None
    if kind.startswith("int8"):
        weight, scale = rounded(weight)
    if "bf16" in kind:
        x, bias = x.bfloat16(), bias.bfloat16()
        weight = weight if scale is not None else weight.bfloat16()
    return x, weight, scale, bias


def expected(x, weight, scale, bias):
    y = F.linear(x.double(), weight.double()) * (1.0 if scale is None else scale.double())
    return y if bias is None else y + bias.double()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("rows", range(1, ROWS + 1))
def test_it_is_the_product(found, kind, rows):
    for outputs, inputs in SIZES:
        x, weight, scale, bias = factors(kind, outputs, inputs, rows)
        for added in (None, bias):
            y, true = found.product(x, weight, scale, added), expected(x, weight, scale, added)
            assert y.dtype == x.dtype and y.shape == (rows, outputs)
            error = (y.double() - true).abs()
            allowed = 2**-8 * true.abs() if "bf16" in kind else 0
            assert (error <= allowed + 1e-6 * inputs**0.5 * 8).all(), (outputs, inputs, error.max())


@pytest.mark.parametrize("kind", TYPES)
def test_a_row_is_the_same_alone_and_with_other_threads(found, kind):
    x, weight, scale, bias = factors(kind, 301, 257, ROWS)
    threads = torch.get_num_threads()
    together = found.product(x, weight, scale, bias)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for rows in range(1, ROWS + 1):
                assert torch.equal(found.product(x[:rows], weight, scale, bias), together[:rows])
    finally:
        torch.set_num_threads(threads)


def looked(dtype, batch, heads, kv_heads, new, seq, size, mask):
    """Queries, keys, values and a mask, of which the first three are not dense."""
    generator = torch.Generator().manual_seed(new + seq)
    q = torch.randn(batch, new, heads, size + 3, generator=generator)[..., :size].transpose(1, 2)
    k, v = (torch.randn(batch, kv_heads, seq + 5, size, generator=generator)[:, :, :seq] for _ in range(2))
    open_to = torch.rand(batch, 1, new, seq, generator=generator) < 0.7
    open_to[..., 0] = True
    bias = torch.randn(1, heads, new, seq, generator=generator)
    masks = {"bool": open_to, "bias": bias, "bias of its type": bias.to(dtype), "": None}
    return (3 * q).to(dtype), k.to(dtype), v.to(dtype), masks[mask]


SHAPES = [(2, 4, 2, 1, 1, 8), (3, 3, 3, 1, 37, 64), (1, 2, 1, 9, 9, 16), (2, 2, 2, 13, 50, 70), (1, 4, 4, 35, 300, 128)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mask", ["", "bool", "bias", "bias of its type"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_is_attention(found, shape, mask, causal, dtype):
    q, k, v, masked = looked(dtype, *shape, mask)
    (_, heads, kv_heads, new, seq, _), scale = shape, 0.3
    assert found.attends(q, k, v)
    y = found.attend(q, k, v, masked, scale, causal)
    scores = scale * q.double() @ k.double().repeat_interleave(heads // kv_heads, 1).mT
    if masked is not None:
        scores = scores.masked_fill(~masked, -torch.inf) if masked.dtype == torch.bool else scores + masked.double()
    if causal:
        scores = scores.masked_fill(~torch.ones(new, seq, dtype=torch.bool).tril(seq - new), -torch.inf)
    true = scores.softmax(-1) @ v.double().repeat_interleave(heads // kv_heads, 1)
    assert y.dtype == dtype and y.shape == true.shape
    assert ((y.double() - true).abs() <= (2**-8 * true.abs() + 1e-5 if dtype == torch.bfloat16 else 1e-5)).all()


def test_attention_takes_any_layout_and_masks_that_are_spread(found):
    q, k, v, mask = looked(torch.float32, 2, 4, 2, 5, 20, 24, "bool")
    true = found.attend(q, k, v, mask[:1], 0.3, False)[0]
    for dense in (
        lambda x: x.contiguous(),
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.mT.contiguous().mT,
    ):
        assert torch.equal(found.attend(dense(q), dense(k), dense(v), mask[:1], 0.3, False)[0], true)
    for one in (mask[:1, :, :1], mask[0, 0, 0], mask[:, :, :, :1] | True):
        spread = one.expand(2, 4, 5, 20).contiguous()
        assert torch.equal(found.attend(q, k, v, one, 0.3, False), found.attend(q, k, v, spread, 0.3, False))


@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("added", [False, True])
def test_what_may_not_be_seen_counts_for_nothing(found, new, added):
    q, k, v, _ = looked(torch.float32, 2, 2, 2, new, 20, 24, "")
    mask, v = torch.ones(2, 1, new, 20, dtype=torch.bool), v.clone()
    mask[0, ..., 7:], v[0, :, 7:] = False, 3e38
    mask[1] = False
    given = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if added else mask
    y = found.attend(q, k, v, given, 0.3, False)
    torch.testing.assert_close(y[:1], found.attend(q[:1], k[:1, :, :7], v[:1, :, :7], None, 0.3, False))
    assert not y[1].any(), "a query that sees nothing"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_of_a_text_is_the_same_alone_and_with_other_threads(found, dtype):
    q, k, v, mask = looked(dtype, 5, 4, 2, 19, 40, 48, "bool")
    threads, together = torch.get_num_threads(), found.attend(q, k, v, mask, 0.2, True)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for text in range(5):
                alone = (x[text : text + 1] for x in (q, k, v, mask))
                assert torch.equal(found.attend(*alone, 0.2, True)[0], together[text])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", TYPES)
def test_many_columns_are_the_product(found, kind):
    for rows in (15, 16, 17, 32):
        x, weight, scale, bias = factors(kind, 145, 768, rows)
        y, true = found.product(x, weight, scale, bias), expected(x, weight, scale, bias)
        allowed = (2**-8 if "bf16" in kind else 0) * true.abs() + 2e-4
        assert ((y.double() - true).abs() <= allowed).all()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="tunes for processors of this family")
def test_a_row_is_the_same_alone_however_compilers_tune(found, compiled_with):
    """Tuned for Zen 3, gcc multiplies and adds in two steps where there is one sum only, elsewhere in one."""
    tuned = compiled_with("-O2", "-mtune=znver3")
    assert tuned.identity != found.identity
    for kind in TYPES:
        x, weight, scale, bias = factors(kind, 40, 300, 5)
        together = tuned.product(x, weight, scale, bias)
        for rows in (1, 2, 3):
            assert torch.equal(tuned.product(x[:rows], weight, scale, bias), together[:rows])


def test_a_processor_without_tiles_has_the_same_products(found, compiled_with):
    if not {"amx_int8", "amx_bf16"} <= module.cpu_flags():
        pytest.skip("this processor has no tiles (AMX)")
    without = compiled_with("-mno-amx-tile")
    assert without.identity != found.identity
    for kind in TYPES:
        for rows in (1, 8, 21):
            x, weight, scale, bias = factors(kind, 145, 300, rows)
            one, other = (some.product(x, weight, scale, bias).double() for some in (found, without))
            allowed = (2**-7 if "bf16" in kind else 0) * one.abs() + 2e-4
            assert ((one - other).abs() <= allowed).all()


def test_what_is_small_beside_a_great_number_is_kept(found):
    x, weight = torch.zeros(2, 96), torch.full((16, 96), 127, dtype=torch.int8)
    x[0, 0], x[0, 1], x[1, 5] = 1000.0, 0.01, 1e-6
    y = found.product(x, weight, torch.ones(16))
    assert torch.allclose(y, x.sum(1, keepdim=True) * 127, rtol=1e-6, atol=0)


def test_what_is_not_finite_stays_so(found):
    for kind in TYPES:
        x, weight, scale, _ = factors(kind, 5, 40, 3)
        x[0, 3], x[1, 3] = float("nan"), float("inf")
        y = found.product(x, weight, scale)
        assert y[0].isnan().all() and not y[1].isfinite().any() and y[2].isfinite().all()


@pytest.mark.parametrize("kind", ["f32", "bf16", "int8"])
def test_more_rows_are_taken_in_parts(found, kind):
    x, weight, scale, bias = factors(kind, 33, 47, 21)
    whole = found.product(x, weight, scale, bias)
    assert all(torch.equal(whole[row], found.product(x[row], weight, scale, bias)) for row in range(21))


def test_rows_keep_their_shape(found):
    x, weight, _, _ = factors("f32", 5, 40, 6)
    assert found.product(x.view(2, 3, 40).transpose(0, 1), weight).shape == (3, 2, 5)
    assert found.product(x[0], weight).shape == (5,)


def test_what_it_does_not_take(found):
    x, weight, _, _ = factors("f32", 40, 40, ROWS)
    assert found.take(x, weight)
    many = x[:1].expand(MOST + 1, 40)
    assert found.take(many[1:], weight) and not found.take(many, weight) and not found.take(x[:0], weight)
    assert not found.take(x.double(), weight) and not found.take(x.bfloat16(), weight)
    assert not found.take(x, weight.T)


def test_no_compiler_is_said_once(kernel_cache, monkeypatch, tmp_path, said):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert kernels() is None and kernels() is None
    (line,) = said
    assert "no fast kernels" in line and "no C++ compiler is found" in line and "CXX" in line


def test_a_compiler_that_fails_is_said(monkeypatch, tmp_path, said):
    compiler = tmp_path / "broken"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no such header" >&2; exit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kernels() is None
    assert said[-1].startswith("no fast kernels") and said[-1].endswith("no such header")
    monkeypatch.setenv("CXX", str(tmp_path / "absent"))
    kernels.cache_clear()
    assert kernels() is None and "absent" in said[-1]


def test_a_folder_that_takes_nothing_is_said(found, monkeypatch, tmp_path, said):
    monkeypatch.setattr(module, "FLAGS", QUICK)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kernels() is None and said[-1].startswith("no fast kernels")


def test_a_damaged_library_is_made_anew(found, monkeypatch, tmp_path, said):
    monkeypatch.setattr(module, "FLAGS", QUICK)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernels() is not None
    (file,) = (tmp_path / "wenlu").iterdir()
    kernels.cache_clear()
    assert kernels() is not None and len(said) == 1, "it is compiled once"
    damaged = file.with_name(file.name.replace(file.stem[-4:], "0000"))
    damaged.write_bytes(file.read_bytes()[:1000])
    file.unlink()
    kernels.cache_clear()
    assert kernels() is not None and any("damaged" in line for line in said)
    assert not damaged.exists() and len(list((tmp_path / "wenlu").iterdir())) == 1


def test_two_processes_at_once_do_not_harm_each_other(found, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = (
        "import torch, wenlu.inference.kernels, wenlu.models.kernels as k\n"
        "assert not k.cache_folder().exists(), 'nothing is compiled at import'\n"
        f"print('ready', flush=True); input(); k.FLAGS = {QUICK}\n"
        "print(k.kernels().product(torch.ones(1, 9), torch.ones(1, 9)).item())"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0].strip() for process in both] == ["9.0", "9.0"]
    assert all(file.suffix == ".so" for file in (tmp_path / "wenlu").iterdir())
