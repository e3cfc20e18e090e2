"""What the processes of these tests do. They import this file."""

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import safetensors
import torch
import torch.distributed as dist
from torch import nn

from course_lib.parallel import DataParallel, accumulate, ring_all_reduce_gloo
from course_lib.training import LostProcessError, fit

RINGS = [
    ((), torch.float32),
    ((2,), torch.float32),  # some chunks are empty
    ((3, 5), torch.float64),
    ((1001,), torch.float32),
    ((4, 6), torch.int64),
    ((0,), torch.float32),
]


def tensors(n, shape, dtype=torch.float32):
    """One for each process, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    return [(9 * torch.randn(shape, generator=generator)).to(dtype) for _ in range(n)]


def ring_over_gloo():
    """For each of RINGS: our sum, PyTorch's, whether ours left its argument, bytes sent."""
    results = []
    send = dist.isend
    for shape, dtype in RINGS:
        own = tensors(dist.get_world_size(), shape, dtype)[dist.get_rank()]
        before, theirs, sizes = own.clone(), own.clone(), []

        def counted(chunk, target, sizes=sizes):
            sizes.append(chunk.nbytes)
            return send(chunk, target)

        dist.isend = counted
        ours = ring_all_reduce_gloo(own.requires_grad_(dtype.is_floating_point))
        dist.isend = send
        dist.all_reduce(theirs)
        results.append((ours, theirs, torch.equal(own, before), sizes))
    return results


