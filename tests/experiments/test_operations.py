"""What operations touch, counted by hand."""

import pytest
import torch

from course_lib.experiments import OperationCounter


@pytest.mark.parametrize(
    ("compute", "count"),
    [
        (lambda a, b: a @ b, 5 * 4 * 3),
        (lambda a, b: torch.addmm(b[0], a, b), 5 * 4 * 3),
        (lambda a, b: torch.einsum("ij,jk->ik", a, b), 5 * 4 * 3),
        (lambda a, b: torch.bmm(a.view(1, 5, 4), b.view(1, 4, 3)), 5 * 4 * 3),
        (lambda a, b: torch.baddbmm(b[:1, :, None].mT, a[None], b[None]), 5 * 4 * 3),
        (lambda a, b: a @ b[:, 0], 5 * 4),
        (lambda a, b: a + 1, 20),
        (lambda a, b: a[:, :, None] * b, 60),
        (lambda a, b: a.sum(1), 20),
        (lambda a, b: a.cumsum(0), 20),
        (lambda a, b: a.T[1:].reshape(3, 5), 0),
        (lambda a, b: a.exp().mul_(2), 40),
        (lambda a, b: torch.cat([a, a]), 40),
    ],
)
def test_operations_are_counted(compute, count):
    a, b = torch.randn(5, 4), torch.randn(4, 3)
    with OperationCounter() as counter:
        compute(a, b)
    assert counter.count == count


def test_sizes_of_products_are_kept():
    with OperationCounter() as counter:
        torch.ones(2, 5, 4) @ torch.ones(4, 3)
    assert counter.products == {(10, 4, 3)}


def test_a_few_places_of_a_large_tensor_cost_little():
    large, here = torch.zeros(1000, 50), torch.tensor([3])
    with OperationCounter() as counter:
        large.index_select(0, here)
        large[here, here] = 1.0
    assert counter.count <= 60
