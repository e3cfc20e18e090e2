"""Autoregressive models here against public formulations: training steps, and sampling.

All sides of a comparison hold the same weights (``tests/parity`` checks that they compute the same
density). They take turns within one run, and what is compared is the median of many repetitions.

- MADE against nflows' and zuko's: one hidden layer, natural order, one mask set, and our masks in
  all three, since each library spreads the hidden degrees in its own way. The arithmetic is the
  same, but ours checks its input at every step and theirs don't: without the checks it is the line
  "unchecked", with them it may take ``SLACK`` longer than a peer.
- NADE against the pseudo-code of its paper in PyTorch (a Python loop that carries the running sum)
  and, at the small size, against a loop that starts each sum anew, O(n² d).
- PixelCNN's sampling, which computes each row and pixel once, against a full pass for each pixel.
- NADE's sampling in n small steps against n full passes, and MADE's n passes beside it.
"""

import copy
import itertools
import math
from collections.abc import Callable

import nflows.transforms.made
import torch
import zuko
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._timing import milliseconds, report, training_step
from course_lib.autoregressive import MADE, NADE, Autoregressive, ImageAutoregressive, PixelCNN
from course_lib.autoregressive.base import BinaryAutoregressive

TARGET = 5.0  # PixelCNN's sampling at 28 x 28: so many times faster than full passes, at least
SLACK = 0.05  # of a training step


def in_nflows(model: MADE) -> nn.Module:
    """The same network in nflows, with a copy of ``model``'s weights and masks."""
    dim, *hidden = (layer.weight.shape[1] for layer in model.layers)
    net = nflows.transforms.made.MADE(
        dim, hidden[0], num_blocks=len(hidden) - 1, use_residual_blocks=False
    )
    blocks = [block.linear for block in net.blocks]
    copy_layers(model, [net.initial_layer, *blocks, net.final_layer])
    return net


def in_zuko(model: MADE) -> nn.Module:
    """The same network in zuko, with a copy of ``model``'s weights and masks."""
    dim, *hidden = (layer.weight.shape[1] for layer in model.layers)
    earlier = torch.ones(dim, dim, dtype=torch.bool).tril(-1)
    net = zuko.nn.MaskedMLP(earlier, hidden)
    copy_layers(model, list(net)[::2])
    return net


@torch.no_grad()
def copy_layers(model: MADE, layers: list[nn.Module]) -> None:
    """Weights, biases and masks of ``model`` into masked layers of another library."""
    for k, (theirs, ours) in enumerate(zip(layers, model.layers, strict=True)):
        theirs.weight.copy_(ours.weight)
        theirs.bias.copy_(ours.bias)
        theirs.mask.copy_(model.get_buffer(f"masks_{k}")[0])


