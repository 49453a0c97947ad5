"""As much of the Hugging Face hub as one upload and one download need, on this machine."""

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

COMMIT = "1" * 40


class FakeHub:
    """Repositories by id: file -> content. ``commits`` are the messages that came."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: list[tuple[str, str]] = []  # (branch, message)
        self.refuses = False


@contextmanager
def serve() -> Iterator[tuple[FakeHub, str]]:
    """The hub and its address, while the block runs."""
    hub = FakeHub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/"):
                repo = "/".join(path.split("/")[3:5])
                names = sorted(hub.files.get(repo, {}))
                if "/tree/" in path:
                    files = hub.files.get(repo, {}).items()
                    self._json(
                        [{"type": "file", "path": n, "size": len(c), "oid": _oid(c)} for n, c in files]
                    )
                    return
                known = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                self._answer(200 if names else 404, json.dumps(known).encode())
            else:
                self._file(body=True)

        def do_HEAD(self) -> None:
            self._file(body=False)

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = self.path.partition("?")[0].split("/")
            if hub.refuses:
                self._answer(401, b'{"error": "no"}')
            elif parts[-1] == "create":
                asked = json.loads(sent)
                repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
                hub.files.setdefault(repo, {})
                self._json({"url": f"http://{self.headers['Host']}/{repo}"})
            elif parts[-2] == "preupload":
                paths = [entry["path"] for entry in json.loads(sent)["files"]]
                modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
                self._json({"files": modes})
            elif parts[-2] == "commit":
                repo = "/".join(parts[3:5])
                for line in sent.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "header":
                        hub.commits.append((parts[-1], entry["value"]["summary"]))
                    else:
                        content = base64.b64decode(entry["value"]["content"])
                        hub.files[repo][entry["value"]["path"]] = content
                address = f"http://{self.headers['Host']}/{repo}/commit/{COMMIT}"
                self._json({"success": True, "commitOid": COMMIT, "commitUrl": address})
            else:  # a branch
                self._json({})

        def _file(self, *, body: bool) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            content = hub.files.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
            if content is None:
                self._answer(404, b"", body=body)
                return
            headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": COMMIT}
            self._answer(200, content, body=body, headers=headers)

        def _json(self, value: Any) -> None:
            self._answer(200, json.dumps(value).encode())

        def _answer(
            self, status: int, content: bytes, *, body: bool = True, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
