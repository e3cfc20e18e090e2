"""Dissolve: what it shows at a time, which schedule the handles make, and what it refuses."""

import io

import numpy as np
import pytest
import torch
import traitlets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from course_lib.diffusion import DiscreteSchedule
from course_lib.widgets import PALETTE, Dissolve

RNG = np.random.default_rng(0)
T = 40
POINTS, NOISE = RNG.normal(size=(2, 60, 2)) * [[[1.5, 0.5]], [[1, 1]]]
IMAGES, GRAIN = RNG.random((5, 8, 6)), RNG.normal(size=(5, 8, 6))
FALLING = {
    "straight": np.linspace(0.99, 0.01, T),
    "bent": np.linspace(0.999, 0.1, T) ** 4,
}


def points(**change: object) -> Dissolve:
    return Dissolve(**{"data": POINTS, "schedules": FALLING, "noise": NOISE} | change)


def sigmoid(values: object) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(values)))


# ----------------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize("name", FALLING)
@pytest.mark.parametrize("t", [0, 13, T - 1])
def test_points_are_where_the_closed_form_puts_them(name: str, t: int) -> None:
    widget = points()
    widget.schedule, widget.step = name, float(t)
    alpha_bar = FALLING[name][t]
    wanted = np.sqrt(alpha_bar) * POINTS + np.sqrt(1 - alpha_bar) * NOISE
    np.testing.assert_allclose(widget.x_t, wanted, atol=1e-3)


def test_images_dissolve_between_minus_one_and_one() -> None:
    widget = Dissolve(IMAGES[:, None], FALLING, noise=GRAIN[:, None])
    for t in (0, 25):
        widget.step = float(t)
        alpha_bar = FALLING["straight"][t]
        wanted = np.sqrt(alpha_bar) * (2 * IMAGES - 1) + np.sqrt(1 - alpha_bar) * GRAIN
        np.testing.assert_allclose(widget.x_t, wanted, atol=1 / 255 + 1e-3)


def test_what_is_shown_has_the_mean_and_the_variance_of_its_time() -> None:
    """Against the law of x_t itself: mean a · E[x_0], variance a² · Var[x_0] + b²."""
    generator = torch.Generator().manual_seed(0)
    data = 2 + 0.3 * torch.randn(2000, 2, generator=generator)
    noise = torch.randn(2000, 2, generator=generator)
    schedule = DiscreteSchedule.linear(T)
    widget = Dissolve(data, {"linear": schedule.alpha_bars}, noise=noise)
    for t in (0, 7, 20, T - 1):
        widget.step = float(t)
        a, b = schedule.a(torch.tensor(t)).item(), schedule.b(torch.tensor(t)).item()
        np.testing.assert_allclose(widget.x_t.mean(), 2 * a, atol=0.04)
        np.testing.assert_allclose(widget.x_t.var(), 0.09 * a**2 + b**2, rtol=0.08)
    assert widget.variance == pytest.approx(0.09, rel=0.08)


def test_the_variance_is_that_of_a_coordinate() -> None:
    spread = np.array([[0.0, 0], [2, 6]])
    assert points(data=spread, noise=spread).variance == pytest.approx((1 + 9) / 2)
    half = np.zeros((1, 2, 2))
    half[0, 0] = 1  # two pixels at 1, two at -1
    assert Dissolve(half, FALLING, noise=half).variance == pytest.approx(1)


def test_a_fraction_of_a_step_is_rounded() -> None:
    widget = points()
    for step, t in [(2.49, 2), (2.5, 3), (3.5, 4), (T - 1.2, T - 1)]:
        widget.step = step
        assert widget.index == t


def test_nearly_all_points_stay_in_the_plot() -> None:
    widget = points(data=100 * POINTS)
    for t in range(T):
        widget.step = float(t)
        assert (np.abs(widget.x_t) <= widget.reach).mean() > 0.98
    assert widget.reach < 1.3 * np.abs(100 * POINTS).max()
    assert points(data=0 * POINTS, noise=0 * NOISE).reach > 0


def test_few_bytes_are_sent() -> None:
    assert len(points().data) == 2 * (2 * 60 * 2 + 2 * T)
    assert len(Dissolve(IMAGES, FALLING, noise=GRAIN).data) == IMAGES.size * 3 + 2 * 2 * T


# ------------------------------------------------------------------------------------- the schedule


def test_a_named_schedule_is_given_back_as_it_came() -> None:
    widget = points()
    assert (widget.schedule, widget.names) == ("straight", ["straight", "bent"])
    for name, values in FALLING.items():
        widget.schedule = name
        np.testing.assert_array_equal(widget.alpha_bars, values)
        widget.alpha_bars[:] = 0  # a copy
        np.testing.assert_array_equal(widget.alpha_bars, values)
        log_snr = np.log(values / (1 - values))
        np.testing.assert_allclose(widget._curve(name), log_snr, atol=3e-4)


