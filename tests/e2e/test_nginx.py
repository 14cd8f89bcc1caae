"""One origin: nginx with the configuration of deploy/nginx before a real API and a real event server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.conftest import CHECKOUT, private
from tests.e2e.accounts import Accounts, cookie_of
from tests.e2e.api import ApiProcess, ask
from tests.e2e.hubs import Closed, RawClient, request, run
from tests.e2e.logins import cookie
from tests.e2e.running import SimProcess
from tests.e2e.test_sessions import Running, first_price
from tests.servers.nginx import NginxServer
from tests.servers.server import free_port

PAGE = b'<meta name="websocket-port" content="">'


@dataclass(frozen=True)
class Origin:
    """nginx, and what stands behind it."""

    nginx: NginxServer
    up: Running
    accounts: Accounts

    @property
    def port(self) -> int:
        return self.nginx.port

    def token(self, name: str) -> str:
        """That of a login of a new user."""
        return self.up.logins.login(self.up.logins.user(name))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    with ExitStack() as stack:
        sim = stack.enter_context(SimProcess("--symbols", "5", "--rate", "300"))
        up = stack.enter_context(Running(tmp_path_factory.mktemp("origin"), sim, EXCHANGE_SYMBOLS="BTCUSDT"))
        # On the port that clients name too, as in the compose file: it is nginx that they reach there.
        api = stack.enter_context(
            ApiProcess(
                up.folder,
                LIMIT_MONITORING="5/hour",
                SERVER_TRUSTED_PROXIES="127.0.0.1",
                SESSION_COOKIE_SECURE="false",
            )
        )
        nginx = private(NginxServer, tmp_path_factory.mktemp("nginx"), api.port, up.server.ws_port)
        yield Origin(stack.enter_context(nginx), up, Accounts(api, up.logins.accounts, up.folder))


def from_address(
    port: int, address: str, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes]:
    """A request that comes from another address of loopback; status and whole answer."""
    told = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in headers.items())
    with socket.create_connection(("127.0.0.1", port), 30, source_address=(address, 0)) as connection:
        head = f"{method} {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{told}\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split()[1]), answer


def test_the_page_finds_the_websocket_where_it_came_from(origin: Origin) -> None:
    for host in ("shop.example", f"127.0.0.1:{origin.accounts.api.port}"):
        page = ask(origin.port, "/", Host=host)
        assert page.status == 200
        assert PAGE in page.body or b"The page was not built" in page.body
        assert "connect-src 'self';" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "nginx/" not in page.headers["server"]


def test_rest_with_its_headers(origin: Origin) -> None:
    listed = ask(origin.port, "/api/v1/symbols")
    assert listed.status == 200
    assert listed.headers["x-total-count"] == str(len(listed.json))
    again = ask(origin.port, "/api/v1/symbols", If_None_Match=listed.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert ask(origin.port, "/api/v1/symbols/NOSUCH").json["error"]["code"] == "unknown_symbol"


def test_from_the_login_to_a_price_with_the_cookie(origin: Origin) -> None:
    name = origin.accounts.user("alice")
    body = json.dumps({"username": name, "password": "correct horse"}).encode()
    answer = ask(
        origin.port,
        "/api/v1/auth/login",
        "POST",
        body,
        Content_Type="application/json",
        Origin="http://shop.example",
        Host="shop.example",
    )
    assert answer.status == 200, answer
    token, attributes = cookie_of(answer)
    assert {"HttpOnly", "SameSite=Lax"} <= attributes
    session = ask(origin.port, "/api/v1/auth/session", Cookie=f"session_token={token}")
    assert session.json["user"]["username"] == name

    async def scenario() -> None:
        headers = {**cookie(token), "Host": "shop.example", "Origin": "http://shop.example"}
        client = await RawClient.connect(origin.port, headers=headers)
        client.send({"type": "subscribe", "symbols": ["BTCUSDT"]})
        await first_price(client, origin.up.ids["BTCUSDT"])
        client.writer.close()

    run(scenario())


def test_what_the_event_server_refuses_it_says_itself(origin: Origin) -> None:
    async def refusal(status: bytes, headers: dict[str, str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", origin.port)
        writer.write(request(headers={**headers, "Connection": "close, Upgrade"}))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        assert head.startswith(b"HTTP/1.1 " + status), head
        writer.close()

    run(refusal(b"401", {}))
    run(refusal(b"403", {**cookie(origin.token("bob")), "Origin": "https://evil.example"}))


def test_a_client_is_the_address_that_nginx_sees_and_nothing_that_it_says(origin: Origin) -> None:
    path = "/api/v1/health/ready"
    told = [
        from_address(
            origin.port, "127.0.0.7", path, X_Forwarded_For=f"10.0.0.{number}", Forwarded="for=10.9.9.9"
        )[0]
        for number in range(6)
    ]
    assert told == [200] * 5 + [429]
    assert from_address(origin.port, "127.0.0.8", path)[0] == 200
    assert '127.0.0.7 "GET /api/v1/health/ready" 429' in origin.nginx.accessed()


def test_what_is_too_large_ends_before_the_api(origin: Origin) -> None:
    large = ask(origin.port, "/api/v1/auth/login", "POST", b"x" * 65_537, Content_Type="application/json")
    assert large.status == 413
    assert large.json["error"] == {"code": "too_large", "message": "A body may have 65536 bytes."}
    assert large.headers["content-type"] == "application/json"
    status, answer = from_address(origin.port, "127.0.0.9", "/", X_Long="x" * 40_000)
    assert status == 400, answer
    assert from_address(origin.port, "127.0.0.9", "/" + "x" * 9_000)[0] == 414


def test_the_query_is_not_logged(origin: Origin) -> None:
    # From an address of its own, and to the end of the connection: what was answered is logged a moment later.
    from_address(origin.port, "127.0.0.10", "/api/v1/symbols?search=hush")
    assert '127.0.0.10 "GET /api/v1/symbols"' in origin.nginx.accessed()
    assert "hush" not in origin.nginx.accessed()


def test_a_restart_of_the_server_is_503_and_then_over(origin: Origin) -> None:
    async def ended() -> None:
        client = await RawClient.connect(origin.port, headers=cookie(token))
        origin.up.server.kill()
        with pytest.raises(Closed):
            await endless(client)
        client.writer.close()

    async def endless(client: RawClient) -> None:
        while True:
            await client.frame()

    async def served() -> None:
        client = await RawClient.connect(origin.port, headers=cookie(token))
        client.send({"type": "subscribe", "symbols": ["BTCUSDT"]})
        await first_price(client, origin.up.ids["BTCUSDT"])
        client.writer.close()

    token = origin.token("carol")
    run(ended())
    gone = ask(origin.port, "/api/v1/ws")
    assert (gone.status, gone.json["error"]["code"]) == (503, "unavailable")
    assert gone.headers["retry-after"] == "5"
    assert ask(origin.port, "/api/v1/symbols").status == 200
    origin.up.restart_server()
    run(served())


def test_without_anything_behind_it(tmp_path: Path) -> None:
    with private(NginxServer, tmp_path, free_port(), free_port()) as nginx:
        for path in ("/", "/api/v1/symbols", "/api/v1/ws"):
            answer = ask(nginx.port, path)
            assert (answer.status, answer.json["error"]["code"]) == (503, "unavailable")


@pytest.mark.parametrize("server", ["plain", "tls"])
def test_the_health_check_of_the_container_tells_the_truth(
    origin: Origin, tmp_path: Path, server: str
) -> None:
    """As the compose file asks: plain HTTP from within, whatever clients are to use."""
    compose = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
    (url,) = [word for word in compose["services"]["nginx"]["healthcheck"]["test"] if "://" in word]
    address, path = url.removeprefix("http://").split("/", 1)
    assert address == "127.0.0.1:8080"
    with private(NginxServer, tmp_path / "up", origin.accounts.api.port, free_port(), server) as nginx:
        assert ask(nginx.port, f"/{path}").status == 200
    with private(NginxServer, tmp_path / "down", free_port(), free_port(), server) as nginx:
        assert ask(nginx.port, f"/{path}").status >= 500


def test_by_https(origin: Origin, tmp_path: Path) -> None:
    api, ws_port = origin.accounts.api, origin.up.server.ws_port
    with private(NginxServer, tmp_path, api.port, ws_port, "tls") as nginx:
        status, headers, body = nginx.https("/api/v1/symbols")
        assert status == 200
        assert json.loads(body)
        assert headers["strict-transport-security"] == "max-age=31536000"
        plain = ask(nginx.port, "/api/v1/symbols?search=eth", Host="shop.example")
        assert plain.status == 308
        assert plain.headers["location"] == "https://shop.example/api/v1/symbols?search=eth"
