"""Reparameterization in a real browser: its numbers are Python's, however it is moved."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import PALETTE, Reparameterization
from course_lib.widgets.reparameterization import ESTIMATORS, NODES, WEIGHTS, gradient_terms
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    TWO_FRAMES,
    computing_time,
    live_widget,
    python,
    settle,
    wait_until_it_differs,
)

CELL = list(GALLERY).index("reparam") + 1
WAYS = dict(zip(("path", "score"), ESTIMATORS, strict=True))


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Page:
    """A page that holds functions of the widget's module."""
    return functions_of(
        "reparameterization.js", "standardNoise, smoothCurve, estimatesOf, exactly, comparison"
    )


@pytest.fixture
def stored(show: Callable[..., Locator]) -> Locator:
    """The stored widget in a plain page."""
    return show(in_python("reparam"), width=740)


def button(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("button", name=name, exact=True)


def place(widget: Locator) -> tuple[float, float]:
    """The mean and the standard deviation, as the handles say them."""
    handles = [widget.locator(f".rp-{name}") for name in ("mu", "sigma")]
    return tuple(float(handle.get_attribute("aria-valuenow")) for handle in handles)


def assert_shown(widget: Locator, wanted: Reparameterization) -> None:
    """Every number on the screen is what Python computes, to its last digit."""
    widget.evaluate(TWO_FRAMES)
    assert place(widget) == pytest.approx((wanted.mu, wanted.sigma), abs=0.0051)
    numbers = lambda text: re.findall(r"-?\d+\.?\d*", text.replace("−", "-"))  # noqa: E731
    for k, parameter in enumerate(("mu", "sigma")):
        pairs = [
            (widget.locator(".rp-exact").nth(k), [wanted.exact()[parameter]]),
            *(
                (widget.locator(f".rp-{way} .rp-value").nth(k), wanted.estimates()[name][parameter])
                for way, name in WAYS.items()
            ),
        ]
        for line, values in pairs:
            found = numbers(line.inner_text())
            assert len(found) == len(values)
            for text, value in zip(found, values, strict=True):
                digits = len(text.partition(".")[2])
                assert float(text) == pytest.approx(value, abs=0.5001 * 10**-digits)


def drag(handle: Locator, right: float) -> None:
    """Drag sideways by so many pixels, in a few moves."""
    handle.scroll_into_view_if_needed()
    box, mouse = handle.bounding_box(), handle.page.mouse
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + right, y, steps=4)
    mouse.up()


@pytest.mark.parametrize(
    ("mu", "sigma", "seed", "n"),
    [(-0.4, 0.7, 0, 24), (1.5, 0.1, 1, 8), (-3.9, 1.9, 77, 96), (3.7, 0.04, 2**32 - 1, 25)],
)
def test_javascript_computes_what_python_does(
    module: Page, mu: float, sigma: float, seed: int, n: int
) -> None:
    widget = in_python("reparam")
    widget.mu, widget.sigma, widget.seed, widget.n_samples = mu, sigma, seed, n
    low, high = widget.extent
    found = module.evaluate(
        """([low, high, values, mu, sigma, seed, n, at]) => {
          const curve = parts.smoothCurve(low, high, values);
          const noise = parts.standardNoise(seed, n);
          return {
            noise, curve: at.map(curve),
            estimates: parts.estimatesOf(curve, noise, mu, sigma),
            exact: parts.exactly(curve, mu, sigma)
          };
        }""",
        [low, high, widget.array("f").tolist(), mu, sigma, seed, n, [-5, -4, -0.33, 2.5, 4, 6]],
    )
    np.testing.assert_allclose(found["noise"], widget.noise, atol=1e-12)
    at = np.array([-5, -4, -0.33, 2.5, 4, 6])
    np.testing.assert_allclose(np.transpose(found["curve"]), widget.curve(at), atol=1e-9)
    terms = gradient_terms(NODES, *widget.curve(mu + sigma * NODES), sigma)
    for k, parameter in enumerate(("mu", "sigma")):
        exact = found["exact"][parameter]
        assert exact["value"] == pytest.approx(widget.exact()[parameter], abs=1e-8)
        for way, name in WAYS.items():
            value, error = widget.estimates()[name][parameter]
            shown = found["estimates"][way][parameter]
            assert shown["value"] == pytest.approx(value, rel=1e-9, abs=1e-9)
            assert shown["error"] == pytest.approx(error, rel=1e-9, abs=1e-9)
            # How far a single sample's term lies from the mean.
            spread = np.sqrt(WEIGHTS @ (terms[name][k] - WEIGHTS @ terms[name][k]) ** 2)
            assert exact[way] == pytest.approx(spread, rel=1e-5)


