"""The laws of every autoregressive model: the chain rule, sampling, completion."""

import math

import pytest
import torch

from course_lib.autoregressive import (
    FVSBN,
    MADE,
    Autoregressive,
    BinaryAutoregressive,
    ImageAutoregressive,
)
from tests.autoregressive.conftest import (
    IMAGE_MODELS,
    MODELS,
    VECTOR_MODELS,
    all_states,
    chi2_pvalue,
    each_image_model,
    each_model,
    each_vector_model,
    make,
    shuffled,
    spread,
    walked,
)

GENERATOR = r"generator must be a torch.Generator or None, got 3"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@each_vector_model
@pytest.mark.parametrize("dim", [1, 2, 12])
def test_the_probabilities_of_all_vectors_sum_to_one(name, dim, generator):
    case = make(name, generator, dim=dim)
    p = case.model.log_prob(case.states).exp()
    assert p.shape == (2**dim,)
    assert abs(p.sum() - 1) < 1e-12
    assert p.max() > 1.1 / 2**dim


@each_image_model
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 4)])
def test_the_probabilities_of_all_images_sum_to_one(name, size, generator):
    if "3 levels" in name:
        size = (size[0], min(size[1], 2))  # else there are many
    case = make(name, generator, size=size)
    assert abs(case.model.log_prob(case.states).exp().sum() - 1) < 1e-12
    for condition in case.conditions:
        if "y" in condition:
            y = spread(condition, len(case.states))["y"]
            assert abs(case.model.log_prob(case.states, y).exp().sum() - 1) < 1e-12


@each_model
def test_log_prob_is_the_sum_of_log_conditionals(name, generator):
    """Loops over examples and coordinates; the mean over mask sets, or over classes."""
    case = make(name, generator, dim=4)
    x = case.states[::5]
    likelihoods = []
    for condition in case.conditions:
        conditionals = case.model.conditionals(x, **spread(condition, len(x))).tolist()
        likelihoods.append([])
        for example, p in zip(x.tolist(), conditionals, strict=True):
            if len(case.shape) == 1:
                factors = [q if value else 1 - q for value, q in zip(example, p, strict=True)]
            else:
                if case.model.levels == 2:
                    p = [[[1 - q for q in row] for row in p[0]], p[0]]
                factors = [
                    p[int(value)][i][j]
                    for i, row in enumerate(example[0])
                    for j, value in enumerate(row)
                ]
            likelihoods[-1].append(math.prod(factors))
    expected = torch.tensor(likelihoods, dtype=torch.float64).mean(dim=0).log()
    torch.testing.assert_close(case.model.log_prob(x), expected, rtol=1e-12, atol=1e-12)


@each_model
def test_a_walk_gives_the_conditionals(name, generator):
    case = make(name, generator)
    x = case.states
    for condition in case.conditions:
        with torch.no_grad():
            p = walked(case.model, x.clone(), condition)
        assert p.shape == (len(x), x[0].numel(), case.model.levels)
        torch.testing.assert_close(p.sum(dim=2), torch.ones(p.shape[:2]).double())
        expected = case.model.conditionals(x, **spread(condition, len(x)))
        if case.model.levels == 2:
            assert expected.shape == x.shape
            torch.testing.assert_close(p[..., 1], expected.flatten(1), rtol=1e-12, atol=1e-12)
        else:
            assert expected.shape == (len(x), case.model.levels, *x.shape[2:])
            torch.testing.assert_close(p.mT, expected.flatten(2), rtol=1e-12, atol=1e-12)


@each_model
def test_a_walk_goes_in_order_and_sees_what_is_written(name, generator):
    """With the future hidden and written as the walk goes on, the conditionals are the same."""
    case = make(name, generator, size=(3, 2))
    truth = case.states[5::7]
    places = torch.arange(truth[0].numel()).reshape(1, *case.shape)
    for condition in case.conditions:
        with torch.no_grad():
            expected = walked(case.model, truth.clone(), condition)
            x, visited = torch.zeros_like(truth), []
            for where, p in case.model.walk(x, **spread(condition, len(x))):
                place = places[(slice(0, 1), *where[1:])].item()
                torch.testing.assert_close(p, expected[:, place], rtol=1e-12, atol=1e-12)
                x[where] = truth[where]
                visited.append(place)
        assert torch.equal(x, truth)
        order = case.model.orders[condition["mask_set"]] if condition.get("mask_set") else None
        assert visited == list(order or case.order)


