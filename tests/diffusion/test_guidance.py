"""Guidance on mixtures, where every density is known: what it is, and what it is not."""

import math

import pytest
import torch

from course_lib.diffusion import (
    DDPM,
    EDM,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Denoiser,
    DiscreteSchedule,
    EDMPath,
    FlowMatching,
    IdealDenoiser,
    NoisedClassifier,
    PredictionError,
    StraightPath,
    SubVPPath,
    VEPath,
    VPPath,
    class_gradient,
    ddim_invert,
    ddim_sample,
    ddpm_sample,
    divergence,
    dpm_solver_sample,
    euler_maruyama,
    guide,
    heun_sample,
    last,
    ode_encode,
    ode_sample,
    on_path,
    predictor_corrector,
)
from course_lib.nn import TimeMLP, UNet
from tests.diffusion.conftest import randn, refuses, seeded

CENTRES = torch.tensor([[-1.0, 0.0], [1.2, 0.3], [0.2, 1.0]], dtype=torch.float64)
LABELS, STD = torch.tensor([0, 1, 1]), 0.4
PATHS = {
    "VP": (VPPath(), torch.tensor([0.02, 0.1, 0.3, 0.5, 0.8, 1.0]).double()),
    "sub-VP": (SubVPPath(), torch.tensor([0.05, 0.1, 0.3, 0.5, 0.8, 1.0]).double()),
    "VE": (VEPath(), torch.tensor([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]).double()),
    "EDM": (EDMPath(), torch.tensor([0.002, 0.1, 0.5, 1.0, 5.0, 80.0]).double()),
    "straight": (StraightPath(), torch.tensor([0.01, 0.1, 0.3, 0.5, 0.8, 0.99]).double()),
    "schedule": (DiscreteSchedule.linear(50), torch.tensor([0, 1, 7, 30, 48, 49])),
}
KINDS = ("eps", "x0", "v", "score", "velocity")
each_path = pytest.mark.parametrize("name", PATHS)
each_kind = pytest.mark.parametrize("predicts", KINDS)
Y = torch.tensor([0, 1, 0, 1, 0, 1])


class Says(torch.nn.Module):
    """The ideal network of a path, in the words of another prediction; it counts its calls."""

    def __init__(self, path, predicts):
        super().__init__()
        self.ideal = Denoiser(IdealDenoiser(CENTRES, path, std=STD, labels=LABELS), path).double()
        self.predicts, self.event_shape, self.null_class = predicts, (2,), 2
        self.seen = []

    def forward(self, x, t, y=None):
        self.seen.append((len(x), y))
        return self.ideal.predict(x, t, target=self.predicts, y=y)


def mixture(path, predicts="eps"):
    return Denoiser(Says(path, predicts), path, predicts=predicts).double()


def clouds(path, x, t):
    """Log p_t(x | y) and log p(y), written out: ``[B, classes]`` and ``[classes]``."""
    a, b = path.a(t.double())[:, None], path.b(t.double())[:, None]
    cloud = torch.distributions.Normal(a[:, None] * CENTRES, (a**2 * STD**2 + b**2).sqrt()[:, None])
    each = cloud.log_prob(x[:, None]).sum(2)
    given = torch.stack([each[:, :1].logsumexp(1), each[:, 1:].logsumexp(1) - math.log(2)], dim=1)
    return given, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64).log()


def tilted_score(path, x, t, y, w):
    """∇ of log p_t(x) + w (log p_t(x | y) − log p_t(x)), by automatic differentiation."""
    x = x.detach().requires_grad_()
    given, prior = clouds(path, x, t)
    marginal = (given + prior).logsumexp(1)
    log_density = marginal + w * (given.gather(1, y[:, None])[:, 0] - marginal)
    return torch.autograd.grad(log_density.sum(), x)[0]


def close(got, wanted, **tolerances):
    torch.testing.assert_close(got, wanted, **({"rtol": 1e-6, "atol": 1e-6} | tolerances))


# --- the guided field --------------------------------------------------------------------------


