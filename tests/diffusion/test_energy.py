"""The energy of full texts, against its definition position by position."""

from __future__ import annotations

import math

import pytest
import torch
from reference import decoding, eags, tabular, text_models

from diffq.diffusion.energy import energies


def test_the_energy_of_every_state_of_a_joint():
    denoiser = tabular.TabularMasks(tabular.joint(2, 4, seed=5))
    states = tabular.states(2, 4)
    canvas = tabular.canvas(4, len(states), 2).replace(tokens_BL=torch.tensor(states))
    expected = [eags.energy(denoiser, s, [0, 1, 2, 3]) for s in states]
    for rows in (1, 5, 64):
        assert energies(denoiser, canvas, rows=rows).tolist() == pytest.approx(expected, abs=1e-12)
    given = canvas.replace(free_BL=torch.tensor([[True, False, True, True]]).expand(16, -1))
    expected = [eags.energy(denoiser, s, [0, 2, 3]) for s in states]
    assert energies(denoiser, given).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["mdlm", "mdlm_timed"])
@pytest.mark.parametrize("potential", ["log_probability", "logit"])
def test_the_energy_of_a_network(name, potential):
    """Rows of different numbers of free positions, one of them with padding, and one with nothing to write."""
    model, canvas = text_models.build(name), text_models.canvas(5, 14)
    canvas.free_BL[3], canvas.valid_BL[2, 11:] = False, False
    found = energies(model.denoiser(), canvas, potential=potential, rows=7)
    for b in range(5):
        places = [i for i in range(14) if canvas.free_BL[b, i] and canvas.valid_BL[b, i]]
        total = 0.0
        for i in places:
            state_1L = canvas.tokens_BL[b : b + 1].clone()
            state_1L[0, i] = model.mask
            scores_V = decoding.logits(model, state_1L, torch.tensor([1 / len(places)]))[0, i].double()
            value_V = scores_V.log_softmax(0) if potential == "log_probability" else scores_V
            total -= float(value_V[canvas.tokens_BL[b, i]])
        if b == 3:
            assert math.isnan(float(found[b]))
        elif b != 2:  # the reference knows no padding
            assert float(found[b]) == pytest.approx(total / len(places), rel=1e-4)


def test_only_masked_models_have_one():
    canvas = text_models.canvas(2, 8)
    with pytest.raises(ValueError, match="not of a uniform one"):
        energies(text_models.build("sedd_uniform").denoiser(), canvas)
