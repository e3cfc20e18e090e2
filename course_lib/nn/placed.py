"""What a module without weights can't know by itself: its precision and its device."""

import torch
from torch import nn

__all__ = ["Placed"]


class Placed(nn.Module):
    """A module that knows its ``dtype`` and its ``device``, also where it has no weights.

    An empty buffer goes along with ``.to(...)`` and ``.double()``, and is stored nowhere.

    Example:
        >>> Placed().double().dtype
        torch.float64

    """

    def __init__(self):
        super().__init__()
        self.register_buffer("placement", torch.empty(0), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the module computes."""
        return self._buffers["placement"].dtype  # quicker than self.placement, and often asked

    @property
    def device(self) -> torch.device:
        """Where the module computes."""
        return self._buffers["placement"].device
