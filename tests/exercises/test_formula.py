"""The engine behind declared exercises: what it draws, how it compares, whom it names."""

import pytest
import torch

from course_lib.exercises import check, formula, registry
from course_lib.exercises.attempt import Mistake
from course_lib.exercises.formula import SHAPES, USUAL, Case, Wrong, usual


@pytest.fixture(autouse=True)
def own_exercises(monkeypatch):
    monkeypatch.setattr(registry, "_EXERCISES", dict(registry._EXERCISES))
    monkeypatch.setattr(formula, "_DECLARED", dict(formula._DECLARED))


def scaled(x, k):
    return (x * k).sum(1)


def declare(**options):
    """An exercise: Σ k x over axis 1, with a single mistake unless told otherwise."""
    options = {
        "right": scaled,
        "inputs": lambda g: [(torch.randn(6, n, generator=g), 3.0) for n in (2, 4)],
        "wrong": [Wrong(lambda x, k: x.sum(1), "You forget k.", "Times k.")],
        "otherwise": ("Not Σ k x.", "By hand."),
        "axes": "[B, d], _ -> [B]",
        "passes": "Fine.",
    } | options
    return formula.formula(
        "99.scaled",
        task="Write `scaled`.",
        signature="scaled(x, k)",
        solution=scaled,
        hints=["Multiply."],
        **options,
    )


def said(answer):
    result = check("99.scaled", answer)
    return result.status if result.status != "fails" else result.reason


def test_right_answers_pass_mistakes_are_named_and_others_get_the_general_word():
    declare()
    assert said(scaled) == "passes"
    assert said(lambda x, k: k * x.sum(-1)) == "passes"
    assert said(lambda x, k: x.sum(1)) == "You forget k."
    assert check("99.scaled", lambda x, k: x.sum(1)).hint == "Times k."
    assert said(lambda x, k: 7 * x.sum(1)) == "Not Σ k x."
    assert said(lambda x, k: ...) == "not attempted"
    declare(otherwise=lambda got, right, x, k: (f"{len(got)} {k}", "Hint."))
    assert said(lambda x, k: 7 * x.sum(1)) == "6 3.0"
    assert list(formula.declared("99")) == ["99.scaled"]


def test_inputs_are_drawn_until_every_mistake_shows():
    """A mistake that shows for negative sums only, of which three draws in four have none."""
    drawn = []

    def inputs(generator):
        sign = 1 if torch.rand((), generator=generator) < 0.75 else -1
        drawn.append(sign)
        return [(sign * torch.rand(6, 2, generator=generator), 3.0)]

    declare(inputs=inputs, wrong=[usual("absolute")])
    for _ in range(20):
        assert said(lambda x, k: scaled(x, k).abs()) == "Your result has lost its sign."
        assert drawn[-1] == -1
    assert 1 in drawn


def test_mistakes_that_can_never_be_told_apart_are_an_error_of_the_table():
    twins = [Wrong(lambda x, k: x.sum(1), "One."), Wrong(lambda x, k: x.sum(1), "Two.")]
    with pytest.raises(RuntimeError, match=r"look alike: One\. Two\."):
        declare(wrong=twins).draw(torch.Generator())
    with pytest.raises(RuntimeError, match=r"look alike: The right answer\. One\."):
        declare(wrong=[Wrong(scaled, "One.")]).draw(torch.Generator())
    twins = [Wrong(twins[0].answer, "One."), Wrong(twins[0].answer, "One.")]
    assert declare(wrong=twins).draw(torch.Generator())


def test_a_mistake_explains_all_ordinary_cases():
    declare(wrong=[Wrong(lambda x, k: 3 * x[:, :2].sum(1), "The first two alone.")])
    assert said(lambda x, k: 3 * x[:, :2].sum(1)) == "The first two alone."
    # Right for two columns, another mistake for four.
    assert said(lambda x, k: scaled(x, k) + (x.shape[1] > 2)) == "Not Σ k x."


def test_a_mistake_that_stops_in_a_case_is_named_by_the_others():
    table = [Wrong(lambda x, k: 3 * (x[:, 0] - x[:, 1] * torch.ones(2)[x.shape[1] - 1]), "Minus.")]
    declare(wrong=table)
    assert said(table[0].answer) == "Minus."


