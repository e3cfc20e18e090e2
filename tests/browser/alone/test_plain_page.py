"""Stored widgets in a plain HTML page, as nbconvert writes it: no Jupyter around them."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from playwright.sync_api import Browser, Locator, expect

from course_lib import widgets
from tests.browser.harness import TWO_FRAMES, fingerprint, settle

PATH = np.random.default_rng(0).normal(size=(5, 100, 2)).cumsum(0)


def plain() -> widgets.ParticlePlayer:
    return widgets.ParticlePlayer(PATH, title="Plain")


def test_it_is_alive_and_its_picture_gone(show: Callable[..., Locator]) -> None:
    player = show(plain(), width=700)
    before = settle(player)
    player.focus()
    player.press("End")
    assert settle(player) != before
    expect(player.locator(".cw-readout")).to_have_text("4 / 4")
    assert player.page.locator("img").is_hidden()
    frame = player.page.locator("iframe").bounding_box()
    assert frame["height"] >= player.bounding_box()["height"] > 300


def test_on_paper_the_picture_stands_again(show: Callable[..., Locator]) -> None:
    player = show(plain(), width=700, picture=True)
    height = player.page.locator("iframe").bounding_box()["height"]
    words = player.page.locator("body").inner_text().strip()
    player.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert player.page.locator("img").is_visible()
    assert player.page.locator("iframe").is_hidden()
    assert player.page.locator("body").inner_text().strip() == words  # nobody is told to run a cell
    player.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert player.page.locator("img").is_hidden()
    assert player.page.locator("iframe").bounding_box()["height"] == height


def test_on_paper_code_is_whole(show: Callable[..., Locator]) -> None:
    code = "<div style='width: 600px'><pre style='white-space: pre'>"
    code += "a_name = a_function(an_argument, another_one)  # " * 3 + "</pre></div>"
    page = show(plain(), width=700, after=code).page
    cropped = "() => { const pre = document.querySelector('pre'); return pre.scrollWidth > 600; }"
    assert page.evaluate(cropped)
    page.emulate_media(media="print")
    assert not page.evaluate(cropped)


def test_the_page_background_decides_the_theme(show: Callable[..., Locator]) -> None:
    ink = "root => getComputedStyle(root).color"
    assert show(plain(), style="background: white").evaluate(ink) == "rgb(31, 35, 40)"
    assert show(plain(), style="background: #111").evaluate(ink) == "rgb(232, 234, 237)"


def test_a_figure_is_dark_on_a_dark_page_and_light_on_paper(browser: Browser) -> None:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], color="black")
    page = browser.new_page()
    page.set_content(widgets.show_figure(figure, alt="a line").data)

    def ground() -> np.ndarray:
        shot = Image.open(io.BytesIO(page.get_by_alt_text("a line").screenshot())).convert("RGB")
        assert shot.size == (300, 200)
        return np.asarray(shot)[3, 3]

    assert ground().tolist() == [255, 255, 255]
    for turn in ("dataset.jpThemeLight = 'false'", "className = 'vscode-dark'"):
        page.evaluate(f"() => {{ document.body.{turn}; }}")
        np.testing.assert_allclose(ground(), 17, atol=3)
        page.emulate_media(media="print")
        assert ground().tolist() == [255, 255, 255]
        page.emulate_media(media="screen")
        page.evaluate("() => { delete document.body.dataset.jpThemeLight; }")
    page.close()


def test_two_figures_of_the_same_text_stay_two_pictures_on_a_dark_page(browser: Browser) -> None:
    """A reader copies a cell and changes it: both say the same of what they show."""
    page = browser.new_page()
    shown = []
    for levels in ([0, 1], [1, 0]):
        figure = Figure(figsize=(1, 1))
        figure.add_axes((0, 0, 1, 1), frameon=False).imshow([levels], cmap="Greys", aspect="auto")
        shown.append(widgets.show_figure(figure, alt="a strip").data)
    page.set_content(f"<body data-jp-theme-light=false>{''.join(shown)}")
    first, second = (
        np.asarray(Image.open(io.BytesIO(one.screenshot())).convert("L"))
        for one in page.get_by_alt_text("a strip").all()
    )
    assert first[50, 25] > 200 > first[50, 75]
    assert second[50, 25] < 200 < second[50, 75]
    page.close()


def test_reduced_motion_moves_in_whole_steps(show: Callable[..., Locator]) -> None:
    player = show(plain(), reduced_motion="reduce")
    player.get_by_role("button", name="Play").click()
    seen = set()
    for _ in range(20):
        seen.add(player.locator(".cw-readout").inner_text())
        player.page.wait_for_timeout(100)
    assert seen <= {f"{k} / 4" for k in range(5)}
    assert len(seen) >= 2


def test_repeat_starts_over_and_speed_doubles(show: Callable[..., Locator]) -> None:
    player = show(plain(), width=700)
    player.get_by_role("button", name="Speed").click()
    expect(player.locator(".cw-speed")).to_have_text("2×")
    player.get_by_role("button", name="Repeat").click()
    player.focus()
    player.press("End")
    player.press("ArrowLeft")
    player.press(" ")
    player.page.wait_for_timeout(1200)  # past the end at two steps a second
    expect(player.get_by_role("button", name="Pause")).to_be_visible()
    assert float(player.locator(".cw-readout").inner_text().split(" / ")[0]) < 3


def test_a_sharp_screen_gets_more_pixels(show: Callable[..., Locator]) -> None:
    player = show(plain(), device_scale_factor=2)
    width = player.locator("canvas").evaluate("c => c.width / c.clientWidth")
    assert width == pytest.approx(2, abs=0.02)


def test_it_shrinks_with_the_page(show: Callable[..., Locator]) -> None:
    player = show(plain(), width=700)
    before = player.locator("canvas").bounding_box()["width"]
    player.page.set_viewport_size({"width": 360, "height": 700})
    player.page.wait_for_function("() => document.querySelector('iframe').clientWidth < 360")
    player.evaluate(TWO_FRAMES)
    after = player.locator("canvas").bounding_box()
    assert after["width"] < 360 < before
    assert fingerprint(player) != 0
    buttons = player.locator("button").last.bounding_box()
    assert buttons["x"] + buttons["width"] <= 360


def test_between_two_steps_the_picture_is_their_mixture(show: Callable[..., Locator]) -> None:
    fade = np.stack([np.zeros((1, 4, 4)), np.ones((1, 4, 4)), np.zeros((1, 4, 4))])
    player = show(widgets.ImagePlayer(fade))
    grey = """canvas => canvas.getContext("2d").getImageData(
      canvas.width / 2, canvas.height / 2, 1, 1).data[0]"""
    scrub = """(slider, step) => {
      slider.value = String(step);
      slider.dispatchEvent(new Event("input"));
    }"""
    for step, value in {0: 0, 0.25: 64, 0.5: 128, 1: 255, 1.2: 204, 2: 0}.items():
        player.get_by_role("slider").evaluate(scrub, step)
        settle(player)
        assert abs(player.locator("canvas").evaluate(grey) - value) <= 1


def test_it_keeps_its_height_while_the_page_hides_it(show: Callable[..., Locator]) -> None:
    """JupyterLab hides a page for a moment while it turns its theme."""
    player = show(plain(), width=700)
    height = player.page.locator("iframe").bounding_box()["height"]
    frame = player.page.locator("iframe")
    frame.evaluate("frame => { frame.style.display = 'none'; }")
    player.page.evaluate("() => { document.body.dataset.jpThemeLight = 'false'; }")
    player.page.wait_for_timeout(100)
    frame.evaluate("frame => { frame.style.display = 'block'; }")
    player.page.wait_for_timeout(100)
    assert frame.bounding_box()["height"] == height
