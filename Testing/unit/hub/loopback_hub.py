"""A Hugging Face Hub on loopback: enough of the protocol for the unmodified client, and faults on command.

Metadata, gates and redirects come from one server, the bytes of large files from another, as on the real Hub: the
second has another origin, refuses requests that carry a login, and knows files by their sha256.
"""

import contextlib
import gzip
import hashlib
import io
import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

BLOCK = 1 << 16
LFS_FROM = 2000  # bytes; the real Hub decides by the kind of file and by 10 MB


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one answer.

    ``kind`` is ``cut`` or ``stall`` (after so many bytes of the body), ``wrong_bytes``, ``short``, ``long`` (a body of
    another length, honestly announced), ``overrun`` (more than announced), ``ignore_range``, ``wrong_range``,
    ``changed_etag``, ``gzip``, ``loop`` (a redirect to itself), ``portal`` (a page of HTML with status 200), or
    ``status`` with ``code``.
    """

    kind: str
    after: int = 0
    code: int = 500
    retry_after: str = ""


@dataclass
class File:
    """A file's bytes, in memory or on the disk."""

    content: bytes | Path

    def __post_init__(self) -> None:
        with io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb") as stream:
            self.sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            self.size = stream.seek(0, io.SEEK_END)

    @property
    def git_oid(self) -> str:
        content = self.content if isinstance(self.content, bytes) else b""
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def is_lfs(self) -> bool:
        return self.size >= LFS_FROM


@dataclass
class Repository:
    """Files by commit; ``revisions`` names commits. ``gated`` as the Hub's API says it; a login opens what is in
    ``granted``."""

    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    gated: Any = False
    private: bool = False
    granted: set[str] = field(default_factory=set)


