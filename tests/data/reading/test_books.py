"""PDF and EPUB: pages and chapters in order, and what is damaged, locked or dangerous refused."""

import zipfile

import pypdf
import pytest

from wenlu.base.errors import UserError
from wenlu.data.reading import compression
from wenlu.data.reading.counts import SourceCounts
from wenlu.data.reading.sources import read_documents


def read(path, **options):
    """(the documents, counts) of a path."""
    counts = SourceCounts()
    pieces = list(read_documents((str(path),), counts, **options))
    assert sum(piece.last for piece in pieces) == counts.documents
    return "".join(piece.text for piece in pieces), counts


def refusal(path, **options):
    with pytest.raises(UserError) as error:
        read(path, **options)
    return str(error.value)


CONTAINER = '<container xmlns="x"><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
PACKAGE = """<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf"><manifest>
<item id="c2" href="text/two.xhtml"/><item id="c1" href="text/one%20%E7%82%89.xhtml"/><item id="n" href="nav.xhtml"/>
<item id="unused" href="unused.xhtml"/></manifest>
<spine><itemref idref="n"/><itemref idref="c1"/><itemref idref="c2"/></spine></package>"""
BOOK = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": CONTAINER,
    "OEBPS/book.opf": PACKAGE,
    "OEBPS/nav.xhtml": "<html><body><nav><ol><li>One</li></ol></nav></body></html>",
    "OEBPS/text/one 炉.xhtml": "<html><head><title/></head><body><h1>第一章</h1><p>炉火<br/>fire</p></body></html>",
    "OEBPS/text/two.xhtml": '<?xml version="1.0" encoding="utf-8"?><html><body><p>The <a id="x"/>end.</p></body>',
    "OEBPS/unused.xhtml": "<p>never</p>",
}


