"""GPUs: memory, speed and power as their makers print them. Free of torch."""

from dataclasses import dataclass

from wenlu.base.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Gpu:
    """One card. Speeds are for dense matrices (data sheets print twice as much "with sparsity"), sums kept in f32."""

    memory: float
    """Gigabytes, 10⁹ bytes."""
    bf16: float
    """TFLOP/s of matrix products in bf16; 0 where the card has no arithmetic for it."""
    f32: float
    """TFLOP/s in f32 proper, not in the shortened tf32."""
    watts: int
    """What the board may draw."""


GPUS = {
    "t4": Gpu(16, 0, 8.1, 70),
    "v100": Gpu(32, 0, 15.7, 300),
    "a10": Gpu(24, 125, 31.2, 150),
    "a100-40": Gpu(40, 312, 19.5, 400),
    "a100-80": Gpu(80, 312, 19.5, 400),
    "l4": Gpu(24, 121, 30.3, 72),
    "l40s": Gpu(48, 362, 91.6, 350),
    "h100": Gpu(80, 989, 67, 700),
    "h200": Gpu(141, 989, 67, 700),
    "b200": Gpu(180, 2250, 75, 1000),
    "rtx3090": Gpu(24, 71, 35.6, 350),
    "rtx4090": Gpu(24, 165.2, 82.6, 450),
    "rtx5090": Gpu(32, 209.5, 104.8, 575),
}
"""Sources, all of NVIDIA: the data sheets of T4, V100 (SXM2), A10, A100 (SXM4), L4, L40S, H100 (SXM5), H200 (SXM) and
HGX B200 (an eighth of the board's figures); the architecture papers of GA102, Ada and RTX Blackwell for the GeForce
cards, whose bf16 figure is the one with f32 sums."""


def find_gpu(name: str) -> Gpu:
    """The card of that name."""
    if name not in GPUS:
        raise UserError(f"no GPU {name!r} in the table.{did_you_mean(name.lower(), GPUS)} Known: {', '.join(GPUS)}")
    return GPUS[name]
