"""Library source in a notebook, verdicts and hints: in text, HTML and Markdown."""

import html.parser

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from course_lib.exercises import Hints, Result, check, display, hint, show_source, solution
from course_lib.flows import AdditiveCoupling, Flow, StandardGaussian


class Sample:
    """A class with documented parts."""

    def method(self, x):
        """A docstring

        of several lines, with "quotes".
        """

        def inner(y):
            """Of its own."""
            return y + 1

        text = """not a docstring"""
        return inner(x), text

    @property
    def size(self):
        return 3

    def empty(self):
        """Nothing but words."""


def code_of(source):
    return source.pieces[0][2]


def test_docstrings_are_left_out():
    assert code_of(show_source(Sample.method)) == (
        "def method(self, x):\n"
        "    def inner(y):\n"
        "        return y + 1\n"
        "\n"
        '    text = """not a docstring"""\n'
        "    return inner(x), text"
    )
    assert "A class with" not in code_of(show_source(Sample))
    assert "Nothing but words" in code_of(show_source(Sample.empty))


def test_docstrings_are_kept_on_request():
    code = code_of(show_source(Sample.method, docstring=True))
    assert 'with "quotes".' in code
    assert "Of its own." in code


@pytest.mark.parametrize("cut", [{"start": "def inner"}, {"end": "return y"}])
def test_a_source_is_shown_whole(cut):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        show_source(Sample.method, **cut)


@pytest.mark.parametrize("obj", [3, len, "text", None, Sample()])
def test_what_has_no_source_is_an_error(obj):
    with pytest.raises(ValueError, match="obj must be a function, method or class with Python"):
        show_source(obj)
    with pytest.raises(ValueError, match="obj must hold at least one"):
        show_source([])


def test_the_caption_names_the_place_without_paths_or_line_numbers():
    for obj in (
        Flow.sample,
        Flow([AdditiveCoupling(2, [], flip=False)], StandardGaussian(2)).sample,
    ):
        shown = show_source(obj)
        assert shown._repr_markdown_().startswith("`Flow.sample` in `course_lib.flows.flow`\n\n```")
        assert repr(shown).startswith("# course_lib.flows.flow: Flow.sample\n")
        assert "temperature * self.base.sample(n, generator=generator)" in repr(shown)
        assert ".py" not in shown._repr_markdown_()
    assert show_source(Sample.size).pieces[0][1] == "Sample.size"


def test_a_fence_holds_code_with_a_fence_in_it():
    def fenced():
        return "````"

    assert "`````python\n" in show_source(fenced)._repr_markdown_()


def test_solutions_are_the_library_s_own_source():
    shown = repr(solution("04.additive_coupling"))
    assert "moved = moved + self.shift(kept)" in shown
    assert "self.base.log_prob(z) + log_det" in repr(solution("04.change_of_variables"))
    assert "math.log2(levels)" in repr(solution("04.predict_units"))
    assert "torch.logsumexp" in repr(solution("04.break_it"))


def test_a_solution_says_where_its_arguments_are_others():
    shown = solution("04.additive_coupling")
    assert repr(shown).startswith(
        "# You were asked for `additive_coupling(x, shift, flip) -> (z, log_det)`."
    )
    assert shown._repr_markdown_().startswith("You were asked for")
    assert "find `shift` among" in shown.note  # x and flip have their names there
    for name in ("04.peak_height", "04.predict_units", "05.predict_split"):
        assert solution(name).note == ""


class Checked(html.parser.HTMLParser):
    """Collects the text and fails on tags that don't close in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.tags = [], "", []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_verdict_says_everything_in_words():
    result = Result("04.x", "fails", "Your `a < b` is <off>.", "Look & see.", "x of shape [2]")
    assert repr(result) == (
        "✗ 04.x: fails\nYour `a < b` is <off>.\nInput: x of shape [2]\nHint: Look & see."
    )
    page = Checked(result._repr_html_())
    for part in ("✗", "Fails", "04.x", "Your a < b is <off>.", "x of shape [2]", "Look & see."):
        assert part in page.text
    assert 'hint("04.x")' in page.text
    assert ("code", {}) in page.tags
    assert ("span", {"aria-hidden": "true", "style": "font-weight: bold"}) in page.tags
    assert "--jp-error-color1, #" in result._repr_html_()


@pytest.mark.parametrize(
    ("status", "icon", "colour"),
    [("passes", "✓", "--jp-success-color1"), ("not attempted", "○", "--jp-border-color0")],
)
def test_other_verdicts_are_short(status, icon, colour):
    result = Result("04.x", status, "As it is.")
    assert repr(result) == f"{icon} 04.x: {status}\nAs it is."
    page = Checked(result._repr_html_())
    assert page.text == f"{icon} {status.capitalize()} · 04.xAs it is."
    assert colour in result._repr_html_()


def test_each_hint_opens_inside_the_one_before():
    hints = Hints("04.x", ["General.", "`Closer`.", "The <answer>."])
    assert repr(hints) == "Hints for 04.x\n1. General.\n2. `Closer`.\n3. The <answer>."
    page = Checked(hints._repr_html_())
    order = ["Hint 1 of 3", "General.", "Hint 2 of 3", "Closer.", "Hint 3 of 3", "The <answer>."]
    places = [page.text.index(part) for part in order]
    assert places == sorted(places)
    assert hints._repr_html_().endswith("</details></div></details></div></details></div>")
    assert all("open" not in attributes for tag, attributes in page.tags if tag == "details")


CELLS = [
    "x = 1\ncheck('04.break_it', ...)\nx + 1",  # anything may follow
    "check('04.break_it', ...)",
    "r = check('04.break_it', ...)",
    "r",  # in a later cell it is displayed anew
    "for _ in range(2):\n    hint('04.break_it')",
    "solution('04.break_it');",
    "display(check('04.break_it', ...))",
    "show_source(check)",
]


def test_verdicts_hints_and_solutions_display_themselves_once():
    with pytest.MonkeyPatch.context() as patch:
        shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
        patch.setattr(display, "_shell", lambda: shell)
        shell.run_cell("from course_lib.exercises import check, hint, show_source, solution")
        shown = []
        for cell in CELLS:
            with capture_output() as captured:
                result = shell.run_cell(cell, store_history=True)
            assert result.success
            shown.append(captured.outputs)
    InteractiveShell.clear_instance()
    # What stands last is displayed by the shell here in text, by a kernel as a rich output.
    assert [len(outputs) for outputs in shown] == [1, 1, 1, 1, 2, 1, 1, 1]
    for outputs in shown[:4]:
        assert set(outputs[0].data) == {"text/plain", "text/html"}
        assert outputs[0].data["text/plain"].startswith("○ 04.break_it: not attempted")
    assert set(shown[5][0].data) == {"text/plain", "text/markdown"}
    assert "def check" in shown[7][0].data["text/plain"]


def test_outside_of_a_notebook_nothing_is_printed(capsys):
    check("04.break_it", ...)
    hint("04.break_it")
    solution("04.break_it")
    assert capsys.readouterr() == ("", "")