def test_how_many_more_samples(module: Page) -> None:
    said = [
        module.evaluate("([path, score]) => parts.comparison({ path, score })", pair)
        for pair in ([1, 2], [2, 1], [1, 11.1], [0, 1], [0, 0])
    ]
    assert said == ["4.0 times", "0.3 times", "120 times", *["more than a million times"] * 2]


def test_keys_noise_and_samples(stored: Locator) -> None:
    wanted = in_python("reparam")
    assert stored.page.locator("img").is_hidden()
    assert_shown(stored, wanted)
    stored.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft", "Shift+ArrowDown"):
        stored.press(key)
    wanted.mu, wanted.sigma = -0.4 + 0.16 - 0.01, 0.7 + 0.04 - 0.005
    assert_shown(stored, wanted)

    before = settle(stored)
    stored.page.wait_for_timeout(200)
    assert settle(stored) == before  # nothing moves unasked
    for seed in (1, 2):
        button(stored, "New noise").click()
        wanted.seed = seed
        assert_shown(stored, wanted)
    for n in (8, 96, 24):
        button(stored, str(n)).click()
        expect(button(stored, str(n))).to_have_attribute("aria-pressed", "true")
        wanted.n_samples = n
        assert_shown(stored, wanted)


def near(widget: Locator, colour: str, share: float) -> int:
    """How many pixels have about this colour, mixed with so much white."""
    return widget.locator("canvas").evaluate(
        """(canvas, [colour, share]) => {
          const pure = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
          const wanted = pure.map((value) => 255 + share * (value - 255));
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let count = 0;
          for (let i = 0; i < data.length; i += 4) {
            count += wanted.every((value, c) => Math.abs(value - data[i + c]) < 8);
          }
          return count;
        }""",
        [colour, share],
    )


def test_earlier_estimates_stay_until_the_density_moves(stored: Locator) -> None:
    button(stored, "8").click()  # fewer heights, which look like ghosts
    settle(stored)
    bare = near(stored, PALETTE["data"], 0.4)
    for _ in range(12):
        button(stored, "New noise").click()
    settle(stored)
    marked = near(stored, PALETTE["data"], 0.4)
    assert marked > bare + 60
    stored.focus()
    for key in ("Shift+ArrowUp", "Shift+ArrowDown"):  # there and back
        stored.press(key)
        settle(stored)
    assert near(stored, PALETTE["data"], 0.4) < marked - 60


def test_downhill_is_a_step_along_the_estimate_and_fresh_noise(stored: Locator) -> None:
    wanted = in_python("reparam")
    # The noise that the tests before have left: found by its numbers.
    shown = stored.locator(".rp-path .rp-value").first.inner_text().replace("−", "-")
    for seed in range(100):
        wanted.seed = seed
        value, error = wanted.estimates()["reparameterization"]["mu"]
        if shown == f"{value:.2f} ± {error:.2f}":
            break
    assert_shown(stored, wanted)
    for name in ("reparameterization", "score function", "reparameterization"):
        gradient = wanted.estimates()[name]
        mu = wanted.mu - wanted.step_size * gradient["mu"].value
        sigma = wanted.sigma - wanted.step_size * gradient["sigma"].value
        wanted.mu, wanted.sigma, wanted.seed = mu, max(sigma, 0.04), wanted.seed + 1
        button(stored, name).click()
        assert_shown(stored, wanted)
    many = "node => { for (let k = 0; k < 120; k++) node.click(); }"
    button(stored, "reparameterization").evaluate(many)
    settle(stored)
    mu, sigma = place(stored)
    assert min(abs(mu - 1.6), abs(mu + 1.8)) < 0.1  # in a valley
    assert sigma < 0.3
    button(stored, "Reset").click()
    wanted.mu, wanted.sigma = -0.4, 0.7
    stored.evaluate(TWO_FRAMES)
    assert place(stored) == (-0.4, 0.7)


