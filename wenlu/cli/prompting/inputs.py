"""What the commands of `wenlu prompt` are given: a model or an endpoint, prompts, examples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wenlu.base.errors import UserError

if TYPE_CHECKING:
    from wenlu.prompting.artifact import Artifact
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.example_file import Keys
    from wenlu.prompting.examples import Example


@dataclass(frozen=True)
class EndpointFlags:
    """How an endpoint is spoken to, whose address is such as http://127.0.0.1:8000/v1#NAME."""

    key_variable: str = ""
    """The environment variable that holds the key."""
    cache: str = ""
    """A folder where answers are kept, so that none is paid for twice; none: OUT/answers of a search, OUT.answers of a
    comparison with --out."""
    requests: int = 0
    """Most requests; 0 = no limit."""
    tokens: int = 0
    """Most tokens, read and written; 0 = no limit."""
    money: float = 0.0
    """Most money, by the prices; 0 = no limit."""
    prompt_price: float = 0.0
    """Of a million tokens read."""
    written_price: float = 0.0
    """Of a million tokens written."""
    concurrency: int = 4
    """Requests under way at once."""
    timeout: float = 120.0
    """Seconds that one answer may take."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What it calls the longest text; some know the newer name only."""
    extra: str = ""
    """Fields that are sent along with every request, as a JSON object, for a server that knows them."""
    plain_http: bool = False
    """Send the key without encryption to another machine: for a network of your own only."""


def read_prompt(path: str) -> Artifact:
    """A prompt from a TOML file, by the names of an artifact, or from an artifact itself.

    A TOML file without a name is named by its own.
    """
    from wenlu.base.config import from_dict, read_toml
    from wenlu.prompting.artifact import Artifact, read_artifact

    file = Path(path)
    if not file.is_file():
        raise UserError(f"no prompt {path}: give a TOML file with a [template], or the prompt.json of a search")
    if file.suffix == ".json":
        return read_artifact(file)
    try:
        return from_dict(Artifact, {"name": file.stem, **read_toml(file)})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def examples_of(path: str, keys: Keys, limit: int = 0, *, search: bool = False) -> list[Example]:
    """The examples of a file, the first `limit` of them where that is given; for a search, enough of them to part."""
    from wenlu.prompting.example_file import read_examples
    from wenlu.prompting.search.split import part

    if not path:
        raise UserError("which examples? name a file of JSON lines by --examples")
    if limit < 0:
        raise UserError(f"limit must be 0 (all) or more, not {limit}")
    examples = read_examples(path, keys, limit=limit, search=search)
    if search:
        part(examples)
    return examples


def is_address(model: str) -> bool:
    """Whether a name is that of an endpoint."""
    return model.startswith(("http://", "https://"))


@contextmanager
def backend_of(
    model: str, device: str, flags: EndpointFlags, cache: Path | None = None, named: str = "--endpoint"
) -> Iterator[Backend]:
    """A folder or hub id, or the endpoint behind an address; folders with fast products, if that gains anything.

    named: what the flags are called."""
    if is_address(model):
        with endpoint_of(model, flags, cache, named) as backend:
            yield backend
        return
    from wenlu.cli.loading import loaded
    from wenlu.prompting.backend import FolderBackend

    if flags != EndpointFlags():
        raise UserError(f"{model} is a model's folder: leave out the settings of an endpoint ({named}.…)")
    with loaded(model, device) as pair:
        yield FolderBackend(pair, name=model)


def endpoint_of(model: str, flags: EndpointFlags, cache: Path | None, named: str) -> Any:
    """The endpoint behind ADDRESS#NAME; nothing is sent yet."""
    from wenlu.prompting.endpoint.address import Address
    from wenlu.prompting.endpoint.budget import Budget
    from wenlu.prompting.endpoint.client import Sending
    from wenlu.prompting.endpoint.endpoint import Endpoint

    url, _, name = model.partition("#")
    if not name:
        raise UserError(f"which model at {url}? give its name after #, such as {url}#qwen3")
    limits = (flags.requests or None, flags.tokens or None, flags.money or None)
    budget = Budget(*limits, flags.prompt_price, flags.written_price, named)
    kept = Path(flags.cache) if flags.cache else cache
    sending = Sending(flags.concurrency, flags.timeout, flags=named)
    address = Address(url, name, flags.key_variable, flags.limit_name, flags.plain_http, named)
    return Endpoint(address, sending=sending, budget=budget, cache=kept, extra=_extra(flags.extra, named))


def _extra(text: str, named: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{named}.extra must be a JSON object, such as '{{\"top_k\": 40}}', not {text!r}")
    return found


def notes_of(*sides: Any) -> list[str]:
    """What backends and embedders have to say of what they were asked."""
    return [note for side in sides for note in getattr(side, "notes", ())]


def embedder(prompts: list[Artifact], backend: Backend) -> Any:
    """Vectors of texts by the model itself, where a prompt's demonstrations want them."""
    if not any(prompt.demonstrations.kind in ("nearest", "mmr") for prompt in prompts):
        return None
    from wenlu.prompting.similarity import FolderEmbedder

    model = getattr(backend, "model", None)
    if model is None:
        raise UserError("nearest demonstrations need a model's states, which an endpoint does not show: take bm25")
    return FolderEmbedder(model, backend.tokenizer)
