"""What was read from the sources, what was left out, and how that is said."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wenlu.base.log import counted

SHOWN = 5
"""Bad lines, and files without text, that are told of, where no page tells of more."""
EXAMPLES = 20


@dataclass
class SourceCounts:
    """What was read, and what was not."""

    files: int = 0
    documents: int = 0
    lines: int = 0
    """Of text and tables; pages of PDF, chapters of EPUB."""
    bytes: int = 0
    """Of the documents' text, in UTF-8."""
    bad_lines: int = 0
    empty: int = 0
    """Rows with an empty text."""
    line_ends: int = 0
    """Documents in which CRLF or CR became LF."""
    front_matter: int = 0
    """Blocks of YAML at the head of Markdown files, left out."""
    skipped_files: int = 0
    """Files in folders that are of no kind that is read, or no plain files."""
    made_here: list[str] = field(default_factory=list)
    """Folders that wenlu made itself (prepared data, runs, sweeps) inside of those that were searched."""
    encodings: dict[str, int] = field(default_factory=dict)
    """Files of text by the encoding that they were read as."""
    textless_files: int = 0
    """Files in folders, or of patterns, that hold no text."""
    examples: list[str] = field(default_factory=list)
    """The first bad lines, as file:line: reason, and files without text."""

    def __post_init__(self):
        self._file, self._before, self.first_bad, self.lack = "", 0, "", ""  # of the file at hand; no figures

    def begin(self, file: Path) -> None:
        """From here on, lines are those of another file."""
        self.files += 1
        self._file, self._before, self.first_bad, self.lack = str(file), self.lines, "", ""

    @property
    def line(self) -> int:
        """The number of the line read last in its file."""
        return self.lines - self._before

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def bad(self, line: int, reason: str, lines: int = 1) -> None:
        """Count bad lines of the file that is being read, the first of which is `line`."""
        self.bad_lines += lines
        self.first_bad = self.first_bad or f"{self._file}:{line}: {reason}"
        self._show(f"{self._file}:{line}: {reason}")

    def without_text(self) -> None:
        """Count the file that has been read as one that holds no text; `lack` says why, and the way out."""
        self.textless_files += 1
        if self.first_bad:
            self.lack = f"holds no text: its lines are bad, the first at {self.first_bad}; mend it, or leave it out"
        self.lack = self.lack or "is empty: it holds no text; leave it out"
        self._show(f"{self._file} {self.lack.partition(';')[0]}")

    def _show(self, example: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


def notes(*read: dict[str, Any]) -> list[str]:
    """What a user should know of counts (`as_dict`): encodings other than UTF-8, everything left out or changed."""
    encodings: dict[str, int] = {}
    for counts in read:
        for name, files in counts["encodings"].items():
            encodings[name] = encodings.get(name, 0) + files
    lines = []
    if set(encodings) - {"utf-8"}:
        lines.append(
            "files by encoding: " + ", ".join(f"{files:,} {name.upper()}" for name, files in encodings.items())
        )
    for name, noun, what in (
        ("bad_lines", "bad line", "left out"),
        ("textless_files", "file", "without any text left out"),
        ("empty", "row", "with an empty text left out"),
        ("line_ends", "document", "with CRLF or CR line ends read as LF"),
        ("front_matter", "block", "of front matter in Markdown left out"),
        ("skipped_files", "path", "passed over: hidden, linked, or of kinds that are not read"),
    ):
        if number := sum(counts[name] for counts in read):
            lines.append(f"{counted(number, noun)} {what}")
        if name == "textless_files":
            lines += [f"  {example}" for counts in read for example in counts["examples"]][:SHOWN]
    if made := [folder for counts in read for folder in counts["made_here"]]:
        shown = ", ".join(made[:SHOWN]) + ", …" * (len(made) > SHOWN)
        lines.append(f"{counted(len(made), 'folder')} that wenlu made left out (data, runs, sweeps): {shown}")
    return lines
