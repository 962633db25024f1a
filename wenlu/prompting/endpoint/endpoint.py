"""An OpenAI-compatible endpoint as a backend of level B, C or D, which is verified; no answer is paid for twice."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wenlu.base.errors import UserError
from wenlu.base.log import counted, say
from wenlu.prompting.backend import Failed, Level, Spent, Written, refused
from wenlu.prompting.endpoint.address import Address
from wenlu.prompting.endpoint.budget import Account, Budget
from wenlu.prompting.endpoint.cache import Cache
from wenlu.prompting.endpoint.client import Client, Clock, Request, Sending
from wenlu.prompting.endpoint.probe import Verified, verify
from wenlu.prompting.endpoint.protocol import CHAT, check_extra, echo_request, text_request
from wenlu.prompting.endpoint.reply import Echo, read_chat, read_completion, read_echo

if TYPE_CHECKING:
    from wenlu.inference.generator import Settings
    from wenlu.inference.score import Query, Score
    from wenlu.prompting.backend import Prompt

FINAL = frozenset({500, 501})
"""Statuses that a probe takes for a no: some servers fail so on a parameter that they do not know."""
ASKED = "It was"
"""What a probe has gone on with, and answered."""


class Endpoint:
    """One model behind an address.

    >>> with Endpoint(Address("http://127.0.0.1:8000/v1", "qwen3"), cache=Path("answers")) as backend:
    ...     backend.score([Query("Two and two are", (" four.", " five."))])
    """

    def __init__(
        self,
        address: Address,
        *,
        sending: Sending | None = None,
        budget: Budget | None = None,
        cache: Path | None = None,
        extra: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ):
        """cache: a folder where answers are kept; without one they are kept in memory. extra: fields that are sent
        along with every request as they are, such as {"top_k": 40}, for servers that know them.

        Raises UserError where extra has fields that settings decide. Nothing is sent yet.
        """
        self.address, self.extra = address, dict(extra or {})
        check_extra(address, self.extra)
        self.name = f"{address.model} at {address.host}"
        self.account = Account(budget or Budget())
        self._sending, self._cache, self._clock = sending or Sending(), Cache(cache), clock or Clock()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _client(self) -> Client:
        return Client(self.address, self._sending, self.account, self._cache, self._clock)

    def close(self) -> None:
        """Close its connections."""
        if "_client" in self.__dict__:
            self._client.close()

    def stop(self) -> None:
        """End, from another thread, what is being sent; what is under way is kept."""
        self._client.stop()

    @property
    def spent(self) -> Spent:
        """So far, as the endpoint says."""
        account = self.account
        return Spent(account.requests, account.prompt_tokens, account.tokens, account.money)

    @property
    def tokens_used(self) -> int:
        """Tokens read and written so far, as the endpoint says."""
        return self.spent.all_tokens

    @property
    def tokens_kept(self) -> int:
        """Tokens that kept answers, which were asked for again, would have cost anew."""
        return self._client.tokens_kept

    @property
    def level(self) -> Level:
        """As a probe verifies it at the first time that it is asked for."""
        return self.verified.level

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the address, the model's name and what is sent along. Of its weights nothing can be known."""
        body = json.dumps([self.address.base, self.address.model, self.extra], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(body.encode()).hexdigest()

    @cached_property
    def verified(self) -> Verified:
        """What the endpoint can do, asked now: four to six requests of a few tokens, never taken from what is kept.
        Why it can do no more is told by whoever is refused for it."""
        from wenlu.inference.generator import Settings

        def ask(request: Request) -> Any:
            return self._client.ask(request, final=FINAL)

        def settings(told: bool) -> Settings:
            return Settings(max_tokens=4, temperature=0, alternatives=1 if told else None)

        conversation = ({"role": "user", "content": ASKED},)
        return verify(
            lambda text: ask(echo_request(self.address, self.extra, text)),
            lambda told: ask(text_request(self.address, self.extra, ASKED, settings(told))),
            lambda told: ask(text_request(self.address, self.extra, conversation, settings(told))),
        )

    def score(
        self, queries: Sequence[Query], advance: Callable[[int], None] | None = None
    ) -> list[list[Score] | Failed]:
        """Of each continuation of each query, a request for each; `advance` is told how many queries more are done.
        Queries of which a request fails are said, and have that failure in place of scores.

        Texts are cut as by `inference.score.Scorer`, but for a token that holds both a prefix's end and a
        continuation's beginning: here it counts as the continuation's, and such tokens are said. Raises UserError where
        the endpoint is not of level B, for empty continuations, and for prefixes given as ids; Failed where all fail.
        """
        pairs = _pairs(queries)
        requests = [echo_request(self.address, self.extra, prefix + text) for prefix, text in pairs]
        if any(self._client.kept(request) is None for request in requests) and not self.level.scores:
            reasons = [note for note in self.verified.notes if note.startswith("scores")]
            way_out = f"take a model's folder, or another server ({'; '.join(reasons)})"
            raise refused(self.name, self.level, "scores of given texts", way_out)
        tell = _teller(queries, advance)

        def read(answer: Any, request: Request) -> Echo:
            echo = _read_echo(answer, request)
            tell(request.body["prompt"])
            return echo

        echoes = self._client.send(requests, read, instead=lambda error: Failed(str(error)))
        whole = [number for number, echo in enumerate(echoes) if isinstance(echo, Echo)]
        scores = dict(
            zip(whole, self._scores([pairs[n] for n in whole], [echoes[n] for n in whole]), strict=True)
        )  # fmt: skip
        found, places = [], iter(range(len(pairs)))
        for query in queries:
            own = [next(places) for _ in query.continuations]
            failed = next((echoes[n] for n in own if n not in scores), None)
            found.append([scores[n] for n in own] if failed is None else failed)
        self._say_damaged()
        self._say_failed([str(one) for one in found if isinstance(one, Failed)], len(queries))
        return found

    def generate(
        self, prompts: Sequence[Prompt], settings: Settings, advance: Callable[[int], None] | None = None
    ) -> list[Written]:
        """A text after each prompt: texts are gone on with by /completions, conversations answered by
        /chat/completions; `advance` is told how many are done.

        Texts that fail are said, and end with `error`. Raises Failed where all do, and UserError for settings that the
        protocol does not know, and for log-probabilities (alternatives) where the endpoint gives none.
        """
        told = settings.alternatives is not None

        def read(answer: Any, request: Request) -> Written:
            written = (read_chat if request.path == CHAT else read_completion)(answer, told)
            if written.finish == "error":
                raise UserError("the endpoint ended a text by an error of its own")
            return written

        def failed(error: UserError) -> Written:
            return Written("", "error", None, None, error=str(error))

        requests = [text_request(self.address, self.extra, prompt, settings) for prompt in prompts]
        written = self._client.send(requests, read, advance, failed)
        self._say_damaged()
        self._say_failed([one.error for one in written if one.error], len(prompts))
        return written

    def requests(
        self, queries: Sequence[Query] = (), prompts: Sequence[Prompt] = (), settings: Settings | None = None
    ) -> list[dict[str, Any]]:
        """The exact requests that `score` and `generate` would send first, as JSON, for a dry run: nothing is sent, and
        no key is needed. Those whose answers are kept are among them, marked."""
        wanted = [echo_request(self.address, self.extra, prefix + text) for prefix, text in _pairs(queries)]
        assert settings is not None or not prompts, "texts need settings"
        wanted += [text_request(self.address, self.extra, prompt, settings) for prompt in prompts]
        found = []
        for request in wanted:
            url = self.address.base + request.path
            kept = self._cache.find(url, request.body) is not None
            found.append({"method": "POST", "url": url, "body": dict(request.body), "kept": kept})
        return found

    def _scores(self, pairs: list[tuple[str, str]], echoes: list[Echo]) -> list[Score]:
        from wenlu.inference.score import Score

        scores, joined, unknown = [], 0, 0
        for (prefix, text), echo, border in zip(pairs, echoes, self._borders(pairs, echoes), strict=True):
            before = echo.ends[border - 1][1] if border else 0
            joined += before < len(prefix.rstrip().encode())
            greedy = echo.greedy(border)
            unknown += greedy is None
            scores.append(Score(echo.after(border), len(text.encode()), bool(greedy)))
        if joined:
            say(f"{counted(joined, 'beginning')} within a token that holds a prefix's end too: counted as what follows")
        if unknown:
            say(f"{counted(unknown, 'continuation')} taken for not greedy: {self.name} tells no likeliest tokens")
        return scores

    def _borders(self, pairs: list[tuple[str, str]], echoes: list[Echo]) -> list[int]:
        """Where continuations begin. Where tokens are shown as parts of characters the prefix alone is asked for: its
        tokens are then those that the whole begins with."""
        # Space at the end of a prefix belongs to what follows, as for a folder.
        prefixes = [prefix.rstrip() for prefix, _ in pairs]
        borders = [echo.border(prefix) for prefix, echo in zip(prefixes, echoes, strict=True)]
        unclear = list(dict.fromkeys(prefixes[n] for n, border in enumerate(borders) if border is None))
        requests = [echo_request(self.address, self.extra, prefix) for prefix in unclear]
        alone = dict(zip(unclear, self._client.send(requests, _read_echo) if requests else [], strict=True))
        for number, border in enumerate(borders):
            if border is None:
                before = alone[prefixes[number]].tokens
                if echoes[number].tokens[: len(before)] != before:
                    raise UserError(
                        f"{self.name} shows tokens as parts of characters (U+FFFD), so that it cannot be told where "
                        f"{pairs[number][1][:40]!r} begins: let continuations begin with a space or a line end"
                    )
                borders[number] = len(before)
        return [border for border in borders if border is not None]

    def _say_failed(self, failed: list[str], of: int) -> None:
        if failed:
            say(f"{len(failed)} of {of} were not answered by {self.name}; the first: {failed[0]}", style="yellow")

    def _say_damaged(self) -> None:
        if self._cache.damaged:
            say(f"{counted(self._cache.damaged, 'kept answer')} in {self._cache} damaged: asked for again")
            self._cache.damaged = 0


def _pairs(queries: Sequence[Query]) -> list[tuple[str, str]]:
    """Prefix and continuation of every text to be scored."""
    for query in queries:
        if not isinstance(query.prefix, str):
            raise UserError("a prefix of ids means something to one tokenizer only: give an endpoint text to score")
        if "" in query.continuations:
            raise UserError("a continuation is empty: there is nothing to score")
    return [(query.prefix, text) for query in queries for text in query.continuations]


def _teller(queries: Sequence[Query], advance: Callable[[int], None] | None) -> Callable[[str], None]:
    """What is to be told of each text that is scored, so that `advance` hears of the queries that are done by it."""
    waiting = [len({*query.continuations}) for query in queries]
    holders: dict[str, list[int]] = {}
    for number, query in enumerate(queries):
        for text in {*query.continuations}:
            holders.setdefault(query.prefix + text, []).append(number)
    lock = threading.Lock()

    def tell(text: str) -> None:
        with lock:
            for number in holders[text]:
                waiting[number] -= 1
            done = sum(waiting[number] == 0 for number in holders[text])
            if advance and done:
                advance(done)

    return tell


def _read_echo(answer: Any, request: Request) -> Echo:
    return read_echo(answer, request.body["prompt"])
