"""A codebook dies, and is revived."""

import torch

from course_lib.experiments import dead_codebook, train_codebook


def test_a_dead_codebook_stays_dead_and_revival_helps():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(300, 3, generator=generator)
    start = dead_codebook(vectors, 20)
    assert start.shape == (20, 3)
    for seed in range(3):
        dead = train_codebook(start, vectors, revive=False, seed=seed)
        assert dead.used == 1
        assert abs(dead.perplexity - 1) < 1e-6
        assert torch.equal(dead.codebook[1:], start[1:])  # nobody chose them: they never moved
        assert (dead.codebook[0] - vectors.mean(0)).norm() < 0.3
        alive = train_codebook(start, vectors, revive=True, seed=seed)
        assert alive.used > 15
        assert alive.perplexity > 10


def test_one_seed_gives_one_report_and_nothing_else_changes():
    vectors = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    start, before = vectors[:8].clone(), vectors[:8].clone()
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    one = train_codebook(start, vectors, revive=True, steps=5, seed=4)
    assert torch.equal(torch.rand(3), wanted)
    again = train_codebook(start, vectors, revive=True, steps=5, seed=4)
    other = train_codebook(start, vectors, revive=True, steps=5, seed=5)
    assert torch.equal(start, before)
    assert torch.equal(one.codebook, again.codebook)
    assert not torch.equal(one.codebook, other.codebook)
