"""The rules that clean a corpus, by name: what each is for, and which are switched off."""

from wenlu.base.errors import UserError, did_you_mean

RULES = {
    "unicode": "mends mojibake where it is certain (ftfy), normalises to NFC; full-width signs and curly quotes stay",
    "html": "takes out left-over tags and entities; text that shows code, and quoted tags, stay",
    "controls": "takes out control and invisible characters; joiners between letters and in emoji stay",
    "adverts": "takes out adverts of book sites, navigation bars, lines such as next page or share this",
    "spaces": "takes out white space at line ends, and more than two blank lines in a row",
    "repeated": "takes out longer lines that end 6 documents or more, or come 8 times in one, far apart",
    "short": "drops documents of fewer than 2 letters or ideographs",
    "symbols": "drops documents of which less than 30 % are letters or ideographs",
    "placeholder": "drops short pages that ask for JavaScript, are parked or missing, or lorem ipsum",
    "repetitive": "drops longer documents that mostly repeat their own lines or phrases",
    "duplicates": "drops documents that are the same as an earlier one",
    "near-duplicates": "drops documents whose 5-grams of words or ideographs are mostly those of an earlier one",
}
"""Name → what it does, in the order in which they are applied; `skip` may name each."""


def active_rules(skip: tuple[str, ...]) -> frozenset[str]:
    """The rules that are left; `all` stands for every one."""
    for name in skip:
        if name not in RULES and name != "all":
            near = did_you_mean(name, [*RULES, "all"])
            raise UserError(f"no rule {name!r} to skip.{near} Rules: {', '.join(RULES)}, or all")
    return frozenset() if "all" in skip else frozenset(RULES) - set(skip)
