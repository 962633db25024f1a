"""Markdown, HTML, tables, compressed files and patterns: what is read of them, counted and refused."""

import bz2
import csv
import gzip
import io
import sys
import tracemalloc

import pyarrow
import pytest
from pyarrow import parquet

from wenlu.base.errors import UserError
from wenlu.data.reading import compression, pieces
from wenlu.data.reading import text as text_module
from wenlu.data.reading.compression import zstd
from wenlu.data.reading.counts import SourceCounts, notes
from wenlu.data.reading.markup import charset_of, closed, text_of
from wenlu.data.reading.sources import read_documents


def read(*paths, **options):
    """(the documents, counts) of these paths."""
    counts = SourceCounts()
    texts = []
    for piece in read_documents(tuple(map(str, paths)), counts, **options):
        if piece.document == len(texts):
            texts.append("")
        texts[-1] += piece.text
    return texts, counts


def refusal(*paths, **options):
    with pytest.raises(UserError) as error:
        read(*paths, **options)
    return str(error.value)


FRONT = "---\ntitle: On stoves\ntags:\n  - 炉\n- fire\n# comment\n\ndate: 2024-01-01\n---\n\n# Stoves\n"


@pytest.mark.parametrize(
    "given, expected, blocks",
    [
        (FRONT, "# Stoves\n", 1),
        (FRONT.replace("\n", "\r\n"), "# Stoves\n", 1),
        (FRONT.replace("---\n\n#", "...\n#"), "# Stoves\n", 1),
        ("# Title\n\n" + FRONT, "# Title\n\n" + FRONT, 0),
        ("---\nA line, and then a rule.\n---\ntext\n", "---\nA line, and then a rule.\n---\ntext\n", 0),
        ("---\ntitle: never closed\n\ntext\n", "---\ntitle: never closed\n\ntext\n", 0),
        ("*plain* `text`", "*plain* `text`", 0),
        ("---\na: b\n" + "  \n" * 5000 + "text", "---\na: b\n" + "  \n" * 5000 + "text", 0),
    ],
)
def test_markdown_is_read_without_its_front_matter(tmp_path, given, expected, blocks):
    (tmp_path / "a.md").write_text(given, encoding="utf-8", newline="")
    texts, counts = read(tmp_path)
    assert texts == [expected] and counts.front_matter == blocks
    assert ("1 block of front matter in Markdown left out" in notes(counts.as_dict())) == bool(blocks)


PAGES = {
    "<title>no</title><h1>One</h1>two <b>bold</b>,<br>three<p>f&eacute;\n &#22825;": "One\n\ntwo bold,\nthree\n\nfé 天",
    "<p>a<script>if (a<b) x='</p>'</script><style>p{}</style><nav>menu</nav><template>t</template>b": "a\n\nb",
    "<p>x<noscript>turn it on</noscript><!-- c --><p>seen<p hidden>not<p style='display:none'>nor": "x\n\nseen",
    "<table><tr><th>a<th>b<tr><td>1<td>2</table>after": "a\tb\n1\t2\n\nafter",
    "<ul><li>one<li>two</ul><pre>  x\n    y\n</pre>": "one\ntwo\n\n  x\n    y",
    "<div><div><div>a</div></div><div>b</div></div>": "a\nb",
    "<p>broken <i>markup <p>goes </b>on</div> &nosuch; &lt;p&gt;": "broken markup\n\ngoes on &nosuch; <p>",
    "plain text,\nno tag": "plain text, no tag",
    "": "",
}


@pytest.mark.parametrize("page", PAGES)
def test_the_visible_text_of_pages(page):
    assert text_of(page) == PAGES[page]


def test_deep_pages_and_wide_pages():
    assert text_of("<div>" * 10_000 + "deep") == "deep"
    assert text_of("<p>x" * 50_000).count("x") == 50_000


def test_xhtml_closes_what_html_leaves_open():
    assert closed('<title/><p><a id="x"/>b<br/></p>') == '<title></title><p><a id="x"></a>b<br/></p>'


