"""Who is asking: origins of pages, and addresses behind proxies."""

from __future__ import annotations

import ipaddress

import pytest
from falcon import Request
from falcon.testing import create_environ
from hypothesis import given
from hypothesis import strategies as st

from tradeback.api.origin import client_address, may_act_for_user, origin_allowed
from tradeback.config import CorsConfig, load_config

NAMED = CorsConfig(allowed_origins=("https://charts.example",))
ALL = CorsConfig(allowed_origins=("*",), allow_credentials=False)
NO_COOKIES = CorsConfig(allowed_origins=("https://charts.example",), allow_credentials=False)
TRUSTED = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32")))


def request(host: str = "market.example", peer: str = "127.0.0.1", **headers: str) -> Request:
    return Request(create_environ(host=host, port=8080, remote_addr=peer, headers=headers))


@pytest.mark.parametrize(
    ("origin", "reads", "acts"),
    [
        ("https://market.example", (True, True, True), (True, True, True)),
        ("http://market.example:5173", (True, True, True), (True, True, True)),
        ("http://MARKET.example", (True, True, True), (True, True, True)),
        ("https://charts.example", (True, True, True), (True, False, False)),
        ("https://charts.example:1", (False, True, False), (False, False, False)),
        ("http://charts.example", (False, True, False), (False, False, False)),
        ("https://market.example.evil.example", (False, True, False), (False, False, False)),
        ("https://evil.example/market.example", (False, True, False), (False, False, False)),
        ("https://market.example@evil.example", (False, True, False), (False, False, False)),
        ("file://market.example", (False, True, False), (False, False, False)),
        ("null", (False, True, False), (False, False, False)),
        ("*", (False, True, False), (False, False, False)),
        ("", (False, True, False), (False, False, False)),
        ("http://[", (False, True, False), (False, False, False)),
    ],
)
def test_which_pages_may_read_and_act(origin: str, reads: tuple[bool, ...], acts: tuple[bool, ...]) -> None:
    configs = (NAMED, ALL, NO_COOKIES)
    assert tuple(origin_allowed(config, origin, request()) for config in configs) == reads
    assert tuple(may_act_for_user(config, origin, request()) for config in configs) == acts


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n")))
def test_any_origin_at_all_is_judged(origin: str) -> None:
    for config in (NAMED, ALL, NO_COOKIES):
        if may_act_for_user(config, origin, request()):
            assert origin_allowed(config, origin, request())


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("198.51.100.1", "203.0.113.1", "198.51.100.1"),  # no proxy of ours
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "203.0.113.1", "203.0.113.1"),
        ("10.1.1.1", "8.8.8.8, 203.0.113.1", "203.0.113.1"),  # the client's own writing comes first
        ("10.1.1.1", "8.8.8.8, 203.0.113.1,192.0.2.7 , 10.2.2.2", "203.0.113.1"),
        ("10.1.1.1", "10.2.2.2, 10.3.3.3", "10.2.2.2"),
        ("10.1.1.1", "8.8.8.8, nonsense", "10.1.1.1"),
        ("10.1.1.1", "8.8.8.8, nonsense, 10.2.2.2", "10.2.2.2"),
        ("10.1.1.1", "8.8.8.8,", "10.1.1.1"),
        ("10.1.1.1", "203.0.113.1:4711", "10.1.1.1"),
        ("::ffff:10.1.1.1", "::ffff:203.0.113.1", "203.0.113.1"),
        ("2001:db8::1", "2a00::1", "2a00::1"),
        ("10.1.1.1", "x" * 5_000, "10.1.1.1"),
        ("10.1.1.1", ",".join(["203.0.113.1"] + ["10.2.2.2"] * 1_000), "10.2.2.2"),
    ],
)
def test_addresses_behind_proxies(peer: str, forwarded: str, address: str) -> None:
    assert client_address(request(peer=peer, **{"X-Forwarded-For": forwarded}), TRUSTED) == address
    assert client_address(request(peer=peer, **{"X-Forwarded-For": forwarded}), ()) == peer


@given(
    written=st.text(st.characters(max_codepoint=255, exclude_characters="\r\n")),
    client=st.ip_addresses().filter(lambda one: not any(one in network for network in TRUSTED)),
)
def test_whatever_a_client_writes_it_has_the_address_that_the_proxy_saw(
    written: str, client: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    mapped = getattr(client, "ipv4_mapped", None)
    asked = request(peer="10.1.1.1", **{"X-Forwarded-For": f"{written}, {client}"})
    if mapped is None or not any(mapped in network for network in TRUSTED):
        assert client_address(asked, TRUSTED) == str(mapped or client)


def test_proxies_come_from_the_configuration() -> None:
    config = load_config(environ={"SERVER_TRUSTED_PROXIES": "10.0.0.0/8,192.0.2.7,2001:db8::/32"})
    assert config.server.trusted_proxies == TRUSTED
    assert load_config(environ={}).server.trusted_proxies == ()
