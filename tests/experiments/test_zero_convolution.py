"""What a 1×1 convolution hands back in training: by the formula, and by autograd."""

import pytest
import torch

from course_lib.diffusion import ZeroConv
from course_lib.experiments import pointwise_gradients


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_the_gradients_are_those_of_autograd(size):
    torch.manual_seed(0)
    layer = ZeroConv(4, 3).double()
    torch.nn.init.normal_(layer.weight, std=size)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(2, 3, 3, 5, dtype=torch.float64)
    layer(x).backward(dy)
    dW, db, dx = pointwise_gradients(layer.weight[:, :, 0, 0].detach(), x.detach(), dy)
    torch.testing.assert_close(dW, layer.weight.grad[:, :, 0, 0])
    torch.testing.assert_close(db, layer.bias.grad)
    torch.testing.assert_close(dx, x.grad)
    assert dx.any() == (size > 0)


def test_shapes_that_do_not_fit_are_refused():
    W, x, dy = torch.zeros(3, 4), torch.zeros(1, 4, 2, 2), torch.zeros(1, 3, 2, 2)
    with pytest.raises(ValueError, match="x must have shape"):
        pointwise_gradients(W, x[:, :3], dy)
    with pytest.raises(ValueError, match="dy must have shape"):
        pointwise_gradients(W, x, dy[:, :2])
