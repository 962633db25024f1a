"""Learning-rate schedules: pure functions of the step."""

import math

from wenlu.training.recipe import ScheduleConfig


def factor(config: ScheduleConfig, step: float, steps: int) -> float:
    """The learning rate of update `step` (0 ≤ step < steps) as a factor of its peak.

    Warm-up rises linearly over the first `warmup · steps` updates, the first of them above zero. Then `constant`
    stays; `cosine` falls to `floor` along half a cosine (Loshchilov & Hutter 2017); `wsd` stays, and over the last
    `decay · steps` updates falls linearly to `floor`, which the update after the last would reach (Hägele et al. 2024).
    """
    warm = round(config.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if config.name == "constant":
        return 1.0
    if config.name == "cosine":
        progress = (step - warm) / max(1, steps - warm)
        return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * progress))
    falling = max(1, min(round(config.decay * steps), steps - warm))
    return config.floor + (1 - config.floor) * min(1.0, (steps - step) / falling)
