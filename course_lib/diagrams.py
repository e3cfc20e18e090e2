"""One diagram for each architecture, drawn from a model that runs: its own parts and shapes.

A function takes a model, sends a small batch through it, and says where the boxes stand. What
stands in them was observed: another model gives another diagram.
"""

import copy
from itertools import groupby, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.widgets.diagram import Arrow, Box, Call, Diagram, observe, parameters, shape

__all__ = [
    "controlnet_diagram",
    "coupling_diagram",
    "latent_diffusion_diagram",
    "mmdit_diagram",
    "multi_scale_diagram",
    "pixelcnn_diagram",
    "transformer_diagram",
    "unet_diagram",
    "vae_diagram",
    "vqvae_diagram",
]

BATCH = 3  # images or points in the batch that is sent through


# ------------------------------------------------------------------------------ 01: two stacks


def pixelcnn_diagram(model: nn.Module) -> Diagram:
    """A ``PixelCNN``: a stack for the rows above, one for the pixels left, and who tells whom."""
    x = torch.zeros(BATCH, 1, *model.size, dtype=model.dtype)
    y = labels(model.n_classes)
    calls = observe(model, lambda: model.log_prob(x, y))
    layers = {
        name: calls[name] for name in calls if name.startswith("layers.") and name[7:].isdigit()
    }
    rows = [[Box("pixels, encoded", (shape(layers["layers.0"].inputs[0]),), "data")]]
    arrows = []
    before = "pixels, encoded", "pixels, encoded"
    # Layers that are alike are drawn once.
    for _, alike in groupby(layers, key=lambda name: str(layers[name].module)):
        names = list(alike)
        first, last = (int(name[7:]) + 1 for name in (names[0], names[-1]))
        which = f"layer {first}" if first == last else f"layers {first}–{last}"
        up, left, told, out = (
            calls[f"{names[0]}.{part}"] for part in ("vertical", "horizontal", "down", "out")
        )
        layer = layers[names[0]].module
        classes = (
            () if layer.classes is None else (f"+ one of {layer.classes.num_embeddings} classes",)
        )
        boxes = [
            Box(f"rows above, {which}", (kernel(up.module), channels(up.module)), "model"),
            Box(f"pixels left, {which}", (kernel(left.module), channels(left.module)), "model"),
            Box(f"v, {which}", (*classes, "tanh ⊙ sigmoid", shape(out.inputs[0])), "latent"),
            Box(
                f"h, {which}",
                (*classes, "tanh ⊙ sigmoid", f"{kernel(out.module)}", shape(out.outputs[0])),
                "latent",
            ),
        ]
        rows += [boxes[:2], boxes[2:]]
        above, beside, v, h = (box.name for box in boxes)
        arrows += [
            Arrow(before[0], above),
            Arrow(before[1], beside),
            Arrow(above, v),
            Arrow(beside, h),
            Arrow(above, h, f"{kernel(told.module)} {shape(told.outputs[0])}"),
        ]
        if not layer.first:
            arrows.append(Arrow(before[1], h, "+", around="right"))
        before = v, h
    head, logits = calls["head"], shape(calls["head"].outputs[0])
    rows += [[None, Box("head", (channels(head.module), parameters(head.module)))]]
    rows += [[None, Box("logits", (f"{logits}, for {model.levels} levels",), "data")]]
    arrows += [Arrow(before[1], "head"), Arrow("head", "logits")]
    return Diagram("PixelCNN: the left stack tells the right one, never the reverse", rows, arrows)


# ----------------------------------------------------------------------------- 02: two outputs