@each_path
@each_kind
@pytest.mark.parametrize("scale", [0.0, 1.0, 4.5, -1.0])
def test_both_ways_give_the_gradient_of_the_tilted_noised_density(name, predicts, scale):
    """0 is the marginal's score and 1 the conditional's, whatever the network predicts."""
    path, t = PATHS[name]
    if name == "VE" and predicts == "score":
        t = t.clamp(min=0.1)
    model, x = mixture(path, predicts), 1.5 * randn(6, 2)
    wanted = tilted_score(path, x, t, Y, scale)
    free = ClassifierFreeGuidance(model, scale)
    exact = ClassifierGuidance(model, model.net.ideal.net.logits, scale)
    tolerance = {"rtol": 1e-5, "atol": 1e-5 * wanted.abs().max().item()}
    for guided in (free, exact):
        assert guided.predicts == predicts
        assert guided.path is path
        close(guided.predict(x, t, target="score", y=Y), wanted, **tolerance)
        close(guided(x, t, Y), guided.predict(x, t, target=predicts, y=Y), rtol=0, atol=0)
    for target in KINDS:
        first, second = (guided.predict(x, t, target=target, y=Y) for guided in (free, exact))
        close(first, second, atol=1e-6 * first.abs().max().item())


def test_the_ends_of_the_scale_are_the_model_itself():
    path, t = PATHS["EDM"]
    model, x = mixture(path), randn(6, 2)
    for scale, y in ((0.0, None), (0.0, torch.full((6,), 2)), (1.0, Y)):
        guided = ClassifierFreeGuidance(model, scale).predict(x, t, y=Y)
        close(guided, model.predict(x, t, y=y), rtol=1e-12, atol=1e-12)
    assert torch.equal(
        ClassifierFreeGuidance(model, 1).predict(x, t, y=Y), model.predict(x, t, y=Y)
    )


def test_the_mixing_is_linear():
    null, label = randn(3, 2), randn(3, 2, seed=1)
    close(guide(null, label, 2.5), 2.5 * label - 1.5 * null)
    assert torch.equal(guide(null, label, 0.0), null)
    close(guide(null, label, 1.0), label, rtol=1e-12, atol=1e-12)


# --- one call ----------------------------------------------------------------------------------


def test_both_branches_are_one_call_of_twice_the_batch():
    path, t = PATHS["EDM"]
    model, x = mixture(path), randn(6, 2)
    guided = ClassifierFreeGuidance(model, 3.0).predict(x, t, y=Y)
    ((n, asked),) = model.net.seen
    assert n == 12
    assert asked.tolist() == [2] * 6 + Y.tolist()
    close(guided, 3 * model.predict(x, t, y=Y) - 2 * model.predict(x, t, y=torch.full((6,), 2)))


def test_outside_the_interval_it_is_the_model_with_its_label_and_no_larger_batch():
    path = VPPath()
    model, x = mixture(path), randn(6, 2)
    ends = torch.tensor([0.3, 0.6]).double()
    sigma = (path.b(ends) / path.a(ends)).tolist()
    guided = ClassifierFreeGuidance(model, 3.0, interval=tuple(sigma))
    always = ClassifierFreeGuidance(model, 3.0)
    for t, inside in ((0.29, False), (0.31, True), (0.59, True), (0.61, False)):
        model.net.seen.clear()
        got = guided.predict(x, t, y=Y)
        assert [n for n, _ in model.net.seen] == [12 if inside else 6], t
        assert torch.equal(got, (always if inside else model).predict(x, t, y=Y)), t
    times = torch.tensor([0.1, 0.4, 0.5, 0.7, 0.55, 0.9])
    got = guided.predict(x, times, y=Y)
    for i, inside in enumerate([False, True, True, False, True, False]):
        whole = (always if inside else model).predict(x, times, y=Y)
        close(got[i], whole[i], rtol=1e-12, atol=1e-12)


