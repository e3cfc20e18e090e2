"""Our Triton kernels beside PyTorch's flash and cuDNN backends, on a GPU.

bfloat16, head sizes 64 and 128, 16,384 tokens in all and heads 2,048 wide together, as in the
FlashAttention papers' figures. Candidates take turns; what is compared is the median of the time on
the GPU. Ours is ``flash_attention_triton.inside``: without the check whether all numbers are
finite, which the others don't make either. What the check costs is printed, too.
"""

import statistics
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

LENGTHS = (1024, 4096, 16384)
TOKENS, WIDTH = 16384, 2048
FORWARD, BACKWARD = 0.9, 0.8  # of the flash backend's speed, at least
CLOSE = 0.02  # bfloat16, relative to the largest number
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}


def measure_on_gpu() -> bool:
    """Print times, TFLOP/s, ratios and memory; whether ours is as fast and lean as promised."""
    if not torch.cuda.is_available():
        print("attention on a GPU: not measured: no GPU here")
        return True
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bfloat16")
    good = [compare(n, d, causal) for d in (64, 128) for causal in (False, True) for n in LENGTHS]
    print(f"forward at least {FORWARD}, backward {BACKWARD} of flash, memory O(N): {all(good)}")
    return all(good)


def compare(n: int, d: int, causal: bool) -> bool:
    """One size: all candidates, forward and backward."""
    from course_lib.attention import flash_attention_triton

    shape = (TOKENS // n, WIDTH // d, n, d)
    q, k, v, do = (torch.randn(shape, dtype=torch.bfloat16, device="cuda") for _ in range(4))
    inputs = tuple(x.requires_grad_() for x in (q, k, v))
    attends = {"ours": lambda: flash_attention_triton.inside(*inputs, causal=causal)}
    for name, backend in BACKENDS.items():
        attends[name] = with_backend(backend, inputs, causal)
    outputs = {}
    for name, attend in list(attends.items()):
        try:
            outputs[name] = attend()
        except RuntimeError as problem:
            print(f"{name} can't: {str(problem).splitlines()[0]}")
            del attends[name]
    backwards = {name: backward_of(o, inputs, do) for name, o in outputs.items()}

    what = f"N = {n}, d = {d}, {'causal' if causal else 'not causal'}"
    print(f"{what}: {TOKENS // n} x {WIDTH // d} heads")
    good = all(close(o, outputs["ours"]) for o in outputs.values())
    for gradients in zip(*(backward() for backward in backwards.values()), strict=True):
        good &= all(close(gradient, gradients[0]) for gradient in gradients)
    if not good:
        print("  they disagree")

    flops = 4 * n * n * d * shape[0] * shape[1] / (2 if causal else 1)
    checked = {"checked": lambda: flash_attention_triton(*inputs, causal=causal)}
    forward = milliseconds_on_gpu(attends | checked)
    backward = milliseconds_on_gpu(backwards)
    good &= report("forward", forward, flops) >= FORWARD
    good &= report("backward", backward, 2.5 * flops) >= BACKWARD

    outputs.clear()
    backwards.clear()
    more = extra_memory(attends["ours"], inputs, do) / q.nbytes
    print(f"  memory beyond q, k, v and do: {more:.2f} x that of q", flush=True)
    return good and more < 5  # o, dq, dk, dv, and two numbers a row


def with_backend(backend: SDPBackend, inputs: tuple, causal: bool) -> Callable:
    """PyTorch's own, by one of its backends."""

    def attend() -> torch.Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(*inputs, is_causal=causal)

    return attend


def backward_of(o: torch.Tensor, inputs: tuple, do: torch.Tensor) -> Callable:
    """The backward pass alone, as often as it is called."""
    return lambda: torch.autograd.grad(o, inputs, do, retain_graph=True)


def close(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether two results are one, in bfloat16."""
    return bool((x.float() - y.float()).abs().max() <= CLOSE * y.float().abs().max())


def milliseconds_on_gpu(
    candidates: dict[str, Callable], *, repetitions: int = 20, warm_up: int = 3
) -> dict[str, float]:
    """Median time on the GPU of each, called in turn.

    Before each, a gigabyte is zeroed: that empties the cache, and while it lasts the processor
    queues what follows, so that its own time does not count.
    """
    gigabyte = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    spans = {name: [] for name in candidates}
    for repetition in range(warm_up + repetitions):
        for name, call in candidates.items():
            started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            gigabyte.zero_()
            started.record()
            call()
            ended.record()
            if repetition >= warm_up:
                spans[name].append((started, ended))
        torch.cuda.synchronize()
    return {
        name: statistics.median(started.elapsed_time(ended) for started, ended in pairs)
        for name, pairs in spans.items()
    }


def report(what: str, medians: dict[str, float], flops: float) -> float:
    """Print a line; the speed of ours as a share of the flash backend's."""
    parts = [f"{name} {ms:.3f} ms {flops / ms / 1e9:.0f} TFLOP/s" for name, ms in medians.items()]
    ratios = {name: medians[name] / medians["ours"] for name in BACKENDS if name in medians}
    print(f"  {what:8s} " + ", ".join(parts), end="; ours ")
    print(", ".join(f"{ratio:.2f} x {name}" for name, ratio in ratios.items()))
    return ratios.get("flash", 0.0)


def extra_memory(attend: Callable, inputs: tuple, do: torch.Tensor) -> int:
    """Bytes at the peak of forward and backward, beyond what was there before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.autograd.grad(attend(), inputs, do)
    return torch.cuda.max_memory_allocated() - before
