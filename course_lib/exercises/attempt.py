"""What a checker needs: run the reader's function with care, and name what is wrong with an answer.

A checker tests a property. Where the property breaks it raises ``Mistake``, which names the mistake
that explains the answer, if it is one that people make.
"""

import inspect
import linecache
import math
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "Attempt",
    "Given",
    "Mistake",
    "NotAttempted",
    "check_randomness",
    "first_line",
    "fresh_seed",
    "gradients_of",
    "same",
    "take_number",
    "take_results",
    "take_tensor",
]

TIME_LIMIT = 20.0  # seconds that one call of the reader's function may take


class Mistake(Exception):
    """The answer breaks a property: ``reason`` says which, ``hint`` helps with this mistake."""

    def __init__(self, reason: str, hint: str = ""):
        super().__init__(reason)
        self.reason, self.hint = reason, hint


class NotAttempted(Exception):
    """There is nothing to judge yet."""


class Attempt:
    """The reader's function: call it like the function itself.

    A call raises ``NotAttempted`` when the first answer is None, ``...`` or NotImplementedError,
    and ``Mistake`` when the function stops with an exception or changes its inputs in place.

    Args:
        function: What the reader wrote.
        names: The names of its arguments, for the messages.

    """

    def __init__(self, function: Callable[..., Any], names: Sequence[str]):
        self.function = function
        self.names = names
        self.answered = False
        self.where = ""  # the inputs of the last call, in words

    def __call__(self, *inputs: Any) -> Any:
        self.where = _in_words(self.names, inputs)
        self._check_signature(inputs)
        before = [_copy(value) for value in inputs]
        try:
            with time_limit(TIME_LIMIT):
                answer = self.function(*inputs)
        except Mistake:  # raised by a callable that the checker handed out
            raise
        except NotImplementedError:
            answer = None
        except _TooLong as error:
            raise Mistake(
                f"Your function was still running after {TIME_LIMIT:g} s{_place(error)}.",
                "Does a loop never end? Does something in a `while` never change?",
            ) from None
        except (Exception, SystemExit) as error:
            raise Mistake(
                f"Your function stopped with `{first_line(error)}`{_place(error)}.",
                "Call your function yourself on an input of that shape, and print what comes in.",
            ) from None
        for name, now, then in zip(self.names, inputs, before, strict=True):
            if not _unchanged(now, then):
                raise Mistake(
                    f"Your function changes its input `{name}` in place.",
                    f"Work on a copy (`{name}.clone()` for a tensor): whoever called you still "
                    f"needs `{name}`.",
                )
        if _is_nothing(answer):
            if not self.answered:
                raise NotAttempted
            raise Mistake(
                "Your function returns nothing on this input.",
                "Is there a branch without a `return`?",
            )
        self.answered = True
        return answer

    def _check_signature(self, inputs: Sequence[Any]) -> None:
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):  # some built-in functions have none
            return
        try:
            signature.bind(*inputs)
        except TypeError:
            wanted = ", ".join(self.names)
            raise Mistake(
                f"Your function takes `{signature}`, and it is called with `({wanted})`.",
                f"Give it the arguments `{wanted}`, in this order.",
            ) from None


class Given:
    """A function that an exercise hands out, such as a network: it says how it is to be called.

    Args:
        name: What the reader calls it.
        arguments: The names of its arguments, in their order; each can be given by name, too.
        function: Does the work; it may raise ``Mistake``.

    """

    def __init__(self, name: str, arguments: Sequence[str], function: Callable[..., Any]):
        self.name, self.arguments, self.function = name, arguments, function

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        missing = self.arguments[len(inputs) :]
        if len(inputs) > len(self.arguments) or sorted(missing) != sorted(named):
            given = [*["…"] * len(inputs), *(f"{name}=…" for name in named)]
            raise Mistake(
                f"You call `{self.name}({', '.join(given)})`.",
                f"It is called `{self.name}({', '.join(self.arguments)})`.",
            )
        return self.function(*inputs, *(named[name] for name in missing))


class _TooLong(BaseException):
    """Not an ``Exception``, so that an ``except`` in the reader's loop does not catch it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``_TooLong`` after so many seconds.

    Only where signals are possible: in the main thread (that of a notebook's cells), and not on
    Windows. Elsewhere an endless loop is ended by interrupting the kernel.
    """
    possible = hasattr(signal, "setitimer") and (
        threading.current_thread() is threading.main_thread()
    )
    if not possible or signal.getitimer(signal.ITIMER_REAL)[0]:  # an outer limit is at work
        yield
        return

    def ring(*_: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _place(error: BaseException) -> str:
    """Where in the reader's own code an exception arose: `` in line 3: `y = x / 0` ``."""
    own = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if "course_lib" not in frame.f_code.co_filename.replace("\\", "/").split("/")
    ]
    home = own[0][0] if own else ""
    lines = [line for file, line in own if file == home]
    if not lines:
        return ""
    code = linecache.getline(home, lines[-1]).strip().replace("`", "'")
    code = code if len(code) <= 60 else code[:59] + "…"
    return f" in line {lines[-1]}" + (f": `{code}`" if code else "")


