"""Cleaning as a part of preparation: what goes is counted and shown, limits stop, nothing is left behind."""

import errno
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from wenlu.base.errors import UserError
from wenlu.base.files import verify_folder
from wenlu.cli.main import main
from wenlu.data.cleaning import corpus
from wenlu.data.cleaning import spool as spool_module
from wenlu.data.cleaning.audit import rule_rows
from wenlu.data.cleaning.corpus import differences
from wenlu.data.cleaning.limits import LIMITS as LIMIT_NAMES
from wenlu.data.cleaning.rules import RULES
from wenlu.data.cleaning.spool import Spool
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.data.reading import pieces
from wenlu.data.reading.sources import Piece
from wenlu.data.shards import open_data

WORDS = [
    "炉火",
    "and",
    "the",
    "old",
    "kettle",
    "sang",
    "while",
    "rain",
    "fell",
    "on",
    "seven",
    "roofs",
    "of",
    "our",
    "town",
]


def story(seed: int, words: int = 80) -> str:
    chooser = random.Random(seed)
    return " ".join(chooser.choice(WORDS) + str(chooser.randrange(300)) for _ in range(words)) + "."


def jsonl(path, texts) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def made(path, out, **settings):
    facts = prepare(PrepareConfig((path,), **{"tokenizer": "byte", "validation": 0.2} | settings), out)
    data = open_data(out, verify=True)
    held_out = data.validation.documents(data.tokenizer) if data.validation else []
    return facts, data.train.documents(data.tokenizer), held_out


DIRTY = [
    *(story(k) for k in range(40)),
    story(0),
    story(1).replace("kettle", "pan", 1),
    "Please enable JavaScript to view this page.",
    "1984",
    story(50) + "  \n<p>we don&apos;t</p>\x00",
]


def test_everything_that_goes_is_counted_and_shown(tmp_path, capsys):
    path = jsonl(tmp_path / "a.jsonl", DIRTY)
    facts, train, held_out = made(path, tmp_path / "data")
    assert sorted(train + held_out) == sorted([*DIRTY[:40], story(50) + "\n\nwe don't\n"])
    rules = facts["cleaning"]["rules"]
    dropped = {name: found["dropped"] for name, found in rules.items() if found["dropped"]}
    assert dropped == {"placeholder": 1, "short": 1, "duplicates": 1, "near-duplicates": 1}
    changed = {name: found["documents"] for name, found in rules.items() if found["documents"]}
    assert changed == {"html": 1, "controls": 1, "spaces": 1}
    assert rules["duplicates"]["bytes"] == len(story(0).encode()) and rules["controls"]["characters"] == 1
    assert rules["near-duplicates"]["examples"] == [[DIRTY[41][:160], DIRTY[1][:160]]]
    assert rules["html"]["examples"][0][0].endswith("<p>we don&apos;t</p>\x00")
    read = facts["cleaning"]["bytes"], sum(len(text.encode()) for text in DIRTY)
    assert (
        read[0]
        == read[1]
        == facts["train"]["bytes"] + facts["validation"]["bytes"] + sum(found["bytes"] for found in rules.values())
    )
    said = capsys.readouterr().err
    assert "placeholder" in said and "audit.html" in said and max(map(len, said.splitlines())) <= 200
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "data"], "the spool is gone"
    assert "cleaned" not in {p.name for p in (tmp_path / "data").iterdir()}


