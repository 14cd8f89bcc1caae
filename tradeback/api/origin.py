"""Who is asking, as far as the connection tells: the page's origin, and the client's address behind proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from falcon import Request

from tradeback.config import CorsConfig

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAX_HOPS = 20


def origin_allowed(config: CorsConfig, origin: str, request: Request) -> bool:
    """Whether pages of this origin may read answers: those of the host that was called, and those configured."""
    return "*" in config.allowed_origins or _named_or_ours(config, origin, request)


def may_act_for_user(config: CorsConfig, origin: str, request: Request) -> bool:
    """Whether a cookie counts in a request from a page of this origin: where `*` stands for the others, theirs does
    not, nor where `allow_credentials` is off."""
    if config.allow_credentials:
        return _named_or_ours(config, origin, request)
    return _ours(origin, request)


def _named_or_ours(config: CorsConfig, origin: str, request: Request) -> bool:
    return origin in config.allowed_origins or _ours(origin, request)


def _ours(origin: str, request: Request) -> bool:
    try:
        parts = urlsplit(origin)
        return parts.scheme in {"http", "https"} and parts.hostname == request.host.lower()
    except ValueError:
        return False


def client_address(request: Request, trusted: Sequence[Network]) -> str:
    """The address of the client: that of the connection, or where this is one of `trusted`, the last one in
    X-Forwarded-For that is none of them, for whatever stands before it anybody may have written."""
    address: str = request.env.get("REMOTE_ADDR", "")
    if not trusted:
        return address
    forwarded = (request.get_header("X-Forwarded-For") or "").split(",")[-MAX_HOPS:]
    while forwarded and trusts(trusted, address):
        told = _parsed(forwarded.pop().strip())
        if told is None:
            break
        address = str(told)
    return address


def trusts(trusted: Sequence[Network], address: str) -> bool:
    """Whether this is the address of one of the proxies."""
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in trusted)


def _parsed(text: str) -> Address | None:
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