@each_vector_model
def test_no_conditional_sees_itself_or_the_future(name, generator):
    """The autograd Jacobian is exactly zero there. What must be seen, the models' tests say."""
    case = make(name, generator, dim=7)
    for condition in case.conditions:
        orders = getattr(case.model, "orders", [case.model.order])
        rank = {i: k for k, i in enumerate(orders[condition.get("mask_set", 0)])}
        hidden = torch.tensor([[rank[j] >= rank[i] for j in range(7)] for i in range(7)])
        for x in torch.randint(2, (5, 7), generator=generator).double():
            jacobian = torch.autograd.functional.jacobian(
                lambda p, condition=condition: case.model.conditionals(p[None], **condition)[0], x
            )
            assert (jacobian[hidden] == 0).all()
            assert (jacobian[~hidden] != 0).any()


@each_model
def test_fast_sampling_is_sampling_with_full_passes(name, generator):
    """The same numbers from the same generator, whichever way the conditionals are computed."""
    case = make(name, generator, dim=6, size=(4, 3))
    base = BinaryAutoregressive if len(case.shape) == 1 else ImageAutoregressive
    walk = MADE.walk if isinstance(case.model, MADE) else base.walk
    fast = type(case.model)
    slow = type("Slow", (fast,), {"walk": walk})
    for y in (None, *(spread(c, 50)["y"] for c in case.conditions if "y" in c)):
        options = {} if y is None else {"y": y}
        x = (
            case.model.sample(50, generator=seeded(4), **options)
            if len(case.shape) == 1
            else (case.model.sample(50, size=case.shape[1:], generator=seeded(4), **options))
        )
        mask = torch.rand(x.shape, generator=generator) < 0.4
        completed = case.model.complete(x, mask, generator=seeded(5), **options)
        case.model.__class__ = slow
        again = case.model.complete(x, torch.zeros_like(mask), generator=seeded(4), **options)
        assert torch.equal(x, again)
        again = case.model.complete(x, mask, generator=seeded(5), **options)
        assert torch.equal(completed, again)
        case.model.__class__ = fast
        assert x.shape == (50, *case.shape)
        assert len(x.unique(dim=0)) > 2


@each_model
def test_samples_have_the_exact_probabilities(name, generator):
    case = make(name, generator, size=(2, 3))
    options = {} if len(case.shape) == 1 else {"size": case.shape[1:]}
    x = case.model.sample(10_000, generator=generator, **options)
    p = case.model.log_prob(case.states).detach().exp()
    assert chi2_pvalue(x, case.states, p) > 1e-6


@pytest.mark.parametrize("name", [name for name in MODELS if name != "made 3 orders"])
@pytest.mark.parametrize("n_known", [1, 3])
def test_completions_have_the_exact_conditional_distribution(name, n_known, generator):
    """The known coordinates come first in the order; the rest follows p(unknown | known)."""
    case = make(name, generator, size=(2, 2))
    p = case.model.log_prob(case.states).detach().exp()
    states = case.states.flatten(1)
    first = case.order[:n_known]
    x = torch.full((10_000, states.shape[1]), 7.0, dtype=torch.float64)
    x[:, first] = 1
    mask = torch.zeros(states.shape[1], dtype=torch.bool)
    mask[first] = True
    drawn = case.model.complete(
        x.reshape(-1, *case.shape), mask.reshape(case.shape), generator=generator
    )
    p = p * (states[:, first] == 1).all(dim=1)
    assert chi2_pvalue(drawn, case.states, p / p.sum()) > 1e-6


@each_model
def test_known_values_stay_and_unknown_values_do_not_matter(name, generator):
    case = make(name, generator)
    x = torch.randint(case.model.levels, (30, *case.shape), generator=generator).double()
    mask = torch.rand(x.shape, generator=generator) < 0.5
    before = x.clone()
    completed = case.model.complete(x, mask, generator=seeded())
    assert torch.equal(x, before)
    assert torch.equal(completed[mask], x[mask])
    assert ((completed >= 0) & (completed < case.model.levels)).all()
    assert torch.equal(completed, completed.round())
    assert not torch.equal(completed[~mask], x[~mask])
    junk = torch.where(mask, x, -2.5)
    assert torch.equal(completed, case.model.complete(junk, mask, generator=seeded()))
    everything = torch.ones_like(mask)
    assert torch.equal(x, case.model.complete(x, everything, generator=seeded()))


