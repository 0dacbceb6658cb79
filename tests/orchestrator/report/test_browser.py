"""The report in a real browser: it loads without a console error and without a missing image."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from orchestrator.report.data import Utilities
from orchestrator.report.page.html import render

BROWSER = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
REQUIRED = os.environ.get("COUNTERFACTORY_BROWSER") == "required"
pytestmark = pytest.mark.skipif(
    BROWSER is None and not REQUIRED, reason="no Chromium on PATH (with COUNTERFACTORY_BROWSER=required this fails)"
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--v=0", "--dump-dom"),
)

WITNESS = """<script>
const seen = {errors: [], missing: [], images: 0, wide: 0, spilling: []};
const log = console.error;
console.error = (...words) => { seen.errors.push(words.join(" ")); log(...words); };
window.onerror = message => { seen.errors.push(String(message)); };
window.addEventListener("error", event => { if (event.target !== window) seen.errors.push("not loaded"); }, true);
window.addEventListener("load", () => {
  seen.images = document.images.length;
  seen.missing = [...document.images].filter(image => image.naturalWidth === 0).map(image => image.alt);
  seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const spills = box => box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX === "visible";
  const boxes = document.querySelectorAll("h1, h2, h3, h4, p, figcaption, blockquote");
  seen.spilling = [...boxes].filter(spills).map(box => box.textContent);
  document.documentElement.dataset.seen = JSON.stringify(seen);
});
</script>
"""


@pytest.fixture(scope="session", autouse=True)
def browser():
    """Fail before any report is drawn."""
    assert BROWSER is not None, "COUNTERFACTORY_BROWSER=required, and there is no Chromium on PATH"


def load(html: str, folder, width: int = 1200) -> dict:
    """Load the page with a witness put first in its head; return what the witness and the console saw."""
    assert BROWSER is not None
    page = folder / "page.html"
    page.write_text(html.replace("<head>", f"<head>{WITNESS}", 1), encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, f"the witness did not run: {done.stderr[-2000:]}"
    seen = json.loads(found.group(1).replace("&quot;", '"').replace("&amp;", "&"))
    # Chromium logs whatever reaches the console, of any severity: a page without a script has nothing to say there.
    seen["console"] = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return seen


@pytest.mark.parametrize("width", [1200, 500])
def test_it_loads_without_a_console_error_or_a_missing_image(html, tmp_path, width):
    seen = load(html, tmp_path, width)
    assert seen["errors"] == seen["console"] == []
    assert seen["missing"] == []
    assert seen["images"] > 20
    assert seen["wide"] <= 0, "nothing makes the page itself scroll sideways"


@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("words", [False, True])
def test_no_name_runs_into_what_is_beside_it(make, tmp_path, width, words):
    values = np.linspace(-1, 1, 60)
    names = ("memorization_on_probability", "m" * 60)
    utilities = tuple(Utilities(name, "probability", values, values - 0.1, values + 0.1) for name in names)
    shown = {"show": lambda source, index: "word " * 9} if words else {}
    seen = load(render(make(utilities=utilities, **shown)), tmp_path, width)
    assert seen["spilling"] == []
    assert seen["wide"] <= 0


def test_the_browser_would_have_seen_a_name_that_spills(html, tmp_path):
    changed = html.replace("<main>", '<main><h3 style="width:20px;overflow-wrap:normal">datamodel</h3>')
    assert load(changed, tmp_path)["spilling"] == ["datamodel"]


def test_the_browser_would_have_seen_a_page_too_wide(html, tmp_path):
    changed = html.replace("<main>", '<main><div style="width:3000px">-</div>')
    assert load(changed, tmp_path)["wide"] > 0


def test_the_browser_would_have_seen_a_broken_image_and_an_error(html, tmp_path):
    changed = html.replace("data:image/png;base64,iVBOR", "data:image/png;base64,AAAAA", 1)
    seen = load(changed.replace("<main>", "<main><script>nobody()</script>"), tmp_path)
    assert len(seen["missing"]) == 1
    assert any("nobody" in error for error in seen["errors"])
    assert any("nobody" in line for line in seen["console"])
    assert any("not loaded" in error for error in seen["errors"])
