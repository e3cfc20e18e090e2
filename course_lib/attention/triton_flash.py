# ruff: noqa: E741
"""FlashAttention-2 as Triton kernels: what runs on a GPU, forward and backward.

A kernel is written for one tile of the output and started once for each: the loop over a tile's
counterparts stands in the kernel, and what it adds up stays in registers until its end. Logits
exist as one tile at a time, on the chip.

Where there is no GPU the kernels run in Triton's interpreter, slowly, and with the same numbers.
Triton decides that once, when it is imported first: the environment variable TRITON_INTERPRET=1
must be set by then. This module does so where it comes first.
"""

from __future__ import annotations  # without triton, nobody looks at `tl`

import functools
import importlib.util
import os
import sys

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from course_lib.attention.door import check_attention, usual_scale
from course_lib.checks import at_the_door

__all__ = [
    "backward_keys_kernel",
    "backward_queries_kernel",
    "columns_seen",
    "flash_attention_triton",
    "flash_backward_triton",
    "flash_forward_triton",
    "forward_kernel",
    "launch_options",
    "load_rows",
    "product",
    "row_term_kernel",
    "rows_that_see",
    "store_rows",
]

if "triton" not in sys.modules and not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

if importlib.util.find_spec("triton") is None:  # macOS, Windows: the kernels can be read, not run
    triton = tl = INTERPRETED = LOG2_E = LOWEST = None
else:
    import triton
    import triton.language as tl

    # What Triton decided when it was imported: its own functions are kernels like ours.
    INTERPRETED = tl.constexpr(not isinstance(tl.zeros, triton.JITFunction))
    LOG2_E = tl.constexpr(1.4426950408889634)
    LOWEST = tl.constexpr(torch.finfo(torch.float32).min)

HEAD_SIZES = (32, 64, 128)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def kernel(function):
    """What Triton makes of a function; its source and docstring stay to be seen.

    It is compiled once for each dtype, head size and causal or not, and not for each N again.
    """
    if triton is None:
        return function
    compiled = triton.jit(function, do_not_specialize=["n", "n_q", "n_k"])
    return functools.update_wrapper(
        compiled, function, assigned=("__module__", "__qualname__", "__doc__"), updated=()
    )


# ------------------------------------------------------------------------ what all kernels share


@kernel
def load_rows(x, rows, n, HEAD: tl.constexpr, RAGGED: tl.constexpr):
    """Rows of ``x [n, HEAD]``; those from n on, which nobody stored, are 0 and are not read."""
    place = rows[:, None] * HEAD + tl.arange(0, HEAD)
    if RAGGED:
        return tl.load(x + place, mask=rows[:, None] < n, other=0.0)
    return tl.load(x + place)


@kernel
def store_rows(x, rows, n, tile, HEAD: tl.constexpr):
    """Write rows of ``x [n, HEAD]``, in its dtype, up to row n."""
    place = rows[:, None] * HEAD + tl.arange(0, HEAD)
    tl.store(x + place, tile.to(x.dtype.element_ty), mask=rows[:, None] < n)


@kernel
def product(a, b):
    """The matrix product of a and b, added up in float32.

    A GPU's matrix units would round float32 to 10 bits (tf32), and that is another answer: "ieee"
    keeps all 23, and is slow. Half precision is not concerned: its products are exact in float32.
    """
    if INTERPRETED:  # it takes bfloat16's bits for whole numbers; as float32 they are the same
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@kernel
def columns_seen(top, n_q, n_k, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr):
    """What the queries from ``top`` on see: all of the keys before ``whole``, none from ``end``."""
    whole = n_k
    end = n_k
    if CAUSAL:  # i sees j where j <= i + n_k - n_q
        whole = tl.minimum(n_k, tl.maximum(0, top + n_k - n_q + 1))  # as many as the first of them
        end = tl.minimum(n_k, tl.maximum(0, top + ROWS + n_k - n_q))  # as many as the last
    return whole // COLUMNS * COLUMNS, end


@kernel
def rows_that_see(left, n_q, n_k, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr):
    """Who sees the keys from ``left`` on: nobody before ``start``, all of them from ``whole``."""
    start = 0
    whole = 0
    if CAUSAL:  # j is seen by i where i >= j - (n_k - n_q)
        start = tl.maximum(0, left - n_k + n_q)  # the first that sees the first of them
        whole = tl.maximum(0, left + COLUMNS - 1 - n_k + n_q)  # the first that sees the last
    return start // ROWS * ROWS, tl.minimum(n_q, tl.cdiv(whole, ROWS) * ROWS)


# ------------------------------------------------------------------------------------- forward


