"""The laws of widgets, each held by every widget of the gallery, in a plain page without a kernel.

How a widget is stored, trusted and reopened is in ``test_every_widget.py``, its colours in
JupyterLab in ``test_themes.py``. What only one widget must do is in that widget's own file.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from playwright.sync_api import Locator, Page

from tests.browser.conftest import widget_of
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import TWO_FRAMES, cut_off

NARROWEST = 320
LOW = (1000, 514)
PAINTED = {"contour", "inpaint", "swap"}  # a finger on their canvas draws
# Below a certain width their parts stand one below the other: higher.
LAYERS = {"beta", "masks", "reparam"}
LIGHT, DARK = "rgb(31, 35, 40)", "rgb(232, 234, 237)"


@pytest.fixture(scope="module", params=GALLERY)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def opened(
    name: str,
    plain_page: Callable[..., AbstractContextManager[Page]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Locator, list[float]]]:
    """The stored form in a page of its own, which all laws use one after another; and how wide and
    high its picture was at first, in a low window.
    """
    html = f"<body style='background: white'>{in_python(name).static_html()}"
    with plain_page(html, tmp_path_factory.mktemp("law") / "page.html", *LOW) as page:
        shown = widget_of(page)
        first = picture_size(shown)
        resize(shown, 800, 1000)
        yield shown, first


@pytest.fixture(scope="module")
def widget(opened: tuple[Locator, list[float]]) -> Locator:
    return opened[0]


def picture_size(widget: Locator) -> list[float]:
    box = widget.locator(".cw-stage > canvas").bounding_box()
    return [box["width"], box["height"]]


def resize(widget: Locator, width: int, height: int) -> None:
    widget.page.set_viewport_size({"width": width, "height": height})
    for _ in range(3):
        widget.evaluate(TWO_FRAMES)


def test_nothing_sticks_out_of_a_narrow_page(widget: Locator) -> None:
    # What scrolls in a box of its own may stick out of that.
    scrolls = """root => [...root.querySelectorAll("*")].filter(
      (node) => /auto|scroll/.test(getComputedStyle(node).overflowY)).forEach(
      (node) => node.classList.add("test-scrolls"))"""
    widget.evaluate(scrolls)
    parts = ":is(canvas, button, p, output, input):not(.test-scrolls *, .cw-spoken)"
    assert cut_off(widget, (NARROWEST, 360, 480, 620, 784), parts) == []
    widget.evaluate("root => { root.ownerDocument.body.style.width = ''; }")


def test_no_words_in_the_picture_are_cut_off(widget: Locator) -> None:
    cut = widget.evaluate(
        """async (root, widths) => {
          const [body, found] = [root.ownerDocument.body, new Set()];
          const canvas = root.querySelector(".cw-stage > canvas");
          const pen = CanvasRenderingContext2D.prototype;
          const write = pen.fillText;
          pen.fillText = function (text, x, y, most = Infinity) {
            write.call(this, text, x, y, ...(most < Infinity ? [most] : []));
            const size = this.measureText(text);
            const share = Math.min(1, most / size.width);
            const ends = [
              [x - share * size.actualBoundingBoxLeft, y - size.actualBoundingBoxAscent],
              [x + share * size.actualBoundingBoxRight, y + size.actualBoundingBoxDescent]
            ].map((end) => this.getTransform().transformPoint(new DOMPoint(...end)));
            const within = ({ x, y }) =>
              x >= -0.5 && x <= canvas.width + 0.5 && y >= -0.5 && y <= canvas.height + 0.5;
            if (this.canvas === canvas && !ends.every(within)) {
              found.add(`${text} at ${body.style.width}`);
            }
          };
          for (const width of widths) {
            body.style.width = `${width}px`;
            for (let k = 0; k < 4; k++) await new Promise(requestAnimationFrame);
          }
          pen.fillText = write;
          body.style.width = "";
          return [...found];
        }""",
        [NARROWEST, 360, 480, 620, 784],
    )
    assert cut == []


@pytest.mark.parametrize("size", [(1000, 514), (1366, 600), (820, 700)])
def test_picture_and_controls_fit_the_window(
    widget: Locator, name: str, size: tuple[int, int]
) -> None:
    """Or the picture is as small as it may be: what is below it can be scrolled to."""
    resize(widget, *size)
    before = widget.locator(".cw-stage > canvas").bounding_box()["width"]
    needed = widget.evaluate(
        """root => {
          const controls = root.querySelector(".cw-controls:not(.cw-row)") || root;
          return controls.getBoundingClientRect().bottom - root.getBoundingClientRect().top;
        }"""
    )
    resize(widget, 800, 1000)
    largest = widget.locator(".cw-stage > canvas").bounding_box()["width"]
    smallest = max(300, 0.6 * largest) / 0.96 + 1  # it shrinks by steps of 4 %
    assert needed <= size[1] or before <= smallest or name in LAYERS


def test_a_picture_is_as_large_as_at_first_once_the_window_is(
    opened: tuple[Locator, list[float]],
) -> None:
    widget, first = opened
    resize(widget, 420, 900)
    resize(widget, *LOW)
    assert picture_size(widget) == first
    resize(widget, 800, 1000)


def test_the_page_decides_between_light_and_dark(widget: Locator) -> None:
    page: Page = widget.page
    ink = "root => getComputedStyle(root).color"

    def looks(script: str) -> str:
        page.evaluate(script)
        widget.evaluate(TWO_FRAMES)
        return widget.evaluate(ink)

    assert widget.evaluate(ink) == LIGHT
    code = (
        "document.body.style.background = 'transparent'; document.body.dataset.vscodeThemeKind = "
    )
    assert looks(f"() => {{ {code} 'vscode-dark'; }}") == DARK
    assert looks(f"() => {{ {code} 'vscode-high-contrast-light'; }}") == LIGHT
    assert looks(f"() => {{ {code} 'vscode-high-contrast'; }}") == DARK
    # A page without a ground of its own: what it writes with decides.
    turn = "delete document.body.dataset.vscodeThemeKind; document.body.className = 'turned'; "
    assert looks(f"() => {{ {turn} document.body.style.color = '#eee'; }}") == DARK
    back = "document.body.className = ''; document.body.style.background = 'white';"
    assert looks(f"() => {{ {back} }}") == LIGHT


def test_no_plain_key_leaves_the_widget(widget: Locator) -> None:
    """JupyterLab listens on the document: x would cut the cell, d d delete it."""
    heard = widget.evaluate(
        """root => {
          const heard = [];
          const listen = (event) => heard.push(event.key);
          document.addEventListener("keydown", listen, true);
          const nodes = [root, ...root.querySelectorAll("button, input, select, [tabindex]")];
          for (const node of nodes) {
            for (const init of [
              { key: "x" }, { key: "d" }, { key: "0" }, { key: "M", shiftKey: true },
              { key: "ArrowUp" }, { key: "Tab" }, { key: "Escape" },
              { key: "Enter", shiftKey: true }, { key: "s", ctrlKey: true }
            ]) {
              const options = { bubbles: true, cancelable: true, ...init };
              node.dispatchEvent(new KeyboardEvent("keydown", options));
            }
          }
          document.removeEventListener("keydown", listen, true);
          return [nodes.length, heard];
        }"""
    )
    count, keys = heard
    assert keys == ["Tab", "Escape", "Enter", "s"] * count


def test_all_that_takes_the_focus_has_a_name_and_can_be_hit(widget: Locator) -> None:
    faults = widget.evaluate(
        """root => [...root.querySelectorAll("button, input, select, [tabindex], [role=slider]")]
          .filter((node) => node.checkVisibility({ visibilityProperty: true }))
          .filter((node) => {
            const label = node.getAttribute("aria-label") || node.labels?.length;
            const { width, height } = node.getBoundingClientRect();
            return !(label || node.textContent.trim()) || width < 24 || height < 24;
          }).map((node) => node.outerHTML.slice(0, 100))"""
    )
    assert faults == []


def test_a_swipe_over_the_picture_scrolls_the_page(widget: Locator, name: str) -> None:
    touch = "canvas => getComputedStyle(canvas).touchAction"
    found = widget.locator(".cw-stage > canvas").evaluate(touch)
    assert found == ("none" if name in PAINTED else "pan-y")


def test_paper_takes_the_still_picture(widget: Locator) -> None:
    page = widget.page
    picture, frame = page.locator("img"), page.locator("iframe")
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    assert picture.is_visible()
    assert not frame.is_visible()
    page.evaluate("() => window.dispatchEvent(new Event('afterprint'))")
    assert not picture.is_visible()
    assert frame.is_visible()


def test_a_zoom_makes_the_picture_sharp(widget: Locator) -> None:
    session = widget.page.context.new_cdp_session(widget.page)
    ratio = """async canvas => {
      for (let k = 0; k < 4; k++) await new Promise(requestAnimationFrame);
      return canvas.width / canvas.clientWidth;
    }"""
    # As a browser does it: half as many pixels of the page, each twice as large.
    for scale, width in ((1, 1800), (2, 900), (1, 1800)):
        size = {"width": width, "height": 1800 // scale, "mobile": False}
        session.send("Emulation.setDeviceMetricsOverride", size | {"deviceScaleFactor": scale})
        found = widget.locator(".cw-stage > canvas").evaluate(ratio)
        assert found == pytest.approx(scale, abs=0.05)
    session.send("Emulation.clearDeviceMetricsOverride")
    session.detach()