def test_a_case_of_its_own_kind_has_its_own_word():
    def inputs(generator):
        x = torch.randn(6, 2, generator=generator)
        return [(x, 3.0), Case((1000 * x, 3.0), fails=("Large numbers.", "Mind them."))]

    declare(inputs=inputs)
    assert said(lambda x, k: scaled(x, k).clamp(-100, 100)) == "Large numbers."
    assert said(lambda x, k: x.sum(1).clamp(-100, 100)) == "You forget k."  # and clamps
    case = Case((torch.ones(6, 2), 3.0), fails=lambda got, right, x, k: (f"{right[0]:.0f}", "."))
    declare(inputs=lambda g: [*inputs(g)[:1], case])
    assert said(lambda x, k: torch.where((x == 1).all(1), 0.0, scaled(x, k))) == "6"


def test_gradients_are_compared_where_they_are_asked_for():
    declare()
    assert said(lambda x, k: scaled(x, k).detach()) == "passes"
    half = Wrong(lambda x, k: scaled((x + x.detach()) / 2, k), "Half of it is detached.", ".")
    table = [Wrong(lambda x, k: x.sum(1), "You forget k.", "."), half]
    declare(gradients=["x"], gradient_hint="Keep it.", wrong=table)
    assert said(scaled) == "passes"
    assert (
        said(lambda x, k: scaled(x, k).detach()) == "No gradient flows from your result back to x."
    )
    assert said(half.answer) == "Half of it is detached."
    assert "with respect to x is off" in said(lambda x, k: scaled((x + 2 * x.detach()) / 3, k))

    def without(x, k):
        with torch.no_grad():
            return scaled(x, k)

    assert "No gradient flows" in said(without)
    weight = torch.ones((), requires_grad=True)
    declare(
        right=lambda x, k: scaled(x, k) * weight,
        gradients={"the weight": lambda x, k: weight},
    )
    assert said(lambda x, k: scaled(x, k) * weight) == "passes"
    assert said(scaled) == "No gradient flows from your result back to the weight."


def declare_pair(**options):
    return declare(
        right=lambda x, k: (scaled(x, k), k * x),
        result=["total", "parts"],
        axes="[B, d], _ -> [B], [B, d]",
        wrong=[
            Wrong(lambda x, k: (x.sum(1), k * x), "You forget k in the total."),
            Wrong(lambda x, k: (x.sum(1), x), "You forget k."),
            usual("sign", part="parts"),
        ],
        otherwise={"total": ("Not the total.", "."), "parts": ("Not the parts.", ".")},
        **options,
    )


def test_several_results_are_judged_one_after_the_other():
    declare_pair()
    assert said(lambda x, k: (scaled(x, k), k * x)) == "passes"
    assert said(lambda x, k: [scaled(x, k), k * x]) == "passes"
    assert said(lambda x, k: (x.sum(1), x)) == "You forget k."
    assert said(lambda x, k: (x.sum(1), 9 * x)) == "You forget k in the total."
    assert said(lambda x, k: (scaled(x, k), -k * x)) == "Your parts has the wrong sign."
    assert said(lambda x, k: (scaled(x, k), 9 * x)) == "Not the parts."
    assert said(lambda x, k: (9 * x.sum(1), k * x)) == "Not the total."
    assert (
        said(lambda x, k: (k * x, scaled(x, k))) == "You swap the two results: total comes first."
    )
    assert "only one result, but both total and parts" in said(lambda x, k: scaled(x, k))
    assert "3 results" in said(lambda x, k: (x, x, x))


@pytest.mark.parametrize(
    ("answer", "reason", "hint"),
    [
        (lambda x, k: (k * x).sum(0), "has shape [2]; it must have [6]", "look like [d]; asked"),
        (lambda x, k: k * x, "has shape [6, 2]", "look like [B, d]; asked for is [B]"),
        (lambda x, k: scaled(x, k).sum(), "has shape []", "One number for all is left"),
        (lambda x, k: scaled(x, k)[:, None], "has shape [6, 1]", "squeeze"),
        (lambda x, k: scaled(x, k)[:5], "has shape [5]", "print the shapes"),
        (lambda x, k: x.add_(1).sum(1), "changes its input `x` in place", "clone"),
        (lambda x, k: scaled(x, k) / 0 if x.shape[1] == 2 else 1 / 0, "infinite values", "log"),
        (lambda x, k: scaled(x, k) if x.shape[1] == 2 else 1 / 0, "ZeroDivisionError", "Call"),
    ],
)
def test_what_is_no_such_tensor_is_told_so(answer, reason, hint):
    declare()
    result = check("99.scaled", answer)
    assert reason in result.reason
    assert hint in result.hint


