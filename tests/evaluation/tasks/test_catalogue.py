"""Known tasks: read from small files of their sets' form, from a stand-in for the hub, and from the real sets."""

import io
import json
import sys
import tarfile
import types
import zipfile

import pytest

from wenlu.base.errors import UserError
from wenlu.evaluation.task import Settings, asked
from wenlu.evaluation.tasks.catalogue import READERS, read_tasks
from wenlu.evaluation.tasks.source import instead_of


def jsonl(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


SQUAD = {"data": [{"paragraphs": [{"context": "It was late.", "qas": [
    {"id": "q1", "question": "When?", "answers": [{"text": "late", "answer_start": 7}]},
    {"id": "q2", "question": "What?", "answers": [{"text": "It", "answer_start": 3}]},
]}]}]}  # fmt: skip
PROMPT = "canary\n-----\nSay yes.\n\nQ: a?\nA: Let's think.\nSo the answer is yes.\n\nQ: b?\nA: So the answer is no."
FILES = {
    "blimp_67x1000.jsonl": jsonl(
        *({"sentence_good": f"g{n}", "sentence_bad": f"b{n}", "UID": f"u{n % 2}", "field": "f"} for n in range(6))
    ),
    "test_2016_flickr.en": "A dog.\nA cat.\n",
    "test_2016_flickr.de": "Ein Hund.\nEine Katze.\n",
    "train.en": "One.\n",
    "train.de": "Eins.\n",
    "cmn.txt": "".join(f"Say {n}.\t说{n}。\n" for n in range(40)),
    "xquad.en.json": json.dumps(SQUAD),
}
ARCHIVES = {
    "eval_gauntlet.tar.xz": {
        "arc_easy.jsonl": jsonl({"query": "Question: a?", "choices": ["x", "y"], "gold": 1}),
        "lambada_openai.jsonl": jsonl({"context": "It was", "continuation": "late"}),
        "winogrande.jsonl": jsonl({"context_options": ["Ann", "Sue"], "continuation": "left.", "gold": 0}),
        "triviaqa_sm_sub.jsonl": jsonl({"context": "Question: a?\nAnswer:", "answer": "X", "aliases": ["Y"]}),
    },
    "bbh.tar.xz": {
        "bbh/bbh/navigate.json": json.dumps({"examples": [{"input": "left?", "target": "No"}]}),
        "bbh/bbh/snarks.json": json.dumps({"examples": [{"input": "which?", "target": "(A)"}]}),
        "bbh/cot-prompts/navigate.txt": PROMPT,
        "bbh/cot-prompts/snarks.txt": PROMPT,
    },
    "gsm8k.tar.xz": {
        "gsm8k/test.jsonl": jsonl({"question": "1+1?", "answer": "#### 2"}),
        "gsm8k/train.jsonl": jsonl({"question": "1+2?", "answer": "#### 3"}),
    },
    "instruction_induction.tar.xz": {
        f"i/{part}/{name}.json": json.dumps(content)
        for name, row in (
            ("antonyms", {"input": "hot", "output": "cold"}),
            ("cause_and_effect", {"cause": "It rained.", "effect": "It was wet."}),
            ("common_concept", {"items": ["a", "b"], "concept": "are letters", "all_common_concepts": ["letters"]}),
        )
        for part, content in (
            ("raw/execute", {"examples": {"1": row, "2": row}}),
            ("raw/induce", {"examples": {"1": row}}),
            ("annotations", {"annotations": ["Say the opposite. ", "other"]}),
        )
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for name, content in FILES.items():
        (root / "some").mkdir(exist_ok=True)
        (root / "some" / name).write_text(content, encoding="utf-8")
    for name, members in ARCHIVES.items():
        with tarfile.open(root / name, "w:xz") as archive:
            for member, content in members.items():
                entry = tarfile.TarInfo(member)
                entry.size = len(content.encode())
                archive.addfile(entry, io.BytesIO(content.encode()))
    with zipfile.ZipFile(root / "sentence_polarity.zip", "w") as archive:
        for end, word in (("neg", "dull"), ("pos", "fin\xe9")):
            lines = "".join(f"{word} {n} .\n" for n in range(20)).encode("latin-1")
            archive.writestr(f"sentence_polarity/rt-polarity.{end}", lines)
    return str(root)


def first(name, folder, shots=0):
    task = read_tasks([name], folder)[0]
    chosen = asked(task, Settings(shots))
    return task, chosen.prompts(chosen.examples[0])


def test_multiple_choice(folder):
    task, asks = first("arc_easy", folder)
    assert asks == (("Question: a?\nAnswer:", (" x", " y")),) and task.examples[0].gold == 1
    assert first("lambada", folder)[1] == (("It was", (" late",)),)
    assert first("winogrande", folder)[1] == (("Ann", (" left.",)), ("Sue", (" left.",)))
    assert first("triviaqa", folder)[0].examples[0].answers == ("X", "Y")


def test_pairs(folder):
    task, asks = first("blimp", folder)
    assert asks == (("", (" g0", " b0")),) and task.part == "UID" and len(task.examples) == 6
    assert [one.choices[0] for one in read_tasks(["blimp/u1"], folder)[0].examples] == ["g1", "g3", "g5"]


def test_written(folder):
    assert [task.name for task in read_tasks(["bbh"], folder)] == ["bbh/navigate", "bbh/snarks"]
    assert first("bbh/navigate", folder)[1] == (("Say yes.\n\nQ: left?\nA:", ()),)
    shown = "Say yes.\n\nQ: a?\nA: Let's think.\nSo the answer is yes.\n\nQ: left?\nA:"
    assert first("bbh/navigate", folder, shots=1)[1] == ((shown, ()),)
    shown = "Question: 1+2?\nAnswer: #### 3\n\nQuestion: 1+1?\nAnswer:"
    assert first("gsm8k", folder, shots=1)[1] == ((shown, ()),)
    assert first("instruction_induction/antonyms", folder)[1] == (("Say the opposite.\n\nInput: hot\nOutput:", ()),)
    causes = read_tasks(["instruction_induction/cause_and_effect"], folder)[0].examples
    assert [one.fields["input"][:23] for one in causes] == ["Sentence 1: It rained. ", "Sentence 1: It was wet."]
    assert all(one.answers == ("It rained.",) for one in causes)
    concept = read_tasks(["instruction_induction/common_concept"], folder)[0].examples[0]
    assert concept.answers == ("are letters", "letters") and concept.fields["input"] == "a, b"


def test_translation(folder):
    assert first("multi30k.de-en", folder, shots=1)[1] == (
        ("German: Eins.\nEnglish: One.\n\nGerman: Ein Hund.\nEnglish:", ()),
    )
    task, asks = first("tatoeba.zh-en", folder)
    assert asks == (("中文: 说0。\nEnglish:", ()),) and task.examples[0].answers == ("Say 0.",)
    assert len(task.examples) == 2 and len(task.pool) == 38


def test_lines_of_texts_end_at_line_ends_only(tmp_path):
    sides = {"en": ["A\u2028dog.", "Two."], "de": ["Ein Hund.", "Zwei\x85"]}
    for part in ("test_2016_flickr", "train"):
        for side, texts in sides.items():
            (tmp_path / f"{part}.{side}").write_bytes("\r\n".join([*texts, ""]).encode())
    examples = first("multi30k.en-de", str(tmp_path))[0].examples
    assert [(one.fields["source"], *one.answers) for one in examples] == list(zip(*sides.values()))
    (tmp_path / "cmn.txt").write_bytes("".join(f"Say{n}\u2028.\t说{n}\x85。\n" for n in range(20)).encode())
    assert first("tatoeba.zh-en", str(tmp_path))[0].examples[0].answers == ("Say0\u2028.",)
    for end in ("neg", "pos"):
        (tmp_path / f"rt-polarity.{end}").write_bytes(b"dull \x85 .\n" * 20)
    assert len(first("sentence_polarity", str(tmp_path))[0].examples) == 4


def test_passages(folder):
    task, asks = first("xquad.en", folder)
    assert asks == (("Passage: It was late.\nQuestion: When?\nAnswer:", ()),)
    assert task.examples[0].group == task.examples[1].group != ""
    assert task.notes == ("1 answers do not stand where their offset says; their texts count all the same",)


def test_classes(folder):
    task, asks = first("sentence_polarity", folder, shots=2)
    assert len(task.examples) == 4 and len(task.pool) == 36 and task.kind.classes == ("negative", "positive")
    assert asks[0][0] == (
        "Review: dull 1 .\nSentiment: negative\n\nReview: fin\xe9 1 .\nSentiment: positive\n\n"
        "Review: dull 0 .\nSentiment:"
    )


HUB = {
    ("allenai/ai2_arc", "ARC-Easy"): [
        {"question": "a?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}
    ],
    ("allenai/openbookqa", "main"): [
        {"question_stem": "a is", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"}
    ],
    ("allenai/winogrande", "winogrande_xl"): [
        {"sentence": "Ann saw Sue so _ left.", "option1": "Ann", "option2": "Sue", "answer": "2"}
    ],
    ("aps/super_glue", "boolq"): [{"passage": "p", "question": "is a", "label": 1}],
    ("aps/super_glue", "copa"): [
        {"premise": "It rained.", "question": "effect", "choice1": "It was wet.", "choice2": "The sun", "label": 0}
    ],
    ("baber/piqa", None): [{"goal": "g", "sol1": "x", "sol2": "y", "label": 0}],
    ("EleutherAI/lambada_openai", "default"): [{"text": "It was very late"}],
    ("mandarjoshi/trivia_qa", "rc.nocontext"): [{"question": "a?", "answer": {"value": "X", "aliases": ["Y"]}}],
    ("openai/gsm8k", "main"): [{"question": "1+1?", "answer": "#### 2"}],
    ("nyu-mll/blimp", "wh_island"): [{"sentence_good": "a", "sentence_bad": "b"}],
    ("lukaemon/bbh", "navigate"): [{"input": "left?", "target": "No"}],
    ("rajpurkar/squad", None): [
        {"id": "1", "context": "It was", "question": "q", "answers": {"text": ["It"], "answer_start": [0]}}
    ],
    ("bentrevett/multi30k", None): [{"en": "A", "de": "Ein"}],
    ("cornell-movie-review-data/rotten_tomatoes", None): [{"text": "t", "label": 0}, {"text": "u", "label": 1}],
}
ON_HUB = {
    "arc_easy": (("Question: a?\nAnswer:", (" x", " y")),),
    "openbook_qa": (("a is", (" x", " y")),),
    "winogrande": (("Ann saw Sue so Ann", (" left.",)), ("Ann saw Sue so Sue", (" left.",))),
    "boolq": (("Passage: p\nQuestion: is a?\nAnswer:", (" no", " yes")),),
    "copa": (("It rained, therefore", (" it was wet.", " the sun")),),
    "piqa": (("Question: g\nAnswer:", (" x", " y")),),
    "lambada": (("It was very", (" late",)),),
    "triviaqa": (("Question: a?\nAnswer:", ()),),
    "gsm8k": (("Question: 1+1?\nAnswer:", ()),),
    "blimp/wh_island": (("", (" a", " b")),),
    "bbh/navigate": (("Q: left?\nA:", ()),),
    "squad": (("Passage: It was\nQuestion: q\nAnswer:", ()),),
    "multi30k.en-de": (("English: A\nGerman:", ()),),
    "sentence_polarity": (("Review: t\nSentiment:", (" negative", " positive")),),
}


@pytest.mark.parametrize("name", ON_HUB)
def test_the_hub_has_the_same_sets(name, monkeypatch):
    def load_dataset(data_set, configuration, split, streaming):
        assert streaming and split in ("test", "validation", "train")
        return iter(HUB[data_set, configuration])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert first(name, "hub")[1] == ON_HUB[name]


@pytest.mark.parametrize(
    ("names", "data", "words"),
    [
        ([], "", "which tasks? Name some after --tasks"),
        (["arc_esy"], "", "no task 'arc_esy'. Did you mean 'arc_easy'? Known: arc_challenge, arc_easy"),
        (["zzz"], "", "no task 'zzz'. Known: arc_challenge, arc_easy"),
        (["zzz"], "", "; also lambada for lambada_openai, openbookqa for openbook_qa"),
        (["arc_easy/x"], "", "no task 'arc_easy/x'."),
        (["arc_easy"], "", "where are the examples? Name their folder by --data FOLDER"),
        (["arc_easy"], "/nowhere", "no folder /nowhere"),
        (["copa"], "FOLDER", "task copa needs copa.jsonl (or eval_gauntlet.tar.xz with it inside), which is not in"),
        (["cmrc2018"], "FOLDER", "task cmrc2018 needs cmrc2018_dev.json, which is not in"),
        (["blimp/u"], "FOLDER", "BLiMP has no paradigm 'u'. Did you mean 'u"),
        (["blimp/foo"], "FOLDER", "BLiMP has no paradigm 'foo'. There are: u0, u1"),
        (["bbh/navigat"], "FOLDER", "BBH has no task 'navigat' in"),
        (["bbh/x"], "FOLDER", ". There are: navigate, snarks"),
        (["instruction_induction/x"], "FOLDER", "instruction induction has no task 'x'"),
        (["instruction_induction/x"], "FOLDER", ". There are: antonyms, cause_and_effect, common_concept"),
        (["arc_easy", "arc_easy"], "FOLDER", "task arc_easy is named twice"),
        (["blimp"], "hub", "ask for one, such as blimp/adjunct_island"),
        (["bbh"], "hub", "ask for one, such as bbh/navigate"),
        (["subjectivity"], "hub", "task subjectivity is not on the hub as it is known here"),
        (["jeopardy_all"], "hub", "task jeopardy_all is not on the hub"),
        (["none.toml"], "", "no file none.toml"),
    ],
)
def test_refusals(names, data, words, folder, monkeypatch):
    monkeypatch.delenv("WENLU_DATA", raising=False)
    with pytest.raises(UserError) as error:
        read_tasks(names, data.replace("FOLDER", folder))
    assert words in str(error.value)


def test_bad_files_of_known_tasks(tmp_path):
    (tmp_path / "copa.jsonl").write_text('{"query": "a", "choices": ["x", "y"]}\n')
    with pytest.raises(UserError, match="task copa: example 0 has no gold answer"):
        read_tasks(["copa"], str(tmp_path))
    (tmp_path / "copa.jsonl").write_text('{"query": "a", "choices": ["x", "y"], "gold": 2}\n')
    with pytest.raises(UserError, match="example 0: gold is 2, but there are 2 choices"):
        read_tasks(["copa"], str(tmp_path))
    (tmp_path / "copa.jsonl").write_text('{"query": "a"}\n{"que')
    with pytest.raises(UserError, match=r"copa.jsonl of task copa, line 2: this is no JSON"):
        read_tasks(["copa"], str(tmp_path))
    (tmp_path / "copa.jsonl").write_text("")
    with pytest.raises(UserError, match="task copa has no examples: its file is empty"):
        read_tasks(["copa"], str(tmp_path))


def of_squad(**asked):
    return json.dumps({"data": [{"paragraphs": [{"context": "It was late.", "qas": [asked]}]}]})


@pytest.mark.parametrize(
    ("name", "files", "words"),
    [
        ("gsm8k", {"gsm8k/test.jsonl": jsonl({"question": "1?"}), "gsm8k/train.jsonl": ""},
         "task gsm8k, test row 0: nothing under 'answer'. There are: question"),
        ("gsm8k", {"gsm8k/test.jsonl": jsonl({"question": "1?", "answer": 2}), "gsm8k/train.jsonl": ""},
         "task gsm8k, test row 0: '2' under 'answer' is no text: mend it"),
        ("bbh/x", {"bbh/x.json": json.dumps([{"input": "a", "targt": "b"}]), "cot-prompts/x.txt": PROMPT},
         "task bbh/x, row 0: nothing under 'target'. Did you mean 'targt'?"),
        ("bbh/x", {"bbh/x.json": json.dumps([{"input": "a", "target": "b"}]), "cot-prompts/x.txt": PROMPT + "\n\nQ: c"},
         "a worked example in cot-prompts/x.txt has no line that begins with A:"),
        ("blimp", {"blimp_67x1000.jsonl": jsonl({"sentence_good": "a"})}, "row 0: nothing under 'sentence_bad'"),
        ("squad", {"dev-v1.1.json": of_squad(id="1", answers=[])}, "task squad, row 0: nothing under 'question'"),
        ("squad", {"dev-v1.1.json": of_squad(question="q", answers="late")}, "'late' under 'answers' is no list"),
        ("squad", {"dev-v1.1.json": of_squad(question="q", answers=["late"])}, "row 0: answers are objects with text"),
        ("copa", {"copa.jsonl": jsonl({"query": "a", "choices": "xy", "gold": 0})}, "'xy' under 'choices' is no list"),
        ("copa", {"copa.jsonl": jsonl({"query": "a", "choices": ["x", 3], "gold": 0})}, "'3' under 1 is no text"),
        ("copa", {"copa.jsonl": jsonl({"query": "a", "choices": ["x", "y"], "gold": "B"})},
         "task copa, row 0: 'B' under 'gold' is no whole number"),
        ("lambada", {"lambada_openai.jsonl": jsonl({"context": "a", "continuation": None})}, "is no text"),
        ("instruction_induction/x", {"raw/execute/x.json": json.dumps([{"input": "a"}]), "raw/induce/x.json": "[]",
         "annotations/x.json": '{"annotations": ["a"]}'}, "execute row 0: nothing under 'output'"),
    ],
)  # fmt: skip
def test_rows_that_are_none_are_named(name, files, words, tmp_path):
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_tasks([name], str(tmp_path))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("arc_easy", {"question": "a?", "choices": {"text": ["x"], "label": ["A"]}}, "nothing under 'answerKey'"),
        (
            "arc_easy",
            {"question": "a?", "choices": {"text": ["x"], "label": ["A"]}, "answerKey": "B"},
            "is not in list",
        ),
        (
            "arc_easy",
            {"question": "a?", "choices": ["x"], "answerKey": "A"},
            "ARC-Easy:test, row 0: not as this set is",
        ),
        ("multi30k.en-de", {"en": "A"}, "bentrevett/multi30k:test, row 0: nothing under 'de'"),
        ("sentence_polarity", {"text": "a", "label": "pos"}, "row 0: 'pos' under 'label' is no whole number"),
    ],
)
def test_rows_of_the_hub_that_are_none_are_named(name, row, words, monkeypatch):
    datasets = types.SimpleNamespace(load_dataset=lambda *_, **__: iter([row]))
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    with pytest.raises(UserError) as error:
        read_tasks([name], "hub")
    assert words in str(error.value)


@pytest.mark.data
def test_the_real_sets(data_dir, monkeypatch):
    monkeypatch.setenv("WENLU_DATA", str(data_dir))
    counts = {"copa": 100, "lambada": 5153, "winogrande": 1267, "gsm8k": 1319, "xquad.zh": 816, "cmrc2018": 3219,
              "multi30k.en-de": 1000, "subjectivity": 1000}  # fmt: skip
    for task in read_tasks(list(counts)):
        assert len(task.examples) == counts.get(task.name, 5153)
    sets = {name: read_tasks([name]) for name in ("bbh", "instruction_induction")}
    assert {name: len(tasks) for name, tasks in sets.items()} == {"bbh": 27, "instruction_induction": 24}
    assert all(len(task.pool) == 3 and task.template for task in sets["bbh"])
    assert set(READERS) > set(counts)


def test_of_many_names_that_there_are_the_first_are_told():
    names = [f"{number:02}" for number in range(67)]
    assert instead_of("elsewhere", names) == f" There are: {', '.join(names[:12])} and 55 more"
    assert instead_of("elsewhere", names[:12]) == f" There are: {', '.join(names[:12])}"
    assert instead_of("elsewhere", []) == " There are: none"
