"""Repeated lines: boilerplate and adverts are found; verse, plays, headings and program text stay."""

import lzma

import pytest

from wenlu.data.cleaning import repeated
from wenlu.data.cleaning.repeated import RepeatedLines, without

ADVERT = "Visit our wonderful library for more free books!"


def cleaned(documents: list[str]) -> list[str]:
    lines = RepeatedLines()
    for number, text in enumerate(documents):
        lines.add(text)
        lines.end(number)
    return [without(text, lines.in_document(number), lines.at_ends()) for number, text in enumerate(documents)]


FOOTER = "本站所有文章均来自互联网投稿"


def test_a_line_at_the_end_of_many_documents_goes():
    pages = [f"Page {n} tells its own story.\nEnd {n}.\n{FOOTER}\n\n{ADVERT}" for n in range(6)]
    assert cleaned(pages) == [f"Page {n} tells its own story.\nEnd {n}." for n in range(6)]
    assert cleaned(pages[:5]) == pages[:5], "of five it stays"
    assert cleaned([page + "\n" for page in pages])[0] == "Page 0 tells its own story.\nEnd 0.\n"


def test_a_line_at_the_beginning_or_amid_many_documents_stays():
    rows = [f"Edit the following sentence for grammar.\nHe go to park {n}.\n{FOOTER}\nHe went." for n in range(20)]
    assert cleaned(rows) == rows
    assert cleaned([FOOTER] * 9) == [FOOTER] * 9, "nor all that there is"


def test_an_advert_all_over_a_novel_goes():
    chapters = [f"Chapter {n}\n" + f"What happened in {n}, at length. " * 60 for n in range(9)]
    novel = f"\n{ADVERT}\n".join(chapters)
    assert cleaned([novel, "another"]) == ["\n".join(chapters), "another"]


def test_the_refrain_of_a_song_stays():
    song = "".join(f"Verse {n} of the long song that is sung here\n{ADVERT}\n" for n in range(20))
    assert cleaned([song]) == [song]


@pytest.mark.parametrize(
    "line",
    [
        "GLOUCESTER:",
        "DUKE VINCENTIO AND ALL HIS MEN:",
        "春眠不覺曉，處處聞啼",
        ">>> c = ExtendedContext.copy()",
        "    return self.value_of_the_thing;",
    ],
)
def test_lines_of_many_documents_that_stay(line):
    documents = [f"{n}\n{line}" for n in range(20)]
    assert cleaned(documents) == documents


def test_memory_is_bounded_and_what_is_frequent_is_still_found(monkeypatch):
    monkeypatch.setattr(repeated, "MOST", 100)
    pages = [f"{ADVERT}\n" + "".join(f"Line {n} {k} is like no other one.\n" for k in range(150)) for n in range(10)]
    lines = RepeatedLines()
    for number, text in enumerate(pages):
        lines.add(text)
        lines.end(number)
        assert len(lines._documents) <= 100 + 150
    within = RepeatedLines()
    within.add(("An own line of this text, number {}.\n" * 150).format(*range(150)))
    assert len(within._here) <= 100


def test_lines_of_a_time_when_the_memory_is_full_of_others_are_found(monkeypatch):
    monkeypatch.setattr(repeated, "MOST", 100)
    forgot, forget = [], repeated._without_rarest
    monkeypatch.setattr(repeated, "_without_rarest", lambda *given: forgot.append(1) or forget(*given))
    halves = ["".join(f"Line {k} of half {half} stands there twice.\n" for k in range(50)) for half in "ab"]
    twice = [halves[0], halves[0], halves[1], halves[1]]
    pages = [f"Page {n} tells its own story at length.\n{FOOTER}" for n in range(1000)]
    assert cleaned([*twice, *pages])[4:] == [f"Page {n} tells its own story at length." for n in range(1000)]
    assert len(forgot) <= 2 + 1000 / 50, "a table of that size is not copied for every document"
    lines = RepeatedLines()
    for part in (*twice, *(f"What happened in chapter {n}, at length. " * 60 + f"\n{ADVERT}\n" for n in range(12))):
        lines.add(part)
    lines.end(0)
    assert len(lines.in_document(0)) == 1


@pytest.mark.data
@pytest.mark.parametrize("name", ["tinyshakespeare.txt", "Dickens_Bleak.txt.xz", "Fielding_Tom.txt.xz"])
def test_novels_and_plays_stay_whole(data_dir, name):
    raw = (data_dir / "english" / name).read_bytes()
    text = (lzma.decompress(raw) if name.endswith(".xz") else raw).decode("utf-8-sig").replace("\r\n", "\n")
    assert cleaned([text]) == [text]