def test_the_interval_is_open_below_and_closed_above():
    path = EDMPath()
    model, x = mixture(path), randn(1, 2)
    guided = ClassifierFreeGuidance(model, 3.0, interval=(0.5, 2.0))
    for t, batch in ((0.5, 1), (0.5001, 2), (2.0, 2), (2.0001, 1)):
        model.net.seen.clear()
        guided.predict(x, t, y=Y[:1])
        assert model.net.seen[0][0] == batch, t
    straight = mixture(StraightPath(), "velocity")
    straight.net.ideal.net.path = VPPath()  # an answer at t = 1, where a = 0, whatever it is
    straight.net.predicts, straight.net.ideal.path = "eps", VPPath()
    ClassifierFreeGuidance(straight, 3.0, interval=(0.5, math.inf)).predict(
        x, 1.0, target="velocity", y=Y[:1]
    )
    assert straight.net.seen[0][0] == 2


def test_a_negative_label_takes_the_place_of_the_null_class():
    path, t = PATHS["VP"]
    model, x = mixture(path), randn(6, 2)
    for negative in (1, torch.tensor([1, 1, 1, 0, 0, 0])):
        other = negative if isinstance(negative, torch.Tensor) else torch.full((6,), negative)
        model.net.seen.clear()
        guided = ClassifierFreeGuidance(model, 2.5, negative=negative)
        got = guided.predict(x, t, target="score", y=Y)
        assert len(model.net.seen) == 1
        towards, away = (model.predict(x, t, target="score", y=y) for y in (Y, other))
        close(got, 2.5 * towards - 1.5 * away)


class Told(torch.nn.Module):
    """The ideal network, told classes as prompts: tokens (1, class + 2), and (1, 0) for nothing."""

    def __init__(self, path):
        super().__init__()
        self.classes, self.null_class, self.seen = Says(path, "eps"), (1, 0), []

    def forward(self, x, t, y):
        self.seen.append(y)
        return self.classes(x, t, torch.where(y[:, 1] == 0, 2, y[:, 1] - 2))


def tokens(y):
    return torch.stack([torch.ones_like(y), y + 2], dim=1)


def test_a_prompt_is_a_label_of_several_tokens():
    path, t = PATHS["EDM"]
    labels, prompts, x = mixture(path), Denoiser(Told(path), path).double(), randn(6, 2)
    own = torch.tensor([1, 1, 1, 0, 0, 0])
    for negative, wanted, asked in (
        (None, None, [[1, 0]] * 6),
        (tokens(own), own, tokens(own).tolist()),
        (tokens(own[:1]), 1, [[1, 3]] * 6),
    ):
        prompts.net.seen.clear()
        got = ClassifierFreeGuidance(prompts, 2.5, negative=negative)
        guided = ClassifierFreeGuidance(labels, 2.5, negative=wanted)
        close(got.predict(x, t, y=tokens(Y)), guided.predict(x, t, y=Y))
        (both,) = prompts.net.seen
        assert both.tolist() == [*asked, *tokens(Y).tolist()]
    for bad, got in ((Y, "torch.int64 [6]"), (None, "None"), (tokens(Y)[:5], "torch.int64 [5, 2]")):
        with refuses(f"y must be int64 tokens [6, 2], got {got}"):
            ClassifierFreeGuidance(prompts, 2.5).predict(x, t, y=bad)
    for bad, got in ((Y, "torch.int64 [6]"), (1, "1"), (tokens(Y).int(), "torch.int32 [6, 2]")):
        with refuses(f"negative must be int64 tokens [B, 2], got {got}"):
            ClassifierFreeGuidance(prompts, 2.5, negative=bad)
    few = ClassifierFreeGuidance(prompts, 2.5, negative=tokens(Y)[:2])
    with refuses("negative must be int64 tokens [6, 2], got torch.int64 [2, 2]"):
        few.predict(x, t, y=tokens(Y))


# --- the classifier ----------------------------------------------------------------------------


def test_the_gradient_is_that_of_finite_differences():
    classifier = NoisedClassifier((1, 4, 4), n_classes=3, width=8).double()
    x, t, y = randn(3, 1, 4, 4), torch.tensor([0.1, 1.0, 10.0]), torch.tensor([0, 2, 1])
    gradient, h = class_gradient(classifier, x, t, y), 1e-5

    def log_prob(x):
        return classifier(x, t).log_softmax(1).gather(1, y[:, None])[:, 0]

    for i in range(16):
        step = torch.zeros(16, dtype=torch.float64)
        step[i] = h
        step = step.reshape(1, 1, 4, 4)
        slope = (log_prob(x + step) - log_prob(x - step)) / (2 * h)
        close(gradient.flatten(1)[:, i], slope, rtol=1e-5, atol=1e-8)


