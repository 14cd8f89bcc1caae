"""What picows calls, and the only file that cimports it.

ClientListener   one connected client: frames in, limits, backpressure, the closing handshake. Made by the hub for
                 each upgrade, owned by picows' protocol until the connection is lost.
ClientSink       the same connection's way out, owned by the fan-out and the listener; TextSink is its JSON form.
ClientLimits     what all clients share; owned by the hub.
FlushHook        the flush at the end of each iteration of EpollLoop; owned by the loop.
FeedListener     one connection to the exchange: each message goes to `Ingest`. Made and owned by the feed.

Everything runs on the loop's thread. A frame is picows' read buffer: no reference to it outlives its callback.
"""

from collections import deque
from importlib.metadata import version

from libc.stdint cimport int64_t, uint32_t

from picows.picows cimport WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from tradeback._fast.batch cimport record_at, records_in, ws_header_bytes
from tradeback._fast.clock cimport monotonic_ns
from tradeback._fast.clock cimport now_ns as unix_ns
from tradeback._fast.fanout cimport FanOut, FrameSink
from tradeback._fast.ingest cimport Ingest
from tradeback._fast.record cimport WireRecord
from tradeback._fast.stats cimport (
    C_FEED_CONNECTS,
    C_FEED_DISCONNECTS,
    C_FEED_DROPPED,
    C_FEED_PAUSES,
    C_LOOP_ITERATIONS,
    C_MALFORMED,
    C_RATE_CLOSES,
    C_SLOW_CLOSES,
    H_LOOP_ITERATION,
)
from tradeback._fast.status cimport DECODED_EVENT, DECODED_MALFORMED, DECODED_UNUSUAL

from picows import WSProtocolError

from tradeback.errors import CloseCode


cdef enum:
    MESSAGE_MAX = 16 * 1024 * 1024      # of the exchange, over all its frames
    SLOW_TURN_NS = 2_000_000            # longest turn of the slow path, between which clients are served
    WAITING_MAX = 131_072               # more than events that one read can bring: a socket's buffer has 6 MiB


cdef extern from *:
    """
    #ifndef PICOWS_VERSION
    #error "setup.py defines PICOWS_VERSION, the version of picows that is compiled against"
    #endif
    """
    const char* PICOWS_VERSION


def check_picows(running: str) -> None:
    """Refuse a picows that is not the one compiled against: the structs read here would lie elsewhere, of which
    Cython only warns."""
    compiled = PICOWS_VERSION.decode()
    if running != compiled:
        raise ImportError(f"tradeback was compiled against picows {compiled}, and picows {running} is installed: "
                          f"install picows=={compiled}, or compile tradeback again")


check_picows(version("picows"))


# ================================================================ clients

cdef class ClientLimits:
    """What a client may do, in the units of `WebSocketConfig`: seconds and bytes."""

    def __init__(self, config):
        self.messages_per_second = config.messages_per_second
        self.message_burst = config.message_burst
        self.max_message_bytes = config.max_message_bytes
        self.high_water = config.high_water
        self.ping_interval_ns = int(config.ping_interval * 1e9)
        self.ping_timeout_ns = int(config.ping_timeout * 1e9)
        self.blocked_limit_ns = int(config.blocked_limit * 1e9)
        self.close_limit_ns = 1_000_000_000


cdef class ClientSink(FrameSink):
    """Frames that the fan-out made, straight into the socket."""

    cdef int write(self, char* data, Py_ssize_t size) except -1:
        cdef WSTransport transport = self.transport
        if transport is None or transport.is_close_frame_sent or transport.is_disconnected:
            return 0
        transport._fast_write(data, size)
        return 0


def text_frame(bytes payload not None) -> bytes:
    """A text message of the server as one frame (RFC 6455, 5.2: FIN, opcode 1, not masked)."""
    cdef Py_ssize_t size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


cdef class TextSink(ClientSink):
    """The same updates as JSON text, `{"type":"prices","data":[{"symbol","price","volume"}]}`.

    `names` gives the symbol of a stream id; `encode` makes JSON bytes.
    """

    def __init__(self, dict names not None, encode not None):
        self.names = names
        self.encode = encode

    cdef int write(self, char* data, Py_ssize_t size) except -1:
        cdef char* end = data + size
        cdef WireRecord* record
        cdef uint32_t count, index
        cdef list updates
        while data < end and self.transport is not None:
            data += ws_header_bytes(data)
            count = records_in(data)
            updates = []
            for index in range(count):
                record = record_at(data, index)
                updates.append({"symbol": self.names[record.symbol_id], "price": record.price,
                                "volume": record.volume})
            data = <char*>record_at(data, count)
            self.transport.send(WSMsgType.TEXT, self.encode({"type": "prices", "data": updates}))
        return 0


