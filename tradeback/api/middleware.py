"""What happens to every request and answer: ids, limits of bodies, security headers, CORS, and its measurement."""

from __future__ import annotations

import random
import re
import secrets
import time

from falcon import Request

from tradeback.api.answers import UDF_PREFIXES, Answer, Refused
from tradeback.api.origin import origin_allowed
from tradeback.api.requests import Requests
from tradeback.config import CorsConfig
from tradeback.log.asking import begin_request, end_request

MAX_BODY_BYTES = 64 * 1024
PREFLIGHT_AGE_S = 600
_HOST = re.compile(r"([A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


class Measured:
    """Gives each request an id and counts it by its route, never by its path: paths are without number."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        # Ids need not be secret, only different: in every process, and without a system call for each.
        self._bits = random.Random(secrets.randbits(128)).getrandbits

    def process_request(self, request: Request, response: Answer) -> None:
        context = request.context
        context.began = time.perf_counter()
        context.id = f"{self._bits(64):016x}"
        response.tell({"x-request-id": context.id})
        begin_request(context.id)

    def process_response(self, request: Request, response: Answer, resource: object, succeeded: bool) -> None:
        context = request.context
        if not hasattr(context, "began"):
            self.process_request(request, response)  # Falcon refuses some methods before it asks anybody
        self._requests.count(
            request.uri_template or "none",
            request.method,
            response.status,
            time.perf_counter() - context.began,
        )
        end_request()


class Bounded:
    """No body longer than MAX_BODY_BYTES or of a length that is not told, and no host that is none (RFC 9112, 3.2)."""

    def __init__(self) -> None:
        self._host = "localhost"  # the last one that was looked at and found to be one

    def process_request(self, request: Request, response: Answer) -> None:
        given = request.env
        host = given.get("HTTP_HOST")
        if host != self._host:
            self._check_host(host, given["SERVER_PROTOCOL"])
        if "HTTP_TRANSFER_ENCODING" in given:
            raise Refused(
                411,
                "length_required",
                "Send a body with its Content-Length.",
                headers={"Connection": "close"},
            )
        if "CONTENT_LENGTH" in given and (request.content_length or 0) > MAX_BODY_BYTES:
            raise Refused(
                413,
                "too_large",
                f"A body may have {MAX_BODY_BYTES} bytes, not {request.content_length}.",
                headers={"Connection": "close"},
            )

    def _check_host(self, host: str | None, protocol: str) -> None:
        if host is None:
            good = protocol == "HTTP/1.0"
        elif good := _HOST.fullmatch(host) is not None:
            self._host = host
        if not good:
            raise Refused(400, "bad_request", "The header Host must name this server, as host or host:port.")


class Cors:
    """Tells browsers which pages of other origins may read answers, as `server.cors` says; TradingView's feed: all."""

    def __init__(self, config: CorsConfig) -> None:
        self._config = config
        self._methods = ", ".join(config.allowed_methods)
        self._headers = ", ".join(config.allowed_headers)
        self._exposed = ", ".join(config.expose_headers)

    def process_request(self, request: Request, response: Answer) -> None:
        origin = request.env.get("HTTP_ORIGIN")
        if origin is None:
            return
        if request.path.startswith(UDF_PREFIXES):
            # For every page that has a chart: no cookie counts there.
            response.set_header("Access-Control-Allow-Origin", "*")
            return
        if not origin_allowed(self._config, origin, request):
            return
        response.set_header("Access-Control-Allow-Origin", "*" if self._for_all else origin)
        if self._config.allow_credentials:
            response.set_header("Access-Control-Allow-Credentials", "true")
        if self._exposed:
            response.set_header("Access-Control-Expose-Headers", self._exposed)

    def answer_preflight(self, request: Request, response: Answer) -> None:
        """What a browser asks by OPTIONS before it sends what is not simple."""
        if request.get_header("Access-Control-Request-Method") and response.get_header(
            "Access-Control-Allow-Origin"
        ):
            response.set_header("Access-Control-Allow-Methods", self._methods)
            response.set_header("Access-Control-Allow-Headers", self._headers)
            response.set_header("Access-Control-Max-Age", str(PREFLIGHT_AGE_S))

    @property
    def _for_all(self) -> bool:
        return "*" in self._config.allowed_origins
