"""Stand-ins for a device without double precision, such as the GPU of a Mac.

``NoFloat64`` is for functions that make tensors of their own: within it, nothing may be float64.
``elsewhere(x)`` is a tensor on such a device: what is computed from it lies there, too, and may not
be float64, until ``.cpu()`` takes it away.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

REASON = "this device has no float64"


def refuse_float64(results):
    for result in tree_iter(results):
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise TypeError(REASON)
    return results


class NoFloat64(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return refuse_float64(function(*args, **(kwargs or {})))


class Elsewhere(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        results = super().__torch_function__(function, types, args, kwargs or {})
        if function is torch.Tensor.cpu:
            return results.as_subclass(torch.Tensor)
        return refuse_float64(results)


def elsewhere(x):
    return x.as_subclass(Elsewhere)
