"""What a sweep found, as a table to read at a terminal and as one HTML page with its plots."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from wenlu.base.page import Page, figure
from wenlu.metrics.paired import student_interval
from wenlu.training.sweep.standings import Standing, distinguishable, losses, whole

SHOWN = 8
"""Configurations that have a colour and a name in the plot."""
NOTE = (
    "Losses are the lowest held-out ones of each run, their mean over the seeds of the last rung that a configuration "
    "was on; less is better. The difference is from the best configuration, on that same rung and seed by seed; on the "
    "last rung it has a 95 % interval by Student's t over the paired seeds. Between rungs losses do not compare: runs "
    "of a later one are longer."
)


def time_text(seconds: float) -> str:
    """Seconds as 1:23 or 1:02:03."""
    whole_seconds = max(0, round(seconds))
    hours, rest = divmod(whole_seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def table(placed: list[Standing], unit: str) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows, best first."""
    header = ["configuration", "rung", "steps", "seeds", unit, "from the best", "95 % interval"]
    last = placed[0].rung
    rows = []
    for place, standing in enumerate(placed):
        interval = standing.interval
        difference = "" if standing.difference is None else f"{standing.difference:+.4f}"
        span = f"[{interval.low:+.4f}, {interval.high:+.4f}]" if interval else ""
        if standing.rung == last and not interval and standing.difference is not None and place:
            span = "too few seeds"
        loss = f"{standing.mean:.4f}" if math.isfinite(standing.mean) else "diverged"
        counts = (str(standing.rung + 1), f"{standing.steps:,}", str(len(standing.losses)))
        rows.append((standing.name, *counts, loss, difference if place else "best", span))
    return header, rows


