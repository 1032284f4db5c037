"""A model hub, a mirror, a proxy and a licence server on loopback, with their bad days."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

LOGIN_PAGE = b"<!DOCTYPE html><html><body>Log in to the network</body></html>"
TOKEN = "pl-0123456789abcdef"


@dataclass
class Hub:
    """What the servers have, how they behave, and what they were asked."""

    files: Path
    way: str = "good"
    """good, gated, refusing, slow, cut, wrong hash, login page, silent."""
    stated: dict = field(default_factory=dict)
    """SHA-256 (or another tag) that is stated of a file instead of its own."""
    accepted: bool = True
    """Whether the licence server says that the licence was accepted."""
    asked: list = field(default_factory=list)
    address: str = ""

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        path = "/" + path.partition("://")[2].partition("/")[2] if "://" in path else path
        self.asked.append((handler.command, handler.path))
        if handler.command == "POST":
            code, document = self.post(handler)
            return _send(handler, code, json.dumps(document).encode(), {"Content-Type": "application/json"})
        if "/tree/" in path:
            return _send(handler, 200, json.dumps(self.tree()).encode())
        if path.startswith("/protected") or path.startswith("/account"):
            return self._licence(handler, path)
        if path.startswith("/api/models"):
            return _send(
                handler,
                200,
                json.dumps({"id": "me/people", "cardData": {"license_name": "some-licence"}}).encode(),
            )
        if self.way == "silent":
            time.sleep(3)
        if self.way in ("gated", "refusing"):
            code, header = (401, "GatedRepo") if self.way == "gated" else (500, "")
            return _send(
                handler, code, b"no", {"X-Error-Code": header, "X-Error-Message": "Access restricted."}
            )
        file = self.files / path.rpartition("/")[2]
        if self.way == "login page":
            return _send(handler, 200, LOGIN_PAGE)
        if not file.is_file():
            return _send(handler, 404, b"none", {"X-Error-Code": "EntryNotFound"})
        return self._file(handler, file)

    def post(self, handler):
        """Return what a request to write is answered: code and document."""
        return 405, {"error": "nothing is taken here"}

    def tree(self):
        """Return what lies in a repository."""
        return []

    def _file(self, handler, file):
        data = file.read_bytes()
        tag = self.stated.get(file.name, hashlib.sha256(data).hexdigest())
        tag = "f" * 64 if self.way == "wrong hash" else tag
        headers = {"X-Repo-Commit": "0" * 40, "ETag": f'"{tag}"'}
        if handler.command == "GET" and self.way == "cut":
            self.way = "refusing"
            return _send(handler, 200, data[: len(data) // 2], headers, promised=len(data))
        if handler.command == "GET" and self.way == "slow":
            return _send(handler, 200, data, headers, pause=0.5)
        return _send(handler, 200, data, headers)

    def _licence(self, handler, path):
        if handler.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _send(handler, 401, b"no such token")
        return _send(handler, 200, json.dumps({"accepted": self.accepted}).encode())


def _send(handler, code, body, headers=None, promised=None, pause=0.0):
    handler.send_response(code)
    for name, value in ({"Content-Length": str(promised or len(body))} | (headers or {})).items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command == "HEAD":
        return
    with contextlib.suppress(OSError):  # a client that has given up
        for start in range(0, len(body), 2**16):
            handler.wfile.write(body[start : start + 2**16])
            time.sleep(pause)
    if promised is not None:
        handler.close_connection = True


@contextlib.contextmanager
def serving(hub):
    """Serve `hub` on loopback; its address is in `hub.address`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hub.answer(self)

        do_HEAD = do_POST = do_GET

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        hub.address = f"http://127.0.0.1:{server.server_port}"
        yield hub
        server.shutdown()
