"""Our solvers against the schedulers of `diffusers`, over whole trajectories of arbitrary predictions, all flags."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from diffq.diffusion.gaussian import alpha_bars, betas
from diffq.diffusion.solvers import ddim_steps, dpmpp_steps, spaced_timesteps
from diffq.errors import UserError
from diffq.samplers.embedding import _advance

SPACINGS = ["linspace", "leading", "trailing"]
RUNS = [("sqrt", steps) for steps in (1, 2, 10, 14, 15, 30)] + [("cosine", 30), ("linear", 10)]


def follow(trajectory, y, predictions):
    previous = None
    states = []
    for step, y0 in zip(trajectory, predictions, strict=True):
        y = _advance(step, y, y0, previous)
        previous = y0
        states.append(y)
    return torch.stack(states)


def follow_theirs(scheduler, y, predictions):
    states = []
    for t, y0 in zip(scheduler.timesteps, predictions, strict=True):
        y = scheduler.step(y0, t, y).prev_sample
        states.append(y)
    return torch.stack(states)


def random_run(steps):
    generator = torch.Generator().manual_seed(3)
    draw = torch.randn(steps + 1, 2, 5, generator=generator)
    return draw[0], list(draw[1:] * 1.5)


def trained_betas(schedule, timesteps):
    return betas(schedule, timesteps).numpy().astype(np.float32)


def exact_table(theirs, schedule):
    """Their table of alpha_bar is a float32 running product: near enough on the published schedule, but off by 1e-4 at
    the ends of the others; there it is replaced by its float64 value, so that what is compared is the formulas."""
    if schedule == "sqrt":
        return
    theirs.alphas_cumprod = alpha_bars(schedule, 1000)
    if hasattr(theirs, "final_alpha_cumprod") and not theirs.config.set_alpha_to_one:
        theirs.final_alpha_cumprod = theirs.alphas_cumprod[0]


def compare(ours, theirs, steps):
    """Every state of the two trajectories, to 1e-5."""
    start, predictions = random_run(steps)
    assert [s.t for s in ours] == theirs.timesteps.tolist()
    found, expected = follow(ours, start, predictions), follow_theirs(theirs, start, predictions)
    assert torch.isfinite(expected).all()
    assert (found - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(("schedule", "steps"), RUNS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_ddim(schedule, spacing, steps):
    from diffusers import DDIMScheduler

    for clip, to_one in itertools.product([False, True], [False, True]):
        theirs = DDIMScheduler(
            1000, trained_betas=trained_betas(schedule, 1000), prediction_type="sample", timestep_spacing=spacing,
            clip_sample=clip, set_alpha_to_one=to_one,
        )  # fmt: skip
        exact_table(theirs, schedule)
        theirs.set_timesteps(steps)
        ours = ddim_steps(alpha_bars(schedule, 1000), steps, spacing=spacing, clip_x0=clip, set_alpha_to_one=to_one)
        compare(ours, theirs, steps)


def at_data(spacing, steps):
    """Whether the last visited timestep is 0 already, so that sigma_min has no way left to go (0/0 in both)."""
    return spaced_timesteps(spacing, steps, 1000, last=False)[-1] == 0


@pytest.mark.parametrize(("schedule", "steps"), RUNS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_dpmpp(schedule, spacing, steps):
    from diffusers import DPMSolverMultistepScheduler

    for order, form, lower, final in itertools.product(
        [1, 2], ["midpoint", "heun"], [True, False], ["zero", "sigma_min"]
    ):
        if final == "sigma_min" and at_data(spacing, steps):
            continue
        theirs = DPMSolverMultistepScheduler(
            1000, trained_betas=trained_betas(schedule, 1000), prediction_type="sample", timestep_spacing=spacing,
            solver_order=order, solver_type=form, lower_order_final=lower, final_sigmas_type=final,
        )  # fmt: skip
        exact_table(theirs, schedule)
        theirs.set_timesteps(steps)
        ours = dpmpp_steps(
            alpha_bars(schedule, 1000), steps, spacing=spacing, order=order, second_order=form,
            lower_order_final=lower, final_sigma=final,
        )  # fmt: skip
        compare(ours, theirs, steps)


def test_the_published_timesteps():
    alpha_bar = alpha_bars("sqrt", 1000)
    dpmpp = dpmpp_steps(
        alpha_bar, 30, spacing="linspace", order=2, second_order="midpoint", lower_order_final=True, final_sigma="zero"
    )
    ddim = ddim_steps(alpha_bar, 30, spacing="leading", clip_x0=True, set_alpha_to_one=True)
    assert (dpmpp[0].t, dpmpp[-1].t) == (999, 33)
    assert (ddim[0].t, ddim[-1].t) == (957, 0)
    assert (dpmpp[-1].keep, dpmpp[-1].x0, dpmpp[-1].correction) == (0.0, 1.0, 0.0)
    assert (ddim[-1].keep, ddim[-1].x0, ddim[-1].x0_clipped) == (0.0, 0.0, 1.0)


def test_a_perfect_prediction_is_reached_exactly():
    """With the true clean state predicted at every step, each state is the noised version of it."""
    alpha_bar = alpha_bars("sqrt", 1000)
    x0, noise = torch.tensor([0.7], dtype=torch.float64), torch.tensor([-1.3], dtype=torch.float64)
    for steps in (1, 5, 30):
        ddim = ddim_steps(alpha_bar, steps, spacing="trailing", clip_x0=False, set_alpha_to_one=True)
        dpmpp = dpmpp_steps(
            alpha_bar, steps, spacing="linspace", order=2, second_order="heun", lower_order_final=False,
            final_sigma="zero",
        )  # fmt: skip
        for trajectory in (ddim, dpmpp):
            first = alpha_bar[trajectory[0].t]
            states = follow(trajectory, first.sqrt() * x0 + (1 - first).sqrt() * noise, [x0] * steps)
            for state, after in zip(states[:-1], trajectory[1:], strict=True):
                share = alpha_bar[after.t]
                if trajectory is dpmpp or 1000 % steps == 0:
                    assert (state - share.sqrt() * x0 - (1 - share).sqrt() * noise).abs() < 1e-9
            assert (states[-1] - x0).abs() < 1e-12


def test_a_step_from_timestep_0_to_its_own_noise_level_does_nothing():
    for form in ("midpoint", "heun"):
        last = dpmpp_steps(
            alpha_bars("sqrt", 100), 90, spacing="trailing", order=2, second_order=form, lower_order_final=True,
            final_sigma="sigma_min",
        )[-1]  # fmt: skip
        assert (last.t, last.keep, last.x0, last.correction) == (0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("steps", [0, 1000, 5000])
def test_steps_that_do_not_fit_are_refused(steps):
    for spacing in SPACINGS:
        with pytest.raises(UserError, match=rf"steps={steps} is out of range; this model allows 1 … 999"):
            spaced_timesteps(spacing, steps, 1000, last=True)