def _is_nothing(answer: Any) -> bool:
    if isinstance(answer, tuple) and answer:
        return all(_is_nothing(part) for part in answer)
    return answer is None or answer is ...


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return [(item, _copy(item)) for item in value] if isinstance(value, list) else value


def _unchanged(now: Any, then: Any) -> bool:
    if isinstance(now, Tensor):
        return now.shape == then.shape and torch.equal(now.detach(), then)
    if isinstance(now, list):
        return len(now) == len(then) and all(
            a is b and _unchanged(a, copy) for a, (b, copy) in zip(now, then, strict=True)
        )
    return True


def _in_words(names: Sequence[str], inputs: Sequence[Any]) -> str:
    """Name the inputs that can be told in a few letters: tensors by shape, numbers by value."""
    words = []
    for name, value in zip(names, inputs, strict=True):
        if isinstance(value, Tensor):
            words.append(f"{name} of shape {list(value.shape)}")
        elif isinstance(value, bool | int | float | str):
            words.append(f"{name}={value!r}")
        elif isinstance(value, list):
            words.append(f"{len(value)} {name}")
    return ", ".join(words)


def first_line(error: BaseException) -> str:
    """An exception in one line of at most 160 characters."""
    text = " ".join(str(error).strip().splitlines()[:1])
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= 160 else line[:159] + "…"


def take_tensor(
    name: str,
    value: Any,
    shape: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    infinite: bool = False,
    about_shape: str | Callable[[list[int]], str] | None = None,
    about_dtype: str | None = None,
) -> Tensor:
    """Require a tensor of this shape and dtype, free of NaN, and return it.

    Args:
        name: What the reader calls it.
        value: A part of the reader's answer.
        shape: The shape it must have.
        dtype: The dtype it must have; None takes any floating-point one.
        infinite: Whether it may hold infinite values, as a log-density may.
        about_shape: The hint to a reader whose shape is another one, or a function that makes it
            of that shape; None for a general one.
        about_dtype: The hint to a reader whose dtype is another one, where it need not be that
            of the input.

    """
    shape = list(shape)
    if isinstance(value, list):
        raise Mistake(
            f"Your {name} is a list of {len(value)}, not a tensor of shape {shape}.",
            "`torch.stack(...)` makes one tensor of a list of tensors, `torch.tensor(...)` of a "
            "list of numbers.",
        )
    if isinstance(value, tuple):
        raise Mistake(
            f"Your function returns a {type(value).__name__} of {len(value)}, but only {name} is "
            "asked for.",
            f"Return {name} alone.",
        )
    if not isinstance(value, Tensor):
        raise Mistake(
            f"Your {name} is of type {type(value).__name__}, not a tensor"
            + (f" of shape {shape}." if shape else "."),
            "Stay in PyTorch: no `.item()`, no `float()`, no NumPy; `x.new_zeros(n)`, for example, "
            "makes a tensor of n zeros.",
        )
    if list(value.shape) != shape:
        raise Mistake(
            f"Your {name} has shape {list(value.shape)}; it must "
            + (f"have {shape}." if shape else "be one number."),
            _shape_hint(about_shape, name, list(value.shape), shape),
        )
    if value.dtype != dtype if dtype is not None else not value.is_floating_point():
        wanted = "floating-point" if dtype is None else _short(dtype)
        raise Mistake(
            f"Your {name} is of dtype {_short(value.dtype)}; it must be {wanted}"
            + (", as the input is." if about_dtype is None else "."),
            about_dtype
            or "Make new tensors like the input: `torch.zeros_like(x)`, `x.new_zeros(n)`.",
        )
    if value.isnan().any() or not (infinite or value.isfinite().all()):
        raise Mistake(
            f"Your {name} holds {'NaN' if value.isnan().any() else 'infinite values'}.",
            "Look for log(0), 0 / 0 and inf − inf; is every entry written to?",
        )
    return value


def take_number(
    value: Any,
    question: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    whole: bool = False,
    subject: str = "the answer",
) -> float:
    """Require one finite number within bounds, of whatever type, and return it.

    Args:
        value: What the reader predicts.
        question: Asked again where the answer is no such number.
        low: The smallest number that makes sense ...
        high: ... and the largest.
        whole: Whether it must be a whole number; then an ``int`` comes back.
        subject: What the number is, such as ``"a share"``.

    """
    if isinstance(value, Tensor) and value.numel() == 1 and value.device.type != "meta":
        value = value.item()
    number = isinstance(value, Real) and not isinstance(value, bool)
    if number and math.isfinite(value) and low <= value <= high:
        if not whole:
            return float(value)
        if value == int(value):
            return int(value)
    got = f"`{value}`" if number else f"a {type(value).__name__}"
    kind = "a whole number" if whole else "a single number"
    bounds = f" from {low:g} to {high:g}" if math.isfinite(high) else f" of at least {low:g}"
    bounds = bounds if math.isfinite(low) else ""
    raise Mistake(f"You gave {got}; {subject} is {kind}{bounds}.", question)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape_hint(about: Any, name: str, got: list[int], wanted: list[int]) -> str:
    if isinstance(about, str):
        return about
    if len(got) > len(wanted) and [n for n in got if n > 1] == [n for n in wanted if n > 1]:
        return "Axes of length 1 are left over: `squeeze`, or sum without `keepdim`."
    return _about_shape(name, got, wanted) if about is None else about(got)


