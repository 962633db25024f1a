"""Where an endpoint is, and who may see its key."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import Literal, NoReturn
from urllib.parse import urlsplit

from wenlu.base.errors import UserError

PATHS = ("/completions", "/chat/completions")


def called(setting: str, flags: str) -> str:
    """A setting as whoever gives it writes it: by its name, or as a flag, where `flags` stands before it."""
    return f"{flags}.{setting.replace('_', '-')}" if flags else setting


@dataclass(frozen=True)
class Address:
    """An OpenAI-compatible endpoint. Raises UserError for an address that a key had better not be sent to."""

    url: str
    """What stands before /completions, mostly with /v1, such as http://127.0.0.1:8000/v1."""
    model: str
    """As the endpoint names it."""
    key_variable: str = ""
    """The environment variable that holds the key; none = no key is sent. The key itself is written nowhere."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What it calls the longest text; some know the newer name only."""
    plain_http: bool = False
    """Send the key without encryption to another machine: for a network of your own only."""
    flags: str = ""
    """What settings of the endpoint are called on a command line, such as --endpoint; none: as they are in Python."""

    def __post_init__(self):
        if not self.model:
            raise UserError("an endpoint needs the name of a model: give the one it answers by")
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            self._refuse("is no address")
        if parts.scheme not in ("http", "https") or not host:
            self._refuse("is no address")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise UserError(
                f"the address of an endpoint on {host} holds more than a place (a name, a password, a query): leave it "
                "out, and name the environment variable that holds the key"
            )
        if parts.path.rstrip("/").endswith(PATHS):
            self._refuse("names one of the endpoint's paths")
        if self.key_variable and parts.scheme == "http" and not self.plain_http and not is_here(host):
            raise UserError(
                f"the key would go to {host} without encryption: use https, or set {self.called('plain_http')} where "
                "the network is your own"
            )

    def called(self, setting: str) -> str:
        """A setting's name, for messages."""
        return called(setting, self.flags)

    def _refuse(self, why: str) -> NoReturn:
        raise UserError(f"{self.url!r} {why}: give what stands before /completions, such as http://127.0.0.1:8000/v1")

    @property
    def base(self) -> str:
        """Without a last slash."""
        return self.url.rstrip("/")

    @property
    def host(self) -> str:
        """The only one that gets the key."""
        return urlsplit(self.url).hostname or ""

    def key(self) -> str:
        """The key, read now; empty where none is wanted. Raises UserError where it is missing or cannot be sent."""
        if not self.key_variable:
            return ""
        key = os.environ.get(self.key_variable, "")
        if not key:
            raise UserError(f"the environment variable {self.key_variable} is not set: put the endpoint's key there")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UserError(f"the key in {self.key_variable} holds a space, a line end or the like: set it anew")
        return key


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
