"""A diagram of an architecture says what its model is, and can be read."""

import copy
import functools

import pytest
import torch

from course_lib import diagrams
from course_lib.autoregressive import PixelCNN
from course_lib.diffusion import ControlNet, LatentDiffusion, StraightPath
from course_lib.flows import NICE, Glow, RealNVP
from course_lib.latent import VAE, VQVAE, KLAutoencoder, quantizer
from course_lib.nn import MMDiT, TextEncoder, TransformerBlock, UNet, WordTokenizer
from tests.widgets.test_diagram import faults_of_layout


def small_latent_diffusion(net=None, **options):
    """On images [1, 8, 16], with latents [2, 4, 8] and five tokens; by default a U-Net."""
    text = TextEncoder(WordTokenizer(["a", "red", "3"], length=5), dim=12, depth=3, heads=2)
    unet = UNet((2, 4, 8), widths=(8, 16), context_dim=12, context_levels=[1], heads=4)
    model = LatentDiffusion(
        KLAutoencoder((1, 8, 16), channels=2, factor=2, width=8), net or unet, text, **options
    )
    model.autoencoder.latent_scale.fill_(1.25)
    return model


def small_controlled(*, context_dim=None, **options):
    """A U-Net, and a net that controls it by images [2, 16, 16]."""
    unet = UNet((1, 8, 8), widths=(16, 32), context_dim=context_dim, **options)
    return torch.nn.ModuleDict({"unet": unet, "control": ControlNet(unet, 2, factor=2)})


@functools.wraps(diagrams.controlnet_diagram)
def controlnet_diagram(both):
    return diagrams.controlnet_diagram(both.control, both.unet)


