"""The pages say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import click

from dagster_l2.cli import l2
from dagster_l2.ledger import mermaid
from dagster_l2.settings import Settings

REPOSITORY = Path(__file__).resolve().parent.parent


def test_the_page_of_states_draws_the_edges_of_the_ledger() -> None:
    assert mermaid().strip() in (REPOSITORY / "docs" / "states.md").read_text(encoding="utf-8")


def test_the_readme_names_every_command_and_no_other() -> None:
    named = set(re.findall(r"`l2 ([a-z][a-z-]*)", (REPOSITORY / "README.md").read_text(encoding="utf-8")))
    with click.Context(l2) as context:
        assert named == set(l2.list_commands(context))


def test_the_readme_names_every_setting_and_no_other() -> None:
    assert all(field.description for field in Settings.model_fields.values())
    named = set(re.findall(r"L2_[A-Z0-9_]+", (REPOSITORY / "README.md").read_text(encoding="utf-8")))
    assert named == {f"L2_{name.upper()}" for name in Settings.model_fields}


def test_links_between_pages_lead_somewhere() -> None:
    for page in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
