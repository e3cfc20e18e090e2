"""Schedules, DDPM, DDIM and the U-Net against diffusers."""

import pytest
import torch
from torch import nn

from course_lib.diffusion import (
    DDPM,
    DiscreteSchedule,
    combine,
    convert,
    ddim_invert,
    ddim_sample,
    ddim_step,
    ddim_times,
    ddpm_sample,
)
from course_lib.nn import TimeEmbedding, UNet

pytest.importorskip("diffusers", reason="parity needs the test extra: pip install -e .[test]")

from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler

from benchmarks.diffusion import in_diffusers

EXACT = {"rtol": 1e-9, "atol": 1e-9}  # in double precision
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # in single precision
T = 1000
KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}  # theirs: ours
GIVEN = torch.linspace(0.3, 0.01, T)  # betas that fall, and leave nothing of the data

SCHEDULES = {
    "linear": (DiscreteSchedule.linear(T), {"beta_schedule": "linear"}),
    "cosine": (DiscreteSchedule.cosine(T), {"beta_schedule": "squaredcos_cap_v2"}),
    "other ends": (
        DiscreteSchedule.linear(T, beta_start=1e-3, beta_end=0.01),
        {"beta_start": 1e-3, "beta_end": 0.01},
    ),
    "given": (DiscreteSchedule(GIVEN[-50:]), {"trained_betas": GIVEN[-50:].tolist()}),
}