def test_gradients_are_there_in_a_sampler_and_nothing_is_left_behind():
    classifier, path = NoisedClassifier((1, 4, 4), width=8), EDMPath()
    ideal = IdealDenoiser(torch.randn(5, 1, 4, 4, generator=seeded()), path, std=0.3)
    guided = ClassifierGuidance(Denoiser(ideal, path), classifier, 2.0)
    x, y = torch.randn(3, 1, 4, 4, generator=seeded(1)), torch.tensor([1, 5, 9])
    with torch.no_grad():
        quiet = guided.predict(x, 1.0, y=y)
        assert not torch.is_grad_enabled()
    loud = guided.predict(x, 1.0, y=y)
    assert torch.equal(quiet, loud)
    assert not quiet.requires_grad
    assert quiet.grad_fn is None
    assert not x.requires_grad
    assert all(p.grad is None and p.requires_grad for p in classifier.parameters())
    assert (quiet - Denoiser(ideal, path).predict(x, 1.0)).abs().max() > 1e-3


def test_the_guided_field_has_derivatives_where_they_are_asked_for():
    """A likelihood takes the field's divergence: through the classifier's gradient as well."""
    model, x = mixture(VPPath()), randn(2, 2)
    traces = []
    for guided in both_ways(model, 2.0):

        def score(x, guided=guided):
            return guided.predict(x, 0.3, target="score", y=Y[:2])

        traces.append(divergence(score, x))
        h, slopes = 1e-5, 0.0
        for step in torch.eye(2, dtype=torch.float64):
            slopes = slopes + ((score(x + h * step) - score(x - h * step)) @ step) / (2 * h)
        close(traces[-1], slopes, rtol=1e-5, atol=1e-5)
    close(*traces)


# --- every sampler -----------------------------------------------------------------------------

SAMPLERS = {
    "ddim": lambda model, **more: ddim_sample(model, (6, 2), steps=4, **more),
    "ddim, eta 1": lambda model, **more: ddim_sample(model, (6, 2), steps=4, eta=1.0, **more),
    "Euler-Maruyama": lambda model, **more: euler_maruyama(model, (6, 2), steps=4, **more),
    "corrector": lambda model, **more: predictor_corrector(model, (6, 2), steps=4, **more),
    "Euler": lambda model, **more: ode_sample(model, (6, 2), steps=4, **more),
    "Heun": lambda model, **more: ode_sample(model, (6, 2), steps=4, solver="heun", **more),
    "RK4": lambda model, **more: ode_sample(model, (6, 2), steps=4, solver="rk4", **more),
}


EDM_SAMPLERS = {
    "Karras' Heun": lambda model, **more: heun_sample(model, (6, 2), steps=4, **more),
    "Karras' Euler": lambda model, **more: heun_sample(
        model, (6, 2), steps=4, solver="euler", **more
    ),
    "churn": lambda model, **more: heun_sample(model, (6, 2), steps=4, churn=2.0, **more),
    "DPM-Solver++": lambda model, **more: dpm_solver_sample(model, (6, 2), steps=4, **more),
}


def both_ways(model, scale):
    """Both ways of guiding a mixture: they are one and the same."""
    return (
        ClassifierFreeGuidance(model, scale),
        ClassifierGuidance(model, model.net.ideal.net.logits, scale),
    )


@pytest.mark.parametrize(
    ("sampler", "name"),
    [
        *((sampler, name) for sampler in SAMPLERS for name in ("VP", "EDM", "schedule")),
        *((sampler, "EDM") for sampler in EDM_SAMPLERS),
    ],
)
def test_every_sampler_takes_both(sampler, name):
    path, _ = PATHS[name]
    sample, ends = (SAMPLERS | EDM_SAMPLERS)[sampler], []
    for guided in both_ways(mixture(path), 2.0):
        states = list(sample(guided, y=Y, generator=seeded(1)))
        assert len(states) == 5
        assert not states[-1].requires_grad
        ends.append(states[-1])
    close(*ends, rtol=1e-5, atol=1e-5)
    plain = last(sample(mixture(path), y=Y, generator=seeded(1)))
    assert (plain - ends[0]).abs().max() > 0.01


