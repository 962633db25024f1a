"""The corpus inside CPython: the same every time, and prose."""

import lzma

import pytest

from wenlu.data import default_corpus
from wenlu.data.default_corpus import documents, sha256, xz_bits_per_byte


@pytest.fixture(scope="module")
def texts():
    return list(documents())


def test_it_holds_the_reference_and_the_docstrings(texts):
    size = sum(len(text.encode()) for text in texts)
    assert 1_000_000 < size < 4_000_000 and len(texts) > 1000
    assert any(text.startswith('The "for" statement') for text in texts)
    assert any(text.startswith("Object for parsing command line strings") for text in texts)
    assert all(text.strip() for text in texts)


def test_modules_come_in_order_without_tests_and_installed_packages(tmp_path):
    for name in ("b.py", "a.py", "test/c.py", "inner/tests/d.py", "inner/e.py", "site-packages/f.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = [file.relative_to(tmp_path).as_posix() for file in sorted(default_corpus._modules(tmp_path))]
    assert found == ["a.py", "b.py", "inner/e.py"]


def test_docstrings_of_every_kind_are_found_and_short_ones_left_out(tmp_path):
    long = "Words of a docstring. " * 20
    (tmp_path / "a.py").write_text(
        f'"""{long}1"""\nclass A:\n "{long}2"\n async def f(self):\n  "{long}3"\n def g(self):\n  "short"\n'
    )
    assert [text[-1] for text in default_corpus._docstrings(tmp_path / "a.py")] == ["1", "2", "3"]
    (tmp_path / "b.py").write_text("not python (")
    assert list(default_corpus._docstrings(tmp_path / "b.py")) == []


def test_the_digest_tells_corpora_apart(texts):
    assert sha256(texts) == sha256(list(texts)) != sha256(texts[1:])
    assert sha256(["ab", "c"]) != sha256(["a", "bc"])
    assert len(sha256(["\ud800"])) == 64


def test_bits_per_byte_of_xz():
    train, held_out = b"the quick brown fox jumps over the lazy dog. " * 40, bytes(range(256)) * 4
    both, alone = (len(lzma.compress(x, preset=9 | lzma.PRESET_EXTREME)) for x in (train + held_out, train))
    assert xz_bits_per_byte(train, held_out) == 8 * (both - alone) / 1024
    assert xz_bits_per_byte(train, train) < 0.1 < xz_bits_per_byte(train, held_out)
