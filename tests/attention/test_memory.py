"""Live bytes: of a few operations by hand, and O(N) against O(N²) for attention."""

import pytest
import torch

from course_lib.attention import flash_attention, naive_attention, peak_bytes

X = torch.zeros(100)  # 400 bytes


@pytest.mark.parametrize(
    ("function", "peak"),
    [
        (lambda x: x + 1, 400),
        (lambda x: x.view(10, 10).T, 0),  # a view of what was given
        (lambda x: x.add_(0), 0),
        (lambda x: (x + 1).view(10, 10).exp(), 800),
        (lambda x: (x + 1).exp_().sum(), 404),
        (lambda x: x.double(), 800),
        (lambda x: [x + 1 for _ in range(3)], 1200),  # kept
        (lambda x: [(x + 1).sum() for _ in range(3)], 400 + 3 * 4),  # freed
        (lambda x: (x + 1).sum() + (torch.cat([x, x]) + 1).sum(), 1604),
        (lambda x: torch.zeros(5).max(0), 4 * 5 + 4 + 8),
    ],
)
def test_a_few_operations(function, peak):
    assert peak_bytes(function, X) == peak


def test_what_autograd_keeps_is_counted():
    x = torch.zeros(100, requires_grad=True)
    assert peak_bytes(lambda x: x.exp().exp(), x) == 800
    assert peak_bytes(lambda x: x.exp().exp().exp(), x) == 1200
    assert peak_bytes(lambda x: x.detach().exp().exp().exp(), x) == 800


def test_arguments_by_name_are_passed_on_and_nothing_is_left_behind():
    assert peak_bytes(lambda x, *, times: x * times, X, times=2) == 400
    with pytest.raises(TypeError):
        peak_bytes(lambda: None, X)
    assert peak_bytes(lambda x: x + 1, X) == 400


def there_and_back(attend):
    def call(q, k, v):
        return torch.autograd.grad(attend(q, k, v).sum(), (q, k, v))

    return call


@pytest.mark.parametrize("way", [lambda f: f, there_and_back])
def test_attention_in_tiles_grows_with_n_and_naive_with_its_square(way):
    peaks = {}
    for n in (256, 512):
        inputs = [x.requires_grad_() for x in torch.randn(3, 1, n, 16)]
        for attend in (flash_attention, naive_attention):
            options = {"block": 64} if attend is flash_attention else {}
            call = way(lambda *x, f=attend, o=options: f(*x, **o))
            peaks[attend, n] = peak_bytes(call, *inputs)
    assert peaks[flash_attention, 512] < 2.1 * peaks[flash_attention, 256]
    assert peaks[naive_attention, 512] > 3.5 * peaks[naive_attention, 256]
    assert peaks[naive_attention, 512] > 2 * 4 * 512**2
    assert peaks[flash_attention, 512] < 4 * 512 * 16 * 15


def test_what_is_no_function_is_named():
    with pytest.raises(ValueError, match=r"^function must be callable, got Tensor"):
        peak_bytes(torch.zeros(3))
