"""ControlNet: nothing changes at the start, what learns when, and what stays locked."""

import pytest
import torch

from course_lib.diffusion import (
    ClassifierFreeGuidance,
    ControlledDiffusion,
    ControlledUNet,
    ControlNet,
    LatentDiffusion,
    StraightPath,
    ZeroConv,
    dpm_solver_sample,
    heun_sample,
    last,
    ode_sample,
    on_path,
)
from course_lib.latent import KLAutoencoder
from course_lib.nn import TextEncoder, UNet, WordTokenizer
from course_lib.training import fit
from tests.diffusion.conftest import refuses, seeded

STRENGTHS = (0.0, 0.3, 1.0, 7.0)


def alive(network):
    """The network with numbers in place of the zeros that it starts with, as if it were trained."""
    generator = seeded(3)
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return network


def network(**options):
    return alive(UNet((2, 4, 4), **{"widths": (8, 16), "context_dim": 8, "heads": 2} | options))


def given(n=3, dtype=torch.float32):
    """What a U-Net sees, and a text."""
    x = torch.randn(n, 2, 4, 4, generator=seeded(1)).to(dtype)
    context = torch.randn(n, 5, 8, generator=seeded(2)).to(dtype)
    mask = torch.arange(5) < torch.tensor([[5], [3], [1]])[:n]
    return x, torch.linspace(0.1, 0.9, n), {"context": context, "mask": mask}


def contour(n=3, channels=1, size=16, seed=4, dtype=torch.float32):
    return (torch.rand(n, channels, size, size, generator=seeded(seed)) < 0.2).to(dtype)


def system(**options):
    """Images [3, 8, 8], latents [2, 4, 4], and a control of contours [1, 8, 8]."""
    text = TextEncoder(WordTokenizer(["red", "blue"], length=4), dim=8, heads=2)
    autoencoder = KLAutoencoder((3, 8, 8), channels=2, factor=2, width=8)
    diffusion = LatentDiffusion(autoencoder, network(), text)
    return ControlledDiffusion(diffusion, ControlNet(diffusion.model, 1, factor=2), **options)


# --- the start -----------------------------------------------------------------------------------


def test_a_zero_convolution_starts_as_zero_and_learns():
    zero, x = ZeroConv(2, 3), torch.randn(4, 2, 5, 5, generator=seeded(), requires_grad=True)
    y, down = zero(x), torch.randn(4, 3, 5, 5, generator=seeded(1))
    assert y.shape == (4, 3, 5, 5)
    assert not y.any()
    y.backward(down)
    wanted = torch.einsum("byhw,bxhw->yx", down, x)  # Σ dL/dy xᵀ
    torch.testing.assert_close(zero.weight.grad[:, :, 0, 0], wanted)
    torch.testing.assert_close(zero.bias.grad, down.sum((0, 2, 3)))
    assert not x.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("controls", [0, 1, 3])
def test_at_the_start_the_controlled_network_is_the_locked_one(dtype, strength, controls):
    unet = network().to(dtype)
    nets = [ControlNet(unet, 1 + i) for i in range(controls)]
    triples = [(net, contour(3, 1 + i, dtype=dtype), strength) for i, net in enumerate(nets)]
    x, t, text = given(dtype=dtype)
    assert torch.equal(ControlledUNet(unet, triples)(x, t, **text), unet(x, t, **text))


def test_a_network_without_a_text_is_controlled_too():
    unet = network(context_dim=None, widths=(8, 16, 16), blocks=2)
    x, t, _ = given()
    net = ControlNet(unet, 1)
    added = net(x, t, contour())
    _, aside = unet.encode(x, unet.embed(x, t))
    assert [more.shape for more in added[:-1]] == [part.shape for part in aside]
    assert torch.equal(ControlledUNet(unet, [(net, contour(), 1.0)])(x, t), unet(x, t))


def test_the_copy_starts_with_the_weights_of_the_locked_network_and_shares_none():
    unet = network().requires_grad_(False)
    net, locked = ControlNet(unet, 1), unet.state_dict()
    for name, value in net.copy.state_dict().items():
        assert torch.equal(value, locked[name])
        assert value.data_ptr() != locked[name].data_ptr()
    assert all(p.requires_grad for p in net.parameters())
    left = {name.split(".")[0] for name in locked} - {
        n.split(".")[0] for n in net.copy.state_dict()
    }
    assert left == {"up", "norm", "last"}


