"""A model as the commands load it: in the number format that is asked for, with fast products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from wenlu.base.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from wenlu.tokenization.tokenizer import Tokenizer


def check_format(dtype: str, quantize: str) -> None:
    """Raises UserError for number formats that are not there; before the model is read."""
    if quantize not in ("none", "int8"):
        raise UserError(f"quantize must be none or int8, not {quantize!r}")
    if quantize == "int8" and dtype != "f32":
        raise UserError(f"weights in int8 are not in {dtype} too: leave out --dtype or --quantize")


@contextmanager
def loaded(
    reference: str,
    device: str,
    dtype: str = "f32",
    quantize: str = "none",
    measured: bool = True,
    remedy: str = "take a smaller model, or --device cpu",
) -> Iterator[tuple[nn.Module, Tokenizer | None]]:
    """The model and tokenizer of a folder or hub id, within this context fast, if that gains anything (`measured`: of
    `inference.kernels.fast`).

    int8 weights lie beside the folder's own (`hub.quantized`); where they do not yet, they are made and kept there, and
    that is said. Raises UserError where they were made from other weights than the folder holds now, and where a GPU
    runs out of memory within this context: `remedy` says what needs less.
    """
    from wenlu.base.log import status

    check_format(dtype, quantize)
    with ExitStack() as stack:
        with status(f"loading {reference}"):
            from wenlu.base.device import out_of_memory
            from wenlu.inference.kernels import fast, gains

            stack.enter_context(out_of_memory(remedy))
            model, tokenizer = _load(reference, device, dtype, quantize)
            if gains(model):
                stack.enter_context(fast(model, measured))
        yield model, tokenizer


def _load(reference: str, device: str, dtype: str, quantize: str) -> tuple[nn.Module, Tokenizer | None]:
    from wenlu.base.device import pick_device, pick_dtype
    from wenlu.base.log import say
    from wenlu.compress.quantize import quantize as to_int8
    from wenlu.hub.folder import load, locate
    from wenlu.hub.quantized import FILE, load_int8, save_int8

    place = pick_device(device)
    if quantize == "none":
        return load(reference, place, pick_dtype(dtype, place))
    folder = locate(reference)
    if not (folder / FILE).exists():
        file = save_int8(to_int8(load(folder)[0]), folder)
        say(f"weights in int8 are kept in {file}, to be read next time")
    return load_int8(folder, place)
