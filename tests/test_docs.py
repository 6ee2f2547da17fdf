"""The pages say what the code does."""

from __future__ import annotations

import re
import shlex
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


def test_the_readme_names_every_folder_and_module_and_no_other() -> None:
    """What lies in the package's own folder: whoever looks for something starts there."""
    package = REPOSITORY / "dagster_l2"
    table = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("## Where it is in the code")[1]
    named = set(re.findall(r"`(\w+(?:\.py|/))`", table.split("\n## ")[0])) - {"dagster_l2/", "dbt_project/"}
    there = {path.name for path in package.glob("[!_]*.py")}
    there |= {f"{path.parent.name}/" for path in package.glob("[!_]*/__init__.py")}
    assert named == there


def test_links_between_pages_lead_somewhere() -> None:
    for page in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_commands_that_pages_name_are_understood() -> None:
    """With all words after them: an operator at night types what stands there."""
    named = 0
    for page in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]:
        for words in re.findall(r"`(?:L2_\w+=\S+ )*l2 ([a-z][^`]*)`", page.read_text(encoding="utf-8")):
            for said in _alternatives(words):
                _parse(said, f"{page.name}: l2 {words}")
                named += 1
    assert named > 100


def _alternatives(words: str) -> list[str]:
    """``token add|list`` as the two commands that it means; ``…`` stands for a word."""
    said = words.replace("…", "WORD")
    found = re.search(r"\S*\|\S*", said)
    return [said.replace(found[0], one) for one in found[0].split("|")] if found else [said]


def _parse(said: str, place: str) -> None:
    arguments = shlex.split(said)
    command: click.Command = l2
    context = click.Context(l2)
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        assert found is not None, place
        command, arguments = found, arguments[1:]
        context = click.Context(command, parent=context)
    try:
        _options, rest, _order = command.make_parser(context).parse_args(arguments)
    except click.UsageError as error:
        raise AssertionError(f"{place}: {error.format_message()}") from None
    takes = [param.nargs for param in command.params if isinstance(param, click.Argument)]
    assert -1 in takes or len(rest) <= sum(takes), place
