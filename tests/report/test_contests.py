"""Claims about samplers, put to the test on made-up points whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic import B, point

from diffq.config import compose
from diffq.config.files import builtin_dir, group_files, read_mapping
from diffq.report.contests import Task, contest_tables, metrics_of
from diffq.report.points import Figure
from diffq.report.tables import print_table
from diffq.runs.paper_tables import _natural, markdown

SPEC = yaml.safe_load((Path(__file__).parents[2] / "conf/paper/2604.00375.yaml").read_text())
CLAIMS = [claim["text"] for claim in SPEC["contests"]["claims"]]
PASS_1, PASS_32, GAIN, DISTINCT, ENTROPY, WITHIN, FRONT_RANDOM, FRONT_LOW, *_ = CLAIMS


def figure(name: str, value: float, spread: float = 0.3, halves: bool = True) -> Figure:
    noise = np.random.default_rng(sum(map(ord, name)) + int(10 * value)).standard_normal((3, B))
    draws = value + spread * noise[0]
    low, high = np.quantile(draws, [0.025, 0.975])
    split = value + spread * 2**0.5 * noise[1:] if halves else None
    return Figure(name, value, f"{name}|s:32|v:1", "higher", float(low), float(high), draws, split)


def answers(sampler: str, once: float, often: float, rows: float = 12.0, spread: float = 0.3, entropy: float = 1.0,
            bound: float | None = None, distinct: float = 2.0, **dials):  # fmt: skip
    values = {"pass_at_1": once, "pass_at_32": often, "distinct_solutions": distinct, "answer_entropy": entropy}
    own = (
        {"lookahead": "block", "proposal": "tempered", "within": "independent", "block": 0} if sampler == "imh" else {}
    )
    made = point(sampler, 0, 0, **({"temperature": 1.0, "steps": 12} | own | dials))
    return replace(
        made,
        dataset="sudoku",
        samples=32,
        sources=100,
        costs={"nfe_rows": rows * 3200, "rows": 3200.0},
        records={} if bound is None else {"entropy_bound_in_all": bound},
        figures={
            name: figure(name, value, spread if name.startswith("pass") else spread / 20)
            for name, value in values.items()
        },
    )


def dilemma(spread: float = 0.3) -> list:
    """Low confidence is right at once and alike always; random order the other way; IMH better than both, for 1.5 times
    the rows."""
    return [
        answers("random", 40, 95, entropy=2.0, distinct=4.0, spread=spread),
        answers("random", 55, 90, entropy=1.5, distinct=3.0, spread=spread, temperature=0.5),
        answers("low_confidence", 80, 82, entropy=0.5, distinct=1.2, spread=spread),
        answers("low_confidence", 81, 81, entropy=0.4, distinct=1.1, spread=spread, temperature=0.5),
        answers("rank_then_sample", 70, 85, entropy=0.7, bound=0.9, spread=spread),
        answers(
            "imh",
            85,
            91,
            rows=18,
            spread=spread,
            alpha=4.0,
            chain=4,
            positions="random",
            distinct=3.5,
            temperature=None,
        ),
        answers(
            "imh",
            70,
            97,
            rows=18,
            spread=spread,
            alpha=2.0,
            chain=4,
            positions="random",
            distinct=4.5,
            temperature=None,
        ),
    ]


def cells(points: list, table: int = 0) -> dict[str, list[str]]:
    made = contest_tables(SPEC, [Task("sudoku", "sudoku, 100 questions", tuple(points))])[table]
    return {row[0]: row[2:] for row in made.cells}


def test_the_dilemma_is_seen():
    found = cells(dilemma())
    assert {text: found[text][0].split("\n")[0] for text in CLAIMS} == dict.fromkeys(CLAIMS, "held")
    assert found[GAIN][0].split("\n")[1].startswith("+53.0 [")  # 95 − 40 − (82 − 80)
    assert found[WITHIN][0].split("\n")[1].startswith("+0.20 [")


def seeds(points: list, count: int = 2) -> list:
    """The points in several seeds, whose figures are the same."""
    return [replace(p, seed=seed, key=f"{p.key} {seed}") for p in points for seed in range(count)]


def test_points_of_several_seeds_are_one():
    assert [cells(seeds(dilemma()), table) for table in (0, 1)] == [cells(dilemma(), table) for table in (0, 1)]
    first, *rest = seeds(dilemma())
    better = replace(first, figures={**first.figures, "pass_at_1": figure("pass_at_1", 42)})
    assert cells([better, *rest])[PASS_1][0].startswith("held\n+39.0 ["), "80 − (42 + 40) / 2"


def test_a_front_may_have_points_of_more_seeds_than_others():
    uneven = [p for p in seeds(dilemma()) if p.seed == 0 or p.dials["temperature"] != 0.5]
    assert cells(uneven)[FRONT_RANDOM] == cells(dilemma())[FRONT_RANDOM]


def test_fronts_measured_in_two_ways_are_not_compared():
    def otherwise(point):
        other = replace(point.figures["pass_at_1"], signature="pass_at_1|s:32|v:2")
        return replace(point, figures={**point.figures, "pass_at_1": other})

    points = [otherwise(p) if p.sampler == "imh" else p for p in dilemma()]
    assert cells(points)[FRONT_RANDOM] == ["undecided\nmeasured in two ways"]


def test_claims_that_do_not_hold_and_claims_that_nobody_can_decide():
    turned = dilemma()
    turned[0], turned[2] = (
        replace(turned[0], figures=turned[2].figures), replace(turned[2], figures=turned[0].figures),
    )  # fmt: skip
    found = cells(turned)
    for text in (PASS_1, PASS_32, GAIN, DISTINCT, ENTROPY):
        assert found[text][0].startswith("did not hold"), text
    noisy = cells(dilemma(spread=60))
    assert all(noisy[text][0].startswith("undecided") for text in (PASS_1, PASS_32, FRONT_RANDOM, FRONT_LOW))


def test_a_bound_that_is_broken_is_told():
    points = [*dilemma()[:4], answers("rank_then_sample", 70, 85, entropy=1.2, bound=0.9)]
    assert cells(points)[WITHIN][0].startswith("did not hold\n-0.30")


def test_a_bound_beyond_all_that_samples_can_show_decides_nothing():
    points = [*dilemma()[:4], answers("rank_then_sample", 70, 85, entropy=1.2, bound=3.5)]
    assert cells(points)[WITHIN][0] == "undecided\nthe bound is above the 3.47 nats that 32 samples can show at most"


def test_points_of_one_token_a_step_have_a_column():
    points = [replace(made, dials={**made.dials, "steps": 0, "tokens_per_step": 1}) for made in dilemma()]
    points += [answers("random", 99, 99, steps=0, tokens_per_step=2)]
    (table, _) = contest_tables(SPEC, [Task("sudoku", "sudoku", tuple(points))])[:2]
    assert table.heads[2:] == ["one token a step"]
    assert {cells[0]: cells[2] for cells in table.cells}[PASS_1].startswith("held\n+40.0")


def test_at_equal_rows_a_front_is_held_against_all_that_is_no_dearer():
    """With 18 rows the others are better than IMH with 18, and IMH with 6 rows meets none that is as cheap."""
    points = [
        *dilemma(),
        answers("random", 90, 99, rows=18, distinct=6.0, steps=18),
        answers("random", 95, 98, rows=18, distinct=5.0, steps=18, temperature=0.5),
        answers("imh", 50, 60, rows=6, steps=4, alpha=4.0, chain=4, positions="random"),
    ]
    (at_12,) = cells(points)[FRONT_RANDOM]
    assert at_12.startswith("held")
    (at_12,) = cells(points, table=1)[FRONT_RANDOM]
    assert at_12.startswith("did not hold"), "and neither 18 steps nor 4 have a column"
    assert points[0].an_answer("nfe_rows") == 12.0


def test_what_one_question_decides_is_undecided():
    """Two fronts with the same best point: chosen on the half without that question, another of IMH's is as good."""
    rng = np.random.default_rng(0)
    times, first = rng.poisson(1.0, B), rng.random(B) < 0.5

    def missing(point, errors):
        """Wrong in so many samples of one question of 100, and right in all others."""
        share = errors / 32
        halves = np.stack([100 - 2 * share * first, 100 - 2 * share * ~first])
        once = Figure("pass_at_1", 100 - share, "pass_at_1|s:32|v:1", "higher", 99, 100, 100 - share * times, halves)
        sure = {name: replace(f, value=100.0, draws=np.full(B, 100.0), halves=np.full((2, B), 100.0))
                for name, f in point.figures.items()}  # fmt: skip
        return replace(point, figures=sure | {"pass_at_1": once})

    imh = [answers("imh", 99, 99, alpha=alpha, chain=4, positions="random") for alpha in (2.0, 4.0)]
    others = [answers("random", 99, 99, temperature=t) for t in (0.25, 1.0)]
    points = [missing(p, n) for p, n in zip([*imh, *others], (3, 1, 1, 4), strict=True)]
    (found,) = cells(points)[FRONT_RANDOM]
    assert found.startswith("undecided\nhypervolume: -0.")