def vae_diagram(model: nn.Module) -> Diagram:
    """A ``VAE``: one network with two outputs, a draw, and another network."""
    x, y = torch.zeros(BATCH, *model.data_shape, dtype=model.dtype), labels(model.n_classes)
    generator = torch.Generator().manual_seed(0)
    calls = observe(model, lambda: model.rate_distortion(x, y=y, generator=generator))
    encoder, decoder = calls["encoder"], calls["decoder"]
    with torch.no_grad():
        mu, log_var = model.encode(x, y)
        rate, distortion = model.rate_distortion(x, y=y, generator=generator)
    out = {"bernoulli": "logits of bits", "gaussian": "means of Gaussians"}[model.likelihood]
    told = () if y is None else (f"is told the class, of {model.n_classes}",)
    halves = f"gives {shape(encoder.outputs[0])}: two halves"
    rows = [
        [None, Box("x", (shape(x),), "data"), None],
        [
            None,
            Box("encoder", (channels(encoder.module), *told, parameters(encoder.module), halves)),
            None,
        ],
        [
            Box("μ", (shape(mu), "where"), "latent"),
            Box("log σ²", (shape(log_var), "how wide"), "latent"),
            Box("ε ~ N(0, I)", (shape(log_var), "drawn anew"), "noise"),
        ],
        [
            Box("rate", ("KL(q ‖ p), exact", shape(rate)), "error"),
            Box("z = μ + σ ε", (shape(mu),), "latent"),
            None,
        ],
        [None, Box("decoder", (channels(decoder.module), *told, parameters(decoder.module))), None],
        [
            Box("distortion", ("−log p(x | z)", shape(distortion)), "error"),
            Box("p(x | z)", (out, shape(decoder.outputs[0][-2:])), "data"),
            None,
        ],
    ]
    arrows = [
        Arrow("x", "encoder", shape(encoder.inputs[0])),
        Arrow("encoder", "μ"),
        Arrow("encoder", "log σ²"),
        Arrow("μ", "rate"),
        Arrow("log σ²", "rate"),
        Arrow("μ", "z = μ + σ ε"),
        Arrow("log σ²", "z = μ + σ ε"),
        Arrow("ε ~ N(0, I)", "z = μ + σ ε"),
        Arrow("z = μ + σ ε", "decoder", shape(decoder.inputs[0][-2:])),
        Arrow("decoder", "p(x | z)"),
        Arrow("p(x | z)", "distortion"),
        Arrow("x", "distortion", around="left"),
    ]
    return Diagram("VAE: the encoder has two outputs, and noise comes from outside", rows, arrows)


# ------------------------------------------------------------------------- 03: where gradients go


def vqvae_diagram(model: nn.Module) -> Diagram:
    """A ``VQVAE``: what runs forwards, and every gradient that automatic differentiation finds."""
    quantizer = model.quantizer
    x = torch.rand(BATCH, *model.data_shape, generator=torch.Generator().manual_seed(0))
    x = x.to(quantizer.codebook.dtype)
    calls = observe(model, lambda: model(x))
    encoder, decoder = calls["encoder"], calls["decoder"]
    codes = shape(calls["quantizer"].outputs[1])
    rows = [
        [None, Box("x", (shape(x),), "data"), None],
        [
            None,
            Box("encoder", (f"channels {channels(encoder.module)}", parameters(encoder.module))),
            None,
        ],
        [
            Box("commitment", (f"{quantizer.commitment} · mean (z − sg[e])²",), "error"),
            Box("z", (shape(encoder.outputs[0]),), "latent"),
            Box("codebook", (f"{quantizer.n_codes} codes × {quantizer.dim}",), "model"),
        ],
        [None, Box("nearest code", (codes, f"of 0 … {quantizer.n_codes - 1}"), "latent"), None],
        [None, Box("e", (shape(decoder.inputs[0]),), "latent"), None],
        [
            None,
            Box("decoder", (f"channels {channels(decoder.module)}", parameters(decoder.module))),
            None,
        ],
        [
            Box("error", ("mean (x − decoded)²",), "error"),
            Box("decoded", (shape(decoder.outputs[0]),), "data"),
            None,
        ],
    ]
    arrows = [
        Arrow("x", "encoder"),
        Arrow("encoder", "z"),
        Arrow("z", "nearest code"),
        Arrow("codebook", "nearest code"),
        Arrow("nearest code", "e"),
        Arrow("e", "decoder"),
        Arrow("decoder", "decoded"),
        Arrow("decoded", "error"),
        Arrow("z", "commitment"),
        Arrow("e", "commitment"),
        *gradients_of(model, x),
    ]
    return Diagram("VQ-VAE: what runs forwards, and where gradients go", rows, arrows)


