"""Two-dimensional toy distributions, each a way to draw points and, beside it, its exact density.

Every toy is built from parts whose densities are known, so that a model can be compared with the
truth and not with a picture of it:

- a mixture of Gaussians (``eight_gaussians``, ``grid_gaussians``),
- a uniform distribution on the filled cells of a bitmap (``checkerboard``, ``letters``),
- a simple distribution bent by a map that keeps areas. Such a map has the Jacobian determinant 1,
  so that the change of variables leaves the density as it is (all others).

The bending map of ``rings``, ``two_moons``, ``spirals`` and ``swiss_roll`` is a variant of polar
coordinates. In polar coordinates dx dy = r dr dφ; with the *area* a = r²/2 in the place of the
radius, da = r dr, hence dx dy = da dφ: no factor is left over. A noise of standard deviation s in
the radius r becomes one of s·r in the area.

The table at the end of the file gives every toy its family and its numbers.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from course_lib.checks import check_floats, check_generator, check_int, check_one_of

__all__ = ["TOYS", "toy", "toy_log_prob"]


def toy(name: str, n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw points from a toy distribution.

    The toys are centred and about as wide as a standard normal prior: practically all points lie
    in [-3, 3]². ``TOYS`` lists the names.

    Args:
        name: One of ``TOYS``.
        n: Number of points, at least 1.
        generator: Source of randomness, on the CPU; None takes PyTorch's global generator.

    Returns:
        Points, float32 ``[n, 2]``.

    Example:
        >>> toy("two_moons", 500, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([500, 2])

    """
    check_one_of("name", name, TOYS)
    check_int("n", n, minimum=1)
    check_generator(generator, "cpu")
    sample, _, parameters = _TOYS[name]
    return sample(n, generator, **parameters).float()


def toy_log_prob(name: str, x: Tensor) -> Tensor:
    """Exact log-density of a toy distribution, in closed form for every name in ``TOYS``.

    Differentiable in ``x``, except for the two toys that are uniform on cells (``checkerboard``,
    ``letters``): these are constant inside and -inf outside.

    Args:
        name: One of ``TOYS``.
        x: Points ``[B, 2]``, finite, float32 or float64.

    Returns:
        Log-density ``[B]`` in nats, with the dtype of ``x``.

    Example:
        >>> toy_log_prob("checkerboard", torch.tensor([[0.5, 0.5], [0.5, 1.5]])).exp()
        tensor([0.1250, 0.0000])

    """
    check_one_of("name", name, TOYS)
    check_floats("x", x, (None, 2))
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x must be float32 or float64, got {x.dtype}")
    _, log_prob, parameters = _TOYS[name]
    return log_prob(x, **parameters)


# --- Mixtures of Gaussians ---------------------------------------------------------------------


def _mixture(n, generator, centres, std):
    """Equally likely round Gaussians."""
    centre = centres[torch.randint(len(centres), (n,), generator=generator)]  # [n, 2]
    return centre + std * torch.randn(n, 2, generator=generator)


def _mixture_log_prob(x, centres, std):
    parts = _normal_log_prob(x[:, None], centres.to(x), std).sum(2)  # [B, K]
    return parts.logsumexp(1) - math.log(len(centres))


# --- Uniform on the filled cells of a bitmap ---------------------------------------------------


def _cells(n, generator, bitmap, width, height):
    """Uniform on the cells marked # in a drawing, centred; width and height are those of a cell."""
    filled = _to_booleans(bitmap)
    cells = filled.nonzero()  # [K, 2]: column and row
    cell = cells[torch.randint(len(cells), (n,), generator=generator)]
    # The middle of one of 2^16 slots: exact in float32, so that no point is rounded onto an edge.
    inside = (torch.randint(2**16, (n, 2), generator=generator) + 0.5) / 2**16
    return (cell + inside - torch.tensor(filled.shape) / 2) * torch.tensor([width, height])


def _cells_log_prob(x, bitmap, width, height):
    filled = _to_booleans(bitmap)
    size, count = x.new_tensor([width, height]), x.new_tensor(filled.shape)
    cell = (x / size + count / 2).floor()  # column and row, perhaps outside of the drawing:
    cell = cell.clamp(min=-torch.ones_like(count), max=count).long() + 1
    framed = pad(filled, (1, 1, 1, 1)).to(x.device)  # a frame of empty cells stands for all of it
    hit = framed[cell[:, 0], cell[:, 1]]
    level = -math.log(filled.sum().item() * width * height)
    return torch.where(hit, x.new_tensor(level), -math.inf)