@pytest.mark.parametrize(
    "head, encoding, counted",
    [
        ('<meta charset="gb2312">', "gb18030", "gb18030"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=Big5">', "big5", "big5"),
        ('<?xml version="1.0" encoding="Shift_JIS"?>', "shift_jis", "shift_jis"),
        ('<meta charset="gbk">', "utf-8", "utf-8"),
        ("", "utf-16", "utf-16-le"),
    ],
)
def test_the_charset_of_a_page(tmp_path, head, encoding, counted):
    (tmp_path / "a.html").write_bytes(f"<html><head>{head}</head><p>日本天文\n".encode(encoding))
    texts, counts = read(tmp_path / "a.html")
    assert texts == ["日本天文"] and counts.encodings == {counted: 1}
    assert charset_of(b"<p>no charset") == ""


def test_a_page_without_text_among_others_is_counted_and_one_that_is_named_or_alone_is_refused(tmp_path):
    page = tmp_path / "a.html"
    page.write_text("<script>only()</script>")
    assert refusal(page) == f"{page} is empty: it holds no text; leave it out"
    assert refusal(tmp_path) == f"no text in {tmp_path} (1 file): {page} is empty: it holds no text; leave it out"
    (tmp_path / "b.html").write_text("<p>text")
    for paths in ([tmp_path], [tmp_path / "*.html"]):
        texts, counts = read(*paths)
        assert texts == ["text"] and (counts.files, counts.documents, counts.textless_files) == (2, 1, 1)
        said = ["1 file without any text left out", f"  {page} is empty: it holds no text"]
        assert notes(counts.as_dict()) == said
    assert refusal(tmp_path, page).startswith(f"{page} is empty"), "named itself, and in a folder"


def test_a_page_that_is_too_long_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.html").write_text("<script>only()</script>")
    monkeypatch.setattr(text_module, "LONGEST_ROW", 10)
    assert "longer than 10 characters, too long for one page: split it" in refusal(tmp_path)


ROWS = [["id", "text"], ["1", 'said "no",\nand 天'], ["2", ""], ["3", "three"]]


@pytest.mark.parametrize("kind, dialect", [("csv", csv.excel), ("tsv", csv.excel_tab)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables(tmp_path, kind, dialect, encoding):
    with open(tmp_path / f"a.{kind}", "w", encoding=encoding, newline="") as file:
        csv.writer(file, dialect).writerows(ROWS)
    texts, counts = read(tmp_path)
    assert texts == ['said "no",\nand 天', "three"]
    assert (counts.lines, counts.empty, counts.bad_lines) == (5, 1, 0)
    assert read(tmp_path, field="id")[0] == ["1", "2", "3"]
    columns = "has no column 'body', it has 'id', 'text': name the one that holds the text by --field"
    assert refusal(tmp_path, field="body") == f"{tmp_path / f'a.{kind}'} {columns}"


def test_two_columns_of_the_wanted_name_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("text, text,n,n\na,b,1,2\n")
    (tmp_path / "b.tsv").write_text("text\ttext\na\tb\n")
    parquet.write_table(pyarrow.Table.from_arrays([["a"], ["b"]], ["text", "text"]), tmp_path / "c.parquet")
    for name in ("a.csv", "b.tsv", "c.parquet"):
        why = "has 2 columns 'text': rename all but the one of the text"
        assert refusal(tmp_path / name) == f"{tmp_path / name} {why}"
    (tmp_path / "d.csv").write_text("text,n,n\na,1,2\n")
    assert read(tmp_path / "d.csv")[0] == ["a"], "those that are not read may have any name"


def test_bad_rows_of_tables_are_counted(tmp_path):
    good = b"good,1\r\n" * 5
    rows = [b"text,n", b"a,b,c", b'"open"x,1', b"\xff\xfe,1", b"fine,\xff"]  # what is not read may be anything
    (tmp_path / "a.csv").write_bytes(b"\r\n".join(rows) + b"\r\n\r\n" + "天,1\r\n".encode() * 5 + good)
    texts, counts = read(tmp_path, max_bad=0.5)
    assert texts == ["fine"] + ["天"] * 5 + ["good"] * 5 and counts.bad_lines == 3
    reasons = ["2: 3 columns instead of 2", "3: no row ('", "4: no UTF-8"]
    assert [e.removeprefix(f"{tmp_path / 'a.csv'}:")[: len(r)] for e, r in zip(counts.examples, reasons)] == reasons


def test_an_open_quote_counts_for_all_that_it_swallows(tmp_path):
    (tmp_path / "a.csv").write_text("text\n" + "fine\n" * 500 + '"open\n' + "lost\n" * 499)
    message = refusal(tmp_path)
    assert message.startswith(
        f"500 of 1,001 lines are bad, more than 1.00%, the first at {tmp_path / 'a.csv'}:502: no row"
    )


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("text\n")
    (tmp_path / "odd.csv").write_text('"a"b,c\n')
    assert "empty.csv is empty: it holds no text" in refusal(tmp_path / "empty.csv")
    assert "head.csv is empty: it holds no text" in refusal(tmp_path / "head.csv")
    assert "odd.csv does not begin with a row of column names" in refusal(tmp_path / "odd.csv")


def test_parquet(tmp_path):
    kinds = (pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int8(), pyarrow.string()))
    for number, kind in enumerate(kinds):
        column = pyarrow.array(["天 one\r\n", None, "", "two"] * 600, kind)
        table = pyarrow.table({"text": column, "n": pyarrow.array(range(2400))})
        parquet.write_table(table, tmp_path / f"{number}.parquet", row_group_size=700)
    texts, counts = read(tmp_path)
    assert texts == ["天 one\n", "two"] * 1800 and (counts.lines, counts.empty) == (7200, 3600)
    first = tmp_path / "0.parquet"
    assert f"{first} has no column 'body', it has 'text', 'n': name the one" in refusal(first, field="body")
    assert f"column 'n' of {first} holds int64, not text: name another by --field" in refusal(first, field="n")
    first.write_bytes(first.read_bytes()[:-9])
    assert f"{first} is damaged, or no parquet (" in refusal(first) and "fetch it again" in refusal(first)


def test_a_column_of_parquet_with_space_around_its_name(tmp_path):
    parquet.write_table(pyarrow.table({"n": [1, 2], " text ": ["天", "two"]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0] == ["天", "two"]


def test_parquet_strings_that_are_no_utf8_are_bad(tmp_path):
    raw = pyarrow.array([b"fine"] * 9 + [b"\xff"], pyarrow.binary())
    view = pyarrow.StringArray.from_buffers(10, raw.buffers()[1], raw.buffers()[2])
    parquet.write_table(pyarrow.table({"text": view}), tmp_path / "a.parquet")
    texts, counts = read(tmp_path, max_bad=0.1)
    assert texts == ["fine"] * 9 and counts.examples == [f"{tmp_path / 'a.parquet'}:10: no UTF-8"]


def test_a_missing_extra_is_named_with_what_installs_it(tmp_path, monkeypatch):
    for kind, module in (("parquet", "pyarrow"), ("pdf", "pypdf")):
        (tmp_path / f"a.{kind}").write_bytes(b"x")
        monkeypatch.setitem(sys.modules, module, None)
        assert refusal(tmp_path / f"a.{kind}").endswith(f'cannot be read without {module}: pip install "wenlu[{kind}]"')


@pytest.mark.parametrize("suffix, pack", [(".bz2", bz2.compress), (".zst", zstd.compress)])
def test_more_compressions(tmp_path, suffix, pack):
    text = "".join(f"line {n} 天\n" for n in range(5000))
    for name in ("a.txt", "b.md", "c.html", "d.CSV"):
        raw = text if name != "d.CSV" else "text\n" + text
        (tmp_path / (name + suffix)).write_bytes(pack(raw.encode()))
    texts, _ = read(tmp_path)
    assert texts == [text, text, " ".join(text.split("\n")).strip(), *text.splitlines()]
    for damaged in (pack(text.encode())[:-40], b"no archive at all"):
        (tmp_path / ("a.txt" + suffix)).write_bytes(damaged)
        assert f"a.txt{suffix} is damaged or cut short" in refusal(tmp_path)
    (tmp_path / ("a.pdf" + suffix)).write_bytes(b"x")
    assert "cannot be read compressed: decompress it and name the result" in refusal(tmp_path / ("a.pdf" + suffix))


@pytest.mark.parametrize("suffix, pack", [(".gz", gzip.compress), (".bz2", bz2.compress), (".zst", zstd.compress)])
def test_a_decompression_bomb_is_refused_early_and_in_little_memory(tmp_path, monkeypatch, suffix, pack):
    monkeypatch.setattr(compression, "FREE", 8 << 20)
    bomb = tmp_path / f"a.txt{suffix}"
    bomb.write_bytes(pack(b" " * (64 << 20)))
    tracemalloc.start()
    message = refusal(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message.startswith(f"{bomb} expands to more than 200 times its size (")
    assert message.endswith("decompress it yourself and name the result") and peak < 64 << 20
    assert int(message.split(" bytes became ")[1].split()[0].replace(",", "")) <= 16 << 20
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"a line of text\n" * 9999))
    assert read(tmp_path / "b.txt.gz")[0] == ["a line of text\n" * 9999], (
        "small files may be as repetitive as they like"
    )


def test_a_line_of_100_megabytes_takes_little_memory(tmp_path):
    with open(tmp_path / "a.txt", "wb") as file:
        for _ in range(100):
            file.write(b"word " * 200_000)
    tracemalloc.start()
    size = 0
    for piece in read_documents((str(tmp_path / "a.txt"),)):
        size += len(piece.text)
        assert len(piece.text) <= pieces.LONGEST
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == 100_000_000 and peak < 64 << 20


def test_rows_that_are_too_long_are_bad_and_long_ones_come_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "CHUNK", 1000)
    monkeypatch.setattr(text_module, "LONGEST_ROW", 20_000)
    long = "word\n" * 3000
    quoted = long.replace("\n", "\\n")
    (tmp_path / "a.jsonl").write_text(f'{{"text": "{quoted}"}}\n{{"text": "{"x" * 30_000}"}}\n{{"text": "end"}}')
    texts, counts = read(tmp_path / "a.jsonl", max_bad=0.5)
    assert texts == [long, "end"] and counts.examples == [f"{tmp_path / 'a.jsonl'}:2: longer than 20,000 bytes"]
    assert len(list(read_documents((str(tmp_path / "a.jsonl"),), max_bad=0.5))) > 10
    (tmp_path / "b.csv").write_text("text\n" + "x" * 30_000 + "\nend\n")
    texts, counts = read(tmp_path / "b.csv", max_bad=0.5)
    assert texts == ["end"] and counts.examples == [f"{tmp_path / 'b.csv'}:2: longer than 20,000 bytes"]


def test_patterns_are_resolved_as_a_shell_would(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.txt", "b/1.txt", "b/c/3.txt", "b/notes.doc", "b/.hidden.txt", "x[1].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read("b/*.txt")[0] == ["b/1.txt", "b/2.txt"]
    assert read("b/**/*.txt")[0] == ["b/1.txt", "b/2.txt", "b/c/3.txt"]
    assert read("b/[nc]*")[0] == ["b/c/3.txt", "b/notes.doc"]
    assert read("x[1].txt")[0] == ["x[1].txt"]
    assert refusal("b/*.epub") == "no file matches b/*.epub: check the pattern"


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_json_is_refused_with_the_way_to_jsonl(tmp_path, packed):
    file = tmp_path / f"a.json{packed}"
    raw = b'[{"text": "one"}, {"text": "two"}]'
    file.write_bytes(gzip.compress(raw) if packed else raw)
    way = f"jq -c '.[]' {tmp_path / 'a.json'} > {tmp_path / 'a.jsonl'}), or name it .jsonl where it is so already"
    why = f"{file} is JSON, which is not read as text: write one object a line ({way}"
    assert refusal(file) == refusal(f"{tmp_path}/*.json{packed}") == why
    assert refusal(tmp_path) == f"{tmp_path} holds no text; {why}"
    (tmp_path / "b.txt").write_text("text")
    assert read(tmp_path)[0] == ["text"] and read(tmp_path)[1].skipped_files == 1


def test_standard_input_may_be_utf16(monkeypatch):
    from wenlu.data.reading.sources import spooled

    given = '{"text": "天"}\n{"text": "b"}\n'.encode("utf-16")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    with spooled(("-",)) as paths:
        assert read(*paths)[0] == ["天", "b"]
