"""A small convolutional network: a function of each pixel's neighbourhood."""

from collections.abc import Sequence

from torch import Tensor, nn

from course_lib.checks import check_int, check_ints, check_tensor

__all__ = ["ConvNet"]


class ConvNet(nn.Module):
    """Convolutions 3×3, 1×1, ..., 3×3 with ReLU between them; the image keeps its size.

    The 3×3 convolutions at both ends look around; the 1×1 between them (one for each further
    hidden width) mix what was seen at each pixel. It is the network of Glow's couplings.

    Reference:
        Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039, section 4.

    Args:
        n_in: Channels of the input.
        hidden: Channels of each hidden layer; an empty sequence gives one 3×3 convolution.
        n_out: Channels of the output.

    Example:
        >>> ConvNet(3, [16, 16], 6)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 6, 8, 8])

    """

    def __init__(self, n_in: int, hidden: Sequence[int], n_out: int):
        check_int("n_in", n_in, minimum=1)
        check_ints("hidden", hidden, minimum=1)
        check_int("n_out", n_out, minimum=1)
        layers: list[nn.Module] = []
        for width_in, width_out in zip([n_in, *hidden], hidden, strict=False):
            kernel = 1 if layers else 3
            layers += [nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2), nn.ReLU()]
        super().__init__()
        self.n_in = n_in
        last = nn.Conv2d([n_in, *hidden][-1], n_out, 3, padding=1)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, n_in, H, W]`` to ``[B, n_out, H, W]``; beyond the border there are zeros."""
        check_tensor("x", x, (None, self.n_in, None, None), dtype=self.layers[0].weight.dtype)
        return self.layers(x)
