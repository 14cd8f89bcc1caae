"""EpollLoop: an asyncio event loop on Linux's epoll.

    Handle         one callback waiting to be called; asyncio.Handle in C. Owned by whoever queues it.
    Watch          one file descriptor: what epoll was told about it, its reader and its writer. Owned by the poller.
    Poller         the epoll descriptor and the watches. Owned by the loop, which shows it to asyncio as its selector.
    IterationHook  what runs at the end of each iteration; held by the loop.
    LoopCore       one iteration, timers and the ready queue; comes before asyncio's own loop in the method order.
    EpollLoop      LoopCore and asyncio.SelectorEventLoop: transports, executors, subprocesses and signals are asyncio's.

All of it lives on the thread that runs the loop. Only `call_soon_threadsafe` may be called from another; it is
asyncio's own and wakes us through the self-pipe.

One iteration, as `_run_once` has it: wait for descriptors, timers or neither; queue the readers and writers of those
that are ready, then the timers whose time has come; call what is in the queue now, in its order (what is queued
meanwhile waits for the next iteration); run the hook. That is asyncio's order exactly, since programs rely on it. In
debug mode the iteration is asyncio's own, slow-callback warnings included: the poller then plays a selector.

Level-triggered on purpose: an event that nobody took (its reader was replaced, or read only a part) is reported again.
"""

import asyncio
import heapq
from asyncio import events as asyncio_events, format_helpers
from os import strerror
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey

cimport cython
from cpython.object cimport PyObject
from libc.errno cimport EEXIST, EINTR, ENOENT, ENOSYS, EPERM, errno
from libc.math cimport ceil
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close


cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyContext_CopyCurrent()
    object PyObject_Call(object callable, object args, PyObject* kwargs)
    int PyObject_AsFileDescriptor(object file) except -1
    int PyErr_CheckSignals() except -1
    object PyErr_SetFromErrno(object exception)


cdef extern from *:
    """
    #include <sys/epoll.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* Linux 5.11. By number, since glibc wraps it only from 2.35 on; the number is the same on every architecture
       but Alpha. The kernel's timespec has 64-bit fields everywhere. */
    #ifndef SYS_epoll_pwait2
    #define SYS_epoll_pwait2 441
    #endif
    static int tb_epoll_pwait2(int epfd, struct epoll_event* events, int size, int64_t timeout_ns) {
        struct { int64_t seconds, nanoseconds; } timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        return (int)syscall(SYS_epoll_pwait2, epfd, events, size, &timeout, (void*)0, (size_t)0);
    }
    """
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLLIN
        EPOLLOUT
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags) nogil
    int epoll_ctl(int epfd, int operation, int fd, epoll_event* event) nogil
    int epoll_wait(int epfd, epoll_event* events, int size, int timeout_ms) nogil
    int tb_epoll_pwait2(int epfd, epoll_event* events, int size, int64_t timeout_ns) nogil


cdef enum:
    EVENTS_PER_WAIT = 1024  # more that are ready wait for the next iteration; the kernel takes turns
    # A cancelled timer leaves the heap when it reaches the top, or all of them together when they are most of it.
    CANCELLED_TIMERS_MIN = 100

cdef int64_t SECOND_NS = 1_000_000_000
cdef int64_t MILLISECOND_NS = 1_000_000
cdef int64_t WAIT_MAX_NS = 24 * 3600 * SECOND_NS  # keeps every conversion of a timeout in range
# While we spin, Python's signal handlers run this often (a signal that asyncio handles wakes us at once).
cdef int64_t SPIN_CHUNK_NS = MILLISECOND_NS


cdef inline int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * SECOND_NS + now.tv_nsec


cdef inline double seconds_now() noexcept nogil:
    """The same double as time.monotonic() gives for this instant: asyncio code compares the two."""
    return <double>monotonic_ns() / 1e9


