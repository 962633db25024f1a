"""One HTTP request to an endpoint and what comes back, the key being seen by nobody else."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from wenlu.base.errors import UserError
from wenlu.prompting.endpoint.address import Address, is_here

LARGEST = 64 << 20
"""Bytes of an answer that are read; more is no answer."""
_SECRET = 8
"""Characters that a key has at least; a shorter one would be found within words."""


class Unanswered(UserError):
    """No whole answer came."""

    def __init__(self, message: str, *, sent: bool):
        super().__init__(message)
        self.sent = sent
        """Whether the request may have reached the endpoint, and so cost something."""


@dataclass(frozen=True)
class Reply:
    """What came back, without the key, should it be in there."""

    status: int
    content: bytes
    asked: str
    """The header Retry-After."""
    location: str
    """Where a redirect leads."""

    @property
    def text(self) -> str:
        """To be shown; bytes that are no UTF-8 become U+FFFD."""
        return self.content.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        """What it holds; None where it is no JSON."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None

    def wait(self, now: float) -> float:
        """Seconds that the endpoint asks to wait (RFC 9110: a number, or a date); 0 where it asks for nothing."""
        try:
            seconds = float(self.asked)
        except ValueError:
            try:
                seconds = parsedate_to_datetime(self.asked).timestamp() - now
            except ValueError:
                return 0.0
        return seconds if 0 < seconds < math.inf else 0.0

    @property
    def message(self) -> str:
        """What it says in its own words, in one short line."""
        body = self.json
        error = body.get("error", body.get("detail", body.get("message"))) if isinstance(body, Mapping) else None
        words = error.get("message") if isinstance(error, Mapping) else error
        return " ".join(str(words or self.text).split())[:200] or "no reason given"


class Exchange:
    """Connections to one endpoint; several threads may use them."""

    def __init__(self, address: Address, timeout: float, connections: int):
        """timeout: seconds that an answer may take as a whole. Raises UserError where the key is missing, or httpx."""
        try:
            import httpx
        except ImportError:
            raise UserError('an endpoint is asked with httpx: pip install "wenlu[endpoint]"') from None
        try:
            httpx.URL(address.base)
        except httpx.InvalidURL:
            raise UserError(f"{address.base!r} is no address: give one such as http://127.0.0.1:8000/v1") from None
        self._key, self._timeout, self._address, self._httpx = address.key(), timeout, address, httpx
        headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "wenlu"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            limits=httpx.Limits(max_connections=connections),
            verify=address.base.startswith("https"),  # without it reading the certificates would cost 0.2 s for nothing
            follow_redirects=False,  # the key is for this host alone
            trust_env=not is_here(address.host),  # proxies
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def post(self, path: str, body: Mapping[str, Any]) -> Reply:
        """Send JSON. Raises Unanswered where no whole answer comes in time."""
        httpx, began, parts, size = self._httpx, time.monotonic(), [], 0
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        try:
            with self._client.stream("POST", self._address.base + path, content=content) as response:
                for part in response.iter_bytes():
                    parts.append(part)
                    size += len(part)
                    if time.monotonic() - began > self._timeout or size > LARGEST:
                        raise Unanswered(f"{self._address.host} sent no end of its answer", sent=True)
                asked, location = (response.headers.get(name, "") for name in ("Retry-After", "Location"))
                whole = self._without_key(b"".join(parts).decode("latin-1")).encode("latin-1")
                return Reply(response.status_code, whole, asked, self._without_key(location))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unanswered(f"cannot reach {self._address.base} ({self._gist(error)})", sent=False) from None
        except httpx.TimeoutException:
            raise Unanswered(f"{self._address.host} did not answer within {self._timeout:g} s", sent=True) from None
        except httpx.HTTPError as error:
            raise Unanswered(f"{self._address.host} broke off ({self._gist(error)})", sent=True) from None

    def _gist(self, error: Exception) -> str:
        return self._without_key(" ".join(str(error).split())[:120] or type(error).__name__)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "(the key)") if len(self._key) >= _SECRET else text
