"""Products: the kernels of wenlu against torch's own, in bytes of weights a second; of many rows in operations.

Matrices out of cache (together 400 MB or more, read by turns; of many rows 100 MB), two threads; the ways alternate,
and the quickest turn of each counts. Beside them: a plain read of the same bytes, oneDNN on weights packed before
(which takes a second copy of them), and `aten._weight_int8pack_mm`; torch's int8 is `F.linear` of weights made float on
the way. Run it on a machine that has nothing else to do: python benchmarks/kernels.py
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from wenlu.models.kernels import kernels
from wenlu.models.quantized import int8_product

from record import keep

SHAPES = [(4096, 768), (768, 3072), (2048, 2048), (50257, 768)]
ROWS, MANY = (1, 4, 8), 512
BYTES, TURNS = 400_000_000, 8


def ways(kind: str, weights: torch.Tensor, x: torch.Tensor, scale: torch.Tensor) -> dict[str, Callable]:
    """What reads all of `weights` [matrices, out, in] once."""
    found = kernels()
    if kind == "int8":
        compared = {
            "wenlu": lambda: [found.product(x, weight, scale) for weight in weights],
            "torch": lambda: [int8_product(x, weight, scale) for weight in weights],
        }
        if len(x) == 1:
            compared["int8pack"] = lambda: [torch._weight_int8pack_mm(x, weight, scale) for weight in weights]
        return compared
    packed = [torch.ops.mkldnn._reorder_linear_weight(weight, len(x)) for weight in weights]
    return {
        "wenlu": lambda: [found.product(x, weight) for weight in weights],
        "torch": lambda: [F.linear(x, weight) for weight in weights],
        "oneDNN, packed": lambda: [
            torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "") for weight in packed
        ],
    }


def seconds(compared: dict[str, Callable]) -> dict[str, float]:
    best = dict.fromkeys(compared, float("inf"))
    for _ in range(TURNS):
        for name, way in compared.items():
            began = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def told(results: list[dict], row: dict) -> None:
    results.append(row)
    print(*row.values(), flush=True)


@torch.inference_mode()
def main() -> None:
    results = []
    for outputs, inputs in SHAPES:
        for kind, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16), ("int8", torch.int8)):
            size = outputs * inputs * dtype.itemsize
            weights = torch.ones(max(2, -(-BYTES // size)), outputs, inputs, dtype=dtype)
            scale, words = torch.rand(outputs), weights.view(-1).view(torch.int32)
            for rows in ROWS:
                x = torch.ones(rows, inputs, dtype=dtype if dtype.is_floating_point else torch.float32)
                compared = ways(kind, weights, x, scale)
                if rows == 1:
                    compared["a plain read"] = words.max
                rate = {name: round(weights.nbytes / s / 1e9, 1) for name, s in seconds(compared).items()}
                told(results, {"weights": kind, "out": outputs, "in": inputs, "rows": rows, "GB/s": rate})
                del compared
            weights = weights[: max(1, len(weights) // 4)]
            x = torch.ones(MANY, inputs, dtype=dtype if dtype.is_floating_point else torch.float32)
            found = seconds(ways(kind, weights, x, scale))
            rate = {name: round(2e-9 * MANY * weights.numel() / s) for name, s in found.items()}
            told(results, {"weights": kind, "out": outputs, "in": inputs, "rows": MANY, "GFLOP/s": rate})
    print(keep("kernels", {"threads": torch.get_num_threads(), "results": results}))


if __name__ == "__main__":
    main()
