"""A web server on this machine with good and bad images."""

import contextlib
import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.data.helpers import encode, jpeg

LARGE = jpeg(1, width=80, height=60)


class Site(http.server.ThreadingHTTPServer):
    """Attributes: ``asked``, requests by path; ``most``, the most that were answered at once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: Counter[str] = Counter()
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.hold = 0.0  # seconds that each answer takes
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site = self.server
        with site.lock:
            site.asked[self.path] += 1
            site.now += 1
            site.most = max(site.most, site.now)
        time.sleep(site.hold)
        with site.lock:  # before the answer, after which the next question may come
            site.now -= 1
        with contextlib.suppress(OSError):
            self._answer(self.path.partition("?")[0], site.asked[self.path])

    def _answer(self, path: str, times: int) -> None:
        if path.startswith("/good/"):
            self._send(200, jpeg(int(path.rpartition("/")[2]), width=30, height=20))
        elif path == "/large":
            self._send(200, LARGE)
        elif path == "/png":
            pixels = np.zeros((20, 30, 4), dtype=np.uint8)
            self._send(200, encode(Image.fromarray(pixels), "PNG"))
        elif path == "/html":
            self._send(200, b"<html>sign in</html>")
        elif path == "/torn":
            self._send(200, LARGE[:300])
        elif path == "/cut":
            self._send(200, LARGE[:300], length=len(LARGE))
        elif path == "/huge":
            self._send(200, b"x" * 200_000)
        elif path == "/noai":
            self._send(200, LARGE, ("X-Robots-Tag", "noindex, noai"))
        elif path == "/moved":
            self._send(302, b"", ("Location", "/large"))
        elif path == "/circle":
            self._send(302, b"", ("Location", "/circle"))
        elif path == "/file":
            self._send(302, b"", ("Location", "file:///etc/passwd"))
        elif path == "/busy":
            self._send(200 if times > 1 else 503, LARGE if times > 1 else b"", ("Retry-After", "0"))
        elif path == "/slow":
            self.send_response(200)
            self.end_headers()
            time.sleep(1.5)
        else:
            self._send(404, b"")

    def _send(self, status: int, body: bytes, *headers: tuple[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body) if length is None else length))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    with Site() as site:
        threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield site
        finally:
            site.shutdown()
