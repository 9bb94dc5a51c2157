"""The importance sampler of timesteps, by enumeration over its uniforms."""

from __future__ import annotations

import torch

from diffq.diffusion.importance import TimestepSampler

GRID = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000


def filled(timesteps=8, records=10):
    """A sampler whose every timestep has its records, and the root of the mean squared loss of each."""
    sampler = TimestepSampler(timesteps, importance=True, records=records)
    losses = torch.rand(timesteps, records, generator=torch.Generator().manual_seed(0)) + 0.01
    for n in range(records):
        t = torch.arange(1, timesteps)
        sampler.observe(t, losses[1:, n], torch.ones(timesteps - 1, dtype=torch.bool))
    root = losses.double().square().mean(1).sqrt()
    root[0] = 0
    return sampler, root


def test_uniform_without_importance_and_before_the_records_are_full():
    plain, early = TimestepSampler(8, importance=False), TimestepSampler(8, importance=True)
    early.observe(torch.arange(1, 8), torch.ones(7), torch.ones(7, dtype=torch.bool))
    for sampler in (plain, early):
        t, weight = sampler(GRID)
        counts = torch.bincount(t, minlength=8)
        assert counts[0] == 0
        assert (counts[1:] - 200_000 / 7).abs().max() <= 1
        assert torch.equal(weight, torch.ones_like(weight))


def test_probabilities_follow_the_root_of_the_mean_squared_loss():
    sampler, root = filled()
    t, weight = sampler(GRID)
    p = root / root.sum()
    counts = torch.bincount(t, minlength=8)
    assert (counts - p * 200_000).abs().max() <= 1
    assert torch.allclose(weight.double(), 1 / (p[t] * 8), rtol=1e-6)


def test_the_weighted_mean_of_a_loss_is_its_mean_over_all_timesteps():
    """Σ_t p_t · L_t/(p_t·T) = (1/T) Σ L_t, whatever the records: exactly, from probabilities and weights."""
    sampler, root = filled()
    p = (root / root.sum())[1:]
    edges = p.cumsum(0) - p / 2  # one uniform in the middle of each timestep's interval
    t, weight = sampler(edges)
    assert t.tolist() == list(range(1, 8))
    loss = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert abs(float((p * weight * loss[t]).sum()) - float(loss[1:].sum()) / 8) < 1e-6


def test_the_last_ten_records_count_and_skipped_examples_do_not():
    sampler, _ = filled()
    before = sampler.history_TN.clone()
    sampler.observe(torch.tensor([3, 3, 5]), torch.tensor([9.0, 4.0, 7.0]), torch.tensor([True, True, False]))
    changed = (sampler.history_TN != before).nonzero().tolist()
    assert changed == [[3, 0], [3, 1]]
    assert sampler.history_TN[3, :2].tolist() == [81.0, 16.0]
    assert sampler.count_T.tolist() == [0, 10, 10, 12, 10, 10, 10, 10]


def test_a_timestep_without_loss_is_never_drawn():
    sampler = TimestepSampler(5, importance=True, records=2)
    for _ in range(2):
        sampler.observe(torch.arange(1, 5), torch.tensor([1.0, 0.0, 2.0, 0.0]), torch.ones(4, dtype=torch.bool))
    t, weight = sampler(GRID)
    assert set(t.tolist()) == {1, 3}
    assert torch.isfinite(weight).all()
    ends, _ = sampler(torch.tensor([2.0**-54, 1 - 2.0**-53], dtype=torch.float64))
    assert ends.tolist() == [1, 3]


def test_records_are_saved_with_the_model():
    sampler, _ = filled()
    other = TimestepSampler(8, importance=True)
    other.load_state_dict(sampler.state_dict())
    u = GRID[::1000].contiguous()
    assert torch.equal(other(u)[0], sampler(u)[0])
    assert not TimestepSampler(8, importance=False).state_dict()
