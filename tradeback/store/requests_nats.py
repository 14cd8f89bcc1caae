"""Questions over NATS, on the subjects under `request`: the recorder answers them, whoever is on the bus asks.

Every recorder of an exchange answers in one queue group, so that each question is answered once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import orjson
import structlog
from nats.aio.msg import Msg

from tradeback.config import NatsConfig
from tradeback.errors import BusError
from tradeback.store.nats_connection import CONNECT_TIMEOUT, NatsConnection

SUBJECTS = ("request.symbol.*", "request.price.*", "request.health")
GROUP = "tradeback"
FLUSH_TIMEOUT = 1.0
CALL_TIMEOUT = CONNECT_TIMEOUT + FLUSH_TIMEOUT
LOOK_EVERY = 0.25  # seconds, whether the connection still stands
RETRY_MIN = 0.1
RETRY_MAX = 5.0
PENDING = 256  # questions of a subject that wait; the rest of a flood is not answered
PENDING_BYTES = 64 * 1024  # of what others put into them
ANSWER_TIMEOUT = 1.0

log = structlog.get_logger(__name__)

Answer = Callable[[str, str], bytes]


class NatsAnswers:
    """Answers for as long as it is open: `answer` gets the kind of a question and the symbol that it is about, in a
    thread of ours, one question at a time. Where NATS is away, it is connected anew, without end."""

    def __init__(self, config: NatsConfig, answer: Answer) -> None:
        self._nats = NatsConnection(config, "requests nats")
        self._answer = answer
        self._answering = ThreadPoolExecutor(1, "answers")
        self._closed = threading.Event()
        self._listening = False
        self._error = ""
        self._answered = 0
        self._errors = 0
        self._thread = threading.Thread(target=self._serve, name="answers nats", daemon=True)
        self._thread.start()

    def counts(self) -> dict[str, int]:
        """How many were answered, and how often nobody could ask."""
        return {"requests_answered": self._answered, "request_errors": self._errors}

    def state(self) -> dict[str, Any]:
        """For the status."""
        return {"listening": self._listening, "error": self._error}

    def close(self) -> None:
        """End it, in a second or two."""
        self._closed.set()
        self._nats.close()
        self._thread.join()
        self._answering.shutdown(wait=True, cancel_futures=True)

    def _serve(self) -> None:
        pause = RETRY_MIN
        while not self._closed.is_set():
            try:
                self._nats.call(self._subscribe, CALL_TIMEOUT)
                pause = RETRY_MIN
                self._listening, self._error = True, ""
                while not self._closed.wait(LOOK_EVERY):
                    if not self._nats.is_connected:
                        self._nats.call(self._nats.drop, CALL_TIMEOUT)
                        raise BusError(f"{self._nats.server} closed the connection: see that it runs")
            except BusError as error:
                self._listening = False
                if self._closed.is_set():
                    return
                self._errors += 1
                if not self._error:
                    log.warning("questions over the bus are not answered at the moment", reason=str(error))
                self._error = str(error)
                self._closed.wait(pause)
                pause = min(pause * 2, RETRY_MAX)

    # ---- in the thread of the connection's loop

    async def _subscribe(self) -> None:
        client = await self._nats.client()
        for subject in SUBJECTS:
            await client.subscribe(
                subject,
                GROUP,
                cb=self._asked,
                pending_msgs_limit=PENDING,
                pending_bytes_limit=PENDING_BYTES,
            )
        await self._nats.flush(FLUSH_TIMEOUT)

    async def _asked(self, question: Msg) -> None:
        if not question.reply:
            return
        _, kind, *rest = question.subject.split(".", 2)
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._answering, self._answer, kind, rest[0] if rest else "")
        await question.respond(answer)
        self._answered += 1


class NatsElsewhere:
    """The `Elsewhere` over NATS. Connects when it is first asked, and again after that failed."""

    def __init__(self, config: NatsConfig) -> None:
        self._nats: NatsConnection | None = None
        self._config = config
        self._making = threading.Lock()

    def health(self) -> dict[str, Any]:
        with self._making:
            if self._nats is None:
                self._nats = NatsConnection(self._config, "elsewhere nats")
            nats = self._nats
        answer = nats.call(partial(self._ask, nats, "request.health"), CONNECT_TIMEOUT + ANSWER_TIMEOUT)
        try:
            told = orjson.loads(answer)
        except ValueError as error:
            raise BusError(f"{nats.server} brought an answer to request.health that is no JSON") from error
        if not isinstance(told, dict):
            raise BusError(f"{nats.server} brought an answer to request.health that is no object")
        return told

    def close(self) -> None:
        with self._making:
            if self._nats is not None:
                self._nats.close()
                self._nats = None

    @staticmethod
    async def _ask(nats: NatsConnection, subject: str) -> bytes:
        client = await nats.client()
        return (await client.request(subject, timeout=ANSWER_TIMEOUT)).data
