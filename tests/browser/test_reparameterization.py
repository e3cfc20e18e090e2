"""Reparameterization in a real browser: its numbers are Python's, however it is moved."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page

from course_lib.widgets import PALETTE, Reparameterization
from course_lib.widgets.base import javascript
from course_lib.widgets.reparameterization import ESTIMATORS, NODES, WEIGHTS, gradient_terms
from tests.browser.conftest import Watch
from tests.browser.gallery import GALLERY, SETUP
from tests.browser.harness import live_widget, python, settle, wait_until_it_differs

CELL = list(GALLERY).index("reparam") + 1
WAYS = dict(zip(("path", "score"), ESTIMATORS, strict=True))


def twin() -> Reparameterization:
    """The gallery's widget, in Python alone."""
    space: dict = {}
    exec(SETUP + GALLERY["reparam"], space)
    return space["reparam"]


@pytest.fixture(scope="module")
def module(browser: Browser) -> Iterator[Page]:
    """A page that holds the functions of the widget's module."""
    page = browser.new_page()
    source = javascript("reparameterization.js").replace(
        "export default { render };",
        "window.parts = { standardNoise, smoothCurve, estimatesOf, exactly, comparison };",
    )
    page.add_script_tag(content=source, type="module")
    page.wait_for_function("window.parts")
    yield page
    page.close()


@pytest.fixture(scope="module")
def stored_page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The stored widget in a plain page that never misbehaves."""
    path: Path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(
        "<!DOCTYPE html><meta charset='utf-8'><body style='background: white'>"
        + twin().static_html()
    )
    page = browser.new_page(viewport={"width": 740, "height": 900})
    watch = Watch(page, path.as_uri())
    page.goto(path.as_uri())
    yield page
    page.close()
    assert not watch.faults


@pytest.fixture
def stored(stored_page: Page) -> Locator:
    """The stored widget as it was at first; only the noise is what the tests before have left."""
    widget = stored_page.query_selector("iframe").content_frame().locator(".course-widget")
    button(widget, "Reset").click()
    button(widget, "24").click()
    settle(widget)
    return widget


def button(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("button", name=name, exact=True)


def place(widget: Locator) -> tuple[float, float]:
    """The mean and the standard deviation, as the handles say them."""
    handles = [widget.locator(f".rp-{name}") for name in ("mu", "sigma")]
    return tuple(float(handle.get_attribute("aria-valuenow")) for handle in handles)


def assert_shown(widget: Locator, wanted: Reparameterization) -> None:
    """Every number on the screen is what Python computes, to its last digit."""
    widget.page.wait_for_timeout(50)  # a frame
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
    widget = twin()
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
    wanted = twin()
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
        assert button(stored, str(n)).get_attribute("aria-pressed") == "true"
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
    stored.press("Shift+ArrowUp")
    settle(stored)
    assert near(stored, PALETTE["data"], 0.4) < marked - 60


def test_downhill_is_a_step_along_the_estimate_and_fresh_noise(stored: Locator) -> None:
    wanted = twin()
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
    stored.page.wait_for_timeout(50)
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
    for line in stored.locator(".rp-text, button, .rp-handle").all():
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
        live.wait_for_timeout(300)
        same = twin()
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


def test_a_picture_is_drawn_quickly(stored: Locator) -> None:
    """The time inside the widget's own frames, the pixels themselves included."""
    frames = stored.locator(".rp-mu").evaluate(
        """async handle => {
          handle.setPointerCapture = () => {};
          const { x, y } = handle.getBoundingClientRect();
          const fire = (type, by) => handle.dispatchEvent(new PointerEvent(type, {
            clientX: x + by, clientY: y, button: 0, pointerId: 1, bubbles: true
          }));
          const ctx = document.querySelector("canvas").getContext("2d");
          const ask = window.requestAnimationFrame.bind(window);
          const took = [];
          window.requestAnimationFrame = (callback) => ask((now) => {
            const start = performance.now();
            callback(now);
            ctx.getImageData(0, 0, 1, 1);
            took.push(performance.now() - start);
          });
          fire("pointerdown", 0);
          for (let k = 0; k < 40; k++) {
            fire("pointermove", 90 * Math.sin(k / 9));
            await new Promise(ask);
          }
          fire("pointerup", 0);
          window.requestAnimationFrame = ask;
          return took;
        }"""
    )
    median, late = np.quantile(frames, (0.5, 0.95))
    print(f"drawing while dragging: median {median:.1f} ms, 95th percentile {late:.1f} ms")
    assert len(frames) >= 20
    assert median < 60  # generous: shared machines are slow at times