def gradients_of(model: nn.Module, x: Tensor) -> list[Arrow]:
    """The gradients of a ``VQVAE``'s two losses, as far as there are any."""
    model = copy.deepcopy(model).eval()
    quantizer = model.quantizer
    z = model.encoder(x)
    passed, _, loss, _ = quantizer(z)
    passed.retain_grad()
    z.retain_grad()
    decoded = model.decoder(passed)
    F.mse_loss(decoded, x).backward(retain_graph=True)
    found = [Arrow("error", "decoded", kind="gradient")]
    if any_gradient(*model.decoder.parameters()):
        found += [
            Arrow("decoded", "decoder", kind="gradient"),
            Arrow("decoder", "e", kind="gradient"),
        ]
    if any_gradient(z):
        copied = "copied" if torch.equal(z.grad, passed.grad) else "changed"
        found.append(Arrow("e", "z", copied, kind="gradient", around="right"))
    if any_gradient(quantizer.codebook):
        found.append(Arrow("nearest code", "codebook", kind="gradient"))
    z.grad = quantizer.codebook.grad = None
    loss.backward()
    if any_gradient(z):
        found.append(Arrow("commitment", "z", kind="gradient"))
    if any_gradient(quantizer.codebook):
        found.append(Arrow("z", "codebook", "its loss", kind="gradient"))
    elif quantizer.ema:
        found.append(Arrow("z", "codebook", "mean", kind="follows"))
    if any_gradient(*model.encoder.parameters()):
        found.append(Arrow("z", "encoder", kind="gradient"))
    return found


def any_gradient(*tensors: Tensor) -> bool:
    """Whether a gradient other than 0 has come to one of the tensors."""
    return any(t.grad is not None and bool(t.grad.any()) for t in tensors)


# -------------------------------------------------------------------------------- 04: a coupling


def coupling_diagram(model: nn.Module) -> Diagram:
    """The first coupling of a flow, additive or affine, from data to latent."""
    coupling = next(part for part in model.modules() if hasattr(part, "mask"))
    x = torch.zeros(BATCH, *coupling.event_shape, dtype=coupling.dtype)
    calls = observe(coupling, lambda: coupling(x))
    kept, moved = coupling.mask.split(x)
    network = calls.get("shift") or calls["net"]
    affine = "net" in calls
    moves = "moved · exp(s) + t" if affine else "moved + m(kept)"
    says = "s and t" if affine else "m"
    log_det = "log det = Σ s" if affine else "log det = 0"
    z, det = calls[""].outputs
    rows = [
        [Box("x", (shape(x),), "data")],
        [Box("kept", (shape(kept),), "data"), Box("moved", (shape(moved),), "data")],
        [
            Box(
                f"network for {says}",
                (channels(network.module), parameters(network.module)),
            )
        ],
        [
            Box("kept, as it was", (shape(kept),), "latent"),
            Box(moves, (shape(moved),), "latent"),
        ],
        [Box("z", (shape(z), f"{log_det} {shape(det)}"), "latent")],
    ]
    arrows = [
        Arrow("x", "kept"),
        Arrow("x", "moved"),
        Arrow("kept", f"network for {says}", shape(network.inputs[0])),
        Arrow("kept", "kept, as it was"),
        Arrow(f"network for {says}", moves, shape(network.outputs[0])),
        Arrow("moved", moves),
        Arrow("kept, as it was", "z"),
        Arrow(moves, "z"),
    ]
    name = type(coupling).__name__
    return Diagram(f"{name}: one half stays and says how the other moves", rows, arrows)


# -------------------------------------------------------------------------------- 05: many scales


def multi_scale_diagram(model: nn.Module) -> Diagram:
    """A ``Flow`` of images: what is done at each scale, and what leaves where."""
    x = torch.full((BATCH, *model.base.event_shape), 0.5, dtype=model.base.dtype)
    calls = observe(model, lambda: model(x))
    steps = [calls[f"transforms.{k}"] for k in range(len(model.transforms))]
    with torch.no_grad():
        parts = [
            Box(f"z{k}", (shape(z), f"{z[0].numel()} of {x[0].numel()} numbers"), "latent")
            for k, z in enumerate(model.scales(x), start=1)
        ]
    column = [Box("x", (shape(x),), "data")]
    leaves = {}  # from which box: to which
    scale = 1
    for kind, group in groupby(steps, key=lambda call: boundary(call.module)):
        alike = list(group)
        goes_in, comes_out = shape(alike[0].inputs[0]), shape(alike[-1].outputs[0])
        if kind == "Logit":
            box = Box("logit", (comes_out,), "latent")
        elif kind == "Squeeze":
            box = Box(f"squeeze {scale}", (f"{goes_in} → {comes_out}",), "latent")
        elif kind == "Split":
            goes_on = shape(steps[steps.index(alike[-1]) + 1].inputs[0])
            box = Box(f"split {scale}", (f"half goes on: {goes_on}",), "latent")
            leaves[box.name] = parts[scale - 1]
            scale += 1
        else:
            number, names = repeated([kind_of(call.module) for call in alike])
            size = "×".join(map(str, alike[-1].outputs[0][2:]))
            learns = parameters(*(call.module for call in alike))
            box = Box(f"{number} × at scale {scale}, {size}", (*names, comes_out, learns))
        column.append(box)
    leaves[column[-1].name] = parts[-1]
    arrows = [Arrow(a.name, b.name) for a, b in pairwise(column)]
    arrows += [Arrow(name, part.name) for name, part in leaves.items()]
    rows = [[box, leaves.get(box.name)] for box in column]
    return Diagram(f"{type(model).__name__}: at each scale half of the numbers leave", rows, arrows)


