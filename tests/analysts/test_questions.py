"""The page of analysts' questions tells the truth: each query gives the answer that stands there."""

from __future__ import annotations

import pytest

from tests.analysts.page import Question, answer, questions
from tests.end_to_end.kit import Pipeline

pytestmark = pytest.mark.xdist_group("analysts")


def test_there_are_ten_questions_with_answers() -> None:
    assert [one.title.split(".")[0] for one in questions()] == [str(number) for number in range(1, 11)]
    assert [one.title for one in questions() if one.answer.count("\n") < 2] == []


@pytest.mark.parametrize("question", questions(), ids=lambda one: one.title)
def test_the_answer_on_the_page_is_the_one_of_the_demo(demo: Pipeline, question: Question) -> None:
    assert answer(demo.data / "l2.duckdb", question.query) == question.answer, (
        "python -m tests.analysts.page data/l2.duckdb writes the page anew"
    )