@dataclass
class LoopbackHub:
    """The two servers. What was asked is in ``requests`` (method, path, range, login), what was sent of bodies in
    ``sent``; ``faults`` are for the next answers with bytes, ``api_faults`` for the next ones with metadata."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    api_faults: deque[Fault] = field(default_factory=deque)
    requests: list[tuple[str, str, str, str]] = field(default_factory=list)
    sent: int = 0
    raw_answer: bytes | None = None  # given to every question for metadata
    leaves_lengths_out: bool = False
    released: threading.Event = field(default_factory=threading.Event)
    slow_s: float = 0.0  # between blocks
    endpoint: str = ""
    storage: str = ""
    sent_to: dict[str, int] = field(default_factory=dict)  # of bodies, by the client's user-agent
    sending: set[int] = field(default_factory=set)  # the threads that send a body now

    def add(self, name: str, files: dict[str, bytes | Path], revision: str = "main", **fields: Any) -> str:
        """Add a commit; returns it."""
        repository = self.repositories.setdefault(name, Repository())
        for key, value in fields.items():
            setattr(repository, key, value)
        made = {path: File(content) for path, content in files.items()}
        seed = name, revision, {path: file.sha256 for path, file in made.items()}
        commit = hashlib.sha1(repr(seed).encode()).hexdigest()
        repository.commits[commit] = made
        repository.revisions[revision] = commit
        return commit

    def stored(self, sha256: str) -> File | None:
        """The file of that hash in any repository."""
        commits = (files for repository in self.repositories.values() for files in repository.commits.values())
        return next((file for files in commits for file in files.values() if file.sha256 == sha256), None)

    def start_count(self) -> None:
        """Count ``sent`` from here, once no answer to somebody who has gone is under way any more."""
        until = time.monotonic() + 2
        while self.sending and time.monotonic() < until:
            time.sleep(0.005)
        self.sent = 0

    def asked(self, part: str) -> list[tuple[str, str, str, str]]:
        return [request for request in self.requests if part in request[1]]


@contextlib.contextmanager
def run_hub() -> Iterator[LoopbackHub]:
    """Start the servers; they end with the context."""
    hub = LoopbackHub()
    servers = []
    for kind in (_HubHandler, _StorageHandler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (kind,), {"hub": hub}))
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
    hub.endpoint, hub.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        hub.released.set()
        for server in servers:
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def hub_of_the_client(monkeypatch: Any, cache: Path) -> Iterator[LoopbackHub]:
    """A Hub that the real client talks to, with the user's login, cache and proxies out of its reach."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "FOUNDATIONSEG_ALLOW_DOWNLOAD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()
    settings = {"HF_HUB_CACHE": str(cache), "HF_TOKEN_PATH": str(cache / "token"), "HF_HUB_OFFLINE": False}
    with run_hub() as hub:
        url = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {**settings, "HUGGINGFACE_CO_URL_TEMPLATE": url, "ENDPOINT": hub.endpoint}.items():
            monkeypatch.setattr(constants, name, value)
        yield hub
    close_session()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        login = self.headers.get("authorization", "")
        self.hub.requests.append((self.command, self.path, self.headers.get("range", ""), login))
        with contextlib.suppress(ConnectionError, LookupError):  # one is raised where nothing can be given
            self.answer(urlsplit(self.path).path, login.removeprefix("Bearer "))

    do_HEAD = do_GET

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # clients are killed here
            super().handle()

    def answer(self, path: str, token: str) -> None:
        """Overridden by both servers."""

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "", retry_after: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code, "Retry-After": retry_after, "X-Error-Message": message}
        headers = {name: value for name, value in headers.items() if value}
        self.reply(status, headers, json.dumps({"error": message or "refused"}).encode())

    def serve(self, file: File, headers: dict[str, str]) -> None:
        """A body, with whatever fault is next."""
        fault = self.hub.faults.popleft() if self.command == "GET" and self.hub.faults else Fault("none")
        if fault.kind == "status":
            self.refuse(fault.code, retry_after=fault.retry_after)
        elif fault.kind == "loop":
            self.reply(302, {"Location": self.path})
        elif fault.kind == "portal":
            self.reply(200, {"Content-Type": "text/html"}, b"<html>Please log in to the hospital's network</html>")
        elif fault.kind == "gzip":
            self.reply(200, {"Content-Encoding": "gzip", **headers}, gzip.compress(_bytes(file, 0)))
        else:
            self.body(file, headers, fault)

    def body(self, file: File, headers: dict[str, str], fault: Fault) -> None:
        start = 0
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        if span and fault.kind != "ignore_range":
            start = int(span[1])
            if start >= file.size:
                self.reply(416, {"Content-Range": f"bytes */{file.size}"})
                return
        length = max(file.size - start + {"short": -7, "long": 7}.get(fault.kind, 0), 0)
        self.send_response(206 if start else 200)
        if start:
            shown = start + 1 if fault.kind == "wrong_range" else start
            self.send_header("Content-Range", f"bytes {shown}-{file.size - 1}/{file.size}")
        if fault.kind == "changed_etag":
            headers = {**headers, "ETag": '"' + "0" * 40 + '"'}
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command != "HEAD":
            self.hub.sending.add(threading.get_ident())
            try:
                self.send_body(file, start, length, fault)
            finally:
                self.hub.sending.discard(threading.get_ident())

    def send_body(self, file: File, start: int, length: int, fault: Fault) -> None:
        if isinstance(file.content, Path) and fault.kind == "none":
            self.wfile.flush()
            with file.content.open("rb") as stream:
                self.count(self.connection.sendfile(stream, start) or 0)
            return
        content = _bytes(file, start)
        content = (content + b"1234567")[:length]
        if fault.kind == "wrong_bytes":
            content = bytes(byte ^ 1 for byte in content[:1]) + content[1:]
        stop = fault.after if fault.kind in ("cut", "stall") else len(content)
        for at in range(0, min(stop, len(content)), BLOCK):
            block = content[at : min(at + BLOCK, stop)]
            self.wfile.write(block)
            self.count(len(block))
            if self.hub.slow_s:
                time.sleep(self.hub.slow_s)
        if fault.kind == "overrun":
            self.wfile.write(b"x" * 100)
        if fault.kind == "stall":
            self.hub.sending.discard(threading.get_ident())
            self.hub.released.wait(20)
        if fault.kind in ("cut", "stall", "overrun"):
            self.close_connection = True

    def count(self, bytes_: int) -> None:
        self.hub.sent += bytes_
        agent = self.headers.get("user-agent", "")
        self.hub.sent_to[agent] = self.hub.sent_to.get(agent, 0) + bytes_