@pytest.mark.parametrize("predicts", ["eps", "x0", "velocity"])
@pytest.mark.parametrize(
    ("trained", "seen"),
    [
        (VPPath(), EDMPath()),
        (StraightPath(), EDMPath()),
        (DiscreteSchedule.linear(200), VPPath()),
        (EDMPath(), StraightPath()),
    ],
    ids=str,
)
def test_another_path_may_be_inside_or_outside(trained, seen, predicts):
    """Guided, then seen from another path, or the other way round: one field, both ways."""
    model = mixture(trained, predicts)
    inside = on_path(model, seen).double()
    t = torch.linspace(inside.path.t_min, inside.path.t_max, 8).double()[1:-1]
    x = 1.5 * randn(6, 2) * inside.path.b(t)[:, None].clamp(min=1)
    ideal = IdealDenoiser(CENTRES, inside.path, std=STD, labels=LABELS)
    said = []
    for option in ({}, {"interval": (0.5, 5.0)}, {"negative": 0}):
        for guided in (
            on_path(ClassifierFreeGuidance(model, 3.0, **option), seen).double(),
            ClassifierFreeGuidance(inside, 3.0, **option),
        ):
            said.append(guided.predict(x, t, target="score", y=Y))
    for free, other in zip(said[::2], said[1::2], strict=True):
        close(free, other, rtol=1e-5, atol=1e-6 * free.abs().max().item())
    for guided in (
        on_path(ClassifierGuidance(model, model.net.ideal.net.logits, 3.0), seen).double(),
        ClassifierGuidance(inside, ideal.logits, 3.0),
    ):
        score = guided.predict(x, t, target="score", y=Y)
        close(score, said[0], rtol=1e-4, atol=1e-5 * score.abs().max().item())
    wanted = tilted_score(seen, x, t, Y, 3.0)
    close(said[0], wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def test_a_flow_seen_from_another_path_is_led_by_a_classifier():
    """As its own path ends in pure noise, where no guess of x_0 can be moved, it is not there."""
    model = mixture(StraightPath(), "velocity")
    seen = on_path(model, EDMPath()).double()
    exact = ClassifierGuidance(
        seen, IdealDenoiser(CENTRES, seen.path, std=STD, labels=LABELS).logits, 2.0
    )
    ends = [
        last(heun_sample(guided, (6, 2), steps=6, y=Y, generator=seeded(1)))
        for guided in (exact, on_path(ClassifierFreeGuidance(model, 2.0), EDMPath()).double())
    ]
    close(*ends, rtol=1e-4, atol=1e-4)


def test_ways_to_the_noise_take_both():
    for guided in both_ways(mixture(VPPath()), 2.0):
        for way in (ddim_invert, ode_encode):
            assert last(way(guided, randn(6, 2), steps=4, y=Y)).shape == (6, 2)


def test_a_flow_is_guided_by_its_own_opinion_from_pure_noise():
    net = TimeMLP(2, [8], n_classes=3, null_class=True, scale=1000.0)
    guided = ClassifierFreeGuidance(FlowMatching(net), 2.0)
    x = last(ode_sample(guided, (4, 2), steps=3, y=torch.tensor([0, 1, 2, 3])))
    assert x.shape == (4, 2)
    towards = ClassifierGuidance(FlowMatching(net), lambda x, t: x, 2.0)
    what = "t must be a time at which some of the data is left, a > 0, to guide a network that"
    with refuses(f"{what} predicts velocity, got 1"):
        list(ode_sample(towards, (2, 2), steps=3, y=torch.tensor([0, 1])))
    x, y = torch.randn(2, 2), torch.tensor([0, 1])
    assert torch.equal(towards.predict(x, 0.0, target="velocity", y=y), towards.net(x, 0.0))


@pytest.mark.parametrize(("predicts", "sign"), [("eps", -1), ("score", 1)])
def test_eps_and_the_score_are_led_by_a_classifier_in_pure_noise_too(predicts, sign):
    """They move by −b and by 1 times its gradient: no guess of x_0 is asked for, where a = 0."""
    model = Denoiser(lambda x, t: 2 * x, StraightPath(), predicts=predicts).double()
    x, y, t = randn(6, 2), Y, torch.ones(6, dtype=torch.float64)
    guided = ClassifierGuidance(model, lambda x, t: x, 3.0).predict(x, t, target=predicts, y=y)
    close(guided, 2 * x + sign * 3.0 * class_gradient(lambda x, t: x, x, t, y))


def test_ddpm_wants_its_class_and_says_how():
    schedule = DiscreteSchedule.linear(8)
    ends = []
    for guided in both_ways(mixture(schedule), 2.0):
        message = "model must be a DDPM, got {}; DDPM(model, model.path, predicts=model.predicts)"
        with refuses(f"{message.format(type(guided).__name__)} is one"):
            ddpm_sample(guided, (6, 2), y=Y)
        model = DDPM(guided, guided.path, predicts=guided.predicts).double()
        ends.append(model.sample(6, y=Y, generator=seeded(3)))
    close(*ends)
    guided = ClassifierFreeGuidance(mixture(schedule), 2.0)
    by_ddim = last(ddim_sample(guided, (6, 2), steps=8, eta=1.0, y=Y, generator=seeded(3)))
    close(ends[0], by_ddim)


# --- the classifier of noised images -----------------------------------------------------------


def test_the_classifier_is_the_same_on_every_path():
    """It sees x_t at one size and the noise level: equal where the noise levels are."""
    classifier = NoisedClassifier((1, 4, 4), width=8).double()
    x0, eps = randn(3, 1, 4, 4), randn(3, 1, 4, 4, seed=1)
    sigma = torch.tensor([0.2, 1.0, 4.0]).double()
    wanted = classifier(x0 + sigma[:, None, None, None] * eps, sigma)
    path, t = StraightPath(), sigma / (1 + sigma)
    x_t = path.noised(x0, t, eps)
    close(classifier(x_t, t, path), wanted)
    close(NoisedClassifierOn(path, classifier)(x_t, t), wanted)
    assert (classifier(x_t, t) - wanted).abs().max() > 1e-3
    model = Denoiser(lambda x, t: torch.zeros_like(x), path)
    guided, y = ClassifierGuidance(model.double(), classifier, 1.0), torch.tensor([1, 2, 3])
    ratio = guided.predict(x_t, t, target="score", y=y) / class_gradient(
        lambda x, t: classifier(x, t, path), x_t, t, y
    )
    close(ratio, torch.ones_like(ratio))


def NoisedClassifierOn(path, other):
    classifier = NoisedClassifier((1, 4, 4), width=8, path=path).double()
    classifier.load_state_dict(other.state_dict())
    return classifier


def test_the_classifier_sees_one_size_and_a_quarter_of_log_sigma():
    classifier, seen = NoisedClassifier((1, 4, 4), width=8, path=VPPath()), []
    for layer in (classifier.convs[0], classifier.time):
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    path, t, x = VPPath(), torch.tensor([0.2, 0.5]), torch.randn(2, 1, 4, 4, generator=seeded())
    classifier(x, t)
    a, b = path.a(t), path.b(t)
    told, image = seen
    close(told, (b / a).log() / 4)
    close(image, x / (a**2 + b**2).sqrt()[:, None, None, None])


def test_levels_beyond_the_learned_ones_are_told_as_these():
    classifier = NoisedClassifier((1, 4, 4), width=8, levels=(0.1, 5.0)).double()
    x = randn(1, 1, 4, 4)
    sizes = {t: x * math.sqrt(1 + t**2) for t in (0.01, 0.1, 5.0, 80.0)}
    said = {t: classifier(x_t, t) for t, x_t in sizes.items()}
    close(said[0.01], said[0.1])
    close(said[80.0], said[5.0])
    assert (said[5.0] - said[0.1]).abs().max() > 1e-3
    wide = NoisedClassifier((1, 4, 4), width=8, levels=(1e-6, 1e6))
    assert wide.loss(torch.zeros(50, 1, 4, 4), torch.arange(50) % 10).isfinite()
    straight = NoisedClassifier((1, 4, 4), width=8, path=StraightPath())
    for t in (0.0, 1.0):
        assert straight(x.float(), t).isfinite().all()


def test_the_loss_is_the_cross_entropy_at_levels_uniform_in_their_logarithm(monkeypatch):
    classifier, seen = NoisedClassifier((1, 4, 4), width=8, levels=(0.1, 10.0)), []

    def forward(x, sigma, path=None):
        seen.append((x, sigma))
        return torch.stack([x.flatten(1)[:, i] for i in range(10)], dim=1)

    monkeypatch.setattr(classifier, "forward", forward)
    x, y = torch.full((4000, 1, 4, 4), 3.0), torch.randint(10, (4000,), generator=seeded())
    loss = classifier.loss(x, y, generator=seeded(1))
    ((x_t, sigma),) = seen
    wanted = -x_t.flatten(1)[:, :10].log_softmax(1).gather(1, y[:, None]).mean()
    close(loss, wanted)
    u = (sigma.log() - math.log(0.1)) / math.log(100)
    assert 0 <= u.min() < 0.01
    assert 0.99 < u.max() <= 1 + 1e-6
    assert abs(u.mean() - 0.5) < 0.02
    assert abs(u.std() - 12**-0.5) < 0.01
    eps = (x_t - x) / sigma[:, None, None, None]
    assert abs(eps.mean()) < 0.02
    assert abs(eps.std() - 1) < 0.01
    assert torch.equal(loss, classifier.loss(x, y, generator=seeded(1)))


# --- bad input ---------------------------------------------------------------------------------


def test_bad_models_are_refused():
    for way in (lambda m: ClassifierFreeGuidance(m, 1.0), lambda m: ClassifierGuidance(m, abs, 1)):
        with refuses("model must be a Denoiser, got function"):
            way(lambda x, t: x)
    plain = Denoiser(TimeMLP(2, [8]), VPPath())
    what = "model must have a null class, for what it says without a label, got a"
    with refuses(f"{what} Denoiser without one"):
        ClassifierFreeGuidance(plain, 2.0)
    for guided in both_ways(mixture(VPPath()), 2.0):
        with refuses(f"{what} {type(guided).__name__} without one"):
            ClassifierFreeGuidance(guided, 2.0)
    classes = EDM(UNet((1, 4, 4), widths=(8,), n_classes=4), sigma_data=0.5)
    with refuses(f"{what} EDM without one"):
        ClassifierFreeGuidance(classes, 2.0)
    with refuses(
        "model must be one that can be asked without labels, got one with 4 classes and no null "
        "class"
    ):
        ClassifierGuidance(classes, abs, 2.0)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, "2", None, True])