def test_other_readings_of_the_tempered_sampler_are_not_on_its_front():
    others = [{"proposal": "plain"}, {"within": "exact"}, {"block": 4, "lookahead": "canvas"}, {"chain": 16}]
    more = [answers("imh", 99, 99, **({"alpha": 4.0, "chain": 4, "positions": "random"} | other)) for other in others]
    assert cells([*dilemma(), *more])[FRONT_RANDOM] == cells(dilemma())[FRONT_RANDOM]


def test_of_several_settings_the_plainest_is_compared():
    points = [*dilemma(), replace(answers("random", 99, 99, block=4), changed=("temperature", "steps", "block"))]
    found, before = cells(points), cells(dilemma())
    assert {text: found[text] for text in (PASS_1, PASS_32, DISTINCT)} == {
        text: before[text] for text in (PASS_1, PASS_32, DISTINCT)
    }


def test_a_task_without_points_says_how_to_measure_it():
    sudoku, countdown = contest_tables(SPEC, [])
    assert "experiment=reasoning_sudoku" in sudoku.cells[0][1]
    assert "scripts/reproduce_reasoning.sh" in countdown.cells[0][1]
    assert "not published here" in countdown.notes[0]
    assert "nothing is measured" in markdown([sudoku, countdown])
    alone = [Task("sudoku", "none", (answers("random", 1, 1, steps=0),))]
    assert contest_tables(SPEC, alone)[0].cells[0][0] == "nothing is measured"


