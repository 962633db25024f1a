"""An OpenAI-compatible server on this machine, for tests: a small model answers; a test may twist what it says."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from wenlu.inference.adjust import Adjustments
from wenlu.inference.generator import Generator, Settings, begin_id


@dataclass
class Reply:
    """What goes back. status 0: the connection is cut instead."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


Twist = Callable[[int, dict, Reply], Reply]
"""(number of the request from 1 on, its body, what would be answered) → what is answered."""


class Server:
    """Listens on a free port of 127.0.0.1 while its context holds.

    torn: tokens that are no whole characters are shown with U+FFFD, else as `bytes:\\xe7`.
    """

    def __init__(self, model, tokenizer, twist: Twist | None = None, *, torn: bool = False):
        self.model, self.tokenizer, self.twist, self.torn = model, tokenizer, twist, torn
        self.seen: list[tuple[str, dict[str, str], dict]] = []
        """Path, headers and body of every request."""
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_of_tests": self}))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.005,))

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def reply(self, path: str, headers: dict[str, str], body: dict) -> Reply:
        with self._lock:
            self.seen.append((path, headers, body))
            answers = {"/v1/completions": self._completion, "/v1/chat/completions": self._chat}
            if path not in answers:
                return Reply(404, {"error": {"message": "no such path"}})
            usual = Reply(200, answers[path](body))
            return self.twist(len(self.seen), body, usual) if self.twist else usual

    def show(self, id: int) -> str:
        """A token as it is named in answers."""
        piece = self.tokenizer.token_bytes(id)
        try:
            return piece.decode()
        except UnicodeDecodeError:
            shown = "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
            return piece.decode("utf-8", "replace") if self.torn else shown

    def _settings(self, body: dict) -> Settings:
        told = body.get("top_logprobs", 0) if body.get("logprobs") is True else body.get("logprobs")
        adjustments = Adjustments(1.0, body.get("presence_penalty", 0.0), body.get("frequency_penalty", 0.0))
        return Settings(
            body["max_tokens"], body["temperature"], seed=body.get("seed", 0), stop=tuple(body.get("stop", ())),
            top_p=body.get("top_p", 1.0), alternatives=told, adjustments=adjustments,
        )  # fmt: skip

    def _completion(self, body: dict) -> dict:
        generator = Generator(self.model, self.tokenizer)
        result = generator.generate(body["prompt"], self._settings(body))[0]
        told = body.get("logprobs") is not None
        lists = {"tokens": [], "token_logprobs": [], "top_logprobs": []}
        if body.get("echo"):
            lists = self._of_prompt(body["prompt"])
        if told:
            lists["tokens"] += map(self.show, result.ids)
            lists["token_logprobs"] += result.log_probabilities
            lists["top_logprobs"] += [{self.show(id): value for id, value in best} for best in result.alternatives]
        text = (body["prompt"] if body.get("echo") else "") + result.text
        return self._answer(result, {"text": text, "logprobs": lists if told else None})

    def _of_prompt(self, prompt: str) -> dict:
        ids = [begin_id(self.model, self.tokenizer), *self.tokenizer.encode(prompt)]
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids]))[0].float().log_softmax(-1)
        found = {"tokens": [self.show(id) for id in ids], "token_logprobs": [None], "top_logprobs": [None]}
        for place, id in enumerate(ids[1:]):
            best = int(logits[place].argmax())
            found["token_logprobs"].append(logits[place, id].item())
            found["top_logprobs"].append({self.show(best): logits[place, best].item()})
        return found

    def _chat(self, body: dict) -> dict:
        generator = Generator(self.model, self.tokenizer, chat=True)
        ids = generator._format.prompt(body["messages"])
        result = generator.generate(ids, self._settings(body))[0]
        content = [
            {
                "token": self.show(id),
                "logprob": value,
                "top_logprobs": [{"token": self.show(other), "logprob": its} for other, its in best],
            }
            for id, value, best in zip(result.ids, result.log_probabilities, result.alternatives)
        ]
        message = {"role": "assistant", "content": result.text}
        return self._answer(result, {"message": message, "logprobs": {"content": content} if content else None})

    def _answer(self, result, choice: dict) -> dict:
        finish = {"eos": "stop", "context": "length"}.get(result.finish, result.finish)
        usage = {"prompt_tokens": result.prompt_tokens, "completion_tokens": len(result.ids)}
        return {"choices": [{"index": 0, "finish_reason": finish, **choice}], "usage": usage}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # headers and body at once: two small packets would cost 40 ms
    server_of_tests: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self.server_of_tests.reply(self.path, dict(self.headers), body)
        if reply.status == 0:
            self.close_connection = True
            return
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        """Nothing is printed."""
