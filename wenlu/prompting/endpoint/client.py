"""Requests to an endpoint: many at once, tried again where that helps, within a budget, nothing paid for twice."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from wenlu.base.config import at_least
from wenlu.base.errors import UserError
from wenlu.base.log import say
from wenlu.prompting.backend import Failed
from wenlu.prompting.endpoint.address import Address
from wenlu.prompting.endpoint.budget import Account, BudgetSpent, Cost
from wenlu.prompting.endpoint.cache import Cache
from wenlu.prompting.endpoint.exchange import Exchange, Reply, Unanswered
from wenlu.prompting.endpoint.reply import usage

T = TypeVar("T")

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that may be another the next time."""
OF_ONE = (AGAIN - {429}) | {400, 413, 422}
"""Statuses that may be due to one request alone; with others the next would fare no better."""
IN_A_ROW = 8
"""Requests that may fail one after the other before no more are sent."""


@dataclass(frozen=True)
class Sending:
    """How requests are sent."""

    concurrency: int = 4
    """Most requests under way at once."""
    timeout: float = 120.0
    """Seconds that one answer may take as a whole."""
    attempts: int = 6
    """How often a request is tried before it counts as failed."""
    first_wait: float = 1.0
    """Seconds before the second time; it doubles each time, and half of it is drawn by lot."""
    longest_wait: float = 60.0
    """Seconds of one wait at most, also where the endpoint asks for more (Retry-After)."""
    flags: str = ""
    """As of `Address`."""

    def __post_init__(self):
        section = self.flags or "sending"
        at_least(section, self, 1, "concurrency", "attempts")
        at_least(section, self, 0.001, "timeout")
        at_least(section, self, 0, "first_wait", "longest_wait")


@dataclass(frozen=True)
class Clock:
    """Time, as the client sees it."""

    now: Callable[[], float] = time.time
    """Seconds since 1970."""
    sleep: Callable[[float], None] = time.sleep
    lot: Callable[[], float] = random.random
    """In [0, 1)."""


@dataclass(frozen=True)
class Request:
    """What is sent."""

    path: str
    """Such as /completions."""
    body: Mapping[str, Any]
    most: Cost
    """Tokens that it may cost at most."""


