"""Limits at which preparation stops, unless they are allowed to be passed."""

from wenlu.base.errors import UserError, did_you_mean

LIMITS: dict[str, tuple[float, str]] = {
    "dropped": (0.3, "of the bytes were removed by the rules for cleaning"),
    "duplicates": (0.5, "of the documents repeat others"),
    "contamination": (0.01, "of the examples of the evaluation set that were looked for stand in the training text"),
    "overlap": (0.01, "of the held-out documents stand, the same or nearly, in the training text"),
}
"""Name → (largest share, share of what)."""


def check_names(allowed: tuple[str, ...]) -> None:
    """Refuse a name that is no limit."""
    for name in allowed:
        if name not in LIMITS:
            raise UserError(f"no limit {name!r} to allow.{did_you_mean(name, LIMITS)} Limits: {', '.join(LIMITS)}")


def check(name: str, part: int, whole: int, allowed: tuple[str, ...], detail: str = "") -> None:
    """Stop where `part` of `whole` is more than the limit of that name lets pass."""
    most, what = LIMITS[name]
    if part > most * whole and name not in allowed:
        raise UserError(
            f"{name}: {part / whole:.1%} {what}, more than {most:.0%} ({part:,} of {whole:,}{detail}); "
            f"mend the text, or let it pass with --allow {name}"
        )