@pytest.mark.parametrize(
    ("factor", "hidden"), [(1, []), (2, [16]), (4, [16, 32]), (8, [16, 32, 64])]
)
def test_the_hint_is_as_large_as_the_network_sees(factor, hidden):
    unet = network()
    net = ControlNet(unet, 3, factor=factor)
    assert net.condition_shape == (3, 4 * factor, 4 * factor)
    convs = [layer for layer in net.hint if isinstance(layer, torch.nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [*hidden, 8]
    assert net.hint(contour(2, 3, 4 * factor)).shape == (2, 8, 4, 4)
    # each pixel of the condition is seen
    condition = torch.rand(1, 3, 4 * factor, 4 * factor, requires_grad=True)
    alive(net).hint(condition).square().sum().backward()
    assert condition.grad.all()


# --- the first steps -----------------------------------------------------------------------------


def learns(net):
    """Which parts have a gradient that isn't zero: all of their weights, or none."""
    found = {}
    for name, p in net.named_parameters():
        if name.startswith("zeros"):
            part = "zeros"
        elif name.startswith("copy"):
            part = "copy"
        else:
            part = "hint's end" if name.startswith("hint.4") else "hint"
        found.setdefault(part, set()).add(p.grad is not None and bool(p.grad.any()))
    return {part for part, some in found.items() if some == {True}}, {
        part for part, some in found.items() if some == {False}
    }


def test_three_steps_until_all_of_it_learns():
    unet = network().requires_grad_(False)
    net = ControlNet(unet, 1)
    x, t, text = given()
    target = torch.randn(x.shape, generator=seeded(9))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    seen = []
    for _ in range(3):
        optimizer.zero_grad()
        said = ControlledUNet(unet, [(net, contour(), 1.0)])(x, t, **text)
        (said - target).square().mean().backward()
        seen.append(learns(net))
        optimizer.step()
    assert seen[0] == ({"zeros"}, {"copy", "hint", "hint's end"})
    assert seen[1] == ({"zeros", "copy", "hint's end"}, {"hint"})
    assert seen[2] == ({"zeros", "copy", "hint", "hint's end"}, set())
    assert all(p.grad is None for p in unet.parameters())


@pytest.mark.parametrize(("steps", "depends"), [(0, False), (1, False), (2, True)])
def test_the_condition_matters_from_the_third_look_on(steps, depends):
    """One step of the outer zero convolutions, and one of the hint's own."""
    unet = network().requires_grad_(False)
    net, (x, t, text) = ControlNet(unet, 1), given()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        said = ControlledUNet(unet, [(net, contour(), 1.0)])(x, t, **text)
        said.square().mean().backward()
        optimizer.step()
    one, other = (net(x, t, contour(seed=seed), **text) for seed in (4, 5))
    assert any((a != b).any() for a, b in zip(one, other, strict=True)) is depends


def test_training_leaves_the_locked_model_as_it_was():
    training = system()
    model = training.diffusion
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    start = {name: value.clone() for name, value in training.control_net.state_dict().items()}
    x = 2 * torch.rand(12, 3, 8, 8, generator=seeded()) - 1
    y = model.text_encoder.tokenizer(["red", "blue", ""] * 4)
    fit(training, (x, y, contour(12, 1, 8)), steps=4, batch_size=4, progress=False)
    assert not model.training
    assert not any(module.training for module in model.modules())
    for kept, now in ((before, model.state_dict()), (buffers, dict(model.named_buffers()))):
        assert kept.keys() == now.keys()
        assert all(torch.equal(value, now[name]) for name, value in kept.items())
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    changed = training.control_net.state_dict()
    assert all(not torch.equal(value, changed[name]) for name, value in start.items())


def test_what_is_stored_is_the_control_alone():
    training = system()
    names = set(training.state_dict())
    assert names == {f"control_net.{name}" for name in training.control_net.state_dict()}
    assert {name.split(".")[1] for name in names} == {"copy", "hint", "zeros"}
    assert not any("condition" in name for name in names)
    controls = [(ControlNet(training.diffusion.model, 1), contour(), 1.0)]
    controlled = ControlledUNet(training.diffusion.model, controls)
    assert not any("condition" in name for name in controlled.state_dict())


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_a_share_of_the_captions_is_hidden(drop):
    training = system(drop=drop)
    alive(training.control_net)
    x, condition = torch.zeros(3, 3, 8, 8), contour(3, 1, 8)
    tokens = training.diffusion.text_encoder.tokenizer
    red, none = (
        training.loss(x, tokens([word] * 3), condition, generator=seeded()) for word in ("red", "")
    )
    assert torch.equal(red, none) is (drop == 1.0)
    assert system().drop == 0.5
    with refuses("drop must be a number from 0 to 1, got 1.5"):
        system(drop=1.5)


# --- strengths and sums --------------------------------------------------------------------------


def controlled_parts(unet, controls, x, t, text):
    """What the way up is given."""
    seen = []
    unet.decode, kept = lambda h, aside, *rest: seen.append([*aside, h]) or x, unet.decode
    ControlledUNet(unet, controls)(x, t, **text)
    unet.decode = kept
    return seen[0]


def test_controls_add_up_each_times_its_strength():
    unet, (x, t, text) = network().double(), given(dtype=torch.float64)
    text["mask"] = None
    one = contour(dtype=torch.float64), alive(ControlNet(unet, 1))
    two = contour(channels=2, seed=5, dtype=torch.float64), alive(ControlNet(unet, 2))
    h, aside = unet.encode(x, unet.embed(x, t, context=text["context"]), text["context"])
    said = [net(x, t, condition, **text) for condition, net in (one, two)]
    controls = [(one[1], one[0], 0.5), (two[1], two[0], 2.0)]
    got = controlled_parts(unet, controls, x, t, text)
    for part, plain, first, second in zip(got, [*aside, h], *said, strict=True):
        torch.testing.assert_close(part, plain + 0.5 * first + 2.0 * second)
        assert first.abs().max() > 1e-3
        assert second.abs().max() > 1e-3
    both, swapped = (
        ControlledUNet(unet, order)(x, t, **text) for order in (controls, controls[::-1])
    )
    torch.testing.assert_close(both, swapped)


def test_strength_0_is_no_control():
    unet, (x, t, text) = network(), given()
    net = alive(ControlNet(unet, 1))
    assert torch.equal(
        ControlledUNet(unet, [(net, contour(), 0)])(x, t, **text), unet(x, t, **text)
    )
    assert not torch.equal(
        ControlledUNet(unet, [(net, contour(), 0.1)])(x, t, **text), unet(x, t, **text)
    )


@pytest.mark.parametrize("part", ["control", "both"])
def test_a_text_of_which_nothing_may_be_looked_at_is_refused(part):
    x, t, text = given()
    text["mask"] = text["mask"] & torch.tensor([[False], [True], [True]])
    unet = network()
    net = ControlNet(unet, 1)
    controlled = ControlledUNet(unet, [(net, contour(), 1.0)])
    ask = {
        "control": lambda: net(x, t, contour(), **text),
        "both": lambda: controlled(x, t, **text),
    }
    with pytest.raises(ValueError, match="mask must be True somewhere"):
        ask[part]()


def test_the_control_reads_the_text_and_its_mask():
    unet, (x, t, text) = network(), given()
    net = alive(ControlNet(unet, 1))
    said = net(x, t, contour(), **text)
    padded = text["context"].clone()
    padded[~text["mask"]] = 3.0
    assert torch.equal(net(x, t, contour(), context=padded, mask=text["mask"])[-1], said[-1])
    assert not torch.equal(net(x, t, contour(), context=padded, mask=None)[-1], said[-1])
    plain = ControlledUNet(unet, [(net, contour(), 1.0)])
    torch.testing.assert_close(plain(x, t, context=padded, mask=text["mask"]), plain(x, t, **text))


# --- guidance, samplers, paths -------------------------------------------------------------------


def test_conditions_come_twice_in_a_batch_twice_as_large():
    unet, (x, t, text) = network(), given()
    controlled = ControlledUNet(unet, [(alive(ControlNet(unet, 1)), contour(), 1.0)])
    text["mask"] = None
    twice = controlled(x.repeat(2, 1, 1, 1), t.repeat(2), context=text["context"].repeat(2, 1, 1))
    torch.testing.assert_close(twice, controlled(x, t, **text).repeat(2, 1, 1, 1))


def test_a_guided_controlled_model_is_the_guide_of_its_two_predictions():
    training = system()
    diffusion, control = training.diffusion, alive(training.control_net)
    model = diffusion.controlled([(control, contour(2, 1, 8), 1.0)])
    tokens, x = diffusion.text_encoder.tokenizer, torch.randn(2, 2, 4, 4, generator=seeded())
    y = tokens(["red", "blue"])
    told, untold = (model.predict_x0(x, 2.0, y=labels) for labels in (y, tokens(["", ""])))
    guided = ClassifierFreeGuidance(model, 3.0).predict_x0(x, 2.0, y=y)
    torch.testing.assert_close(guided, untold + 3.0 * (told - untold), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sample", [dpm_solver_sample, heun_sample])
def test_samplers_take_a_controlled_model(sample):
    training = system()
    diffusion, control = training.diffusion, alive(training.control_net)
    options = {"steps": 3, "sampler": sample}
    images = [
        diffusion.sample(["red", "blue"], controls=controls, generator=seeded(), **options)
        for controls in (
            (),
            [(control, contour(2, 1, 8), 0.0)],
            [(control, contour(2, 1, 8), 1.0)],
        )
    ]
    assert images[0].shape == (2, 3, 8, 8)
    torch.testing.assert_close(images[0], images[1])
    assert not torch.allclose(images[0], images[2])


def test_a_controlled_model_goes_to_another_path():
    training = system()
    diffusion, control = training.diffusion, alive(training.control_net)
    model = diffusion.controlled([(control, contour(2, 1, 8), 1.0)])
    y = diffusion.text_encoder.tokenizer(["red", "blue"])
    moved = on_path(model, StraightPath())
    z = torch.randn(2, 2, 4, 4, generator=seeded())
    end = last(ode_sample(moved, (2, 2, 4, 4), steps=2, y=y, z=z))
    assert end.shape == (2, 2, 4, 4)
    assert end.isfinite().all()


def test_conditions_go_where_the_module_goes():
    unet = network()
    controlled = ControlledUNet(unet, [(ControlNet(unet, 1), contour(), 1.0)])
    assert [condition.dtype for condition in controlled.double().conditions] == [torch.float64]
    x, t, text = given(dtype=torch.float64)
    assert controlled(x, t, **text).dtype == torch.float64
    assert (controlled.event_shape, controlled.context_dim) == ((2, 4, 4), 8)


# --- bad input -----------------------------------------------------------------------------------


def test_bad_networks_are_refused():
    unet = network()
    for bad in (0, 1.0, True):
        with refuses(f"condition_channels must be an integer of at least 1, got {bad!r}"):
            ControlNet(unet, bad)
    with refuses("factor must be an integer of at least 1, got 0"):
        ControlNet(unet, 1, factor=0)
    with refuses("factor must be a power of two, got 6"):
        ControlNet(unet, 1, factor=6)
    with refuses("unet must be a UNet without classes, got ZeroConv"):
        ControlNet(ZeroConv(1, 1), 1)
    with refuses("unet must be a UNet without classes, got UNet"):
        ControlNet(UNet((2, 4, 4), widths=(8, 16), n_classes=10), 1)


def test_bad_controls_are_refused():
    unet = network()
    net = ControlNet(unet, 1)

    def control(net=net, condition=None, strength=1.0):
        return ControlledUNet(
            unet, [(net, contour() if condition is None else condition, strength)]
        )

    with refuses("strength must be a finite number of at least 0, got -0.5"):
        control(strength=-0.5)
    with refuses("strength must be a finite number of at least 0, got nan"):
        control(strength=float("nan"))
    with refuses("condition must have shape [B, 1, 16, 16], got [3, 1, 8, 8]"):
        control(condition=contour(size=8))
    with refuses("condition must have shape [B, 1, 16, 16], got [3, 3, 16, 16]"):
        control(condition=contour(channels=3))
    with refuses("condition must be torch.float32 like the model, got torch.float64"):
        control(condition=contour(dtype=torch.float64))
    with refuses("condition must be finite, got NaN or infinite values"):
        control(condition=contour() / 0)
    with refuses(
        "control_net must be torch.float32 like the network to control, got torch.float64"
    ):
        control(ControlNet(network(), 1).double())
    with refuses("control_net must be a ControlNet, got ZeroConv"):
        control(ZeroConv(1, 1))
    for options, shown in (
        ({"widths": (8, 24)}, "(2, 4, 4) and [8, 8, 8, 24, 24]"),
        ({"context_dim": None}, "(2, 4, 4) and [8, 8, 8, 16, 16]"),
    ):
        with refuses(
            "control_net must be a copy of a network like the one to control, with images "
            f"(2, 4, 4) and channels [8, 8, 8, 16, 16], got {shown}"
        ):
            control(ControlNet(network(**options), 1))
    with pytest.raises(ValueError, match=r"^control_net must be a copy .*, got \(2, 8, 8\) and "):
        control(ControlNet(alive(UNet((2, 8, 8), widths=(8, 16), context_dim=8)), 1))


def test_a_batch_that_the_conditions_do_not_fit_is_refused():
    unet = network()
    x, t, text = given()
    controlled = ControlledUNet(unet, [(ControlNet(unet, 1), contour(2), 1.0)])
    with refuses("x must have as many images as there are conditions, 2, or a multiple, got 3"):
        controlled(x, t, **text)
    with refuses("condition must have shape [3, 1, 16, 16], got [2, 1, 16, 16]"):
        ControlNet(unet, 1)(x, t, contour(2), **text)