@each_model
def test_a_mask_can_be_one_examples(name, generator):
    case = make(name, generator)
    x = torch.randint(case.model.levels, (30, *case.shape), generator=generator).double()
    mask = torch.rand(case.shape, generator=generator) < 0.5
    completed = case.model.complete(x, mask, generator=seeded())
    expanded = mask.expand(x.shape).clone()
    assert torch.equal(completed, case.model.complete(x, expanded, generator=seeded()))
    assert torch.equal(completed[:, mask], x[:, mask])
    assert mask.shape == case.shape


@each_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_precisions(name, dtype, generator, monkeypatch):
    rand = torch.rand
    case = make(name, generator)
    x = case.states[::3]
    expected = case.model.log_prob(x)
    model = case.model.to(dtype)
    log_prob = model.log_prob(x.to(dtype))
    assert log_prob.dtype == dtype
    torch.testing.assert_close(log_prob.double(), expected, rtol=1e-4, atol=1e-4)
    drawn = []
    monkeypatch.setattr(torch, "rand", lambda *a, **k: drawn.append(rand(*a, **k)) or drawn[-1])
    sample = model.sample(3, generator=seeded())
    assert sample.dtype == dtype
    assert {u.dtype for u in drawn} == {dtype}, "in the precision of the model"
    assert model.complete(sample, torch.ones_like(sample, dtype=torch.bool)).dtype == dtype


