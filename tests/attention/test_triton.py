"""The Triton kernels, in Triton's interpreter where there is no GPU."""

import importlib.util
import inspect
import itertools
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import course_lib.attention
from course_lib.attention import flash_attention, flash_attention_triton, naive_attention
from course_lib.exercises import show_source

ROOT = Path(__file__).resolve().parents[2]
HERE = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 15)
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is for Linux on x86-64 only"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def draw(n_q, n_k, d, *head, dtype=torch.float32, seed=0, size=1.0):
    """Queries, keys, values, and the gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(*head, n, d) for n in (n_q, n_k, n_k, n_q)]
    return [
        (size * torch.randn(shape, generator=generator)).to(dtype).to(DEVICE) for shape in shapes
    ]


def with_gradients(attend, q, k, v, do, **options):
    """The output, and the gradients of all three inputs."""
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    output = attend(*inputs, **options)
    return [output.detach(), *torch.autograd.grad(output, inputs, do)]


def assert_same(found, wanted, tolerance):
    for name, x, y in zip(("o", "dq", "dk", "dv"), found, wanted, strict=True):
        assert x.isfinite().all(), name
        away = (x.double() - y).abs().max() / y.abs().max().clamp(min=1)
        assert away < tolerance, f"{name} is {away:.1e} away"


def assert_right(q, k, v, do, **options):
    """Output and gradients are those of naive attention in float64, and of the inputs' dtype."""
    found = with_gradients(flash_attention_triton, q, k, v, do, **options)
    assert all(x.dtype == q.dtype for x in found)
    assert [x.shape for x in found] == [x.shape for x in (q, q, k, v)]
    wanted = with_gradients(naive_attention, *(x.double() for x in (q, k, v, do)), **options)
    assert_same(found, wanted, TOLERANCE[q.dtype])


# Lengths that no tile divides, more and fewer keys than queries; some tiles are seen whole.
LENGTHS = itertools.cycle([(150, 170), (137, 75), (70, 201), (40, 33)])
SMALL = itertools.cycle([(40, 70), (70, 40), (33, 50)])
CASES = [
    (dtype, d, causal, *next(SMALL if dtype == torch.float32 else LENGTHS))
    for dtype in (torch.bfloat16, torch.float16, torch.float32)
    for causal in (False, True)
    for d in (32, 64, 128)
]


@needs_triton
@pytest.mark.parametrize(("dtype", "d", "causal", "n_q", "n_k"), CASES)
def test_output_and_gradients_are_those_of_naive_attention(dtype, d, causal, n_q, n_k):
    assert_right(*draw(n_q, n_k, d, 1, dtype=dtype, seed=n_q), causal=causal)


@needs_triton
def test_heads_keep_to_themselves():
    q, k, v, do = draw(33, 20, 32, 2, 2)
    assert_right(q, k, v, do, causal=True)


@needs_triton
def test_one_query_one_key():
    assert_right(*draw(1, 1, 32))
    assert_right(*draw(1, 5, 32), causal=True)
    assert_right(*draw(5, 1, 32), causal=True)
    q, k, v, _ = draw(3, 1, 32)
    assert torch.equal(flash_attention_triton(q, k, v), v.expand(3, 32))


@needs_triton
def test_lengths_that_the_tiles_divide():
    """And one key more: only the last query sees it, in a tile of its own."""
    for n_q, n_k in ((32, 64), (64, 32), (32, 33)):
        for causal in (False, True):
            assert_right(*draw(n_q, n_k, 32), causal=causal)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_that_sees_nothing_gets_nothing(dtype):
    from course_lib.attention.triton_flash import flash_forward_triton

    q, k, v, do = draw(150, 33, 32, dtype=dtype)
    blind = 150 - 33
    o, dq, dk, dv = with_gradients(flash_attention_triton, q, k, v, do, causal=True)
    assert (o[:blind] == 0).all()
    assert (dq[:blind] == 0).all()
    _, lse = flash_forward_triton(q, k, v, causal=True)
    assert (lse[:blind] == -torch.inf).all()
    assert lse[blind:].isfinite().all()
    # Whatever its gradient is, nobody else gets any of it.
    changed = do.clone()
    changed[:blind] = 1e3
    again = with_gradients(flash_attention_triton, q, k, v, changed, causal=True)
    assert all(torch.equal(x, y) for x, y in zip((o, dq, dk, dv), again, strict=True))


