"""The documentation of the dbt project: each column described once, with its unit; the lineage has owners."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml
from warehouse_kit import DBT_PROJECT

BLOCKS = DBT_PROJECT / "models" / "columns.md"
# What a column of fractional numbers must name, in its name or in its description.
UNITS = re.compile(
    r"_(nm|m|km|ms|s|arcsec|gb|days|pct|fraction|score)$"
    r"|\b(nm|m|km|ms|s|arcsec|GB|Days|days|percent|fraction|0 to 1|unit|ratio|levels?)\b"
)


def _columns() -> Iterator[tuple[str, dict[str, Any]]]:
    for folder in ("models", "seeds"):
        for path in sorted((DBT_PROJECT / folder).rglob("*.yml")):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            for resource in [*content.get("models", []), *content.get("seeds", [])]:
                for column in resource.get("columns", []):
                    yield f"{resource['name']}.{column['name']}", column


def _blocks() -> dict[str, str]:
    text = BLOCKS.read_text(encoding="utf-8")
    return dict(re.findall(r"{% docs (\w+) %}\n(.*?)\n{% enddocs %}", text, flags=re.DOTALL))


def _named(description: str) -> list[str]:
    return re.findall(r"{{ doc\('(\w+)'\) }}", description)


def test_no_text_about_a_column_is_written_twice() -> None:
    written = [" ".join(column["description"].split()) for _, column in _columns()]
    own = [text for text in written if not _named(text)] + list(_blocks().values())
    assert len(own) > 150
    twice = [text for text, times in Counter(own).items() if times > 1]
    assert twice == [], "write it once, as a block of models/columns.md"


def test_every_block_is_there_for_several_columns() -> None:
    used = Counter(name for _, column in _columns() for name in _named(column["description"]))
    assert {name: used[name] for name in _blocks() if used[name] < 2} == {}


def test_moments_say_that_they_are_utc_and_fractional_numbers_have_units() -> None:
    blocks = _blocks()
    seen: Counter[str] = Counter()
    for where, column in _columns():
        data_type = column.get("data_type", "")
        text = re.sub(r"{{ doc\('(\w+)'\) }}", lambda m: blocks[m[1]], column["description"])
        if data_type.startswith("timestamp"):
            assert "UTC" in text, f"{where} does not say that it is UTC: {text}"
            seen["moments"] += 1
        if data_type == "double":
            assert UNITS.search(column["name"]) or UNITS.search(text), f"{where} has no unit: {text}"
            seen["numbers"] += 1
    assert min(seen["moments"], seen["numbers"]) > 20, seen


def test_whoever_uses_the_warehouse_is_named_by_role() -> None:
    content = yaml.safe_load((DBT_PROJECT / "models" / "exposures.yml").read_text(encoding="utf-8"))
    exposures = {exposure["name"]: exposure for exposure in content["exposures"]}
    assert {"published_inversions", "analysts_file", "live_queue"} <= set(exposures)
    for exposure in exposures.values():
        assert exposure["owner"]["name"], exposure["name"]
        assert re.fullmatch(r"l2-\w+@example\.org", exposure["owner"]["email"]), exposure["name"]