def boundary(module: nn.Module) -> str:
    """The name of a transform that begins or ends a scale; nothing for all between."""
    name = type(module).__name__
    return name if name in ("Logit", "Squeeze", "Split") else ""


def kind_of(module: nn.Module) -> str:
    """What a transform is; of a coupling also how it parts the image."""
    mask = getattr(module, "mask", None)
    name = type(module).__name__
    return name if mask is None else f"{name}, {type(mask).__name__}"


def repeated(names: list[str]) -> tuple[int, list[str]]:
    """How often the shortest sequence stands in ``names`` that makes all of it, and that."""
    for length in range(1, len(names) + 1):
        number, rest = divmod(len(names), length)
        if not rest and names == names[:length] * number:
            return number, names[:length]
    raise ValueError("names must hold at least one, got none")


# ------------------------------------------------------------------------------- 06: the U-Net


def unet_diagram(net: nn.Module) -> Diagram:
    """A ``UNet``: down on the left, up on the right, and what is put aside between them."""
    x = torch.zeros(BATCH, *net.event_shape, dtype=net.first.weight.dtype)
    t = torch.zeros(BATCH, dtype=torch.int64)
    y = labels(net.time.n_classes)
    text = {} if net.context_dim is None else {"context": torch.zeros(BATCH, 1, net.context_dim)}
    text = {name: tensor.to(x) for name, tensor in text.items()}
    calls = observe(net, lambda: net(x, t, y, **text))
    down = levels(calls, "down", len(net.down), opens="Conv2d")
    up = levels(calls, "up", len(net.up), closes="DoublingConv")[::-1]
    time = calls["time"]
    told = f"{shape(time.outputs[0])}, to every ResBlock"
    waves = calls["time.layers"].inputs[0]
    classes = () if y is None else (f"+ one of {net.time.n_classes} classes",)
    rows: list[list[Box | None]] = [
        [
            Box("xₜ", (shape(x),), "data"),
            Box("t", (shape(t),), "noise"),
            Box("answer", (shape(calls["last"].outputs[0]),), "data"),
        ],
        [
            Box("first", (kernel(calls["first"].module), shape(calls["first"].outputs[0]))),
            Box("time embedding", (f"waves {shape(waves)}", *classes, told)),
            Box("last", (f"{type(net.norm).__name__}, SiLU", kernel(calls["last"].module))),
        ],
    ]
    arrows = [
        Arrow("xₜ", "first"),
        Arrow("t", "time embedding"),
        Arrow("last", "answer"),
    ]
    before = "first", "last"
    for k, (going, coming) in enumerate(zip(down, up, strict=True), start=1):
        left = Box(f"down {k}", (*lines_of(going), shape(going[-1].outputs[0])))
        blocks = [call for call in coming if type(call.module).__name__ == "ResBlock"]
        right = Box(f"up {k}", (*lines_of(blocks), shape(blocks[-1].outputs[0])))
        aside = [call.outputs[0][1] for call in ([calls["first"]] if k == 1 else []) + going]
        rows.append([left, None, right])
        arrows += [
            Arrow(before[0], left.name),
            Arrow(right.name, before[1], shape(coming[-1].outputs[0]) if k > 1 else ""),
            Arrow(left.name, right.name, f"aside: {' + '.join(map(str, aside))} channels"),
        ]
        before = left.name, right.name
    middle = [calls[f"middle.{k}"] for k in range(len(net.middle))]
    rows.append([None, Box("middle", (*lines_of(middle), shape(middle[-1].outputs[0]))), None])
    arrows += [Arrow(before[0], "middle"), Arrow("middle", before[1])]
    return Diagram(f"U-Net, {parameters(net)}", rows, arrows)