cdef class ClientListener(WSListener):
    """One client's connection.

    `client` gets, as method calls on the loop's thread: `on_open(listener)`, `on_text(data: bytes)`, `on_binary()`,
    `on_writable()` when something is pending and can be sent again, `on_leave(slots)` with the slots that nobody
    watches any more, once, when it is taken out of the fan-out, and last `on_lost()`.
    """

    def __init__(self, FanOut fanout not None, ClientLimits limits not None, ClientSink sink not None, client not None):
        self.fanout = fanout
        self.limits = limits
        self.sink = sink
        self.client = client
        self.handle = -1
        self.tokens = limits.message_burst

    cpdef on_ws_connected(self, WSTransport transport):
        self.transport = transport
        self.heard_ns = self.tokens_ns = monotonic_ns()
        # Two objects of a few kilobytes each, which picows would keep as long as the connection.
        transport.request = None
        transport.response = None
        transport.underlying_transport.set_write_buffer_limits(self.limits.high_water)
        self.sink.transport = transport
        self.handle = self.fanout.add(self.sink)
        self.client.on_open(self)

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        cdef int64_t now
        if self.closing_ns:
            self.ignored += 1
            if frame.msg_type == WSMsgType.CLOSE:
                transport.disconnect()
            elif self.ignored > CLOSED_FRAMES_MAX:
                transport.disconnect(False)
            return
        now = monotonic_ns()
        self.heard_ns = now
        self.pinged_ns = 0
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(CloseCode.PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed on")
        elif frame.msg_type == WSMsgType.CLOSE:
            self.answer_close(frame)
        elif not self.take_token(now):
            self.fanout.stats.count(C_RATE_CLOSES)
            self.close(CloseCode.TOO_MANY_MESSAGES, "too many messages")
        elif frame.msg_type == WSMsgType.PING:
            # A client that reads nothing gets no pongs either: they would pile up.
            if self.fanout.blocked_ns(self.handle) == 0:
                transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type != WSMsgType.PONG:
            self.take_data(frame)

    cpdef on_ws_disconnected(self, WSTransport transport):
        client = self.client
        self.leave()
        self.client = None
        self.transport = None
        self.sink.transport = None
        client.on_lost()

    cpdef pause_writing(self):
        """Unsent bytes wait in this process: from now on only pending bits grow. Nothing is read either, so that
        answers cannot pile up."""
        if self.handle >= 0:
            self.fanout.set_blocked(self.handle, monotonic_ns())
        if self.transport is not None:
            self.transport.underlying_transport.pause_reading()

    cpdef resume_writing(self):
        if self.transport is not None:
            self.transport.underlying_transport.resume_reading()
        if self.handle >= 0 and self.fanout.set_unblocked(self.handle):
            self.client.on_writable()

    def send_text(self, bytes data not None) -> None:
        """Send one text message; nothing once the connection is closing."""
        if self.transport is not None and not self.closing_ns:
            self.transport.send(WSMsgType.TEXT, data)

    def send_frames(self, bytes frames not None) -> None:
        """Write whole frames that were made elsewhere (`text_frame`), at once; nothing once it is closing."""
        if self.transport is not None and not self.closing_ns and not self.transport.is_close_frame_sent:
            self.transport._fast_write(<char*>frames, len(frames))

    def close(self, int code, str reason="") -> None:
        """Say why, leave the fan-out, and wait for the client's CLOSE; `check` aborts one that sends none."""
        if self.transport is None or self.closing_ns:
            return
        self.closing_ns = monotonic_ns()
        self.transport.send_close(<WSCloseCode>code, reason)
        self.leave()

    def abort(self) -> None:
        """Cut the connection now, whatever is unsent."""
        if self.transport is not None:
            self.transport.disconnect(False)

    def check(self, int64_t now_ns) -> int:
        """What the hub's sweep calls now and then: ping a silent client, abort a dead one, close one that takes no
        data, abort one whose closing takes too long. True where its connection was ended."""
        cdef int64_t blocked_ns
        if self.transport is None:
            return False
        if self.closing_ns == 0 and self.transport.is_close_frame_sent:
            self.closing_ns = now_ns            # by picows, for broken framing
        if self.closing_ns:
            if now_ns - self.closing_ns < self.limits.close_limit_ns:
                return False
            self.abort()
            return True
        blocked_ns = self.fanout.blocked_ns(self.handle) if self.handle >= 0 else 0
        if blocked_ns:
            # Whoever takes no data cannot be asked for a pong.
            self.heard_ns = now_ns
            if now_ns - blocked_ns < self.limits.blocked_limit_ns:
                return False
            self.fanout.stats.count(C_SLOW_CLOSES)
            self.close(CloseCode.SLOW_CONSUMER, "took no data for too long")
            return True
        if now_ns - self.heard_ns >= self.limits.ping_timeout_ns:
            self.abort()
            return True
        if self.pinged_ns == 0 and now_ns - self.heard_ns >= self.limits.ping_interval_ns:
            self.pinged_ns = now_ns
            self.transport.send_ping()
        return False

    @property
    def is_closing(self) -> bool:
        return self.closing_ns != 0 or self.transport is None

    @property
    def socket(self):
        """The connection's socket, for its options and addresses; None once it is lost."""
        return None if self.transport is None else self.transport.underlying_transport.get_extra_info("socket")

    cdef bint take_token(self, int64_t now_ns) noexcept:
        """Each frame but CLOSE costs a token: fragments, pings and pongs too."""
        self.tokens = min(self.limits.message_burst,
                          self.tokens + (now_ns - self.tokens_ns) * 1e-9 * self.limits.messages_per_second)
        self.tokens_ns = now_ns
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    cdef int take_data(self, WSFrame frame) except -1:
        """A text or binary message, whole or in fragments."""
        cdef bytearray fragments = self.fragments
        if (frame.msg_type == WSMsgType.CONTINUATION) != (fragments is not None):
            self.close(CloseCode.PROTOCOL_ERROR, "a fragment without a beginning, or a message within another")
            return 0
        if frame.msg_type == WSMsgType.BINARY:
            # Refused at once; of its fragments, which can only follow, none is expected.
            if frame.fin:
                self.client.on_binary()
            else:
                self.close(CloseCode.POLICY, "binary messages are not understood")
            return 0
        if fragments is None and frame.fin:
            self.client.on_text(frame.get_payload_as_bytes())
            return 0
        if fragments is None:
            fragments = self.fragments = bytearray()
        if len(fragments) + frame.payload_size > self.limits.max_message_bytes:
            self.fragments = None
            self.close(CloseCode.MESSAGE_TOO_BIG, f"longer than {self.limits.max_message_bytes} bytes")
            return 0
        fragments += frame.payload_ptr[:frame.payload_size]
        if frame.fin:
            self.fragments = None
            self.client.on_text(bytes(fragments))
        return 0

    def answer_close(self, WSFrame frame) -> None:
        """The client closes: answer with its code (1000 where it named none) and end the connection.

        RFC 6455, 7.4: 1004, 1005, 1006 and 1015 are never sent, and nothing below 1000 or from 5000 on is a code.
        """
        cdef int code = <int>frame.get_close_code()
        if frame.payload_size < 2:
            code = CloseCode.NORMAL
        elif not 1000 <= code < 5000 or code in (1004, 1005, 1006, 1015):
            code = CloseCode.PROTOCOL_ERROR
        self.close(code)
        self.transport.disconnect()

    cdef int leave(self) except -1:
        """Leave the fan-out, once."""
        cdef int64_t handle = self.handle
        if handle >= 0:
            self.handle = -1
            self.client.on_leave(self.fanout.remove(<uint32_t>handle))
        return 0


cdef class FlushHook(IterationHook):
    """Flushes for at most `budget_ns` at the end of each iteration, and counts it. `on_failed()` is called where
    writes raised."""

    def __init__(self, FanOut fanout not None, int64_t budget_ns, on_failed not None):
        self.fanout = fanout
        self.budget_ns = budget_ns
        self.on_failed = on_failed

    cdef int run(self) except -1:
        cdef int waiting = 0
        if self.fanout.has_work():
            waiting = self.fanout.flush(monotonic_ns(), self.budget_ns)
            if self.fanout.has_failed():
                self.on_failed()
        self.fanout.stats.count(C_LOOP_ITERATIONS)
        if self.woke_ns:
            self.fanout.stats.observe(H_LOOP_ITERATION, monotonic_ns() - self.woke_ns)
        return waiting


# ================================================================ feeds

cdef class FeedListener(WSListener):
    """Hands each message of one connection to the exchange to `Ingest`.

    `on_other(message: bytes)` gets what is no market event (answers to SUBSCRIBE, announcements),
    `on_unusual(message: bytes) -> bytes | None` what only the slow path can judge: it returns the same event in
    the predicted layout, or None and sees to it itself. `on_malformed(message: bytes)` gets what no event can be
    had from. `after_reads()` is called after the last message of a read where clients have something to get; None
    where the loop flushes by itself.

    Beside events, a read's messages get SLOW_TURN_NS together: those that come after wait, in order, and nothing is
    read meanwhile. `on_waiting()` then has `work_off` called at each turn of the loop until none waits. What no event
    can be had from does not wait: it is counted, and goes unsaid. Events overtake what waits.

    `last_frame_ns` and `last_market_ns` are monotonic times, 0 before the first.
    `abandoned` is set by an owner that no longer waits for the connection: it ends as soon as it is there.
    """

    def __init__(self, Ingest ingest not None, *, on_other, on_unusual, on_malformed, after_reads,
                 on_waiting):
        self._ingest = ingest
        self._on_other = on_other
        self._on_unusual = on_unusual
        self._on_malformed = on_malformed
        self._after_reads = after_reads
        self._on_waiting = on_waiting
        self._transport = None
        self._waiting = deque()
        self._spent_ns = 0
        self._parts = None
        self.abandoned = False
        self.last_frame_ns = 0
        self.last_market_ns = 0

    cpdef on_ws_connected(self, WSTransport transport):
        self.last_frame_ns = monotonic_ns()
        self._transport = transport
        self._ingest.stats.count(C_FEED_CONNECTS)
        if self.abandoned:
            transport.disconnect(False)

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        cdef int64_t now = monotonic_ns()
        cdef int decoded
        self.last_frame_ns = now
        if frame.msg_type == WSMsgType.TEXT and frame.fin:
            decoded = self._ingest.on_message(frame.payload_ptr, frame.payload_size, unix_ns(), now)
            if decoded == DECODED_EVENT:
                self.last_market_ns = now
            else:
                self._take_slowly(decoded, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.TEXT or frame.msg_type == WSMsgType.CONTINUATION:
            self._gather(frame)
        elif frame.msg_type == WSMsgType.BINARY:
            self._ingest.stats.count(C_MALFORMED)
            self._take_slowly(DECODED_MALFORMED, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        if frame.last_in_buffer:
            self._spent_ns = 0
            if self._after_reads is not None and self._ingest.fanout.has_work():
                self._after_reads()

    cpdef on_ws_disconnected(self, WSTransport transport):
        self._transport = None
        self._ingest.stats.count(C_FEED_DISCONNECTS)

    def _gather(self, WSFrame frame):
        """A message in several frames: the exchange sends none, but it may."""
        if frame.msg_type == WSMsgType.TEXT:
            self._parts = bytearray()
        elif self._parts is None:
            return
        self._parts += frame.get_payload_as_memoryview()
        if len(self._parts) > MESSAGE_MAX:
            self._parts = None
            raise WSProtocolError(WSCloseCode.MESSAGE_TOO_BIG, "a message in frames exceeds the limit")
        if frame.fin:
            message, self._parts = bytes(self._parts), None
            decoded = self._ingest.take(message)
            if decoded == DECODED_EVENT:
                self.last_market_ns = self.last_frame_ns
            else:
                self._take_slowly(decoded, message)

    cdef int _take_slowly(self, int decoded, bytes message) except -1:
        """Take a message that is no event as it stands, now or when its turn comes."""
        cdef int64_t began
        if self._spent_ns < SLOW_TURN_NS and not self._waiting:
            began = monotonic_ns()
            self._set_aside(decoded, message)
            self._spent_ns += monotonic_ns() - began
        elif decoded == DECODED_MALFORMED:
            return 0
        elif len(self._waiting) < WAITING_MAX:
            self._waiting.append((decoded, message))
            if len(self._waiting) == 1:
                self._ingest.stats.count(C_FEED_PAUSES)
                if self._transport is not None:
                    self._transport.underlying_transport.pause_reading()
                self._on_waiting()
        else:
            self._ingest.stats.count(C_FEED_DROPPED)
        return 0

    @property
    def waiting(self) -> int:
        """How many messages wait for `work_off`."""
        return len(self._waiting)

    def work_off(self) -> bool:
        """Take what waits, for one turn. Whether some of it is left; if not, the connection is read again."""
        cdef int64_t began = monotonic_ns()
        while self._waiting and monotonic_ns() - began < SLOW_TURN_NS:
            decoded, message = self._waiting.popleft()
            self._set_aside(decoded, message)
        self.last_frame_ns = monotonic_ns()     # it is we who are silent
        if self._after_reads is not None and self._ingest.fanout.has_work():
            self._after_reads()
        if not self._waiting and self._transport is not None:
            self._transport.underlying_transport.resume_reading()
        return bool(self._waiting)

    def drop_waiting(self) -> None:
        """Nobody will take what waits."""
        while self._waiting:
            self._waiting.popleft()
            self._ingest.stats.count(C_FEED_DROPPED)

    def _set_aside(self, int decoded, bytes message):
        if decoded == DECODED_UNUSUAL:
            canonical = self._on_unusual(message)
            if canonical is None:
                return
            decoded = self._ingest.take(canonical)
            if decoded == DECODED_EVENT:
                self.last_market_ns = self.last_frame_ns
            else:
                self._set_aside(decoded, canonical)  # a serverShutdown; what was rewritten is never unusual
        elif decoded == DECODED_MALFORMED:
            self._on_malformed(message)
        else:
            self._on_other(message)
