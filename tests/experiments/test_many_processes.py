"""What breaks with many processes breaks as the mathematics says."""

import re

import pytest

from course_lib.experiments import (
    examples_seen,
    forgotten_branch,
    gradient_gap,
    noise_of_average,
    sharded_state,
    train_or_die,
)
from course_lib.parallel import WorkerError, run_processes, state_bytes
from tests.parallel import jobs

pytestmark = pytest.mark.usefixtures("forked")


@pytest.mark.parametrize("n", [1, 2, 4])
def test_all_at_once(n):
    """In one start, for each takes its time."""
    sizes = [24, *([8] * (n - 1))]
    calls = [
        (gradient_gap, ()),
        (gradient_gap, ("plain", [16] * n)),
        (gradient_gap, ("weighted", sizes)),
        (gradient_gap, ("batch norm",)),
        (gradient_gap, ("plain", sizes)),
        (noise_of_average, (True,)),
        (noise_of_average, (False,)),
        (examples_seen, (True, 400)),
        (examples_seen, (False, 400)),
        (sharded_state, (0, 8, 3)),
        (sharded_state, (1, 8, 2 * n)),
        (sharded_state, (3, 8, 3)),
    ]
    for found in run_processes(jobs.one_after_the_other, n, calls):
        plain, by_size, weighted, norm, uneven, *rest = found
        assert max(plain, by_size, weighted) < 1e-14
        assert plain == by_size
        assert min(norm, uneven) > 0.05 or n == 1
        same, different, alike, apart, whole, first, third = rest
        assert same == pytest.approx(1, rel=0.08)
        assert different == pytest.approx(1 / n, rel=0.08)
        assert alike == [0, 400, *([0] * (n - 1))]
        # How often an example is drawn in n independent shares of 1 / n: binomial.
        assert sum(apart) == sum(k * times for k, times in enumerate(apart)) == 400
        assert apart[0] == pytest.approx(400 * (1 - 1 / n) ** n, abs=30)
        options = {"processes": n, "precision": "float32"}
        assert whole == state_bytes(3 * 64, stage=0, **options)
        assert first == state_bytes(2 * n * 64, stage=1, **options)
        assert third == state_bytes(3 * 64, stage=3, **options)


def test_the_forgetful_one_says_so():
    with pytest.raises(WorkerError) as caught:
        run_processes(forgotten_branch, 2, 1)
    assert caught.value.rank == 1
    assert "rank 1 has no gradient for branch.weight, branch.bias" in caught.value.reason
    assert run_processes(forgotten_branch, 2, 2) == 2 * ["all parameters have a gradient"]


@pytest.mark.parametrize(("doomed", "step"), [(0, 13), (1, 1), (1, 20)])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, doomed, step):
    """Also before the first checkpoint, and in the last step."""
    with pytest.raises(WorkerError, match=f"^rank {doomed} of 2 was killed by SIGKILL$"):
        run_processes(train_or_die, 2, str(tmp_path / "killed"), doomed, step)
    assert jobs.steps_in(tmp_path / "killed") == 5 * ((step - 1) // 5)
    resumed = run_processes(train_or_die, 2, str(tmp_path / "killed"))
    whole = run_processes(train_or_die, 2, str(tmp_path / "whole"))
    assert jobs.steps_in(tmp_path / "whole") == 20
    assert resumed == whole
    assert whole[0] == whole[1]
    assert len(whole[0]) == 3
    assert max(abs(w) for w in whole[0]) > 0.05


def test_the_default_step(tmp_path):
    with pytest.raises(WorkerError, match="rank 1 of 2 was killed by SIGKILL"):
        run_processes(train_or_die, 2, str(tmp_path / "run"), 1)
    assert jobs.steps_in(tmp_path / "run") == 10


def test_fit_has_a_clear_word(tmp_path):
    words = run_processes(jobs.lost_in_step, 2, 7)
    assert words[0].startswith("LostProcessError 7: another process of this run ended in step 7, ")
    assert words[1] == "left"


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (gradient_gap, ("odd",), "kind must be one of batch norm, plain, weighted, got 'odd'"),
        (gradient_gap, ("plain", [1, 2]), "sizes must have 1 entries, one a process, got [1, 2]"),
        (gradient_gap, ("plain", [0]), "sizes"),
        (noise_of_average, (1,), "same must be True or False, got 1"),
        (noise_of_average, (True, 1), "draws must be an integer of at least 2, got 1"),
        (examples_seen, (1,), "same must be True or False, got 1"),
        (examples_seen, (True, 0), "examples must be an integer of at least 1, got 0"),
        (forgotten_branch, (-1,), "forgetful must be an integer of at least 0, got -1"),
        (sharded_state, (2,), "stage must be 0, 1 or 3, got 2"),
        (sharded_state, (0, 0), "width must be an integer of at least 1, got 0"),
        (sharded_state, (0, 1, 0), "layers must be an integer of at least 1, got 0"),
        (train_or_die, ("x", -1), "doomed must be an integer of at least 0, got -1"),
        (train_or_die, ("x", 0, 0), "step must be an integer from 1 to 20, got 0"),
        (train_or_die, ("x", 0, 21), "step must be an integer from 1 to 20, got 21"),
    ],
)
def test_bad_arguments(monkeypatch, function, arguments, message):
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        function(*arguments)