def levels(
    calls: dict[str, Call], path: str, number: int, *, opens: str = "", closes: str = ""
) -> list[list[Call]]:
    """The calls of a way down or up, parted where a level opens or closes."""
    parted: list[list[Call]] = [[]]
    for k in range(number):
        call = calls[f"{path}.{k}"]
        kind = type(call.module).__name__
        if kind == opens:
            parted.append([])
        parted[-1].append(call)
        if kind == closes:
            parted.append([])
    return parted


def lines_of(calls: list[Call]) -> list[str]:
    """A line for each call: what it is, and from how many channels to how many."""
    lines = []
    for call in calls:
        name = type(call.module).__name__
        if isinstance(call.module, nn.Conv2d):
            name = f"stride {call.module.stride[0]},"
        looks = ", looks at the text" if getattr(call.module, "look", None) is not None else ""
        lines.append(f"{name} {call.inputs[0][1]} → {call.outputs[0][1]}{looks}")
    return lines


# --------------------------------------------------------------- 12: a whole text-to-image system


def latent_diffusion_diagram(model: nn.Module) -> Diagram:
    """A ``LatentDiffusion``, whole: from an image and a prompt to noise, and back to an image.

    Of EDM, which guesses the latent, or a rectified flow, whose network says the velocity.
    """
    autoencoder, denoiser, text = model.autoencoder, model.denoiser, model.text_encoder
    path, edm = denoiser.path, hasattr(denoiser, "sigma_data")
    if edm:
        time, start, noised = "σ", "of size σ", "ℓ + σ ε"
        answer, error = "guess D of ℓ", "λ(σ) (D − ℓ)²"
    else:
        time, start, noised = "t", "where t", "(1 − t) ℓ + t ε"
        answer, error = "velocity v", "(v − (ε − ℓ))²"
    x = torch.zeros(BATCH, *autoencoder.event_shape, dtype=autoencoder.dtype)
    noisy = torch.zeros(BATCH, *autoencoder.latent_shape, dtype=model.dtype)
    guided, y = model.told([""] * BATCH)

    def run() -> None:
        model.to_images(autoencoder.to_latent(x, generator=torch.Generator().manual_seed(0)))
        guided.predict(noisy, 1.0, target=guided.predicts, y=y)

    calls = observe(model, run)
    encoder, decoder = calls["autoencoder.encoder"], calls["autoencoder.decoder"]
    prompted = "denoiser.net.net" if edm else "denoiser.net"
    net, reader = calls[f"{prompted}.unet"], calls[f"{prompted}.text_encoder"]
    looks = [call for call in calls.values() if kind(call) == "CrossAttention"]
    if looks:
        pixels = sorted({call.inputs[0][1] for call in looks}, reverse=True)
        network, context_is = f"U-Net, told {time}", "keys, values"
        looking = (
            f"{len(looks)} times cross-attention: queries",
            f"of {' and '.join(map(str, pixels))} pixels, {looks[0].module.heads} heads",
        )
    else:
        looks = [call for call in calls.values() if kind(call) == "JointAttention"]
        patches, words = (tokens for _, tokens, _ in looks[0].inputs[:2])
        network, context_is = f"MM-DiT, told {time}", "a stream"
        looking = (
            f"{len(looks)} times joint attention: of",
            f"{patches} patches and {words} words, {looks[0].module.heads} heads",
        )
    blocks, length = text.blocks, text.tokenizer.length
    image, latent = x[0].numel(), noisy[0].numel()
    scale = autoencoder.latent_scale.item()
    branches = net.inputs[0][0] // BATCH
    rows = [
        [
            Box("image x", (f"{shape(encoder.inputs[0])} in [−1, 1]",), "data"),
            None,
            Box("prompt", (f"at most {length - 1} words", f"tokens {shape(y)}"), "data"),
        ],
        [
            Box(
                "encoder",
                (
                    f"gives {shape(encoder.outputs[0])}:",
                    "two halves, μ and log v",
                    parameters(encoder.module),
                ),
            ),
            Box("noise", (shape(noisy), f"{start} = {path.t_max:g}"), "noise"),
            Box(
                "text encoder",
                (
                    f"{len(blocks)} × {type(blocks[0]).__name__}",
                    f"{blocks[0].attention.heads} heads, causal",
                    parameters(reader.module),
                ),
            ),
        ],
        [
            Box(
                "latent ℓ",
                (
                    shape(calls["autoencoder.decoder"].inputs[0]),
                    f"a draw, times {scale:.3g}",
                    f"{image / latent:.3g} times fewer numbers",
                ),
                "latent",
            ),
            None,
            Box("context c", (shape(reader.outputs[0]), f"and a mask {shape(y)}"), "model"),
        ],
        [None, Box(noised, (shape(noisy),), "noise"), None],
        [
            None,
            Box(
                network,
                (
                    *looking,
                    f"{branches} B at once: with the prompt, without",
                    parameters(net.module),
                ),
            ),
            None,
        ],
        [
            None,
            Box(answer, ("null + w (told − null)", shape(noisy)), "latent"),
            Box(
                "loss, in training",
                (error, f"{denoiser.drop:.0%} of the prompts empty"),
                "error",
            ),
        ],
        [
            None,
            Box(
                "step of a sampler",
                (f"from {time} to the next", f"{path.t_max:g} … {path.t_min:g}" + ", 0" * edm),
                "noise",
            ),
            None,
        ],
        [
            Box("image", (f"{shape(decoder.outputs[0])} in [0, 1]",), "data"),
            Box("decoder", (f"takes latent / {scale:.3g}", parameters(decoder.module))),
            None,
        ],
    ]
    arrows = [
        Arrow("image x", "encoder"),
        Arrow("encoder", "latent ℓ"),
        Arrow("latent ℓ", noised, "training"),
        Arrow("noise", noised, "sampling"),
        Arrow("prompt", "text encoder"),
        Arrow("text encoder", "context c"),
        Arrow("context c", network, context_is),
        Arrow(noised, network),
        Arrow(network, answer),
        Arrow(answer, "loss, in training"),
        Arrow(answer, "step of a sampler"),
        Arrow("step of a sampler", noised, "again", around="left"),
        Arrow("step of a sampler", "decoder", f"{time} = 0"),
        Arrow("decoder", "image"),
    ]
    return Diagram(
        "Latent diffusion: noise and text become a latent, and that an image", rows, arrows
    )