def test_it_fits_a_narrow_page_and_the_dark(stored: Locator) -> None:
    page = stored.page
    light = settle(stored)
    page.evaluate(
        "() => { document.body.style.background = '#111'; document.body.className = 'x'; }"
    )
    wait_until_it_differs(stored, light)
    assert stored.evaluate("root => getComputedStyle(root).color") == "rgb(232, 234, 237)"
    page.evaluate(
        "() => { document.body.style.background = 'white'; document.body.className = ''; }"
    )
    page.set_viewport_size({"width": 390, "height": 900})
    settle(stored)
    root = stored.bounding_box()
    for line in stored.locator(".rp-text, button, .cw-handle").all():
        box = line.bounding_box()
        assert box["x"] >= root["x"]
        assert box["x"] + box["width"] <= root["x"] + root["width"] <= 390
    for line in stored.locator(".rp-text").all():
        assert line.evaluate("node => node.scrollWidth <= node.clientWidth")
    page.set_viewport_size({"width": 740, "height": 900})
    settle(stored)


def test_a_drag_reaches_python_and_python_the_screen(live: Page) -> None:
    widget = live_widget(live, CELL)
    state = "print([reparam.mu, reparam.sigma, reparam.seed, reparam.n_samples])"

    def kernel() -> Reparameterization:
        same = in_python("reparam")
        same.mu, same.sigma, same.seed, same.n_samples = json.loads(python(live, state))
        return same

    drag(widget.locator(".rp-mu"), 120)
    moved = kernel()
    assert 0.7 < moved.mu < 1.4
    assert moved.sigma == 0.7
    assert_shown(widget, moved)
    drag(widget.locator(".rp-sigma"), -40)
    narrower = kernel()
    assert narrower.mu == moved.mu
    assert 0.1 < narrower.sigma < 0.4
    assert_shown(widget, narrower)
    drag(widget.locator(".rp-mu"), 2000)
    assert kernel().mu == 4
    drag(widget.locator(".rp-sigma"), -60)  # at the edge the shoulder stands on the left
    assert kernel().sigma > narrower.sigma + 0.4
    drag(widget.locator(".rp-sigma"), 2000)
    assert kernel().sigma == pytest.approx(0.04)
    python(live, "reparam.mu, reparam.sigma, reparam.seed, reparam.n_samples = -1.0, 0.5, 9, 8")
    assert_shown(widget, kernel())
    python(live, "reparam.mu, reparam.sigma = reparam.start")


# The times between frames while mu is dragged, in ms.
DRAG = """async handle => {
  handle.setPointerCapture = () => {};
  const { x, y } = handle.getBoundingClientRect();
  const fire = (type, by) => handle.dispatchEvent(new PointerEvent(type, {
    clientX: x + by, clientY: y, button: 0, pointerId: 1, bubbles: true
  }));
  fire("pointerdown", 0);
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 1; k <= 60; k++) {
    fire("pointermove", 90 * Math.sin(k / 9));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  fire("pointerup", 0);
  return took;
}"""


def test_a_drag_frame_is_short(stored: Locator) -> None:
    before = place(stored)
    assert computing_time(stored.locator(".rp-mu"), DRAG) < 15
    assert place(stored) != before