@needs_triton
@pytest.mark.parametrize("causal", [False, True])
def test_log_sum_exp(causal):
    from course_lib.attention.triton_flash import flash_forward_triton

    q, k, v, _ = draw(40, 70, 32, 2)
    o, lse = flash_forward_triton(q, k, v, causal=causal, scale=0.3)
    s = 0.3 * q.double() @ k.double().mT
    if causal:
        i, j = torch.arange(40, device=DEVICE)[:, None], torch.arange(70, device=DEVICE)
        s = s.masked_fill(j > i + 30, -torch.inf)
    assert lse.dtype == torch.float32
    assert torch.allclose(lse.double(), s.logsumexp(-1), rtol=1e-6, atol=1e-6)
    assert torch.allclose(o.double(), s.softmax(-1) @ v.double(), atol=1e-6)


@needs_triton
@pytest.mark.parametrize("scale", [1e-3, 0.5, 2.0, 1])
def test_scale(scale):
    assert_right(*draw(20, 40, 32), scale=scale)


@needs_triton
@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")  # where the mask says 0
def test_logits_of_ten_thousand():
    """No overflow, before and after the maximum moves, and weights of 0 and 1.

    In bits such a logit is 14,427, and float32 goes in steps of 0.001 there. A GPU subtracts the
    rounded maximum from a product that it has not rounded; the interpreter rounds both alike.
    """
    step = 2e-3 if DEVICE == "cuda" else 5e-6
    q, k, v, do = draw(40, 70, 32)
    # In eighths do · v is exact in any order of summing: keys of 100 multiply its error.
    v, do = ((8 * part).round() / 8 for part in (v, do))
    for causal, sign in ((False, 1), (False, -1), (True, 1)):
        q, k = torch.zeros_like(q), torch.zeros_like(k)
        q[:, 0], k[:, 0] = 100, sign * torch.linspace(-100, 100, 70, device=DEVICE)
        given, options = (q, k, v, do), {"scale": 1.0, "causal": causal}
        found = with_gradients(flash_attention_triton, *given, **options)
        wanted = with_gradients(naive_attention, *(x.double() for x in given), **options)
        for x, y, size in zip(found, wanted, (1, 100, 100, 10), strict=True):
            assert (x.double() - y).abs().max() < step * size  # dq is a sum of keys times rounding


@needs_triton
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
def test_a_key_that_nobody_stored_does_not_count():
    """The last tile is filled up with keys of 0: their exp(0 - L) is inf where L is -10,000."""
    q, k, v, do = draw(40, 70, 32)
    q[:], k[:] = 0, 0
    q[:, 0], k[:, 0] = 100, -100
    found = with_gradients(flash_attention_triton, q, k, v, do, scale=1.0)
    wanted = with_gradients(naive_attention, *(x.double() for x in (q, k, v, do)), scale=1.0)
    assert_same(found, wanted, 2e-3)  # what float32 knows of exp(10,000)


@needs_triton
@pytest.mark.parametrize("causal", [False, True])
def test_the_border_of_what_is_seen(causal):
    """Each query sees the keys up to its own and no further: values beyond are never felt."""
    q, k, v, do = draw(34, 40, 32)
    o, dq, _, _ = with_gradients(flash_attention_triton, q, k, v, do, causal=causal)
    for j in (7, 31, 32):
        other = v.clone()
        other[j] += 100.0
        moved, dq_moved, _, _ = with_gradients(
            flash_attention_triton, q, k, other, do, causal=causal
        )
        sees = (
            torch.arange(34, device=DEVICE) + 6 >= j
            if causal
            else torch.ones(34, device=DEVICE) > 0
        )
        assert torch.equal((moved != o).any(-1), sees)
        assert torch.equal((dq_moved != dq).any(-1), sees)


