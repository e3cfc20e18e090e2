"""Vector quantization: nearest codes, the straight-through gradient, codebooks that move."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.latent import VectorQuantizer, perplexity, straight_through, vq_loss
from tests.latent.conftest import randn, refuses, seeded

both_ways = pytest.mark.parametrize("ema", [True, False], ids=["ema", "gradient"])


def quantizer(n_codes, dim, generator, *, uses=1.0, **options):
    """In double precision, with a random codebook that has been in use (``uses``)."""
    made = VectorQuantizer(n_codes, dim, **options).double()
    with torch.no_grad():
        made.codebook.copy_(randn(n_codes, dim, generator=generator))
        made.uses.fill_(uses)
    return made


def state(module):
    return {name: t.clone() for name, t in module.state_dict().items()}


def assert_unmoved(module, before):
    for name, t in module.state_dict().items():
        assert torch.equal(t, before[name]), name


def as_rows(z):
    """The vectors of ``z [B, dim, *]`` one below the other, by loops."""
    if z.ndim == 2:
        return torch.stack(list(z))
    return torch.stack([z[b, :, i, j] for b, i, j in places(z)])


def places(z):
    batch, _, height, width = z.shape
    return [(b, i, j) for b in range(batch) for i in range(height) for j in range(width)]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 9), st.integers(0, 10**6))
def test_the_nearest_code_is_found(n_codes, dim, n, seed):
    """Small whole numbers: every distance is exact, and among equals any code will do."""
    made = quantizer(n_codes, dim, seeded(seed))
    made.codebook.copy_(torch.randint(-3, 4, (n_codes, dim), generator=seeded(seed)))
    vectors = torch.randint(-4, 5, (n, dim), generator=seeded(seed + 1)).double()
    index = made.nearest(vectors)
    assert index.dtype == torch.int64
    distances = torch.cdist(vectors, made.codebook, compute_mode="donot_use_mm_for_euclid_dist")
    found = distances.gather(1, index[:, None])[:, 0]
    torch.testing.assert_close(found, distances.min(dim=1).values, rtol=0, atol=1e-12)


@both_ways
@pytest.mark.parametrize("shape", [(40, 3), (2, 3, 4, 5)], ids=["vectors", "maps"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_vector_becomes_the_nearest_code(ema, shape, dtype, generator):
    """By brute force, bit for bit, and the loss with it."""
    made = quantizer(8, 3, generator, ema=ema, commitment=0.4).to(dtype).eval()
    z = randn(*shape, generator=generator).to(dtype)
    quantized, indices, loss, used = made(z)
    assert quantized.shape == shape
    assert indices.shape == (shape[0], *shape[2:])
    assert loss.shape == used.shape == ()
    rows = as_rows(z)
    nearest = [((made.codebook - row) ** 2).sum(dim=1).argmin() for row in rows]
    assert indices.flatten().tolist() == nearest
    e = made.codebook.detach()[torch.stack(nearest)]
    assert torch.equal(as_rows(quantized), e)
    error = ((rows - e) ** 2).mean()
    torch.testing.assert_close(loss.detach(), (0.4 if ema else 1.4) * error)
    shares = torch.stack(nearest).bincount() / len(rows)
    entropy = -sum(p * math.log(p) for p in shares.tolist() if p > 0)
    assert used.item() == pytest.approx(math.exp(entropy), rel=1e-5)
    assert not used.requires_grad


def test_maps_and_vectors_are_quantized_alike(generator):
    made = quantizer(6, 3, generator, uses=0.0)
    other = quantizer(6, 3, generator, uses=0.0)
    z = randn(2, 3, 4, 5, generator=generator)
    other.codebook.copy_(made.codebook)
    of_maps = made(z, generator=seeded())
    of_rows = other(as_rows(z), generator=seeded())
    assert torch.equal(as_rows(of_maps[0]), of_rows[0])
    assert torch.equal(of_maps[1].flatten(), of_rows[1])
    torch.testing.assert_close(of_maps[2:], of_rows[2:])
    assert torch.equal(made.codebook, other.codebook)
    # A row of vectors, [B, dim, L], too.
    made.eval()
    line = z.flatten(2)
    assert torch.equal(made(line)[0], made(z)[0].flatten(2))
    assert torch.equal(made(line)[1], made(z)[1].flatten(1))


@both_ways
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_the_gradient_passes_as_if_nothing_were_quantized(ema, training, generator):
    made = quantizer(5, 3, generator, ema=ema).train(training)
    z = randn(2, 3, 4, 4, generator=generator).requires_grad_()
    weights = randn(2, 3, 4, 4, generator=generator)
    quantized = made(z)[0]
    (weights * quantized**2).sum().backward()
    assert torch.equal(z.grad, 2 * weights * quantized.detach())
    assert made.codebook.grad is None


@both_ways
def test_commitment_pulls_vectors_and_the_other_part_codes(ema, generator):
    """(2 / N) c (z - e) for z; (2 / N) Σ (e - z) over the vectors of a code for the code."""
    made = quantizer(5, 3, generator, ema=ema, commitment=0.7)
    z = randn(30, 3, generator=generator).requires_grad_()
    codebook = made.codebook.detach().clone()
    _, indices, loss, _ = made(z)
    loss.backward()
    away = z.detach() - codebook[indices]
    torch.testing.assert_close(z.grad, 0.7 * 2 / 90 * away)
    if ema:
        assert not made.codebook.requires_grad
        assert list(made.parameters()) == []
        return
    pull = torch.stack([-2 / 90 * away[indices == k].sum(dim=0) for k in range(5)])
    torch.testing.assert_close(made.codebook.grad, pull)
    made.codebook.grad = None
    without = VectorQuantizer(5, 3, ema=False, commitment=0.0).double().eval()
    z.grad = None
    without(z)[2].backward()
    assert not z.grad.any()
    assert without.codebook.grad.any()


def test_without_ema_the_codebook_moves_by_gradient_alone(generator):
    made = quantizer(4, 2, generator, ema=False, dead_below=0.0)
    before = state(made)
    made(randn(20, 2, generator=generator))
    assert torch.equal(made.codebook, before["codebook"])
    assert not torch.equal(made.uses, before["uses"])
    assert isinstance(made.codebook, torch.nn.Parameter)


def test_one_batch_is_one_step_of_k_means(generator):
    """From a codebook never used, each chosen code goes to the mean of its vectors."""
    made = quantizer(6, 3, generator, uses=0.0, dead_below=0.0)
    made.codebook[5] = 100.0
    before = state(made)
    z = randn(4, 3, 5, 5, generator=generator)
    quantized, indices, _, _ = made(z)
    rows = as_rows(z)
    assert set(indices.unique().tolist()) <= {0, 1, 2, 3, 4}
    assert len(indices.unique()) >= 3
    for k in range(6):
        own = rows[indices.flatten() == k]
        mean = own.mean(dim=0) if len(own) else before["codebook"][k]
        torch.testing.assert_close(made.codebook[k], mean, rtol=1e-13, atol=1e-13)
        assert made.uses[k].item() == pytest.approx(0.01 * len(own))
    assert torch.equal(quantized, made_with(made, before).lookup(indices)), "codes of before"
    # A second step of k-means from there can't be worse: Lloyd's algorithm.
    again = ((rows - made.codebook[made.nearest(rows)]) ** 2).sum()
    assert again < ((rows - before["codebook"][indices.flatten()]) ** 2).sum()


def made_with(made, values):
    other = VectorQuantizer(made.n_codes, made.dim, ema=made.ema).to(made.codebook.dtype)
    other.load_state_dict(values)
    return other


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_repeated_batches_give_moving_averages(decay, generator):
    """Two averages for each code, n and m, in plain loops; the code is m / n."""
    made = quantizer(7, 2, generator, decay=decay, dead_below=0.0)
    made.uses.copy_(torch.linspace(0.5, 2, 7))
    made.codebook[6] = -100.0
    n = made.uses.tolist()
    m = [[n[k] * made.codebook[k, i].item() for i in range(2)] for k in range(7)]
    for _ in range(6):
        z = randn(12, 2, generator=generator)
        indices = made(z)[1].tolist()
        for k in range(7):
            own = [z[b].tolist() for b in range(12) if indices[b] == k]
            n[k] = decay * n[k] + (1 - decay) * len(own)
            for i in range(2):
                m[k][i] = decay * m[k][i] + (1 - decay) * sum(v[i] for v in own)
    torch.testing.assert_close(made.uses, torch.tensor(n).double(), rtol=1e-6, atol=0)
    expected = torch.tensor([[m[k][i] / n[k] for i in range(2)] for k in range(7)]).double()
    torch.testing.assert_close(made.codebook, expected, rtol=1e-6, atol=1e-6)
    assert made.codebook[6].tolist() == [-100, -100], "never chosen, never moved"


@both_ways
def test_dead_codes_are_put_onto_vectors_of_the_batch(ema, generator):
    made = quantizer(6, 2, generator, ema=ema, uses=3.0, decay=0.8)
    with torch.no_grad():
        made.codebook[[1, 4]] = 1e6  # far from everything
        made.uses[[1, 4]] = 0.09
        made.uses[5] = 0.1  # not below 0.1
    before = state(made)
    z = randn(30, 2, generator=generator)
    quantized, indices, loss, _ = made(z, generator=seeded(1))
    assert set(indices.tolist()) >= {1, 4}, "they are used at once: a vector is at distance 0"
    count = indices.bincount(minlength=6)
    expected = 0.8 * before["uses"] + 0.2 * count
    for k in (1, 4):
        assert made.uses[k].item() == pytest.approx(0.8 + 0.2 * count[k].item())
        own = z[indices == k]
        start = own[(quantized[indices == k] == own).all(dim=1)]
        assert len(start) == 1, "the code was one of the vectors"
        if ema:
            mean = (0.8 * start[0] + 0.2 * own.sum(dim=0)) / (0.8 + 0.2 * len(own))
            torch.testing.assert_close(made.codebook[k], mean)
        else:
            assert torch.equal(made.codebook[k], start[0])
    kept = [0, 2, 3, 5]
    torch.testing.assert_close(made.uses[kept], expected[kept])
    unused = [k for k in kept if count[k] == 0 or not ema]
    assert torch.equal(made.codebook[unused], before["codebook"][unused])
    assert loss < 100


@pytest.mark.parametrize(("n", "n_codes"), [(10, 10), (25, 10), (4, 10), (5, 10), (1, 3)])
def test_a_new_codebook_starts_on_the_first_batch(n, n_codes, generator):
    """Without repetition as far as there are vectors enough, else as evenly as can be."""
    made = VectorQuantizer(n_codes, 2, ema=False).double()
    z = randn(n, 2, generator=generator)
    made(z, generator=seeded())
    chosen = (made.codebook[:, None] == z).all(dim=2)  # [code, vector]
    assert (chosen.sum(dim=1) == 1).all(), "each code is one of the vectors"
    repeated = chosen.sum(dim=0)
    assert repeated.max() == math.ceil(n_codes / n)
    assert repeated.min() == n_codes // n


def test_the_generator_decides_who_revives(generator):
    z = randn(50, 2, generator=generator)

    def start(seed):
        made = VectorQuantizer(5, 2, ema=False).double()
        made(z, generator=seeded(seed))
        return made.codebook.detach()

    assert torch.equal(start(0), start(0))
    assert not torch.equal(start(0), start(1))
    assert not torch.equal(start(0), z[:5])
    # All vectors are equally likely.
    made = quantizer(1, 1, generator, uses=0.0, ema=False)
    line, counts = torch.arange(4.0).double()[:, None], torch.zeros(4)
    for _ in range(400):
        made.uses.zero_()
        made(line, generator=generator)
        counts[int(made.codebook.item())] += 1
    assert counts.min() > 60
    before = torch.random.get_rng_state()
    made.uses.zero_()
    made(line, generator=seeded())
    assert torch.equal(before, torch.random.get_rng_state())


def test_zero_leaves_dead_codes_alone(generator):
    made = quantizer(6, 2, generator, uses=0.0, dead_below=0.0)
    made.codebook[3:] = 1e6
    before, state_of_global = state(made), torch.random.get_rng_state()
    for _ in range(3):
        made(randn(20, 2, generator=generator))
    assert torch.equal(made.codebook[3:], before["codebook"][3:])
    assert made.uses[3:].tolist() == [0, 0, 0]
    assert torch.equal(torch.random.get_rng_state(), state_of_global)


def test_a_code_dies_when_it_is_not_chosen_for_long(generator):
    """0.99^k falls below 0.1 at k = 230."""
    made = quantizer(2, 1, generator)
    made.codebook.copy_(torch.tensor([[0.0], [50.0]]))
    z = torch.full((1, 1), 0.25).double()
    for step in range(230):
        made(z)
        assert made.codebook[1].item() == 50, step
    made(z)
    assert made.codebook[1].item() == 0.25


@both_ways
def test_eval_mode_moves_nothing(ema, generator):
    made = quantizer(5, 3, generator, ema=ema, uses=0.0).eval()
    before = state(made)
    quantized, indices, _, _ = made(randn(20, 3, generator=generator))
    assert_unmoved(made, before)
    assert torch.equal(quantized, made.lookup(indices))


def test_more_codes_never_make_the_error_larger(generator):
    """Nested codebooks: the first K rows of one."""
    codes, z = randn(64, 3, generator=generator), randn(500, 3, generator=generator)
    errors = []
    for n_codes in (1, 2, 4, 8, 16, 32, 64):
        made = quantizer(n_codes, 3, generator, commitment=1.0).eval()
        made.codebook.copy_(codes[:n_codes])
        quantized, _, loss, _ = made(z)
        assert loss.item() == pytest.approx(((z - quantized) ** 2).mean().item())
        errors.append(((z - quantized) ** 2).sum(dim=1))
    for fewer, more in pairwise(errors):
        assert (more <= fewer).all()
    assert errors[-1].mean() < errors[0].mean() / 5


def test_it_learns_the_centres_of_clusters(generator):
    """Four clusters, a code near each: it ends on the mean, by either way of learning."""
    centres = torch.tensor([[0, 0], [8, 0], [0, 8], [8, 8]]).double()
    z = centres.repeat(50, 1) + 0.1 * randn(200, 2, generator=generator)
    means = torch.stack([z[k::4].mean(dim=0) for k in range(4)])
    for ema in (True, False):
        made = quantizer(4, 2, generator, ema=ema, decay=0.8)
        with torch.no_grad():
            made.codebook.add_(centres)
        optimizer = None if ema else torch.optim.SGD(made.parameters(), lr=1.0)
        for _ in range(80):
            loss = made(z)[2]
            if optimizer:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        torch.testing.assert_close(made.codebook.detach(), means, rtol=0, atol=1e-3)


@both_ways
def test_codes_and_their_numbers(ema, generator):
    made = quantizer(9, 3, generator, ema=ema)
    indices = torch.randint(9, (2, 4, 5), generator=generator)
    vectors = made.lookup(indices)
    assert vectors.shape == (2, 3, 4, 5)
    for b, i, j in places(vectors):
        assert torch.equal(vectors[b, :, i, j], made.codebook[indices[b, i, j]])
    everything = torch.arange(9)
    assert torch.equal(made.nearest(made.lookup(everything).detach()), everything)
    assert torch.equal(made.eval()(vectors.detach())[1], indices)


def test_perplexity():
    assert perplexity(torch.full((20,), 3), 8).item() == 1
    assert perplexity(torch.arange(8).repeat(5), 8).item() == pytest.approx(8)
    shares = [0.5, 0.25, 0.25]
    entropy = -sum(p * math.log(p) for p in shares)
    indices = torch.tensor([[0, 0], [1, 4]])
    assert perplexity(indices, 5).item() == pytest.approx(math.exp(entropy))
    assert perplexity(indices, 5).shape == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_codes": 0}, "n_codes must be an integer of at least 1, got 0"),
        ({"dim": 0}, "dim must be an integer of at least 1, got 0"),
        ({"ema": 1}, "ema must be True or False, got 1"),
        ({"commitment": -0.1}, "commitment must be a finite number of at least 0.0, got -0.1"),
        ({"decay": 0}, "decay must be a finite number above 0.0, got 0"),
        ({"decay": 1.0}, "decay must be below 1, got 1.0"),
        ({"dead_below": -1}, "dead_below must be a finite number of at least 0.0, got -1"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with refuses(message):
        VectorQuantizer(**({"n_codes": 4, "dim": 2} | changes))


def test_the_smallest_settings_pass():
    made = VectorQuantizer(1, 1, commitment=0, dead_below=0, decay=0.999)
    assert made(torch.ones(1, 1))[1].tolist() == [0]
    made = VectorQuantizer(4, 2)
    assert (made.commitment, made.decay, made.dead_below) == (0.25, 0.99, 0.1)
    assert (made.codebook.shape, made.uses.tolist()) == ((4, 2), [0] * 4)
    assert repr(made) == (
        "VectorQuantizer(n_codes=4, dim=2, ema=True, commitment=0.25, decay=0.99, dead_below=0.1)"
    )


Z = torch.zeros(5, 2)


@both_ways
@pytest.mark.parametrize(
    ("z", "options", "message"),
    [
        (Z[0], {}, "z must have shape [B, 2, *], got [2]"),
        (Z.T, {}, "z must have shape [B, 2, *], got [2, 5]"),
        (Z[:0], {}, "z must have any shape but an empty one, got [0, 2]"),
        (Z / 0, {}, "z must be finite, got NaN or infinite values"),
        (Z.long(), {}, "z must be a floating-point tensor, got torch.int64"),
        (Z.double(), {}, "z must be torch.float32 like the model, got torch.float64"),
        (Z, {"generator": 3}, "generator must be a torch.Generator or None, got 3"),
    ],
)
def test_bad_vectors_are_named_and_move_nothing(ema, z, options, message):
    made = VectorQuantizer(4, 2, ema=ema)
    before = state(made)
    with refuses(message):
        made(z, **options)
    assert_unmoved(made, before)


WANTED = "indices must be an int64 tensor of codes from 0 to 3, got "


@pytest.mark.parametrize(
    ("indices", "got"),
    [
        ([0, 1], "list"),
        (torch.zeros(2), "torch.float32 [2]"),
        (torch.zeros(2).int(), "torch.int32 [2]"),
        (torch.zeros(0, 2).long(), "torch.int64 [0, 2]"),
        (torch.tensor([0, 4]), "4"),
        (torch.tensor([[0], [-1]]), "-1"),
    ],
)
def test_bad_indices_are_named(indices, got):
    made = VectorQuantizer(4, 2)
    for function in (made.lookup, made.check_indices, lambda i: perplexity(i, 4)):
        with refuses(WANTED + got):
            function(indices)
    made.check_indices(torch.tensor([0, 3]))
    with refuses("n_codes must be an integer of at least 1, got 0"):
        perplexity(torch.tensor([0]), 0)


def test_the_nearest_code_is_found_far_from_the_origin(generator):
    """In single precision ‖v‖², v·e and ‖e‖² would each swallow the distance between two codes."""
    made = quantizer(64, 4, generator).float()
    vectors = randn(500, 4, generator=generator).float()
    near = made.nearest(vectors)
    with torch.no_grad():
        made.codebook += 1000.0
    again = made.nearest(vectors + 1000.0)
    distance = torch.cdist((vectors + 1000.0).double(), made.codebook.double())
    right = distance.gather(1, again[:, None])[:, 0]
    assert (right < distance.amin(dim=1) + 1e-3).all()
    assert (again == near).float().mean() > 0.99


def test_straight_through_has_one_value_and_the_others_gradient(generator):
    z, e = (t.requires_grad_() for t in randn(2, 4, 3, generator=generator))
    quantized = straight_through(z, e)
    assert torch.equal(quantized, e)
    (quantized**2).sum().backward()
    assert torch.equal(z.grad, 2 * e.detach())
    assert e.grad is None


def test_the_two_losses_by_hand(generator):
    """d/de = 2 (e - z) / N, d/dz = 2 c (z - e) / N: each part moves one side alone."""
    z, e = (t.requires_grad_() for t in randn(2, 4, 3, generator=generator))
    loss = vq_loss(z, e, 0.3)
    assert loss.item() == pytest.approx(1.3 * ((z - e) ** 2).sum().item() / 12)
    loss.backward()
    torch.testing.assert_close(e.grad, 2 / 12 * (e - z).detach())
    torch.testing.assert_close(z.grad, 0.3 * 2 / 12 * (z - e).detach())


def test_vectors_of_another_shape_are_named():
    z = torch.zeros(4, 3)
    for function, name in ((straight_through, "quantized"), (lambda z, e: vq_loss(z, e, 1), "e")):
        with refuses(f"{name} must have shape [4, 3], got [1, 3]"):
            function(z, z[:1])
        with refuses(f"{name} must be torch.float32 like the model, got torch.float64"):
            function(z, z.double())
    made = VectorQuantizer(4, 2)
    for function in (made.nearest, made.revive, lambda z: made.follow(z, torch.zeros(4).long())):
        with refuses("vectors must have shape [B, 2], got [4, 3]"):
            function(z)
