"""Reading sources: MB/s of txt, jsonl and GB18030; encodings told by us and by detectors; HTML by three parsers.

pip install charset-normalizer chardet lxml; python benchmarks/sources.py
"""

import json
import lzma
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path

import chardet
import charset_normalizer
import lxml.etree
import lxml.html

from wenlu.data.reading.encodings import encoding_of
from wenlu.data.reading.markup import BLOCKS, LEFT_OUT, text_of
from wenlu.data.reading.sources import read_documents

from record import data_folder, keep

SIZE = 100_000_000
TURNS = 5
SAME = {
    "cp1252": {"cp1252", "windows-1252", "latin-1", "iso8859-1", "iso-8859-1"},
    "gb18030": {"gb18030", "gbk", "gb2312"},
    "utf-8": {"utf-8", "utf-8-sig"},
}
"""Names under which a detector's answer is right: the same text comes out."""


def novels(folder: str, names: Iterable[str] = ("*",)) -> list[str]:
    files = [file for name in names for file in sorted((data_folder() / folder).glob(f"{name}.txt.xz"))]
    return [lzma.decompress(file.read_bytes()).decode("utf-8-sig").replace("\r\n", "\n") for file in files]


def paragraphs(texts: list[str], size: int) -> list[str]:
    """Their paragraphs shuffled, again and again up to so many bytes."""
    found = [p for text in texts for p in text.split("\n\n") if p.strip()]
    chosen, length, order = [], 0, random.Random(0)
    while length < size:
        order.shuffle(found)
        for paragraph in found:
            chosen.append(paragraph)
            length += len(paragraph.encode()) + 2
            if length >= size:
                break
    return chosen


def by_turns(work: dict[str, Callable[[], object]], size: int) -> dict[str, float]:
    """MB a second of processor time of each, the best of some turns."""
    best = dict.fromkeys(work, float("inf"))
    for _ in range(TURNS):
        for name, run in work.items():
            began = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - began)
    return {name: round(size / seconds / 1e6, 1) for name, seconds in best.items()}