def _to_booleans(drawing):
    """Booleans ``[columns, rows]`` with the bottom row first, so that indices run like x and y."""
    rows = drawing.split()[::-1]
    return torch.tensor([[mark == "#" for mark in row] for row in rows]).T


# --- Bent by maps that keep areas --------------------------------------------------------------


def _rings(n, generator, radii, width):
    """Equally likely concentric rings."""
    r = torch.tensor(radii)[torch.randint(len(radii), (n,), generator=generator)]
    area = _area_near(r, width, generator)
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    return _to_plane(area, angle)


def _rings_log_prob(x, radii, width):
    area, _ = _to_area_and_angle(x)
    parts = _area_log_prob(area[:, None], x.new_tensor(radii), width)  # [B, K]
    return parts.logsumexp(1) - math.log(len(radii)) - math.log(2 * math.pi)


def _moons(n, generator, centre, radius, width):
    """Two half circles, one the other turned by 180°, with rounded ends.

    The angle is measured from the top of the moon: uniform on [-π/2, π/2] plus normal noise.
    """
    area = _area_near(torch.full((n,), radius), width, generator)
    angle = math.pi * (torch.rand(n, generator=generator) - 0.5)
    angle = angle + width / radius * torch.randn(n, generator=generator)
    upper = _to_plane(area, angle).flip(1) + torch.tensor(centre)  # flip: angle 0 points up
    return upper * (2.0 * torch.randint(2, (n, 1), generator=generator) - 1.0)


def _moons_log_prob(x, centre, radius, width):
    parts = []
    for moon in (x, -x):
        area, angle = _to_area_and_angle((moon - x.new_tensor(centre)).flip(1))
        # Uniform plus normal noise has the density [Φ(a) - Φ(-b)] / π, with a and b the distances
        # to the nearer and the farther end in standard deviations. Φ(-b) < Φ(-19) is left out.
        to_end = (math.pi / 2 - angle.abs()) / (width / radius)
        log_p_angle = torch.special.log_ndtr(to_end) - math.log(math.pi)
        parts.append(_area_log_prob(area, x.new_tensor(radius), width) + log_p_angle)
    return torch.stack(parts).logsumexp(0) - math.log(2)


def _spirals(n, generator, arms, start, stop, radius, width):
    """Archimedean spirals r = radius · t / stop, with t running from ``start`` to ``stop``.

    t² is uniform, which spreads the points evenly along an arm.
    """
    t = (start**2 + (stop**2 - start**2) * torch.rand(n, generator=generator)).sqrt()
    area = _area_near(radius * t / stop, width, generator)
    return _to_plane(area, t + _turn(n, generator, arms))


def _spirals_log_prob(x, arms, start, stop, radius, width):
    area, angle = _to_area_and_angle(x)
    full_turns = 2 * math.pi * torch.arange(stop / (2 * math.pi) + 1).to(x)
    parts = []
    for k in range(arms):
        t = (angle - 2 * math.pi * k / arms)[:, None] + full_turns  # [B, T]
        on_arm = (start <= t) & (t < stop)  # a point lies beside one or more windings
        t = t.where(on_arm, stop)  # keeps the numbers finite that the last line throws away
        log_p_t = (2 * t / (stop**2 - start**2)).log()
        winding = _area_log_prob(area[:, None], radius * t / stop, width) + log_p_t
        parts.append(winding.where(on_arm, -math.inf))
    return torch.cat(parts, 1).logsumexp(1) - math.log(arms)


def _pinwheel(n, generator, arms, twist, centre, std):
    """Gaussian blades, long along the radius, then twisted by the angle twist · r²."""
    blade = torch.tensor(centre) + torch.tensor(std) * torch.randn(n, 2, generator=generator)
    return _rotate(blade, _turn(n, generator, arms) + twist * blade.square().sum(1))