def epub(path, **changes):
    """A book with some of its entries changed, or, by None, left out."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (BOOK | changes).items():
            if content is not None:
                archive.writestr(name, content)
    return path


def test_the_chapters_of_an_epub_in_their_order(tmp_path):
    text, counts = read(epub(tmp_path / "a.epub"))
    assert text == "第一章\n\n炉火\nfire\nThe end.\n"
    assert (counts.documents, counts.lines, counts.bad_lines) == (1, 3, 0)
    utf16 = epub(tmp_path / "b.epub", **{"OEBPS/text/two.xhtml": "<p>结束</p>".encode("utf-16")})
    assert read(utf16)[0].endswith("fire\n结束\n")


def test_chapters_that_are_missing_or_no_text_are_counted(tmp_path):
    book = epub(tmp_path / "a.epub", **{"OEBPS/text/two.xhtml": None})
    text, counts = read(book, max_bad=0.5)
    assert text == "第一章\n\n炉火\nfire\n"
    assert counts.examples == [f"{book}:3: a chapter that the archive lacks (OEBPS/text/two.xhtml)"]
    assert "1 of 3 lines is bad" in refusal(book)
    book = epub(tmp_path / "b.epub", **{"OEBPS/text/two.xhtml": b"<p>\xff\xff\xff\xff</p>"})
    assert read(book, max_bad=0.5)[1].examples == [f"{book}:3: a chapter that is no text (OEBPS/text/two.xhtml)"]


def test_a_path_out_of_the_archive_leads_nowhere(tmp_path):
    (tmp_path / "secret.xhtml").write_text("<p>secret</p>")
    package = PACKAGE.replace("text/two.xhtml", "../../secret.xhtml")
    text, counts = read(epub(tmp_path / "a.epub", **{"OEBPS/book.opf": package}), max_bad=0.5)
    assert "secret" not in text and "a chapter that the archive lacks (../secret.xhtml)" in counts.examples[0]


@pytest.mark.parametrize("where", ["META-INF/container.xml", "OEBPS/book.opf"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(tmp_path, where, encoding):
    (tmp_path / "secret").write_text("secret")
    for entity in (f'SYSTEM "file://{tmp_path}/secret"', '"bomb"'):
        content = BOOK[where].replace('<?xml version="1.0"?>', "")
        raw = f"<!DOCTYPE x [<!ENTITY e {entity}>]>{content}".encode(encoding)
        message = refusal(epub(tmp_path / "a.epub", **{where: raw}))
        assert (
            message
            == f"{where} in {tmp_path / 'a.epub'} declares XML entities, which may be a bomb: leave the file out"
        )


def test_a_zip_bomb_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "FREE", 1 << 20)
    book = epub(tmp_path / "a.epub", **{"OEBPS/text/two.xhtml": "<p>" + " " * (2 << 20)})
    assert refusal(book).startswith(f"{book} expands to more than 200 times its size (")


def test_locked_books_are_refused(tmp_path):
    lock = '<encryption xmlns:e="y"><e:CipherReference URI="OEBPS/text/two.xhtml"/></encryption>'
    book = epub(tmp_path / "a.epub", **{"META-INF/encryption.xml": lock})
    assert refusal(book) == f"{book} is locked (encrypted chapters): only an unlocked copy can be read"
    fonts = lock.replace("text/two.xhtml", "font.otf")
    assert "The end." in read(epub(tmp_path / "b.epub", **{"META-INF/encryption.xml": fonts}))[0]


def test_damaged_epubs_are_refused(tmp_path):
    whole = epub(tmp_path / "a.epub").read_bytes()
    (tmp_path / "a.epub").write_bytes(whole[:-30])
    assert "a.epub is damaged, or no EPUB (" in refusal(tmp_path / "a.epub")
    message = refusal(epub(tmp_path / "b.epub", **{"META-INF/container.xml": None}))
    assert "b.epub is damaged, or no EPUB (it has no META-INF/container.xml): fetch it again" in message
    message = refusal(epub(tmp_path / "c.epub", **{"OEBPS/book.opf": "<package"}))
    assert "c.epub is damaged, or no EPUB (" in message
    message = refusal(epub(tmp_path / "d.epub", **{"META-INF/container.xml": "<container/>"}))
    assert "(its container names no package)" in message
    message = refusal(epub(tmp_path / "f.epub", **{"META-INF/container.xml": "<container><rootfile/></container>"}))
    assert "f.epub is damaged, or no EPUB (its container names no package): fetch it again" in message
    empty = {name: "<p/>" for name in BOOK if name.startswith("OEBPS/text")}
    assert "e.epub is empty: it holds no text" in refusal(epub(tmp_path / "e.epub", **empty))


MAP = b"""/CIDInit /ProcSet findresource begin begincmap /CMapName /M def 1 begincodespacerange <0000><FFFF>
endcodespacerange 2 beginbfchar <0001><7089> <0002><706B> endbfchar endcmap end"""


def pdf(path, *pages):
    """A PDF of these pages, each the operators that show its text in a Latin (/L) or Chinese (/C) font."""
    kids = b" ".join(b"%d 0 R" % (7 + 2 * n) for n in range(len(pages)))
    system = b"<</Registry(A)/Ordering(I)/Supplement 0>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(pages), kids),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Type/Font/Subtype/Type0/BaseFont/F/Encoding/Identity-H/DescendantFonts[5 0 R]/ToUnicode 6 0 R>>",
        b"<</Type/Font/Subtype/CIDFontType2/BaseFont/F/DW 1000/CIDSystemInfo%s>>" % system,
        b"<</Length %d>>stream\n%s\nendstream" % (len(MAP), MAP),
    ]
    for number, page in enumerate(pages):
        fonts = b"<</Font<</L 3 0 R/C 4 0 R>>>>"
        contents = b"%d 0 R" % (8 + 2 * number)
        objects.append(b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources%s/Contents %s>>" % (fonts, contents))
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(page), page))
    raw, places = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(raw))
        raw += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    raw += b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        len(objects) + 1,
        table,
        len(objects) + 1,
        len(raw),
    )
    path.write_bytes(raw)
    return path


LATIN = b"BT /L 12 Tf 50 700 Td (Page one) Tj 0 -20 Td (goes on.) Tj ET"
CHINESE = b"BT /C 12 Tf 50 700 Td <00010002> Tj ET"


def test_the_pages_of_a_pdf(tmp_path):
    text, counts = read(pdf(tmp_path / "a.pdf", LATIN, CHINESE, b""))
    assert text == "Page one\ngoes on.\n炉火\n" and (counts.documents, counts.lines, counts.bad_lines) == (1, 3, 0)


def test_pages_that_cannot_be_read_are_counted(tmp_path, monkeypatch):
    extract, seen = pypdf.PageObject.extract_text, []

    def fail_once(page, *arguments, **options):
        seen.append(page)
        if len(seen) == 2:
            raise KeyError("/Font")
        return extract(page, *arguments, **options)

    monkeypatch.setattr(pypdf.PageObject, "extract_text", fail_once)
    book = pdf(tmp_path / "a.pdf", LATIN, LATIN, CHINESE)
    text, counts = read(book, max_bad=0.5)
    assert text == "Page one\ngoes on.\n炉火\n"
    assert counts.examples == [f"{book}:2: a page that cannot be read (KeyError: '/Font')"]


def test_pdfs_without_text_locked_or_damaged_are_refused(tmp_path, caplog):
    assert "a.pdf has no text layer, as in a scan: have its text recognised (OCR)" in refusal(
        pdf(tmp_path / "a.pdf", b"")
    )
    (tmp_path / "scans").mkdir()
    pdf(tmp_path / "scans/a.pdf", b"")
    pdf(tmp_path / "scans/b.pdf", LATIN)
    _, counts = read(tmp_path / "scans")
    assert counts.textless_files == 1 and counts.examples[0].startswith(f"{tmp_path / 'scans/a.pdf'} has no text layer")
    writer = pypdf.PdfWriter(clone_from=pdf(tmp_path / "b.pdf", LATIN))
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "b.pdf")
    assert "b.pdf is locked by a password: unlock it first, or leave it out" in refusal(tmp_path / "b.pdf")
    writer = pypdf.PdfWriter(clone_from=pdf(tmp_path / "c.pdf", LATIN))
    writer.encrypt("", "owner", algorithm="RC4-128")
    writer.write(tmp_path / "c.pdf")
    assert read(tmp_path / "c.pdf")[0] == "Page one\ngoes on.\n", "anyone may read what only forbids to print"
    (tmp_path / "d.pdf").write_bytes(b"no PDF at all")
    assert "d.pdf is damaged, locked, or no PDF (" in refusal(tmp_path / "d.pdf")
    assert not caplog.records, "pypdf's own words, such as EOF marker not found"
