"""How smoothly the widgets move: milliseconds between frames while they play.

Measured in headless Chromium on the stored form of each widget, which runs the same JavaScript as
the live one. The 95th percentile of a frame should stay within 20 ms.
"""

import shutil
import sys

import numpy as np
from playwright.sync_api import sync_playwright

from course_lib import widgets

OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FRAMES = 300
LIMIT = 20.0  # ms, for the 95th percentile

MEASURE = """async count => {
  document.querySelector(".cw-loop").click();
  document.querySelector(".cw-play").click();
  const deltas = [];
  let before = await new Promise(requestAnimationFrame);
  while (deltas.length < count) {
    const now = await new Promise(requestAnimationFrame);
    deltas.push(now - before);
    before = now;
  }
  return deltas;
}"""


def swirl(points: np.ndarray, steps: int) -> np.ndarray:
    """Points [..., 2] turned more and more about the origin: [steps, ..., 2]."""
    angle = np.exp(-(points**2).sum(-1) / 6)
    path = []
    for t in np.linspace(0, 3, steps):
        cos, sin = np.cos(t * angle), np.sin(t * angle)
        x, y = points[..., 0], points[..., 1]
        path.append(np.stack([x * cos - y * sin, x * sin + y * cos], -1))
    return np.stack(path)


def ways_of_each_step(points: np.ndarray) -> widgets.ParticlePlayer:
    """Three panels, with ways of one, two, ... and 32 steps."""
    ways = [[swirl(points, 2**k + 1) / n for k in range(6)] for n in (1, 2, 3)]
    ends = [np.stack([way[-1] for way in one]) for one in ways]
    trails = [[way[:, :24] for way in one] for one in ways]
    return widgets.ParticlePlayer(
        ends[0], beside=ends[1:], trails=trails[0], beside_trails=trails[1:], extent=(-3, 3, -3, 3)
    )


def examples() -> dict[str, widgets.CourseWidget]:
    """The widgets to measure, each at the size that the course uses at most."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2000, 2))
    lines = np.stack(np.meshgrid(np.linspace(-3, 3, 21), np.linspace(-3, 3, 21)), -1)
    extent = (-3, 3, -3, 3)
    return {
        "ParticlePlayer, 2,000 points": widgets.ParticlePlayer(swirl(points, 12), extent=extent),
        "ParticlePlayer, 2,000 coloured points and a mesh": widgets.ParticlePlayer(
            swirl(points, 12), grid=swirl(lines, 12), color=points[:, 0], extent=extent
        ),
        "ParticlePlayer, 2,000 points on a moving field": widgets.ParticlePlayer(
            swirl(points, 12), field=rng.random((12, 64, 64)), extent=extent
        ),
        "ParticlePlayer, three panels of 500 points and 24 ways": ways_of_each_step(points[:500]),
        "Uncross, 12 pairs": widgets.Uncross(*points[:24].reshape(2, 12, 2), k=2),
        "ImagePlayer, 64 images of 8 x 8": widgets.ImagePlayer(rng.random((12, 64, 8, 8))),
        "ImagePlayer, 16 images of 28 x 28": widgets.ImagePlayer(rng.random((11, 16, 28, 28))),
    }


def main() -> int:
    """Print median and 95th percentile for each widget; 1 where one is too slow."""
    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if chromium is None:
        print("no chromium on the PATH (Debian: apt-get install chromium)", file=sys.stderr)
        return 1
    slow = False
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        page = browser.new_page(viewport={"width": 800, "height": 900})
        for name, widget in examples().items():
            page.set_content(widget.static_html())
            frame = page.query_selector("iframe").content_frame()
            frame.wait_for_selector("canvas")
            page.wait_for_timeout(500)
            deltas = frame.evaluate(MEASURE, FRAMES)
            median, p95 = np.percentile(deltas, [50, 95])
            slow |= p95 > LIMIT
            print(f"{name:50} median {median:5.1f} ms   95 % {p95:5.1f} ms")
        browser.close()
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
