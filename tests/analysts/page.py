"""The page of analysts' questions: its queries, their answers as Markdown, and the page with new answers.

``python -m tests.analysts.page data/l2.duckdb`` writes the answers anew.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster_l2.cli.output import shown
from dagster_l2.pipeline.gold import ask_gold

PAGE = Path(__file__).resolve().parents[2] / "docs" / "analysts.md"
_QUESTION = re.compile(
    r"^## (?P<title>\d+\. .+?)\n(?P<text>.*?)```sql\n(?P<query>.*?)\n```\n(?P<answer>.*?)(?=^## |\Z)",
    flags=re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Question:
    """One question of the page, with the answer that stands there."""

    title: str
    query: str
    answer: str


def questions() -> list[Question]:
    """The questions of the page."""
    found = _QUESTION.finditer(PAGE.read_text(encoding="utf-8"))
    return [Question(one["title"], one["query"], one["answer"].strip()) for one in found]


def answer(gold: Path, query: str) -> str:
    """The answer to a query as a Markdown table."""
    with ask_gold(gold, query) as found:
        rows = [found.names, ["---"] * len(found.names), *([_cell(value) for value in row] for row in found)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: Any) -> str:
    return shown(value).replace("|", "\\|")


def rewrite(gold: Path) -> None:
    """Write the answers of the page anew."""

    def fresh(one: re.Match[str]) -> str:
        table = answer(gold, one["query"])
        return f"## {one['title']}\n{one['text']}```sql\n{one['query']}\n```\n\n{table}\n\n"

    text = _QUESTION.sub(fresh, PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    rewrite(Path(sys.argv[1]))
