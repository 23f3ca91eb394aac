"""Every page that the project makes, by eye's and machine's measures: widths, words, colours.

Each page is made once and looked at on a desktop and on a phone, in light and in dark. With
``PAL_SCREENSHOTS=FOLDER`` a picture of every look is kept there.
"""

import os
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

from tests.made_pages import CHROMIUM, FAMILIES, PAGES  # noqa: E402

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

SIZES = {"desktop": {"width": 1280, "height": 860}, "phone": {"width": 390, "height": 780}}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OURS = re.compile(r"http://127\.0\.0\.1:\d+/|file:|data:|blob:|about:")

# Faults that an eye sees at once, each as a line of text.
FAULTS = """() => {
  const found = [], seen = (one) => one.checkVisibility({visibilityProperty: true});
  const name = (one) => `${one.tagName}.${one.getAttribute("class") || one.id}: `
    + `${(one.textContent || "").trim().slice(0, 60)}`;
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) found.push(`the page is ${root.scrollWidth} px wide`);
  for (const one of document.querySelectorAll("body *")) {
    const style = getComputedStyle(one);
    if (one.closest("svg, .scroll-cue") || !seen(one) || style.clipPath !== "none") continue;
    if (["auto", "scroll"].includes(style.overflowX) && !one.matches(".scroll, textarea")
        && one.scrollWidth > one.clientWidth + 1) found.push(`scrolls sideways: ${name(one)}`);
    const cut = (way) => ["hidden", "clip"].includes(way);
    if (cut(style.overflowX) && one.scrollWidth > one.clientWidth + 1 && one.clientWidth)
      found.push(`cut at the side: ${name(one)}`);
    if (cut(style.overflowY) && one.scrollHeight > one.clientHeight + 1 && one.clientHeight)
      found.push(`cut below: ${name(one)}`);
  }
  for (const plot of document.querySelectorAll("svg.plot")) {
    if (!seen(plot)) continue;
    const title = plot.querySelector("title")?.textContent || "a plot without a title";
    const around = plot.closest("figure, .scroll") || document.body;
    const frame = around.getBoundingClientRect();
    const texts = [...plot.querySelectorAll("text")].filter((one) => one.textContent.trim());
    const boxes = texts.map((one) => [one, one.getBoundingClientRect()]);
    for (const [one, box] of boxes)
      if (box.left < frame.left - 1 || box.right > frame.right + 1)
        found.push(`${title}: leaves its frame: ${one.textContent}`);
    for (const [i, [one, a]] of boxes.entries())
      for (const [other, b] of boxes.slice(i + 1))
        if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
          found.push(`${title}: ${one.textContent} lies on ${other.textContent}`);
    for (const axis of ["x", "y"]) {
      const ticks = plot.querySelectorAll(`.tick[data-axis="${axis}"]`).length;
      if (ticks < 2) found.push(`${title}: ${ticks} ticks on ${axis}`);
      if (!plot.querySelector(`.name[data-axis="${axis}"]`)?.textContent.trim())
        found.push(`${title}: ${axis} has no name`);
    }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def tabs(tmp_path_factory):
    """Return the tab of a page by its name; pages are made once, when first asked for."""
    made, failed, kept = {}, [], ExitStack()
    with browsers.sync_playwright() as playwright, kept:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        context = browser.new_context(viewport=SIZES["desktop"], reduced_motion="reduce")
        context.set_default_timeout(30_000)
        context.on("request", lambda one: OURS.match(one.url) or failed.append(one.url))
        context.on("weberror", lambda one: failed.append(str(one.error)))
        context.on("console", lambda one: "Security Policy" in one.text and failed.append(one.text))

        def tab_of(name):
            family = PAGES[name]
            if name not in made:
                folder = tmp_path_factory.mktemp("pages")
                found = kept.enter_context(family(context.new_page, folder))
                assert list(found) == FAMILIES[family]
                made.update(found)
            return made[name]

        yield tab_of
    assert failed == [], "scripts failed, or something was loaded from elsewhere"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read(tabs, name, size, scheme):
    tab = tabs(name)
    tab.bring_to_front()
    tab.set_viewport_size(SIZES[size])
    tab.emulate_media(color_scheme=scheme)
    shots = os.environ.get("PAL_SCREENSHOTS")
    if shots:
        target = Path(shots) / f"{name}-{size}-{scheme}.png".replace(" ", "_").replace(",", "")
        tab.screenshot(path=target, full_page=True)
    assert tab.evaluate(FAULTS) == []
    found = axe.Axe().run(tab, options={"runOnly": RULES, "resultTypes": ["violations"]})
    assert [
        (one["id"], [node["html"][:120] for node in one["nodes"][:5]])
        for one in found.response["violations"]
    ] == []