EAGS = read_mapping(builtin_dir() / "paper" / "2411.06438.yaml")
ALIKE = {"entropy": "shannon", "order": "high_entropy", "update": "masked_only"}


def texts(training: str, sampler: str, vs: float, perplexity: float, **dials):
    """A point of a training whose answers have a VS_ngram and a perplexity under a judge of some name."""
    more = ALIKE if sampler == "eags" else {}
    made = point(sampler, 0, 0, **({"temperature": 1.0, "training": training, "steps": 5} | more | dials))
    own = {name: value for name, value in made.dials.items() if name != "training"}
    ppl = replace(figure("gen_ppl_given_by_judge", perplexity, spread=1.0), direction="lower")
    figures = {"vendi_ngram_4": figure("vendi_ngram_4", vs, spread=0.01), "gen_ppl_given_by_judge": ppl}
    changed = tuple(name for name, value in dials.items() if name != "steps")
    made = replace(made, dataset="rocstories", training=training, checkpoint=training)
    return replace(made, dials=own, changed=changed, figures=figures)


def judged(*points, **energies) -> dict[str, dict[str, list[str]]]:
    """The cells by table and claim. energies: changes, by the names of the orders of the ENS points they are of."""
    known = {p.key: change for p in points for order, change in energies.items() if p.dials.get("order") == order}
    made = contest_tables(EAGS, [Task("rocstories", "stories", tuple(points), known)])
    return {table.title.partition(": ")[2]: {row[0]: row[2:] for row in table.cells} for table in made}


