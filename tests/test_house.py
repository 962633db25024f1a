"""The house stands: imports go down only, files stay small, help is quick and loads no torch."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from wenlu.cli.main import COMMANDS
from wenlu.cli.prompt import COMMANDS as PROMPT_COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wenlu"
FLOORS = {
    "base": 1,
    "models": 2,
    "tokenization": 2,
    "metrics": 2,
    "data": 3,
    "hub": 3,
    "inference": 3,
    "interpret": 3,
    "compress": 3,
    "training": 4,
    "prompting": 4,
    "serving": 4,
    "evaluation": 5,
    "apps": 5,
    "cli": 6,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    """The folders of wenlu that a file imports from."""
    names = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    names += [alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names]
    packages = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "wenlu"]
    names += [f"wenlu.{alias.name}" for n in packages for alias in n.names if (PACKAGE / alias.name).is_dir()]
    return {name.split(".")[1] for name in names if name.startswith("wenlu.")}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_imports_go_down(file):
    folder = file.relative_to(PACKAGE).parts[0]
    if folder == "__init__.py":
        return
    for other in imported(ast.parse(file.read_text())) - {folder}:
        assert FLOORS[other] < FLOORS[folder], (
            f"{folder} (floor {FLOORS[folder]}) imports {other} (floor {FLOORS[other]})"
        )


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_sizes(file):
    lines = file.read_text().splitlines()
    assert len(lines) <= 400
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree), "the first line says what the file is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} has more than 60 lines"
            arguments = [a for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs if a.arg != "self"]
            assert len(arguments) <= 8, f"{node.name} has more than 8 parameters"


def test_files_beside_the_package_are_small_too():
    files = [file for folder in ("tests", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
    long = [file.name for file in files if len(file.read_text(encoding="utf-8").splitlines()) > 400]
    assert len(files) > 100 and not long


def test_what_is_not_python_is_small_and_installed_too():
    others = {file for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts} - {*FILES}
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folders = {name: ROOT / name.replace(".", "/") for name in patterns}
    found = {file for name, globs in patterns.items() for glob in globs for file in folders[name].glob(glob)}
    assert others == found and len(found) > 5
    assert all(len(file.read_text(encoding="utf-8").splitlines()) <= 400 for file in found)


HEAVY = {"torch", "numpy", "scipy", "matplotlib", "tokenizers", "safetensors", "jinja2", "transformers", "sacrebleu"}
"""Packages that take longer to import than a page of help may."""


LINES = [[], *([name] for name in COMMANDS), *(["prompt", name] for name in PROMPT_COMMANDS)]


@pytest.mark.parametrize("command", LINES, ids=lambda c: " ".join(c) or "wenlu")
def test_help_imports_little(command):
    """What a start costs is told by what it imports: a clock would tell how busy the machine is."""
    code = (
        "import sys\nfrom wenlu.cli.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=True
    )
    modules = answer.stderr.split()
    assert "example: wenlu" in answer.stdout
    assert not HEAVY & {name.split(".")[0] for name in modules}
    assert len(modules) < (450 if command else 120), "measured: about 380 (0.3 s), and 80 (0.03 s)"