def test_the_handles_start_on_the_first_schedule() -> None:
    widget = points()
    assert widget.knots == [0, 2, 10, 20, 29, 37, T - 1]
    given = FALLING["straight"][widget.knots]
    np.testing.assert_allclose(sigmoid(widget.log_snr), given, atol=1e-6)
    widget.schedule = "yours"
    np.testing.assert_allclose(widget.alpha_bars[widget.knots], given, atol=1e-6)
    # Between them the curve stays close to the schedule that it comes from.
    assert np.abs(widget.alpha_bars - FALLING["straight"]).max() < 0.02


@pytest.mark.parametrize("make", [DiscreteSchedule.linear, DiscreteSchedule.cosine])
@pytest.mark.parametrize("steps", [50, 1000])
def test_from_the_usual_schedules_the_handles_lose_little(make: object, steps: int) -> None:
    schedule = make(steps)
    widget = points(schedules={"usual": schedule.alpha_bars})
    widget.schedule = "yours"
    assert np.abs(widget.alpha_bars - schedule.alpha_bars.numpy()).max() < 0.02


def test_handles_on_a_line_make_a_straight_log_snr() -> None:
    widget = points()
    line = np.linspace(7, -5, T)
    widget.log_snr = line[widget.knots].tolist()
    assert widget.schedule == "straight"  # to set the handles does not choose them
    widget.schedule = "yours"
    np.testing.assert_allclose(widget.alpha_bars, sigmoid(line), atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-12, 12), min_size=7, max_size=7, unique=True))
def test_every_choice_of_handles_makes_a_schedule(heights: list[float]) -> None:
    falling = sorted(heights, reverse=True)
    if min(-np.diff(falling)) < 1e-3:
        return
    widget = points()
    widget.log_snr, widget.schedule = falling, "yours"
    alpha_bars = widget.alpha_bars
    assert (np.diff(alpha_bars) < 0).all()
    assert 0 < alpha_bars[-1] < alpha_bars[0] < 1
    np.testing.assert_allclose(alpha_bars[widget.knots], sigmoid(falling), atol=1e-9)
    DiscreteSchedule(torch.tensor(1 - alpha_bars[1:] / alpha_bars[:-1]))  # the betas are fair


def test_handles_outside_the_plot_are_brought_into_it() -> None:
    steep = sigmoid(np.linspace(25, -25, T))
    heights = points(schedules={"steep": steep}).log_snr
    assert (heights[0], heights[-1]) == (12, -12)
    assert (np.diff(heights) < -0.09).all()


def test_a_schedule_of_two_steps_has_two_handles() -> None:
    widget = points(schedules={"short": [0.6, 0.3]})
    assert widget.knots == [0, 1]
    widget.schedule = "yours"
    np.testing.assert_allclose(widget.alpha_bars, [0.6, 0.3], atol=1e-6)


def test_what_is_close_to_one_keeps_its_digits() -> None:
    """In float32 the first of these would be 1, and its log-SNR infinite."""
    near = torch.tensor([1 - 1e-9, 0.5], dtype=torch.float64, requires_grad=True)
    widget = points(schedules={"near": near})
    assert widget.log_snr[0] == 12
    np.testing.assert_allclose(widget._curve("near")[0], np.log(1e9), atol=1e-3)


