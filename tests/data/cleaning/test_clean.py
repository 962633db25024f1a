"""Rules that mend text: what each changes, and above all what it lets alone."""

import lzma

import pytest

from wenlu.data.cleaning.clean import _NEAR, STRETCH, TEXT_RULES, _line_around, _stretches
from wenlu.data.cleaning.rules import RULES, active_rules

CHANGES = {
    "unicode": {
        "When I firstÂ\xa0saw a cafÃ© on the shoreâ€™s edge": "When I first\xa0saw a café on the shore’s edge",
        "å¤©æ°”çœŸå¥½ï¼Œæˆ‘ä»¬åŽ»çœ‹çœ‹": "天气真好，我们去看看",
        "cafe\u0301 and nai\u0308ve": "café and naïve",
        "it\x92s \x93fine\x94": "it’s “fine”",
    },
    "html": {
        "we don&apos;t &amp; won&#39;t": "we don't & won't",
        "one<br/>two<br>three": "one\ntwo\nthree",
        '<p class="x">A <b>bold</b> word</p>': "\nA bold word\n",
        '<a href="http://x.y/">here</a> and <span style="color:red">there</span>': "here and there",
        "a<script type='x'>var a = 1 < 2;\n</script>b<!-- gone -->c": "abc",
        "害怕。：bsp;正说处": "害怕。： 正说处",
        "saved twice: Tom&amp;#39;s&amp;nbsp;house": "saved twice: Tom's house",
    },
    "controls": {
        "a\x00b\x07c\ufeffd\u200be\xadf": "abcdef",
        "no\xa0break\u2003wide": "no break wide",
        "line\u2028next\x0bpage\x0c": "line\nnext\npage\n",
        "lost \ufffd\ufffd\ufffd here \ufffd": "lost \ufffd here \ufffd",
        "a\u200db \u200d": "ab ",
    },
    "adverts": {
        "不见了唐僧。小^说^无广告的~顶点*小说~网www.example.com这个也来问": "不见了唐僧。这个也来问",
        "    全文字版小说阅读更新更快尽在支持文学支持!那郡侯同三藏": "那郡侯同三藏",
        "镶金点翠小说整理布于黄金盘": "镶金点翠黄金盘",
        "话说\n    首页|原创书库|现代|言情|武侠|科幻|侦探\n    后一页\n    回目录\n却说": "话说\n却说",
        "本站长期招收作品更新管理员，欢迎书友报名加入！\n却说": "却说",
        "The end.\nShare this:\nRead more...\n© 2010 Acme": "The end.\n© 2010 Acme",
    },
    "spaces": {
        "end  \nof\t\nline\u3000\n  indent": "end\nof\nline\n  indent",
        "a\n\n\n\n\nb\n\n\nc": "a\n\n\nb\n\n\nc",
        "last  ": "last",
    },
}
CASES = [(rule, before, after) for rule, cases in CHANGES.items() for before, after in cases.items()]


@pytest.mark.parametrize("rule, before, after", CASES, ids=[f"{rule}-{before[:12]!r}" for rule, before, _ in CASES])
def test_what_a_rule_changes(rule, before, after):
    assert TEXT_RULES[rule](before) == after
    assert TEXT_RULES[rule](after) == after, "once is enough"


UNTOUCHED = [
    "ROMEO:\nBut, soft! what light through yonder window breaks?\n",
    "“全角标点，不改；”《书》——（注）　缩进\n　　第一段。",
    "ligature ﬁne, ½, ™, ①, ｆｕｌｌ ｗｉｄｔｈ",
    "a < b and c > d; if (i<n && j>m) x<<=2; vector<int> v; List<String>; a<b>c",
    "usage: tool <input> <source> <table> -- the \"<p>\" tag, `<br>` and '&amp;' in text",
    "AT&T; R&D; x &= y; &c. &notanentity; Q&A",
    "```html\n<p>code</p>\n```\n",
    "<!DOCTYPE html>\n<html><body><p>a page's source</p></body></html>",
    "family 👨‍👩‍👧 ❤️‍🔥 keycap 1️⃣, می‌خواهم, क्ष and ශ්‍රී",
    "他说：“小说里写道，我在书店下载目录。”阅读使人更新自己。",
    "col|umn|data|row|one|two\n1|2|3|4|5|6|7\n目录在这一页的后一页上。\n",
    "Please read more books, click here to see, all rights reserved for us.\n",
    "Grüße, Ærø, Ångström, œuvre, ça, señor, Łódź, Škoda, naïve café, “quoted” – dash",
    "def f(x):\n    return {'a': [1, 2]}\n\n\n# two blank lines above\n",
    "\tindented by a tab\n    and by four\n",
]


@pytest.mark.parametrize("text", UNTOUCHED, ids=lambda text: repr(text[:20]))
def test_what_no_rule_touches(text):
    for name, rule in TEXT_RULES.items():
        assert rule(text) == text, name


def test_names():
    assert set(TEXT_RULES) < set(RULES)
    assert active_rules(("all",)) == frozenset() and active_rules(("html",)) == frozenset(RULES) - {"html"}


@pytest.mark.parametrize("filler", ["word ", "炉火", "é ", "x"])
def test_a_line_without_end_is_mended_like_a_short_one(filler):
    dirt = "the shoreâ€™s edge " + "天气" + "不见了唐僧。小^说^无广告的~顶点*小说~网www.example.com这个"
    for rule in ("unicode", "adverts"):
        mend = TEXT_RULES[rule]
        text = filler * 3000 + dirt + filler * 3000 + dirt
        assert mend(text) == filler * 3000 + mend(dirt) + filler * 3000 + mend(dirt) != text


@pytest.mark.parametrize("text", ["", "short\n", "word " * 5000, "炉" * 9000 + "\n", "é" * 9000, "é" * 9000 + " é" * 9])
def test_stretches_are_the_line(text):
    parts = list(_stretches(text))
    assert "".join(parts) == text
    assert "é" * 9 in text or all(len(part) <= STRETCH + 8 for part in parts)


@pytest.mark.parametrize("before", [0, 1, _NEAR, 2 * _NEAR, 2 * _NEAR + 1, 999])
@pytest.mark.parametrize("after", [1, _NEAR, 2 * _NEAR, 2 * _NEAR + 1, 999])
@pytest.mark.parametrize("ends", ["", "\n"])
def test_the_line_around_a_place(before, after, ends):
    text, place = ends + "x" * (before + after) + ends, len(ends) + before
    start, end = len(ends), len(ends) + before + after
    if end - start > 2 * _NEAR:
        start, end = max(start, place - _NEAR), min(end, place + _NEAR)
    assert _line_around(text, place) == (start, end)


@pytest.mark.data
def test_the_adverts_of_a_novel_go_and_nothing_else(data_dir):
    raw = lzma.decompress((data_dir / "chinese" / "西游记.txt.xz").read_bytes())
    text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    after = text
    for rule in TEXT_RULES.values():
        after = rule(after)
    assert "shuyaya" in text and "shuyaya" not in after and "更新更快" not in after and "小说整理" not in after
    assert 50 < len(text) - len(after) < 90