@cython.freelist(256)
cdef class Handle:
    """A callback, its arguments and the context it runs in; stands where asyncio has an asyncio.Handle.

    Valid until it has run or was cancelled; both are harmless to repeat. Made by the loop only.
    """

    cdef readonly object _callback, _context, _loop
    cdef readonly tuple _args
    cdef readonly bint _cancelled
    cdef object __weakref__

    def cancel(self):
        """Make sure that the callback will not be called; the callback and its arguments are let go."""
        self._cancelled = True
        self._callback = None
        self._args = None

    def cancelled(self):
        """Whether cancel() was called."""
        return self._cancelled

    def get_context(self):
        """The contextvars.Context in which the callback runs."""
        return self._context

    @property
    def _source_traceback(self):
        return None  # asyncio asks every handle; those made in debug mode are its own

    def __repr__(self):
        if self._callback is None:
            return "<Handle cancelled>"
        return f"<Handle {format_helpers._format_callback_source(self._callback, self._args)}>"

    def _run(self):
        self.run()

    cdef int run(self) except -1:
        # Locals, since the callback may cancel this very handle.
        cdef object callback = self._callback, context = self._context
        cdef tuple args = self._args
        if args is None:  # cancelled
            return 0
        try:
            PyContext_Enter(context)
            try:
                PyObject_Call(callback, args, NULL)
            finally:
                PyContext_Exit(context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            source = format_helpers._format_callback_source(callback, args)
            self._loop.call_exception_handler(
                {"message": f"Exception in callback {source}", "exception": exc, "handle": self}
            )
        return 0


cdef Handle new_handle(object loop, object callback, tuple args, object context):
    cdef Handle handle = Handle.__new__(Handle)
    handle._callback = callback
    handle._args = args
    handle._context = PyContext_CopyCurrent() if context is None else context
    handle._loop = loop
    return handle


@cython.freelist(64)
cdef class Watch:
    """One registration of one descriptor with epoll: from its first reader or writer to the removal of its last.

    A descriptor registered anew is a new Watch with a new generation, so an event of the old registration finds nobody.
    """

    cdef int fd
    cdef uint32_t generation
    cdef uint32_t events  # EPOLLIN: a reader is there; EPOLLOUT: a writer is
    cdef object reader  # Handle, or asyncio's own in debug mode, or None
    cdef object writer


cdef class Poller:
    """The epoll descriptor and everything registered with it.

    Python sees as much of a selector as asyncio calls: select() in debug mode, get_key() where a transport shows
    itself, close().
    """

    cdef int epfd
    cdef uint32_t generation
    cdef dict watches  # fd -> Watch; a dict, since descriptor numbers may be huge and sparse
    cdef int64_t spin_ns  # < 0: never block
    cdef bint urgent  # the hook has more to do: do not wait
    cdef public bint coarse  # the kernel has no epoll_pwait2: timeouts are rounded up to milliseconds
    cdef epoll_event events[EVENTS_PER_WAIT]

    def __cinit__(self):
        self.epfd = -1
        self.watches = {}
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.epfd < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        if self.epfd >= 0:
            close(self.epfd)

    def close(self):
        """Close the epoll descriptor and let every handle go. Harmless to repeat."""
        cdef int epfd = self.epfd
        self.epfd = -1
        self.watches.clear()
        if epfd >= 0:
            close(epfd)

    cdef int control(self, int operation, Watch watch, uint32_t events) noexcept:
        cdef epoll_event event
        event.events = events
        event.data.u64 = (<uint64_t>watch.generation << 32) | <uint32_t>watch.fd
        return 0 if epoll_ctl(self.epfd, operation, watch.fd, &event) == 0 else errno

    cdef Watch register(self, int fd, uint32_t event):
        cdef Watch watch = Watch.__new__(Watch)
        self.generation += 1
        watch.fd = fd
        watch.generation = self.generation
        cdef int error = self.control(EPOLL_CTL_ADD, watch, event)
        if error == EEXIST:  # a removal that epoll refused, because the descriptor was closed and later put back
            error = self.control(EPOLL_CTL_MOD, watch, event)
        if error:
            raise OSError(error, f"epoll cannot watch file descriptor {fd}: {strerror(error)}")
        self.watches[fd] = watch
        return watch

    cdef int watch(self, int fd, uint32_t event, object handle) except -1:
        """Have `handle` called while `fd` is readable (EPOLLIN) or writable (EPOLLOUT), instead of another before."""
        cdef Watch watch = self.watches.get(fd)
        cdef object before = None
        cdef int error
        if watch is None:
            watch = self.register(fd, event)
        else:
            # Also where the event is watched already: the number may meanwhile stand for another file. Then epoll has
            # forgotten the old one, and what was registered for it must not be called for the new one.
            error = self.control(EPOLL_CTL_MOD, watch, watch.events | event)
            if error == ENOENT:
                self.forget(watch)
                watch = self.register(fd, event)
            elif error:
                raise OSError(error, f"epoll cannot watch file descriptor {fd}: {strerror(error)}")
        watch.events |= event
        if event == EPOLLIN:
            before = watch.reader
            watch.reader = handle
        else:
            before = watch.writer
            watch.writer = handle
        if before is not None:
            before.cancel()
        return 0

    cdef bint unwatch(self, int fd, uint32_t event) except -1:
        """Undo watch(); whether there was something to undo."""
        cdef Watch watch = self.watches.get(fd)
        cdef object handle
        if watch is None or not watch.events & event:
            return False
        if event == EPOLLIN:
            handle = watch.reader
            watch.reader = None
        else:
            handle = watch.writer
            watch.writer = None
        watch.events &= ~event
        # An error means that the descriptor is closed already, and then epoll has forgotten it.
        if watch.events:
            self.control(EPOLL_CTL_MOD, watch, watch.events)
        else:
            del self.watches[fd]
            self.control(EPOLL_CTL_DEL, watch, 0)
        handle.cancel()
        return True

    cdef int forget(self, Watch watch) except -1:
        del self.watches[watch.fd]
        watch.events = 0
        for handle in (watch.reader, watch.writer):
            if handle is not None:
                handle.cancel()
        watch.reader = watch.writer = None
        return 0

    cdef int wait(self, int64_t timeout_ns) except -1:
        """Fetch events for at most `timeout_ns` (< 0: for ever): spin first if asked to, then block. How many came.

        The GIL is released throughout. Zero may come early, after a signal.
        """
        cdef int count = 0
        cdef int error = 0
        cdef int64_t now, chunk_end, deadline, spin_end
        if self.urgent:
            timeout_ns = 0
        if timeout_ns == 0 or self.spin_ns == 0:
            with nogil:
                count = self.fetch(timeout_ns)
                error = errno
        else:
            now = monotonic_ns()
            deadline = INT64_MAX if timeout_ns < 0 else now + timeout_ns
            spin_end = deadline if self.spin_ns < 0 else min(now + self.spin_ns, deadline)
            while count == 0 and now < spin_end:
                chunk_end = min(now + SPIN_CHUNK_NS, spin_end)
                with nogil:
                    while count == 0 and now < chunk_end:
                        count = epoll_wait(self.epfd, self.events, EVENTS_PER_WAIT, 0)
                        error = errno
                        now = monotonic_ns()
                if count == 0:
                    PyErr_CheckSignals()
            if count == 0 and now < deadline:
                with nogil:
                    count = self.fetch(-1 if timeout_ns < 0 else deadline - now)
                    error = errno
        if count >= 0:
            return count
        if error != EINTR:
            raise OSError(error, f"epoll_wait failed: {strerror(error)}")
        PyErr_CheckSignals()
        return 0

    cdef int fetch(self, int64_t timeout_ns) noexcept nogil:
        """One blocking system call; -1 with errno where it fails."""
        cdef int count
        if timeout_ns <= 0:
            return epoll_wait(self.epfd, self.events, EVENTS_PER_WAIT, 0 if timeout_ns == 0 else -1)
        if not self.coarse:
            count = tb_epoll_pwait2(self.epfd, self.events, EVENTS_PER_WAIT, timeout_ns)
            # EPERM: a container's filter that is older than the call.
            if count >= 0 or (errno != ENOSYS and errno != EPERM):
                return count
            self.coarse = True
        return epoll_wait(
            self.epfd, self.events, EVENTS_PER_WAIT, <int>((timeout_ns + MILLISECOND_NS - 1) // MILLISECOND_NS)
        )

    cdef int collect(self, int count, object into) except -1:
        """Append the handles that the `count` events of the last wait() call for to a deque or list."""
        cdef int place
        cdef uint64_t key
        cdef Watch watch
        for place in range(count):
            key = self.events[place].data.u64
            watch = self.watches.get(<int><uint32_t>key)
            # Another generation: a file that was closed unremoved and lives on in a duplicate, while its number is
            # in use again. It is not for those who watch the number now.
            if watch is None or watch.generation != <uint32_t>(key >> 32):
                continue
            # An error or a hangup concerns both, as the one who reads or writes learns of it by trying.
            if self.events[place].events & ~<uint32_t>EPOLLOUT and watch.reader is not None:
                self.take(watch, EPOLLIN, watch.reader, into)
            if self.events[place].events & ~<uint32_t>EPOLLIN and watch.writer is not None:
                self.take(watch, EPOLLOUT, watch.writer, into)
        return 0

    cdef inline int take(self, Watch watch, uint32_t event, object handle, object into) except -1:
        if handle._cancelled:  # by its owner, who did not remove it
            self.unwatch(watch.fd, event)
        else:
            into.append(handle)
        return 0

    def get_key(self, file):
        """What is registered for a descriptor, as selectors.SelectorKey with (reader, writer) as its data; KeyError."""
        cdef int fd = PyObject_AsFileDescriptor(file)
        cdef Watch watch = self.watches.get(fd)
        if watch is None:
            raise KeyError(f"{file!r} is not registered")
        events = (EVENT_READ if watch.reader is not None else 0) | (EVENT_WRITE if watch.writer is not None else 0)
        return SelectorKey(file, fd, events, (watch.reader, watch.writer))

    def select(self, timeout=None):
        """The handles that are ready, after at most `timeout` seconds (None: for ever). For debug mode."""
        cdef list handles = []
        self.collect(self.wait(-1 if timeout is None else timeout_ns_of(timeout)), handles)
        return handles


cdef inline int64_t timeout_ns_of(double seconds) noexcept nogil:
    """Rounded up: to wait a little too short would cost an iteration that finds nothing."""
    if seconds <= 0:
        return 0
    if seconds * 1e9 >= <double>WAIT_MAX_NS:
        return WAIT_MAX_NS
    return <int64_t>ceil(seconds * 1e9)


cdef class IterationHook:
    """Work for the end of each iteration, without a Python call: derive from it in Cython and override run()."""

    cdef int run(self) except -1:
        """Positive: there is more to do, so run again after looking at the descriptors, without waiting. Else 0."""
        return 0


cdef class CallableHook(IterationHook):
    cdef object callback

    cdef int run(self) except -1:
        return 1 if self.callback() else 0


cdef class LoopCore:
    """What EpollLoop does instead of asyncio's own code."""

    # These are BaseEventLoop's attributes, which it assigns and reads by name: being declared here they are found
    # before the instance's dict, so both sides share one value and ours reads it at the speed of C.
    cdef public object _ready  # deque of handles
    cdef public list _scheduled  # heap of TimerHandles
    cdef public Py_ssize_t _timer_cancelled_count
    cdef public bint _stopping, _closed, _debug

    cdef Poller poller
    cdef IterationHook hook
    cdef int64_t woke_ns
    cdef readonly uint64_t iterations

    def __cinit__(self):
        self._closed = True  # until BaseEventLoop.__init__ has run there is nothing that would need closing
        self.poller = Poller.__new__(Poller)

    @property
    def spin(self):
        """Seconds to poll busily before blocking: 0 none, < 0 never block. Takes a whole core while it lasts."""
        return self.poller.spin_ns / 1e9

    @spin.setter
    def spin(self, double seconds):
        self.poller.spin_ns = -1 if seconds < 0 else timeout_ns_of(seconds)

    def set_iteration_hook(self, hook):
        """Have `hook` run at the end of each iteration, after all that was ready has been called; None: no longer.

        An IterationHook, or a callable without arguments that returns true when it has more to do and wants to run
        again without the loop waiting first. Its exceptions go to the loop's exception handler; it stays in place.
        """
        cdef CallableHook wrapped
        if hook is None or isinstance(hook, IterationHook):
            self.hook = hook
        elif callable(hook):
            wrapped = CallableHook.__new__(CallableHook)
            wrapped.callback = hook
            self.hook = wrapped
        else:
            raise TypeError(f"the iteration hook is {hook!r}: pass an IterationHook, a callable or None")
        self.poller.urgent = False

    def time(self):
        """Seconds on the monotonic clock, as asyncio counts them."""
        return seconds_now()

    def call_soon(self, callback, *args, context=None):
        """As asyncio's: call `callback` in the next iteration, in the order of the calls."""
        if self._debug or self._closed:
            return super().call_soon(callback, *args, context=context)
        cdef Handle handle = new_handle(self, callback, args, context)
        self._ready.append(handle)
        return handle

    # add_reader and its three siblings are asyncio's: they check for transports and come here.
    def _add_reader(self, file, callback, *args):
        return self.add_watch(file, EPOLLIN, callback, args)

    def _add_writer(self, file, callback, *args):
        return self.add_watch(file, EPOLLOUT, callback, args)

    def _remove_reader(self, file):
        return not self._closed and self.poller.unwatch(PyObject_AsFileDescriptor(file), EPOLLIN)

    def _remove_writer(self, file):
        return not self._closed and self.poller.unwatch(PyObject_AsFileDescriptor(file), EPOLLOUT)

    cdef object add_watch(self, object file, uint32_t event, object callback, tuple args):
        cdef object handle
        if self._closed:
            self._check_closed()
        if self._debug:
            handle = asyncio_events.Handle(callback, args, self, None)
        else:
            handle = new_handle(self, callback, args, None)
        self.poller.watch(PyObject_AsFileDescriptor(file), event, handle)
        return handle

    def _process_events(self, handles):
        self._ready.extend(handles)

    def _run_once(self):
        cdef int count
        self.iterations += 1
        self.woke_ns = 0
        if self._debug:
            super()._run_once()
        else:
            self.drop_cancelled_timers()
            count = self.poller.wait(self.timeout_ns())
            self.woke_ns = monotonic_ns()
            self.poller.collect(count, self._ready)
            self.queue_due_timers()
            self.run_ready()
        if self.hook is not None:
            self.run_hook()

    cdef int drop_cancelled_timers(self) except -1:
        cdef Py_ssize_t count = len(self._scheduled)
        if count > CANCELLED_TIMERS_MIN and self._timer_cancelled_count * 2 > count:
            kept = []
            for timer in self._scheduled:
                if timer._cancelled:
                    timer._scheduled = False
                else:
                    kept.append(timer)
            heapq.heapify(kept)
            self._scheduled = kept
            self._timer_cancelled_count = 0
        while self._scheduled and self._scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(self._scheduled)._scheduled = False
        return 0

    cdef int64_t timeout_ns(self) except? -1:
        if self._stopping or len(self._ready):
            return 0
        if self._scheduled:
            return timeout_ns_of(<double>self._scheduled[0]._when - seconds_now())
        return -1

    cdef int queue_due_timers(self) except -1:
        """Timers never run early, not by the clock's resolution either (asyncio allows that much)."""
        if not self._scheduled:
            return 0
        cdef double now = <double>self.woke_ns / 1e9
        while self._scheduled and <double>self._scheduled[0]._when <= now:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            self._ready.append(timer)
        return 0

    cdef int run_ready(self) except -1:
        cdef Py_ssize_t left = len(self._ready)
        cdef object ready = self._ready
        cdef object handle
        while left > 0:
            left -= 1
            handle = ready.popleft()
            if type(handle) is Handle:
                (<Handle>handle).run()
            elif not handle._cancelled:  # asyncio's: a timer, or from another thread
                handle._run()
        return 0

    cdef int run_hook(self) except -1:
        self.poller.urgent = False
        self.hook.woke_ns = self.woke_ns
        try:
            self.poller.urgent = self.hook.run() > 0
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.call_exception_handler({"message": "Exception in the iteration hook", "exception": exc})
        return 0


class EpollLoop(LoopCore, asyncio.SelectorEventLoop):
    """An asyncio event loop on epoll, with an iteration hook, timers finer than a millisecond and busy polling.

    Use it as any asyncio loop: `asyncio.Runner(loop_factory=new_event_loop)`. The kernel's timer slack (50 µs unless
    changed) still delays a timer; spinning does not know it.
    """

    def __init__(self):
        super().__init__(poller_of(self))


def new_event_loop():
    """A new EpollLoop, for asyncio.Runner's loop_factory."""
    return EpollLoop()


cdef Poller poller_of(LoopCore core):
    return core.poller
