"""docs/protocol-vectors.json is what the code makes, and every decoder that we have, or show, agrees with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKOUT
from tests.documents.blocks import blocks
from tests.documents.vectors import document
from tests.reference.batch import decode_payload
from tests.web.node import run_tests
from tradeback._fast.batch import decode_frame
from tradeback.errors import ProtocolError

FILE = CHECKOUT / "docs" / "protocol-vectors.json"
GO_PAGE = "docs/client-other.md"


@pytest.fixture(scope="module")
def vectors() -> Any:
    return json.loads(FILE.read_text())


def test_the_file_is_what_the_code_makes(vectors: Any) -> None:
    assert vectors == json.loads(json.dumps(document()))


@pytest.mark.parametrize("decode", [decode_frame, decode_payload])
def test_our_decoders_agree(vectors: Any, decode: Any) -> None:
    for one in vectors["valid"]:
        assert [list(record) for record in decode(bytes.fromhex(one["payload"]))] == one["records"], one[
            "name"
        ]
    for one in vectors["invalid"]:
        with pytest.raises((ValueError, ProtocolError), match=r"\S"):
            decode(bytes.fromhex(one["payload"]))


def test_the_page_of_the_protocol_shows_some_of_them(vectors: Any) -> None:
    shown = re.findall(
        r"^ {4}([0-9a-f]{40,})$", (CHECKOUT / "docs" / "protocol.md").read_text(), re.MULTILINE
    )
    assert shown == [one["payload"] for one in vectors["valid"][:2]]


def test_the_client_of_browsers_agrees() -> None:
    run_tests("vectors.test.mjs")


def test_the_example_in_go_agrees(tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        if os.environ.get("CI"):
            pytest.fail("no Go here, which the example is tried with")
        pytest.skip("no Go here, which the example is tried with")
    (source,) = [body for info, body in blocks(GO_PAGE) if info == "go"]
    (tmp_path / "main.go").write_text(source)
    done = subprocess.run(
        [go, "run", "main.go", str(FILE)],
        cwd=tmp_path,
        env={**os.environ, "GO111MODULE": "off", "GOFLAGS": "-p=2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "all vectors agree\n"