# For each diagram: models, and what their boxes must say, by the box's name.
CASES = [
    (
        diagrams.vae_diagram,
        lambda: VAE((1, 8, 8), 3, hidden=(20, 10)),
        {
            "x": ["[B, 1, 8, 8]"],
            "encoder": ["64 → 20 → 10 → 6", "1,576 parameters", "gives [B, 6]: two halves"],
            "μ": ["[B, 3]", "where"],
            "log σ²": ["[B, 3]", "how wide"],
            "decoder": ["3 → 10 → 20 → 64", "1,604 parameters"],
            "p(x | z)": ["logits of bits", "[B, 64]"],
            "rate": ["KL(q ‖ p), exact", "[B]"],
        },
    ),
    (
        diagrams.vae_diagram,
        lambda: VAE((2,), 5, hidden=(7,), likelihood="gaussian", n_classes=4),
        {
            "x": ["[B, 2]"],
            "encoder": [
                "6 → 7 → 10",
                "is told the class, of 4",
                "129 parameters",
                "gives [B, 10]: two halves",
            ],
            "z = μ + σ ε": ["[B, 5]"],
            "p(x | z)": ["means of Gaussians", "[B, 2]"],
        },
    ),
    (
        diagrams.vqvae_diagram,
        lambda: VQVAE((1, 8, 8), 24, 6, channels=10, downsamplings=1, residual_layers=0),
        {
            "encoder": ["channels 1 → 10 → 10 → 6", "1,146 parameters"],
            "z": ["[B, 6, 4, 4]"],
            "nearest code": ["[B, 4, 4]", "of 0 … 23"],
            "codebook": ["24 codes × 6"],
            "e": ["[B, 6, 4, 4]"],
            "decoded": ["[B, 1, 8, 8]"],
            "commitment": ["0.25 · mean (z − sg[e])²"],
        },
    ),
    (
        diagrams.pixelcnn_diagram,
        lambda: PixelCNN(12, 3, levels=5, first_kernel_size=5, size=(6, 7)),
        {
            "pixels, encoded": ["[B, 6, 6, 7]"],
            "rows above, layer 1": ["2×5 convolution", "6 → 24"],
            "pixels left, layers 2–3": ["1×2 convolution", "12 → 24"],
            "h, layers 2–3": ["tanh ⊙ sigmoid", "1×1 convolution", "[B, 12, 6, 7]"],
            "logits": ["[B, 5, 6, 7], for 5 levels"],
        },
    ),
    (
        diagrams.coupling_diagram,
        lambda: NICE(7, hidden=(9,)),
        {
            "kept": ["[B, 4]"],
            "moved": ["[B, 3]"],
            "network for m": ["4 → 9 → 3", "75 parameters"],
            "moved + m(kept)": ["[B, 3]"],
            "z": ["[B, 7]", "log det = 0 [B]"],
        },
    ),
    (
        diagrams.coupling_diagram,
        lambda: Glow((1, 8, 8), levels=1, depth=1, hidden=6),
        {
            "kept": ["[B, 2, 4, 4]"],
            "network for s and t": ["2 → 6 → 6 → 4", "376 parameters"],
            "z": ["[B, 4, 4, 4]", "log det = Σ s [B]"],
        },
    ),
    (
        diagrams.multi_scale_diagram,
        lambda: Glow((1, 8, 8), levels=3, depth=2, hidden=6, logit=0.01),
        {
            "squeeze 1": ["[B, 1, 8, 8] → [B, 4, 4, 4]"],
            "split 1": ["half goes on: [B, 2, 4, 4]"],
            "z1": ["[B, 2, 4, 4]", "32 of 64 numbers"],
            "2 × at scale 2, 2×2": [
                "ActNorm",
                "InvertibleConv1x1",
                "AffineCoupling, ChannelMask",
                "[B, 8, 2, 2]",
            ],
            "z2": ["[B, 4, 2, 2]", "16 of 64 numbers"],
            "z3": ["[B, 16, 1, 1]", "16 of 64 numbers"],
        },
    ),
    (
        diagrams.multi_scale_diagram,
        lambda: RealNVP((1, 8, 8), hidden=(5,), couplings=2),
        {
            "2 × at scale 1, 8×8": ["ActNorm", "AffineCoupling, CheckerboardMask", "[B, 1, 8, 8]"],
            "2 × at scale 1, 4×4": ["ActNorm", "AffineCoupling, ChannelMask", "[B, 4, 4, 4]"],
            "3 × at scale 2, 4×4": ["ActNorm", "AffineCoupling, CheckerboardMask", "[B, 2, 4, 4]"],
            "z2": ["[B, 2, 4, 4]", "32 of 64 numbers"],
        },
    ),
    (
        diagrams.unet_diagram,
        lambda: UNet((1, 8, 8), widths=(16, 32), n_classes=4),
        {
            "time embedding": ["waves [B, 16]", "+ one of 4 classes", "[B, 64], to every ResBlock"],
            "first": ["3×3 convolution", "[B, 16, 8, 8]"],
            "down 1": ["ResBlock 16 → 16", "[B, 16, 8, 8]"],
            "down 2": ["stride 2, 16 → 16", "ResBlock 16 → 32", "[B, 32, 4, 4]"],
            "up 1": ["ResBlock 48 → 16", "ResBlock 32 → 16", "[B, 16, 8, 8]"],
            "up 2": ["ResBlock 64 → 32", "ResBlock 48 → 32", "[B, 32, 4, 4]"],
            "middle": [
                "ResBlock 32 → 32",
                "SelfAttention 32 → 32",
                "ResBlock 32 → 32",
                "[B, 32, 4, 4]",
            ],
            "answer": ["[B, 1, 8, 8]"],
        },
    ),
    (
        diagrams.unet_diagram,
        lambda: UNet((3, 8, 8), widths=(8, 16, 24), blocks=2),
        {
            "down 3": [
                "stride 2, 16 → 16",
                "ResBlock 16 → 24",
                "ResBlock 24 → 24",
                "[B, 24, 2, 2]",
            ],
            "answer": ["[B, 3, 8, 8]"],
        },
    ),
    (
        diagrams.latent_diffusion_diagram,
        lambda: small_latent_diffusion(drop=0.25),
        {
            "image x": ["[B, 1, 8, 16] in [−1, 1]"],
            "encoder": ["gives [B, 4, 4, 8]:", "two halves, μ and log v", "6,564 parameters"],
            "latent ℓ": ["[B, 2, 4, 8]", "a draw, times 1.25", "2 times fewer numbers"],
            "noise": ["[B, 2, 4, 8]", "of size σ = 80"],
            "prompt": ["at most 4 words", "tokens [B, 5]"],
            "text encoder": ["3 × TransformerBlock", "2 heads, causal", "5,796 parameters"],
            "context c": ["[B, 5, 12]", "and a mask [B, 5]"],
            "U-Net, told σ": [
                "4 times cross-attention: queries",
                "of 8 pixels, 4 heads",
                "2 B at once: with the prompt, without",
            ],
            "guess D of ℓ": ["null + w (told − null)", "[B, 2, 4, 8]"],
            "loss, in training": ["λ(σ) (D − ℓ)²", "25% of the prompts empty"],
            "decoder": ["takes latent / 1.25", "7,553 parameters"],
            "image": ["[B, 1, 8, 16] in [0, 1]"],
        },
    ),
    (
        diagrams.latent_diffusion_diagram,
        lambda: small_latent_diffusion(
            MMDiT((2, 4, 8), patch=2, dim=16, depth=3, heads=2, context_dim=12),
            path=StraightPath(),
        ),
        {
            "noise": ["[B, 2, 4, 8]", "where t = 1"],
            "(1 − t) ℓ + t ε": ["[B, 2, 4, 8]"],
            "MM-DiT, told t": [
                "3 times joint attention: of",
                "8 patches and 5 words, 2 heads",
                "2 B at once: with the prompt, without",
            ],
            "velocity v": ["null + w (told − null)", "[B, 2, 4, 8]"],
            "loss, in training": ["(v − (ε − ℓ))²", "10% of the prompts empty"],
            "step of a sampler": ["from t to the next", "1 … 0"],
        },
    ),
    (
        controlnet_diagram,
        lambda: small_controlled(context_dim=12),
        {
            "x": ["[B, 1, 8, 8]"],
            "condition": ["[B, 2, 16, 16]"],
            "hint": ["2 → 16 → 16", "its last: still 0"],
            "down 1": ["conv 1 → 16", "block 16 → 16", "[B, 16, 8, 8]"],
            "up 1": ["block 48 → 16", "block 32 → 16", "answer [B, 1, 8, 8]"],
            "zeros 1": ["1×1: 16 → 16", "1×1: 16 → 16", "still 0"],
            "copy 2": ["conv 16 → 16", "block 16 → 32", "[B, 32, 4, 4]"],
            "zeros 2": ["1×1: 16 → 16", "1×1: 32 → 32", "still 0"],
            "middle": ["block 32 → 32", "attention 32 → 32", "block 32 → 32", "[B, 32, 4, 4]"],
            "zeros": ["1×1: 32 → 32", "still 0"],
        },
    ),
    (
        diagrams.transformer_diagram,
        lambda: TransformerBlock(24, 3, expand=2, causal=True),
        {
            "tokens": ["[B, 12, 24]"],
            "LayerNorm 1": ["then 24 → 72: three parts"],
            "queries": ["[B, 3, 12, 8]"],
            "values": ["[B, 3, 12, 8]"],
            "softmax(q kᵀ / √d) v": ["[B, 3, 12, 8]", "each sees only those before it, and itself"],
            "heads, joined": ["24 → 24"],
            "each token alone": ["24 → 48 → 24, GELU", "2,376 parameters"],
            "sum": ["[B, 12, 24]"],
        },
    ),
    (
        diagrams.transformer_diagram,
        lambda: TransformerBlock(64, 4),
        {"softmax(q kᵀ / √d) v": ["[B, 4, 12, 16]", "each sees all tokens"]},
    ),
    (
        diagrams.mmdit_diagram,
        lambda: MMDiT((2, 4, 8), patch=2, dim=16, depth=3, heads=2, context_dim=6),
        {
            "noised latent": ["[B, 2, 4, 8]"],
            "text": ["[B, 12, 6]"],
            "patches 2×2": ["8 → 16", "+ positions"],
            "c": ["time + mean of the text, [B, 16]"],
            "words": ["6 → 16"],
            "norm, α, β: image": ["[B, 8, 16]"],
            "modulations": ["16 → 96 each, at first 0"],
            "norm, α, β: text": ["[B, 12, 16]"],
            "Q, K, V: text": ["Q and K normalized"],
            "one softmax": ["8 + 12 tokens", "2 heads of 8"],
            "perceptron: text": ["16 → 64 → 16", "α, β before, γ after"],
            "velocity": ["16 → 8", "[B, 2, 4, 8]"],
            "3 such blocks": ["29,184 parameters"],
        },
    ),
    (
        diagrams.mmdit_diagram,
        lambda: MMDiT((4, 8, 8), dim=32, depth=1, context_dim=6, qk_norm=False),
        {"Q, K, V: image": [], "one softmax": ["16 + 12 tokens", "4 heads of 8"]},
    ),
]


