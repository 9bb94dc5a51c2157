"""The worlds of forms: what is right in them, forms and their answers, and the real planning files."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from diffq.data.countdown import Countdown, evaluate, solves
from diffq.data.forms import FormBatches, tokenise_forms
from diffq.data.sudoku import Sudoku, completions, grids, questions
from diffq.data.task import Example
from diffq.data.tokenizers import build_tokenizer
from diffq.errors import UserError

MORE = {"models": {}, "name": "world", "tokenizer": "characters"}
REAL = Path(os.environ.get("DIFFQ_DATA", "")) / "planning"
BLOCKS = {3: 41, 4: 59, 5: 89}
"""The least places of a form of so many numbers."""
needs_data = pytest.mark.skipif(not os.environ.get("DIFFQ_DATA"), reason="needs DIFFQ_DATA")


def sudoku(**more):
    return Sudoku(block=19, **MORE, **more).open()


def countdown(**more):
    return Countdown(**({"size": 2000, "block": BLOCKS[3]} | MORE | more)).open()


def test_there_are_288_grids_and_each_is_its_own_only_completion():
    assert len(grids()) == len(set(grids())) == 288
    assert completions(grids()[5]) == (grids()[5],)
    assert len(completions("0000\n0000\n0000\n0000")) == 288
    assert completions("1100\n0000\n0000\n0000") == ()


@pytest.mark.parametrize("givens", [0, 4, 10])
def test_questions_are_drawn_with_their_givens_and_their_truth_is_uniform(givens):
    corpus = sudoku(givens=givens, test=1 if givens == 0 else 40)
    for example in corpus.split("test"):
        assert sum(c in "1234" for c in example.source) == givens
        truth = corpus.truth(example.source)
        assert example.references[0] in truth
        assert sum(truth.values()) == pytest.approx(1)
        assert len(set(truth.values())) == 1
        verdicts = corpus.grade([(example, example.references[0]), (example, "1234"), (example, grids()[0][::-1])])
        assert [v.passed for v in verdicts] == [True, False, grids()[0][::-1] in truth]
    assert len({e.source for e in corpus.split("test")}) == len(corpus.split("test"))
    assert [e.source for e in sudoku(givens=givens, test=1).split("test")] == [corpus.split("test")[0].source]


def test_a_sudoku_is_a_form_in_which_zeros_are_free():
    corpus = sudoku()
    tokenizer = build_tokenizer("characters", corpus)
    example = corpus.split("test")[0]
    form = corpus.form(example)
    assert sum(form.free) == 12
    solved = tokenise_forms(corpus.solved("train"), tokenizer, 19)
    assert solved.ids.shape == (288, 19)
    assert int(solved.free.sum()) == 288 * 16, "line ends are never destroyed"
    batch = FormBatches(solved, 32, 0).collate(*FormBatches(solved, 32, 0).global_rows(9))
    assert tokenizer.decode(batch.tokens_BL[0].tolist()) in grids()
    assert "0" not in {tokenizer.decode([i]) for i in range(tokenizer.size - 1)}, "what is blank is no word"


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("44-15=29,79-29=50", True),
        ("79-44=35,35+15=50", True),
        ("79-44=35,15+35=50", True),
        ("44-15=29,79-29=51", False),
        ("44-15=29,79-30=49", False),
        ("44-15=29,44+6=50", False),
        ("25*2=50", False),
        ("15+35=50", False),
        ("44-15=29,79-29=50,", False),
        ("79-29=50", False),
        ("", False),
        ("x", False),
    ],
)
def test_every_step_of_an_answer_is_checked(answer, right):
    assert solves("15,44,79,50", answer) == right


def test_steps_are_exact():
    assert evaluate(7, "/", 2) is None
    assert evaluate(7, "/", 0) is None
    assert evaluate(8, "/", 2) == 4
    assert evaluate(3, "-", 5) is None
    assert not solves("2,2,5,9", "2+2=4,2+5=7"), "a number is used once"
    assert solves("2,2,5,9", "2+2=4,4+5=9")


@pytest.mark.parametrize("numbers", [3, 4, 5])
def test_questions_are_drawn_with_a_solution_that_fits_its_form(numbers):
    corpus = countdown(numbers=numbers, block=BLOCKS[numbers], size=300, test=50, valid=50)
    tokenizer = build_tokenizer("characters", corpus)
    seen: dict[str, str] = {}
    for split in ("train", "valid", "test"):
        for example in corpus.split(split):
            key = ",".join(sorted(example.source.split(",")[:-1])) + example.source.rpartition(",")[2]
            assert seen.setdefault(key, split) == split, "no question of one split is another's in another order"
            assert solves(example.source, example.references[0])
            form = corpus.form(example)
            assert corpus.answer(example, form.text) == ""
        forms = tokenise_forms(corpus.solved(split), tokenizer, corpus.settings.block)
        texts = tokenizer.decode_batch(forms.ids.tolist())
        assert [corpus.answer(e, t) for e, t in zip(corpus.split(split), texts, strict=True)] == [
            e.references[0] for e in corpus.split(split)
        ]
        assert not forms.free[:, : 3 * (numbers + 1)].any(), "questions are never destroyed"


def test_numbers_stand_in_columns_and_are_read_out_of_them_as_they_are():
    corpus = countdown(block=BLOCKS[3] + 1)
    example = Example(0, "5,44,79,50", ("44-15=29,79-29=50",))
    form = corpus.form(example)
    assert form.text[:13] == "  5,44,79,50:"
    assert corpus.answer(example, form.text[:13] + "  44-  15=  29,  79-  29=  50") == "44-15=29,79-29=50"
    assert corpus.answer(example, form.text[:13] + " 4 4-  15=  29,  79-  29=  50") == "4 4-15=29,79-29=50"
    assert corpus.answer(example, form.text[:13] + "44  -  15=  29,  79-  29=  50") == "44  -15=29,79-29=50"
    assert corpus.answer(example, form.text[:13] + "  44-  15=  29               ") == "44-15=29"
    assert not solves("15,44,79,50", "4 4-15=29,79-29=50")
    with pytest.raises(UserError, match="has no room"):
        corpus.form(Example(0, "5,144,79,50", ("",)))


def test_questions_of_a_file_that_a_training_may_hold_can_be_left_out(tmp_path):
    trained = [e.source for e in countdown(size=200).split("train")]
    held_out = [e.source for e in countdown(test=50).split("test")]
    turned = [",".join([*source.split(",")[2::-1], source.split(",")[3]]) for source in trained]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"input": s, "output": ""}) + "\n" for s in [*turned, *held_out]))
    assert len(countdown(path=str(file)).split("test")) == 250
    assert [e.source for e in countdown(path=str(file), unseen=True).split("test")] == held_out


def test_equal_solutions_have_one_spelling():
    corpus = countdown()
    assert corpus.canonical("44+15=59,59-9=50") == corpus.canonical("15+44=59,59-9=50") != corpus.canonical("1+1=2")
    assert corpus.canonical("nothing") == ""


@pytest.mark.parametrize(
    ("kind", "row", "told"),
    [
        ("sudoku", {"input": "1234", "output": "1234"}, "row 1: expected four lines of 0 to 4"),
        ("sudoku", {"input": "0000\n0000\n0000\n0000", "output": grids()[0][::-1] + "1"}, "row 1: expected four lines"),
        ("sudoku", {"question": "1"}, "row 1: expected texts in the columns input and output"),
        ("countdown", {"input": "1,2,3", "output": "1+2=3"}, "expected 3 numbers and the one to reach"),
        ("countdown", {"input": "a,2,3,4", "output": "1+2=3"}, "expected 3 numbers"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(tmp_path, kind, row, told):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"rows\.jsonl") as error:
        (sudoku if kind == "sudoku" else countdown)(path=str(file)).split("test")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_other_tokenizers_and_other_sizes_are_refused(tmp_path):
    corpus = sudoku()
    with pytest.raises(UserError, match="must be characters"):
        tokenise_forms(corpus.solved("train"), build_tokenizer("words", corpus), 19)
    with pytest.raises(UserError, match="a grid has 19 characters"):
        Sudoku(block=20, **MORE)
    with pytest.raises(UserError, match=r"block=30 has no room for dataset.numbers=3; give dataset.block=41"):
        Countdown(block=30, **MORE)


@pytest.mark.parametrize("numbers", [3, 4, 5])
def test_the_least_block_is_named_before_anything_is_drawn(numbers):
    assert Countdown(block=BLOCKS[numbers], numbers=numbers, **MORE).block == BLOCKS[numbers]
    with pytest.raises(UserError, match=f"for dataset.numbers={numbers}; give dataset.block={BLOCKS[numbers]}$"):
        Countdown(block=BLOCKS[numbers] - 1, numbers=numbers, **MORE)


def test_more_sudokus_than_there_are_is_refused_before_any_is_drawn():
    for givens in (0, 1, 2, 15):
        cells = [at for at in range(19) if at % 5 != 4]
        different = {
            tuple((at, grid[at]) for at in some) for some in itertools.combinations(cells, givens) for grid in grids()
        }
        assert questions(givens) == len(different)
    assert questions(1) == 64
    with pytest.raises(UserError, match=r"test=200: there is only 1 with dataset.givens=0; .*test=1 or .*=2 to 15$"):
        sudoku(givens=0)
    with pytest.raises(UserError, match=r"there are only 64 with dataset.givens=1; ask for dataset.test=64 or fewer"):
        sudoku(givens=1, test=65)
    with pytest.raises(UserError, match=r"ask for dataset.test=1 or fewer$"):
        sudoku(givens=0, test=10**9)
    assert len(sudoku(givens=1, test=64).split("test")) == 64


def test_a_checkpoint_of_another_world_is_refused_by_what_it_does_not_know():
    asked = [countdown().form(Example(0, "15,44,79,50", ()))]
    of_sudoku = build_tokenizer("characters", sudoku())
    with pytest.raises(UserError, match=r"^checkpoint=a/b does not know ' ', ',', '0', '5', ':', .*trained on this"):
        tokenise_forms([countdown().form(Example(0, "1,40,20,50", ()))], of_sudoku, 41, "a/b")
    empty = sudoku().form(sudoku().own(0, "0" * 16))
    with pytest.raises(UserError, match=r"^checkpoint=a/b does not know '\\n'"):
        tokenise_forms([empty], build_tokenizer("characters", countdown()), 19, "a/b")
    with pytest.raises(UserError, match=r"checkpoint=a/b has no tokenizer of characters"):
        tokenise_forms(asked, build_tokenizer("words", sudoku()), 41, "a/b")
    with pytest.raises(UserError, match=r"^dataset.tokenizer does not know"):
        tokenise_forms(asked, of_sudoku, 41)


@pytest.mark.parametrize("text", ["3000 1000 0030 0300", "3000\n1000\n0030\n0300", " 3000100000300300\n"])
def test_a_sudoku_of_ones_own_may_be_laid_out_as_one_likes(text):
    assert sudoku().own(2, text) == Example(2, "3000\n1000\n0030\n0300", ())


@pytest.mark.parametrize("text", ["hello", "3000 1000 0030 030", "3000 1000 0030 0305", ""])
def test_what_is_no_sudoku_is_refused_with_an_example(text):
    with pytest.raises(UserError, match=f"--source '{text}' is no 4x4 grid; give four rows .* as in '3000 1000"):
        sudoku().own(0, text)


def test_countdowns_of_ones_own_are_numbers_with_commas():
    assert countdown().own(1, "15, 44,79,50") == Example(1, "15,44,79,50", ())
    for text in ("15,44,79", "15 44 79 50", "15,44,x,50", "15,44,179,50"):
        with pytest.raises(UserError, match=f"'{text}' is no question here; give 3 numbers below 100 .*'15,44,79,50'"):
            countdown().own(0, text)


@needs_data
@pytest.mark.parametrize("givens", [4, 6, 7, 9, 10, 12])
def test_real_sudokus_are_solved_by_their_outputs(givens):
    corpus = sudoku(path=str(REAL / f"sudoku_4x4_{givens}.jsonl"))
    examples = corpus.split("test")
    assert len(examples) == 108
    assert all(v.passed for v in corpus.grade([(e, e.references[0]) for e in examples]))


@needs_data
@pytest.mark.parametrize("numbers", [3, 4, 5])
def test_real_countdowns_are_solved_by_their_outputs(numbers):
    block = BLOCKS[numbers]
    corpus = countdown(path=str(REAL / f"cd{numbers}_test.jsonl"), numbers=numbers, block=block)
    examples = corpus.split("test")
    assert len(examples) == 1000
    wrong = [
        e.source
        for e, v in zip(examples, corpus.grade([(e, e.references[0]) for e in examples]), strict=True)
        if not v.passed
    ]
    assert wrong == []
    assert all(len(corpus.form(e).text) == block for e in examples)
    unseen = countdown(path=corpus.settings.path, numbers=numbers, block=block, unseen=True).split("test")
    assert {e.source for e in unseen} < {e.source for e in examples}
    assert 100 < len(unseen) < 200
