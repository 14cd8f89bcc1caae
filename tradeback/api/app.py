"""`create_app`: the whole table of routes, what every request goes through, and what becomes of failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import falcon
import structlog
from falcon import App, Request
from prometheus_client import CollectorRegistry

from tradeback.api.answers import NO_STORE, Answer, Refused, write_error
from tradeback.api.auth import AuthResource, SameSite, Sessions
from tradeback.api.bars import BarsResource, EnigmaResource
from tradeback.api.health import Components, HealthResource, WebSocketResource
from tradeback.api.limits import Counts, Limits, MemoryCounts
from tradeback.api.marketwatch import MarketWatchResource
from tradeback.api.metrics import MappedCounters, MetricsResource
from tradeback.api.middleware import Bounded, Cors, Measured
from tradeback.api.openapi.page import OpenApiResource
from tradeback.api.page import PageResource
from tradeback.api.requests import Requests
from tradeback.api.stores import Stores, Unavailable
from tradeback.api.symbols import PriceResource, SymbolBook, SymbolResource, SymbolsResource
from tradeback.api.udf import UdfResource
from tradeback.config import Config
from tradeback.log import count_problems
from tradeback.store.timing import tell_times

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")

log = structlog.get_logger(__name__)


def create_app(
    config: Config,
    stores: Stores,
    secret: bytes,
    counts: Counts | None = None,
    requests: Requests | None = None,
    ends: Callable[[], bool] = lambda: False,
) -> App[Request, Answer]:
    """The application; `secret` signs session tokens (`tokens.py`). What limits count is in `counts`, None: of this
    process; what metrics count, in `requests`, None: of this process too. Not ready any more once it `ends`. Its caller
    closes the stores.
    """
    registry = CollectorRegistry()
    requests = requests or Requests()
    requests.announced = lambda: _announced(stores)
    tell_times(requests.count_question)
    count_problems(requests.count_problem)
    book = SymbolBook(stores)
    features = config.features
    described = OpenApiResource()
    udf = UdfResource(book, stores, config)
    health = HealthResource(
        Components(book, stores), stores, config.exchange.mute_limit, requests.gauges, ends
    )
    sessions = Sessions(config, stores, secret)
    auth = AuthResource(sessions, stores, config)
    marketwatch = MarketWatchResource(sessions, book, stores)
    cors = Cors(config.server.cors)
    limits = Limits(config.limits, counts or MemoryCounts(), sessions.token_hash, sessions.address)
    # In this order. Who is asking is found out where it matters, by `Sessions`.
    middleware: list[Any] = [Measured(requests), cors, Bounded(), SameSite(config.server.cors), limits]
    app = App(middleware=middleware, independent_middleware=True, response_type=Answer)
    registry.register(requests)
    registry.register(MappedCounters(stores))
    app.set_error_serializer(write_error)
    app.add_error_handler(Exception, _answer_500)
    app.add_error_handler(Unavailable, _answer_503)
    app.add_error_handler(falcon.HTTPRouteNotFound, limits.count_unknown)
    routes: list[tuple[str, Any, str | None]] = [
        ("/api/v1/symbols", SymbolsResource(book), None),
        ("/api/v1/symbols/{symbol}", SymbolResource(book), None),
        ("/api/v1/symbols/{symbol}/price", PriceResource(book, stores), None),
        ("/api/v1/symbols/{symbol}/bars", BarsResource(book, stores, features), None),
        ("/api/v1/symbols/{symbol}/enigma", EnigmaResource(book, stores, features), None),
        *((f"/api/v1/auth/{name}", auth, name) for name in ("login", "logout", "session")),
        ("/api/v1/marketwatch", marketwatch, None),
        ("/api/v1/marketwatch/{symbol}", marketwatch, "symbol"),
        ("/api/v1/health", health, None),
        ("/api/v1/health/ready", health, "ready"),
        ("/api/v1/health/detailed", health, "detailed"),
        ("/api/v1/metrics", MetricsResource(registry), None),
        ("/api/v1/openapi.json", described, None),
        ("/api/v1/docs", described, "page"),
        ("/api/v1/ws", WebSocketResource(config.server.ws_port), None),
        *((f"/api/v1/tradingview/{name}", udf, name) for name in udf.routes),
        *((f"/udf/{name}", udf, name) for name in udf.routes),
        *PageResource(
            config.server.port, config.server.ws_port, trusted=config.server.trusted_proxies
        ).routes(),
    ]
    for path, resource, suffix in routes:
        ending = f"_{suffix}" if suffix else ""
        if get := getattr(resource, f"on_get{ending}", None):
            setattr(resource, f"on_head{ending}", get)  # whose body Falcon leaves out
        setattr(resource, f"on_options{ending}", _options(resource, ending, cors))
        app.add_route(path, resource, suffix=suffix)
    return app


def _announced(stores: Stores) -> Mapping[str, int]:
    """What is counted of changes of accounts that others are told of, once accounts are open."""
    accounts = stores.accounts.opened
    return {} if accounts is None else accounts.counts()


def _options(resource: Any, ending: str, cors: Cors) -> Callable[..., None]:
    """Answers OPTIONS. Falcon's own leaves OPTIONS itself out of Allow, and says nothing of caches."""
    methods = [name for name in METHODS if hasattr(resource, f"on_{name.lower()}{ending}")]
    allow = ", ".join((*methods, "OPTIONS"))

    def answer(request: Request, response: Answer, **_: str) -> None:
        response.set_header("Allow", allow)
        response.set_header("Content-Length", "0")
        response.set_header("Cache-Control", NO_STORE)
        cors.answer_preflight(request, response)

    return answer


def _answer_503(request: Request, response: Answer, error: Exception, _: dict[str, Any]) -> None:
    component = error.component if isinstance(error, Unavailable) else "store"
    log.warning("a component cannot be read", component=component, reason=str(error))
    raise Refused(
        503,
        "unavailable",
        f"The {component} cannot be read at the moment; the log of the API says why. Try again later.",
        component=component,
        headers={"Retry-After": "5"},
    )


def _answer_500(request: Request, response: Answer, error: Exception, _: dict[str, Any]) -> None:
    if isinstance(error, falcon.HTTPError | falcon.HTTPStatus):
        raise error
    log.error("a request failed", path=request.path, exc_info=error)
    raise Refused(
        500, "internal", f"This request failed, and should not have; the log has it as {request.context.id}."
    )
