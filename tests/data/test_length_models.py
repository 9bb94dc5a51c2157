"""Length models: what a spec means, exact distributions, bounds, and draws that follow them."""

from __future__ import annotations

import math

import pytest

from diffq.data.lengths import PUBLISHED_MINIMUM, LengthFit, LengthModel, fit
from diffq.diffusion.contracts import row_id
from diffq.errors import UserError
from diffq.rng import Rng

FIT = LengthFit(mean=0.4, sigma=2.0)
ROWS = [row_id(source, sample) for sample in range(20) for source in range(1000)]


def draw(spec: str, source: int, maximum: int = 40, rows: list[int] = ROWS, seed: int = 0) -> list[int]:
    count = len(rows)
    return LengthModel.parse(spec).draw(Rng(seed), rows, [source] * count, [7] * count, maximum, FIT)


@pytest.mark.parametrize(
    "spec", ["oracle", "normal", "uniform_-2_4", "uniform_0_0", "fixed_16", "normal_min5", "oracle_min3"]
)
def test_a_spec_is_read_and_written_back(spec: str) -> None:
    assert str(LengthModel.parse(spec)) == spec


@pytest.mark.parametrize(
    "spec",
    [
        *("", "gold", "Normal", "normal_5", "normal_min0"),
        *("fixed", "fixed_-3", "fixed_0", "fixed_3_min5", "fixed_١"),
        *("uniform_1", "uniform_4_2", "uniform_1.5_2"),
    ],
)
def test_nonsense_is_refused(spec: str) -> None:
    with pytest.raises(UserError, match="length="):
        LengthModel.parse(spec)


def test_fit_is_the_exact_mean_and_deviation() -> None:
    made = fit([3, 4, 5, 6], [5, 4, 9, 6])  # differences 2, 0, 4, 0
    assert made.mean == 1.5
    assert made.sigma == pytest.approx(math.sqrt((0.25 + 2.25 + 6.25 + 2.25) / 4))
    assert LengthFit.from_mapping(made.as_mapping()) == made
    with pytest.raises(UserError, match="no training pairs"):
        fit([], [])
    with pytest.raises(UserError, match="holds the numbers mean and sigma"):
        LengthFit.from_mapping({"mean": 1})


def test_oracle_and_fixed_are_what_they_say() -> None:
    model = LengthModel.parse("oracle")
    assert model.draw(Rng(0), [1, 2, 3], [9, 9, 9], [4, 0, 90], 40) == [4, 1, 40]
    assert "flatters BLEU" in model.note
    assert set(draw("fixed_9", 3)) == {9}
    assert set(draw("fixed_60", 3)) == {40}
    assert LengthModel.parse("normal").note == ""
    assert [LengthModel.parse(s).needs_fit for s in ("oracle", "normal", "uniform_1_2", "fixed_1")] == [
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("spec", ["normal", f"normal_min{PUBLISHED_MINIMUM}", "uniform_-3_2", "fixed_6"])
@pytest.mark.parametrize(("source", "maximum"), [(3, 40), (10, 40), (10, 12), (4, 3)])
def test_probabilities_sum_to_one_inside_the_bounds(spec: str, source: int, maximum: int) -> None:
    model = LengthModel.parse(spec)
    p = [model.probability(n, source, maximum, FIT) for n in range(60)]
    assert sum(p) == pytest.approx(1, abs=1e-12)
    assert all(value == 0 for n, value in enumerate(p) if n > maximum or n < min(model.minimum, maximum))


@pytest.mark.parametrize("spec", ["normal", "normal_min9", "uniform_-3_2"])
def test_draws_follow_the_exact_distribution(spec: str) -> None:
    """Each frequency of 20,000 draws is within 6 deviations: false alarm below 1e-7 for all together."""
    model, drawn = LengthModel.parse(spec), draw(spec, 10)
    for length in range(1, 41):
        p = model.probability(length, 10, 40, FIT)
        assert abs(drawn.count(length) - len(drawn) * p) <= 6 * math.sqrt(len(drawn) * p * (1 - p)) + 1


def test_moments_far_from_the_bounds() -> None:
    """Rounding adds 1/12 to the variance (Sheppard), to within 1e-9 at sigma = 2; by enumeration."""
    model = LengthModel.parse("normal")
    p = {n: model.probability(n, 50, 200, FIT) for n in range(1, 201)}
    mean = sum(n * q for n, q in p.items())
    assert mean == pytest.approx(50.4, abs=1e-9)
    assert sum((n - mean) ** 2 * q for n, q in p.items()) == pytest.approx(4 + 1 / 12, abs=1e-9)


def test_a_length_depends_on_its_row_alone() -> None:
    assert draw("normal", 10)[500:600] == draw("normal", 10, rows=ROWS[500:600])
    assert draw("normal", 10) != draw("normal", 10, seed=1)


def test_normal_needs_its_fit() -> None:
    with pytest.raises(UserError, match="needs a fit"):
        LengthModel.parse("normal").draw(Rng(0), [1], [5], [5], 40)
    with pytest.raises(ValueError, match="no distribution"):
        LengthModel.parse("oracle").probability(3, 3, 40)
    certain = LengthFit(mean=-0.25, sigma=0.0)
    assert LengthModel.parse("normal").draw(Rng(0), [1], [5], [5], 40, certain) == [5]
    assert LengthModel.parse("normal").probability(5, 5, 40, certain) == 1
