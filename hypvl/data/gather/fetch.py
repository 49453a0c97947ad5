"""Many small downloads at once, into memory: few at a time from each host, each bounded and tried again."""

import http.client
import re
import threading
import time
import urllib.error
import urllib.parse
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from hypvl.checks import natural_number, number, whole_number
from hypvl.io.http import (
    TRANSIENT,
    Patience,
    RemoteError,
    TooSlowError,
    check_encrypted,
    is_link_local,
    request,
)

#: A server that answers "try again later" is not waited for longer than this, in seconds.
LONGEST_WAIT = 60.0
_CHUNK = 1 << 20  # bytes that come at once, at most
#: The reason of a failure before any server answered.
UNREACHABLE = "no connection"
# Owners who say so in this header do not want their images to be trained on.
_OPT_OUT = re.compile(r"\bno(?:image)?ai\b", re.I)


class FetchError(Exception):
    """An address gave nothing usable: ``reason`` is one of few, to be counted; ``detail`` is for people."""

    def __init__(self, reason: str, detail: str = "", *, transient: bool = False, wait: float = 0.0) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
        self.transient = transient  # another attempt may help
        self.wait = wait  # seconds that the server asks for before it


@dataclass(frozen=True)
class FetchOptions:
    """How addresses are fetched.

    Args:
        threads: Downloads at once, all hosts together.
        per_host: Downloads at once from one host.
        timeout: Seconds without a byte; a download may take ten times as long in all.
        attempts: Of each address; after a failure that may pass, the next comes after 1, 2, 4, ... seconds.
        max_bytes: More are refused.
        allow_http: Whether plain http is fetched, which anybody on the way can change.
    """

    threads: int = 64
    per_host: int = 4
    timeout: float = 10.0
    attempts: int = 3
    max_bytes: int = 50_000_000
    allow_http: bool = False

    def __post_init__(self) -> None:
        for name in ("threads", "per_host", "attempts", "max_bytes"):
            whole_number(name, getattr(self, name), least=1)
        number("timeout", self.timeout, above=0)


def fetch(url: str, options: FetchOptions) -> bytes:
    """The content at an http(s) address: one attempt; redirects are followed to http(s) only, ten at most.

    Raises:
        FetchError: why there is none.
    """
    patience = Patience(
        timeout=options.timeout, least_rate=1024.0, grace=2 * options.timeout, seconds=10 * options.timeout, attempts=1
    )  # fmt: skip
    if is_link_local(url):
        raise FetchError("refused", "an address that only neighbours of this machine have")
    try:
        check_encrypted(url, allow_http=options.allow_http)
    except RemoteError as error:
        raise FetchError("plain http", "give --allow-http to fetch it") from error
    try:
        with request(url, patience=patience, allow_http=options.allow_http) as answer:
            if any(_OPT_OUT.search(value) for value in answer.headers.get_all("X-Robots-Tag", [])):
                raise FetchError("opted out", "X-Robots-Tag says noai")
            if answer.length is not None and answer.length > options.max_bytes:
                raise FetchError("too large", f"{answer.length} bytes")
            parts, size = [], 0
            for chunk in answer.chunks(options.max_bytes + _CHUNK):
                size += len(chunk)
                if size > options.max_bytes:
                    raise FetchError("too large", f"more than {options.max_bytes} bytes")
                parts.append(chunk)
            return b"".join(parts)
    except urllib.error.HTTPError as error:
        if 300 <= error.code < 400:  # in a circle, too often, or to something that is not the web
            raise FetchError("bad redirect", str(error.reason)) from error
        raise FetchError(
            f"HTTP {error.code}",
            str(error.reason),
            transient=error.code in TRANSIENT,
            wait=_asked_wait(error),
        ) from error
    except (TimeoutError, TooSlowError) as error:
        raise FetchError("too slow", str(error), transient=True) from error
    except http.client.IncompleteRead as error:
        raise FetchError("cut off", str(error), transient=True) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise FetchError("too slow", str(error.reason), transient=True) from error
        raise FetchError(UNREACHABLE, str(error.reason), transient=True) from error
    except RemoteError as error:
        raise FetchError("refused", str(error)) from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(UNREACHABLE, str(error), transient=True) from error


