"""ScaleMixer in a real browser: scales kept or drawn anew, and the mixture that is shown."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import PALETTE, ScaleMixer, colour_map
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    press_keys,
    python,
    set_theme,
    stored_widget,
    wait_for_python,
)

CELL = list(GALLERY).index("mixer") + 1
NAMES = ["fine", "middle", "coarse"]
SIDE, DRAWS = 8, 4

# The colours [r, g, b, a] in the middle of each of `rows` x `columns` equal parts of a canvas.
COLOURS = """(canvas, [rows, columns]) => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const at = (i, n, size) => Math.floor((i + 0.5) * size / n);
  return Array.from({ length: rows * columns }, (_, i) => {
    const [y, x] = [at(Math.floor(i / columns), rows, height), at(i % columns, columns, width)];
    const place = 4 * (y * width + x);
    return [...data.subarray(place, place + 4)];
  });
}"""

# How long the page's own frames are, in ms, while everything is switched and drawn.
SWITCH = """async widget => {
  const switches = [...widget.querySelectorAll("[role=switch]")];
  const images = [...widget.querySelectorAll(".mixer-images button")];
  const draws = [...widget.querySelectorAll(".mixer-draws button")];
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 60; k++) {
    switches[k % switches.length].click();
    images[k % images.length].click();
    draws[k % draws.length].click();
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  return took.sort((a, b) => a - b);
}"""


@pytest.fixture(scope="module")
def twin() -> ScaleMixer:
    """The gallery's widget, in Python alone."""
    return in_python("mixer")


@pytest.fixture(params=["live", "stored"])
def mixer(request: pytest.FixtureRequest, live: Page, trusted: Page, twin: ScaleMixer) -> Locator:
    """The widget with its first image as it is; the next draw is the first."""
    twin.image, twin.draw, twin.resampled = 0, 0, [False] * 3
    if request.param == "live":
        python(live, "mixer.image, mixer.draw, mixer.resampled = 0, 0, [False] * 3")
        widget = live_widget(live, CELL)
    else:
        widget = stored_widget(trusted, CELL)
        button(widget, "Image 1").click()
        for k, switch in enumerate(switches(widget)):
            switch.set_checked(k == 0)
        button(widget, "Draw 1").click()
        switches(widget)[0].set_checked(False)
    expect(heading(widget)).to_have_text("the original itself")
    expect(button(widget, "Image 1")).to_have_attribute("aria-pressed", "true")
    return widget


