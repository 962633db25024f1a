"""What may be spent: limits hold while several threads spend."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.prompting.endpoint.budget import Account, Budget, Cost


@pytest.mark.parametrize("settings, message", [
    ({"tokens": -1}, "budget.tokens must be at least 0, not -1"),
    ({"money": float("nan")}, "budget.money must be at least 0"),
    ({"prompt_price": -1.0}, "budget.prompt_price must be at least 0"),
    ({"money": 1.0}, "budget.money needs prices"),
])  # fmt: skip
def test_budgets_that_are_none(settings, message):
    with pytest.raises(UserError, match=message):
        Budget(**settings)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1)), max_size=20), st.integers(0, 40))
def test_no_order_of_costs_passes_a_limit(requests, limit):
    account, sent = Account(Budget(tokens=limit)), 0
    for read, written, part in requests:
        most = Cost(read, written)
        try:
            account.reserve(most)
        except UserError:
            assert account.prompt_tokens + account.tokens + read + written > limit
            continue
        sent += 1
        account.settle(most, Cost(int(read * part), int(written * part)))
    assert account.prompt_tokens + account.tokens <= limit and account.requests == sent


def test_a_request_waits_for_others_where_that_may_make_room():
    account, most = Account(Budget(tokens=10)), Cost(4, 2)
    account.reserve(most)
    entered = threading.Event()

    def another():
        entered.set()
        account.reserve(most)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(another)
        entered.wait()
        assert not waiting.done()
        account.settle(most, Cost(1, 1))
        waiting.result()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(another)
        account.settle(most, Cost(4, 2))
        with pytest.raises(UserError, match="8 of 10 tokens are used, and the next request may need 6"):
            waiting.result()


def test_money():
    account = Account(Budget(money=1.0, prompt_price=2.0, written_price=10.0))
    account.reserve(Cost(250_000, 50_000))
    account.settle(Cost(250_000, 50_000), Cost(200_000, 50_000))
    assert account.money == pytest.approx(0.9)
    with pytest.raises(UserError, match=r"0.9 of 1 is spent, and the next request may cost 0.2"):
        account.reserve(Cost(0, 20_000))