@pytest.fixture(autouse=True)
def _same_start():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def trained(module, *, spread=0.1):
    """The same module with weights of which none is 0 or 1 any more."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return module


def their_scheduler(kind, schedule, **options):
    """A scheduler of diffusers with our betas, its own cumulative product in double precision.

    In single precision 1 − ᾱ has an error of up to 1e-3 of its size at the first times.
    """
    options = {"clip_sample": False, **options}
    theirs = kind(len(schedule), trained_betas=schedule.betas.tolist(), **options)
    theirs.betas = theirs.betas.double()
    theirs.alphas_cumprod = torch.cumprod(1 - theirs.betas, 0)
    return theirs


# -------------------------------------------------------------------------------- the schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedules_agree(name):
    ours, options = SCHEDULES[name]
    theirs = DDPMScheduler(len(ours), **options)
    torch.testing.assert_close(ours.betas, theirs.betas, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(ours.alphas, theirs.alphas, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.alpha_bars, theirs.alphas_cumprod, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_noise_and_v_agree(name):
    schedule, _ = SCHEDULES[name]
    theirs = their_scheduler(DDPMScheduler, schedule)
    t = torch.tensor([0, 1, 20, len(schedule) - 2, len(schedule) - 1])
    x0, eps = draw(5, 1, 4, 4), draw(5, 1, 4, 4)
    x_t, v = theirs.add_noise(x0, eps, t), theirs.get_velocity(x0, eps, t)
    torch.testing.assert_close(schedule.noised(x0, t, eps), x_t, **EXACT)
    torch.testing.assert_close(combine("v", x0, eps, t, schedule), v, **EXACT)
    told = {"x_t": x_t, "t": t, "path": schedule}
    torch.testing.assert_close(convert(eps, source="eps", target="v", **told), v, **EXACT)
    torch.testing.assert_close(convert(v, source="v", target="eps", **told), eps, **EXACT)


# ------------------------------------------------------------------------------------ one step


def model_of(schedule, predicts, variance="posterior"):
    """A model, and its network, which is nothing but a formula."""

    def net(x_t, t):
        return torch.sin(3 * x_t + t.to(x_t).reshape(-1, 1, 1, 1)) + 0.5

    return DDPM(net, schedule, predicts=predicts, variance=variance).double(), net


@pytest.mark.parametrize("clip", [None, 1.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("variance", "theirs"), [("posterior", "fixed_small"), ("beta", "fixed_large")]
)
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_step_of_ddpm_agrees(name, variance, theirs, kind, clip):
    schedule, _ = SCHEDULES[name]
    model, net = model_of(schedule, KINDS[kind], variance)
    scheduler = their_scheduler(
        DDPMScheduler,
        schedule,
        prediction_type=kind,
        variance_type=theirs,
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
    )
    x_t = draw(3, 1, 2, 2)
    for t in (0, 1, 2, 500, T - 2, T - 1):
        output, generator = net(x_t, torch.full((3,), t)), torch.Generator()
        stepped = scheduler.step(output, t, x_t, generator=generator.manual_seed(t)).prev_sample
        noise = torch.randn(x_t.shape, generator=generator.manual_seed(t), dtype=x_t.dtype) * (
            t > 0
        )
        mean, var = model.reverse(x_t, t, clip=clip)
        torch.testing.assert_close(mean + var.sqrt() * noise, stepped, **EXACT)
        several = torch.full((3,), t)  # a time for each, which goes another way
        for ours, one in zip(model.reverse(x_t, several, clip=clip), (mean, var), strict=True):
            torch.testing.assert_close(ours, one, **EXACT)
        if t or variance == "beta":  # theirs is never below 1e-20, where ours is 0
            expected = scheduler._get_variance(t).expand(var.shape)
            torch.testing.assert_close(var, expected, rtol=1e-9, atol=0)


def test_a_run_of_ddpm_agrees():
    schedule, _ = SCHEDULES["given"]
    model, net = model_of(schedule, "eps")
    scheduler = their_scheduler(DDPMScheduler, schedule, clip_sample=True)
    x = z = draw(3, 1, 2, 2)
    generator = torch.Generator().manual_seed(1)
    states = ddpm_sample(model, z.shape, z=z, clip=1.0, generator=copy_of(generator))
    assert torch.equal(next(states), z)
    for t, ours in zip(scheduler.timesteps, states, strict=True):
        x = scheduler.step(net(x, t.expand(3)), t, x, generator=generator).prev_sample
        torch.testing.assert_close(ours, x, **EXACT)


def copy_of(generator):
    return torch.Generator().set_state(generator.get_state())


# ---------------------------------------------------------------------------------------- DDIM


def trailing(kind, schedule, steps, **options):
    """A scheduler with the same times as ``ddim_times``: theirs agree where steps divides T."""
    theirs = their_scheduler(kind, schedule, timestep_spacing="trailing", **options)
    theirs.set_timesteps(steps)
    return theirs


def at(schedule, times):
    """(a, b) at each time."""
    t = torch.tensor(times, dtype=torch.float64)
    return zip(schedule.a(t).tolist(), schedule.b(t).tolist(), strict=True)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [5, 20, T])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_step_of_ddim_agrees(name, steps, kind, eta):
    """Their step takes that from a time to the one T // steps before it."""
    schedule, _ = SCHEDULES[name]
    scheduler = trailing(DDIMScheduler, schedule, steps, prediction_type=kind)
    times = ddim_times(T, steps)
    assert scheduler.timesteps.tolist() == times[::-1]
    points = [(1.0, 0.0), *at(schedule, times)]
    x_t, output, noise = draw(3, 1, 2, 2), draw(3, 1, 2, 2), draw(3, 1, 2, 2)
    for i in {0, 1, steps // 2, steps - 1}:
        t = times[i]
        x_0 = convert(output, source=KINDS[kind], target="x0", x_t=x_t, t=t, path=schedule)
        ours = ddim_step(x_t, x_0, now=points[i + 1], then=points[i], eta=eta, noise=noise)
        theirs = scheduler.step(output, t, x_t, eta=eta, variance_noise=noise if eta else None)
        torch.testing.assert_close(ours, theirs.prev_sample, **EXACT)
        torch.testing.assert_close(x_0, theirs.pred_original_sample, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("eta", "clip"), [(0.0, None), (0.0, 0.8), (0.7, None), (1.0, 0.8)])
def test_a_run_of_ddim_agrees(kind, eta, clip):
    """Where x_0 is cut off, ours takes the noise that belongs to what is left of it.

    Theirs does so with ``use_clipped_model_output``; without, it keeps the network's own.
    """
    schedule, _ = SCHEDULES["linear"]
    model, net = model_of(schedule, KINDS[kind])
    scheduler = trailing(
        DDIMScheduler,
        schedule,
        10,
        prediction_type=kind,
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
    )
    x = z = draw(3, 1, 2, 2)
    generator = torch.Generator().manual_seed(1)
    states = ddim_sample(
        model, z.shape, steps=10, eta=eta, z=z, clip=clip, generator=copy_of(generator)
    )
    assert torch.equal(next(states), z)
    for t, ours in zip(scheduler.timesteps, states, strict=True):
        output, noise = net(x, t.expand(3)), None
        if eta:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = scheduler.step(
            output, t, x, eta=eta, variance_noise=noise, use_clipped_model_output=True
        ).prev_sample
        torch.testing.assert_close(ours, x, **EXACT)


@pytest.mark.parametrize("steps", [1, 10, 50, T])
def test_inverted_ddim_agrees(steps):
    """Theirs too asks the network at the time where a step ends.

    Of a network that predicts x_0 or v, eps is worked out from x by either with other numbers: ours
    take those of the time that the network was asked at, theirs those of the state itself, which
    in the first step, from the data, have b = 0. So only eps is compared.
    """
    schedule, _ = SCHEDULES["linear"]
    model, net = model_of(schedule, "eps")
    scheduler = trailing(DDIMInverseScheduler, schedule, steps)
    assert scheduler.timesteps.tolist() == ddim_times(T, steps)
    x = z = draw(3, 1, 2, 2)
    states = ddim_invert(model, x, steps=steps)
    assert torch.equal(next(states), z)
    for t, ours in zip(scheduler.timesteps, states, strict=True):
        x = scheduler.step(net(x, t.expand(3)), t, x).prev_sample
        torch.testing.assert_close(ours, x, **EXACT)


# ------------------------------------------------------------------------------------ the U-Net


NETS = {
    "28": lambda: UNet((1, 28, 28), widths=(16, 32, 64)),
    "28, classes, two blocks": lambda: UNet(
        (1, 28, 28), widths=(8, 16, 16), blocks=2, n_classes=10, groups=4
    ),
    "8": lambda: UNet((1, 8, 8), widths=(32, 64)),
    "8, classes": lambda: UNet((1, 8, 8), widths=(16, 32), n_classes=3),
    "8, two blocks": lambda: UNet((1, 8, 8), widths=(16, 32), blocks=2),
    "one width": lambda: UNet((3, 5, 6), widths=(16,), blocks=2),
}
TIMES = torch.tensor([0, 1, 10, 321, 999])


def labels(net):
    return None if net.time.n_classes is None else torch.randint(net.time.n_classes, (len(TIMES),))


class Waves(nn.Module):
    """Our sines and cosines, which follow the network's precision; theirs stay in single."""

    def __init__(self, time):
        super().__init__()
        self.waves = time.waves

    def forward(self, t):
        return self.waves(t)


@pytest.mark.parametrize("name", NETS)
def test_the_unet_agrees(name):
    net = trained(NETS[name]())
    theirs, x, y = in_diffusers(net), torch.randn(len(TIMES), *net.event_shape), labels(net)
    ours = net(x, TIMES, y)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs(x, TIMES, y).sample, **CLOSE)


