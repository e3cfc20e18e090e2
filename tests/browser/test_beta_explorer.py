"""BetaExplorer in a real browser: a slider over models, and what the panels show of each."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import PALETTE, BetaExplorer
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    pixels,
    python,
    set_theme,
    settle,
    stored_widget,
    wait_until_it_differs,
    wait_until_it_is,
)

CELL = list(GALLERY).index("beta") + 1

# The times between frames while the slider is dragged, in ms.
SCRUB = """async widget => {
  const slider = widget.querySelector("input[type=range]");
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let i = 0; i < 120; i += 2) {
    slider.value = String(i % 7);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  return took;
}"""


@pytest.fixture(params=["live", "stored"])
def beta(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget at its first model, the axes the same for all."""
    if request.param == "live":
        widget = live_widget(live, CELL)
        python(live, "beta.fit = False")
    else:
        widget = stored_widget(trusted, CELL)
    widget.focus()
    widget.press("Home")
    expect(widget.locator(".cw-note")).to_have_text("β = 0.1")
    settle(widget)
    return widget


def costs(widget: Locator) -> list[str]:
    return widget.locator(".beta-costs .value").all_inner_texts()


def counted(widget: BetaExplorer) -> list[str]:
    """The same from Python."""
    names = ("rate", "distortion", "negative_elbo", "objective")
    return [f"{widget.costs[name]:.1f} nats" for name in names]


def largest_dot(picture: np.ndarray) -> tuple[float, float]:
    """Where the point of the model that is shown lies in the curve: the middle of the dark orange.

    The canvas's right half is looked at alone, and the thin line is left out.
    """
    orange = np.array([int(PALETTE["model"][k : k + 2], 16) for k in (1, 3, 5)])
    near = np.abs(picture - orange).max(2) < 30
    near[:, : picture.shape[1] // 2] = False
    thick = sum(np.roll(near, (i, j), (0, 1)) for i in range(-4, 5) for j in range(-4, 5)) > 70
    return tuple(np.argwhere(thick).mean(0))


def test_each_step_shows_another_model_in_all_panels(beta: Locator) -> None:
    python_side = in_python("beta")
    dots, greys, pictures = [], [], []
    for k in range(4):
        python_side.step = float(k)
        expect(beta.locator(".cw-note")).to_have_text(python_side.labels[k])
        pictures.append(settle(beta))
        assert costs(beta) == counted(python_side)
        picture = pixels(beta)
        dots.append(largest_dot(picture))
        # A reconstruction and a sample: even greys at the left border, counted from the lower end.
        greys.append([picture[-180, 20, 0], picture[-30, 20, 0]])
        beta.press("ArrowRight")
    assert len(set(pictures)) == 4
    rows, columns = np.transpose(dots)
    assert (np.diff(rows) < 0).all()  # more distortion: higher up
    assert (np.diff(columns) < 0).all()  # less rate: further left
    rates = np.array(python_side.rates)
    np.testing.assert_allclose(
        np.ptp(columns) * (rates - rates.min()) / 6, columns - columns[3], atol=1.5
    )
    # The dashed line of the third model, β = 2, falls by 2 nats for each nat of rate.
    beta.press("ArrowLeft")
    expect(beta.locator(".cw-note")).to_have_text("β = 2")
    settle(beta)
    picture = pixels(beta)
    across, down = np.ptp(columns) / 6, np.ptp(rows) / 15
    lengths = np.linspace(-1.4, -0.6, 60)
    line = [(rows[2] + 2 * down * r, columns[2] + across * r) for r in lengths]
    grey = [picture[round(y), round(x)].max() < 190 for y, x in line]
    assert 0.25 < np.mean(grey) < 0.85
    shade = 255 * np.linspace(0.2, 0.8, 4)
    np.testing.assert_allclose(greys, np.stack([shade, 255 - shade], 1), atol=2)


def test_each_cost_stands_beside_its_name(beta: Locator) -> None:
    """A page may have a style of its own for the elements that hold them."""
    spans = beta.locator(".beta-costs > *").evaluate_all(
        "all => all.map((e) => e.getBoundingClientRect()).map((r) => [r.left, r.right, r.top])"
    )
    right = beta.evaluate("widget => widget.getBoundingClientRect().right")
    assert len(spans) == 8
    for name, value in zip(spans[::2], spans[1::2], strict=True):
        assert name[2] == value[2]
        assert name[1] < value[0] < value[1] <= right


def test_models_are_jumped_between_and_chosen_on_the_curve(beta: Locator) -> None:
    first = settle(beta)
    home = largest_dot(pixels(beta))
    slider = beta.get_by_role("slider")
    scrub = """(slider, step) => {
      slider.value = String(step);
      slider.dispatchEvent(new Event("input"));
    }"""
    slider.evaluate("slider => { slider.step = 'any'; }")
    slider.evaluate(scrub, 0.7)
    beta.page.wait_for_timeout(200)
    assert settle(beta) == first  # nothing lies between two models
    beta.press("End")
    expect(beta.locator(".cw-note")).to_have_text("β = 8")
    canvas = beta.locator("canvas").first
    canvas.click(position={"x": home[1], "y": home[0]})
    expect(beta.locator(".cw-note")).to_have_text("β = 0.1")
    assert settle(beta) == first
    slider.evaluate("slider => { slider.step = '1'; }")


def test_axes_follow_the_model_when_asked(beta: Locator) -> None:
    beta.press("End")
    expect(beta.locator(".cw-note")).to_have_text("β = 8")
    same = settle(beta)
    button = beta.get_by_role("button", name="Axes follow the model")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    wait_until_it_differs(beta, same)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    assert settle(beta) == same


def test_python_drives_it_and_reads_it_back(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "beta.step = 2")
    expect(widget.locator(".cw-note")).to_have_text("β = 2")
    before = settle(widget)
    python(live, "beta.fit = True")
    wait_until_it_differs(widget, before)
    python(live, "beta.fit = False")
    widget.focus()
    widget.press("ArrowLeft")
    assert json.loads(python(live, "print([beta.index, beta.costs['rate']])")) == [1, 4.0]
    light = settle(widget)
    set_theme(live, "Dark")
    wait_until_it_differs(widget, light)
    assert pixels(widget)[60, 60].max() < 60
    set_theme(live, "Light")
    wait_until_it_is(widget, light)


def test_nothing_is_cut_off_and_the_slider_is_smooth(show: Callable[..., Locator]) -> None:
    rng = np.random.default_rng(0)
    models, n = 7, 300
    given = BetaExplorer(
        np.arange(1, models + 1) / 2,
        means=rng.normal(size=(models, n, 2)),
        stds=rng.uniform(0.1, 1, size=(models, n, 2)),
        labels=np.arange(n) % 10,
        originals=rng.random((8, 28, 28)),
        reconstructions=rng.random((models, 8, 28, 28)),
        samples=rng.random((models, 16, 28, 28)),
        rates=np.linspace(40, 0, models),
        distortions=np.linspace(1000, 2000, models),
    )
    widget = show(given, width=700)
    assert computing_time(widget, SCRUB) < 15  # about 5 ms
    assert cut_off(widget, (364, 684), ".beta-costs *, button, .beta-hint") == []