def test_bad_scales_are_refused(scale):
    model, message = (
        mixture(VPPath()),
        f"scale must be a finite number of at least -inf, got {scale!r}",
    )
    for way in (
        lambda: ClassifierFreeGuidance(model, scale),
        lambda: ClassifierGuidance(model, abs, scale),
        lambda: guide(randn(2, 2), randn(2, 2), scale),
    ):
        with refuses(message):
            way()


@pytest.mark.parametrize(
    "interval", [(2.0, 1.0), (1.0, 1.0), (-1.0, 2.0), (math.nan, 1.0), (1.0,), 3.0, ("0", "1")]
)
def test_bad_intervals_are_refused(interval):
    what = f"(low, high), two noise levels with 0 <= low < high, got {interval!r}"
    with refuses(f"interval must be {what}"):
        ClassifierFreeGuidance(mixture(VPPath()), 2.0, interval=interval)


def test_bad_labels_are_refused():
    model, x = mixture(VPPath()), randn(6, 2)
    free, exact = both_ways(model, 2.0)
    for y, got in (
        (None, "None"),
        (torch.zeros(6), "torch.float32 [6]"),
        (Y[:5], "torch.int64 [5]"),
        (Y + 3, "3"),
        (Y - 1, "-1"),
    ):
        with refuses(f"y must be an int64 tensor [6] of classes from 0 to 2, got {got}"):
            free.predict(x, 0.5, y=y)
    for y, got in ((Y + 3, "3"), (Y[:5], "torch.int64 [5]")):
        with refuses(f"y must be an int64 tensor [6] of classes from 0 to 1, got {got}"):
            exact.predict(x, 0.5, y=y)
    with refuses("y must be an int64 tensor [6] of classes, got None"):
        exact.predict(x, 0.5)
    for negative, got in ((2, "2"), (-1, "-1"), (0.5, "0.5")):
        with refuses(f"negative must be an integer from 0 to 1, got {got}"):
            ClassifierFreeGuidance(model, 2.0, negative=negative)
    with refuses("negative must be an int64 tensor [6] of classes from 0 to 1, got 2"):
        ClassifierFreeGuidance(model, 2.0, negative=Y + 1)
    short = ClassifierFreeGuidance(model, 2.0, negative=Y[:5])
    what = "an int64 tensor [6] of classes from 0 to 1, got torch.int64 [5]"
    with refuses(f"negative must be {what}"):
        short.predict(x, 0.5, y=Y)