def surroundings(*given):
    """What a process finds."""
    return {
        "rank": dist.get_rank(),
        "world": dist.get_world_size(),
        "backend": dist.get_backend(),
        "environment": [os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")],
        "threads": torch.get_num_threads(),
        "main": getattr(sys.modules["__main__"], "__file__", None),
        "given": given,
        "pid": os.getpid(),
    }


def fail(how, rank=1):
    """One process ends badly, and the others wait for it."""
    if dist.get_rank() == rank:
        print("my last words", flush=True)
        if how == "raise":
            raise KeyError("no luck")
        if how == "exit":
            sys.exit(3)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "crash":
            faulthandler.disable()  # pytest's, which a copy of its process has
            ctypes.string_at(0)
        if how == "unpicklable":
            return threading.Lock()
        if how == "leave":  # without a word; the others notice first
            dist.destroy_process_group()
            time.sleep(0.5)
            raise ValueError("I left")
    dist.all_reduce(torch.ones(1))
    return "done"


def hang(folder):
    """Say that one is there, and wait."""
    Path(folder, f"{dist.get_rank()}").write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(100)


def start_another(folder):
    """Start a process that nobody waits for; end well, or not at all."""
    sleeper = subprocess.Popen(["sleep", "100"])
    Path(folder, f"{dist.get_rank()}").write_text(str(sleeper.pid), encoding="utf-8")
    if dist.get_rank() == 1:
        time.sleep(100)


class Unloadable:
    """It goes out, and never comes in."""

    def __reduce__(self):
        return int, ("one",)


def unloadable():
    """Something that only this process can hold."""
    return Unloadable()


def network(norm=False, dtype=torch.float64):
    """The same in every process."""
    middle = [nn.BatchNorm1d(6)] if norm else []
    net = nn.Sequential(nn.Linear(3, 6), *middle, nn.Tanh(), nn.Linear(6, 4), nn.Linear(4, 2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return net.to(dtype)


def batch(size=24, dtype=torch.float64):
    """The same in every process."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 5, generator=generator).to(dtype)


def loss(model, x):
    """The mean over examples."""
    return (model(x[:, :3]) - x[:, 3:]).square().mean()


def gradients(model):
    """Copies, in the order of parameters."""
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def gradients_side_by_side(dtype=torch.float64):
    """For each size of bucket: ours, PyTorch's, and those of one process on the whole batch."""
    x = batch(dtype=dtype)
    share = x.tensor_split(dist.get_world_size())[dist.get_rank()]
    whole = network(dtype=dtype)
    loss(whole, x).backward()
    results = []
    for bucket_bytes in (1, 60, 2**20):
        ours = DataParallel(network(dtype=dtype), bucket_bytes=bucket_bytes)
        loss(ours, share).backward()
        ours.finish()
        theirs = nn.parallel.DistributedDataParallel(
            network(dtype=dtype), bucket_cap_mb=bucket_bytes / 2**20
        )
        for _ in range(2):  # after the first it rebuilds its buckets, in the order of arrival
            theirs.zero_grad()
            loss(theirs, share).backward()
        results.append((gradients(ours), gradients(theirs), gradients(whole)))
    return results


class Whole(nn.Module):
    """On whole numbers all sums are exact, in whatever order."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        self.v = nn.Parameter(torch.tensor([[2.0], [1.0], [-1.0]]))

    def forward(self, x):
        return x @ self.w + (x @ self.v).squeeze(1)


def laws():
    """What else must hold, each a pair that must be equal, by name."""
    rank, n = dist.get_rank(), dist.get_world_size()
    found = {}

    x = torch.randint(-8, 8, (8 * n, 3), generator=torch.Generator().manual_seed(2)).float()
    share = x.tensor_split(n)[rank]
    whole, exact = Whole(), DataParallel(Whole())
    whole(x).square().mean().backward()
    exact(share).square().mean().backward()
    exact.finish()
    found["whole numbers, bit for bit"] = (gradients(exact), gradients(whole))

    model = network(norm=True)
    with torch.no_grad():
        for p in model.parameters():
            p += rank
    model[1].running_mean += rank
    model.register_buffer("not stored", torch.full((1,), float(rank)), persistent=False)
    shared = DataParallel(model)
    start = network(norm=True)
    start.register_buffer("not stored", torch.zeros(1), persistent=False)
    found["parameters of the first"] = (list(model.parameters()), list(start.parameters()))
    found["buffers of the first"] = (list(model.buffers()), list(start.buffers()))

    x = batch(8 * n)
    share = x.tensor_split(n)[rank]
    model = network()
    model[2].bias.requires_grad_(False)
    shared = DataParallel(model, bucket_bytes=50)
    found["names"] = (
        shared.names,
        ["0.weight", "0.bias", "2.weight", "3.weight", "3.bias"],
    )
    calls = []
    all_reduce = dist.all_reduce

    def counted(t, **options):
        calls.append((t.nbytes, len(shared.arrived), options))
        return all_reduce(t, **options)

    dist.all_reduce = counted
    loss(shared, share).backward()
    sent = [size for size, _, _ in calls]
    arrived = [number for _, number, _ in calls]
    found["sent while the backward pass runs"] = (
        (sent, arrived, [options for *_, options in calls]),
        ([80, 192, 192], [2, 3, 5], 3 * [{"async_op": True}]),
    )
    shared.finish()
    dist.all_reduce = all_reduce
    once = gradients(shared)
    found["frozen"] = (model[2].bias.grad, None)

    # Gradients that are there are added to, here and then averaged again, as PyTorch does.
    loss(shared, share).backward()
    shared.finish()
    found["added"] = (gradients(shared), [2 * g for g in once])

    shared.zero_grad()
    with shared.no_sync():
        loss(shared, share[:4]).backward()
        found["silent"] = (len(shared.arrived), 0)
    loss(shared, share[4:]).backward()
    shared.finish()
    found["no_sync"] = (gradients(shared), [2 * g for g in once])

    for parts in (1, 2, 4):
        shared.zero_grad()
        calls.clear()
        dist.all_reduce = counted
        mean = accumulate(shared, lambda x: loss(shared, x), list(share.split(8 // parts)))
        dist.all_reduce = all_reduce
        found[f"accumulated {parts}"] = ([*gradients(shared), mean], [*once, loss(shared, share)])
        found[f"talked once {parts}"] = (len(calls), 3)
    model = network()
    model[2].bias.requires_grad_(False)
    theirs = nn.parallel.DistributedDataParallel(model)
    accumulate(theirs, lambda x: loss(theirs, x), list(share.split(4)))
    found["theirs accumulated"] = (gradients(theirs), once)
    return found


def complaints():
    """What is said to each mistake."""
    found = {}
    shared = DataParallel(network(), bucket_bytes=1)

    def complaint(name, action):
        try:
            action()
        except (RuntimeError, ValueError) as error:
            found[name] = str(error)

    complaint("nothing", shared.finish)
    shared.model[3](torch.ones(1, 4).double()).sum().backward()
    complaint("unused", shared.finish)
    complaint("twice", lambda: shared.model[3](torch.ones(1, 4).double()).sum().backward())
    try:
        with shared.no_sync():
            raise KeyError
    except KeyError:
        found["averaging"] = shared.averaging
    return found


def one_after_the_other(calls):
    """What each function says."""
    return [function(*arguments) for function, arguments in calls]


def steps_in(checkpoint):
    """How many steps a state of training is old; 0 where there is none."""
    if not checkpoint.exists():
        return 0
    with safetensors.safe_open(checkpoint, framework="pt") as file:
        return len(file.get_tensor("losses"))


def lost_in_step(step):
    """The second process leaves in a step; the first says what ``fit`` says."""
    rank, calls = dist.get_rank(), []

    class Left(Exception):
        pass

    def leave(x, generator):
        calls.append(1)
        if rank == 1 and len(calls) == step:
            dist.destroy_process_group()
            raise Left
        return x

    model = Whole()
    model.loss = lambda x, generator: model(x).square().mean()
    options = {"steps": 9, "batch_size": 4, "transform": leave, "progress": False}
    try:
        fit(model, torch.ones(8, 3), device="cpu", **options)
    except LostProcessError as error:
        return f"LostProcessError {error.step}: {error}"
    except Left:
        return "left"
    return "nobody was lost"