def controlnet_diagram(control_net: nn.Module, unet: nn.Module) -> Diagram:
    """A ``ControlNet`` beside the ``UNet`` that it controls: what is copied, added, and locked.

    Grey is what learns nothing: no part of it asks for a gradient.
    """
    x = torch.zeros(BATCH, *unet.event_shape, dtype=unet.first.weight.dtype)
    t, condition = x.new_zeros(BATCH), x.new_zeros(BATCH, *control_net.condition_shape)
    context = None if unet.context_dim is None else x.new_zeros(BATCH, 1, unet.context_dim)
    calls = observe(unet, lambda: unet(x, t, context=context))
    other = observe(control_net, lambda: control_net(x, t, condition, context=context))
    theirs = {name.removeprefix("copy."): call for name, call in other.items()}
    hint = other["hint"]
    role, their_role = (
        "model" if any(p.requires_grad for p in net.parameters()) else "noise"
        for net in (unet, control_net)
    )
    ways = [ways_down(seen, len(unet.down), len(unet.middle)) for seen in (calls, theirs)]
    ups = levels(calls, "up", len(unet.up), closes="DoublingConv")[::-1]
    rows: list[list[Box | None]] = [
        [Box("x", (shape(x),), "data"), None, None, Box("condition", (shape(condition),), "data")],
        [
            None,
            None,
            None,
            Box("hint", (channels(hint.module), f"its last: {still_zero(hint.module[-1])}")),
        ],
    ]
    arrows = [Arrow("condition", "hint"), Arrow("hint", "copy 1", "+")]
    arrows += [Arrow("x", "down 1"), Arrow("x", "copy 1")]
    zeros = [other[f"zeros.{k}"] for k in range(len(control_net.zeros))]
    before = None
    for k, (down, copied) in enumerate(zip(*ways, strict=True), start=1):
        middle = k == len(ways[0])
        adds = zeros[-1:] if middle else zeros[: len(down)]
        zeros = zeros[len(adds) :]
        if middle:
            names = ["middle", "sum", "zeros", "copy"]
            lines = ["of both"]
        else:
            names = [f"{what} {k}" for what in ("down", "up", "zeros", "copy")]
            lines = brief([call for call in ups[k - 1] if kind(call) == "ResBlock"])
            lines += [f"answer {shape(calls['last'].outputs[0])}"] if k == 1 else []
        sizes = [f"1×1: {call.inputs[0][1]} → {call.outputs[0][1]}" for call in adds]
        rows.append(
            [
                Box(names[0], (*brief(down), shape(down[-1].outputs[0])), role),
                Box(names[1], tuple(lines), role),
                Box(names[2], (*sizes, still_zero(*(call.module for call in adds))), "error"),
                Box(names[3], (*brief(copied), shape(copied[-1].outputs[0])), their_role),
            ]
        )
        arrows += [Arrow(names[0], names[1]), Arrow(names[3], names[2])]
        arrows.append(Arrow(names[2], names[1], "+"))
        if before is not None:
            arrows += [Arrow(before[0], names[0]), Arrow(before[3], names[3])]
            arrows.append(Arrow(names[1], before[1]))
        before = names
    weights = [p for net in (unet, control_net) for p in net.parameters()]
    locked, trained = (
        sum(p.numel() for p in weights if p.requires_grad == learns) for learns in (False, True)
    )
    return Diagram(f"ControlNet: {locked:,} parameters locked, {trained:,} trained", rows, arrows)


