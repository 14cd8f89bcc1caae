"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings. They are no part of the product: without them the test is skipped."""
    folder = Path(os.environ.get("TRADEBACK_RECORDINGS", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}: set TRADEBACK_RECORDINGS to the folder that holds them")
    return folder
