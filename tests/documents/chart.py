"""What a reader of the tutorial sees in the browser in the end."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser, expect


def see_the_chart(browser: Browser, address: str, name: str, password: str, screenshot: Path) -> None:
    """Log in at the page; AssertionError where no chart is drawn then. A picture of it is left."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(address)
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")
    expect(page.locator("#pill")).to_have_attribute("data-state", "connected")
    # The last bar's prices, and a canvas that is not of one colour.
    expect(page.locator("#legend")).to_contain_text(re.compile(r"O \d.*H \d.*L \d.*C \d", re.DOTALL))
    colours = page.evaluate(
        """() => {
            const seen = new Set();
            for (const canvas of document.querySelectorAll("#chart canvas")) {
                const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                for (let at = 0; at < data.length; at += 4)
                    seen.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);
            }
            return seen.size;
        }"""
    )
    assert colours > 3
    screenshot.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=screenshot)
    page.close()
