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
axe = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed")

from tests.made_pages import (  # noqa: E402
    CHROMIUM,
    FAMILIES,
    PAGES,
    quickstart_pages,
    report_pages,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

SIZES = {"desktop": {"width": 1280, "height": 860}, "phone": {"width": 390, "height": 780}}
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RULES = {
    "light": {"type": "tag", "values": TAGS},
    "dark": {
        "type": "rule",
        "values": ["color-contrast", "link-in-text-block"],
    },  # all that differs
}
OURS = re.compile(r"http://127\.0\.0\.1:\d+/|file:|data:|blob:|about:")

# Faults that an eye sees at once, each as a line of text.
# The page answers a new width, with the cues of its tables, once it is drawn.
LAID_OUT = "() => new Promise(go => requestAnimationFrame(() => requestAnimationFrame(() => go())))"

FAULTS = """() => {
  const found = [], seen = (one) => one.checkVisibility({visibilityProperty: true});
  const name = (one) => `${one.tagName}.${one.getAttribute("class") || one.id}: `
    + `${(one.textContent || "").trim().slice(0, 60)}`;
  const root = document.documentElement, ground = getComputedStyle(document.body).backgroundColor;
  const channels = (text) => text.match(/[0-9.]+/g).map(Number).slice(0, 3);
  const light = (colour) => colour.map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (colour, behind, opacity) => {
    const [front, back] = [channels(colour), channels(behind)];
    const mixed = front.map((v, i) => opacity * v + (1 - opacity) * back[i]);
    const [one, two] = [light(mixed), light(back)];
    return (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  };
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
    for (const cloud of plot.querySelectorAll(".cloud")) {
      const {stroke, opacity, strokeWidth} = getComputedStyle(cloud);
      const ratio = contrast(stroke, ground, Number(opacity));
      if (ratio < 3) found.push(`${title}: its dots are pale, ${ratio.toFixed(2)}`);
      if (parseFloat(strokeWidth) < 4) found.push(`${title}: its dots are ${strokeWidth} wide`);
    }
    for (const axis of ["x", "y"]) {
      const ticks = plot.querySelectorAll(`.tick[data-axis="${axis}"]`).length;
      if (ticks < 2) found.push(`${title}: ${ticks} ticks on ${axis}`);
      if (!plot.querySelector(`.name[data-axis="${axis}"]`)?.textContent.trim())
        found.push(`${title}: ${axis} has no name`);
    }
  }
  for (const section of document.querySelectorAll("main section")) {
    const scale = section.querySelectorAll(".colour-scale .heat").length;
    if (section.querySelector("td.heat") && scale < 3) found.push(`${section.id}: no colour scale`);
  }
  for (const region of document.querySelectorAll(".scroll")) {
    const cue = region.querySelector(":scope > .scroll-cue");
    const wide = region.scrollWidth > region.clientWidth;
    if (seen(region) && cue && wide !== (seen(cue) && cue.clientHeight > 0))
      found.push(`${region.ariaLabel}: wide is ${wide}, and its cue says otherwise`);
  }
  const small = "button, .button, select, textarea, input[type=text], .choices label, .tick,"
    + " .choice";
  for (const one of document.querySelectorAll(`body:not(:has(#theme)) :is(${small})`)) {
    const {height} = one.getBoundingClientRect();  // a finger's breadth on what is filled in
    if (seen(one) && height < 43.5) found.push(`${height} px high: ${name(one)}`);
  }
  return found;
}"""

VIOLATIONS = """async ([script, rules]) => {
  if (!window.axe) (0, eval)(script);
  const found = await axe.run({runOnly: rules, resultTypes: ["violations"]});
  return found.violations.map((one) => [one.id, one.nodes.length,
    ...one.nodes.slice(0, 4).map((node) => `${node.html.slice(0, 120)}: ${node.failureSummary}`)]);
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
    tab.evaluate(LAID_OUT)
    shots = os.environ.get("PAL_SCREENSHOTS")
    if shots:
        target = Path(shots) / f"{name}-{size}-{scheme}.png".replace(" ", "_").replace(",", "")
        tab.screenshot(path=target, full_page=True)
    assert tab.evaluate(FAULTS) == []
    assert tab.evaluate(VIOLATIONS, [axe.AXE_SCRIPT, RULES[scheme]]) == []


HEADS = """() => [...document.querySelectorAll("th[scope=col]")].map((one) => {
  const copy = one.cloneNode(true);
  for (const more of copy.querySelectorAll(".unit, .arrow, .hidden, .key")) more.remove();
  return copy.textContent.trim();
})"""


def test_a_label_is_spelled_alike_on_every_page(tabs):
    """One word for one thing: "p, Holm" is nowhere "p (Holm)", and "System" nowhere "system"."""
    spelled: dict[str, set[str]] = {}
    for name in FAMILIES[report_pages] + FAMILIES[quickstart_pages]:
        for head in (text.rstrip(" ↑↓") for text in tabs(name).evaluate(HEADS)):
            spelled.setdefault(" ".join(re.findall(r"\w+", head.lower())), set()).add(head)
    assert {"p holm", "n", "strategy", "difference"} <= set(spelled)
    assert {name: found for name, found in spelled.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("markup", "fault"),
    [
        ("<p style='width: 2000px'>x</p>", "the page is 2008 px wide"),
        ("<p style='width: 50px; overflow: hidden; white-space: nowrap'>many words</p>",
         "cut at the side: P"),
        ("<p style='height: 9px; overflow: clip'>many words</p>", "cut below: P"),
        ("<ul style='width: 50px; overflow: auto'><li style='width: 90px'>x</li></ul>",
         "scrolls sideways: UL"),
        ("<figure style='width: 99px'><svg class=plot><title>T</title><text x=90 y=20>words"
         "</text></svg></figure>", "T: leaves its frame: words"),
        ("<svg class=plot><title>T</title><text x=9 y=20>one</text><text x=9 y=22>two</text></svg>",
         "T: one lies on two"),
        ("<svg class=plot><title>T</title><text class=tick data-axis=x x=9 y=20>1</text></svg>",
         "T: 1 ticks on x"),
        ("<svg class=plot><title>T</title></svg>", "T: y has no name"),
        ("<svg class=plot><title>T</title><path class=cloud d='M9 9h0' style='stroke: #999;"
         "opacity: .8; stroke-width: 9px'/></svg>", "T: its dots are pale"),
        ("<svg class=plot><title>T</title><path class=cloud d='M9 9h0' style='stroke: #000;"
         "stroke-width: 2px'/></svg>", "T: its dots are 2px wide"),
        ("<section id=s><table><td class=heat>1</td></table></section>", "s: no colour scale"),
        ("<div class=scroll style='width: 50px; overflow: auto' aria-label=L><p class=scroll-cue "
         "hidden>x</p><p style='width: 90px'>x</p></div>", "L: wide is true"),
        ("<button style='height: 20px'>x</button>", "20 px high: BUTTON"),
    ],
)  # fmt: skip
def test_each_fault_would_be_found(tabs, markup, fault):
    tab = tabs("study, unknown").context.new_page()
    tab.set_content(f"<!doctype html><body style='background: #fff'><main>{markup}</main>")
    found = tab.evaluate(FAULTS)
    tab.close()
    assert any(one.startswith(fault) for one in found), found