def ways_down(calls: dict[str, Call], n_down: int, n_middle: int) -> list[list[Call]]:
    """The calls of each level on a U-Net's way down, and of its middle, the last."""
    first, *others = levels(calls, "down", n_down, opens="Conv2d")
    middle = [calls[f"middle.{k}"] for k in range(n_middle)]
    return [[calls["first"], *first], *others, middle]


def still_zero(*layers: nn.Module) -> str:
    """Whether all that layers learn is zero, as at their start."""
    learned = any(bool(p.any()) for layer in layers for p in layer.parameters())
    return "no longer 0" if learned else "still 0"


def brief(calls: list[Call]) -> list[str]:
    """A line for each call, in few letters."""
    names = {"ResBlock": "block", "SpatialTransformer": "attention", "SelfAttention": "attention"}
    return [
        f"{names.get(kind(call), 'conv')} {call.inputs[0][1]} → {call.outputs[0][1]}"
        for call in calls
    ]


def kind(call: Call) -> str:
    """The name of the called module's class."""
    return type(call.module).__name__


# ------------------------------------------------------------------- 15: a transformer's block


def transformer_diagram(block: nn.Module, *, tokens: int = 12) -> Diagram:
    """A ``TransformerBlock``: the one place where tokens meet, and two ways around."""
    block = copy.deepcopy(block)
    attention, met = block.attention, {}
    attend = attention.attend

    def watched(q: Tensor, k: Tensor, v: Tensor, **options: bool) -> Tensor:
        o = attend(q, k, v, **options)
        met.update(q=q, k=k, v=v, o=o, **options)
        return o

    attention.attend = watched
    x = torch.zeros(BATCH, tokens, attention.dim, dtype=attention.out.weight.dtype)
    calls = observe(block, lambda: block(x))
    qkv, out, mlp = calls["attention.qkv"], calls["attention.out"], calls["mlp"]
    sees = "only those before it, and itself" if met["causal"] else "all tokens"
    rows = [
        [None, Box("tokens", (shape(x),), "data"), None],
        [None, Box("LayerNorm 1", (f"then {channels(qkv.module)}: three parts",)), None],
        [
            Box("queries", (shape(met["q"]),), "latent"),
            Box("keys", (shape(met["k"]),), "latent"),
            Box("values", (shape(met["v"]),), "latent"),
        ],
        [
            None,
            Box("softmax(q kᵀ / √d) v", (shape(met["o"]), f"each sees {sees}"), "error"),
            None,
        ],
        [None, Box("heads, joined", (channels(out.module),)), None],
        [None, Box("tokens + what they saw", (shape(out.outputs[0]),), "data"), None],
        [None, Box("LayerNorm 2"), None],
        [
            None,
            Box("each token alone", (f"{channels(mlp.module)}, GELU", parameters(mlp.module))),
            None,
        ],
        [None, Box("sum", (shape(calls[""].outputs[0]),), "data"), None],
    ]
    arrows = [
        Arrow("tokens", "LayerNorm 1"),
        *(Arrow("LayerNorm 1", name) for name in ("queries", "keys", "values")),
        *(Arrow(name, "softmax(q kᵀ / √d) v") for name in ("queries", "keys", "values")),
        Arrow("softmax(q kᵀ / √d) v", "heads, joined"),
        Arrow("heads, joined", "tokens + what they saw"),
        Arrow("tokens", "tokens + what they saw", "+", around="left"),
        Arrow("tokens + what they saw", "LayerNorm 2"),
        Arrow("LayerNorm 2", "each token alone"),
        Arrow("each token alone", "sum"),
        Arrow("tokens + what they saw", "sum", "+", around="right"),
    ]
    return Diagram("A transformer's block: tokens meet in one place only", rows, arrows)