# ------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("schedule", "cosine", "schedule must be one of bent, straight, yours, got 'cosine'"),
        (
            "log_snr",
            [3.0, 2.0, 1.0],
            "log_snr must be 7 strictly decreasing numbers from 12 to -12",
        ),
        ("log_snr", [3.0, 2, 1, 1, 0, -1, -2], "log_snr must be 7 strictly decreasing"),
        ("log_snr", [12.1, 2, 1, 0, -1, -2, -3], "log_snr must be 7 strictly decreasing"),
        ("log_snr", [3.0, 2, 1, 0, -1, -2, -12.1], "log_snr must be 7 strictly decreasing"),
        ("log_snr", [3.0, 2, 1, float("nan"), -1, -2, -3], "log_snr must be 7 strictly"),
        ("log_snr", [], "log_snr must be 7 strictly"),
        ("step", T, rf"step must lie in \[0, {T - 1}\]"),
    ],
)
def test_a_state_that_does_not_exist_is_refused(name: str, value: object, reason: str) -> None:
    widget = points()
    before = getattr(widget, name)
    with pytest.raises(ValueError, match=reason):
        setattr(widget, name, value)
    assert getattr(widget, name) == before
    with pytest.raises(traitlets.TraitError):
        widget.show_alpha_bar = "yes"


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": POINTS[:, :1]}, r"data must be at most 2,000 points \[N, 2\], got \[60, 1\]"),
        ({"data": np.zeros((2001, 2))}, r"data must be at most 2,000 points .* got \[2001, 2\]"),
        ({"data": POINTS[0]}, r"data must have shape \[N, 2\], \[N, H, W\] or \[N, 1, H, W\]"),
        ({"data": IMAGES + 1}, r"data must lie in \[0, 1\]"),
        ({"data": IMAGES[:, None].repeat(3, 1)}, r"data must have shape \[N, H, W\]"),
        ({"data": POINTS * np.nan}, "data must be finite"),
        ({"noise": NOISE[:5]}, r"noise must have the shape of data, \[60, 2\], got \[5, 2\]"),
        ({"data": IMAGES}, r"noise must have the shape of data, \[5, 8, 6\], got \[60, 2\]"),
        ({"noise": NOISE * np.inf}, "noise must be finite"),
        ({"schedules": FALLING["bent"]}, "schedules must be a dict of names and alpha_bars"),
        ({"schedules": {}}, "schedules must be a dict of names and alpha_bars, got {}"),
        ({"schedules": {"yours": [0.9, 0.1]}}, "names other than \"yours\", got 'yours'"),
        ({"schedules": {3: [0.9, 0.1]}}, "schedules must have names .*, got 3"),
        ({"schedules": {"up": [0.1, 0.9]}}, r"schedules\['up'\] must be at least 2 numbers that"),
        ({"schedules": {"flat": [0.5, 0.5]}}, r"schedules\['flat'\] must be at least 2 numbers"),
        ({"schedules": {"one": [0.5]}}, "must be at least 2 numbers .* got 1 from 0.5 to 0.5"),
        ({"schedules": {"full": [1.0, 0.5]}}, "strictly decrease between 0 and 1"),
        ({"schedules": {"out": [0.5, 0.0]}}, "strictly decrease between 0 and 1"),
        ({"schedules": {"nan": [0.5, np.nan]}}, r"schedules\['nan'\] must be finite"),
        ({"schedules": {"map": [[0.5, 0.4]]}}, r"schedules\['map'\] must have shape \[T\]"),
        (
            {"schedules": {"a": [0.5, 0.4], "b": [0.5, 0.4, 0.3]}},
            r"schedules\['b'\] must hold 2 numbers as the first, got 3",
        ),
        (
            {"schedules": {"long": np.linspace(0.9, 0.1, 160_000)}},
            "at most 300,000 bytes.*send fewer points, images or steps",
        ),
        ({"title": 3}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        points(**change)


# --------------------------------------------------------------------------------------- the still


def picture(widget: Dissolve) -> np.ndarray:
    content = widget.still()
    assert len(content) < 60_000
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_the_still_picture_goes_from_data_to_noise() -> None:
    pixels = picture(points(data=np.repeat(POINTS, 20, 0), noise=np.repeat(NOISE, 20, 0)))
    top = pixels[: len(pixels) // 2]
    shares = []
    for role in ("data", "noise"):
        wanted = [int(PALETTE[role][k : k + 2], 16) for k in (1, 3, 5)]
        near = np.abs(top - wanted).max(-1) < 25
        columns = np.array_split(near, 4, axis=1)
        shares.append([column.mean() for column in columns])
    data, noise = shares
    assert data[0] > 0.005 > data[3]
    assert noise[3] > 0.005 > noise[0]


def test_the_still_picture_shows_the_images_themselves_first() -> None:
    """The rows are strips of t = 0 and later: the first is nearly the data, the last is noise."""
    images = np.zeros((4, 4, 4))
    images[::2] = 1
    pixels = picture(Dissolve(images, FALLING, noise=RNG.normal(size=(4, 4, 4))))
    dark = pixels.max(-1) < 60
    rows = np.where(dark[: len(pixels) // 2].mean(1) > 0.05)[0]
    first = pixels[rows[0] + 10]
    strip = np.where(first.max(-1) < 60)[0]
    left, right = strip[0], strip[-1]  # the dark images are the second and the fourth
    third = (right - left + 1) // 3
    assert (first[left + 3 : left + third - 3] < 70).all()
    assert (first[left + third + 3 : right - third - 3] > 185).all()
    assert (first[right - third + 3 : right - 3] < 70).all()


def test_the_still_picture_shows_the_chosen_schedule() -> None:
    widget = points()
    before = widget.still()
    widget.schedule = "yours"
    widget.log_snr = [9.0, 8, 7, 6, -6, -7, -8]
    assert widget.still() != before


def test_the_stored_form_holds_its_state() -> None:
    widget = points(title="Dissolve </script>")
    widget.step, widget.schedule = 7.0, "yours"
    stored = widget.static_html()
    for text in ("&quot;step&quot;: 7.0", "&quot;schedule&quot;: &quot;yours&quot;"):
        assert text in stored
    assert repr(widget) == "Dissolve('Dissolve </script>')"
    assert points().alt == "60 points dissolve in noise, beside the log-SNR of their schedule."
