"""MADE: its masks against a search for paths, its mixture against the members."""

import itertools
import math
import warnings

import pytest
import torch

from course_lib.autoregressive import MADE, made_degrees, made_masks
from tests.autoregressive.conftest import (
    VECTOR_MODELS,
    chi2_pvalue,
    make,
    randomize,
    shuffled,
)

MADES = [name for name in VECTOR_MODELS if name.startswith("made")]
each_made = pytest.mark.parametrize("name", MADES)


def paths(masks):
    """``[i][j]``: whether a path leads from input j to output i, by search."""
    n = masks[0].shape[1]
    reached = [[False] * n for _ in range(n)]
    for j in range(n):
        units = {j}
        for mask in masks:
            rows = mask.tolist()
            units = {a for a, row in enumerate(rows) if any(row[b] for b in units)}
        for i in units:
            reached[i][j] = True
    return torch.tensor(reached)


def masks_of(model, mask_set):
    masks = [model.get_buffer(f"masks_{layer}")[mask_set] for layer in range(len(model.layers))]
    direct = [model.masks_direct[mask_set]] if model.direct is not None else []
    return masks, direct


@each_made
def test_a_conditional_depends_on_what_a_path_leads_from(name, generator):
    """Exactly: with positive weights every unit is awake, and nothing cancels."""
    case = make(name, generator, dim=7)
    model = case.model
    for k in range(model.n_masks):
        masks, direct = masks_of(model, k)
        for mask, layer in zip(masks, model.layers, strict=True):
            assert set(mask.unique().tolist()) <= {0.0, 1.0}
            assert mask.shape == layer.weight.shape
            for parameter in layer.parameters():
                parameter.data.abs_().add_(0.1)
        connected = paths(masks)
        for mask in direct:
            connected |= paths([mask])
        # Logits: far out, a probability is 1 in every digit.
        jacobian = torch.autograd.functional.jacobian(
            lambda p, k=k: model.logits(p[None], k)[0], torch.zeros(7).double()
        )
        assert torch.equal(jacobian != 0, connected)
        rank = torch.tensor(model.orders[k]).argsort()
        before = rank[None, :] < rank[:, None]
        assert not connected[~before].any()
        if direct or model.n_masks == 1:
            assert torch.equal(connected, before), "evenly spread degrees leave no one out"


def test_even_degrees_leave_no_one_out():
    for n, width, depth in itertools.product(range(1, 8), (6, 7, 20), (1, 2, 3)):
        order = shuffled(n)
        connected = paths(made_masks(made_degrees(order, [width] * depth)))
        rank = torch.tensor(order).argsort()
        assert torch.equal(connected, rank[None, :] < rank[:, None])


def test_even_degrees_are_spread_evenly():
    inputs, first, second = made_degrees([2, 0, 1, 3, 4], [8, 3])
    assert inputs.tolist() == [1, 2, 0, 3, 4]
    assert first.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert second.tolist() == [0, 1, 2]
    assert made_degrees([0], [3])[1].tolist() == [0, 0, 0]
    assert made_degrees([1, 0], [3])[1].tolist() == [0, 0, 0]


def test_drawn_degrees_stay_between_the_layer_below_and_the_last_but_one(generator):
    seen, pushed_up = set(), 0
    for _ in range(200):
        inputs, *hidden = made_degrees(shuffled(6), [2, 3, 4], generator=generator)
        assert inputs.tolist() == [shuffled(6).index(i) for i in range(6)]
        assert [len(degrees) for degrees in hidden] == [2, 3, 4]
        lowest = 0
        for degrees in hidden:
            assert degrees.dtype == torch.int64
            assert degrees.min() >= lowest
            assert degrees.max() <= 4
            lowest = int(degrees.min())
        pushed_up += lowest > 0
        seen |= set(hidden[0].tolist())
    assert seen == {0, 1, 2, 3, 4}
    assert pushed_up > 50
    for n in (1, 2):
        drawn = made_degrees(list(range(n)), [5], generator=generator)
        assert drawn[1].tolist() == [0] * 5


def test_no_layer_reaches_nothing(generator):
    """No hidden unit is cut off from all inputs."""
    for _ in range(50):
        masks = made_masks(made_degrees(shuffled(6), [3, 3, 3], generator=generator))
        reach = torch.eye(6)
        for mask in masks[:-1]:
            reach = mask @ reach
            assert (reach.sum(dim=1) > 0).all()