def test_the_input_is_the_one_on_which_it_broke():
    declare()
    result = check("99.scaled", lambda x, k: scaled(x, k) + (x.shape[1] > 2))
    assert result.where == "x of shape [6, 4], k=3.0"


def test_an_answer_can_be_brought_into_another_form_first():
    def take(answer, x, k):
        if not isinstance(answer, torch.Tensor):
            raise Mistake("No tensor.", ".")
        return answer.reshape(-1)

    declare(take=take)
    assert said(lambda x, k: scaled(x, k)[:, None]) == "passes"
    assert said(lambda x, k: 3) == "No tensor."
    assert said(lambda x, k: x.sum(1, keepdim=True)) == "You forget k."


@pytest.mark.parametrize("kind", USUAL)
def test_usual_mistakes_change_a_result_and_say_what(kind):
    options = {"gradients": ["x"]} if kind == "detached" else {}
    new = declare(wrong=[usual(kind)], **options)
    (wrong,) = new.wrong
    assert "{" not in wrong.says + wrong.hint
    assert wrong.hint
    assert said(wrong.answer) == wrong.says
    own = declare(wrong=[usual(kind, "So.", "Thus.")], **options).wrong[0]
    assert (own.says, own.hint) == ("So.", "Thus.")


def test_what_is_drawn_once_can_be_judged_on_again():
    new = declare()
    drawn = new.draw(torch.Generator())
    attempt = registry.Attempt(lambda x, k: x.mul_(2).sum(1), ["x", "k"])
    with pytest.raises(Mistake, match="in place"):
        new.judge(attempt, torch.Generator(), drawn)
    assert new.judge(registry.Attempt(scaled, ["x", "k"]), torch.Generator(), drawn) == "Fine."


def test_every_shape_is_there():
    assert {len(shape) for shape in SHAPES} == {1, 2, 3, 4}
    assert any(len(shape) == 4 and shape[1] > 1 for shape in SHAPES)
    assert any(len(shape) > 1 and shape[0] == shape[-1] for shape in SHAPES)


USUAL_OF = {  # what each usual mistake makes of [[4, −4], [2, 8]], a batch of two
    "sign": [[-4, 4], [-2, -8]],
    "bits": [[5.7708, -5.7708], [2.8854, 11.5416]],
    "nats": [[2.7726, -2.7726], [1.3863, 5.5452]],
    "double": [[8, -8], [4, 16]],
    "half": [[2, -2], [1, 4]],
    "exp": [[54.5982, 0.0183], [7.3891, 2980.958]],
    "log": [[1.3863, 1.3863], [0.6931, 2.0794]],
    "root": [[2, 2], [1.4142, 2.8284]],
    "square": [[16, 16], [4, 64]],
    "inverse": [[0.25, -0.25], [0.5, 0.125]],
    "absolute": [[4, 4], [2, 8]],
    "batch mean": [[3, 2], [3, 2]],
    "batch sum": [[6, 4], [6, 4]],
    "first": [[4, -4], [4, -4]],
    "detached": [[4, -4], [2, 8]],
}


def test_the_usual_mistakes_are_what_their_words_say():
    right = torch.tensor([[4.0, -4.0], [2.0, 8.0]])
    made = {kind: change(right) for kind, (change, *_) in USUAL.items()}
    assert made.keys() == USUAL_OF.keys()
    for kind, values in made.items():
        torch.testing.assert_close(values, torch.tensor(USUAL_OF[kind]).float(), atol=1e-3, rtol=0)


def test_axes_lend_their_names_to_the_usual_mistakes():
    declare(
        axes="[draws, images], _ -> [images]",
        right=lambda x, k: (k * x).sum(0),
        wrong=[usual("first"), usual("batch mean")],
    )
    assert said(lambda x, k: (k * x).sum(0)[:1].expand(x.shape[1])) == (
        "Every image gets what the first one has."
    )
    averaged = check("99.scaled", lambda x, k: (k * x).sum(0).mean().expand(x.shape[1]))
    assert averaged.hint == "Reduce axis 0 alone."


def test_an_axis_that_is_left_over_is_told_how_to_go():
    declare()
    result = check("99.scaled", lambda x, k: (k * x).sum(1, keepdim=True))
    assert "Axes of length 1 are left over" in result.hint
