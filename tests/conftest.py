"""Fixtures every test may use; shapes checked in all of them."""

import importlib
import os
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import beartype
import pytest
import rich.progress
import safetensors.torch
import scipy.sparse
import tokenizers
import torch
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "wenlu"


def shaped() -> list[str]:
    """The modules whose signatures carry the shapes of tensors."""
    files = [file for file in PACKAGE.rglob("*.py") if "from jaxtyping import" in file.read_text(encoding="utf-8")]
    return sorted(".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files)


def check_shapes() -> None:
    """Import these modules so that every call compares its tensors with the shapes in its signature.

    Only in tests: running code imports no jaxtyping (its imports stand under TYPE_CHECKING) and compiles nothing that
    is decorated. Other packages must be in already, for them TYPE_CHECKING is to stay false.
    """
    assert torch and tokenizers and safetensors.torch and rich.progress and scipy.sparse
    beartype.with_whole_numbers = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
    typing.TYPE_CHECKING = True
    try:
        with install_import_hook(shaped(), "beartype.with_whole_numbers"):
            for name in shaped():
                importlib.import_module(name)
    finally:
        typing.TYPE_CHECKING = False


check_shapes()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real corpora; a test that wants it is skipped, with the reason, where it is absent."""
    folder = Path(os.environ.get("WENLU_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set WENLU_DATA)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory) -> Iterator[Path]:
    """Where the tests' kernels are compiled, those of training at once: the user's own cache is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        importlib.import_module("wenlu.models.passes").passes()
        yield folder / "wenlu"


@pytest.fixture(scope="session")
def shaken() -> Callable[[torch.nn.Module], torch.nn.Module]:
    """A model of which every weight matters: none is left as it began, at zero or one."""

    def shake(model: torch.nn.Module) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    return shake