def test_masks_of_given_degrees():
    """Three inputs, two hidden units of degree 0 and 1, by hand."""
    first, last = made_masks([torch.tensor([0, 1, 2]), torch.tensor([0, 1])])
    assert first.tolist() == [[1, 0, 0], [1, 1, 0]]
    assert last.tolist() == [[0, 0], [1, 0], [1, 1]]
    (alone,) = made_masks([torch.tensor([2, 0, 1])])
    assert alone.tolist() == [[0, 1, 1], [0, 0, 0], [0, 1, 0]]


@each_made
def test_it_is_the_formula(name, generator):
    """Loops over layers and units, each unit a sum over the units that it may see."""
    model = make(name, generator, dim=5).model
    x = torch.randint(2, (4, 5), generator=generator).double()
    for k in range(model.n_masks):
        degrees = [d.tolist() for d in model.degrees[k]]
        assert degrees[0] == [model.orders[k].index(i) for i in range(5)]
        for row, example in enumerate(x.tolist()):
            h, last = example, len(model.layers) - 1
            for depth, layer in enumerate(model.layers):
                if depth:
                    h = [max(value, 0.0) for value in h]
                below = degrees[depth]
                above = degrees[0] if depth == last else degrees[depth + 1]
                weight, bias = layer.weight.tolist(), layer.bias.tolist()
                h = [
                    bias[i]
                    + sum(
                        weight[i][j] * h[j]
                        for j in range(len(h))
                        if (below[j] < above[i] if depth == last else below[j] <= above[i])
                    )
                    for i in range(len(bias))
                ]
            if model.direct is not None:
                weight, bias = model.direct.weight.tolist(), model.direct.bias.tolist()
                h = [
                    h[i]
                    + bias[i]
                    + sum(weight[i][j] * example[j] for j in model.orders[k][: degrees[0][i]])
                    for i in range(5)
                ]
            expected = [1 / (1 + math.exp(-a)) for a in h]
            conditionals = model.conditionals(x, mask_set=k)[row]
            torch.testing.assert_close(conditionals, torch.tensor(expected).double())


@pytest.mark.parametrize("name", ["made 3 sets", "made 3 orders"])
def test_the_mixture_is_the_mean_of_its_members(name, generator):
    case = make(name, generator)
    x = case.states
    members = []
    for k in range(3):
        p = case.model.conditionals(x, mask_set=k)
        members.append(torch.where(x == 1, p, 1 - p).prod(dim=1))
        assert abs(members[-1].sum() - 1) < 1e-12
        if k:
            assert (members[k] - members[k - 1]).abs().max() > 1e-3, "they would be the same model"
    expected = torch.stack(members).mean(dim=0)
    torch.testing.assert_close(case.model.log_prob(x).exp(), expected, rtol=1e-12, atol=0)


def test_without_a_mask_set_it_is_the_first(generator):
    case = make("made 3 orders", generator)
    x, model = case.states, case.model
    assert torch.equal(model.conditionals(x), model.conditionals(x, mask_set=0))
    assert torch.equal(model.logits(x), model.logits(x, 0))
    assert [where[1] for where, _ in model.walk(x)] == list(model.orders[0])
    assert not torch.isclose(model.logits(x), model.logits(x, 1)).all()


def test_direct_connections_must_be_asked_for():
    assert MADE(3, [4]).direct is None
    assert len(list(MADE(3, [4]).parameters())) == 4
    assert len(list(MADE(3, [4], direct=True).parameters())) == 6


def test_one_mask_set_of_random_orders_is_an_order():
    model = MADE(9, [4], order="random", seed=5)
    assert sorted(model.order) == list(range(9))
    assert model.orders == (model.order,)
    assert model.order != MADE(9, [4], order="random", seed=6).order
    assert model.order == MADE(9, [4], order="random", seed=5).order
    assert MADE(9, [4], order="random").order == MADE(9, [4], order="random", seed=0).order


def test_which_masks_are_drawn():
    """Even degrees for one set and a given order; else drawn ones, from the seed alone."""
    state = torch.get_rng_state()

    def degrees(**options):
        torch.set_rng_state(state)
        return [[d.tolist() for d in kind] for kind in MADE(6, [9, 9], **options).degrees]

    even = [d.tolist() for d in made_degrees(range(6), [9, 9])]
    assert degrees() == degrees(seed=1) == [even]
    assert degrees(order="random", seed=1)[0][1:] != even[1:]
    several = degrees(n_masks=3, seed=1)
    assert several == degrees(n_masks=3, seed=1)
    assert several != degrees(n_masks=3, seed=2)
    assert several[0] != several[1] != several[2]
    assert [d[0] for d in several] == [[0, 1, 2, 3, 4, 5]] * 3
    orders = MADE(6, [9], order="random", n_masks=3).orders
    assert len(set(orders)) == 3
    assert MADE(3, [4], order=[2, 0, 1], n_masks=2).orders == ((2, 0, 1), (2, 0, 1))
    assert MADE(3, [4], n_masks=2).orders == ((0, 1, 2), (0, 1, 2))


