"""A tiny recipe for the tests, and ways to be killed. Run as a script, it is a process to kill."""

import functools
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from course_lib.training import RECIPES, Recipe, fit
from course_lib.training import files as files_module

STEPS = 30


class Net(nn.Module):
    """A small network that guesses the second coordinate from the first, with noise in its loss."""

    def __init__(self, loss_noise=0.1):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.loss_noise = loss_noise

    def loss(self, x, *, generator=None):
        noise = torch.randn(len(x), 1, generator=generator)
        return (self.net(x[:, :1] + self.loss_noise * noise) - x[:, 1:]).square().mean()


def points():
    x = torch.linspace(-2, 2, 33)
    return torch.stack([x, x.sin()], dim=1)


def jitter(x, generator):
    return x + 0.01 * torch.randn(x.shape, generator=generator)


def build():
    net = Net(loss_noise=0)
    if os.environ.get("RANK") == "1":  # fit must overwrite this with the parameters of rank 0
        net.net[0].weight.data += 1
    return net


TINY = Recipe(
    name="tiny",
    summary="A line through a sine",
    data="33 points of a sine",
    build=build,
    load=points,
    options={"steps": STEPS, "batch_size": 5, "lr": 0.02, "clip": 0.5, "ema": 0.9},
    evaluate=lambda model: {"mean squared error": model.loss(points()).item()},
    transform=jitter,
    dtype="float32",
)


def seeded_net():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return Net()


def train(checkpoint, transform=jitter, **changes):
    """One run whose every detail matters to its end; returns (model, history)."""
    options = {"steps": STEPS, "batch_size": 10, "lr": 0.02, "ema": 0.9, "clip": 0.5, "seed": 3}
    options |= {"weight_decay": 0.1, "checkpoint_every": 10, "progress": False, "device": "cpu"}
    model = seeded_net()
    history = fit(
        model, points(), transform=transform, checkpoint=checkpoint, **(options | changes)
    )
    return model, history


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in_a_step(checkpoint):
    calls = []

    @functools.wraps(jitter)  # the checkpoint remembers the transform by its name
    def deadly(x, generator):
        calls.append(1)
        if len(calls) == 17:
            die()
        return jitter(x, generator)

    train(checkpoint, transform=deadly)


def killed_while_writing(checkpoint):
    writes = []

    def sync(descriptor):  # the second file is half written when the process dies
        writes.append(1)
        if len(writes) == 2:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die()

    files_module.os.fsync = sync
    train(checkpoint)


def killed_before_replacing(checkpoint):
    writes = []
    replace = os.replace

    def late(*names):
        writes.append(1)
        if len(writes) == 2:
            die()
        replace(*names)

    files_module.os.replace = late
    train(checkpoint)


WAYS_TO_DIE = (killed_in_a_step, killed_while_writing, killed_before_replacing)


def kill_children(folder):
    """Die in every way, each in a child process of its own; return how many did not die."""
    import torch._dynamo  # noqa: F401 - a first step imports it: once here, not in each child

    survivors = 0
    for way in WAYS_TO_DIE:
        child = os.fork()  # quicker than to import torch anew
        if child == 0:
            way(folder / way.__name__)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        survivors += os.waitstatus_to_exitcode(status) != -signal.SIGKILL
    return survivors


def main(argv):
    torch.set_num_threads(1)
    if argv[0] == "kill":
        return kill_children(Path(argv[1]))
    from course_lib.__main__ import main as command_line

    RECIPES["tiny"] = TINY
    status = command_line(argv)
    threads = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
    left = [name for name in threads if "gloo" in name]
    if left:  # they hold tensors, and abort a Python that is at its end
        print(f"still there: {left}", file=sys.stderr)
        return 3
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