def _bytes(file: File, start: int) -> bytes:
    return file.content[start:] if isinstance(file.content, bytes) else file.content.read_bytes()[start:]


class _HubHandler(_Handler):
    def answer(self, path: str, token: str) -> None:
        if path.startswith("/api/models/"):
            self.answer_api(path.removeprefix("/api/models/"), token)
        elif found := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            self.resolve(found[1], unquote(found[2]), unquote(found[3]), token)
        else:
            self.refuse(404)

    def answer_api(self, path: str, token: str) -> None:
        fault = self.hub.api_faults.popleft() if self.hub.api_faults else None
        if fault is not None and fault.kind == "stall":
            self.hub.released.wait(20)
            self.close_connection = True
        elif fault is not None:
            self.refuse(fault.code, retry_after=fault.retry_after, message=f"you sent {token}")
        elif self.hub.raw_answer is not None:
            self.reply(200, {"Content-Type": "application/json"}, self.hub.raw_answer)
        else:
            self.describe(path, token)

    def find(self, name: str, revision: str, token: str) -> tuple[Repository, str]:
        """A repository and the commit that a revision means; refuses, and raises, where there is none."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and token not in repository.granted):
            self.refuse(404 if token else 401, "RepoNotFound")
            raise LookupError(name)
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.commits:
            self.refuse(404, "RevisionNotFound")
            raise LookupError(revision)
        return repository, commit

    def describe(self, path: str, token: str) -> None:
        found = re.fullmatch(r"(.+?)(?:/revision/([^/]+))?", path)
        repository, commit = self.find(found[1], unquote(found[2] or "main"), token)
        answer: dict[str, Any] = {"id": found[1], "sha": commit, "gated": repository.gated}
        answer |= {"siblings": [self.entry(path, file) for path, file in repository.commits[commit].items()]}
        answer |= {"private": repository.private, "cardData": {"license": "apache-2.0"}, "tags": [], "downloads": 1}
        self.reply(200, {"Content-Type": "application/json", "X-Repo-Commit": commit}, json.dumps(answer).encode())

    def entry(self, path: str, file: File) -> dict[str, Any]:
        if self.hub.leaves_lengths_out:
            return {"rfilename": path}
        lfs = {"lfs": {"size": file.size, "sha256": file.sha256, "pointerSize": 134}} if file.is_lfs else {}
        return {"rfilename": path, "type": "file", "size": file.size, "blobId": file.git_oid, **lfs}

    def resolve(self, name: str, revision: str, path: str, token: str) -> None:
        repository, commit = self.find(name, revision, token)
        if repository.gated and token not in repository.granted:
            self.refuse(403 if token else 401, "GatedRepo", message=f"you sent {token}")
            return
        file = repository.commits[commit].get(path)
        if file is None:
            self.refuse(404, "EntryNotFound")
        elif file.is_lfs:
            headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.sha256}"'}
            headers["Location"] = f"{self.hub.storage}/lfs/{file.sha256}?signature=secret"
            self.reply(302, headers)
        else:
            self.serve(file, {"X-Repo-Commit": commit, "ETag": f'"{file.git_oid}"'})


class _StorageHandler(_Handler):
    def answer(self, path: str, token: str) -> None:
        file = self.hub.stored(path.removeprefix("/lfs/"))
        if token or file is None:
            self.refuse(400 if token else 404)
        else:
            self.serve(file, {"ETag": f'"{hashlib.md5(file.sha256.encode()).hexdigest()}"'})
