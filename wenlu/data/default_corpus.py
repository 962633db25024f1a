"""A corpus that every CPython carries: its language reference and the docstrings of its standard library."""

import ast
import hashlib
import lzma
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test", "lib2to3", "__pycache__"}
SHORTEST = 200
"""Characters below which a docstring is no prose."""


def documents() -> Iterator[str]:
    """The texts: the topics of Python's help, then the docstrings of each module, in order of their paths."""
    from pydoc_data.topics import topics

    yield from (topics[name].strip() for name in sorted(topics))
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(_modules(root)):
        yield from _docstrings(file)


def _modules(root: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(root):
        inner[:] = set(inner) - LEFT_OUT
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _docstrings(file: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    yield from (text for text in texts if len(text) >= SHORTEST)


def sha256(texts: list[str]) -> str:
    """Hex sha256 of the corpus, its documents joined by NUL."""
    return hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()


def xz_bits_per_byte(train: bytes, held_out: bytes) -> float:
    """What xz (preset 9e) needs for the held-out text, knowing the other: 8 (C(train + held-out) − C(train)) / n."""
    preset = 9 | lzma.PRESET_EXTREME
    both = len(lzma.compress(train + held_out, preset=preset))
    return 8 * (both - len(lzma.compress(train, preset=preset))) / len(held_out)