@kernel
def forward_kernel(
    Q, K, V, O, L, n_q, n_k, scale,
    HEAD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """The output and the log-sum-exp of ROWS queries of one head."""
    # Which ones? With causal those with the most to see begin, so that none of them comes last.
    blocks = tl.cdiv(n_q, ROWS)
    head = (tl.program_id(0) // blocks).to(tl.int64)  # times n HEAD it may exceed 32 bits
    top = (blocks - 1 - tl.program_id(0) % blocks) * ROWS
    rows = top + tl.arange(0, ROWS)
    q = load_rows(Q + head * n_q * HEAD, rows, n_q, HEAD, True)
    K += head * n_k * HEAD
    V += head * n_k * HEAD

    # Nothing seen yet. LOWEST stands for -inf: exp(-inf - -inf) would be NaN.
    m = tl.full([ROWS], LOWEST, tl.float32)
    l = tl.zeros([ROWS], tl.float32)
    o = tl.zeros([ROWS, HEAD], tl.float32)

    # Two loops, written once: over the tiles that are seen whole, and over those at the border,
    # which are few. Only there a mask is computed, and the end of K and V looked for.
    whole, end = columns_seen(top, n_q, n_k, ROWS, COLUMNS, CAUSAL)
    for border in tl.static_range(2):
        for left in range(whole if border else 0, end if border else whole, COLUMNS):
            columns = left + tl.arange(0, COLUMNS)
            k = load_rows(K, columns, n_k, HEAD, border)
            s = product(q, tl.trans(k))
            if border:
                last = rows[:, None] + n_k - n_q if CAUSAL else n_k - 1
                s = tl.where(columns <= last, s, -float("inf"))
            # In base 2, which is what the hardware has; one multiply-add for each logit.
            larger = tl.maximum(m, tl.max(s, 1) * (scale * LOG2_E))
            p = tl.exp2(s * (scale * LOG2_E) - larger[:, None])
            correction = tl.exp2(m - larger)
            l = correction * l + tl.sum(p, 1)
            v = load_rows(V, columns, n_k, HEAD, border)
            o = correction[:, None] * o + product(p.to(v.dtype), v)
            m = larger

    # The one division. Who saw nothing has l = 0: its output is 0, and its log-sum-exp -inf.
    divisor = tl.where(l == 0, 1, l)
    store_rows(O + head * n_q * HEAD, rows, n_q, o / divisor[:, None], HEAD)
    lse = tl.where(l == 0, -float("inf"), (m + tl.log2(divisor)) / LOG2_E)
    tl.store(L + head * n_q + rows, lse, mask=rows < n_q)


# ------------------------------------------------------------------------------------ backward


@kernel
def row_term_kernel(O, dO, D, n, HEAD: tl.constexpr, ROWS: tl.constexpr):
    """D_i, the inner product of o_i and do_i, of ROWS of the n rows of all heads together."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    o = load_rows(O, rows, n, HEAD, True).to(tl.float32)
    do = load_rows(dO, rows, n, HEAD, True).to(tl.float32)
    tl.store(D + rows, tl.sum(o * do, 1), mask=rows < n)


@kernel
def backward_keys_kernel(
    Q, K, V, dO, L, D, dK, dV, n_q, n_k, scale,
    HEAD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """The gradients of COLUMNS keys and values of one head: a loop over the queries."""
    blocks = tl.cdiv(n_k, COLUMNS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    left = tl.program_id(0) % blocks * COLUMNS  # the first keys are seen by the most queries
    columns = left + tl.arange(0, COLUMNS)
    k = load_rows(K + head * n_k * HEAD, columns, n_k, HEAD, True)
    v = load_rows(V + head * n_k * HEAD, columns, n_k, HEAD, True)
    Q += head * n_q * HEAD
    dO += head * n_q * HEAD
    L += head * n_q
    D += head * n_q

    dk = tl.zeros([COLUMNS, HEAD], tl.float32)
    dv = tl.zeros([COLUMNS, HEAD], tl.float32)
    # The border comes first here. Keys from n_k on need no mask: what they come to is not stored.
    start, whole = rows_that_see(left, n_q, n_k, ROWS, COLUMNS, CAUSAL)
    for inside in tl.static_range(2):
        for top in range(whole if inside else start, n_q if inside else whole, ROWS):
            rows = top + tl.arange(0, ROWS)
            # From row n_q on q, do, L and D are read as 0: such rows add 0 to both gradients.
            q = load_rows(Q, rows, n_q, HEAD, True)
            do = load_rows(dO, rows, n_q, HEAD, True)
            lse = tl.load(L + rows, mask=rows < n_q, other=0.0)
            row_term = tl.load(D + rows, mask=rows < n_q, other=0.0)
            # Transposed, keys down and queries across: so P and dS come out of one product as the
            # next one wants them, in registers.
            p = tl.exp2(product(k, tl.trans(q)) * (scale * LOG2_E) - lse * LOG2_E)
            if CAUSAL and not inside:
                p = tl.where(columns[:, None] <= rows + n_k - n_q, p, 0.0)
            dv += product(p.to(do.dtype), do)
            ds = p * (product(v, tl.trans(do)) - row_term)
            dk += product(ds.to(q.dtype), q)

    store_rows(dK + head * n_k * HEAD, columns, n_k, scale * dk, HEAD)
    store_rows(dV + head * n_k * HEAD, columns, n_k, dv, HEAD)


@kernel
def backward_queries_kernel(
    Q, K, V, dO, L, D, dQ, n_q, n_k, scale,
    HEAD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """The gradient of ROWS queries of one head: the loops of the forward pass, L known."""
    blocks = tl.cdiv(n_q, ROWS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    top = (blocks - 1 - tl.program_id(0) % blocks) * ROWS
    rows = top + tl.arange(0, ROWS)
    q = load_rows(Q + head * n_q * HEAD, rows, n_q, HEAD, True)
    do = load_rows(dO + head * n_q * HEAD, rows, n_q, HEAD, True)
    lse = tl.load(L + head * n_q + rows, mask=rows < n_q, other=0.0)[:, None]
    row_term = tl.load(D + head * n_q + rows, mask=rows < n_q, other=0.0)[:, None]
    K += head * n_k * HEAD
    V += head * n_k * HEAD

    dq = tl.zeros([ROWS, HEAD], tl.float32)
    whole, end = columns_seen(top, n_q, n_k, ROWS, COLUMNS, CAUSAL)
    for border in tl.static_range(2):
        for left in range(whole if border else 0, end if border else whole, COLUMNS):
            columns = left + tl.arange(0, COLUMNS)
            k = load_rows(K, columns, n_k, HEAD, border)
            v = load_rows(V, columns, n_k, HEAD, border)
            p = tl.exp2(product(q, tl.trans(k)) * (scale * LOG2_E) - lse * LOG2_E)
            if border:
                last = rows[:, None] + n_k - n_q if CAUSAL else n_k - 1
                p = tl.where(columns <= last, p, 0.0)
            ds = p * (product(do, tl.trans(v)) - row_term)
            dq += product(ds.to(k.dtype), k)

    store_rows(dQ + head * n_q * HEAD, rows, n_q, scale * dq, HEAD)


# ---------------------------------------------------------------------------------- from Python

# ROWS, COLUMNS, warps, stages (tiles on their way into shared memory while others are computed):
# at 64 and 128 the fastest of two hundred on an H100 (bfloat16, N = 4096, not causal), at 32 by
# likeness.
OPTIONS = {
    ("forward", 32): (128, 64, 4, 3),
    ("forward", 64): (128, 64, 8, 3),
    ("forward", 128): (128, 64, 8, 3),
    ("keys", 32): (128, 64, 4, 2),
    ("keys", 64): (128, 64, 4, 2),
    ("keys", 128): (64, 64, 4, 2),
    ("queries", 32): (128, 64, 8, 3),
    ("queries", 64): (128, 64, 8, 3),
    ("queries", 128): (128, 64, 8, 3),
}
LEAST_SHARED = 99 * 2**10  # of all cards since 2020


def launch_options(
    which: str, head: int, dtype: torch.dtype, shared: int = LEAST_SHARED
) -> dict[str, int]:
    """Sizes of tiles, warps and stages of a kernel whose programs may hold ``shared`` bytes."""
    rows, columns, warps, stages = OPTIONS[which, head]
    if shared < 160 * 2**10:  # what three stages take at head size 128
        stages = min(stages, 2)
    if dtype == torch.float32:  # without matrix units: more would not fit into the registers
        rows = columns = 16 if which == "keys" or head == 128 else 32
        warps, stages = 4, 1
    return {"ROWS": rows, "COLUMNS": columns, "num_warps": warps, "num_stages": stages}


def shared_memory(device: torch.device) -> int:
    """How many bytes of shared memory a program may hold."""
    if device.type != "cuda":
        return LEAST_SHARED
    properties = torch.cuda.get_device_properties(device)
    return getattr(properties, "shared_memory_per_block_optin", LEAST_SHARED)


def launch(kernel, programs: int, *arguments, **options) -> None:
    """Start a kernel that many times, on the GPU that its arguments are on."""
    with torch.cuda.device_of(arguments[0]):
        kernel[(programs,)](*arguments, **options)


def flash_forward_triton(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """The output ``[..., N_q, d]`` and the log-sum-exp ``[..., N_q]``, by ``forward_kernel``.

    Arguments are those of ``flash_attention_triton``, and contiguous.
    """
    (*_, n_q, d), n_k = q.shape, k.shape[-2]
    o, lse = torch.empty_like(q), torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
    sizes = (n_q, n_k, float(usual_scale(scale, d)))
    options = launch_options("forward", d, q.dtype, shared_memory(q.device))
    programs = lse.numel() // n_q * triton.cdiv(n_q, options["ROWS"])
    launch(forward_kernel, programs, q, k, v, o, lse, *sizes, HEAD=d, CAUSAL=causal, **options)
    return o, lse


def flash_backward_triton(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, from the gradient ``do`` of ``o``: D first, then dK and dV, dQ.

    Two kernels compute P, so that each gradient has one tile of programs to itself and no two of
    them add to one number. (FlashAttention-2 has one kernel, and adds up dQ with atomics.)
    """
    (*_, n_q, d), n_k = q.shape, k.shape[-2]
    heads, shared = lse.numel() // n_q, shared_memory(q.device)
    row_term = torch.empty_like(lse)
    programs = triton.cdiv(lse.numel(), 64)
    launch(row_term_kernel, programs, o, do, row_term, lse.numel(), HEAD=d, ROWS=64)

    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    given = (q, k, v, do, lse, row_term)
    sizes = (n_q, n_k, float(usual_scale(scale, d)))
    kind = {"HEAD": d, "CAUSAL": causal}
    options = launch_options("keys", d, q.dtype, shared)
    programs = heads * triton.cdiv(n_k, options["COLUMNS"])
    launch(backward_keys_kernel, programs, *given, dk, dv, *sizes, **kind, **options)
    options = launch_options("queries", d, q.dtype, shared)
    programs = heads * triton.cdiv(n_q, options["ROWS"])
    launch(backward_queries_kernel, programs, *given, dq, *sizes, **kind, **options)
    return dq, dk, dv


class TritonAttention(torch.autograd.Function):
    """Keeps q, k, v, the output and one number a row for the way back; no logits."""

    @staticmethod
    def forward(ctx, q, k, v, causal, scale):
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        o, lse = flash_forward_triton(q, k, v, causal=causal, scale=scale)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.options = {"causal": causal, "scale": scale}
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx, do):
        gradients = flash_backward_triton(do.contiguous(), *ctx.saved_tensors, **ctx.options)
        return *gradients, None, None


def check_kernel(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None
) -> None:
    """Require what ``flash_attention`` does, and that the kernels can run on it."""
    if triton is None:
        raise ImportError(
            "flash_attention_triton needs triton, which there is for Linux on x86-64; "
            "flash_attention computes the same everywhere"
        )
    check_attention(q, k, v, causal=causal, scale=scale)
    if q.shape[-1] not in HEAD_SIZES:
        raise ValueError(f"q must have a head size d of {HEAD_SIZES}, got {q.shape[-1]}")
    if q.dtype not in DTYPES:
        raise ValueError(f"q must be of bfloat16, float16 or float32, got {q.dtype}")
    if not INTERPRETED.value and not q.is_cuda:
        raise ValueError(
            f"q must be on a CUDA device, got {q.device}; to run the kernels in Triton's "
            "interpreter set TRITON_INTERPRET=1 in the environment before anything imports triton"
        )


@at_the_door(check_kernel)
def flash_attention_triton(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None
) -> Tensor:
    """Attention by kernels in Triton, forward and backward: memory O(N d).

    The same numbers as ``flash_attention`` up to rounding. Sums are those of float32. Gradients of
    gradients are not to be had.

    Reference:
        Dao 2023, https://arxiv.org/abs/2307.08691, algorithms 1 and 2; Tillet et al. 2019,
        https://doi.org/10.1145/3315508.3329973, for Triton.

    Args:
        q: Queries ``[..., N_q, d]``, bfloat16, float16 or float32, d 32, 64 or 128, on a GPU or,
            in Triton's interpreter, anywhere.
        k: Keys ``[..., N_k, d]``.
        v: Values ``[..., N_k, d]``.
        causal: Query i sees key j where j ≤ i + N_k − N_q only, as in ``naive_attention``.
        scale: What the logits are multiplied with; by default 1/√d.

    Returns:
        The output ``[..., N_q, d]``; 0 for a query that may see no key.

    Raises:
        ImportError: Where triton is not installed.

    """
    return TritonAttention.apply(q, k, v, causal, usual_scale(scale, q.shape[-1]))