@pytest.mark.parametrize("n_masks", [2, 3])
def test_the_loss_draws_one_mask_set(n_masks, generator):
    case = make("made 3 sets", generator)
    model = randomize(MADE(5, [12, 12], n_masks=n_masks).double(), generator)
    x = case.states[:9]
    expected = []
    for k in range(n_masks):
        p = model.conditionals(x, mask_set=k)
        expected.append(-torch.where(x == 1, p, 1 - p).log().sum(dim=1).mean().item())
    state, drawn = torch.get_rng_state(), []
    for _ in range(60):
        loss = model.loss(x, generator=generator).item()
        (k,) = (k for k in range(n_masks) if abs(loss - expected[k]) < 1e-12)
        drawn.append(k)
    assert torch.equal(state, torch.get_rng_state())
    assert all(drawn.count(k) >= 8 for k in range(n_masks))
    again = [model.loss(x, generator=torch.Generator().manual_seed(1)).item() for _ in range(5)]
    assert len(set(again)) == 1


def test_where_there_is_one_mask_set_none_is_drawn(generator):
    case = make("made", generator)
    before = generator.get_state()
    case.model.loss(case.states, generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_members_are_drawn_evenly_where_nothing_is_known(generator):
    """Three members that are certain, each of something else."""
    model = MADE(4, [6], order="random", n_masks=3, direct=True)
    for parameter in model.parameters():
        parameter.data.zero_()
    # Each coordinate copies those before it: the first one visited decides, and it is a coin.
    model.direct.weight.data.fill_(100.0)
    model.direct.bias.data.fill_(-50.0)
    first = [order[0] for order in model.orders]
    model.direct.bias.data[first] = 0.0
    p = model.log_prob(torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)).double().exp()
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    x = model.sample(10_000, generator=generator)
    assert chi2_pvalue(x, states, p.detach()) > 1e-6


def test_completion_of_a_mixture_of_orders(generator):
    """Two orders with the same beginning: what stands there tells the members apart."""
    for seed in range(100):
        model = MADE(5, [12], order="random", n_masks=2, direct=True, seed=seed).double()
        if (
            set(model.orders[0][:3]) == set(model.orders[1][:3])
            and model.orders[0] != model.orders[1]
        ):
            break
    case = make("made 3 orders", generator)
    randomize(model, generator, scale=3)
    first = list(model.orders[0][:3])
    p = model.log_prob(case.states).detach().exp() * (case.states[:, first] == 1).all(dim=1)
    x, mask = torch.ones(10_000, 5).double(), torch.zeros(5, dtype=torch.bool)
    mask[first] = True
    drawn = model.complete(x, mask, generator=generator)
    assert chi2_pvalue(drawn, case.states, p / p.sum()) > 1e-6


def test_completion_weighs_the_members(generator):
    """One member gives the known coordinate 0.99, the other 0.01: the first is drawn."""
    model = MADE(2, [8], n_masks=2, seed=0)
    k = torch.tensor([0.99, 0.01])
    calls = []

    def logits(x, mask_set=0):
        calls.append(mask_set)
        first = k[mask_set].logit().expand(len(x))
        return torch.stack([first, torch.full_like(first, 200.0 - 400.0 * mask_set)], dim=1)

    model.logits = logits
    x = model.complete(torch.ones(10_000, 2), torch.tensor([True, False]), generator=generator)
    assert abs(x[:, 1].mean() - 0.99) < 0.006
    x = model.complete(torch.zeros(10_000, 2), torch.tensor([True, False]), generator=generator)
    assert abs(x[:, 1].mean() - 0.01) < 0.006
    x = model.sample(10_000, generator=generator)
    assert abs(x[:, 1].mean() - 0.5) < 0.03
    assert set(calls) == {0, 1}