def test_models_are_told_apart_by_what_their_trainings_are_called():
    found = judged(
        texts("ens", "eags", 3.0, 90.0),
        texts("uniform", "eags", 2.0, 120.0),
        texts("sedd", "analytic", 2.5, 100.0, steps=64),
        texts("sedd", "analytic", 3.5, 80.0),
        texts("causal", "autoregressive", 2.0, 50.0, steps=None),
    )
    alone = found["as claimed"]
    assert alone["VS_ngram is above SEDD's"][0].split("\n")[0] == "held"
    assert "percent: +20.0 [" in alone["VS_ngram is above SEDD's"][0]
    assert alone["VS_ngram is above SEDD's at five steps, too"][0].startswith("did not hold")
    assert alone["perplexity is below SEDD's (64 steps)"][0].startswith("held")
    assert alone["perplexity is below SEDD's (5 steps)"][0].startswith("did not hold")
    assert alone["perplexity is below the causal model's"][0].startswith("did not hold\n-40.0")
    (emb,) = [cell for text, (cell,) in alone.items() if text.startswith("VS_emb")]
    assert emb == "not measured: needs vendi_minilm: diffq score RUN metric=vendi_minilm"
    assert alone["energy falls: ENS, EAGS, 20 steps"][0].startswith("not measured: needs points of sampler eags of tra")
    (at_5,) = found["at equal steps"]["under EAGS, ENS has a lower perplexity than uniform masking"]
    assert at_5.startswith("held\n+30.0"), "at 64 steps nothing can be compared, so there is no column"


def test_a_percentage_of_what_may_be_nothing_decides_nothing():
    def found(value, draws):
        sedd = texts("sedd", "analytic", 2.5, 100.0, steps=64)
        base = replace(sedd.figures["vendi_ngram_4"], value=value, draws=draws)
        sedd = replace(sedd, figures={**sedd.figures, "vendi_ngram_4": base})
        return judged(texts("ens", "eags", 3.0, 90.0), sedd)["as claimed"]["VS_ngram is above SEDD's"]

    assert found(1.0, np.full(B, 1.0))[0].startswith("held\npercent: +200.0 [")
    for other in (0.0, -1.0):
        draws = np.append(np.full(B - 1, 1.0), other)
        (cell,) = found(1.0, draws)
        assert cell == "undecided\npercent: +200.0", "one resample of it is enough"
    assert found(0.0, np.full(B, 0.0)) == ["undecided\nof nothing there is no percentage"]


def test_energies_fall_rise_or_are_undecided():
    points = [texts("ens", "eags", 3.0, 90.0, order=order) for order in ("high_entropy", "random", "low_entropy")]
    found = judged(
        *points,
        high_entropy={"value": -0.5, "low": -0.6, "high": -0.4, "rows": 64},
        random={"value": 0.2, "low": 0.1, "high": 0.3, "rows": 64},
        low_entropy={"value": 0.0, "low": None, "high": None, "rows": 1},
    )["as claimed"]
    rows = {text.rpartition(": ")[2]: cell for text, (cell,) in found.items() if "energy" in text}
    assert rows["ENS, EAGS, 5 steps"] == "held\n+0.50 [+0.40, +0.60]"
    assert rows["ENS, random order, 5 steps"] == "did not hold\n-0.20 [-0.30, -0.10]"
    assert rows["ENS, the surest first, 5 steps"].startswith("undecided")


def test_energies_of_several_seeds_are_their_mean():
    made = seeds([texts("ens", "eags", 3.0, 90.0)])
    falls = [{"value": v, "low": v - 0.1, "high": v + 0.1} for v in (-0.5, -0.3)]
    for known, said in ((falls, "+0.40 [+0.30, +0.50]"), (falls[:1], "+0.50 [+0.40, +0.60]")):
        energies = dict(zip((p.key for p in made), known, strict=False))
        (table, *_) = contest_tables(EAGS, [Task("rocstories", "stories", tuple(made), energies)])
        (cell,) = [row[2] for row in table.cells if row[0].endswith(": ENS, EAGS, 5 steps")]
        assert cell == f"held\n{said}"


@pytest.mark.parametrize("spec", [SPEC, EAGS], ids=lambda spec: spec["paper"])
def test_every_claim_is_about_what_can_be_measured(spec):
    """A metric, a sampler or a dial that does not exist would leave a claim out without a word."""
    held = spec["contests"]
    assert len({claim["text"] for claim in held["claims"]}) == len(held["claims"])
    for name in metrics_of(held):
        known = {"pass_at_32", "mauve_by_minilm", *group_files("metric", [builtin_dir()])}
        assert any(fnmatchcase(each, name) for each in known), name
    for claim in held["claims"]:
        (kind,) = claim.keys() - {"text"}
        assert kind in {"above", "relative", "within", "falls", "front"}, claim["text"]
        for side in (claim[kind][name] for name in ("side", "first", "than") if name in claim[kind]):
            config = compose([f"sampler={side['sampler']}"], verb="ls")
            dials = vars(config.sampler).keys() | {"sampler", "training", "steps"}
            assert side.keys() <= dials, claim["text"]


