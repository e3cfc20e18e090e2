"""The formulas of memory against ZeRO's own figures, GPT-2's, and what PyTorch holds."""

import re

import pytest
import torch
from torch import nn

from course_lib.parallel import (
    GPT2_SIZES,
    SD3_SIZES,
    StateBytes,
    gpt2_parameters,
    measured_bytes,
    state_bytes,
)


@pytest.mark.parametrize(
    ("parameters", "processes", "gigabytes"),
    [  # Rajbhandari et al. 2020, table 1
        (7.5e9, 64, [120, 31.4, 16.6, 1.88]),
        (7.5e9, 4, [120, 52.5, 41.3, 30]),
        (7.5e9, 1024, [120, 30.1, 15.1, 0.12]),
        (128e9, 16, [2048, 608, 368, 128]),
        (1e12, 64, [16000, 4187, 2218, 250]),
    ],
)
def test_the_papers_table(parameters, processes, gigabytes):
    for stage, wanted in enumerate(gigabytes):
        held = state_bytes(int(parameters), processes=processes, stage=stage)
        assert held.total / 1e9 == pytest.approx(wanted, rel=0.01, abs=0.005)


def test_parts():
    assert state_bytes(10) == StateBytes(20, 20, 120)
    assert state_bytes(10).total == 160
    assert state_bytes(10, processes=4) == StateBytes(20, 20, 120)
    assert state_bytes(10, processes=4, stage=1) == StateBytes(20, 20, 30)
    assert state_bytes(10, processes=4, stage=2) == StateBytes(20, 5, 30)
    assert state_bytes(10, processes=4, stage=3) == StateBytes(5, 5, 30)
    assert state_bytes(10, precision="float32") == StateBytes(40, 40, 80)
    assert state_bytes(10, precision="float32", optimizer="sgd") == StateBytes(40, 40, 0)
    assert state_bytes(10, optimizer="sgd") == StateBytes(20, 20, 40)
    assert state_bytes(1) == StateBytes(2, 2, 12)


class GPT2(nn.Module):
    """As many parameters as GPT-2 has, of PyTorch's own layers."""

    def __init__(self, layers, width, vocabulary, context):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(context, width)
        block = {"d_model": width, "nhead": 1, "dim_feedforward": 4 * width}
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(**block) for _ in range(layers))
        self.norm = nn.LayerNorm(width)


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_gpt2():
    for layers, width, vocabulary, context in [(0, 1, 1, 1), (1, 3, 5, 2), (2, 6, 11, 7)]:
        wanted = count(GPT2(layers, width, vocabulary, context))
        assert gpt2_parameters(layers, width, vocabulary=vocabulary, context=context) == wanted
    # As in the models that OpenAI published.
    exact = [124_439_808, 354_823_168, 774_030_080, 1_557_611_200]
    assert [gpt2_parameters(*size) for size in GPT2_SIZES.values()] == exact
    assert [f"{round(n / 1e6)}M" for n in exact] == list(GPT2_SIZES)
    assert SD3_SIZES == {"SD3 Medium": 2e9, "SD3 8B": 8e9}


@pytest.mark.parametrize(
    ("optimizer", "build"),
    [("adam", torch.optim.Adam), ("adam", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_what_pytorch_holds(optimizer, build):
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    trained = build(model.parameters(), lr=0.1)
    assert measured_bytes(model, trained) == StateBytes(4 * count(model), 0, 0)
    model(torch.ones(1, 3)).sum().backward()
    trained.step()
    wanted = state_bytes(count(model), precision="float32", optimizer=optimizer)
    assert measured_bytes(model, trained) == wanted


def test_mixed_precision_by_hand():
    """In 16 bits, with a copy in 32 that Adam updates."""
    model = nn.Linear(4, 8).bfloat16()
    copies = [p.detach().float() for p in model.parameters()]
    adam = torch.optim.Adam(copies)
    model(torch.ones(1, 4).bfloat16()).sum().backward()
    for p, copied in zip(model.parameters(), copies, strict=True):
        copied.grad = p.grad.float()
    adam.step()
    held = measured_bytes(model, adam)
    wanted = state_bytes(40)
    assert held[:2] == wanted[:2] == (80, 80)
    assert held.optimizer + sum(t.nbytes for t in copies) == wanted.optimizer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": 0}, "parameters must be an integer of at least 1, got 0"),
        ({"parameters": 2.0}, "parameters must be an integer of at least 1, got 2.0"),
        ({"processes": 0}, "processes must be an integer of at least 1, got 0"),
        ({"stage": -1}, "stage must be an integer from 0 to 3, got -1"),
        ({"stage": 4}, "stage must be an integer from 0 to 3, got 4"),
        ({"precision": "half"}, "precision must be one of float32, mixed, got 'half'"),
        ({"optimizer": "lion"}, "optimizer must be one of adam, sgd, got 'lion'"),
    ],
)
def test_bad_state(change, message):
    options = {"parameters": 1} | change
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        state_bytes(options.pop("parameters"), **options)


@pytest.mark.parametrize(
    ("change", "minimum"), [("layers", 0), ("width", 1), ("vocabulary", 1), ("context", 1)]
)
def test_bad_gpt2(change, minimum):
    options = {"layers": 1, "width": 1, "vocabulary": 1, "context": 1}
    gpt2_parameters(**options | {change: minimum})
    with pytest.raises(ValueError, match=f"^{change} must be an integer of at least {minimum}"):
        gpt2_parameters(**options | {change: minimum - 1})


def test_bad_measurements():
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"^model must be a torch.nn.Module, got 3"):
        measured_bytes(3, torch.optim.SGD(model.parameters()))
    with pytest.raises(ValueError, match=r"^optimizer must be a torch.optim.Optimizer, got 3"):
        measured_bytes(model, 3)