@needs_triton
def test_nothing_is_read_or_written_beyond_the_tensors():
    """They lie in the middle of larger ones, and what lies around them is NaN, before and after."""
    from course_lib.attention import triton_flash

    given = draw(37, 45, 32)
    wanted = with_gradients(flash_attention_triton, *given, causal=True)

    fenced = []

    def fence(x):
        whole = torch.full((x.numel() + 8192,), torch.nan, device=x.device, dtype=x.dtype)
        fenced.append(whole)
        return whole[4096:-4096].view(x.shape).copy_(x)

    like, empty = torch.empty_like, torch.empty
    with pytest.MonkeyPatch.context() as patch:  # results are fenced in, too
        patch.setattr(torch, "empty_like", lambda x: fence(like(x).zero_()))
        patch.setattr(torch, "empty", lambda *shape, **kind: fence(empty(*shape, **kind).zero_()))
        q, k, v, do = (fence(x) for x in given)
        o, lse = triton_flash.flash_forward_triton(q, k, v, causal=True)
        gradients = triton_flash.flash_backward_triton(do, q, k, v, o, lse, causal=True)
    assert all(torch.equal(x, y) for x, y in zip((o, *gradients), wanted, strict=True))
    assert len(fenced) >= 10
    for whole in fenced:
        assert whole[:4096].isnan().all()
        assert whole[-4096:].isnan().all()


@needs_triton
def test_inputs_need_not_be_contiguous():
    """As a model has them: heads cut out of the last dimension; a gradient that is expanded."""
    q, k, v, _ = (x.mT.contiguous().mT for x in draw(20, 30, 32, 2))
    assert not q.is_contiguous()
    inputs = [x.requires_grad_() for x in (q, k, v)]
    found = torch.autograd.grad(flash_attention_triton(*inputs).sum(), inputs)
    wanted = torch.autograd.grad(flash_attention(*inputs).sum(), inputs)
    for x, y in zip(found, wanted, strict=True):
        assert torch.allclose(x, y, atol=1e-5)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kernel_gets_what_it_asks_for(dtype, monkeypatch):
    """The interpreter overlooks a keyword that a GPU would refuse."""
    from course_lib.attention import triton_flash

    started = []
    launch = triton_flash.launch

    def watched(kernel, programs, *arguments, **options):
        started.append(kernel)
        asked = list(inspect.signature(kernel.__wrapped__).parameters)
        assert set(asked[len(arguments) :]) == set(options) - {"num_warps", "num_stages"}
        launch(kernel, programs, *arguments, **options)

    monkeypatch.setattr(triton_flash, "launch", watched)
    with_gradients(flash_attention_triton, *draw(5, 6, 32, dtype=dtype))
    assert len(started) == 4


@needs_triton
def test_one_gradient_alone():
    q, k, v, do = draw(20, 30, 32)
    k.requires_grad_()
    (found,) = torch.autograd.grad(flash_attention_triton(q, k, v), k, do)
    assert_same(
        [*[found] * 4],
        [with_gradients(naive_attention, *(x.double() for x in (q, k, v, do)))[2]] * 4,
        1e-5,
    )


@needs_triton
def test_gradients_of_gradients_are_refused():
    q, k, v, do = (x.requires_grad_() for x in draw(4, 4, 32))
    (dq,) = torch.autograd.grad(flash_attention_triton(q, k, v), q, do, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dq.sum().backward()


# ---------------------------------------------------------------------------------- bad input


def bad(**changed):
    q, k, v, _ = draw(4, 6, 32)
    return {"q": q, "k": k, "v": v} | changed


NAN = torch.full((4, 32), torch.nan)


@needs_triton
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({x: torch.zeros(6, 48) for x in "qkv"}, r"q must have a head size d of .*64.*, got 48"),
        ({x: torch.zeros(6, 256) for x in "qkv"}, r"q must have a head size d of .*, got 256"),
        ({x: torch.zeros(6, 32).double() for x in "qkv"}, r"q must be of bfloat16.*float64"),
        ({"k": torch.zeros(6, 64)}, r"k must have shape .*32.*got \[6, 64\]"),
        ({"v": torch.zeros(5, 32)}, r"v must have shape \[6, 32\], got \[5, 32\]"),
        ({"q": torch.zeros(1, 4, 32)}, r"k must have shape \[1, N_k, 32\]"),
        ({"q": torch.zeros(32)}, r"q must have shape \[..., N_q, d\], got \[32\]"),
        ({"k": torch.zeros(0, 32)}, r"k must have any shape but an empty one"),
        ({"k": torch.zeros(6, 32).half()}, r"k must be torch.float32 like q, got torch.float16"),
        ({"q": torch.zeros(4, 32).int()}, r"q must be a floating-point tensor, got torch.int32"),
        ({"q": [1.0]}, r"q must be a tensor .*, got list"),
        ({"q": NAN}, r"q must be finite"),
        ({"v": NAN[:1].expand(6, 32) * 0 + torch.inf}, r"v must be finite"),
        ({"causal": 1}, r"causal must be"),
        ({"scale": 0.0}, r"scale must be"),
        ({"scale": "1"}, r"scale must be"),
    ],
)
def test_bad_input_is_refused(changed, said):
    given = {k: x.to(DEVICE) if isinstance(x, torch.Tensor) else x for k, x in changed.items()}
    with pytest.raises(ValueError, match=said):
        flash_attention_triton(**bad(**given))


