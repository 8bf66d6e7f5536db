"""The audit's page in a real browser: it renders, fetches nothing, complains of nothing, and says what the record says.

Skipped where there is no Chromium; ``REQUIRE_CHROMIUM=1``, as continuous integration sets it, makes that an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Page, chromium, find_chromium

from unmerge.auditing import Audit, parse_gates
from unmerge.report.audit import page, sentence

pytestmark = pytest.mark.skipif(
    find_chromium() is None and "REQUIRE_CHROMIUM" not in os.environ,
    reason="no Chromium on the path: apt-get install chromium, or name its program in CHROMIUM",
)

#: the contrast of every element with text of its own against what is behind it, below 4.5 (WCAG 2.2, 1.4.3)
CONTRAST = """(() => {
  const channels = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, place) => sum + v * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = channels(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("body *:not(script):not(style):not(svg *)")) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.textContent.trim()).join("");
    if (!text || !element.getClientRects().length) continue;
    const [a, b] = [light(channels(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(`${text.slice(0, 30)}: ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return low;
})()"""


@pytest.fixture(scope="module")
def audit(audit_record: Audit) -> Audit:
    gates = parse_gates(["component=law", "licence-conflict"], audit_record.decomposition.dictionary)
    return audit_record.model_copy(update={"gates": [gate.check(audit_record) for gate in gates]})


@pytest.fixture(scope="module")
def file(audit: Audit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "index.html"
    file.write_text(page(audit))
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module", params=[(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], ids=lambda look: f"{look[0]}-{look[1]}")
def shown(request: pytest.FixtureRequest, browser: Page, file: Path) -> Page:
    width, scheme = request.param
    browser.requests.clear()
    browser.look(width, scheme=scheme)
    browser.open(file)
    return browser


def test_it_renders(shown: Page, audit: Audit, file: Path, tmp_path: Path) -> None:
    assert " ".join(shown.run("document.querySelector('h1').innerText").split()) == sentence(audit)
    text = shown.run("document.body.innerText")
    for component in audit.decomposition.components:
        assert component.name in text
        assert f"{component.coefficient:.4f}" in text
    assert shown.run("[...document.querySelectorAll('figure svg')].filter(svg => svg.getClientRects().length).length") == 8
    assert shown.requests == [file.as_uri()]
    assert shown.complaints == []
    shown.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_relatives_and_parts(width: int, scheme: str, browser: Page, family_record: Audit, tmp_path: Path) -> None:
    """Long names, a negative coefficient and a profile fit as well: no text over another, none cut off, all of it legible."""
    (tmp_path / "index.html").write_text(page(family_record))
    browser.look(width, scheme=scheme)
    browser.open(tmp_path / "index.html")
    assert " ".join(browser.run("document.querySelector('h1').innerText").split()) == sentence(family_record)
    sheet = "document.querySelector('#components').getBoundingClientRect().right"
    assert browser.run(f"document.querySelector('.components').getBoundingClientRect().right <= {sheet} + 1")
    assert browser.run("[...document.querySelectorAll('ul.findings .mark')].every(mark => mark.scrollWidth <= mark.clientWidth + 1)")
    labels = (
        "[...document.querySelectorAll('#limits svg')].filter(svg => svg.getClientRects().length).flatMap(svg => [...svg.querySelectorAll('text')])"
    )
    assert browser.run(f"{labels}.every(text => text.getBBox().x >= 0)")
    assert browser.run(CONTRAST) == []
    assert browser.complaints == []


def test_nothing_sticks_out(shown: Page) -> None:
    """What is wider than the window scrolls by itself; the page does not."""
    # not innerWidth, which on a telephone grows with what sticks out
    assert shown.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    elements = "[...document.querySelectorAll('body *:not(.scroll *):not(pre *):not(.skip)')]"
    beyond = "element.getBoundingClientRect().right > document.documentElement.clientWidth + 1"
    assert shown.run(f"{elements}.filter(element => {beyond}).map(element => element.outerHTML.slice(0, 80))") == []


def test_it_can_be_read(shown: Page) -> None:
    assert shown.run(CONTRAST) == []
    assert shown.run("[...document.querySelectorAll('svg')].filter(svg => !svg.getAttribute('aria-label')).length") == 0
    assert shown.run("[...document.querySelectorAll('h1, h2, h3')].map(h => h.tagName).join(' ')").startswith("H1 H2 H2 H2 H3 H2")
    assert shown.run("[...document.querySelectorAll('th:not([scope])')].length") == 0
    background = shown.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(252, 251, 248)" if shown.run("matchMedia('(prefers-color-scheme: light)').matches") else "rgb(21, 22, 25)")


def test_numbers_under_the_pointer_and_the_arrow_keys(shown: Page) -> None:
    tip = "document.querySelector('#tip:not([hidden])')?.textContent"
    shown.run("document.querySelector('#modules figure svg').scrollIntoView({behavior: 'instant', block: 'center'})")
    shown.rest()  # scrolling puts the box away
    shown.run("document.querySelector('#modules figure svg rect').dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))")
    assert shown.run(tip) == "model.layers.0.mlp.down_proj.weight: 0.80300"
    shown.press("Escape")
    assert shown.run(tip) is None
    shown.run("document.querySelector('#modules figure svg').focus({preventScroll: true})")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        shown.press(key)
    assert shown.run(tip) == "model.layers.1.mlp.up_proj.weight: 0.80600"
    box = shown.run("(({left, right, top}) => left >= 0 && right <= innerWidth && top >= 0)(document.querySelector('#tip').getBoundingClientRect())")
    assert box
    shown.press("Escape")
    assert shown.run(tip) is None


def test_print(shown: Page, tmp_path: Path) -> None:
    """In ink on white whatever the screen's scheme, with what is folded."""
    shown.run("dispatchEvent(new Event('beforeprint'))")
    assert shown.run("document.querySelectorAll('details:not([open]):not(.bulk)').length") == 0
    shown.run("dispatchEvent(new Event('afterprint'))")
    assert shown.run("document.querySelectorAll('details[open]').length") == 0
    shown.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert shown.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.run("getComputedStyle(document.body).color") == "rgb(29, 27, 24)"
    assert shown.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    shown.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    shown.call("Emulation.setEmulatedMedia", media="", features=[])


def test_it_notices(browser: Page, file: Path, tmp_path: Path) -> None:
    """What these tests look for is seen when it is there: a picture from elsewhere, a script of somebody else, an error."""
    html = file.read_text()
    bad = tmp_path / "bad.html"
    bad.write_text(html.replace("</main>", '<img src="https://example.org/x.png"><script>alert(1)</script></main>'))
    browser.open(bad)
    assert len(browser.complaints) >= 2
    assert all("Content Security Policy" in complaint for complaint in browser.complaints)
    browser.complaints.clear()
    browser.requests.clear()
    bad.write_text('<script>throw new Error("no")</script><img src="missing.png"><p style="color: #aaa">faint</p>')
    browser.open(bad)
    assert any("no" in complaint for complaint in browser.complaints)
    assert any(request.endswith("missing.png") for request in browser.requests)
    assert browser.run(CONTRAST) == ["faint: 2.32"]
    browser.complaints.clear()
