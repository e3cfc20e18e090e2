"""What the benchmarks share, by a clock that candidates move: each takes what it is told."""

from collections import Counter
from itertools import pairwise, permutations

import pytest
import torch

from benchmarks import _timing

SHARES = {"ours": 1.0, "other": 1.25, "third": 0.5}


class Clock:
    """A clock that candidates move, and the order in which they did."""

    def __init__(self, pace):
        self.now, self.order, self.pace = 0.0, [], pace

    def __call__(self):
        return self.now

    def candidate(self, name):
        """One call takes ``name``'s share of what this round takes."""

        def call():
            rounds = len(self.order) // len(SHARES)
            self.order.append(name)
            self.now += SHARES[name] * self.pace[rounds % len(self.pace)]

        return call


@pytest.fixture
def measured(monkeypatch):
    """Measure the three with rounds of a given pace: the clock, and what was found."""

    def run(pace, **options):
        clock = Clock(pace)
        monkeypatch.setattr(_timing.time, "process_time", clock)
        candidates = {name: clock.candidate(name) for name in SHARES}
        return clock, _timing.milliseconds(candidates, **options)

    return run


@pytest.mark.parametrize("pace", [(1.0,), (1.0, 3.0), (2.0, 1.0, 5.0)], ids=str)
def test_what_slows_a_whole_round_changes_no_ratio(measured, pace):
    _, medians = measured(pace, repetitions=12, warm_up=0)
    ratios = {name: value / medians["ours"] for name, value in medians.items()}
    assert ratios == pytest.approx(SHARES)


def test_the_first_is_told_by_its_own_median_in_milliseconds_without_the_warm_up(measured):
    _, medians = measured((900.0, 1.0, 2.0, 4.0), repetitions=3, warm_up=1)
    assert medians == pytest.approx({name: 2000 * share for name, share in SHARES.items()})


def test_each_comes_once_a_round_after_each_other_as_often_and_never_after_itself(measured):
    clock, _ = measured((1.0,), repetitions=1200, warm_up=0)
    rounds = [clock.order[i : i + 3] for i in range(0, 3600, 3)]
    assert all(sorted(names) == sorted(SHARES) for names in rounds)
    follows = Counter(pairwise(clock.order))
    assert set(follows) == set(permutations(SHARES, 2))
    assert max(follows.values()) < 1.15 * min(follows.values())


def test_one_alone_is_measured_too(monkeypatch):
    clock = Clock((1.0,))
    monkeypatch.setattr(_timing.time, "process_time", clock)
    medians = _timing.milliseconds({"other": clock.candidate("other")}, repetitions=3, warm_up=0)
    assert medians == {"other": pytest.approx(1250)}


@pytest.mark.parametrize("n", [100, 400])
def test_a_median_errs_as_medians_of_draws_do(n):
    """Two standard errors, from one set of draws: beside the spread of many sets' medians."""
    draws = 2 + 0.1 * torch.randn(20_000, n, generator=torch.Generator().manual_seed(0))
    told = [_timing.error_of_median(values) for values in draws[:200].tolist()]
    spread = draws.median(dim=1).values.std().item()
    assert sum(told) / len(told) == pytest.approx(2 * spread / 2.0, rel=0.03)
    assert _timing.error_of_median([3.0]) == 0


def test_equal_rounds_leave_nothing_open_and_others_are_told(measured, capsys):
    _, medians = measured((1.0, 3.0), repetitions=12, warm_up=0)
    assert medians.errors == pytest.approx(dict.fromkeys(SHARES, 0))
    medians.errors["third"] = 0.2
    assert not _timing.report("a step", medians)
    assert "0.50 ± 0.10 x ours" in capsys.readouterr().out
    medians |= {"third": 0.9 * medians["ours"]}
    assert _timing.report("a step", medians)
    assert not _timing.report("a step", dict(medians))


@pytest.mark.parametrize(("slack", "good"), [(0.0, False), (0.01, False), (0.03, True)])
def test_a_report_says_whether_ours_is_as_fast_as_all(capsys, slack, good):
    assert _timing.report("a step", {"ours": 1.02, "theirs": 1.0}, slack=slack) is good
    assert _timing.report("a step", {"ours": 1.0, "theirs": 1.0}, slack=slack)
    assert "0.98 x ours" in capsys.readouterr().out


def test_memory_is_kept_without_a_word_where_there_is_no_glibc(monkeypatch):
    monkeypatch.setattr(_timing.ctypes, "CDLL", lambda name: object())
    _timing.keep_memory()