def lines(placed: list[Standing], unit: str) -> list[str]:
    """The table in columns, and the verdict."""
    header, rows = table(placed, unit)
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: tuple[str, ...] | list[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        return "  ".join(cells).rstrip()

    return [line(header), *map(line, rows), "", verdict(placed, unit)]


def verdict(placed: list[Standing], unit: str) -> str:
    """The winner, and whether it is told from the runner-up."""
    best = placed[0]
    loss = f"{best.mean:.4f} {unit}" if math.isfinite(best.mean) else "diverged with a seed"
    says = f"best: {best.name} ({loss})"
    if len(placed) < 2 or placed[1].difference is None:
        return f"{says}; the others diverged"
    runner, told = placed[1], distinguishable(placed)
    if runner.rung < best.rung:
        return f"{says}, alone on the last rung"
    if told is None:
        return f"{says}; too few seeds to tell it from {runner.name}: a sweep with more --seeds or --minutes would"
    interval = runner.interval
    span = f"{runner.difference:.4f} better, 95 % interval [{interval.low:+.4f}, {interval.high:+.4f}]"
    return f"{says}; {'told' if told else 'not to be told'} from {runner.name} ({span})"


def write_page(path: Path, rows: list[dict[str, Any]], placed: list[Standing], unit: str) -> None:
    """Write the report."""
    begun = next(row for row in rows if row["event"] == "begin")
    runs = sum(row["event"] == "result" for row in rows)
    page = Page(
        f"Sweep {path.parent.name}",
        f"over {', '.join(begun['sweep']['over'])}: {runs} runs in {time_text(rows[-1]['clock'])} "
        f"of {time_text(60 * begun['sweep']['minutes'])}",
    )
    header, cells = table(placed, unit)
    page.text(verdict(placed, unit)).table(cells, header).text(NOTE)
    page.heading("Loss by rung").plot(_rungs_plot(rows, placed, unit))
    page.text(
        "Points are runs, one a seed; lines join the means; bars are 95 % intervals of a mean by Student's t. The "
        "frame is that of the better half: bars are cut off at it, and what is far worse lies above. Seeds shift all "
        "configurations together: whether two differ is told by the plot below."
    )
    compared = [standing for standing in placed if standing.interval]
    if compared:
        page.heading("Difference from the best, on the last rung").plot(_differences_plot(placed[0], compared, unit))
    diverged = [row for row in rows if row["event"] == "result" and row["diverged"]]
    if diverged:
        page.heading("Diverged")
        names = {standing.configuration: standing.name for standing in placed}
        page.table([(names.get(r["configuration"], ""), f"seed {r['seed']}", r["diverged"]) for r in diverged])
    page.heading("Recipe that was swept over")
    for section, values in begun["recipe"].items():
        page.text(section).table(list(values.items()))
    page.save(path)


def _rungs_plot(rows: list[dict[str, Any]], placed: list[Standing], unit: str):
    drawing, axes = figure(height=3.8)
    tracks, steps = _tracks(rows)
    best = [standing.configuration for standing in placed[:SHOWN]]
    names = {standing.configuration: standing.name for standing in placed}
    apart = max(1.02, max(steps) / min(steps)) ** 0.008
    for configuration in [*(c for c in tracks if c not in best), *reversed(best)]:
        shown = configuration in best
        place = best.index(configuration) if shown else 0
        style = {"color": f"C{place}" if shown else "0.75", "zorder": 3 if shown else 2}
        track = [(count * apart**place, finite) for count, finite in tracks[configuration] if finite]
        means = [float(np.mean(finite)) for _, finite in track]
        label = names[configuration] if shown else None
        axes.plot([at for at, _ in track], means, lw=1.4, label=label, **style)
        for at, finite in track:
            axes.plot([at] * len(finite), finite, "o", ms=3, alpha=0.7, **style)
            interval = student_interval(finite) if shown else None
            if interval:
                axes.plot([at, at], [interval.low, interval.high], lw=0.8, alpha=0.6, **style)
    better = {standing.configuration for standing in placed[: math.ceil(len(placed) / 2)]}
    seen = [loss for c in better for _, finite in tracks.get(c, []) for loss in finite]
    if seen:
        margin = 0.08 * (max(seen) - min(seen)) or 0.05
        axes.set_ylim(min(seen) - margin, max(seen) + margin)
    axes.set_xscale("log")
    axes.set_xticks(steps, [f"{count:,}" for count in steps])
    axes.minorticks_off()
    axes.set(xlabel="steps of a run", ylabel=f"held-out {unit}")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize="small")
    return drawing


def _tracks(rows: list[dict[str, Any]]) -> tuple[dict[int, list[tuple[int, list[float]]]], list[int]]:
    """Configuration → (steps, losses that are finite) of each rung it was on, and the steps of all rungs."""
    tracks: dict[int, list[tuple[int, list[float]]]] = {}
    found, steps = losses(rows), []
    for rung in (row for row in rows if row["event"] == "rung"):
        steps.append(rung["steps"])
        shared = whole(found.get(rung["rung"], {}), rung["configurations"])
        for configuration, own in shared.items():
            tracks.setdefault(configuration, []).append((rung["steps"], list(filter(math.isfinite, own.values()))))
    return tracks, steps


def _differences_plot(best: Standing, compared: list[Standing], unit: str):
    drawing, axes = figure(height=1.4 + 0.35 * len(compared))
    for place, standing in enumerate(compared):
        interval = standing.interval
        axes.plot([interval.low, interval.high], [place, place], lw=1.6, color="C0")
        axes.plot([standing.difference], [place], "o", color="C0")
        pairs = [standing.losses[seed] - best.losses[seed] for seed in standing.losses]
        axes.plot(pairs, [place] * len(pairs), "|", color="0.4", ms=9)
    axes.axvline(0.0, color="0.3", lw=0.8)
    axes.set_yticks(range(len(compared)), [standing.name for standing in compared])
    axes.set_ylim(len(compared) - 0.5, -0.5)
    axes.set(xlabel=f"{unit} more than {best.name}")
    return drawing