def bernoulli(logits: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The log-probability that belongs to a network of logits."""

    def log_prob(x: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(logits(x), x, reduction="none").sum(dim=1)

    return log_prob


class LoopNADE(nn.Module):
    """NADE as in its paper (Larochelle, Murray 2011, algorithm 1), with a copy of the weights."""

    def __init__(self, model: NADE):
        super().__init__()
        self.W, self.V, self.c, self.b = (
            nn.Parameter(weights.detach().clone())
            for weights in (model.W, model.V, model.c, model.b)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The logits, coordinate after coordinate."""
        a = self.c.expand(len(x), -1)
        logits = []
        for i in range(x.shape[1]):
            h = torch.sigmoid(a)
            logits.append(F.linear(h, self.V[i : i + 1], self.b[i : i + 1]))
            a = a + x[:, i : i + 1] * self.W[i]
        return torch.cat(logits, dim=1)


class NaiveNADE(LoopNADE):
    """The definition taken literally: each conditional sums over all earlier coordinates."""

    def forward(self, x: Tensor) -> Tensor:
        """The logits, each from scratch."""
        logits = []
        for i in range(x.shape[1]):
            h = torch.sigmoid(self.c + x[:, :i] @ self.W[:i])
            logits.append(F.linear(h, self.V[i : i + 1], self.b[i : i + 1]))
        return torch.cat(logits, dim=1)


class FullPassPixelCNN(PixelCNN):
    """PixelCNN that samples with a full pass for each pixel."""

    walk = ImageAutoregressive.walk


class FullPassNADE(NADE):
    """NADE that samples with a full pass for each coordinate."""

    walk = BinaryAutoregressive.walk


def binary(*shape: int) -> Tensor:
    """Coin flips."""
    return torch.randint(2, shape).float()


def made_steps() -> bool:
    """MADE's training step at two sizes; whether ours is the fastest, up to its checks."""
    good = True
    batch = 128
    for dim, hidden in ((64, 128), (784, 500)):
        ours = MADE(dim, [hidden])
        nflowss, zukos, unchecked = in_nflows(ours), in_zuko(ours), copy.deepcopy(ours)
        x = binary(batch, dim)
        candidates = {
            "ours": training_step(ours, ours.loss, x),
            "nflows": training_step(nflowss, mean_nll(bernoulli(nflowss)), x),
            "zuko": training_step(zukos, mean_nll(bernoulli(zukos)), x),
            "unchecked": training_step(unchecked, mean_nll(bernoulli(unchecked.logits)), x),
        }
        medians = milliseconds(candidates, repetitions=500 if dim == 64 else 150)
        title = f"MADE({dim}, [{hidden}]), training step, batch {batch}"
        good &= report(title, medians, slack=SLACK)
    return good


def mean_nll(log_prob: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The loss that belongs to a log-probability."""
    return lambda x: -log_prob(x).mean()


def nade_steps() -> bool:
    """NADE's training step at three sizes; whether ours is the fastest."""
    good = True
    for dim, hidden, repetitions in ((64, 64, 100), (784, 200, 20), (784, 500, 10)):
        ours = NADE(dim, hidden)
        loop, naive = LoopNADE(ours), NaiveNADE(ours)
        x = binary(32, dim)
        candidates = {
            "ours": training_step(ours, ours.loss, x),
            "loop": training_step(loop, mean_nll(bernoulli(loop)), x),
        }
        if dim == 64:
            candidates["naive"] = training_step(naive, mean_nll(bernoulli(naive)), x)
        medians = milliseconds(candidates, repetitions=repetitions, warm_up=2)
        good &= report(f"NADE({dim}, {hidden}), training step, batch {len(x)}", medians)
    return good


def twins(fast: Autoregressive, slow: Autoregressive) -> tuple[Autoregressive, Autoregressive]:
    """The same weights in both."""
    slow.load_state_dict(fast.state_dict())
    return fast, slow


def sampler(model: Autoregressive, n: int, drawn: list[Tensor], **options) -> Callable[[], None]:
    """Draw ``n`` samples from the same seed each time; the last ones stand in ``drawn``."""

    def draw() -> None:
        drawn[:] = [model.sample(n, generator=torch.Generator().manual_seed(0), **options)]

    return draw


def first_row(model: PixelCNN, n: int, side: int) -> Callable[[], None]:
    """Visit the first row of ``n`` square images."""

    @torch.no_grad()
    def visit() -> None:
        x = torch.zeros(n, 1, side, side)
        for _ in itertools.islice(model.walk(x), side):
            pass

    return visit


def pixelcnn_sampling() -> bool:
    """Both ways to sample at three sizes; whether ours reaches the target at 28 x 28."""
    fast, slow = twins(*(kind(32, 5, kernel_size=5) for kind in (PixelCNN, FullPassPixelCNN)))
    good = True
    for n in (1, 16):
        print(f"PixelCNN(32, 5, kernel_size=5), {n} sample{'s' * (n > 1)}:", flush=True)
        before: dict[str, float] = {}
        for side, repetitions in ((8, 5), (16, 2), (28, 1)):
            drawn: tuple[list, list] = ([], [])
            candidates = {
                "ours": sampler(fast, n, drawn[0], size=(side, side)),
                "full": sampler(slow, n, drawn[1], size=(side, side)),
            }
            by_row = side == 28 and n > 1  # the whole would take minutes
            if by_row:
                candidates["full"] = first_row(slow, n, side)
            medians = milliseconds(candidates, repetitions=repetitions, warm_up=int(side == 8))
            if by_row:
                medians["full"] *= side
            same = not by_row and torch.equal(*drawn[0], *drawn[1])
            ratio = medians["full"] / medians["ours"]
            print(
                f"  {side:2d} x {side:2d}   ours {medians['ours']:8.0f} ms"
                f"   full passes {medians['full']:8.0f} ms   {ratio:5.2f} x ours"
                + ("   (full passes: first row x 28)" if by_row else "")
                + ("   identical samples" if same else ""),
                flush=True,
            )
            good &= same or by_row
            if before:
                pixels = (side / before["side"]) ** 2
                growth = {name: medians[name] / before[name] for name in medians}
                powers = {name: math.log(g) / math.log(pixels) for name, g in growth.items()}
                print(
                    f"    {pixels:.2f} x the pixels: ours {growth['ours']:.2f} x the time "
                    f"(power {powers['ours']:.2f} of the number of pixels), "
                    f"full passes {growth['full']:.2f} x (power {powers['full']:.2f})"
                )
            before = {"side": side, **medians}
        good &= ratio >= TARGET
    return good


def vector_sampling() -> bool:
    """NADE's steps against full passes, and MADE's passes; whether NADE's samples agree."""
    good = True
    for dim, hidden_nade, hidden_made, repetitions in ((64, 64, 128, 10), (784, 200, 500, 1)):
        fast, slow = twins(NADE(dim, hidden_nade), FullPassNADE(dim, hidden_nade))
        drawn: tuple[list, list] = ([], [])
        candidates = {
            "ours": sampler(fast, 16, drawn[0]),
            "full passes": sampler(slow, 16, drawn[1]),
            "MADE": sampler(MADE(dim, [hidden_made]), 16, []),
        }
        medians = milliseconds(candidates, repetitions=repetitions, warm_up=int(dim == 64))
        report(
            f"NADE({dim}, {hidden_nade}) in {dim} steps, 16 samples; "
            f"beside it MADE({dim}, [{hidden_made}]) in {dim} passes",
            medians,
        )
        same = torch.equal(*drawn[0], *drawn[1])
        print("  samples identical" if same else "  SAMPLES DIFFER")
        good &= same
    return good


def main() -> int:
    """Run all; 1 where ours is slower than a peer or misses the target, or samples differ."""
    torch.manual_seed(0)
    results = [part() for part in (made_steps, nade_steps, pixelcnn_sampling, vector_sampling)]
    return 0 if all(results) else 1
