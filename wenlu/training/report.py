"""The report of a run: one HTML page with its curves, its figures and what it wrote on the way."""

from __future__ import annotations

from typing import Any

from wenlu.base.config import to_dict
from wenlu.base.log import counted, read_rows
from wenlu.base.page import Page, figure
from wenlu.training.run_folder import RunFolder


def write_report(folder: RunFolder) -> None:
    """Write `RUN/wenlu/report.html` from the metrics and events of the run."""
    rows = read_rows(folder.metrics_file)
    events = read_rows(folder.events_file)
    steps = [row for row in rows if "loss" in row]
    held_out = [row for row in rows if "held_out" in row]
    recipe = folder.recipe()
    made = steps[-1]["step"] if steps else 0
    about = f"{recipe.model.family}, {counted(made, 'step')}, seed {recipe.training.seed}"
    page = Page(f"Run {folder.root.name}", about)
    begun = next((event for event in events if event["event"] == "start"), {})
    unit = begun.get("unit", "nats/token")
    page.table(
        [
            ("objective", begun.get("objective", "next token")),
            *_summary(steps, held_out, events, unit, recipe.training.eval_tokens),
        ]
    )
    plan = next((event for event in events if event["event"] == "plan"), None)
    if plan:
        page.heading("Planned and actual").table(_planned(plan, steps, held_out, events), ("", "planned", "actual"))
    page.heading("Loss").plot(_loss_plot(steps, held_out, unit))
    page.heading("Learning rate, gradient norm, throughput").plot(_small_plots(steps))
    samples = [row for row in held_out if row.get("sample")]
    if samples:
        page.heading("What it wrote on the way")
        for row in samples[:-1][:: max(1, len(samples) // 4)][:4] + samples[-1:]:
            page.text(f"After step {row['step']:,}, held-out loss {row['held_out']:.3f} {unit}:").preformatted(
                row["sample"]
            )
    page.heading("Recipe")
    for section, values in to_dict(recipe).items():
        if section == "data" and not recipe.data.paths:  # of a run that tunes, which reads rows
            continue
        page.text(section).table([(name, _plain(value)) for name, value in values.items()])
    page.heading("Events").table(
        [(e["event"], ", ".join(f"{k} {v}" for k, v in e.items() if k != "event")) for e in events]
    )
    page.save(folder.report_file)


def _plain(value: Any) -> Any:
    """A section within a section in words."""
    return ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, dict) else value


def _summary(
    steps: list[dict], held_out: list[dict], events: list[dict], unit: str, eval_tokens: int
) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    if steps:
        last = steps[-1]
        rows += [
            ("steps", f"{last['step']:,}"),
            ("tokens", f"{last['tokens']:,}"),
            ("training time", f"{last['seconds']:.0f} s"),
        ]
        rows += [("training loss", f"{last['loss']:.4f} {unit}")]
        rows += [("throughput", f"{last['tokens'] / max(1e-9, last['seconds']):,.0f} tokens/s")]
    if held_out and eval_tokens:
        rows += [
            ("read at an evaluation", f"{eval_tokens:,} held-out tokens at most, evenly from all; wenlu eval reads all")
        ]
    if held_out:
        best = min(held_out, key=lambda row: row["held_out"])
        rows += [("best held-out loss", f"{best['held_out']:.4f} {unit} at step {best['step']:,}")]
        if "bits_per_byte" in best:
            bits = best["bits_per_byte"]
            words = f"{bits:.4f} bits per byte" if bits else "no bits per byte: the tokenizer loses text"
            rows += [("the same", words)]
        others = [name for name in best if name not in ("step", "held_out", "bits_per_byte", "sample")]
        rows += [(f"{name.replace('_', ' ')} then", f"{best[name]:.4f}") for name in others]
    begun = next((e for e in events if e["event"] == "start"), None)
    if begun:
        rows += [("parameters", f"{begun['parameters']:,}")]
        rows += [("machine", _machine(begun["machine"]))]
    return rows


def _machine(noted: dict[str, Any]) -> str:
    told = {name: " ".join(value) if isinstance(value, list) else value for name, value in noted.items()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items() if value != "")


def _memory(plan: dict, ended: dict) -> str:
    """The peak of a run, over what was held before it where the plan notes that."""
    if "peak" not in ended:
        return "not ended"
    peak = f"{ended['peak'] / 2**20:,.0f} MiB in all"
    more = f"{max(0, ended['peak'] - plan['held_bytes']) / 2**20:,.0f} MiB more, " if "held_bytes" in plan else ""
    return more + peak


def _planned(plan: dict, steps: list[dict], held_out: list[dict], events: list[dict]) -> list[tuple[str, str, str]]:
    """What a plan for a length of time foretold beside what came."""
    ended = next((event for event in events if event["event"] == "finished"), {})
    bits = [row["bits_per_byte"] for row in held_out if row.get("bits_per_byte")]
    last = steps[-1] if steps else {"step": 0, "tokens": 0, "seconds": 0.0}
    pace = 1e3 * last["seconds"] / max(1, last["step"])
    foretold = "–" if plan["bits_per_byte"] is None else f"{plan['bits_per_byte']:.3f}"
    return [
        ("time", f"{60 * plan['minutes']:,.0f} s", f"{ended['clock']:,.1f} s" if ended else "not ended"),
        ("steps", f"{plan['steps']:,}", f"{last['step']:,}"),
        ("tokens", f"{plan['tokens']:,}", f"{last['tokens']:,}"),
        ("time of a step", f"{1e3 * plan['step_seconds']:.1f} ms", f"{pace:.1f} ms"),
        ("peak memory", f"{plan['memory_bytes'] / 2**20:,.0f} MiB more", _memory(plan, ended)),
        ("held out, bits per byte", foretold, f"{min(bits):.3f}" if bits else "–"),
    ]


def _loss_plot(steps: list[dict], held_out: list[dict], unit: str):
    drawing, axes = figure()
    marker = "." if len(steps) == 1 else None
    axes.plot([r["step"] for r in steps], [r["loss"] for r in steps], lw=1, alpha=0.7, label="training", marker=marker)
    if held_out:
        axes.plot(
            [r["step"] for r in held_out], [r["held_out"] for r in held_out], "o-", ms=3, lw=1.4, label="held-out"
        )
    axes.set(xlabel="step", ylabel=unit)
    axes.legend(frameon=False)
    return drawing


def _small_plots(steps: list[dict]):
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(8, 2.6), layout="constrained")
    wanted = [("lr_factor", "learning rate / peak"), ("grad_norm", "gradient norm"), ("tokens_per_second", "tokens/s")]
    for axes, (key, label) in zip(drawing.subplots(1, 3), wanted, strict=True):
        axes.plot([r["step"] for r in steps], [r[key] for r in steps], lw=1, marker="." if len(steps) == 1 else None)
        axes.set(xlabel="step", title=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return drawing