def test_tables_are_as_wide_as_their_heads(capsys):
    points = [texts("ens", "eags", 3.0, 90.0, steps=steps) for steps in (5, 20)]
    points += [texts("sedd", "analytic", 2.5, 100.0, steps=64)]
    for table in contest_tables(EAGS, [Task("rocstories", "stories", tuple(points))]):
        assert all(len(row) == len(table.heads) for row in table.cells), table.title
        print_table(table.title, table.heads, table.cells)
    assert "as claimed" in capsys.readouterr().out


def test_two_trainings_of_one_name_are_not_chosen_between():
    first, second = texts("ens", "eags", 3.0, 90.0), texts("ens", "eags", 1.0, 200.0)
    points = [first, replace(second, checkpoint="other", key="a"), texts("sedd", "analytic", 2.5, 100.0, steps=64)]
    found = judged(*points)["as claimed"]
    assert found["VS_ngram is above SEDD's"] == ["undecided\n2 trainings are called ens"]


def test_figures_measured_in_two_ways_are_not_compared():
    first, second = texts("ens", "eags", 3.0, 90.0), texts("sedd", "analytic", 2.5, 100.0, steps=64)
    other = replace(second.figures["vendi_ngram_4"], signature="vendi_ngram_4|s:8|v:1")
    second = replace(second, figures={**second.figures, "vendi_ngram_4": other})
    assert judged(first, second)["as claimed"]["VS_ngram is above SEDD's"] == ["undecided\nmeasured in two ways"]


def test_a_claim_that_these_points_cannot_feed_says_what_it_needs():
    few = [p for p in dilemma() if p.sampler in ("random", "low_confidence")]
    few = [
        replace(p, samples=16, figures={name: f for name, f in p.figures.items() if name != "pass_at_32"}) for p in few
    ]
    found = cells(few)
    assert found[PASS_1][0].startswith("held")
    assert found[PASS_32] == found[GAIN] == ["not measured: needs pass_at_32: num_samples=32"]
    assert found[WITHIN] == ["not measured: needs points of sampler rank_then_sample"]
    assert found[FRONT_RANDOM] == ["not measured: needs points of sampler imh"]
    assert list(found) == CLAIMS
    other = [*few, answers("imh", 50, 60, alpha=4.0, chain=16, positions="random")]
    assert "sampler imh with chain=4 positions=random" in cells(other)[FRONT_RANDOM][0]
    dear = [replace(p, costs={"nfe_rows": 1e9, "rows": 1.0}) if p.sampler == "random" else p for p in dilemma()]
    cheaper = ["not measured: needs points of sampler random that cost no more network rows"]
    assert cells(dear, table=1)[FRONT_RANDOM] == cheaper
    apart = [*dilemma()[1:], answers("random", 40, 95, steps=6)]
    assert cells(apart)[PASS_1][0] == "not measured: needs points of both at equal steps"


def test_beside_every_figure_stands_what_is_published_or_that_nothing_is():
    for table in contest_tables(SPEC, [Task("sudoku", "sudoku", tuple(dilemma()))])[:2]:
        assert table.heads[1] == "published"
        assert {row[1] for row in table.cells} == {"not published here"}
    points = [texts("ens", "eags", 3.0, 90.0), texts("sedd", "analytic", 2.5, 100.0, steps=64)]
    (table, *_) = contest_tables(EAGS, [Task("rocstories", "stories", tuple(points))])
    said = {row[0]: row[1] for row in table.cells}
    assert said["VS_ngram is above SEDD's"] == "+13.08 %"
    assert said["perplexity is below SEDD's (64 steps)"] == "not published here"


def test_tasks_are_in_the_order_of_their_numbers():
    labels = [f"sudoku, 100 of sudoku_4x4_{n}.jsonl × 32 samples" for n in (4, 9, 10, 12)]
    backwards = [labels[at] for at in (2, 0, 3, 1)]
    assert sorted(backwards, key=_natural) == labels
    assert sorted(["sudoku, x", "12", "sudoku, 9 questions"], key=_natural)[0] != "12", "numbers beside words compare"
