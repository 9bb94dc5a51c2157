"""The final answer in a worked solution: where it stands, and in what spelling it is compared.

Mathematics is graded on the final answer alone. Knows no file and computes nothing: whether two expressions are equal
is another question (`expressions`).
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Literal

Kind = Literal["expression", "number", "integer"]

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\b\s*")
_SAID = re.compile(r"(?i)\banswer(?:\s+is|\s*[:=])\s*:?[ \t]*(\S[^\n]*)")
_MATHS = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|-?\.\d+")
_TIMES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_COUNTED = re.compile(rf"({_NUMBER.pattern})(?:\s*({'|'.join(_TIMES)})\b)?", re.IGNORECASE)
# What is no part of a number, and says nothing about it: currencies, percents, degrees, the words of a formula.
_AROUND = re.compile(
    r"\\?[$%€£°]|\\(?:text|mbox|mathrm|mathbf|textbf)\b|\^\s*\{?\s*\\circ\s*\}?|\\(?:degree|[,;:! ]|\s)|[{}~*]"
)
_COMPUTES = re.compile(r"[\\^_]|\d\s*[-+/×·]\s*\d|\d\s*!|\d\s*\(")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_LONGEST = 2000  # characters of a final answer; what is longer is none


def final_answer(text: str, kind: Kind) -> str:
    """The final answer that a text gives, or the empty string.

    expression  what stands in the last box (`\\boxed{…}`); else behind the last "answer is" or "answer:"; else the last
                formula between dollars; else the last number
    number      the number behind the last `####`, as GSM8K writes it; else that in the last box, behind the last
                "answer is", or the last of the text; a box or a line of #### that computes (204/7, \\sqrt{3}, 2^{10})
                is given as it stands, since its first number is not what it says
    integer     the same, but a box comes before `####`; only a whole number from 0 to 999 is an answer of AIME
    """
    if kind == "expression":
        return _expression(text)
    places = [boxed(text), _behind_hashes(text)]
    for place in places if kind == "integer" else places[::-1]:
        last = place.rpartition("=")[2].strip()
        if _computes(last):
            return last
        if found := _number(last, first=True):
            return found
    return _number(_said(text).rpartition("=")[2], first=True) or _number(text, first=False)


def _computes(place: str) -> bool:
    """Whether there is more to a final answer than a number: a fraction, a root, a power. What it says behind a word
    ("5 but …") does not count."""
    plain = _AROUND.sub(" ", place.replace("{,}", ","))
    head = _WORD.split(plain)[0]
    return bool(_COMPUTES.search(head if _NUMBER.search(head) else plain))


def boxed(text: str) -> str:
    """What stands in the last box whose braces are closed, or the empty string."""
    for match in reversed(list(_BOX.finditer(text))):
        rest = text[match.end() :]
        if not rest.startswith("{"):
            plain = re.match(r"[^\s$\\{}]+", rest)  # \boxed 5
            if plain:
                return plain[0]
            continue
        depth = 0
        for at, character in enumerate(rest[:_LONGEST]):
            depth += (character == "{") - (character == "}")
            if depth == 0:
                return rest[1:at].strip()
    return ""


def _expression(text: str) -> str:
    found = boxed(text)
    if not found and (said := _said(text)):
        inner = list(_MATHS.finditer(said))
        found = _inside(inner[0]) if inner else said.strip().rstrip(".").strip("* ")
    if not found and (formulas := list(_MATHS.finditer(text))):
        found = _inside(formulas[-1])
    if not found:
        found = _number(text, first=False)
    return found if len(found) <= _LONGEST else ""


def _inside(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).strip()


def _said(text: str) -> str:
    """The line behind the last "answer is"."""
    found = _SAID.findall(text)
    return found[-1] if found else ""


def _behind_hashes(text: str) -> str:
    return text.rpartition("####")[2].lstrip().partition("\n")[0] if "####" in text else ""


def _number(text: str, first: bool) -> str:
    found = _COUNTED.findall(text.replace("{,}", ",").replace("\\!", "").replace("\\$", "").replace("$", ""))
    if not found:
        return ""
    number, times = found[0 if first else -1]
    return plain_number(f"{number}e{_TIMES[times.lower()]}" if times else number)


def is_number(text: str) -> bool:
    """Whether a text is a decimal number and nothing else."""
    return _NUMBER.fullmatch(text) is not None


def plain_number(text: str) -> str:
    """A decimal number in one spelling: `1,450.50` and `1450.5` are the same. The text itself where it is none."""
    try:
        value = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return text
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    digits = digits.lstrip("0") or "0"
    digits = f"0{digits}" if digits.startswith(".") else digits
    return digits if digits == "0" else sign + digits


_SPELLINGS = (
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\\(?:left|right|displaystyle|textstyle|[bB]igg?[lr]?)(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:text|textbf|textit|mbox|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\[,;:! ]|~|\\q?quad(?![A-Za-z])"), ""),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree"), ""),
    (re.compile(r"\\?[$%]"), ""),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\sqrt\s*(\d)"), r"\\sqrt{\1}"),
    (re.compile(r"\\(?:leq|le)(?![A-Za-z])"), r"\\le"),
    (re.compile(r"\\(?:geq|ge)(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\(?:cdot|times)(?![A-Za-z])"), r"\\cdot"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"\s+"), ""),
)


def spelled(expression: str) -> str:
    """An expression of LaTeX in one of its spellings: without spaces and sizes, with one word for fractions, without
    signs of percent, degrees and dollars (which MATH's own grader drops too). Equal spellings are equal answers."""
    text = expression.strip().strip("$").rstrip(".")
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    return text
