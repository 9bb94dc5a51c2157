"""Programs that are run against tests: HumanEval and MBPP. An answer is right where its tests run to their end.

Knows no tokens; how a program is kept from doing harm is the sandbox's business.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from diffq.data.answers import AnswerCorpus, AnswerSettings, Problem
from diffq.data.task import Example, Split, Verdict
from diffq.errors import UserError
from diffq.registry import DATASETS
from diffq.sandbox import Limits, Sandbox
from diffq.settings import setting

_VERSION = 2  # of how a program is made of an answer
_FENCE = re.compile(r"```[ \t]*(?:[pP]y(?:thon)?3?)?[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL)
_LONGEST = 100_000  # characters of a program that is parsed here


@dataclass(frozen=True)
class ProgramTask(Problem):
    """A program to be written.

    start  what an answer goes on from, if it does: the head of a function
    entry  the function that is asked for, if it has a name
    """

    start: str = ""
    entry: str = ""


def program(task: ProgramTask, text: str) -> str:
    """The program that an answer makes: its first block of code where it has one (``` … ```), behind `start`.

    An answer that goes on from an open block closes it: what stands before a lone ``` is the program then, if it is
    one. A block that defines the function anew stands behind `start` all the same, since that may import what it needs.
    """
    code = _code(task.start, text)
    anew = task.entry and re.search(rf"^(?:async\s+)?def\s+{re.escape(task.entry)}\b", code, re.MULTILINE)
    return task.start + ("\n" if anew and task.start else "") + code


def _code(start: str, text: str) -> str:
    """The code of an answer. Its first fence closes a block that the prompt has opened where it has no partner and
    names no language, and what stands before it is a program."""
    before, _, behind = text.partition("```")
    alone = text.count("```") % 2 == 1 and not re.match(r"[ \t]*[pP]y", behind)
    said = re.search(r"[=(]|\breturn\b", before)  # a single word is a program, too
    if alone and said and syntax_tree(start + before):
        return before
    block = _FENCE.search(text)
    return block[1] if block else text


def syntax_tree(code: str) -> str:
    """A digest of a program's syntax tree: layout, comments and docstrings do not count, names do. Empty where it has
    none."""
    if len(code) > _LONGEST:
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about a stranger's code
            tree = ast.parse(code)
            for node in ast.walk(tree):
                body = getattr(node, "body", None)
                if isinstance(body, list):
                    node.body = [s for s in body if not _is_text(s)] or [ast.Pass()]  # type: ignore[attr-defined]
            return hashlib.sha256(ast.dump(tree).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


class ProgramCorpus(AnswerCorpus):
    """Programs to be written, and their tests."""

    @property
    def grader(self) -> str:
        python, s = f"python{sys.version_info.major}.{sys.version_info.minor}", self.settings
        # A program that may do what it likes can pass where it would fail inside, and the other way round.
        unwalled = s.allow_unsafe_execution and not Sandbox.find(s.limits, unsafe=True).walled
        return f"{python}_{s.limits}{'_unwalled' if unwalled else ''}_v{_VERSION}"

    def grade(self, asked: Sequence[tuple[Example, str]]) -> list[Verdict]:
        """Verdicts whose `answer` is the program's syntax tree, which is empty where the text is no program."""
        s = self.settings
        box = Sandbox.find(s.limits, s.allow_unsafe_execution)
        written = []
        for task, text in asked:
            assert isinstance(task, ProgramTask)
            written.append((program(task, text), task.right, bool(text.strip())))
        whole = [f"{code}\n{tests}\n" for code, tests, _ in written]
        different = list(dict.fromkeys(whole))
        ended = dict(zip(different, box.run_all(different), strict=True))
        return [
            Verdict(ended[text].outcome, syntax_tree(code) if there else "", ended[text].note)
            for text, (code, _, there) in zip(whole, written, strict=True)
        ]

    def own(self, index: int, question: str) -> Problem:
        return ProgramTask(index, question, ())


class HumanEvalCorpus(ProgramCorpus):
    """Functions whose heads are given (Chen et al. 2021)."""

    columns: ClassVar[tuple[str, ...]] = ("task_id", "prompt", "entry_point", "canonical_solution", "test")

    def problem(self, index: int, row: Mapping[str, Any]) -> Problem:
        tests = f"{row['test']}\ncheck({row['entry_point']})"
        return ProgramTask(
            index,
            row["prompt"],
            (row["canonical_solution"],),
            name=str(row["task_id"]),
            right=tests,
            start=row["prompt"],
            entry=row["entry_point"],
        )


class MBPPCorpus(ProgramCorpus):
    """Functions that are described in a sentence, with three tests (Austin et al. 2021). One file holds all splits:
    tasks 11–510 are the test, 511–600 the validation, 601–974 the training, 1–10 are for worked examples."""

    columns: ClassVar[tuple[str, ...]] = ("task_id", "text|prompt", "code", "test_list")

    def problem(self, index: int, row: Mapping[str, Any]) -> Problem:
        shown = "\n".join(row["test_list"])
        before = [*(row.get("test_imports") or ()), _plain(row.get("test_setup_code") or "")]
        tests = "\n".join([*filter(None, before), shown])
        question = str(row["text"] if "text" in row else row["prompt"]).strip()
        return ProgramTask(index, question, (_plain(row["code"]),), name=str(row["task_id"]), right=tests, tests=shown)

    def is_of(self, row: Mapping[str, Any], name: Split) -> bool:
        if self.place is not None and self.place.is_dir():
            return True
        first, last = {"test": (11, 510), "valid": (511, 600), "train": (601, 974)}[name]
        return first <= int(row["task_id"]) <= last

    def examples(self) -> Sequence[Problem]:
        """Tasks 2, 3 and 4 first, as the paper has it."""
        rows = [row for row in self._rows("test") if int(row["task_id"]) <= 10]
        rows.sort(key=lambda row: (int(row["task_id"]) not in (2, 3, 4), int(row["task_id"])))
        return [self.problem(i, row) for i, row in enumerate(rows)]

    def hub_splits(self, name: Split) -> str:
        return "train+test+validation+prompt"


def _plain(code: str) -> str:
    return code.replace("\r\n", "\n").replace("\r", "\n")


@DATASETS.register("programs")
@dataclass(frozen=True, kw_only=True)
class Programs(AnswerSettings):
    """Programs that are run against tests, inside a sandbox."""

    judging: ClassVar[tuple[str, ...]] = ("limits", "allow_unsafe_execution")
    not_learnt: ClassVar[tuple[str, ...]] = (*AnswerSettings.not_learnt, *judging)

    layout: Literal["humaneval", "mbpp"] = setting(help="whose columns the file has")
    limits: Limits = setting(Limits(), "what a program may use: seconds, memory, processes, output", in_key=False)
    allow_unsafe_execution: bool = setting(
        False,
        "without bubblewrap: run generated code all the same, with all the rights of whoever runs diffq",
        in_key=False,
    )

    def ungradable(self) -> str | None:
        try:
            Sandbox.find(self.limits, self.allow_unsafe_execution)
        except UserError as error:
            return str(error)
        return None

    def open(self) -> ProgramCorpus:
        return HumanEvalCorpus(self) if self.layout == "humaneval" else MBPPCorpus(self)
