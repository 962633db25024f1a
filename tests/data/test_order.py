"""The order of windows: pure, complete in every epoch, the same for any number of ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.data.order import Order


def starts(order, epoch):
    """The windows of one epoch, picked out of the stream of batches."""
    first, last = epoch * order.samples, (epoch + 1) * order.samples
    begin, end = first // order.batch, -(-last // order.batch)
    stream = np.concatenate([order.batch_at(step) for step in range(begin, end)])
    return stream[first - begin * order.batch :][: order.samples]


SHAPES = {"tokens": st.integers(3, 3000), "seq": st.integers(1, 40), "batch": st.integers(1, 50)}


@settings(max_examples=200, deadline=None)
@given(**SHAPES, seed=st.integers(0, 2**40), epoch=st.integers(0, 5))
def test_an_epoch_reads_every_window_once(tokens, seq, batch, seed, epoch):
    if tokens <= 2 * seq:
        return
    found = np.sort(starts(Order(tokens, seq, batch, seed, "data"), epoch))
    assert found.dtype == np.int64 and 0 <= found[0] < seq
    assert np.array_equal(found, found[0] + seq * np.arange(len(found)))
    assert found[-1] + seq + 1 <= tokens, "a window and its last target lie inside"
    assert tokens - (found[-1] + seq + 1) < 2 * seq, "no room for two more windows is left"


@settings(max_examples=50, deadline=None)
@given(**SHAPES, steps=st.lists(st.integers(0, 300), min_size=1, max_size=12))
def test_a_batch_depends_on_its_step_alone(tokens, seq, batch, steps):
    if tokens <= 2 * seq:
        return
    once = Order(tokens, seq, batch, 7, "data")
    for step in steps:
        assert np.array_equal(once.batch_at(step), Order(tokens, seq, batch, 7, "data").batch_at(step))


def test_a_returned_batch_is_its_own():
    order = Order(1000, 10, 4, 0, "data")
    before = order.batch_at(3).copy()
    order.batch_at(3)[:] = -1
    assert np.array_equal(order.batch_at(3), before)


def test_seed_data_and_epoch_change_the_order():
    plain = Order(5000, 10, 8, 0, "data")
    for other in (Order(5000, 10, 8, 1, "data"), Order(5000, 10, 8, 0, "other")):
        assert not np.array_equal(plain.batch_at(0), other.batch_at(0))
    assert not np.array_equal(starts(plain, 0), starts(plain, 1))
    assert len({int(starts(plain, epoch).min()) for epoch in range(20)}) > 3, "windows are cut elsewhere each time"


def test_the_order_is_known():
    """A change of these figures would make runs that were begun before resume on other samples."""
    assert Order(1000, 10, 6, 1337, "data").batch_at(20).tolist() == KNOWN


KNOWN = [517, 197, 477, 207, 947, 937]


def test_batches_run_over_the_border_of_epochs():
    order = Order(101, 10, 4, 0, "data")
    assert order.samples == 9
    assert np.concatenate([order.epochs_at(step) for step in range(6)]).tolist() == [n // 9 for n in range(24)]
    stream = np.concatenate([order.batch_at(step) for step in range(9)])
    assert all(len(set(stream[i : i + 9].tolist())) == 9 for i in range(0, 36, 9))


def test_a_batch_may_hold_several_epochs():
    order = Order(41, 10, 10, 0, "data")
    batch = order.batch_at(0).tolist()
    assert order.samples == 3 and [len(set(batch[i : i + 3])) for i in (0, 3, 6)] == [3, 3, 3]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_slice_the_global_batch(world):
    order = Order(5000, 10, 8, 0, "data")
    parts = [order.batch_at(5)[rank::world] for rank in range(world)]
    assert sorted(np.concatenate(parts).tolist()) == sorted(order.batch_at(5).tolist())


def test_too_short_a_text_is_refused():
    message = r"20 training tokens are too few for windows of 10: give more text, or set --model\.context to 9 or less"
    with pytest.raises(UserError, match=message):
        Order(20, 10, 4, 0, "data")
    assert Order(20, 9, 4, 0, "data").samples == 1