@pytest.mark.parametrize(("draw", "model", "says"), CASES)
def test_what_stands_in_the_boxes_is_what_the_model_is(draw, model, says):
    diagram = draw(model())
    boxes = {box.name: list(box.lines) for row in diagram.rows for box in row if box}
    for name, lines in says.items():
        assert boxes[name][: len(lines)] == lines
    assert faults_of_layout(diagram) == []


@pytest.mark.parametrize(("draw", "model"), [case[:2] for case in CASES])
def test_a_drawing_leaves_the_model_as_it_was(draw, model):
    model = model()
    before = copy.deepcopy(model.state_dict())
    chance = torch.get_rng_state()
    draw(model)
    assert torch.equal(torch.get_rng_state(), chance)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())


def test_every_diagram_is_tried():
    assert {case[0].__name__ for case in CASES} == set(diagrams.__all__)


def arrows_of(diagram, kind):
    return {(a.start, a.end): a.words for a in diagram.arrows if a.kind == kind}


def small_vqvae(**options):
    torch.manual_seed(0)
    return VQVAE((1, 8, 8), 8, 4, channels=6, downsamplings=1, residual_layers=0, **options)


WAY_BACK = {("error", "decoded"), ("decoded", "decoder"), ("decoder", "e")}


def test_the_gradient_is_copied_past_the_choice():
    diagram = diagrams.vqvae_diagram(small_vqvae())
    found = arrows_of(diagram, "gradient")
    assert set(found) == WAY_BACK | {("e", "z"), ("z", "encoder"), ("commitment", "z")}
    assert found["e", "z"] == "copied"
    assert arrows_of(diagram, "follows") == {("z", "codebook"): "mean"}