@needs_triton
def test_inside_looks_at_nothing():
    given = bad(q=NAN.to(DEVICE))
    assert flash_attention_triton.inside(**given).isnan().all()


# ------------------------------------------------------- with triton, without it, without a GPU


def run(code, **environment):
    """What a fresh process prints."""
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=variables | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.mark.skipif(not HERE, reason="triton is for Linux on x86-64 only")
def test_triton_is_there_where_it_can_be():
    assert importlib.util.find_spec("triton") is not None, "run: make install"


def test_the_package_names_what_it_has():
    assert "flash_attention_triton" in course_lib.attention.__all__
    with pytest.raises(AttributeError, match="no attribute 'flash_attention_tritton'"):
        _ = course_lib.attention.flash_attention_tritton


def test_without_triton_the_kernels_can_be_read_and_not_called():
    """And the package loads it for nobody who doesn't ask."""
    code = """
import sys
import course_lib.attention
print("triton" in sys.modules)

sys.modules["triton"] = None  # as if it were not installed
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else find(name, *rest)
import torch
from course_lib.attention import flash_attention_triton
from course_lib.attention.triton_flash import forward_kernel
from course_lib.exercises import show_source
print("tl.exp2" in repr(show_source(forward_kernel)))
x = torch.zeros(4, 32)
try:
    flash_attention_triton(x, x, x)
except ImportError as problem:
    print(problem)
"""
    loaded, readable, said = run(code).splitlines()
    assert loaded == "False"
    assert readable == "True"
    assert said.startswith("flash_attention_triton needs triton, which there is for Linux")


@needs_triton
@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU here")
def test_without_a_gpu_the_interpreter_is_asked_for():
    code = """
import torch
from course_lib.attention import flash_attention_triton
x = torch.ones(4, 32)
print(flash_attention_triton(x, x, x).sum().item())
"""
    assert run(code) == "128.0"


@needs_triton
def test_the_compiler_takes_the_kernels():
    """For real cards, though there may be none; their shared memory is large enough.

    Where the kernels are compiled, they run on a GPU only, and a call says what to do.
    """
    rows = ["forward bfloat16 64 9.0", "keys float16 32 8.0", "queries bfloat16 64 9.0"]
    code = f"""
import torch
from benchmarks.kernels import main
print([main(*row.split()) for row in {rows}])
from course_lib.attention import flash_attention_triton
x = torch.zeros(4, 32)
try:
    flash_attention_triton(x, x, x)
except ValueError as problem:
    print(problem)
"""
    *printed, codes, said = run(code).splitlines()
    assert codes == "[0, 0, 0]"
    assert said.startswith("q must be on a CUDA device, got cpu")
    assert "TRITON_INTERPRET=1" in said
    lines = [line for line in printed if "matrix units" in line]
    assert len(lines) == 3
    for line in lines:
        registers, spilled, _, _, _, units = line.split(":")[1].split()
        assert int(registers) <= 255
        assert int(spilled) < 512
        assert int(units) > 0


@needs_triton
@pytest.mark.parametrize("name", ["forward_kernel", "backward_keys_kernel", "load_rows"])
def test_a_kernel_can_be_shown(name):
    from course_lib.attention import triton_flash

    source = repr(show_source(getattr(triton_flash, name)))
    assert source.startswith(f"# course_lib.attention.triton_flash: {name}\n@kernel\ndef {name}(")
    assert name in triton_flash.__all__
