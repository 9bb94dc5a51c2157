"""Mathematics with a final answer: MATH500, AIME, GSM8K. An answer is right where its final answer is.

Numbers are compared exactly; expressions, where a number is wanted too, by spelling and then by math-verify. Knows no
tokens and runs no program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, ClassVar

from diffq.data.answers import AnswerCorpus, AnswerSettings, Problem
from diffq.data.expressions import SECONDS, compare_all
from diffq.data.final_answers import Kind, final_answer, is_number, plain_number, spelled
from diffq.data.task import Example, Verdict
from diffq.errors import UserError
from diffq.registry import DATASETS
from diffq.settings import setting

_VERSION = 2  # of what is here and in `final_answers`


class MathsCorpus(AnswerCorpus):
    """Problems and their final answers."""

    columns: ClassVar[tuple[str, ...]] = ("problem|question", "answer")

    def problem(self, index: int, row: Mapping[str, Any]) -> Problem:
        question = str(row["problem"] if "problem" in row else row["question"]).strip()
        if self.settings.unasked and question.endswith(self.settings.unasked):
            question = question.removesuffix(self.settings.unasked).rstrip()
        answer = str(row["answer"])
        right = final_answer(answer, self.settings.final) if "####" in answer else answer.strip()
        if self.settings.final != "expression":
            right = plain_number(right)
        solution = str(row["solution"]) if row.get("solution") else answer
        name = str(row.get("unique_id", row.get("id", index)))
        return Problem(index, question, (solution,), name=name, right=right)

    def own(self, index: int, question: str) -> Problem:
        return Problem(index, question, ())

    def reference(self, problem: Problem) -> str:
        """The worked solution; where the file has none but the answer, that in a box."""
        solution = problem.references[0]
        bare = self.settings.final != "number" and spelled(solution) == spelled(problem.right)
        return f"The answer is $\\boxed{{{solution}}}$." if bare else solution

    @property
    def grader(self) -> str:
        kind = "" if self.settings.final == "expression" else f"{self.settings.final}_"
        try:
            return f"{kind}math_verify_{version('math-verify')}_{self.settings.seconds:g}s_v{_VERSION}"
        except PackageNotFoundError:
            return f"{kind}math_verify_none_v{_VERSION}"

    def grade(self, asked: Sequence[tuple[Example, str]]) -> list[Verdict]:
        """Verdicts whose `answer` is the final answer; of a right one the spelling of the file, so that right answers
        are one whatever they look like."""
        verdicts: list[Verdict | None] = []
        pairs: list[tuple[str, str]] = []
        for example, text in asked:
            assert isinstance(example, Problem)
            found = final_answer(text, self.settings.final)
            verdicts.append(self._seen(example.right, found))
            if verdicts[-1] is None:
                pairs.append((example.right, found))
        if pairs and (reason := self.settings.ungradable()):
            raise UserError(reason)
        compared = iter(compare_all(list(dict.fromkeys(pairs)), self.settings.seconds))
        held = dict(zip(dict.fromkeys(pairs), compared, strict=True))
        left = iter(pairs)
        made = []
        for verdict in verdicts:
            pair = None if verdict is not None else next(left)
            made.append(verdict if pair is None else _in_one_spelling(pair[0], held[pair]))
        return [verdict for verdict in made if verdict is not None]

    def _seen(self, right: str, found: str) -> Verdict | None:
        """The verdict on a final answer where looking at it is enough."""
        if not found:
            return Verdict("failed", "", "no final answer")
        if self.settings.final != "expression" and is_number(found):
            return Verdict("passed" if found == right else "failed", found)
        return Verdict("passed", spelled(right)) if spelled(found) == spelled(right) else None


def _in_one_spelling(right: str, verdict: Verdict) -> Verdict:
    return Verdict("passed", spelled(right)) if verdict.passed else verdict


@DATASETS.register("mathematics")
@dataclass(frozen=True, kw_only=True)
class Mathematics(AnswerSettings):
    """Problems with a final answer: an expression in a box, a number behind ####, or a whole number from 0 to 999."""

    judging: ClassVar[tuple[str, ...]] = ("final", "seconds")
    not_learnt: ClassVar[tuple[str, ...]] = (*AnswerSettings.not_learnt, *judging)

    final: Kind = setting("expression", "what a final answer is, and where it is looked for", in_key=False)
    seconds: float = setting(SECONDS, "that comparing two expressions may take", above=0, high=120, in_key=False)
    unasked: str = setting(
        "", "a sentence at the end of the file's problems that is no part of them: the prompt has it"
    )

    def ungradable(self) -> str | None:
        if self.final == "expression" and find_spec("math_verify") is None:
            return (
                f"the answers of {self.name} are compared by the package math-verify, which is not installed: pip"
                " install 'math-verify[antlr4_9_3]'"
            )
        return None

    def open(self) -> MathsCorpus:
        return MathsCorpus(self)
