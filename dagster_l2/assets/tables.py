"""Tables and pictures for the metadata of assets; nothing is decided here."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_l2.lake import Changes


def changes_table(changes: Changes) -> dg.TableMetadataValue:
    """How often each field had changed, most often first."""
    ordered = sorted(changes.by_field.items(), key=lambda item: (-item[1], item[0]))
    return dg.MetadataValue.table(
        records=[dg.TableRecord({"field": name, "records": count}) for name, count in ordered],
        schema=dg.TableSchema(
            [dg.TableColumn("field", "string"), dg.TableColumn("records", "int")],
        ),
    )


def counts_table(name: str, counts: dict[str, int]) -> dg.TableMetadataValue:
    """A small table of counts."""
    return dg.MetadataValue.table(
        records=[dg.TableRecord({name: key, "count": count}) for key, count in counts.items()],
        schema=dg.TableSchema([dg.TableColumn(name, "string"), dg.TableColumn("count", "int")]),
    )


def rows_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dg.TableMetadataValue:
    """These columns of rows as a table of texts."""
    return dg.MetadataValue.table(
        records=[dg.TableRecord({name: str(row[name]) for name in columns}) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(name, "string") for name in columns]),
    )


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG as metadata that the UI shows."""
    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{base64.b64encode(png).decode()})")