def test_a_codebook_that_learns_gets_its_own_gradient():
    diagram = diagrams.vqvae_diagram(small_vqvae(ema=False))
    assert ("z", "codebook") in arrows_of(diagram, "gradient")
    assert arrows_of(diagram, "follows") == {}


def test_without_straight_through_nothing_is_copied(monkeypatch):
    monkeypatch.setattr(quantizer, "straight_through", lambda z, e: e.detach().requires_grad_())
    found = arrows_of(diagrams.vqvae_diagram(small_vqvae()), "gradient")
    assert set(found) == WAY_BACK | {("commitment", "z"), ("z", "encoder")}
    found = arrows_of(diagrams.vqvae_diagram(small_vqvae(commitment=0.0)), "gradient")
    assert set(found) == WAY_BACK


def test_without_commitment_there_is_no_arrow_for_it():
    found = arrows_of(diagrams.vqvae_diagram(small_vqvae(commitment=0.0)), "gradient")
    assert ("commitment", "z") not in found


def test_what_is_put_aside_is_what_the_way_up_needs():
    diagram = diagrams.unet_diagram(UNet((1, 8, 8), widths=(16, 32)))
    across = {(a.start, a.end): a.words for a in diagram.arrows if "aside" in a.words}
    assert across == {
        ("down 1", "up 1"): "aside: 16 + 16 channels",
        ("down 2", "up 2"): "aside: 16 + 32 channels",
    }


def test_a_unet_that_is_told_a_text_looks_at_it_where_it_does():
    net = UNet((1, 8, 8), widths=(16, 32), context_dim=6, context_levels=(1,))
    boxes = {box.name: box for row in diagrams.unet_diagram(net).rows for box in row if box}
    looking = {name for name, box in boxes.items() if any("text" in line for line in box.lines)}
    assert looking == {"down 2", "up 2"}


