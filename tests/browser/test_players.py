"""Every player, live in JupyterLab and stored: it moves, answers, and stays quiet otherwise."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.gallery import GALLERY, PLAYERS
from tests.browser.harness import (
    fingerprint,
    live_widget,
    painted,
    python,
    settle,
    stored_frame,
    wait_for_python,
    wait_until_it_differs,
)

CELL = {name: index + 1 for index, name in enumerate(GALLERY)}
WHOLE = {"ways"}  # whose steps are settings: nothing lies between two of them


@pytest.fixture(params=["live", "stored"])
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=PLAYERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def player(name: str, form: str, live: Page, trusted: Page) -> Locator:
    """A player at its first step, with the focus on it."""
    if form == "live":
        widget = live_widget(live, CELL[name])
    else:
        widget = stored_frame(trusted, CELL[name]).locator(".course-widget")
    widget.focus()
    widget.press("Home")
    settle(widget)
    return widget


def readout(player: Locator) -> str:
    return painted(player.locator(".cw-readout")).inner_text()


def test_nothing_moves_until_asked(player: Locator) -> None:
    before = settle(player)
    player.page.wait_for_timeout(300)
    assert fingerprint(player) == before
    assert readout(player) == "0 / 4"


def test_play_moves_the_picture_and_pause_stops_it(player: Locator) -> None:
    before = settle(player)
    player.get_by_role("button", name="Play").click()
    wait_until_it_differs(player, before)
    player.get_by_role("button", name="Pause").click()
    resting = settle(player)
    player.page.wait_for_timeout(300)
    assert fingerprint(player) == resting != before


def test_play_ends_at_the_last_step(player: Locator) -> None:
    player.press("End")
    player.press("ArrowLeft")
    player.press(" ")
    expect(player.locator(".cw-readout")).to_have_text("4 / 4")
    expect(player.get_by_role("button", name="Play")).to_be_visible()


def test_keys_step_and_play(player: Locator) -> None:
    before = settle(player)
    player.press("ArrowRight")
    player.press("ArrowRight")
    assert readout(player) == "2 / 4"
    assert settle(player) != before
    player.press("ArrowLeft")
    assert readout(player) == "1 / 4"
    player.press("End")
    assert readout(player) == "4 / 4"
    player.press("Home")
    assert readout(player) == "0 / 4"
    assert settle(player) == before
    player.press(" ")
    expect(player.get_by_role("button", name="Pause")).to_be_visible()
    player.press(" ")
    expect(player.get_by_role("button", name="Play")).to_be_visible()


def test_buttons_step(player: Locator) -> None:
    player.get_by_role("button", name="Step forward").click()
    assert readout(player) == "1 / 4"
    player.get_by_role("button", name="Step back").click()
    assert readout(player) == "0 / 4"


def test_scrubbing_shows_the_place_under_the_mouse(player: Locator) -> None:
    before = settle(player)
    slider = player.get_by_role("slider")
    box = slider.bounding_box()
    slider.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    assert 1.5 < float(readout(player).split(" / ")[0]) < 2.5
    assert settle(player) != before


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_nothing_is_shown_between_two_settings(player: Locator) -> None:
    player.press("ArrowRight")
    first = settle(player)
    player.press("ArrowRight")
    assert settle(player) != first
    slider = player.get_by_role("slider")
    box = slider.bounding_box()
    slider.click(position={"x": 0.31 * box["width"], "y": box["height"] / 2})  # 1.2 of 4
    assert readout(player) == "1 / 4"
    assert settle(player) == first
    player.press(" ")
    player.page.wait_for_timeout(400)
    player.press(" ")  # stopped on the way to another one
    while readout(player) != "1 / 4":
        player.press("ArrowLeft")
    assert settle(player) == first


def test_the_slider_names_the_step(player: Locator) -> None:
    player.press("ArrowRight")
    expect(player.get_by_role("slider")).to_have_attribute("aria-valuetext", "1 / 4, squeeze 1")
    expect(player.locator(".cw-note")).to_have_text("squeeze 1")


def test_python_drives_the_step_and_reads_it_back(live: Page, name: str) -> None:
    widget = live_widget(live, CELL[name])
    before = settle(widget)
    assert python(live, f"{name}.step = 2.5") == ""
    place = "2 / 4" if name in WHOLE else "2.5 / 4"
    expect(widget.locator(".cw-readout")).to_have_text(place)
    assert settle(widget) != before
    widget.focus()
    widget.press("ArrowRight")
    wait_for_python(live, f"print({name}.step)", "3.0")


def test_python_starts_and_stops_the_motion(live: Page, name: str) -> None:
    widget = live_widget(live, CELL[name])
    python(live, f"{name}.step = 0.0; {name}.playing = True")
    expect(widget.get_by_role("button", name="Pause")).to_be_visible()
    expect(widget.locator(".cw-readout")).not_to_have_text("0 / 4")
    python(live, f"{name}.playing = False")
    expect(widget.get_by_role("button", name="Play")).to_be_visible()
    wait_for_python(live, f"print(0 < {name}.step < 4)", "True")


def test_keys_do_not_move_the_notebook(live: Page) -> None:
    """JupyterLab's own arrow keys select other cells; inside a widget they step."""
    widget = live_widget(live, CELL["images"])
    widget.click(position={"x": 20, "y": 10})
    active = "() => jupyterapp.shell.currentWidget.content.activeCellIndex"
    before = live.evaluate(active)
    live.evaluate(
        """() => {
          window.keysForJupyter = 0;
          document.addEventListener("keydown", () => window.keysForJupyter++, true);
        }"""
    )
    for key in ("ArrowLeft", "ArrowRight", "Home", "End"):
        live.keyboard.press(key)
    assert live.evaluate(active) == before
    assert live.evaluate("window.keysForJupyter") == 0
    live.keyboard.press("Control+Shift+F9")  # all other keys stay Jupyter's
    assert live.evaluate("window.keysForJupyter") > 0
    assert readout(widget) == "4 / 4"


def test_two_views_of_a_player_stay_together(live: Page) -> None:
    views = live.locator(".jp-OutputArea .course-widget")
    count = views.count()
    # The last cell of the gallery shows nothing but its widget: show another one below it.
    python(live, "from IPython.display import display")
    live.evaluate(
        """() => {
          const { content, sessionContext } = jupyterapp.shell.currentWidget;
          content.activeCellIndex = 0;
          content.activeCell.model.sharedModel.setSource("display(images, images)");
        }"""
    )
    live.evaluate("jupyterapp.commands.execute('notebook:run-cell')")
    expect(views).to_have_count(count + 2)
    first, second = views.nth(0), views.nth(1)
    settle(first)  # both are drawn, and hear keys
    settle(second)
    first.focus()
    first.press("Home")
    expect(first.locator(".cw-readout")).to_have_text("0 / 4")
    first.press("ArrowRight")
    expect(first.locator(".cw-readout")).to_have_text("1 / 4")
    expect(second.locator(".cw-readout")).to_have_text("1 / 4")
    assert settle(first) == settle(second)
