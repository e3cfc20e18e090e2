"""What a reader changes reaches Python a little later; what Python sets meanwhile stays."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.gallery import GALLERY
from tests.browser.harness import live_widget, press_keys, python, wait_for_python

# A handle of each widget that has such changes, the trait that it moves to the right, and two
# values of that trait.
CASES = {
    "plane": (".latent-z", "z", [0.5, -0.5], [-1.5, 2.25]),
    "reparam": (".rp-mu", "mu", 0.25, -1.5),
    "voronoi": (".vq-z", "z", [0.5, -0.5], [-1.5, 1.25]),
}

# Hold back what a page wants to do in 100 ms, and then let it do so.
HOLD = """() => {
  const later = window.setTimeout;
  window.held = [];
  window.release = () => {
    window.setTimeout = later;
    for (const act of window.held.splice(0)) act();
  };
  window.setTimeout = (act, ms, ...more) => {
    if (ms !== 100) return later(act, ms, ...more);
    window.held.push(act);
    return later(() => {}, 0);
  };
}"""
RELEASE = "() => window.release?.()"


@pytest.fixture
def page(live: Page) -> Iterator[Page]:
    """The gallery. After a test it holds nothing back, and is what the other tests expect."""
    yield live
    live.evaluate(RELEASE)
    live.wait_for_timeout(300)
    python(live, "plane.z, voronoi.z = [1, -0.5], voronoi.start[0]")
    python(live, "reparam.mu, reparam.sigma = reparam.start")


@pytest.mark.parametrize("name", CASES)
def test_a_later_value_from_python_stays(name: str, page: Page) -> None:
    selector, trait, first, later = CASES[name]
    handle = live_widget(page, list(GALLERY).index(name) + 1).locator(selector)
    python(page, f"{name}.{trait} = {first}")
    x, later_x = (f"{value[0] if trait == 'z' else value:.2f}" for value in (first, later))
    expect(handle).to_have_attribute("aria-valuenow", x)

    page.evaluate(HOLD)
    press_keys(handle, ["ArrowRight"])
    expect(handle).not_to_have_attribute("aria-valuenow", x)  # the screen follows at once,
    assert json.loads(python(page, f"print({name}.{trait})")) == first  # Python does not
    python(page, f"{name}.{trait} = {later}")
    expect(handle).to_have_attribute("aria-valuenow", later_x)
    page.evaluate(RELEASE)
    page.wait_for_timeout(300)
    assert json.loads(python(page, f"print({name}.{trait})")) == later
    expect(handle).to_have_attribute("aria-valuenow", later_x)


def test_the_reader_s_other_changes_arrive(page: Page) -> None:
    handle = live_widget(page, list(GALLERY).index("reparam") + 1).locator(".rp-mu")
    python(page, "reparam.mu, reparam.sigma = 0.25, 0.7")
    expect(handle).to_have_attribute("aria-valuenow", "0.25")
    page.evaluate(HOLD)
    press_keys(handle, ["ArrowUp", "ArrowRight", "ArrowUp"])
    python(page, "reparam.mu = -1.5")
    expect(handle).to_have_attribute("aria-valuenow", "-1.50")
    page.evaluate(RELEASE)
    # Two steps up, a hundredth of the axis wide.
    wait_for_python(page, "print(reparam.mu, round(reparam.sigma, 6))", "-1.5 0.78")
