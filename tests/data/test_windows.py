"""Windows of text: what each kind of model reads of them, in training and held out."""

import re

import numpy as np
import pytest

from wenlu.base.errors import UserError
from wenlu.data.batch import NO_TARGET
from wenlu.data.corrupt import put_back, sentinels
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.data.shards import open_data
from wenlu.data.windows import CausalWindows, CorruptedWindows, MaskedWindows

TEXT = "\n".join(f"{n * n % 97} stoves burn in house {n % 13}; 第{n % 29}炉文火慢炖。" for n in range(400))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Prepared data by purpose."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    for purpose in ("text", "bert", "t5"):
        paths = (str(folder / "text.txt"),)
        config = PrepareConfig(paths, tokenizer="bpe:330", purpose=purpose, context=16, skip=("all",))
        prepare(config, folder / purpose, page=False)
    return {purpose: open_data(folder / purpose) for purpose in ("text", "bert", "t5")}


KINDS = {"text": CausalWindows, "bert": MaskedWindows, "t5": CorruptedWindows}


@pytest.fixture(params=KINDS)
def windows(request, opened):
    return KINDS[request.param](opened[request.param], 32, 4, 7)


def read(windows, step: int) -> dict[str, np.ndarray]:
    return windows.batch(windows.order.batch_at(step), windows.order.epochs_at(step))


def test_a_sample_is_the_same_in_any_part_of_a_batch(windows):
    samples, epochs = windows.order.batch_at(3), windows.order.epochs_at(3)
    whole = windows.batch(samples, epochs)
    for row in range(4):
        for name, alone in windows.batch(samples[row : row + 1], epochs[row : row + 1]).items():
            assert np.array_equal(alone[0], whole[name][row])
    assert all(array.dtype == np.int64 and len(array) == 4 for array in whole.values())


def test_what_is_held_out_is_the_same_every_time(windows):
    first, again = list(windows.held_out(130, 2)), list(windows.held_out(130, 2))
    assert len(first) > 1
    for a, b in zip(first, again, strict=True):
        assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
    assert sum(len(batch["ids"]) for batch in windows.held_out(0, 3)) > sum(len(batch["ids"]) for batch in first)


def test_the_last_whole_window_is_held_out_too(windows):
    length, seq = windows._length, windows.order.seq
    for count in (1, 2, 5):
        found = sum(len(batch["ids"]) for batch in windows.held_out(length + (count - 1) * seq, 3))
        assert found == count
        assert sum(len(batch["ids"]) for batch in windows.held_out(length + count * seq - 1, 3)) == count


def test_a_part_of_what_is_held_out_comes_evenly_from_all_of_it(windows, monkeypatch):
    store, length, seq = windows.data.validation, windows._length, windows.order.seq
    read, starts, whole = store.windows, [], 1 + (len(store) - length) // seq
    monkeypatch.setattr(store, "windows", lambda at, length: starts.extend(at.tolist()) or read(at, length))
    for count in (1, 3):
        starts.clear()
        list(windows.held_out(length + (count - 1) * seq, 2))
        middles = [(2 * number + 1) * whole // (2 * count) for number in range(count)]
        assert whole > 6 and starts == [seq * middle for middle in middles]


def test_another_epoch_masks_otherwise(opened):
    windows = MaskedWindows(opened["bert"], 32, 4, 7)
    sample = np.array([40, 40, 40])
    targets = windows.batch(sample, np.array([0, 1, 0]))["targets"]
    assert np.array_equal(targets[0], targets[2]) and not np.array_equal(targets[0], targets[1])
    other = MaskedWindows(opened["bert"], 32, 4, 8).batch(sample, np.array([0, 1, 0]))["targets"]
    assert not np.array_equal(other[0], targets[0])


def test_causal_targets_are_one_further_on(opened):
    windows = CausalWindows(opened["text"], 32, 4, 7)
    samples, batch = windows.order.batch_at(0), read(windows, 0)
    text = opened["text"].train.windows(samples, 33)
    assert np.array_equal(batch["ids"], text[:, :-1]) and np.array_equal(batch["targets"], text[:, 1:])
    held_out = next(windows.held_out(0, 3))
    decoded = opened["text"].tokenizer.decode(held_out["targets"][1].tolist())
    assert held_out["bytes"][1] == len(decoded.encode()) or "�" in decoded


def test_masked_windows_are_text_between_cls_and_sep(opened):
    data = opened["bert"]
    windows, tokenizer = MaskedWindows(data, 32, 4, 7), data.tokenizer
    for step in range(10):
        batch = read(windows, step)
        assert batch["ids"].shape == (4, 32)
        assert (batch["ids"][:, 0] == tokenizer.cls_id).all() and (batch["ids"][:, -1] == tokenizer.sep_id).all()
        text = np.where(batch["targets"] == NO_TARGET, batch["ids"], batch["targets"])[:, 1:-1]
        assert np.array_equal(text, data.train.windows(windows.order.batch_at(step), 30))
        chosen = batch["targets"] != NO_TARGET
        assert chosen.any() and not np.isin(batch["targets"], list(tokenizer.special_ids)).any()
        assert not np.isin(batch["ids"][:, 1:-1][~chosen[:, 1:-1]], [tokenizer.mask_id, tokenizer.cls_id]).any()


def test_corrupted_windows_give_the_text_back(opened):
    data = opened["t5"]
    windows, tokenizer = CorruptedWindows(data, 32, 4, 7), data.tokenizer
    names = sentinels(tokenizer)
    assert len(names) == 100 and names[0] == tokenizer.vocab - 1 and (np.diff(names) == -1).all()
    batch = read(windows, 5)
    assert batch["ids"].shape == (4, 32), "as many tokens as the model reads"
    text = data.train.windows(windows.order.batch_at(5), windows.order.seq)
    for row in range(4):
        found = put_back(batch["ids"][row].tolist(), batch["targets"][row].tolist(), names.tolist())
        assert found == text[row].tolist()
    assert (batch["decoder_ids"][:, 0] == tokenizer.pad_id).all() and (
        batch["targets"][:, -1] == tokenizer.eos_id
    ).all()
    assert np.array_equal(batch["decoder_ids"][:, 1:], batch["targets"][:, :-1])


def test_a_tokenizer_without_the_special_tokens_is_refused(opened):
    data = opened["text"]
    words = rf"the tokenizer of {re.escape(str(data.folder))} has no mask token, which masked training needs: prepare"
    with pytest.raises(UserError, match=words):
        MaskedWindows(data, 32, 4, 7)
    with pytest.raises(UserError, match=r"spans to take out, and the tokenizer of .* has 0 sentinels .*--purpose t5"):
        CorruptedWindows(data, 32, 4, 7)


def test_what_is_too_short_or_too_long_is_refused(opened):
    with pytest.raises(UserError, match=r"model\.context \(7\) is too short for \[CLS\], text and \[SEP\]: give 8"):
        MaskedWindows(opened["bert"], 7, 4, 7)
    with pytest.raises(UserError, match=r"model\.context \(7\) is too short to take spans out: give 8 or more"):
        CorruptedWindows(opened["t5"], 7, 4, 7)
    with pytest.raises(UserError, match=r"windows of 2,000 tokens have 111 spans to take out, .* has 100 sentinels"):
        CorruptedWindows(opened["t5"], 2000, 4, 7)
