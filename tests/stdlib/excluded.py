"""Which of CPython's asyncio cases are not run on EpollLoop, and why."""

from __future__ import annotations

import re

EXCLUDED = {
    # These classes hold the same cases, once for each selector; those of EPollEventLoopTests are run.
    r"\.(PollEventLoopTests|SelectEventLoopTests)\.": "for another selector",
    # They replace the socket module by mocks, whose fileno() is no number, and hand these to the loop.
    r"WithSelectorTests\.test_create_connection_(ip_addr|ipv6_scope|no_inet_pton|service_name)$": "mock sockets",
    r"WithSelectorTests\.test_create_(datagram_endpoint_ip_addr|server_soreuseport_only_defined)$": "mock sockets",
    # It asks that the class of the default loop be asyncio's very own.
    r"RunTests\.test_loop_factory_default_event_loop$": "asyncio's class",
}


def reason_to_exclude(case: str) -> str | None:
    """The reason why the case of this id is not run; None: it is."""
    return next((reason for pattern, reason in EXCLUDED.items() if re.search(pattern, case)), None)
