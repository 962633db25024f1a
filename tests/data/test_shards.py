"""Shards: what is written is read, over all borders; what is not whole is refused."""

import contextlib
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.base.files import whole_folder
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.data.shards import VERSION, ShardWriter, TokenStore, open_data


def store_of(folder, documents, vocab=300, shard_tokens=7):
    """(store, figures) of documents, each a list of parts; a document's bytes are ten times its tokens."""
    writer = ShardWriter(folder, vocab, shard_tokens)
    for parts in documents:
        for index, part in enumerate(parts):
            writer.add(np.array(part, dtype=np.int64), 10 * len(part), last=index == len(parts) - 1)
    figures = writer.close()
    return TokenStore(folder, writer.dtype.name), figures


DOCUMENTS = st.lists(st.lists(st.lists(st.integers(0, 299), max_size=20), min_size=1, max_size=3), min_size=1)


@settings(max_examples=60, deadline=None)
@given(documents=DOCUMENTS, shard_tokens=st.integers(1, 9), data=st.data())
def test_what_is_written_is_read(tmp_path_factory, documents, shard_tokens, data):
    flat = [id for parts in documents for part in parts for id in part]
    store, figures = store_of(tmp_path_factory.mktemp("store"), documents, shard_tokens=shard_tokens)
    lengths = [sum(map(len, parts)) for parts in documents]
    assert len(store) == figures["tokens"] == len(flat) and figures["documents"] == len(documents)
    assert figures["shards"] == -(-len(flat) // shard_tokens)
    assert store.lengths.tolist() == lengths and store.document_bytes.tolist() == [10 * n for n in lengths]
    assert store.bytes == figures["bytes"] == 10 * len(flat)
    assert store.tokens(0, len(flat) + 5).tolist() == flat
    if flat:
        length = data.draw(st.integers(1, len(flat)))
        starts = data.draw(st.lists(st.integers(0, len(flat) - length), max_size=5))
        windows = store.windows(np.array(starts, dtype=np.int64), length)
        assert windows.dtype == np.int64 and windows.shape == (len(starts), length)
        assert windows.tolist() == [flat[start : start + length] for start in starts]


@pytest.mark.parametrize("vocab, dtype", [(65536, np.uint16), (65537, np.uint32)])
def test_the_greatest_id_survives(tmp_path, vocab, dtype):
    store, _ = store_of(tmp_path, [[[0, vocab - 1]]], vocab)
    assert store.tokens(0, 2).tolist() == [0, vocab - 1]
    assert np.fromfile(tmp_path / "00000.bin", dtype).tolist() == [0, vocab - 1]


@pytest.mark.parametrize("id", [-1, 300])
def test_an_id_outside_the_vocabulary_never_reaches_the_disk(tmp_path, id):
    writer = ShardWriter(tmp_path, 300)
    writer.add(np.array([1, id]), 1, last=True)
    with pytest.raises(AssertionError):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(tmp_path):
    """On Linux, writing to /dev/full fails as on a full disk."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    for name in ("00000.bin", "lengths.npy"):
        with (
            pytest.raises(UserError, match="the disk is full: free some space, or write elsewhere with --out"),
            whole_folder(tmp_path / "made") as folder,
            contextlib.closing(ShardWriter(folder, 300)) as writer,
        ):
            (folder / name).symlink_to("/dev/full")
            writer.add(np.ones(100_000 if name.endswith("bin") else 0, dtype=np.int64), 1, last=True)
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"Paragraph {i} of a text.\n\n" for i in range(99)))
    prepare(PrepareConfig((str(tmp_path / "text.txt"),), tokenizer="byte", context=8), tmp_path / "data")
    return tmp_path / "data"


def test_a_prepared_folder_opens(folder):
    data = open_data(folder, verify=True)
    assert data.description["version"] == VERSION and data.fingerprint == data.description["fingerprint"]
    (text,) = data.train.documents(data.tokenizer)
    (held_out,) = data.validation.documents(data.tokenizer)
    assert text.startswith("Paragraph 0 of") and held_out.endswith("Paragraph 98 of a text.\n\n")
    assert data.train.bytes == len(text) and len(data.train) == len(text) + 1
    assert data.train.tokens(len(data.train) - 1, 1).tolist() == [data.tokenizer.eos_id]


def test_other_folders_are_refused(tmp_path):
    message = r"is no prepared data folder \(it has no data\.json\): make one with wenlu prepare"
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=message):
            open_data(path)


@pytest.mark.parametrize(
    "harm, message",
    [
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "train" / "00000.bin").unlink(), "train/00000.bin is missing"),
        (lambda f: os.truncate(f / "train" / "00000.bin", 10), "train/00000.bin has 10 bytes instead of"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda f: shutil.rmtree(f / "validation"), "validation/00000.bin is missing"),
    ],
)
def test_a_damaged_folder_is_refused(folder, harm, message):
    harm(folder)
    with pytest.raises(UserError, match=rf"is damaged \(.*{message}.*\): prepare it again"):
        open_data(folder)


def test_a_changed_byte_is_found_by_full_verification(folder):
    file = folder / "train" / "00000.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    open_data(folder)
    with pytest.raises(UserError, match=r"train/00000\.bin was changed \(its sha256 differs\)\): prepare it again"):
        open_data(folder, verify=True)


def test_a_description_of_another_version_or_of_none_is_refused(folder):
    file = folder / "data.json"
    whole = file.read_text()
    file.write_text(whole.replace('"version": 1', '"version": 9'))
    with pytest.raises(UserError, match="has the form of version 9, this wenlu reads 1: prepare it again"):
        open_data(folder)
    file.write_text("x" * len(whole.encode()))
    with pytest.raises(UserError, match=r"is damaged \(data\.json cannot be read\): prepare it again"):
        open_data(folder)
    assert json.loads(whole)["dtype"] == "uint16"
