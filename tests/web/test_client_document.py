"""docs/client-js.md: its page works as it stands in a browser, and so does the datafeed from another origin."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.browser.conftest import HOW_TO_GET, PATIENCE_MS, SWITCHES, needs
from tests.conftest import CHECKOUT
from tests.e2e.api import all_running
from tests.e2e.running import trade_and_drain
from tradeback.api.page import DIST

DOCUMENT = (CHECKOUT / "docs" / "client-js.md").read_text()
WITH_DATAFEED = """async api => {
  const { Datafeed } = await import(`${api}/datafeed.js`);
  const datafeed = new Datafeed(`${api}/api/v1`);
  const config = await new Promise((resolve) => datafeed.onReady(resolve));
  const info = await new Promise((resolve, reject) => datafeed.resolveSymbol("BTCUSDT", resolve, reject));
  const period = { from: 0, to: 9999999999, countBack: 2, firstDataRequest: true };
  const bars = await new Promise((resolve, reject) => datafeed.getBars(info, "1", period, resolve, reject));
  const live = await new Promise((resolve) => datafeed.subscribeBars(info, "1", resolve, "guid", () => {}));
  datafeed.close();
  return [config.supported_resolutions, bars.at(-1).time, live.time];
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: pytest has its own."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over HTTP, from another port than everything else."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_page_of_the_document_ticks(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    needs(chromium is not None, f"no chromium here: {HOW_TO_GET}")
    needs((DIST / "client.js").exists(), "the page was not built: run `make build`")
    html = re.search(r"^```html\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert html is not None
    pages = tmp_path / "pages"
    pages.mkdir()
    expect.set_options(timeout=PATIENCE_MS)
    with all_running(tmp_path) as running, served(pages) as address, sync_playwright() as playwright:
        text = html[1].replace("127.0.0.1:8080", f"127.0.0.1:{running.api.port}")
        text = text.replace("127.0.0.1:8081", f"127.0.0.1:{running.server.ws_port}")
        (pages / "index.html").write_text(text)
        browser = playwright.chromium.launch(executable_path=chromium, args=list(SWITCHES))
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        expect(page.locator("tr")).to_have_count(2)
        assert {cell.split("\t")[0] for cell in page.locator("tr").all_inner_texts()} == {
            "BTCUSDT",
            "ETHUSDT",
        }
        assert page.locator("#state").inner_text().startswith("connected to ws://")
        before = page.locator("tr").all_inner_texts()
        trade_and_drain(running.sim.rest_endpoint, 500)
        expect(page.locator("tr")).not_to_contain_text(before)
        resolutions, newest, live = page.evaluate(WITH_DATAFEED, f"http://127.0.0.1:{running.api.port}")
        assert resolutions == ["1", "5", "15", "60", "240", "1D"]
        assert live >= newest
        browser.close()
    assert faults == []