# ------------------------------------------------------------------- 14: two streams, one softmax


def mmdit_diagram(net: nn.Module) -> Diagram:
    """An ``MMDiT`` with a text: its two streams through one block, and what modulates them."""
    x = torch.zeros(BATCH, *net.event_shape, dtype=net.out.weight.dtype)
    context = torch.zeros(BATCH, 12, net.context_dim, dtype=x.dtype)
    calls = observe(net, lambda: net(x, torch.zeros(BATCH), context=context))
    block = net.blocks[0]
    normed = ("Q and K normalized",) if block.attention.qk_norm else ()
    qkv, (image, words) = "Q, K, V", calls["blocks.0.attention"].outputs
    rows: list[list[Box | None]] = [
        [
            Box("noised latent", (shape(x),), "data"),
            Box("t", (shape((BATCH,)),), "noise"),
            Box("text", (shape(context),), "latent"),
        ],
        [
            Box(f"patches {net.patch}×{net.patch}", (channels(net.patches), "+ positions")),
            Box("c", (f"time + mean of the text, {shape(calls['time'].outputs[0])}",)),
            Box("words", (channels(net.words),)),
        ],
        [
            Box("norm, α, β: image", (shape(image),)),
            Box("modulations", (f"{channels(block.modulation[0])} each, at first 0",)),
            Box("norm, α, β: text", (shape(words),)),
        ],
        [Box(f"{qkv}: image", normed), None, Box(f"{qkv}: text", normed)],
        [
            None,
            Box("one softmax", (f"{image[1]} + {words[1]} tokens", heads_in_words(block)), "error"),
            None,
        ],
        [Box("γ, add: image", ()), None, Box("γ, add: text", ())],
        [
            Box("perceptron: image", (channels(block.mlp[0]), "α, β before, γ after")),
            None,
            Box("perceptron: text", (channels(block.mlp[1]), "α, β before, γ after")),
        ],
        [
            Box("velocity", (channels(net.out), shape(calls[""].outputs[0])), "data"),
            Box(f"{len(net.blocks)} such blocks", (parameters(net.blocks),)),
            None,
        ],
    ]
    arrows = [
        Arrow("noised latent", rows[1][0].name),
        Arrow("t", "c"),
        Arrow("text", "c"),
        Arrow("text", "words"),
        Arrow(rows[1][0].name, "norm, α, β: image"),
        Arrow("words", "norm, α, β: text"),
        Arrow("c", "modulations"),
    ]
    for stream in ("image", "text"):
        arrows += [
            Arrow("modulations", f"norm, α, β: {stream}"),
            Arrow(f"norm, α, β: {stream}", f"{qkv}: {stream}"),
            Arrow(f"{qkv}: {stream}", "one softmax"),
            Arrow("one softmax", f"γ, add: {stream}"),
            Arrow(f"γ, add: {stream}", f"perceptron: {stream}"),
        ]
    arrows.append(Arrow("perceptron: image", "velocity"))
    return Diagram(f"MM-DiT, {parameters(net)}", rows, arrows)


def heads_in_words(block: nn.Module) -> str:
    """How many heads a block's attention has, and of which size."""
    attention = block.attention
    return f"{attention.heads} heads of {attention.dim // attention.heads}"


# ---------------------------------------------------------------------------------- what all share


def labels(n_classes: int | None) -> Tensor | None:
    """Labels for the batch, where a model has classes."""
    return None if n_classes is None else torch.arange(BATCH) % n_classes


def layers_of(network: nn.Module) -> list[nn.Module]:
    kinds = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
    return [part for part in network.modules() if isinstance(part, kinds)]


def channels(network: nn.Module) -> str:
    """The widths of a network of linear layers or convolutions, the input's first."""
    sizes = [
        (layer.in_features, layer.out_features)
        if isinstance(layer, nn.Linear)
        else (layer.in_channels, layer.out_channels)
        for layer in layers_of(network)
    ]
    return " → ".join(map(str, [sizes[0][0], *(size for _, size in sizes)]))


def kernel(convolution: nn.Conv2d) -> str:
    """The size of a convolution's kernel, in words."""
    return f"{'×'.join(map(str, convolution.kernel_size))} convolution"
