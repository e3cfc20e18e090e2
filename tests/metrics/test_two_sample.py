"""Tests of two samples: the distance by its definition, and p-values that mean what they say."""

import doctest
import itertools

import pytest
import torch

from course_lib.metrics import energy_distance, permutation_power, permutation_test, two_sample
from tests.diffusion.conftest import randn, refuses, seeded


def energy(x, y):
    """The definition, pair by pair."""

    def mean(pairs):
        distances = [(a - b).norm().item() for a, b in pairs]
        return sum(distances) / len(distances)

    across = mean(itertools.product(x, y))
    return 2 * across - mean(itertools.combinations(x, 2)) - mean(itertools.combinations(y, 2))


def test_doctests():
    assert doctest.testmod(two_sample, extraglobs={"torch": torch}).failed == 0


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 2, 2)])
def test_the_energy_distance_is_its_definition(shape):
    x, y = randn(7, *shape), 0.5 + 2 * randn(5, *shape, seed=1)
    assert energy_distance(x, y) == pytest.approx(energy(x, y), rel=1e-12)
    assert energy_distance(y, x) == pytest.approx(energy_distance(x, y), rel=1e-12)
    assert energy_distance(x.float(), y.float()) == pytest.approx(energy(x, y), rel=1e-5)


def test_the_energy_distance_of_points_far_away_is_exact():
    """Distances by products would lose all digits there."""
    x, y = randn(30, 2), randn(30, 2, seed=1)
    assert energy_distance(x + 1e6, y + 1e6) == pytest.approx(energy_distance(x, y), rel=1e-6)


def test_the_energy_distance_has_mean_0_where_the_laws_agree():
    values = torch.tensor([energy_distance(*randn(2, 20, 2, seed=k)) for k in range(300)])
    assert abs(values.mean()) < 4 * values.std() / 300**0.5
    assert values.min() < 0 < values.max()
    assert energy_distance(randn(500, 2), 1 + randn(500, 2, seed=1)) > 0.5


def test_a_p_value_is_the_share_of_all_ways():
    """All 10 ways to deal 3 + 2 numbers out, beside many random ones."""
    x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[2.5], [4.0]])
    both, found = torch.cat([x, y]), energy(x, y)
    ways = []
    for chosen in itertools.combinations(range(5), 3):
        rest = [i for i in range(5) if i not in chosen]
        ways.append(energy(both[list(chosen)], both[rest]) >= found - 1e-9)
    assert 0 < sum(ways) < 10
    share = permutation_test(x, y, draws=5000, generator=seeded())
    assert share == pytest.approx(sum(ways) / 10, abs=0.03)


def test_the_way_that_was_found_counts():
    x, y = randn(40, 2), 5 + randn(40, 2, seed=1)
    assert permutation_test(x, y, draws=19, generator=seeded()) == pytest.approx(1 / 20)
    assert permutation_test(torch.zeros(4, 1), torch.zeros(3, 1), draws=7) == 1


def test_draws_are_reproducible():
    x, y = randn(20, 2), randn(25, 2, seed=1)
    p = permutation_test(x, y, generator=seeded(3))
    assert permutation_test(x, y, generator=seeded(3)) == p
    assert p * 201 == pytest.approx(round(p * 201))
    options = {"size": 10, "repeats": 8, "draws": 9, "level": 0.3}
    share = permutation_power(x, y, generator=seeded(3), **options)
    assert permutation_power(x, y, generator=seeded(3), **options) == share


def test_false_alarms_are_as_many_as_allowed_and_shifts_are_found():
    """The level holds, and the power grows with the shift."""
    x, y = randn(3000, 2), randn(3000, 2, seed=1)
    options = {"size": 40, "repeats": 150, "draws": 39}
    none = permutation_power(x, y, generator=seeded(), level=0.2, **options)
    assert 0.1 < none < 0.3
    strict = permutation_power(x, y, generator=seeded(), **options)
    assert strict < 0.12
    shares = [
        permutation_power(x, y + shift, generator=seeded(), **options) for shift in (0.3, 0.8)
    ]
    assert strict + 0.05 < shares[0] < shares[1] - 0.2
    assert shares[1] > 0.9
    assert permutation_power(x, y, size=40, repeats=3, draws=9, level=1.0) == 1


def test_bad_arguments_are_named():
    x = torch.zeros(3, 2)
    for function in (energy_distance, permutation_test):
        with refuses("y must have shape [B, 2], got [3, 3]"):
            function(x, torch.zeros(3, 3))
        with refuses("y must be torch.float32 like the model, got torch.float64"):
            function(x, x.double())
        with refuses("x must be finite, got NaN or infinite values"):
            function(x + torch.inf, x)
        for pair in ((x[:1], x), (x, x[:1])):
            with refuses(
                f"x and y must hold two samples at least, got {len(pair[0])} and {len(pair[1])}"
            ):
                function(*pair)
        with refuses("x must have shape [N, *event], got [3]"):
            function(torch.zeros(3), torch.zeros(3))
    with refuses("draws must be an integer of at least 1, got 0"):
        permutation_test(x, x, draws=0)
    with refuses("size must be an integer from 2 to 3, got 4"):
        permutation_power(x, torch.zeros(4, 2), size=4)
    with refuses("size must be an integer from 2 to 2, got 3"):
        permutation_power(x, x[:2], size=3)
    with refuses("size must be an integer from 2 to 3, got 1"):
        permutation_power(x, x, size=1)
    with refuses("level must be a number from 0 to 1, got 5"):
        permutation_power(x, x, size=2, level=5)
    with refuses("repeats must be an integer of at least 1, got 0"):
        permutation_power(x, x, size=2, repeats=0)
