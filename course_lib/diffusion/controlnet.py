"""ControlNet: a locked network, a trained copy of its way down, and zeros between the two."""

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from course_lib.checks import check_floats, check_int, check_number
from course_lib.nn import Placed, UNet

__all__ = ["ControlNet", "ControlledUNet", "ZeroConv"]


class ZeroConv(nn.Conv2d):
    """A 1×1 convolution that starts as zero: it gives 0, and its weights still get a gradient.

    Reference:
        Zhang, Rao, Agrawala 2023, https://arxiv.org/abs/2302.05543, section 3.1.
    """

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class ControlNet(Placed):
    """The trained copy: what it sees of a condition, to be added to what the locked network sees.

    Reference:
        Zhang, Rao, Agrawala 2023, https://arxiv.org/abs/2302.05543, section 3.2 and figure 3.

    Args:
        unet: The network to control; its way down and middle are copied.
        condition_channels: Channels of the condition's image.
        factor: How many times larger the condition's sides are than those of the network's image: a
            power of two.

    """

    def __init__(self, unet: UNet, condition_channels: int, *, factor: int = 4):
        check_int("condition_channels", condition_channels, minimum=1)
        check_int("factor", factor, minimum=1)
        if factor & (factor - 1):
            raise ValueError(f"factor must be a power of two, got {factor}")
        super().__init__()
        height, width = unet.event_shape[1:]
        self.condition_shape = (condition_channels, factor * height, factor * width)
        self.copy = copy.deepcopy(unet).requires_grad_(True)
        del self.copy.up, self.copy.norm, self.copy.last  # only the way down is used
        n = unet.first.out_channels
        halvings = range(factor.bit_length() - 1)
        sizes = [condition_channels, *(16 * 2**i for i in halvings)]
        self.hint = nn.Sequential(
            *(
                layer
                for i in halvings
                for layer in (nn.Conv2d(sizes[i], sizes[i + 1], 3, stride=2, padding=1), nn.SiLU())
            ),
            ZeroConv(sizes[-1], n),
        )
        widths = aside_widths(unet)
        self.zeros = nn.ModuleList(ZeroConv(width, width) for width in widths)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        condition: Tensor,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> list[Tensor]:
        """What to add to all that the locked network puts aside, and, last, to its middle.

        Args:
            x: What the locked network sees, ``[B, *event]``.
            t: The times ``[B]``.
            condition: ``[B, *condition_shape]``.
            context: The text, as of ``UNet``.
            mask: Its mask.

        """
        check_floats("condition", condition, (len(x), *self.condition_shape), dtype=x.dtype)
        embedded = self.copy.embed(x, t, context=context)
        h, aside = self.copy.encode(x, embedded, context, mask, hint=self.hint(condition))
        return [zero(part) for zero, part in zip(self.zeros, [*aside, h], strict=True)]


def aside_widths(unet: UNet) -> list[int]:
    """The channels of all that a U-Net puts aside on its way down, and of its middle."""
    widths = [unet.first.out_channels]
    for layer in unet.down:
        widths.append(
            layer.out_channels if isinstance(layer, nn.Conv2d) else layer.conv2.out_channels
        )
    return [*widths, unet.middle[-1].conv2.out_channels]


class ControlledUNet(Placed):
    """A locked U-Net with controls: networks, their conditions, and how strong each is.

    Args:
        unet: The locked network.
        controls: ``(control_net, condition [B, ...], strength)`` of each.

    """

    def __init__(self, unet: UNet, controls: Sequence[tuple[ControlNet, Tensor, float]]):
        super().__init__()
        self.unet = unet
        self.event_shape, self.context_dim = unet.event_shape, unet.context_dim
        for _, _, strength in controls:
            check_number("strength", strength, minimum=0)
        self.nets = nn.ModuleList(net for net, _, _ in controls)
        self.conditions = [condition for _, condition, _ in controls]
        self.strengths = [strength for _, _, strength in controls]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """As the U-Net's. In a batch twice as large, as of guidance, conditions come twice."""
        embedded = self.unet.embed(x, t, context=context)
        h, aside = self.unet.encode(x, embedded, context, mask)
        parts = [*aside, h]
        for net, condition, strength in zip(
            self.nets, self.conditions, self.strengths, strict=True
        ):
            condition = condition.repeat(len(x) // len(condition), 1, 1, 1)
            added = net(x, t, condition, context=context, mask=mask)
            parts = [part + strength * more for part, more in zip(parts, added, strict=True)]
        *aside, h = parts
        return self.unet.decode(h, aside, embedded, context, mask)
