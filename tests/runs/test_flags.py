"""Whole numbers that flags say."""

from __future__ import annotations

import argparse

import pytest

from diffq.errors import UserError
from diffq.runs.flags import whole_number


def test_the_last_of_several_counts_and_without_any_the_default():
    flags = argparse.Namespace(draws=["4", "16"], limit=[])
    assert whole_number(flags, "draws", 1) == 16
    assert whole_number(flags, "limit", None) is None
    assert whole_number(flags, "page_sources", 100) == 100


@pytest.mark.parametrize("said", ["many", "-1", "1.5", "", "²", "0"])
def test_what_is_no_whole_number_or_too_small_is_one_sentence(said):
    with pytest.raises(UserError, match=rf"^--page-sources {said} must be a whole number, 1 or more$"):
        whole_number(argparse.Namespace(page_sources=[said]), "page_sources", 100)


def test_zero_is_taken_where_nothing_can_be_wanted():
    assert whole_number(argparse.Namespace(limit=["0"]), "limit", None, least=0) == 0
