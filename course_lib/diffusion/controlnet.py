"""ControlNet: a locked network, a trained copy of its way down, and zeros between the two."""

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from course_lib.checks import check_floats, check_int, check_number, check_tensor
from course_lib.nn import Placed, UNet

__all__ = ["ControlNet", "ControlledUNet", "ZeroConv"]


class ZeroConv(nn.Conv2d):
    """A 1×1 convolution that starts as zero: it gives 0, and its weights still get a gradient.

    For y = W x + b at every pixel dL/dW = Σ dL/dy xᵀ, which asks for x and not for W, while
    dL/dx = Wᵀ dL/dy is 0 as long as W is: what lies before it learns one step later.

    Reference:
        Zhang, Rao, Agrawala 2023, https://arxiv.org/abs/2302.05543, section 3.1.

    Example:
        >>> zero, x = ZeroConv(2, 3), torch.ones(1, 2, 4, 4, requires_grad=True)
        >>> zero(x).sum().backward()
        >>> zero(x).any().item(), zero.weight.grad.any().item(), x.grad.any().item()
        (False, True, False)

    """

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class ControlNet(Placed):
    """The trained copy: what it sees of a condition, to be added to what the locked network sees.

    It is three steps until all of it learns, since a zero convolution lets no gradient through
    before it has learned itself. In the first step only ``zeros`` have a gradient, in the second
    the copy and the last layer of ``hint``, too, in the third all of ``hint``: from then on what
    comes out depends on the condition, and on how it is read.

    Reference:
        Zhang, Rao, Agrawala 2023, https://arxiv.org/abs/2302.05543, section 3.2 and figure 3.

    Args:
        unet: The network to control; its way down and middle are copied.
        condition_channels: Channels of the condition's image.
        factor: How many times larger the condition's sides are than those of the network's image: a
            power of two.

    Example:
        >>> unet = UNet((4, 8, 8), widths=(16, 32))
        >>> net, contour = ControlNet(unet, 1), torch.ones(1, 1, 32, 32)
        >>> [list(more.shape) for more in net(torch.ones(1, 4, 8, 8), torch.ones(1), contour)]
        [[1, 16, 8, 8], [1, 16, 8, 8], [1, 16, 4, 4], [1, 32, 4, 4], [1, 32, 4, 4]]

    """

    def __init__(self, unet: UNet, condition_channels: int, *, factor: int = 4):
        if not isinstance(unet, UNet) or unet.time.n_classes is not None:
            raise ValueError(f"unet must be a UNet without classes, got {type(unet).__name__}")
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
        self.to(unet.first.weight)  # in its precision, where it is

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
        check_tensor("condition", condition, (len(x), *self.condition_shape), dtype=x.dtype)
        embedded = self.copy.embed(x, t, context=context, mask=mask)
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

        part + λ₁ Z₁(copy₁) + λ₂ Z₂(copy₂) + ...

    for each part that the way down puts aside, and for the middle. While all Z are zero, or all
    strengths λ, it says what the locked network says.

    Args:
        unet: The locked network.
        controls: ``(control_net, condition, strength)`` of each: a condition is
            ``[B, *control_net.condition_shape]``, a strength at least 0, 1 in training.

    Example:
        >>> unet = UNet((4, 8, 8), widths=(16, 32))
        >>> contour = torch.ones(2, 1, 32, 32)
        >>> controlled = ControlledUNet(unet, [(ControlNet(unet, 1), contour, 1.0)])
        >>> x, t = torch.ones(2, 4, 8, 8), torch.ones(2)
        >>> torch.equal(controlled(x, t), unet(x, t))
        True

    """

    def __init__(self, unet: UNet, controls: Sequence[tuple[ControlNet, Tensor, float]]):
        if not isinstance(controls, list | tuple) or not all(
            isinstance(control, list | tuple) and len(control) == 3 for control in controls
        ):
            raise ValueError(
                "controls must be a list of (control_net, condition, strength), got "
                f"{type(controls).__name__}"
            )
        for net, condition, strength in controls:
            _check_control(unet, net, condition, strength)
        super().__init__()
        self.unet = unet
        self.event_shape, self.context_dim = unet.event_shape, unet.context_dim
        self.nets = nn.ModuleList(net for net, _, _ in controls)
        for i, (_, condition, _) in enumerate(controls):  # buffers: they go where the module goes
            self.register_buffer(f"condition_{i}", condition, persistent=False)
        self.strengths = [strength for _, _, strength in controls]

    @property
    def conditions(self) -> list[Tensor]:
        """The condition of each control."""
        return [self.get_buffer(f"condition_{i}") for i in range(len(self.nets))]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """As the U-Net's. In a batch twice as large, as of guidance, conditions come twice."""
        embedded = self.unet.embed(x, t, context=context, mask=mask)
        h, aside = self.unet.encode(x, embedded, context, mask)
        parts = [*aside, h]
        for net, condition, strength in zip(
            self.nets, self.conditions, self.strengths, strict=True
        ):
            if len(x) % len(condition):
                raise ValueError(
                    f"x must have as many images as there are conditions, {len(condition)}, or a "
                    f"multiple, got {len(x)}"
                )
            condition = condition.repeat(len(x) // len(condition), 1, 1, 1)
            added = net(x, t, condition, context=context, mask=mask)
            parts = [part + strength * more for part, more in zip(parts, added, strict=True)]
        *aside, h = parts
        return self.unet.decode(h, aside, embedded, context, mask)


def _check_control(unet: UNet, net: ControlNet, condition: Tensor, strength: float) -> None:
    if not isinstance(net, ControlNet):
        raise ValueError(f"control_net must be a ControlNet, got {type(net).__name__}")
    same = net.copy.event_shape == unet.event_shape and net.copy.context_dim == unet.context_dim
    if not same or aside_widths(net.copy) != aside_widths(unet):
        raise ValueError(
            "control_net must be a copy of a network like the one to control, with images "
            f"{unet.event_shape} and channels {aside_widths(unet)}, got {net.copy.event_shape} and "
            f"{aside_widths(net.copy)}"
        )
    dtype = unet.first.weight.dtype
    if net.dtype != dtype:
        raise ValueError(
            f"control_net must be {dtype} like the network to control, got {net.dtype}"
        )
    check_floats("condition", condition, (None, *net.condition_shape), dtype=dtype)
    check_number("strength", strength, minimum=0)