def unused(*arguments, **options):
    """What the warning says about a MADE, if it comes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MADE(*arguments, **options)
    return [str(warning.message) for warning in caught]


def test_inputs_that_no_output_sees_are_named():
    (message,) = unused(784, [100])
    assert message.startswith(f"MADE(784, [100]) never uses the inputs {list(range(776, 783))}: ")
    assert "at least dim - 1 = 783 units" in message
    (message,) = unused(5, [2], order=[4, 1, 0, 2, 3])  # degrees 0 and 2: places 0 ... 2 are seen
    assert "never uses the inputs [2]: " in message
    assert unused(5, [4]) == unused(5, [4, 4]) == unused(1, [1]) == unused(2, [1]) == []
    assert len(unused(5, [4, 3])) == 1
    assert unused(5, [1], direct=True) == []


def test_an_input_is_unused_only_where_no_mask_set_uses_it():
    for seed in range(20):
        options = {"order": "random", "seed": seed}
        model = MADE(5, [2, 2], n_masks=2, **options)
        seen = torch.zeros(5, dtype=torch.bool)
        for degrees in model.degrees:
            seen |= paths(made_masks(degrees)).any(dim=0)
        last = [order[-1] for order in model.orders]
        missing = [i for i in range(5) if not seen[i] and set(last) != {i}]
        messages = unused(5, [2, 2], n_masks=2, **options)
        assert [f"inputs {missing}: " in message for message in messages] == [True] * bool(missing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": []}, "hidden must hold at least one width, got none"),
        ({"hidden": 5}, "hidden must be a sequence of integers, got 5"),
        ({"hidden": [5, 0]}, r"hidden\[1\] must be an integer of at least 1, got 0"),
        ({"n_masks": 0}, "n_masks must be an integer of at least 1, got 0"),
        ({"n_masks": 1.0}, "n_masks must be an integer of at least 1, got 1.0"),
        ({"direct": 1}, "direct must be True or False, got 1"),
        ({"direct": None}, "direct must be True or False, got None"),
        ({"seed": -1}, "seed must be an integer from 0 to 18446744073709551615, got -1"),
        ({"seed": 2**64}, "seed must be an integer from 0 to 18446744073709551615, got 1844"),
        ({"seed": None}, "seed must be an integer from 0 to 18446744073709551615, got None"),
        ({"order": "reversed"}, "order must be one of random, got 'reversed'"),
        ({"order": "random", "dim": 0}, "dim must be an integer of at least 1, got 0"),
        ({"order": "random", "dim": "a"}, "dim must be an integer of at least 1, got 'a'"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match="^" + message):
        MADE(**{"dim": 3, "hidden": [4], **options})


def test_the_largest_seed():
    MADE(3, [4], seed=2**64 - 1)


@pytest.mark.parametrize("mask_set", [-1, 3, 1.0, None, True])
def test_a_bad_mask_set_is_named(mask_set):
    model = MADE(3, [4], n_masks=3)
    with pytest.raises(ValueError, match=r"^mask_set must be an integer from 0 to 2, got"):
        model.conditionals(torch.zeros(1, 3), mask_set=mask_set)
    with pytest.raises(ValueError, match=r"^mask_set must be an integer from 0 to 0, got 1"):
        MADE(3, [4]).conditionals(torch.zeros(1, 3), mask_set=1)


@pytest.mark.parametrize(
    ("order", "hidden", "generator", "message"),
    [
        ([], [3], None, r"order must hold each of 0 ... 0 once, got \[\]"),
        ([0, 2], [3], None, r"order must hold each of 0 ... 1 once, got \[0, 2\]"),
        (3, [3], None, "order must be a sequence of integers, got 3"),
        ("random", [3], None, "order must be a sequence of integers, got 'random'"),
        ([0, 1], 3, None, "hidden must be a sequence of integers, got 3"),
        ([0, 1], [0], None, r"hidden\[0\] must be an integer of at least 1, got 0"),
        ([0, 1], [3], 3, "generator must be a torch.Generator or None, got 3"),
    ],
)
def test_bad_arguments_of_degrees_are_named(order, hidden, generator, message):
    with pytest.raises(ValueError, match="^" + message):
        made_degrees(order, hidden, generator=generator)


@pytest.mark.parametrize(
    "degrees",
    [
        [],
        None,
        torch.tensor([0, 1]),
        [[0, 1]],
        [torch.tensor([0, 1]), None],
        [torch.tensor([0.0, 1.0])],
        [torch.tensor([[0, 1]])],
    ],
)
def test_bad_degrees_are_named(degrees):
    with pytest.raises(ValueError, match=r"^degrees must be a sequence of int64 vectors, at least"):
        made_masks(degrees)