class Refused(UserError):
    """The endpoint answered with a status that says no."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Stopped(UserError):
    """Nothing more was sent, because it was stopped."""


def _cost(answer: Any, request: Request) -> tuple[Cost, bool]:
    """What an answer says that it cost, and whether it does; else the most that it may have cost."""
    prompt, made = usage(answer)
    known = prompt is not None and made is not None
    return (Cost(prompt, made) if known else request.most), known


def _of_one(error: BaseException) -> bool:
    """Whether a failure may be due to one request alone: not to the key, the address, the budget or whoever stops."""
    if isinstance(error, Refused):
        return error.status in OF_ONE
    if isinstance(error, Unanswered):
        return error.sent
    return isinstance(error, UserError) and not isinstance(error, Stopped | BudgetSpent)


class Client:
    """Sends to one endpoint. What was answered is kept as it comes, whatever happens to the rest."""

    def __init__(self, address: Address, sending: Sending, account: Account, cache: Cache, clock: Clock):
        """Raises UserError where the key is missing, or httpx."""
        self.address, self.sending, self.account, self.cache, self.clock = address, sending, account, cache, clock
        self._exchange = Exchange(address, sending.timeout, sending.concurrency)
        self._not_before = 0.0
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._waited = False
        self.tokens_kept = 0
        """Of kept answers that were asked for."""

    def close(self) -> None:
        """Close its connections."""
        self._exchange.close()

    def stop(self) -> None:
        """End what another thread is sending: no request is begun any more, what is under way is kept."""
        self._stop.set()

    def kept(self, request: Request) -> Any:
        """The answer to a request where it is known."""
        return self.cache.find(self.address.base + request.path, request.body)

    def send(
        self,
        requests: Sequence[Request],
        read: Callable[[Any, Request], T],
        advance: Callable[[int], None] | None = None,
        instead: Callable[[UserError], T] | None = None,
    ) -> list[T]:
        """The answers, as `read` understands them, in the order of the requests; equal ones are sent once.

        What is kept is not sent. `read` raises UserError for an answer that is none, which is not kept. `advance` is
        told how many requests are done. Raises UserError with what failed first, once all that was under way is in, and
        says how many answers are kept, and where; when interrupted, what came is kept too.

        instead: what stands for the answer to a request that failed, where that may be due to it alone: then the others
        go on, and Failed is raised where `IN_A_ROW` fail one after the other, or all.
        """
        self._stop.clear()
        keys = [json.dumps([request.path, request.body], sort_keys=True) for request in requests]
        wanted, often = dict(zip(keys, requests, strict=True)), Counter(keys)
        found: dict[str, T] = {}
        failures: list[BaseException] = []
        single: dict[str, UserError] = {}
        last: list[bool] = []

        def work(key: str, request: Request) -> None:
            if self._stop.is_set():
                return
            try:
                try:
                    found[key] = self._one(request, read)
                except UserError as error:
                    if instead is None or not _of_one(error):
                        raise
                    single[key] = error
                last.append(key in found)
                if len(last) >= IN_A_ROW and not any(last[-IN_A_ROW:]):
                    self._stop.set()
                if advance:
                    advance(often[key])
            except BaseException as error:
                failures.append(error)
                self._stop.set()

        with ThreadPoolExecutor(min(self.sending.concurrency, len(wanted) or 1)) as pool:
            try:
                for future in [pool.submit(work, key, request) for key, request in wanted.items()]:
                    future.result()
            finally:
                if len(found) + len(single) < len(wanted):
                    self._stop.set()
        if single and not failures and (not found or len(found) + len(single) < len(wanted)):
            failures = [Failed(str(next(iter(single.values()))))]
        if failures or len(found) + len(single) < len(wanted):
            raise self._failure(failures, len(found), len(wanted))
        return [found[key] if key in found else instead(single[key]) for key in keys]

    def ask(self, request: Request, *, final: frozenset[int] = frozenset()) -> Any:
        """The answer to one request, asked for anew and not kept. final: statuses that are not tried again."""
        self._stop.clear()
        return self._answer(request, final)

    def _one(self, request: Request, read: Callable[[Any, Request], T]) -> T:
        if (answer := self.kept(request)) is not None:
            try:
                value = read(answer, request)
                cost, _ = _cost(answer, request)
                with self._lock:
                    self.tokens_kept += cost.prompt_tokens + cost.tokens
                return value
            except UserError:
                self.cache.damaged += 1
        answer = self._answer(request)
        value = read(answer, request)
        self.cache.keep(self.address.base + request.path, request.body, answer, self.clock.now())
        return value

    def _failure(self, failures: list[BaseException], done: int, wanted: int) -> BaseException:
        """What failed first, with what is kept."""
        told = [error for error in failures if not isinstance(error, Stopped)]
        error = [*told, *failures, Stopped("stopped")][0]
        if isinstance(error, UserError):
            kept = f"{done} of {wanted} answers are kept in {self.cache}; the same call goes on from there"
            if self.address.flags and self.cache.folder is None:  # memory ends with the command
                keeps = f"--out FILE or {self.address.called('cache')} FOLDER"
                kept = f"{done} of {wanted} answers came, and all is lost: give {keeps} to keep it"
            error.args = (f"{error}. {kept}",)
        return error

    def _answer(self, request: Request, final: frozenset[int] = frozenset()) -> Any:
        """The JSON that a request is answered with, tried as often as allowed."""
        wait = 0.0
        for attempt in range(1, self.sending.attempts + 1):
            self._pause(wait)
            self.account.reserve(request.most, again=attempt > 1)
            if self._stop.is_set():
                self.account.take_back(request.most, again=attempt > 1)
                raise Stopped("stopped")
            failure: UserError
            try:
                reply = self._exchange.post(request.path, request.body)
            except Unanswered as error:
                self.account.settle(request.most, request.most if error.sent else None, known=False)
                failure, asked = error, 0.0
            except BaseException:
                self.account.settle(request.most, None)
                raise
            else:
                if 200 <= reply.status < 300:
                    return self._accepted(reply, request)
                self.account.settle(request.most, None)
                failure, asked = self._refusal(reply), reply.wait(self.clock.now())
                if reply.status not in AGAIN or reply.status in final:
                    raise failure
            if asked > (longest := self.sending.longest_wait):
                failure.args = (f"{failure}; it asks to wait {asked:.0f} s, beyond the longest wait of {longest:g} s",)
                raise failure
            drawn = min(self.sending.longest_wait, self.sending.first_wait * 2 ** (attempt - 1))
            wait = max(asked, drawn * (0.5 + 0.5 * self.clock.lot()))
            if attempt < self.sending.attempts and not self._waited:  # else half a minute would pass in silence
                self._waited = True
                say(f"{failure}; trying again after a while, {self.sending.attempts} times in all", "yellow")
            self._not_before = max(self._not_before, self.clock.now() + asked)
        failure.args = (f"{failure}, {self.sending.attempts} times",)
        raise failure

    def _accepted(self, reply: Reply, request: Request) -> Any:
        answer = reply.json
        cost, known = _cost(answer, request)
        self.account.settle(request.most, cost, known=known)
        if not isinstance(answer, Mapping):
            raise UserError(
                f"{self.address.host} answers with what is no JSON object ({reply.text[:60]!r}): is "
                f"{self.address.base} the endpoint's address?"
            )
        if "choices" not in answer and "error" in answer:
            raise UserError(f"{self.address.host} answers with an error: {reply.message}")
        return answer

    def _pause(self, seconds: float) -> None:
        """Wait, and as long as the endpoint has asked any thread to. Raises Stopped."""
        until = self.clock.now() + seconds
        while True:
            if self._stop.is_set():
                raise Stopped("stopped")
            left = max(until, self._not_before) - self.clock.now()
            if left <= 0:
                return
            self.clock.sleep(min(left, 1.0))

    def _refusal(self, reply: Reply) -> Refused:
        """What a status says, with the way out."""
        address, status = self.address, reply.status
        if status in (401, 403):
            holder = f"the key in {address.key_variable}" if address.key_variable else "requests without a key"
            right = address.called("key_variable")
            text = f"{address.host} refuses {holder} ({status}: {reply.message}): set the right {right}"
        elif 300 <= status < 400:
            text = (
                f"{address.host} redirects to {reply.location[:200]}, which is not followed, for the key is for "
                f"{address.host} only: give that address if you trust it"
            )
        elif status in (404, 405):
            text = f"{address.base} has no such path, or no model {address.model!r} ({status}: {reply.message})"
            text += "" if address.base.endswith("/v1") else "; most addresses end with /v1"
        elif status == 429:
            fewer = address.called("concurrency")
            text = f"{address.host} wants fewer requests (429: {reply.message}): lower {fewer}, or wait"
        elif status >= 500 or status in AGAIN:
            text = f"{address.host} fails ({status}: {reply.message})"
        else:
            text = f"{address.host} refuses the request ({status}: {reply.message})"
        return Refused(text, status)
