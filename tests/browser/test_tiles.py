"""Tiles in a real browser: the loops play, sizes are dragged; its counters are Python's."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.attention import tiles
from course_lib.widgets import Tiles
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    PLAY,
    computing_time,
    cut_off,
    live_widget,
    press_keys,
    python,
    settle,
    wait_for_python,
    wait_until_it_differs,
)

CELL = list(GALLERY).index("tiling") + 1

SET = """(node, value) => {
  node.value = value;
  node.dispatchEvent(new Event("input", { bubbles: true }));
}"""

# The times between frames while a slider is moved from end to end, in ms.
SLIDE = """async slider => {
  const took = [];
  const [low, high] = [Number(slider.min), Number(slider.max)];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    slider.value = low + ((high - low) * (1 + Math.sin(k / 9))) / 2;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  return took;
}"""


@pytest.fixture
def tiling(show: Callable[..., Locator]) -> Locator:
    return show(in_python("tiling"))


def said(widget: Locator) -> str:
    settle(widget)
    return widget.locator(".tiles-said").inner_text()


def test_each_tile_says_what_is_loaded_and_stored(tiling: Locator) -> None:
    rows, columns = in_python("tiling").sizes
    met = list(tiles(512, 512, (rows, columns), True))
    tiling.focus()
    press_keys(tiling, ["Home"])
    assert said(tiling).startswith(f"{len(met)} tiles. Nothing is loaded yet")
    for k in range(1, 7):
        press_keys(tiling, ["ArrowRight"])
        down, across, _ = met[k - 1]
        text = said(tiling)
        assert text.startswith(
            f"Tile {k} of {len(met)}: queries {down.start + 1}–{down.stop}, "
            f"keys {across.start + 1}–{across.stop}. "
        )
        first, last = across.start == 0, met[k][0] != down
        assert ("Loaded: q, k, v; held: o" if first else "Loaded: k, v; held: q") in text
        assert ("o is done and stored" if last else "nothing is stored") in text
    tiling.get_by_role("button", name="keys (1)").click()
    assert "o, m, ℓ are stored" in said(tiling)


def test_sizes_and_loops_change_the_picture_and_the_count(tiling: Locator) -> None:
    before = settle(tiling)
    tiling.get_by_role("button", name="Causal").click()
    wait_until_it_differs(tiling, before)
    peer = in_python("tiling")
    peer.causal = False
    for name, trait, power, value in (
        ("tokens N", "n", 10, 1024),
        ("head size d", "d", 5, 32),
        ("fast memory M", "sram", 13, 8192),
    ):
        before = settle(tiling)
        tiling.get_by_role("slider", name=name, exact=True).evaluate(SET, power)
        wait_until_it_differs(tiling, before)
        setattr(peer, trait, value)
        text = said(tiling)
        assert f"Tile {peer.step:.0f} of {peer.n_steps - 1:,}" in text
        ratio = peer.moved("naive").total / peer.moved("flash2").total
        assert f"{float(f'{ratio:.2g}'):g} times as much as FlashAttention-2" in text


def test_a_click_goes_to_its_tile(tiling: Locator) -> None:
    tiling.get_by_role("button", name="Causal").click()
    settle(tiling)
    box = tiling.locator(".cw-stage > canvas").bounding_box()
    tiling.page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 0.6 * box["height"])
    k = int(said(tiling).split(" ")[1])
    peer = in_python("tiling")
    peer.causal = False
    assert 10 < k < peer.n_steps


def test_python_hears_of_sizes_and_sets_them(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "tiling.causal, tiling.n, tiling.step = False, 1024, 5")
    expect(widget.locator(".tiles-said")).to_contain_text("Tile 5 of 224:")
    widget.get_by_role("slider", name="tokens N", exact=True).evaluate(SET, 8)
    wait_for_python(live, "print(tiling.n, tiling.n_steps, tiling.step)", "256 17 0.0")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    """With as many tiles as there may be: 8,192 by 8,192."""
    widget = show(Tiles(8192, 128, 1024, algorithm="flash", causal=True), width=820)
    assert computing_time(widget, PLAY) < 15
    assert cut_off(widget, (320, 400, 560, 800), "canvas, button, p, span, input") == []
    slider = widget.get_by_role("slider", name="fast memory M", exact=True)
    assert computing_time(slider, SLIDE) < 15


# ----------------------------------------------------------------------- the same mathematics twice

RUN = """given => given.map((sizes) => {
  const plan = parts.planOf(sizes);
  const steps = Array.from({ length: plan.total + 1 }, (_, k) => k);
  const tilesOf = steps.slice(1).map((k) => plan.tileAt(k));
  return {
    naive: parts.naiveMoves(sizes), moved: steps.map((k) => plan.movedAfter(k)),
    tiles: tilesOf.map(({ i, j }) => [i, j]), back: tilesOf.map(({ i, j }) => plan.numberOf(i, j))
  };
})"""


def test_the_browser_counts_what_python_does(functions_of: Callable[[str, str], Page]) -> None:
    module = functions_of("tiles.js", "planOf, naiveMoves")
    given = [
        {"n": n, "d": d, "sram": sram, "algorithm": algorithm, "causal": causal}
        for n, d, sram in ((1, 1, 9), (17, 3, 60), (64, 8, 500), (100, 16, 2000), (90, 5, 4000))
        for algorithm in ("flash", "flash2")
        for causal in (False, True)
    ]
    for sizes, found in zip(given, module.evaluate(RUN, given), strict=True):
        peer = Tiles(**sizes)
        assert tuple(found["naive"].values()) == peer.moved("naive")
        rows, columns = peer.sizes
        met = [
            [down.start // rows, across.start // columns]
            for down, across, _ in tiles(peer.n, peer.n, peer.sizes, peer.causal)
        ]
        if peer.algorithm == "flash":
            met.sort(key=lambda tile: tile[::-1])
        assert found["tiles"] == met
        assert found["back"] == list(range(1, len(met) + 1))
        for k, moved in enumerate(found["moved"]):
            peer.step = float(k)
            assert tuple(moved.values()) == peer.moved_so_far