@each_model
def test_a_model_can_be_made_in_double_precision(name):
    """With the default dtype at float64 nothing stays in single precision, no mask either."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model = VECTOR_MODELS[name](5) if name in VECTOR_MODELS else IMAGE_MODELS[name]()
    finally:
        torch.set_default_dtype(default)
    x = model.sample(3, generator=seeded())
    assert x.dtype == torch.float64
    assert model.log_prob(x).dtype == torch.float64


@each_model
def test_randomness_comes_from_the_generator_alone(name, generator):
    case = make(name, generator)
    x = case.states[:20]
    mask = torch.zeros(x.shape, dtype=torch.bool)
    state = torch.get_rng_state()
    draws = {
        "sample": lambda g: case.model.sample(20, generator=g),
        "complete": lambda g: case.model.complete(x, mask, generator=g),
    }
    for draw in draws.values():
        assert torch.equal(draw(seeded(1)), draw(seeded(1)))
        assert not torch.equal(draw(seeded(1)), draw(seeded(2)))
    assert torch.equal(
        case.model.loss(x, generator=seeded(1)), case.model.loss(x, generator=seeded(1))
    )
    assert torch.equal(state, torch.get_rng_state())
    for draw in draws.values():
        torch.manual_seed(5)
        first = draw(None)
        torch.manual_seed(5)
        assert torch.equal(first, draw(None))
    torch.set_rng_state(state)


@each_model
def test_the_loss_is_the_mean_and_reaches_every_parameter(name, generator):
    case = make(name, generator, dim=6)
    x = case.states[::3]
    loss = case.model.loss(x, generator=generator)
    assert loss.shape == ()
    if getattr(case.model, "n_masks", 1) == 1:
        torch.testing.assert_close(loss, -case.model.log_prob(x).mean())
    loss.backward()
    for parameter in case.model.parameters():
        assert (parameter.grad != 0).any()


@each_model
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same(name, generator):
    case = make(name, generator)
    expected = case.model.log_prob(case.states)
    model, x = case.model.cuda(), case.states.cuda()
    torch.testing.assert_close(model.log_prob(x).cpu(), expected)
    there = torch.Generator("cuda").manual_seed(0)
    assert model.loss(x, generator=there).device == x.device
    completed = model.complete(x, x == 1, generator=there)
    assert completed.device == x.device
    assert (completed[x == 1] == 1).all()
    assert model.sample(3, generator=there).device == x.device
    for draw in (model.sample, lambda n, generator: model.complete(x, x == 1, generator=generator)):
        with pytest.raises(ValueError, match=r"^generator must be on device cuda, got cpu"):
            draw(3, generator=generator)


@each_model
def test_only_weights_are_saved(name, generator):
    case = make(name, generator)
    assert list(case.model.state_dict()) == [key for key, _ in case.model.named_parameters()]


@each_model
def test_no_gradients_are_recorded_while_sampling(name, generator):
    case = make(name, generator)
    assert not case.model.sample(2, generator=generator).requires_grad


@each_vector_model
@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([0, 1], r"x must be a tensor of shape \[B, 4\], got list"),
        (torch.zeros(4), r"x must have shape \[B, 4\], got \[4\]"),
        (torch.zeros(2, 3), r"x must have shape \[B, 4\], got \[2, 3\]"),
        (torch.zeros(0, 4), r"x must have shape \[B, 4\], got \[0, 4\]"),
        (torch.zeros(1, 4).long(), "x must be a floating-point tensor, got torch.int64"),
        (torch.zeros(1, 4).double(), "x must be torch.float32 like the model, got torch.float64"),
        (torch.full((1, 4), math.nan), "x must be finite"),
        (torch.tensor([[0.0, 1, 0, 2]]), "x must hold zeros and ones, got 2.0"),
        (torch.tensor([[0.0, 1, 0.5, 0]]), "x must hold zeros and ones, got 0.5"),
        (torch.tensor([[0.0, -1, 3, 0]]), "x must hold zeros and ones, got -1.0"),
    ],
)
def test_bad_vectors_are_named(name, x, message):
    model = VECTOR_MODELS[name](4)
    for verb in (model.log_prob, model.conditionals, model.loss):
        with pytest.raises(ValueError, match="^" + message):
            verb(x)
    known = torch.ones(4, dtype=torch.bool)
    with pytest.raises(
        ValueError, match="^" + message.replace("x must hold", "x where mask is True must hold")
    ):
        model.complete(x, known)


@each_vector_model
@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (torch.ones(3, dtype=torch.bool), r"torch.bool \[3\]"),
        (torch.ones(1, 4, dtype=torch.bool), r"torch.bool \[1, 4\]"),
        (torch.ones(4, 2, dtype=torch.bool), r"torch.bool \[4, 2\]"),
        (torch.ones(2, 4), r"torch.float32 \[2, 4\]"),
        (torch.ones(4).long(), r"torch.int64 \[4\]"),
        ([True, False], r"\[True, False\]"),
        (None, "None"),
    ],
)
def test_bad_masks_are_named(name, mask, got):
    model = VECTOR_MODELS[name](4)
    wanted = r"mask must be a boolean tensor of shape \[2, 4\] or \[4\], got "
    with pytest.raises(ValueError, match="^" + wanted + got):
        model.complete(torch.zeros(2, 4), mask)


@each_vector_model
def test_bad_arguments_are_named(name):
    model = VECTOR_MODELS[name](4)
    x, mask = torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.bool)
    for n in (0, -1, 2.0, True, None):
        with pytest.raises(ValueError, match=r"^n must be an integer of at least 1, got"):
            model.sample(n)
    assert model.sample(1).shape == (1, 4)
    for verb in (
        lambda: model.sample(2, generator=3),
        lambda: model.complete(x, mask, generator=3),
        lambda: model.loss(x, generator=3),
    ):
        with pytest.raises(ValueError, match="^" + GENERATOR):
            verb()
    elsewhere = VECTOR_MODELS[name](4).to("meta")
    with pytest.raises(ValueError, match=r"^x must be an ordinary dense tensor"):
        elsewhere.sample(2, generator=seeded())


@pytest.mark.parametrize("dim", [0, -1, 1.5, None, True])
@pytest.mark.parametrize("name", [*VECTOR_MODELS, "base"])
def test_bad_dims_are_named(name, dim, monkeypatch):
    monkeypatch.setattr("tests.autoregressive.conftest.shuffled", lambda dim: [0])
    build = BinaryAutoregressive if name == "base" else VECTOR_MODELS[name]
    with pytest.raises(ValueError, match=r"^dim must be an integer of at least 1, got"):
        build(dim)


@pytest.mark.parametrize(
    "build",
    [
        lambda order: BinaryAutoregressive(3, order),
        lambda order: FVSBN(3, order=order),
        lambda order: MADE(3, [4], order=order),
        lambda order: MADE(3, [4], order=order, n_masks=2),
        lambda order: VECTOR_MODELS["nade"](3).__class__(3, 2, order=order),
    ],
)
@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 1], r"order must hold each of 0 ... 2 once, got \[0, 1\]"),
        ([0, 1, 1], r"order must hold each of 0 ... 2 once, got \[0, 1, 1\]"),
        ((1, 2, 3), r"order must hold each of 0 ... 2 once, got \[1, 2, 3\]"),
        ([0, 1, 2, 3], r"order must hold each of 0 ... 2 once"),
        ([], r"order must hold each of 0 ... 2 once, got \[\]"),
        ([0, 1, -1], r"order\[2\] must be an integer of at least 0, got -1"),
        ([0, 1, 2.0], r"order\[2\] must be an integer of at least 0, got 2.0"),
        (3, "order must be a sequence of integers, got 3"),
        (torch.tensor([0, 1, 2]), "order must be a sequence of integers, got tensor"),
    ],
)
def test_bad_orders_are_named(build, order, message):
    with pytest.raises(ValueError, match="^" + message):
        build(order)


@pytest.mark.parametrize("order", [(2, 0, 1), [2, 0, 1], range(3)])
def test_any_sequence_is_an_order(order):
    model = FVSBN(3, order=order)
    assert model.order == tuple(order)
    assert BinaryAutoregressive(3).order == (0, 1, 2)


def test_a_model_without_formulas_says_so():
    x = torch.zeros(1, 2)
    with pytest.raises(NotImplementedError):
        Autoregressive().log_prob(x)
    with pytest.raises(NotImplementedError):
        Autoregressive().walk(x)
    with pytest.raises(NotImplementedError):
        Autoregressive().loss(x)
    with pytest.raises(NotImplementedError):
        BinaryAutoregressive(2).logits(x)
    with pytest.raises(NotImplementedError):
        ImageAutoregressive(levels=2, n_classes=None, size=(2, 2)).logits(x)


class Table(BinaryAutoregressive):
    """The smallest model: it only says its logits."""

    def __init__(self):
        super().__init__(2)
        self.a = torch.nn.Parameter(torch.tensor([0.5, -1.0]))

    def logits(self, x):
        return torch.stack([self.a[0].expand(len(x)), self.a[1] * x[:, 0]], dim=1)


def test_a_model_needs_no_more_than_logits(generator):
    model = Table()
    x = all_states((2,), 2).float()
    p = model.log_prob(x).exp()
    sigmoid = [1 / (1 + math.exp(-a)) for a in (0.5, -1.0)]
    expected = [(1 - sigmoid[0]) / 2, (1 - sigmoid[0]) / 2]
    expected += [sigmoid[0] * (1 - sigmoid[1]), sigmoid[0] * sigmoid[1]]
    torch.testing.assert_close(p, torch.tensor(expected))
    drawn = model.sample(10_000, generator=generator)
    assert chi2_pvalue(drawn, x.double(), p.double().detach()) > 1e-6


@pytest.mark.parametrize(("logit", "value"), [(200.0, 1.0), (-200.0, 0.0)])
def test_certain_coordinates_are_certain(logit, value, generator):
    """No overflow, no NaN, and never the impossible."""
    model = FVSBN(2)
    model.linear.bias.data.fill_(logit)
    model.linear.weight.data.zero_()
    likely, unlikely = torch.full((1, 2), value), torch.full((1, 2), 1 - value)
    assert model.log_prob(likely).item() == 0
    assert model.log_prob(unlikely).item() == -400
    assert (model.sample(1000, generator=generator) == value).all()


def test_the_extremes_of_a_uniform_number(monkeypatch):
    """At u = 0 it is the first value that is possible, at u just below 1 the last."""
    model = FVSBN(2)
    model.linear.weight.data.zero_()
    for bias in (0.0, 200.0, -200.0):
        model.linear.bias.data.fill_(bias)
        for u in (0.0, 1 - 2**-24):
            monkeypatch.setattr(torch, "rand", lambda shape, u=u, **_: torch.full(shape, u))
            expected = {0.0: float(u > 0.5), 200.0: 1.0, -200.0: 0.0}[bias]
            assert (model.sample(3) == expected).all()


def test_the_shuffled_order_is_not_its_own_inverse():
    order = shuffled(5)
    assert [order[i] for i in order] != [0, 1, 2, 3, 4]