def test_a_pixelcnn_adds_only_where_its_layers_do():
    diagram = diagrams.pixelcnn_diagram(PixelCNN(4, 2))
    assert [a.end for a in diagram.arrows if a.words == "+"] == ["h, layer 2"]
    assert not any(
        a.start.startswith(("h", "pixels left")) and a.end.startswith(("v", "rows"))
        for a in diagram.arrows
    )


def test_a_controlnet_diagram_says_what_is_locked_and_what_has_moved():
    both = small_controlled(blocks=2)
    size = {name: sum(p.numel() for p in net.parameters()) for name, net in both.items()}
    diagram = controlnet_diagram(both)
    assert diagram.title == f"ControlNet: 0 parameters locked, {sum(size.values()):,} trained"
    assert {box.role for row in diagram.rows for box in row if box} == {"data", "model", "error"}
    both.unet.requires_grad_(False)
    with torch.no_grad():
        both.control.zeros[3].bias[0] = 1e-9
        both.control.hint[-1].weight[0, 0] = 1e-9
    diagram = controlnet_diagram(both)
    assert diagram.title == (
        f"ControlNet: {size['unet']:,} parameters locked, {size['control']:,} trained"
    )
    boxes = {box.name: box for row in diagram.rows for box in row if box}
    assert {name for name in boxes if boxes[name].role == "noise"} == {
        *("down 1", "down 2", "up 1", "up 2", "middle", "sum")
    }
    assert {name for name in boxes if boxes[name].role == "model"} == {
        *("hint", "copy 1", "copy 2", "copy")
    }
    assert boxes["hint"].lines[-1] == "its last: no longer 0"
    # The first convolution and two blocks; then a convolution and two blocks.
    assert boxes["zeros 1"].lines == ("1×1: 16 → 16",) * 3 + ("still 0",)
    last = ("1×1: 16 → 16", "1×1: 32 → 32", "1×1: 32 → 32", "no longer 0")
    assert boxes["zeros 2"].lines == last


def test_arrows_of_a_controlnet_lead_through_the_zeros():
    diagram = controlnet_diagram(small_controlled())
    into = {(a.start, a.end) for a in diagram.arrows}
    assert into == {
        *(("x", "down 1"), ("x", "copy 1"), ("condition", "hint"), ("hint", "copy 1")),
        *(("down 1", "down 2"), ("down 2", "middle"), ("copy 1", "copy 2"), ("copy 2", "copy")),
        *(("down 1", "up 1"), ("down 2", "up 2"), ("middle", "sum")),
        *(("copy 1", "zeros 1"), ("copy 2", "zeros 2"), ("copy", "zeros")),
        *(("zeros 1", "up 1"), ("zeros 2", "up 2"), ("zeros", "sum")),
        *(("sum", "up 2"), ("up 2", "up 1")),
    }


def test_a_latent_diffusion_diagram_counts_what_looks_at_the_text():
    model = small_latent_diffusion()
    diagram = diagrams.latent_diffusion_diagram(model)
    boxes = {box.name: box.lines for row in diagram.rows for box in row if box}
    total = sum(p.numel() for p in model.model.parameters())
    assert boxes["U-Net, told σ"][-1] == f"{total:,} parameters"
    assert ("latent ℓ", "ℓ + σ ε") in {(a.start, a.end) for a in diagram.arrows}
    loop = [a for a in diagram.arrows if a.around]
    assert [(a.start, a.end) for a in loop] == [("step of a sampler", "ℓ + σ ε")]


def test_a_rectified_flow_is_told_the_time_and_says_the_velocity():
    diagram = diagrams.latent_diffusion_diagram(small_latent_diffusion(path=StraightPath()))
    boxes = [box for row in diagram.rows for box in row if box]
    said = [word for box in boxes for word in (box.name, *box.lines)]
    assert "σ" not in " ".join(said + [arrow.words for arrow in diagram.arrows])
    assert ("U-Net, told t", "velocity v") in {(a.start, a.end) for a in diagram.arrows}
