"""A self-contained HTML page: text, tables and plots as inline SVG; no network, no scripts."""

import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from wenlu.base.files import atomic_write

STYLE = """
body{font:16px/1.55 system-ui,"Noto Sans CJK SC","PingFang SC","Microsoft YaHei",sans-serif;color:#1d2430;
max-width:60rem;margin:2.5rem auto;padding:0 1.2rem;background:#fff}
h1{font-size:1.7rem;margin:0 0 .3rem}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem;border-bottom:1px solid #e3e7ee;padding-bottom:.2rem}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums;width:100%}
td,th{padding:.28rem .8rem .28rem 0;text-align:left;border-bottom:1px solid #eef1f5;vertical-align:top}
th{font-weight:600;color:#566}
pre{background:#f6f8fa;padding:.9rem 1rem;border-radius:6px;white-space:pre-wrap;word-break:break-word;font-size:.9rem}
svg{max-width:100%;height:auto}.note{color:#566;font-size:.92rem}
@media(prefers-color-scheme:dark){body{background:#14181f;color:#dfe5ee}h2,td,th{border-color:#2a313c}pre{background:#1c222b}
th,.note{color:#93a0b3}svg{background:#fff;border-radius:6px}}
"""


def figure(width: float = 8.0, height: float = 3.4):
    """A matplotlib figure and its axes, drawn without a display."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    axes = drawing.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return drawing, axes


class Page:
    """Built from top to bottom, then saved: `Page("Run").heading("Loss").plot(figure).save(path)`."""

    def __init__(self, title: str, subtitle: str = ""):
        self._title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="note">{html.escape(subtitle)}</p>']

    def heading(self, text: str) -> "Page":
        self._parts.append(f"<h2>{html.escape(text)}</h2>")
        return self

    def text(self, text: str) -> "Page":
        self._parts.append(f"<p>{html.escape(text)}</p>")
        return self

    def preformatted(self, text: str) -> "Page":
        self._parts.append(f"<pre>{html.escape(text)}</pre>")
        return self

    def table(self, rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> "Page":
        def cells(row: Sequence[object], tag: str) -> str:
            shown = (", ".join(map(str, cell)) if isinstance(cell, list | tuple) else str(cell) for cell in row)
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in shown) + "</tr>"

        head = cells(header, "th") if header else ""
        self._parts.append("<table>" + head + "".join(cells(row, "td") for row in rows) + "</table>")
        return self

    def plot(self, drawing) -> "Page":
        """A matplotlib figure as inline SVG; its letters become paths, so that the page looks alike everywhere."""
        buffer = io.StringIO()
        drawing.savefig(buffer, format="svg", metadata={"Date": None})
        _, tag, rest = buffer.getvalue().partition("<svg")
        self._parts.append(f"<figure>{tag}{rest}</figure>")
        return self

    def save(self, path: Path) -> None:
        """Write the page atomically."""
        body = "\n".join(self._parts)
        atomic_write(
            path,
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self._title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
            f"<body>{body}</body></html>",
        )