def test_rules_are_switched_off_by_name(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", DIRTY)
    _, train, held_out = made(path, tmp_path / "b", skip=("placeholder", "duplicates", "controls"))
    assert DIRTY[42] in train + held_out and (train + held_out).count(DIRTY[0]) == 2
    assert story(50) + "\n\nwe don't\n\x00" in train + held_out
    facts, train, held_out = made(path, tmp_path / "c", skip=("all",))
    assert sorted(train + held_out) == sorted(DIRTY) and "cleaning" not in facts


def test_clean_text_gives_the_same_ids_with_and_without_rules(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(story(k, 20) for k in range(60)), encoding="utf-8")
    prints = {
        made(str(tmp_path / "a.txt"), tmp_path / name, tokenizer="bpe:300", context=8, skip=skip)[0]["fingerprint"]
        for name, skip in (("raw", ("all",)), ("cleaned", ()), ("again", ()))
    }
    assert len(prints) == 1


def test_kept_near_duplicates_lie_on_one_side(tmp_path):
    texts = [story(k // 2) + (" and so on" if k % 2 else "") for k in range(120)]
    facts, train, held_out = made(jsonl(tmp_path / "a.jsonl", texts), tmp_path / "data", skip=("near-duplicates",))
    assert len(train) + len(held_out) == 120 and facts["cleaning"]["near_groups"] == 60 and facts["overlap"] == 0
    assert 4 <= len(held_out) <= 50 and not {t[:60] for t in train} & {t[:60] for t in held_out}


def mirrored() -> list[str]:
    """Twelve articles on two sites, a word of them different, each page with the twelve lines that end all of its site;
    and twelve others."""
    articles = [(story(k) + "\n", story(k).replace("kettle", "pan", 1) + "\n") for k in range(12)]
    ends = ["".join(f"Line {k} of what ends every page of site {site}.\n" for k in range(12)) for site in "AB"]
    pages = [text + end for pair in articles for text, end in zip(pair, ends)]
    return [*pages, *(story(100 + k) for k in range(12))]


def test_what_is_nearly_the_same_without_repeated_lines_is_dropped(tmp_path):
    path, options = jsonl(tmp_path / "a.jsonl", mirrored()), {"validation": 0.5, "allow": ("dropped",)}
    facts, train, held_out = made(path, tmp_path / "data", **options)
    wanted = [*(story(k) for k in range(100, 112)), *(story(k) + "\n" for k in range(12))]
    assert sorted(train + held_out) == sorted(wanted)
    rules = facts["cleaning"]["rules"]
    assert (rules["repeated"]["documents"], rules["near-duplicates"]["dropped"]) == (24, 12)
    assert facts["cleaning"]["near_groups"] == 12 and facts["overlap"] == 0


def test_what_is_nearly_the_same_without_repeated_lines_lies_on_one_side(tmp_path, monkeypatch):
    path = jsonl(tmp_path / "a.jsonl", mirrored())
    options = {"validation": 0.5, "skip": ("near-duplicates",), "allow": ("dropped",)}
    facts, train, held_out = made(path, tmp_path / "data", **options)
    assert len(train) + len(held_out) == 36 and facts["cleaning"]["near_groups"] == 12 and facts["overlap"] == 0
    assert held_out and not {text[-200:] for text in train} & {text[-200:] for text in held_out}
    monkeypatch.setattr(corpus, "joined", lambda groups: [])  # as if none were found: the check does not rely on it
    with pytest.raises(UserError, match=r"overlap: .* of the held-out documents stand, the same or nearly"):
        made(path, tmp_path / "again", **options)


def test_near_duplicates_over_both_sides_of_a_given_split_stop_it(tmp_path):
    train, held_out = [story(k) for k in range(30)], [story(k) + " The end." for k in (3, 60, 61)]
    paths = jsonl(tmp_path / "a.jsonl", train), jsonl(tmp_path / "b.jsonl", held_out)
    config = PrepareConfig(paths[:1], paths[1:], tokenizer="byte")
    with pytest.raises(UserError, match=r"overlap: 33.3% of the held-out documents stand, .* --allow overlap"):
        prepare(config, tmp_path / "data")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]
    allowed = prepare(PrepareConfig(paths[:1], paths[1:], tokenizer="byte", allow=("overlap",)), tmp_path / "data")
    assert allowed["overlap"] == 1 and allowed["validation"]["documents"] == 3


def test_a_book_that_stands_at_both_ends_is_noticed(tmp_path):
    books = [story(1, 400), story(2, 400), story(3, 400), story(1, 400) + " The end."]
    path = jsonl(tmp_path / "a.jsonl", books)
    with pytest.raises(UserError, match=r"overlap: 100\.0% of the held-out documents stand"):
        made(path, tmp_path / "data", skip=("near-duplicates",), context=4)
    assert len(made(path, tmp_path / "data", context=4)[1]) == 3


LIMITS = {
    "dropped": (
        [story(k) for k in range(20)] + [f"=-=-=-=-= 1234 {k} abcd " * 100 for k in range(9)],
        "most by the rule symbols",
    ),
    "duplicates": ([story(k % 9) for k in range(30)], "more than 50% (21 of 30)"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_stop_unless_allowed(name, tmp_path, capsys):
    texts, words = LIMITS[name]
    path = jsonl(tmp_path / "a.jsonl", texts)
    with pytest.raises(UserError) as stopped:
        made(path, tmp_path / "data")
    message = str(stopped.value)
    assert message.startswith(f"{name}: ") and words in message and message.endswith(f"--allow {name}")
    assert "dropped" in capsys.readouterr().err, "the table shows what each rule did"
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"], "nothing is left"
    assert made(path, tmp_path / "data", allow=(name,))[0]["train"]["documents"]


@pytest.mark.parametrize("rule", ["duplicates", "all"])
def test_repeats_that_no_rule_drops_stop_it_too(rule, tmp_path):
    path = jsonl(tmp_path / "a.jsonl", LIMITS["duplicates"][0])
    message = r"duplicates: 70\.0% of the documents repeat others, more than 50% \(21 of 30\); .* --allow duplicates"
    with pytest.raises(UserError, match=message):
        made(path, tmp_path / "data", skip=(rule,), validation=0.0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    facts = made(path, tmp_path / "data", skip=(rule,), validation=0.0, allow=("duplicates",))[0]
    assert (facts["train"]["documents"], facts["duplicates"]) == (30, 21)


def test_contamination_stops_and_is_shown(tmp_path, capsys):
    path = jsonl(tmp_path / "a.jsonl", [story(k) for k in range(40)])
    held = jsonl(tmp_path / "set.jsonl", [story(k)[:150] for k in (1, 2, 90)])
    with pytest.raises(UserError, match=r"contamination: .* of the evaluation set that were looked for stand in"):
        made(path, tmp_path / "data", against=(held,), validation=0.0)
    facts, *_ = made(path, tmp_path / "data", against=(held,), validation=0.0, allow=("contamination",))
    assert facts["contamination"]["found"] == 2 and facts["contamination"]["documents"] == 2
    assert "2 of 3 examples of the evaluation set stand in 2 training documents" in " ".join(
        capsys.readouterr().err.split()
    )


def test_examples_too_short_to_look_for_hide_no_contamination(tmp_path, capsys):
    path = jsonl(tmp_path / "a.jsonl", [story(k) for k in range(40)])
    held = jsonl(tmp_path / "set.jsonl", [*(f"too short {k}" for k in range(150)), story(1)[:150], story(90)])
    with pytest.raises(UserError, match=r"contamination: 50\.0% .* \(1 of 2, 150 more being too short to look for"):
        made(path, tmp_path / "data", against=(held,), validation=0.0)
    made(path, tmp_path / "data", against=(held,), validation=0.0, allow=("contamination",))
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 2 examples of the evaluation set stand in 1 training document (" in said
    assert "-grams; 150 more were too short to look for)" in said


def test_refusals(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("same line\n" * 500)
    for line, words in {
        "--skip htlm": "no rule 'htlm' to skip. Did you mean 'html'? Rules: unicode, html",
        "--allow dopped": "no limit 'dopped' to allow. Did you mean 'dropped'? Limits: dropped, duplicates",
        "": "no text is left: of 1 document the rules dropped 1 (repetitive 1); the rules are switched off by --skip",
    }.items():
        assert main(["prepare", f"{tmp_path}/a.txt", "--out", f"{tmp_path}/data", *line.split()]) == 2
        assert words in capsys.readouterr().err
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_disk_that_is_full_while_cleaning(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Spool, "write", full)
    path = jsonl(tmp_path / "a.jsonl", DIRTY)
    with pytest.raises(UserError, match=r"cannot write .*data: the disk is full: free some space"):
        prepare(PrepareConfig((path,), tokenizer="byte"), tmp_path / "data")
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


class Texts(HTMLParser):
    """The texts of a page, and how its tags nest."""

    def __init__(self):
        super().__init__()
        self.text, self.tags = [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_tells_all_and_is_part_of_the_manifest(tmp_path):
    lost = "话说唐僧师徒四众一路西行。" * 2 + "".join(
        chr(0x4E00 + k) + ("。" if k % 40 == 0 else "") for k in range(3000)
    )
    path = jsonl(tmp_path / "a.jsonl", [*DIRTY, lost + "我**你<b>x</b>卿L分明\ufffd"])
    facts, *_ = made(path, tmp_path / "data", allow=("dropped",))
    page = (tmp_path / "data" / "audit.html").read_text(encoding="utf-8")
    reader = Texts()
    reader.feed(page)
    text = " ".join(reader.text)
    for words in (
        "Please enable JavaScript",
        "话说唐僧",
        "U+FFFD, in place of lost characters",
        "asterisks in place of",
    ):
        assert words in text, words
    assert "1 document almost without commas" in text and "single Latin letters" in text
    assert {"table", "svg"} <= reader.tags and not {"script", "link", "img"} & reader.tags
    assert facts["profile"]["documents_without_commas"] == 1 and facts["profile"]["characters"]["Han"] > 3000
    assert verify_folder(tmp_path / "data") == []
    (tmp_path / "data" / "audit.html").write_text("x")
    assert verify_folder(tmp_path / "data") == [f"audit.html has 1 bytes instead of {len(page.encode())}"]


def test_a_text_of_which_the_end_is_held_out_is_one_document_and_one_held_out_beside_it_another(tmp_path):
    lines = "".join(f"第{n}回，{n * n % 97}人围炉读书；窗外下着雪。\n" for n in range(400))
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name + lines.replace("雪", name), encoding="utf-8")
    given = {"validation_paths": (str(tmp_path / "b.txt"),), "allow": ("overlap",)}
    for documents, settings in ((1, {}), (2, given)):
        config = PrepareConfig((str(tmp_path / "a.txt"),), tokenizer="byte", context=9, **settings)
        profile = prepare(config, tmp_path / f"{documents}")["profile"]
        assert sum(profile["length_histogram"]["documents_by_length"]) == documents


def test_a_share_that_rounds_to_nothing_is_not_called_nothing():
    counts = {"documents": 1, "dropped": 0, "bytes": 3}
    rows = rule_rows({"bytes": 1_000_000, "rules": {"html": counts, "spaces": counts | {"bytes": 0}}})
    assert [row[-1] for row in rows] == ["< 0.01%", "0.00%"]


def test_info_shows_the_audit_without_its_examples(tmp_path, capsys):
    made(jsonl(tmp_path / "a.jsonl", DIRTY), tmp_path / "data")
    capsys.readouterr()
    assert main(["info", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    assert "cleaning.rules.short.dropped" in said and "enable JavaScript" not in said


def test_documents_of_a_spool_can_be_replaced(tmp_path, monkeypatch):
    for module, name in ((spool_module, "BLOCK"), (pieces, "CHUNK")):
        monkeypatch.setattr(module, name, 50)
    texts = ["天气真好\n" * 40, "short", "", "line of words\n" * 30]
    with Spool(tmp_path / "spool") as spool:
        for text in texts:
            spool.write(text[:17])
            spool.write(text[17:])
            spool.end()
        assert ["".join(spool.texts(k)) for k in range(4)] == texts and len(list(spool.texts(0))) > 2
        for part in spool.texts(3):
            spool.write(part.upper())
        spool.replace(3)
        spool.write("new")
        assert spool.end() == 4 and spool.size(4) == 3
        made = list(spool.pieces([3, 2, 4]))
        assert "".join(p.text for p in made if p.document == 0) == texts[3].upper()
        assert made[-2:] == [Piece(1, "", True), Piece(2, "new", True)]
        assert [p.last for p in made if p.document == 0].count(True) == 1
    assert not (tmp_path / "spool").exists()


def test_differences_show_each_place():
    before = "a" * 50 + "ADVERT" + "b" * 60 + "<br>" + "c" * 60
    found = list(differences(before, before.replace("ADVERT", "").replace("<br>", "")))
    assert found == [
        ("a" * 24 + "ADVERT" + "b" * 24, "a" * 24 + "b" * 24),
        ("b" * 24 + "<br>" + "c" * 24, "b" * 24 + "c" * 24),
    ]
    assert list(differences("x" * 30 + "old", "x" * 30 + "new")) == [("x" * 24 + "old", "x" * 24 + "new")]
    assert list(differences("keep tail", "keep")) == [("keep tail", "keep")]


def test_every_rule_is_explained():
    assert all(RULES.values()) and len(RULES) == 12


@pytest.mark.parametrize("name", ["cleaning.md", "cleaning.zh-CN.md"])
def test_the_documentation_names_every_rule_and_limit(name):
    text = (Path(__file__).parents[3] / "docs" / name).read_text(encoding="utf-8")
    assert [row for row in re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)] == [*RULES, *LIMIT_NAMES]
    if name == "cleaning.md":
        assert all(f"| `{rule}` | {what} |" in text for rule, what in RULES.items())
