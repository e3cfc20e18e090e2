"""What the couplings of chapters 04 and 05 share: halves of x, a network, and mistakes with them.

A coupling moves one half, in a way ``new(moved, *numbers)``, by numbers that a network, ``net``,
computes from the other half.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises.attempt import Given, Mistake, same
from course_lib.exercises.formula import Wrong

__all__ = ["Network", "New", "draw_couplings", "halves_wrong", "move", "not_moved", "split"]

BATCH = 7  # not the number of coordinates, so that swapped axes show

New = Callable[..., Tensor]
Move = Callable[[Tensor, Callable, bool, New], Tensor]


class Network(Given):
    """A random network of the half that stays; says so when it is given wrong columns."""

    def __init__(self, name: str, n_kept: int, n_moved: int, n: int, generator: torch.Generator):
        super().__init__(name, ["kept"], self._of)
        self.n = n  # numbers for each coordinate that moves
        self.weight = torch.randn(n_kept, n * n_moved, generator=generator).requires_grad_()
        self.bias = torch.randn(n * n_moved, generator=generator)

    def _of(self, kept: Any) -> Tensor | tuple[Tensor, ...]:
        if not isinstance(kept, Tensor):
            raise Mistake(
                f"You call {self.name} with a {type(kept).__name__}.",
                "Give it the half that stays, a tensor.",
            )
        if kept.ndim == 0 or kept.shape[-1] != len(self.weight):
            raise Mistake(
                f"You call {self.name} on a tensor of shape {list(kept.shape)}; the half that "
                f"stays has {len(self.weight)} columns.",
                "Columns, not rows: `x[:, 0::2]` are the even coordinates, `x[:, 1::2]` the odd.",
            )
        *others, shift = (kept @ self.weight + self.bias).sin().chunk(self.n, dim=-1)
        return (*others, 2 * shift) if others else 2 * shift


def draw_couplings(name: str, n: int) -> Callable[[torch.Generator], list[tuple]]:
    """Random points ``[B, D]``, a network and a flip, for even and odd D and both flips."""

    def draw(generator: torch.Generator) -> list[tuple[Tensor, Network, bool]]:
        cases = []
        for dim, flip in ((4, False), (4, True), (5, False), (5, True)):
            x = torch.randn(BATCH, dim, generator=generator)
            cases.append(
                (x, Network(name, (dim + 1 - flip) // 2, (dim + flip) // 2, n, generator), flip)
            )
        return cases

    return draw


def split(x: Tensor, flip: bool) -> tuple[Tensor, Tensor]:
    """The half that stays and the half that moves."""
    return x[:, int(flip) :: 2], x[:, 1 - flip :: 2]


def _merge(kept: Tensor, moved: Tensor, flip: bool) -> Tensor:
    x = kept.new_empty(len(kept), kept.shape[1] + moved.shape[1])
    x[:, int(flip) :: 2], x[:, 1 - flip :: 2] = kept, moved
    return x


def _by(net: Callable, half: Tensor, moved: Tensor, new: New) -> Tensor:
    numbers = net(half)
    return new(moved, *numbers) if isinstance(numbers, tuple) else new(moved, numbers)


def move(x: Tensor, net: Callable, flip: bool, new: New) -> Tensor:
    """What a coupling makes of x."""
    kept, moved = split(x, flip)
    return _merge(kept, _by(net, kept, moved, new), flip)


def _both(order: str) -> Move:
    """Both halves are moved: the kept one "first", "last", or from x, "together" with the other."""

    def both(x: Tensor, net: Callable, flip: bool, new: New) -> Tensor:
        kept, moved = split(x, flip)
        if order == "first":
            return move(move(x, net, not flip, new), net, flip, new)
        if order == "last":
            return move(move(x, net, flip, new), net, not flip, new)
        return _merge(_by(net, moved, kept, new), _by(net, kept, moved, new), flip)

    return both


def _from_moved(x: Tensor, net: Callable, flip: bool, new: New) -> Tensor:
    kept, moved = split(x, flip)
    return _merge(kept, _by(net, moved, moved, new), flip)


def _middle(x: Tensor, net: Callable, flip: bool, new: New) -> Tensor:
    left, right = x.chunk(2, dim=1)
    parts = [_by(net, right, left, new), right] if flip else [left, _by(net, left, right, new)]
    return torch.cat(parts, dim=1)


def _beside(x: Tensor, net: Callable, flip: bool, new: New) -> list[Tensor]:
    kept, moved = split(x, flip)
    return [kept, _by(net, kept, moved, new)]


def halves_wrong(
    answer: Callable[[Move, New], Callable[..., Any]], new: New, name: str, out: str, into: str
) -> list[Wrong]:
    """A right formula on wrong halves.

    Args:
        answer: Makes an answer, with all its results, of a function that moves.
        new: The right formula.
        name: What the network is called.
        out: What comes out, "z" or "x" ...
        into: ... of the other.

    """
    middle = "The halves are the even coordinates `0::2` and the odd ones `1::2`."
    both = "One half stays as it is; the next coupling of the flow moves it."
    side = "Write the moved half back to the columns it came from."
    sides = "With flip=False the even coordinates stay and the odd ones move; flip=True exchanges."
    # fmt: off
    rows: list[tuple[Callable[..., Tensor], str, str]] = [
        (lambda x, net, flip, new: move(x, net, not flip, new),
         f"Your {out} keeps the wrong half.", sides),
        (lambda x, net, flip, new: move(x, net, False, new),
         f"Your {out} keeps the wrong half: you ignore `flip`.", sides),
        (lambda x, net, flip, new: move(x, net, True, new),
         f"Your {out} keeps the wrong half: you ignore `flip`.", sides),
        (_from_moved, f"You call {name} on the half that moves.",
         f"Call it on the half that stays, which {out} still holds: only so can the step be "
         "undone."),
        (lambda x, *_: x, f"Your {out} is {into}, unchanged.",
         "One half moves. (`a.mul(b)` and `a.add(b)` leave a as it is: keep what they return.)"),
        *((_both(order), "You move both halves.", both) for order in ("first", "last", "together")),
        (_middle, "You split down the middle.", middle),
        (lambda x, net, flip, new: _middle(x, net, False, new),
         "You split down the middle.", middle),
        (lambda x, net, flip, new: _middle(x, net, not flip, new),
         "You split down the middle.", middle),
        (lambda *args: torch.cat(_beside(*args), 1),
         f"Your {out} holds the two halves side by side instead of interleaved.", side),
        (lambda *args: torch.cat(_beside(*args)[::-1], 1),
         f"Your {out} holds the two halves side by side instead of interleaved.", side),
        (lambda x, net, flip, new: _merge(*_beside(x, net, flip, new)[::-1], flip),
         "You exchange the two halves.", f"The columns of {out} that stay are those of {into}."),
    ]
    # fmt: on
    return [Wrong(answer(change, new), says, hint) for change, says, hint in rows]


def not_moved(text: str, out: str, into: str, hint: str) -> Callable[..., tuple[str, str]]:
    """What to say where no known mistake explains ``out``, whose moved half should be ``text``."""

    def otherwise(
        got: Tensor, right: Tensor, given: Tensor, net: Callable, flip: bool
    ) -> tuple[str, str]:
        if same(split(got, flip)[0], split(given, flip)[0]):
            return f"Your {out} keeps the right half, but its other half is not {text}.", hint
        return (
            f"Your {out} changes the half that must stay: the {'odd' if flip else 'even'} "
            "coordinates.",
            f"Copy {into} first, then change the other half of the copy only.",
        )

    return otherwise
