"""gunicorn's worker with threads, made so that no client can keep a thread, the main loop or more than its memory.

    accept -> pending, in the poller -> a thread, once the whole request is here -> kept alive, in the poller
                                     -> answered at once, where it touches no store (AT_ONCE)
                                             \\-> sending, in the poller, while the client takes its time
                                             \\-> lingering, until the client has read the last answer of its connection

gunicorn's own reads a request in a thread as it comes, sends from the thread, and waits in its main loop up to 2 s for
the end of a connection that it closes. Here a thread is taken for a whole request only, sockets never block, and what
the kernel does not take at once is sent by the main loop.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

from tradeback.api.answers import CONSTANT_HEADERS, JSON, NO_STORE, UDF_PREFIXES
from tradeback.api.middleware import MAX_BODY_BYTES

PR_SET_PDEATHSIG = 1  # linux/prctl.h
MAX_HEAD_BYTES = 64 * 1024
RECEIVE_BYTES = 16 * 1024
MAX_SIZE_DIGITS = 12
BEGUN_BYTES = 64  # of a request, in which its path begins
MAX_UNSENT_BYTES = 64 * 1024 * 1024  # of all answers that wait for their clients
LINGER_S = 1.0
LINGER_BYTES = 1024 * 1024
SWEEP_S = 0.5
AT_ONCE = b"GET /api/v1/health HTTP/1"
ROOM = 32  # connections that are closed at once where there are too many

_BODY = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*(?=\r\n)", re.IGNORECASE)
_UNTOLD = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)
_GO_ON = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)

_UDF = tuple(prefix.encode() for prefix in UDF_PREFIXES)

# Answers of most requests, and how they are written: gunicorn looks at every character of every header.
_CONSTANT = list(CONSTANT_HEADERS.items())
_USUAL = (*_CONSTANT, ("content-type", JSON), ("cache-control", NO_STORE))
_LINES = {(name, value): f"{name}: {value}\r\n" for name, value in _USUAL}
_CONSTANT_LINES = "".join(_LINES[header] for header in _CONSTANT)

# Headers whose values are letters and digits of our own.
_PLAIN = frozenset({"x-request-id", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"})

# What is answered before there is a request: the first class that fits. The rest is 400.
_REFUSALS: tuple[tuple[type[Exception], int, str, str, str], ...] = (
    (LimitRequestLine, 414, "URI Too Long", "too_long", "The path and its query are too long."),
    (LimitRequestHeaders, 431, "Request Header Fields Too Large", "too_large", "The headers are too large."),
    (
        UnsupportedTransferCoding,
        501,
        "Not Implemented",
        "bad_request",
        "Transfer-Encoding is not understood.",
    ),
    (ExpectationFailed, 417, "Expectation Failed", "bad_request", "Expect may be 100-continue only."),
    (ParseException, 400, "Bad Request", "bad_request", "This is no valid HTTP request."),
)


class ClientSocket(socket.socket):
    """A connection that never blocks. What `sendall` cannot send at once is `unsent`, for the main loop."""

    unsent: memoryview | None = None

    def sendall(self, data: Any, flags: int = 0) -> None:
        if self.unsent is not None:
            raise ConnectionAbortedError("an answer came before the last one was sent")
        self.unsent = memoryview(data)
        self.send_more()

    def send_more(self) -> None:
        """Send what the kernel takes now. OSError where the client is gone."""
        while self.unsent is not None:
            try:
                sent = self.send(self.unsent)
            except BlockingIOError:
                return
            self.unsent = self.unsent[sent:] if sent < len(self.unsent) else None

    # gunicorn sets these back and forth for each request, a system call each.

    def setblocking(self, flag: bool) -> None:
        return

    def settimeout(self, value: float | None) -> None:
        return


class _Done:
    """What came of a request that no thread was needed for, as a future tells it."""

    __slots__ = ("_result",)

    def __init__(self, result: Any) -> None:
        self._result = result

    def cancelled(self) -> bool:
        return False

    def exception(self) -> None:
        return None

    def result(self) -> Any:
        return self._result


class Answered(wsgi.Response):  # type: ignore[misc]
    """An answer that goes out in one piece: its head is kept until its body is there."""

    def __init__(self, request: Any, sock: ClientSocket, config: Any) -> None:
        super().__init__(request, sock, config)
        self.headers_sent = False
        self._usual = ""
        self._parts: list[bytes] = []

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        usual, others = [], []
        if headers[: len(_CONSTANT)] == _CONSTANT:
            usual.append(_CONSTANT_LINES)
            headers = headers[len(_CONSTANT) :]
        for header in headers:
            line = _LINES.get(header)
            if line is not None:
                usual.append(line)
                continue
            name, value = header
            if name == "content-length" and value.isascii() and value.isdigit():
                self.response_length = int(value)
            elif not (name in _PLAIN and value.isascii() and value.isalnum()):
                others.append(header)
                continue
            usual.append(f"{name}: {value}\r\n")
        self._usual = "".join(usual)
        super().process_headers(others)

    def send_headers(self) -> None:
        if self.headers_sent:
            return
        version = self.req.version
        head = [
            f"HTTP/{version[0]}.{version[1]} {self.status}\r\nDate: {util.http_date()}\r\n"
            f"Connection: {'upgrade' if self.upgrade else 'close' if self.should_close() else 'keep-alive'}\r\n",
            "Transfer-Encoding: chunked\r\n" if self.chunked else "",
            self._usual,
            *[f"{name}: {value}\r\n" for name, value in self.headers],
            "\r\n",
        ]
        self._parts.append("".join(head).encode("latin-1"))
        self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        self._parts.append(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def close(self) -> None:
        self.send_headers()
        if self.chunked:
            self._parts.append(b"0\r\n\r\n")
        self.sock.sendall(b"".join(self._parts))


class BoundedWorker(ThreadWorker):  # type: ignore[misc]
    """The worker. A request must be here, answered and taken by its client within `request_seconds` of the app."""

    def init_process(self) -> None:
        self._deadlines: dict[Any, float] = {}
        self._lingering: deque[Any] = deque()
        self._sending: dict[Any, None] = {}
        self._sweep_at = 0.0
        _end_with_parent(self.ppid)
        super().init_process()

    # In the main thread.

    def handle_exit(self, sig: int, frame: Any) -> None:
        if sig == signal.SIGTERM and self.app.ends and self.app.drain:
            # Who asks whether we are ready is told no, and has this time to send others elsewhere.
            signal.signal(signal.SIGALRM, super().handle_exit)
            signal.setitimer(signal.ITIMER_REAL, self.app.drain)
            return
        super().handle_exit(sig, frame)

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        if not self.alive and self.app.ends:
            # Once all have closed them, who comes is refused at once, and goes elsewhere.
            for listener in self.sockets:
                listener.close()

    def accept(self, listener: Any) -> None:
        try:
            accepted, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        sock = ClientSocket(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        super(ClientSocket, sock).setblocking(False)
        self.nr_conns += 1
        conn = TConn(self.cfg, sock, client, listener.getsockname())
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def finish_request(self, conn: Any, fs: Any) -> None:
        if conn.sock.unsent is not None:
            self._sending[conn] = None
            if sum(len(one.sock.unsent or b"") for one in self._sending) > MAX_UNSENT_BYTES:
                self._cut(next(iter(self._sending)))  # who has been taking longest
            self.poller.register(conn.sock, selectors.EVENT_WRITE, partial(self._send_more, conn, fs))
            return
        kept = not fs.cancelled() and fs.exception() is None and fs.result()
        if kept is not _DEFER:
            self._deadlines.pop(conn, None)
        if kept is True and conn.parser.unreader.buf.getvalue():
            # The next request came behind this one. It has its turn when the others had theirs.
            self.method_queue.defer(self.enqueue_req, conn)
        elif kept:
            super().finish_request(conn, fs)
        else:
            self._linger(conn)

    def _send_more(self, conn: Any, fs: Any, sock: ClientSocket) -> None:
        try:
            sock.send_more()
        except OSError as error:
            self.log.debug("a client is gone: %s", error)
            self._forget(conn)
            return
        if sock.unsent is None:
            self.poller.unregister(sock)
            del self._sending[conn]
            self.finish_request(conn, fs)

    def _linger(self, conn: Any) -> None:
        """End a connection so that its last answer arrives: closed with bytes unread, it would be reset."""
        conn.timeout = time.monotonic() + LINGER_S
        conn.drained = 0
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.nr_conns -= 1
            conn.close()
            return
        self._lingering.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._drain, conn))

    def _drain(self, conn: Any, sock: ClientSocket) -> None:
        try:
            got = len(sock.recv(65_536))
        except BlockingIOError:
            return
        except OSError:
            got = 0
        conn.drained += got
        if not got or conn.drained > LINGER_BYTES:
            self._lingering.remove(conn)
            self._forget(conn)

    def _forget(self, conn: Any) -> None:
        """Close a connection that the poller watches."""
        self._deadlines.pop(conn, None)
        self._sending.pop(conn, None)
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def _cut(self, conn: Any) -> None:
        """End a connection from where its thread or the poller will notice."""
        try:
            conn.sock.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            self.log.debug("a late connection was gone already: %s", error)

    def _cap_keepalive(self, deadline: float) -> None:
        # Told to end, it waits no longer for those who have not sent a whole request than for those kept alive.
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def murder_pending(self) -> None:
        # The main loop comes here after each round, and at least once a second.
        super().murder_pending()
        if self.nr_conns >= self.worker_connections:
            # Who came first and does nothing makes room: else a thousand idle connections would keep all others out.
            for waiting in (self.pending_conns, self.keepalived_conns):
                for _ in range(min(ROOM, len(waiting))):
                    self._forget(waiting.popleft())
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_S
        while self._lingering and self._lingering[0].timeout < now:
            self._forget(self._lingering.popleft())
        for conn, deadline in list(self._deadlines.items()):
            if now > deadline:
                # Some are closed by now: who sends nothing for KEEP_ALIVE_S in the middle of a request.
                self._deadlines.pop(conn, None)
                self._cut(conn)

    def enqueue_req(self, conn: Any) -> None:
        """A request begins, or goes on. Whether the API lives is answered here, also while every thread waits for a
        store."""
        here = self._guarded(conn, self._receive)
        if here is None and conn.begun.startswith(AT_ONCE):
            here = self._guarded(conn, self._answer)
        if here is None:
            fs = self.tpool.submit(self._guarded, conn, self._answer)
            fs.add_done_callback(lambda fs: self.method_queue.defer(self.finish_request, conn, fs))
        else:
            self.finish_request(conn, _Done(here))

    # In a thread, or in the main one.

    def _guarded(self, conn: Any, step: Callable[[Any], Any]) -> Any:
        """What a step makes of a connection; False, which ends it, where it fails."""
        try:
            return step(conn)
        except (NoMoreData, StopIteration, BlockingIOError) as error:
            self.log.debug("a connection ends: %s", error)
        except OSError as error:
            self.log.debug("a client is gone: %s", error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered and logged there
            self._refuse(conn.sock, error, getattr(conn, "begun", b""))
        return False

    def _receive(self, conn: Any) -> Any:
        """Take in what has come. None: a whole request is here; else what `finish_request` takes."""
        conn.init()
        unread = conn.parser.unreader.buf
        data = unread.getvalue()
        whole, told = _is_whole(data)
        if not whole:
            try:
                more = conn.sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return _DEFER
            if not more:
                return False
            data += more
            unread.seek(0, 2)
            unread.write(more)
            whole, told = _is_whole(data)
        self._deadlines.setdefault(conn, time.monotonic() + self.app.request_seconds)
        conn.last = not told
        conn.begun = data[:BEGUN_BYTES]
        if whole:
            return None
        end = data.find(b"\r\n\r\n")
        if end < 0 and len(data) > MAX_HEAD_BYTES:
            self._refuse(conn.sock, LimitRequestHeaders("no end"), conn.begun)
            return False
        if end >= 0 and not getattr(conn, "went_on", False) and _GO_ON.search(data, 0, end + 2):
            conn.went_on = True
            conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return _DEFER

    def _answer(self, conn: Any) -> bool:
        """Answer one request; whether the connection goes on."""
        request = next(conn.parser)
        request._expected_100_continue = False  # its body is here
        response, environ = wsgi.create(
            request, conn.sock, conn.client, conn.server, self.cfg, response_class=Answered
        )
        environ["wsgi.multithread"] = True
        body = self.wsgi(environ, response.start_response)
        # Its head is not written yet: who was told to end meanwhile says so.
        if conn.last or not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()
        try:
            for part in body:
                response.write(part)
            response.close()
        finally:
            if hasattr(body, "close"):
                body.close()
        conn.went_on = False
        return not response.should_close() and bool(conn.parser.finish_body())

    def _refuse(self, client: ClientSocket, exc: Exception, begun: bytes) -> None:
        """Answer what never became a request of the application, or failed below it, in the shape of all errors."""
        status, reason, code, message = 500, "Internal Server Error", "internal", "This request failed."
        for kind, *refusal in _REFUSALS:
            if isinstance(exc, kind):
                status, reason, code, message = refusal  # type: ignore[assignment]
                self.log.debug("no valid request: %s", exc)
                break
        else:
            self.log.error("a request failed below the application", exc_info=exc)
        content: dict[str, Any] = {"error": {"code": code, "message": message}}
        if begun.partition(b" ")[2].startswith(_UDF):
            content = {"s": "error", "errmsg": message}
        body = orjson.dumps(content)
        lines = {**CONSTANT_HEADERS, "content-type": JSON, "cache-control": NO_STORE}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        answer = (
            f"HTTP/1.1 {status} {reason}\r\nDate: {util.http_date()}\r\nConnection: close\r\n{head}"
            f"x-request-id: {secrets.token_hex(8)}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        try:
            client.sendall(answer.encode("latin-1") + body)
        except OSError as error:
            self.log.debug("a client is gone: %s", error)


def _end_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent is gone: its address must be free for the next one at once.

    gunicorn's worker looks after its parent every second, and then waits for its clients.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)


def _is_whole(data: bytes) -> tuple[bool, bool]:
    """Whether a whole request stands in front of these bytes, and whether what it says of its body is told and small
    enough: one that is not is refused without its body, and its connection ends."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False, True
    if _UNTOLD.search(data, 0, end):
        return True, False
    sizes = _BODY.findall(data, 0, end + 2)
    if len(sizes) > 1:
        return True, False  # which of them, is not for us to guess: the parser refuses it
    if sizes and len(sizes[0]) > MAX_SIZE_DIGITS:
        return True, False
    size = int(sizes[0]) if sizes else 0
    if size > MAX_BODY_BYTES:
        return True, False
    return len(data) >= end + 4 + size, True