def button(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("button", name=name, exact=True)


def switches(widget: Locator) -> list[Locator]:
    """What draws each of the scales anew."""
    return [
        widget.get_by_role("switch", name=f"Draw {name} anew", exact=True) for name in NAMES
    ]  # fmt: skip


def heading(widget: Locator) -> Locator:
    return widget.locator(".mixer-result .mixer-head")


def status(widget: Locator) -> Locator:
    return widget.get_by_role("status")


def which(widget: Locator) -> Locator:
    return widget.locator(".cw-row .mixer-fine")


def levels(canvas: Locator) -> np.ndarray:
    """The grey levels of an image, [SIDE, SIDE]."""
    canvas.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    colours = np.array(canvas.evaluate(COLOURS, [SIDE, SIDE])).reshape(SIDE, SIDE, 4)
    assert (colours == colours[..., :1] * [1, 1, 1, 0] + [0, 0, 0, 255]).all()  # grey, opaque
    return colours[..., 0]


def check(widget: Locator, twin: ScaleMixer) -> None:
    """The widget shows what its twin says: the result large, and all draws small."""
    large = widget.locator(".mixer-result .cw-stage canvas")
    np.testing.assert_array_equal(levels(large), np.rint(255 * twin.shown))
    shown = twin.draw
    for r, small in enumerate(widget.locator(".mixer-draws canvas").all()):
        twin.draw = r
        np.testing.assert_array_equal(levels(small), np.rint(255 * twin.shown))
    twin.draw = shown
    original = widget.locator(".mixer-original > canvas")
    np.testing.assert_array_equal(levels(original), twin.array("images")[twin.image])


def test_every_mixture_is_the_one_that_its_switches_say(mixer: Locator, twin: ScaleMixer) -> None:
    check(mixer, twin)
    expect(status(mixer)).to_contain_text("Nothing is drawn anew")
    button(mixer, "Image 3").click()
    twin.image = 2
    # From one to the next one switch is turned, and no setting comes twice.
    for k, turned in enumerate([0, 1, 0, 2, 0, 1, 0]):
        switches(mixer)[turned].click()
        twin.resampled = [on != (s == turned) for s, on in enumerate(twin.resampled)]
        if k == 1:
            button(mixer, "Draw 3").click()
            twin.draw = 2
        for name, switch, box, on in zip(
            NAMES,
            switches(mixer),
            mixer.locator(".mixer-latents").all(),
            twin.resampled,
            strict=True,
        ):
            expect(switch).to_have_attribute("aria-checked", str(on).lower())
            expect(box.get_by_text("drawn anew")).to_be_visible(visible=on)
            expect(box.locator("canvas")).to_be_visible(visible=not on)
            side = "anew" if on else "Kept"
            if not all(twin.resampled):
                expect(status(mixer)).to_contain_text(f"{side}: ")
                kept, _, anew = status(mixer).inner_text().partition("Drawn anew")
                assert name in (anew if on else kept)
        expect(heading(mixer)).to_have_text("a sample" if all(twin.resampled) else "a mixture")
        check(mixer, twin)
        if all(twin.resampled):
            expect(status(mixer)).to_contain_text("nothing of the original is left")
    assert twin.resampled == [False, False, True]


def test_draws_are_gone_through_and_chosen(mixer: Locator, twin: ScaleMixer) -> None:
    again = button(mixer, "Draw again")
    expect(which(mixer)).to_have_text("")
    for name in ("Draw again", *(f"Draw {r + 1}" for r in range(DRAWS))):
        expect(button(mixer, name)).to_be_disabled()
        button(mixer, name).click(force=True)
        expect(button(mixer, name)).not_to_have_attribute("aria-pressed", "true")
    expect(which(mixer)).to_have_text("")
    check(mixer, twin)
    mixer.locator(".mixer-latents").nth(1).click()  # the picture is a switch, too
    expect(switches(mixer)[1]).to_have_attribute("aria-checked", "true")
    twin.resampled = [False, True, False]
    expect(which(mixer)).to_have_text("1 of 4")  # what was clicked in vain has changed nothing
    for draw in (1, 2, 3, 0, 1):
        again.click()
        twin.draw = draw
        expect(which(mixer)).to_have_text(f"{draw + 1} of 4")
        expect(button(mixer, f"Draw {draw + 1}")).to_have_attribute("aria-pressed", "true")
        assert mixer.locator(".mixer-draws [aria-pressed=true]").count() == 1
        check(mixer, twin)
    button(mixer, "Draw 4").click()
    twin.draw = 3
    expect(which(mixer)).to_have_text("4 of 4")
    check(mixer, twin)


def test_keys_do_all_of_it(mixer: Locator, twin: ScaleMixer) -> None:
    page = mixer.page
    mixer.focus()
    # The notebook would make headings of its cell, step to another and scroll.
    page.evaluate(
        """() => {
          window.keysForJupyter = 0;
          window.countKeys = () => window.keysForJupyter++;
          document.addEventListener("keydown", window.countKeys, true);
        }"""
    )
    mixer.press("1")
    mixer.press("3")
    mixer.press("7")  # no such scale
    twin.resampled = [True, False, True]
    expect(status(mixer)).to_have_text("Kept: middle. Drawn anew: fine and coarse.")
    for key, image in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowRight", 0), ("ArrowLeft", 2)):
        mixer.press(key)
        expect(button(mixer, f"Image {image + 1}")).to_have_attribute("aria-pressed", "true")
    twin.image = 2
    for key, draw in (("d", 1), ("D", 2), (" ", 3), (" ", 0), ("d", 1)):
        mixer.press(key)
        expect(which(mixer)).to_have_text(f"{draw + 1} of 4")
    twin.draw = 1
    check(mixer, twin)
    assert page.evaluate("window.keysForJupyter") == 0
    page.evaluate("document.removeEventListener('keydown', window.countKeys, true)")
    # On a button, space and Enter press it; the keys work there, too, even where it rests.
    switch = switches(mixer)[1]
    switch.focus()
    switch.press(" ")
    expect(heading(mixer)).to_have_text("a sample")
    switch.press("Enter")
    expect(heading(mixer)).to_have_text("a mixture")
    again = button(mixer, "Draw again")
    again.press("Enter")
    expect(which(mixer)).to_have_text("3 of 4")
    for key in "13":
        page.keyboard.press(key)
    expect(heading(mixer)).to_have_text("the original itself")
    expect(again).to_be_focused()
    page.keyboard.press("d")  # nothing to draw
    page.keyboard.press("2")
    expect(which(mixer)).to_have_text("3 of 4")


def test_latents_have_the_colours_of_their_values(mixer: Locator, twin: ScaleMixer) -> None:
    def check_colours(image: int) -> None:
        # Both channels of the first scale stand side by side, the third scale has but one.
        fine, coarse = (twin.array(f"latents {s}")[image] for s in (0, 2))
        canvases = mixer.locator(".mixer-latents canvas")
        for values, canvas in ((np.hstack(list(fine)), 0), (coarse[0], 2)):
            rows, columns = values.shape
            colours = canvases.nth(canvas).evaluate(COLOURS, [rows, columns])
            seen = np.array(colours)[:, :3].reshape(rows, columns, 3)
            wanted = colour_map("signed")(0.5 + values / twin.limit / 2)[..., :3]
            np.testing.assert_allclose(seen, 255 * wanted, atol=5)

    check_colours(0)
    button(mixer, "Image 2").click()
    expect(button(mixer, "Image 2")).to_have_attribute("aria-pressed", "true")
    check_colours(1)
    assert (
        f"{-twin.limit:.1f}".replace("-", "\u2212") in mixer.locator(".mixer-scales").inner_text()
    )


def test_everything_is_reached_by_tab_and_seen(mixer: Locator) -> None:
    mixer.focus()
    names, look = [], "() => getComputedStyle(document.activeElement).outlineStyle"
    name = """() => {
      const node = document.activeElement;
      return node.getAttribute("aria-label") || node.textContent.trim();
    }"""
    for _ in range(3 + 3 + 1 + DRAWS):
        mixer.page.keyboard.press("Tab")
        assert mixer.evaluate(look) == "solid"
        names.append(mixer.evaluate(name))
    images, draws = ([f"{what} {k}" for k in range(1, 5)] for what in ("Image", "Draw"))
    assert names == [*images[:3], *(f"Draw {n} anew" for n in NAMES), "Draw again", *draws]


def test_nothing_moves_until_asked(mixer: Locator) -> None:
    picture = "widget => [...widget.querySelectorAll('canvas')].map((c) => c.toDataURL()).join()"
    levels(mixer.locator("canvas").first)
    before = mixer.evaluate(picture)
    mixer.page.wait_for_timeout(300)
    assert mixer.evaluate(picture) == before
    assert mixer.evaluate("widget => widget.getAnimations({ subtree: true }).length") == 0


def test_python_drives_it_and_reads_it_back(live: Page, twin: ScaleMixer) -> None:
    widget = live_widget(live, CELL)
    for image, draw, resampled in ((1, 3, [False, True, True]), (2, 0, [True] * 3)):
        twin.image, twin.draw, twin.resampled = image, draw, resampled
        setting = f"{image}, {draw}, {resampled}"
        assert python(live, f"mixer.image, mixer.draw, mixer.resampled = {setting}") == ""
        expect(button(widget, f"Image {image + 1}")).to_have_attribute("aria-pressed", "true")
        expect(which(widget)).to_have_text(f"{draw + 1} of 4")
        for switch, on in zip(switches(widget), resampled, strict=True):
            expect(switch).to_have_attribute("aria-checked", str(on).lower())
        check(widget, twin)
    # Faster than the kernel answers: nothing is pulled back.
    press_keys(widget, ["1", "ArrowLeft", "d", "3", "d", "1", "d", "2", "1"])
    told = "import json; print(json.dumps([mixer.image, mixer.draw, mixer.resampled]))"
    wait_for_python(live, told, json.dumps([1, 3, [False] * 3]))
    expect(heading(widget)).to_have_text("the original itself")
    switches(widget)[2].click()
    wait_for_python(live, told, json.dumps([1, 3, [False, False, True]]))
    twin.image, twin.draw, twin.resampled = 1, 3, [False, False, True]
    shown = json.loads(python(live, "print((255 * mixer.shown).round().tolist())"))
    np.testing.assert_array_equal(levels(widget.locator(".mixer-result .cw-stage canvas")), shown)
    refused = python(live, "mixer.image = 3")
    assert refused == "ValueError: image must be an integer from 0 to 2, got 3"
    check(widget, twin)


def test_it_follows_the_theme(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "mixer.resampled = [True, False, False]")
    ink = "node => getComputedStyle(node).color"
    ground = "node => getComputedStyle(node).backgroundColor"
    expect(heading(widget)).to_have_text("a mixture")
    label = widget.locator(".mixer-anew").first
    assert (label.evaluate(ink), label.evaluate(ground)) == (
        "rgb(31, 35, 40)",
        "rgb(251, 252, 253)",
    )
    set_theme(live, "Dark")
    assert (label.evaluate(ink), label.evaluate(ground)) == (
        "rgb(232, 234, 237)",
        "rgb(25, 27, 30)",
    )
    set_theme(live, "Light")
    assert label.evaluate(ink) == "rgb(31, 35, 40)"


# ---------------------------------------------------------------------------------- in a plain page


def large(**options: object) -> ScaleMixer:
    """As much as a chapter shows: eight images of 28 x 28 pixels, three scales, six draws."""
    rng = np.random.default_rng(0)
    latents = [rng.normal(size=(8, *shape)) for shape in [(2, 14, 14), (4, 7, 7), (8, 7, 7)]]
    return ScaleMixer(rng.random((8, 28, 28)), latents, rng.random((8, 7, 6, 28, 28)), **options)


def test_the_frames_tell_original_and_mixture(show: Callable[..., Locator]) -> None:
    widget = show(large(), style="background: #111")
    frame = "canvas => getComputedStyle(canvas).boxShadow"
    result = widget.locator(".mixer-result .cw-stage canvas")
    blue, orange = ([int(PALETTE[n][k : k + 2], 16) for k in (1, 3, 5)] for n in ("data", "model"))
    assert result.evaluate(frame).startswith(f"rgb({', '.join(map(str, blue))})")
    widget.press("2")
    expect(heading(widget)).to_have_text("a mixture")
    assert result.evaluate(frame).startswith(f"rgb({', '.join(map(str, orange))})")
    assert widget.evaluate("root => getComputedStyle(root).color") == "rgb(232, 234, 237)"


def test_it_fits_any_width_and_switching_is_smooth(show: Callable[..., Locator]) -> None:
    names = ["the fine one, which left first", "middle", "coarse"]
    widget = show(large(names=names, title="Mix"), width=760)
    assert computing_time(widget, SWITCH) < 15  # about 4 ms
    parts = "canvas, button, button span, p, .mixer-head, .mixer-name, .mixer-latents"
    assert cut_off(widget, (300, 344, 500, 618, 624, 660, 744), parts) == []
