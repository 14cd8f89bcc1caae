"""picows is cimported: compiled against one version and run with another, it would read wrong memory."""

from __future__ import annotations

import tomllib
from importlib.metadata import version

from tests.conftest import CHECKOUT


def test_picows_is_pinned_once_for_building_and_running() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    build = [line for line in project["build-system"]["requires"] if line.startswith("picows")]
    run = [line for line in project["project"]["dependencies"] if line.startswith("picows")]
    assert build == run == [f"picows=={version('picows')}"]
