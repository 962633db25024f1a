"""Rows on disk, in order, packed and padded: pure functions, nothing lost, little padding."""

import numpy as np
import pytest

from wenlu.base.errors import UserError
from wenlu.data.rows import collate
from wenlu.data.rows.order import PackedOrder, RowOrder
from wenlu.data.rows.store import DESCRIPTION, open_rows, write_rows

LENGTHS = np.random.default_rng(0).geometric(1 / 20, 500).clip(1, 60)


def rows_of(lengths):
    return [{"ids": np.arange(n) + 5, "mask": (np.arange(n) > n // 2).astype(int)} for n in lengths.tolist()]


def test_the_store_gives_back_what_it_was_given(tmp_path):
    rows = [{"ids": [1, 2, 3], "labels": 7}, {"ids": [], "labels": -100}, {"ids": [2**31 - 1], "labels": 0}]
    splits = {"train": iter(rows), "validation": iter(rows[:1])}
    with write_rows(tmp_path / "rows", splits, {"columns": ["ids", "labels"], "task": "x"}) as folder:
        (folder / "a.txt").write_text("炉")
    opened = open_rows(tmp_path / "rows", verify=True)
    assert [opened.train[n]["ids"].tolist() for n in range(3)] == [[1, 2, 3], [], [2**31 - 1]]
    assert [opened.train.column("labels", n).tolist() for n in range(3)] == [[7], [-100], [0]]
    assert opened.train.lengths("ids").tolist() == [3, 0, 1] and len(opened.validation) == 1
    assert opened.train[0]["ids"].flags.writeable and opened.train[0]["ids"].dtype == np.int64
    with write_rows(tmp_path / "other", {"train": iter(rows)}, {"columns": ["ids", "labels"], "task": "y"}):
        pass
    assert open_rows(tmp_path / "other").fingerprint != opened.fingerprint
    assert open_rows(tmp_path / "other").validation is None


def test_a_folder_is_whole_or_absent(tmp_path):
    def failing():
        yield {"ids": [1]}
        raise UserError("halfway")

    with (
        pytest.raises(UserError, match="halfway"),
        write_rows(tmp_path / "rows", {"train": failing()}, {"columns": ["ids"]}),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_damage_is_found(tmp_path):
    with write_rows(tmp_path / "rows", {"train": iter([{"ids": [1, 2]}])}, {"columns": ["ids"]}):
        pass
    file = tmp_path / "rows" / "train" / "ids.bin"
    file.write_bytes(b"\1" * 8)
    open_rows(tmp_path / "rows")
    with pytest.raises(UserError, match="was changed"):
        open_rows(tmp_path / "rows", verify=True)
    (tmp_path / "rows" / DESCRIPTION).unlink()
    with pytest.raises(UserError, match="is missing"):
        open_rows(tmp_path / "rows")


def test_every_row_once_an_epoch_in_batches_of_like_lengths():
    order = RowOrder(LENGTHS, 8, 3, "f")
    assert order.batches == 63
    for epoch in (0, 1):
        steps = range(epoch * order.batches, (epoch + 1) * order.batches)
        seen = np.concatenate([order.batch_at(step) for step in steps])
        assert sorted(seen.tolist()) == list(range(500))
        assert all((order.epochs_at(step) == epoch).all() for step in steps)
    batches = [LENGTHS[order.batch_at(step)] for step in range(order.batches)]
    waste = sum(b.max() * len(b) for b in batches) / LENGTHS.sum() - 1
    assert waste < 0.1
    assert order.batch_at(0).tolist() != order.batch_at(order.batches).tolist()
    assert sorted(len(b) for b in batches)[0] == 4


@pytest.mark.parametrize(
    "make", [lambda s: RowOrder(LENGTHS, 8, s, "f"), lambda s: PackedOrder(LENGTHS, 64, 4, s, "f")]
)
def test_orders_are_functions_of_seed_and_step(make):
    one, other = make(1), make(1)
    later = other.batch_at(150).tolist()
    assert [one.batch_at(step).tolist() for step in range(151)][150] == later
    assert one.epochs_at(150).tolist() == other.epochs_at(150).tolist()


def test_packs_hold_every_row_and_are_full():
    order = PackedOrder(LENGTHS, 64, 4, 0, "f")
    for epoch in (0, 1):
        packs = order.packs(epoch)
        assert sorted(np.concatenate(packs).tolist()) == list(range(500))
        sums = [LENGTHS[pack].sum() for pack in packs]
        assert max(sums) <= 64 and LENGTHS.sum() / (64 * len(packs)) > 0.95
    assert [p.tolist() for p in order.packs(0)] != [p.tolist() for p in order.packs(1)]
    samples = np.concatenate([order.batch_at(step) for step in range(order.batches)])
    assert samples.tolist() == list(range(len(order.packs(0))))
    assert order.batch_at(order.batches).tolist() == [0, 1, 2, 3] and order.epochs_at(order.batches)[0] == 1


def test_no_rows():
    for make in (lambda n: RowOrder(n, 1, 0, ""), lambda n: PackedOrder(n, 8, 1, 0, "")):
        with pytest.raises(UserError, match="no training rows"):
            make(np.array([], dtype=np.int64))


def test_packed_rows_keep_to_their_conversations():
    first, second = rows_of(np.array([4, 6]))
    batch = collate.packed([[first, second], [second]], pad=0)
    assert batch["ids"].shape == (2, 8) and all(array.dtype == np.int64 for array in batch.values())
    assert batch["ids"][0].tolist() == [5, 6, 7, 5, 6, 7, 8, 9]
    assert batch["segments"].tolist() == [[0] * 3 + [1] * 5, [0] * 5 + [-1] * 3]
    assert batch["positions"][0].tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert batch["targets"].tolist() == [[-100, -100, 8, -100, -100, -100, 9, 10], [-100] * 3 + [9, 10] + [-100] * 3]


def test_a_t5_reads_its_target_one_late():
    rows = [
        {"ids": np.array([5, 6, 1]), "targets": np.array([7, 1])},
        {"ids": np.array([5, 1]), "targets": np.array([1])},
    ]
    batch = collate.text_to_text(rows, pad=0, begin=0)
    assert batch["decoder_ids"][:, :3].tolist() == [[0, 7, 0], [0, 0, 0]]
    assert batch["targets"][:, :3].tolist() == [[7, 1, -100], [1, -100, -100]]
    assert batch["decoder_segments"][:, :3].tolist() == [[0, 0, -1], [0, -1, -1]]
    assert batch["segments"][:, :4].tolist() == [[0, 0, 0, -1], [0, 0, -1, -1]]
