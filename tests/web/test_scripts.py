"""The scripts that pages use: what Node's own tests say, and tables that stand in Python as well."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.conftest import CHECKOUT
from tests.web.node import PATIENCE_S, node_command, run_tests
from tradeback.errors import CLOSE_REASONS

SOURCES = CHECKOUT / "tradeback" / "web" / "src"


@pytest.mark.parametrize(
    "file",
    ["decoding.test.mjs", "client.test.mjs", "lifetimes.test.mjs", "datafeed.test.mjs", "livebars.test.mjs"],
)
def test_in_node(file: str) -> None:
    run_tests(file)


def test_close_codes_are_those_of_the_server() -> None:
    script = f"import {{ CLOSE_CODES }} from {json.dumps((SOURCES / 'client.js').as_uri())};"
    script += "console.log(JSON.stringify(CLOSE_CODES))"
    done = subprocess.run(
        [*node_command(), "--input-type=module", "--eval", script],
        capture_output=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert json.loads(done.stdout) == {
        str(int(code)): {
            "when": reason.when,
            "reconnect": reason.reconnect,
            "waitMs": None if reason.wait_s is None else [1000 * second for second in reason.wait_s],
        }
        for code, reason in CLOSE_REASONS.items()
    }
