"""Parts of the pages that are made from results: a table, an estimate, the line that says where it was measured."""

from collections.abc import Iterable, Sequence


def where(about: dict) -> str:
    machine = about["machine"]
    return (
        f"{machine['processor']} ({machine['cpu_capability']}), {machine['threads']} threads, "
        f"torch {machine['torch']}, Python {about['python']}, {about['date']}, commit {about['commit']}."
    )


def table(header: str, rows: Iterable[Sequence[object]]) -> list[str]:
    """A table in Markdown, the heads of its columns parted by |."""
    return [
        "",
        f"| {header} |",
        "|---" * (header.count("|") + 1) + "|",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]


def between(noted: dict) -> str:
    """An estimate with its interval."""
    return f"{noted['value']:.3f} ({noted['low']:.3f} to {noted['high']:.3f})"
