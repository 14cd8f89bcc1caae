"""The documentation builds as a site, without a broken link, and asks no other host for anything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import CHECKOUT


def test_the_site_builds_and_stands_alone(tmp_path: Path) -> None:
    mkdocs = Path(sys.executable).with_name("mkdocs")
    command = [mkdocs, "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(CHECKOUT / "docs") for path in (CHECKOUT / "docs").rglob("*.md")}
    for page in pages:
        built = tmp_path / "site" / page.with_suffix("") / "index.html"
        if page.stem == "index":
            built = tmp_path / "site" / page.with_suffix(".html")
        html = built.read_text()
        fetched = re.findall(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=\"?(https?://[^\" >]+)", html)
        assert not fetched, (page, fetched)
