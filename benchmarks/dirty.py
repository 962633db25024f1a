"""What wenlu prepare says of dirty data: its refusal or its audit in short, its seconds, its peak of memory.

Real dirt (raw web pages, Wikipedia articles that were run together, a novel with adverts and lost commas) and made dirt
(a decompression bomb, lines of 100 MB, characters torn at the borders of blocks, wrong columns, an empty folder), each
by one command with the default rules and a tokenizer that was learned before. What came through is compared with what
went in where nothing may be lost.

    python benchmarks/dirty.py [--data ../shared/data] [--only NAME]
"""

import argparse
import gzip
import json
import lzma
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from wenlu.data.shards import open_data

import record
from contest import read
from whole_process import wenlu

MEBIBYTE = 1 << 20
LINE = 100_000_000


def bomb(folder: Path, data: Path) -> Path:
    """A gigabyte of one letter, in a megabyte."""
    file = folder / "bomb.txt.gz"
    with gzip.open(file, "wb", compresslevel=9) as out:
        for _ in range(1000):
            out.write(b"a" * 1_000_000)
    return file


def web_line(folder: Path, data: Path) -> Path:
    """Web pages and novels, shuffled by 5 words at a time so that little is repeated, in one line."""
    rows = lzma.decompress((data / "english" / "c4_demo.jsonl.xz").read_bytes()).decode().splitlines()
    words = " ".join(json.loads(row)["text"] for row in rows).split()
    words += " ".join(read(file) for file in sorted((data / "english").glob("*_*.txt.xz"))).split()
    return _line(folder / "line.txt", [" ".join(words[k : k + 5]) for k in range(0, len(words), 5)], " ")


def chinese_line(folder: Path, data: Path) -> Path:
    """Chinese novels without any white space, shuffled by 4 characters."""
    text = "".join("".join(read(file) for file in sorted((data / "chinese").glob("*.txt.xz"))).split())
    return _line(folder / "line.txt", [text[k : k + 4] for k in range(0, len(text), 4)], "")


def _line(file: Path, parts: list[str], between: str) -> Path:
    draw, size = random.Random(0), 0
    with open(file, "w", encoding="utf-8") as out:
        while size < LINE:
            part = draw.choice(parts) + between
            out.write(part)
            size += len(part.encode())
    return file


def straddling(folder: Path, data: Path) -> Path:
    """A character of three bytes over every border of a mebibyte, its first byte the last before it; all in order."""
    return _at_borders(folder / "straddling.txt", "炉".encode())


def torn(folder: Path, data: Path) -> Path:
    """The same, but only two bytes of each of them."""
    return _at_borders(folder / "torn.txt", "炉".encode()[:2])


def _at_borders(file: Path, sign: bytes) -> Path:
    draw, raw = random.Random(0), bytearray()
    for border in range(MEBIBYTE, 9 * MEBIBYTE, MEBIBYTE):
        while len(raw) < border - 200:
            raw += f"炉火 {draw.getrandbits(40):x} warms the room {draw.getrandbits(30)}.\n".encode()
        raw += b"x" * (border - 1 - len(raw)) + sign + b" follows.\n"
    file.write_bytes(raw)
    return file


def csv_columns(folder: Path, data: Path) -> Path:
    """Of 200 rows 20 have an unquoted comma too many."""
    rows = [f"{n},Row {n} of a table{', with more' if n % 10 == 0 else ''}" for n in range(200)]
    (folder / "rows.csv").write_text("\n".join(["id,text", *rows]) + "\n")
    return folder / "rows.csv"


def csv_header(folder: Path, data: Path) -> Path:
    """The text is in another column than is asked for."""
    (folder / "rows.csv").write_text("id,body\n" + "".join(f"{n},Row {n} of a table\n" for n in range(200)))
    return folder / "rows.csv"


def jsonl_fields(folder: Path, data: Path) -> Path:
    """Of 200 rows 20 have their text elsewhere."""
    rows = [{"content" if n % 10 == 0 else "text": f"Row {n} of a file"} for n in range(200)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def empty(folder: Path, data: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


CASES: dict[str, Callable[[Path, Path], Path]] = {
    "300 raw web pages": lambda _, data: data / "english" / "c4_demo.jsonl.xz",
    "30 Wikipedia articles, run together": lambda _, data: data / "english" / "wiki_demo.txt",
    "a Chinese novel with adverts and lost commas": lambda _, data: data / "chinese" / "西游记.txt.xz",
    "a gzip bomb: 1 GB in 1 MB": bomb,
    "one line of 100 MB, English": web_line,
    "one line of 100 MB, Chinese without spaces": chinese_line,
    "characters over the borders of blocks": straddling,
    "half a character at the borders of blocks": torn,
    "csv: a comma too many in every tenth row": csv_columns,
    "csv: no column named text": csv_header,
    "jsonl: another field in every tenth row": jsonl_fields,
    "an empty folder": empty,
}
LOSSLESS = ("characters over the borders of blocks",)


def heard(said: str, folder: Path) -> list[str]:
    """What a run said, without its progress and with short paths."""
    lines = [line.rstrip().replace(f"{folder}/", "") for line in said.splitlines()]
    return [line for line in lines if line and not line.startswith(("encoding", "cleaning …", "audit: "))]


def run(name: str, tokenizer: Path, data: Path) -> dict:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        file, out = CASES[name](folder, data), folder / "prepared"
        done = wenlu("prepare", str(file), "--out", str(out), "--tokenizer", str(tokenizer), "--validation", "0")
        facts = {"code": done.code, "seconds": round(done.seconds, 1), "peak": done.peak}
        facts["said"] = heard(done.said.replace(f"{data}/", ""), folder)
        if name in LOSSLESS:
            opened = open_data(out)
            facts["lossless"] = "".join(opened.train.documents(opened.tokenizer)) == file.read_text(encoding="utf-8")
        assert done.code == 0 or not out.exists(), "what is refused leaves nothing behind"
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=record.data_folder())
    parser.add_argument("--only", default="", help="cases whose name holds this; nothing is kept then")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder, "learned")
        texts = [str(options.data / "english" / "Austen_Emma.txt.xz"), str(options.data / "chinese" / "红楼梦.txt.xz")]
        learned = wenlu("prepare", *texts, "--out", str(tokenizer), "--tokenizer", "bpe:8192")
        if learned.code:
            raise RuntimeError(learned.said)
        for name in CASES:
            if options.only not in name:
                continue
            facts = results[name] = run(name, tokenizer, options.data)
            verdict = "made" if facts["code"] == 0 else "refused"
            print(f"\n== {name}: {verdict}, {facts['seconds']} s, {facts['peak'] / 1e6:,.0f} MB")
            print(*(f"   {line}" for line in facts["said"]), sep="\n", flush=True)
            if "lossless" in facts:
                print(f"   came through whole: {facts['lossless']}")
    if not options.only:
        record.keep("dirty", {"results": results})


if __name__ == "__main__":
    main()
