"""What holds for every widget of the gallery: how it is stored, and that it keeps still."""

import pytest
from playwright.sync_api import Page, expect

from course_lib import widgets
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import cell_output, fingerprint, live_widget, settle, stored_widget

CELL = {name: index + 1 for index, name in enumerate(GALLERY)}


def test_the_gallery_shows_every_widget() -> None:
    public = [getattr(widgets, name) for name in widgets.__all__]
    classes = {one for one in public if isinstance(one, type)}
    # An object's own class is a subclass that anywidget makes for it.
    shown = {type(in_python(name)).__mro__[1] for name in GALLERY}
    assert shown == classes - {widgets.CourseWidget, widgets.PlayerWidget}


@pytest.mark.parametrize("name", GALLERY)
def test_a_stored_widget_replaces_its_picture(trusted: Page, name: str) -> None:
    widget = stored_widget(trusted, CELL[name])
    settle(widget)
    output = cell_output(trusted, CELL[name])
    assert output.locator("img").is_hidden()
    assert "Trust Notebook" not in output.inner_text()
    frame, inside = output.locator("iframe").bounding_box(), widget.bounding_box()
    # A frame is a whole number of pixels high, a widget need not be.
    assert inside["height"] - 0.5 <= frame["height"] <= inside["height"] + 10


@pytest.mark.parametrize("name", GALLERY)
def test_without_trust_the_picture_stays(untrusted: Page, name: str) -> None:
    output = cell_output(untrusted, CELL[name])
    picture = output.locator("img")
    picture.scroll_into_view_if_needed()
    assert output.locator("iframe").count() == 0
    # What is missing, and how to get it: shown once the page has come there.
    expect(output).to_contain_text("Trust Notebook", use_inner_text=True)
    assert picture.evaluate("img => img.complete && img.naturalWidth") > 300
    alt = picture.get_attribute("alt")
    assert alt == in_python(name).alt
    assert len(alt) > 20


# How each button is drawn, by its name.
BUTTONS = """root => Object.fromEntries([...root.querySelectorAll("button")].map((button) => {
  const style = getComputedStyle(button);
  const drawn = ["borderTopWidth", "borderTopStyle", "paddingLeft", "borderRadius", "fontSize"];
  return [button.ariaLabel ?? button.textContent, drawn.map((name) => style[name]).join(" ")];
}))"""


@pytest.mark.parametrize("name", GALLERY)
def test_among_others_its_buttons_are_drawn_as_they_are_alone(
    live: Page, trusted: Page, name: str
) -> None:
    """Live widgets share a page, where the style sheets of all of them meet."""
    among = live_widget(live, CELL[name]).evaluate(BUTTONS)
    alone = stored_widget(trusted, CELL[name]).evaluate(BUTTONS)
    both = among.keys() & alone.keys()  # some buttons are named by what they would do now
    assert bool(both) == bool(alone)
    assert {button: among[button] for button in both} == {button: alone[button] for button in both}


def test_nothing_moves_until_asked(live: Page) -> None:
    before = {name: settle(live_widget(live, cell)) for name, cell in CELL.items()}
    live.wait_for_timeout(500)
    after = {name: fingerprint(live_widget(live, cell)) for name, cell in CELL.items()}
    assert after == before