def _asked_wait(error: urllib.error.HTTPError) -> float:
    seconds = natural_number((error.headers.get("Retry-After") or "").strip())
    return 0.0 if seconds is None else min(float(seconds), LONGEST_WAIT)


@dataclass
class _Task:
    number: int
    url: str
    host: str
    attempt: int = 1
    not_before: float = 0.0


class _Hosts:
    """Tasks waiting by host; a thread gets the next whose host is not busy."""

    def __init__(self, tasks: Sequence[_Task], per_host: int) -> None:
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[_Task]] = OrderedDict()
        self._active: Counter[str] = Counter()
        self._per_host = per_host
        self._left = len(tasks)
        for task in tasks:
            self._waiting.setdefault(task.host, deque()).append(task)

    def take(self) -> _Task | None:
        """The next task; waits for one; None when all are finished, or after :meth:`stop`."""
        with self._changed:
            while self._left > 0:
                now, soonest = time.monotonic(), now_plus_a_minute()
                for host in self._waiting:  # it is changed only just before the return
                    if self._active[host] >= self._per_host:
                        continue
                    due = self._waiting[host][0].not_before
                    if due > now:
                        soonest = min(soonest, due)
                        continue
                    task = self._waiting[host].popleft()
                    if self._waiting[host]:
                        self._waiting.move_to_end(host)  # in turn
                    else:
                        del self._waiting[host]
                    self._active[host] += 1
                    return task
                self._changed.wait(max(soonest - now, 0.001))
            return None

    def finish(self, task: _Task) -> None:
        with self._changed:
            self._active[task.host] -= 1
            self._left -= 1
            self._changed.notify_all()

    def put_back(self, task: _Task, wait: float) -> None:
        with self._changed:
            self._active[task.host] -= 1
            task.attempt += 1
            task.not_before = time.monotonic() + wait
            self._waiting.setdefault(task.host, deque()).append(task)
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._left = 0
            self._changed.notify_all()


def now_plus_a_minute() -> float:
    """The longest that a thread sleeps before it looks again."""
    return time.monotonic() + 60.0


def fetch_all(
    urls: Sequence[str],
    options: FetchOptions,
    use: Callable[[int, bytes], Any],
    *,
    backoff: float = 1.0,
) -> Iterator[tuple[int, Any]]:
    """Fetch all addresses; yields (its number, what ``use(number, content)`` returned, or the error), as they come.

    ``use`` runs in the thread of the download. A :class:`FetchError` that it raises is the result; any
    other exception is raised here, after the other downloads were given up.

    Args:
        urls: http(s) addresses.
        options: See there.
        use: Makes the result of a content.
        backoff: Seconds before the second attempt, doubled for each further one.
    """
    hosts = _Hosts([_Task(i, url, _host(url)) for i, url in enumerate(urls)], options.per_host)
    results: SimpleQueue[tuple[int, Any]] = SimpleQueue()

    def work() -> None:
        while (task := hosts.take()) is not None:
            result: Any
            try:
                result = use(task.number, fetch(task.url, options))
            except FetchError as error:
                if error.transient and task.attempt < options.attempts:
                    hosts.put_back(task, max(error.wait, backoff * 2 ** (task.attempt - 1)))
                    continue
                result = error
            except Exception as error:  # noqa: BLE001 (raised by the caller's thread)
                result = _Raised(error)
            hosts.finish(task)
            results.put((task.number, result))

    # Daemons: an interrupted program does not wait for slow servers.
    threads = [
        threading.Thread(target=work, daemon=True, name=f"gather-{i}")
        for i in range(min(options.threads, len(urls)))
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in range(len(urls)):
            number, result = results.get()
            if isinstance(result, _Raised):
                raise result.error
            yield number, result
    finally:
        hosts.stop()


@dataclass(frozen=True)
class _Raised:
    error: BaseException


def _host(url: str) -> str:
    try:
        return (urllib.parse.urlsplit(url).hostname or "").lower()
    except ValueError:  # no address: fetching it says so
        return ""