@pytest.mark.parametrize("name", NETS)
def test_the_unet_and_its_gradients_agree_in_double_precision(name):
    net = trained(NETS[name]())
    theirs = nn.Module.to(in_diffusers(net), torch.float64)
    net = net.double()
    theirs.time_proj = Waves(net.time)
    x, y = draw(len(TIMES), *net.event_shape), labels(net)
    ours, other = net(x, TIMES, y), theirs(x, TIMES, y).sample
    torch.testing.assert_close(ours, other, **EXACT)
    ours.square().sum().backward()
    other.square().sum().backward()
    # Theirs has three matrices for queries, keys and values, ours one: their squares add up.
    sizes = [sum((p.grad**2).sum() for p in side.parameters()) for side in (net, theirs)]
    torch.testing.assert_close(*sizes, **EXACT)
    torch.testing.assert_close(net.first.weight.grad, theirs.conv_in.weight.grad, **EXACT)


@pytest.mark.parametrize("name", NETS)
def test_the_unet_is_as_large_as_theirs(name):
    net = NETS[name]()
    theirs = in_diffusers(net)
    assert count(net) == count(theirs)
    assert count(net.middle) == count(theirs.mid_block)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_waves_of_time_agree():
    time, theirs = TimeEmbedding(32, 8), in_diffusers(UNet((1, 4, 4), widths=(32,))).time_proj
    assert torch.equal(time.waves(TIMES), theirs(TIMES))
