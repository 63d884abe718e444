"""A local HTTP server that replays recorded answers of the services of carbon intensities."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Reply:
    """An answer: its code, its content (JSON unless bytes), its headers and how late it comes."""

    content: Any = None
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    late_s: float = 0.0


@dataclass
class Request:
    path: str
    parameters: dict[str, str]
    headers: dict[str, str]


@dataclass
class Service:
    """A running server.

    Attributes:
        url: Its address.
        requests: The requests so far.
        answers: For each path, its answers in order; the last one is repeated. A function gets the
            request.
    """

    url: str
    requests: list[Request] = field(default_factory=list)
    answers: dict[str, list[Reply] | Callable[[Request], Reply]] = field(default_factory=dict)

    def reply(self, request: Request) -> Reply:
        self.requests.append(request)
        fitting = [path for path in self.answers if request.path.startswith(path)]
        if not fitting:
            return Reply({"error": "no such path"}, 404)
        held = self.answers[max(fitting, key=len)]
        if callable(held):
            return held(request)
        return held.pop(0) if len(held) > 1 else held[0]


@contextlib.contextmanager
def service() -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            split = urlsplit(self.path)
            parameters = {name: values[0] for name, values in parse_qs(split.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = found.reply(Request(split.path, parameters, headers))
            time.sleep(reply.late_s)
            content = reply.content
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            with contextlib.suppress(OSError):  # a client that did not wait
                self.send_response(reply.code)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    found = Service(f"http://127.0.0.1:{server.server_port}")
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