def test_bad_predictions_and_classifiers_are_refused():
    model, x, path = mixture(VPPath()), randn(6, 2), VPPath()
    with refuses("label must have shape [3, 2], got [2, 2]"):
        guide(randn(3, 2), randn(2, 2), 1.0)
    with refuses("null must be finite, got NaN or infinite values"):
        guide(randn(3, 2) * math.nan, randn(3, 2), 1.0)
    with refuses("classifier must be a network or a function, got None"):
        ClassifierGuidance(model, None, 2.0)
    for classifier, got in (
        (lambda x, t: x[:, 0], "have shape [B, any], got [6]"),
        (lambda x, t: x[:5], "have shape [6, any], got [5, 2]"),
        (lambda x, t: x * math.inf, "be finite, got NaN or infinite values"),
        (lambda x, t: x.long(), "be a floating-point tensor, got torch.int64"),
    ):
        with pytest.raises(PredictionError, match="classifier's output must") as error:
            ClassifierGuidance(model, classifier, 2.0).predict(x, 0.5, y=Y)
        assert got in str(error.value).replace("[6, any], got [6]", "[B, any], got [6]")
    bad = Denoiser(lambda x, t, y=None: x * math.inf, path).double()
    bad.net.null_class = 2
    with pytest.raises(PredictionError, match=r"net's output must be finite.*\(at t = 0.5\)"):
        ClassifierFreeGuidance(bad, 2.0).predict(x, 0.5, y=Y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (8, 8)}, "shape must be (C, H, W), each at least 1, got (8, 8)"),
        ({"shape": (1, 3, 8)}, "shape must have a height and width of at least 4, got (1, 3, 8)"),
        ({"n_classes": 1}, "n_classes must be an integer of at least 2, got 1"),
        ({"width": 12}, "width must be a multiple of 8, got 12"),
        ({"path": 3}, "path must be a GaussianPath, got 3"),
        ({"levels": (0.0, 1.0)}, "levels[0] must be a finite number above 0, got 0.0"),
        ({"levels": (2.0, 1.0)}, "levels[1] must be a finite number above 2.0, got 1.0"),
    ],
    ids=str,
)
def test_a_bad_classifier_is_refused(options, message):
    with refuses(message):
        NoisedClassifier(**{"shape": (1, 8, 8)} | options)


def test_a_classifier_refuses_what_is_not_an_image_or_a_label():
    classifier = NoisedClassifier((1, 4, 4), width=8)
    with refuses("x_t must have shape [B, 1, 4, 4], got [2, 16]"):
        classifier(torch.zeros(2, 16), 1.0)
    with refuses("t must lie in [0.002, 80.0], got 100.0"):
        classifier(torch.zeros(2, 1, 4, 4), 100.0)
    with refuses("y must be an int64 tensor [2] of classes from 0 to 9, got None"):
        classifier.loss(torch.zeros(2, 1, 4, 4), None)
    with refuses("x must be finite, got NaN or infinite values"):
        classifier.loss(torch.full((2, 1, 4, 4), math.nan), torch.tensor([0, 1]))