def _pinwheel_log_prob(x, arms, twist, centre, std):
    # A rotation by an angle that depends on the radius alone keeps areas and radii: turn it back.
    straight = _rotate(x, -twist * x.square().sum(1))
    parts = []
    for k in range(arms):
        blade = _rotate(straight, x.new_tensor(-2 * math.pi * k / arms))
        parts.append(_normal_log_prob(blade, x.new_tensor(centre), x.new_tensor(std)).sum(1))
    return torch.stack(parts).logsumexp(0) - math.log(arms)


# --- Parts -------------------------------------------------------------------------------------


def _normal_log_prob(x, mean, std):
    log_std = torch.as_tensor(std, dtype=x.dtype, device=x.device).log()
    return -0.5 * ((x - mean) / std) ** 2 - log_std - 0.5 * math.log(2 * math.pi)


def _turn(n, generator, arms):
    """The directions of ``arms`` equally likely arms."""
    return 2 * math.pi / arms * torch.randint(arms, (n,), generator=generator)


def _rotate(x, angle):
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], 1)


def _to_plane(area, angle):
    """The point at radius √(2 · area) in the direction ``angle``: Jacobian determinant 1."""
    return (2 * area).sqrt()[:, None] * torch.stack([angle.cos(), angle.sin()], 1)


def _to_area_and_angle(x):
    return x.square().sum(1) / 2, torch.atan2(x[:, 1], x[:, 0])


def _area_near(r, width, generator):
    """Areas of noise ``width`` in the radius around r; one below 0 is mirrored at 0."""
    return (r**2 / 2 + width * r * torch.randn(len(r), generator=generator)).abs()


def _area_log_prob(area, r, width):
    """Log-density of ``_area_near``: the normal one and what the mirror adds to it."""
    mean, std = r**2 / 2, width * r
    return torch.logaddexp(_normal_log_prob(area, mean, std), _normal_log_prob(-area, mean, std))


# --- The table ---------------------------------------------------------------------------------

_EIGHTHS = torch.arange(8).double() * math.pi / 4
_CIRCLE = torch.stack([_EIGHTHS.cos(), _EIGHTHS.sin()], 1)
_GRID = torch.cartesian_prod(torch.arange(-2.0, 3.0), torch.arange(-2.0, 3.0))

_SQUARES = """
.#.#
#.#.
.#.#
#.#.
"""

_WORD = """
#####.#.....#####.#...#
#.....#.....#...#.#...#
#.....#.....#...#.#...#
####..#.....#...#.#.#.#
#.....#.....#...#.#.#.#
#.....#.....#...#.##.##
#.....#####.#####.#...#
"""

_TOYS = {
    "two_moons": (
        _moons,
        _moons_log_prob,
        {"centre": (-0.75, -0.375), "radius": 1.5, "width": 0.12},
    ),
    "swiss_roll": (
        _spirals,
        _spirals_log_prob,
        {"arms": 1, "start": 1.5 * math.pi, "stop": 4.5 * math.pi, "radius": 2.6, "width": 0.08},
    ),
    "checkerboard": (
        _cells,
        _cells_log_prob,
        {"bitmap": _SQUARES, "width": 1.0, "height": 1.0},
    ),
    "eight_gaussians": (
        _mixture,
        _mixture_log_prob,
        {"centres": 2 * _CIRCLE, "std": 0.2},
    ),
    "pinwheel": (
        _pinwheel,
        _pinwheel_log_prob,
        {"arms": 5, "twist": 0.3, "centre": (1.4, 0.0), "std": (0.35, 0.12)},
    ),
    "rings": (
        _rings,
        _rings_log_prob,
        {"radii": (0.6, 1.2, 1.8, 2.4), "width": 0.08},
    ),
    "spirals": (
        _spirals,
        _spirals_log_prob,
        {"arms": 2, "start": 0.5 * math.pi, "stop": 3 * math.pi, "radius": 2.6, "width": 0.08},
    ),
    "grid_gaussians": (
        _mixture,
        _mixture_log_prob,
        {"centres": _GRID, "std": 0.1},
    ),
    "letters": (
        _cells,
        _cells_log_prob,
        {"bitmap": _WORD, "width": 0.25, "height": 0.5},
    ),
}

TOYS = tuple(_TOYS)
"""The names that ``toy`` and ``toy_log_prob`` know."""