def _about_shape(name: str, got: list[int], wanted: list[int]) -> str:
    if len(wanted) == 1 and got == []:
        return f"One {name} per point of the batch: never sum or average over the first axis."
    if len(wanted) == 1 and got[:1] != wanted and len(got) == 1:
        return "You reduced the wrong axis: axis 0 is the batch and stays."
    if len(wanted) == 1 and got[:1] == wanted:
        return "Sum over the coordinates (axis 1): one number per point."
    return "Print the shapes of your intermediate results, one after the other."


def take_results(names: Sequence[str], value: Any) -> tuple[Any, ...]:
    """Require as many results as there are names, and return them."""
    if isinstance(value, tuple | list) and len(value) == len(names):
        return tuple(value)
    many = len(value) if isinstance(value, tuple | list) else 1
    got = "only one result" if many == 1 else f"{many} results"
    both = "both " if len(names) == 2 else ""
    wanted = f"{', '.join(names[:-1])} and {names[-1]}"
    raise Mistake(
        f"Your function returns {got}, but {both}{wanted} are asked for.",
        f"End with `return {', '.join(names)}`.",
    )


def same(a: Tensor, b: Tensor, *, tolerance: float = 1e-4) -> bool:
    """Whether two tensors agree up to rounding (for values of about 1, in float32)."""
    return a.shape == b.shape and torch.allclose(
        a.detach().double(), b.detach().double(), rtol=tolerance, atol=tolerance
    )


def gradients_of(result: Tensor, sources: Iterable[Tensor]) -> list[Tensor | None]:
    """The gradient of a result by every source, None where none flows."""
    # Weights that differ from entry to entry: no two mistakes can cancel in the sum.
    weights = torch.linspace(0.5, 1.5, result.numel(), dtype=result.dtype).reshape(result.shape)
    total, gradients = (result * weights).sum(), []
    for source in sources:
        try:
            gradients += torch.autograd.grad(total, source, retain_graph=True, allow_unused=True)
        except RuntimeError:  # nothing in it has a gradient
            gradients.append(None)
    return gradients


def fresh_seed(generator: torch.Generator) -> int:
    """A seed for a generator that is handed to the reader."""
    return int(torch.randint(1, 2**62, (), generator=generator))


_ITSELF = "Draw from `generator` itself, not from a copy of it and not from its seed."


class _Private(torch.Generator):
    """A generator that no copy can be made of.

    A copy for a part of the draws differs from call to call, but repeats what other parts draw.
    """

    def _refuse(self, *_: Any) -> Any:
        raise Mistake("You copy the generator for a part of your draws.", _ITSELF)

    get_state = graphsafe_get_state = clone_state = __reduce_ex__ = __deepcopy__ = _refuse


def check_randomness(
    draw: Callable[[torch.Generator], Tensor | Sequence[Tensor]],
    generator: torch.Generator,
    hint: str,
) -> None:
    """Require that all randomness of ``draw`` comes from the generator it is given.

    Args:
        draw: The reader's function of a generator; its draws must be so many that two generators
            never give the same by chance. Where it gives several tensors, each of them must change.
        generator: Source of the seeds.
        hint: Says how a generator is handed on.

    """

    def drawn(source: torch.Generator) -> list[Tensor]:
        values = draw(source)
        return [v.detach() for v in ([values] if isinstance(values, Tensor) else values)]

    def any_equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
        return any(map(torch.equal, ours, theirs))

    for _ in range(5):  # what comes from elsewhere may agree by chance, but not five times
        seed = fresh_seed(generator)
        source = torch.Generator().manual_seed(seed)
        one, second = drawn(source), drawn(source)
        again, other = (drawn(torch.Generator().manual_seed(s)) for s in (seed, seed - 1))
        if not all(map(torch.equal, one, again)):
            raise Mistake(
                "Two generators with the same seed give different values: your noise comes from "
                "elsewhere.",
                hint,
            )
        if any_equal(one, other):
            raise Mistake(
                "Every generator gives the same values.",
                "Draw from the generator as it comes; set no seed inside.",
            )
        if any_equal(one, second):
            raise Mistake(
                "Two calls with one generator give the same values: your draws don't move it on.",
                _ITSELF,
            )
    drawn(_Private())
