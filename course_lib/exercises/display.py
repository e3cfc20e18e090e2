"""What the reader sees: the verdict on an attempt, hints, and library source."""

import ast
import html
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

__all__ = ["Hints", "Result", "Source", "show_source"]

Status = Literal["not attempted", "passes", "fails"]

_ICONS: dict[Status, str] = {"not attempted": "○", "passes": "✓", "fails": "✗"}
_COLOURS: dict[Status, str] = {
    "not attempted": "var(--jp-border-color0, #858b94)",
    "passes": "var(--jp-success-color1, #2e9e5b)",
    "fails": "var(--jp-error-color1, #d9483b)",
}
# The text takes the page's own colour, so that it is legible in every theme.
_CARD = (
    "border-left: 4px solid {colour}; padding: 6px 12px; margin: 4px 0; max-width: 62em; "
    "line-height: 1.5; color: var(--jp-content-font-color1, inherit);"
)


def _as_html(text: str) -> str:
    """Escape a text and set what stands between backticks in code type."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _shell() -> Any:
    """The running IPython, if any: the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


class Shown:
    """Shows itself at once in a notebook, wherever in a cell it is made, and then not again there.

    What stands last in a cell is displayed by Jupyter. Of something that ``show`` has displayed in
    that cell already, ``_ipython_display_`` displays nothing; in a later cell it does.
    """

    def show(self) -> Self:
        """Display it now, if this is a notebook."""
        shell = _shell()
        if shell is not None:
            object.__setattr__(self, "_shown_in", shell.execution_count)
            self._publish()
        return self

    def _ipython_display_(self) -> None:
        if getattr(self, "_shown_in", None) != _shell().execution_count:
            self._publish()

    def _publish(self) -> None:
        from IPython.display import publish_display_data

        data = {"text/plain": repr(self)}
        for kind, method in (("text/html", "_repr_html_"), ("text/markdown", "_repr_markdown_")):
            if hasattr(self, method):
                data[kind] = getattr(self, method)()
        publish_display_data(data)


@dataclass(frozen=True)
class Result(Shown):
    """The verdict on an attempt.

    Args:
        name: The exercise.
        status: ``"not attempted"``, ``"passes"`` or ``"fails"``.
        reason: What is asked for, what holds, or which property broke.
        hint: Help with this very mistake.
        where: The input on which it broke.

    """

    name: str
    status: Status
    reason: str
    hint: str = ""
    where: str = ""

    def __repr__(self) -> str:
        lines = [f"{_ICONS[self.status]} {self.name}: {self.status}", self.reason]
        lines += [f"Input: {self.where}"] if self.where else []
        lines += [f"Hint: {self.hint}"] if self.hint else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        colour = _COLOURS[self.status]
        rows = [
            f'<span aria-hidden="true" style="font-weight: bold">{_ICONS[self.status]}</span> '
            f"<strong>{self.status.capitalize()}</strong> · "
            f"<code>{html.escape(self.name)}</code>",
            _as_html(self.reason),
        ]
        if self.where:
            rows.append(f"<strong>Input</strong> · {_as_html(self.where)}")
        if self.hint:
            rows.append(f"<strong>Hint</strong> · {_as_html(self.hint)}")
        if self.status == "fails":
            rows.append(f"More help: <code>hint(&quot;{html.escape(self.name)}&quot;)</code>")
        body = "".join(f"<div>{row}</div>" for row in rows)
        return f'<div role="status" style="{_CARD.format(colour=colour)}">{body}</div>'


@dataclass(frozen=True)
class Hints(Shown):
    """The hints of an exercise, from general to specific: each opens inside the one before.

    Args:
        name: The exercise.
        hints: At least one.

    """

    name: str
    hints: Sequence[str]

    def __repr__(self) -> str:
        lines = [f"{i}. {hint}" for i, hint in enumerate(self.hints, 1)]
        return "\n".join([f"Hints for {self.name}", *lines])

    def _repr_html_(self) -> str:
        body = ""
        for i, hint in reversed(list(enumerate(self.hints, 1))):
            body = (
                f'<details style="margin: 4px 0"><summary>Hint {i} of {len(self.hints)}</summary>'
                f'<div style="margin: 4px 0 4px 16px">{_as_html(hint)}{body}</div></details>'
            )
        colour = _COLOURS["not attempted"]
        return f'<div style="{_CARD.format(colour=colour)}">{body}</div>'


@dataclass(frozen=True)
class Source(Shown):
    """Pieces of source, each with the name of where it lives.

    Args:
        pieces: Triples ``(module, qualified name, code)``.
        note: What a reader should know before, in a sentence or two.

    """

    pieces: Sequence[tuple[str, str, str]]
    note: str = ""

    def __repr__(self) -> str:
        blocks = [f"# {self.note}"] if self.note else []
        blocks += [f"# {module}: {name}\n{code}" for module, name, code in self.pieces]
        return "\n\n".join(blocks)

    def _repr_markdown_(self) -> str:
        blocks = [self.note] if self.note else []
        for module, name, code in self.pieces:
            longest = max((len(ticks) for ticks in re.findall("`+", code)), default=0)
            fence = "`" * max(3, longest + 1)
            blocks.append(f"`{name}` in `{module}`\n\n{fence}python\n{code}\n{fence}")
        return "\n\n".join(blocks)


def show_source(
    obj: Callable[..., Any] | Sequence[Callable[..., Any]],
    *,
    docstring: bool = False,
) -> Source:
    """Show the source of a function, a method or a class, so that a formula and its line stay one.

    Args:
        obj: What to show; several, in a list or tuple, are shown one below the other.
        docstring: Whether to keep docstrings.

    Raises:
        ValueError: When ``obj`` has no Python source, or there is nothing to show.

    Example:
        >>> from course_lib.flows import Flow
        >>> show_source(Flow.log_prob)
        # course_lib.flows.flow: Flow.log_prob
        def log_prob(self, x: Tensor) -> Tensor:
            z, log_det = self(x)
            return self.base.log_prob(z) + log_det

    """
    objects = list(obj) if isinstance(obj, list | tuple) else [obj]
    if not objects:
        raise ValueError("obj must hold at least one function, method or class, got none")
    return Source([_piece(each, docstring) for each in objects])


def _piece(obj: Any, docstring: bool) -> tuple[str, str, str]:
    if isinstance(obj, property):
        obj = obj.fget
    try:
        code = textwrap.dedent(inspect.getsource(obj)).rstrip()
        module, name = obj.__module__, obj.__qualname__
    except (TypeError, OSError, AttributeError):
        raise ValueError(
            f"obj must be a function, method or class with Python source, got {obj!r}"
        ) from None
    if not docstring:
        code = _without_docstrings(code)
    return module, name, code


def _without_docstrings(code: str) -> str:
    lines = code.splitlines()
    dropped: set[int] = set()  # counted from 1
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is None or len(node.body) < 2:
            continue  # a body that is nothing but a docstring stays as it is
        text = node.body[0]
        dropped |= set(range(text.lineno, text.end_lineno + 1))
        after = text.end_lineno + 1
        if after <= len(lines) and not lines[after - 1].strip():
            dropped.add(after)
    return "\n".join(line for i, line in enumerate(lines, 1) if i not in dropped)