def reading(folder: Path) -> dict[str, dict[str, float]]:
    """Our reader beside the plainest loops of Python over the same file."""
    english = paragraphs(novels("english"), SIZE)
    rows = "".join(json.dumps({"text": p}, ensure_ascii=False) + "\n" for p in english)
    chinese = "\n\n".join(paragraphs(novels("chinese"), SIZE * 3 // 2))
    files = {
        "txt": "\n\n".join(english).encode(),
        "jsonl": rows.encode(),
        "txt in GB18030": chinese.encode("gb18030", "ignore"),
    }

    def plain(file: Path, name: str) -> int:
        with open(file, encoding="gb18030" if "GB" in name else "utf-8") as lines:
            return sum(len(json.loads(line)["text"] if name == "jsonl" else line) for line in lines)

    result = {}
    for name, raw in files.items():
        file = folder / f"a.{name.split()[0]}"
        file.write_bytes(raw)
        work = {
            "wenlu": lambda file=file: sum(len(piece.text) for piece in read_documents((str(file),))),
            "a loop over open()": lambda file=file, name=name: plain(file, name),
        }
        result[name] = by_turns(work, len(raw))
        file.unlink()
    return result


def encodings() -> dict[str, dict]:
    """Right answers on slices of real text that hold a character beyond ASCII, cut at lines.

    None of these texts was looked at when the rule was made: that was done on the novels and on Multi30k.
    """
    data = data_folder()
    web = lzma.decompress((data / "english/c4_demo.jsonl.xz").read_bytes()).decode().splitlines()
    articles = json.loads(lzma.decompress((data / "qa/cmrc2018_dev.json.xz").read_bytes()))["data"]
    texts = [
        ("\n".join(json.loads(row)["text"] for row in web), "cp1252"),
        ((data / "english/wiki_demo.txt").read_text(encoding="utf-8"), "cp1252"),
        ((data / "english/wikitext2_valid.txt").read_text(encoding="utf-8"), "cp1252"),
        ("\n".join(p["context"] for article in articles for p in article["paragraphs"]), "gb18030"),
    ]
    detectors = {
        "wenlu": encoding_of,
        "charset-normalizer": lambda raw: getattr(charset_normalizer.from_bytes(raw).best(), "encoding", None),
        "chardet": lambda raw: chardet.detect(raw)["encoding"],
    }
    order = random.Random(0)
    slices = []
    for text, encoding in texts:
        for name in (encoding, "utf-8"):
            raw = text.encode(name, "ignore")
            for size in (300, 3000, 30_000):
                for _ in range(100):
                    start = raw.find(b"\n", order.randrange(max(1, len(raw) - size))) + 1
                    end = raw.find(b"\n", start + size) + 1 or len(raw)
                    if not raw[start:end].isascii():
                        slices.append((raw[start:end], name, size))
    result = {}
    for detector, tell in detectors.items():
        began = time.process_time()
        answers = [str(tell(raw)).lower().replace("_", "-") for raw, _, _ in slices]
        seconds = time.process_time() - began
        wrong = [(name, size) for answer, (_, name, size) in zip(answers, slices) if answer not in SAME[name]]
        result[detector] = {
            "slices": len(slices),
            "wrong": {f"{name}, {size} bytes": wrong.count((name, size)) for name, size in sorted(set(wrong))},
            "all_wrong": len(wrong),
            "MB_per_second": round(sum(len(raw) for raw, _, _ in slices) / seconds / 1e6, 1),
        }
    return result


class Standard(HTMLParser):
    """The visible text by the standard library: no rules for what is left open."""

    def __init__(self):
        super().__init__()
        self.parts, self.inside = [], 0

    def handle_starttag(self, tag, attrs):
        self.inside += tag in LEFT_OUT
        self.parts.append("\n" if tag in BLOCKS else "")

    def handle_endtag(self, tag):
        self.inside -= tag in LEFT_OUT
        self.parts.append("\n" if tag in BLOCKS else "")

    def handle_data(self, data):
        if not self.inside:
            self.parts.append(" ".join(data.split()))


def standard(page: str) -> str:
    parser = Standard()
    parser.feed(page)
    parser.close()
    return "".join(parser.parts)


def by_lxml(page: str) -> str:
    """The visible text by lxml: the same walk, over its tree."""
    parts, inside = [], 0
    for event, element in lxml.etree.iterwalk(lxml.html.document_fromstring(page), ("start", "end")):
        inside += (1 if event == "start" else -1) * (element.tag in LEFT_OUT)
        parts.append("\n" if element.tag in BLOCKS else "")
        text = element.text if event == "start" else element.tail
        if text and not inside:
            parts.append(" ".join(text.split()))
    return "".join(parts)


def pages() -> dict[str, float]:
    """MB/s over pages made of real paragraphs in ordinary markup."""
    text = paragraphs(novels("english", ["Austen_*", "Dickens_*"]) + novels("chinese"), 8_000_000)
    made = []
    for start in range(0, len(text), 40):
        body = "".join(
            f'<p class="text">{p}<a href="/x?y=1&amp;z=2" id="a">more</a></p>\n' for p in text[start : start + 40]
        )
        menu = "<nav><ul>" + '<li class="m"><a href="/menu">menu</a></li>' * 30 + "</ul></nav>"
        made.append(
            f"<!doctype html><html><head><title>t</title><script>{'var a=1;' * 200}</script></head><body>{menu}"
            f'<div class="outer"><div class="inner">{body}</div></div><footer>foot</footer></body></html>'
        )
    parsers = {"selectolax (lexbor)": text_of, "lxml": by_lxml, "html.parser": standard}
    work = {name: lambda parse=parse: [parse(page) for page in made] for name, parse in parsers.items()}
    return by_turns(work, sum(len(page.encode()) for page in made))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "peers": {name: version(name) for name in ("charset-normalizer", "chardet", "selectolax", "lxml")},
            "reading_MB_per_second": reading(Path(folder)),
            "encodings": encodings(),
            "html_MB_per_second": pages(),
        }
    print(json.dumps(result, indent=1))
    print(keep("sources", result))


if __name__ == "__main__":
    main()
