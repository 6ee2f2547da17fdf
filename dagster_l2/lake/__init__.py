"""Parquet on disk: how a file comes to count, bronze version logs, views for SQL, and gold.

It holds no rule about observing programs and speaks to no service.
"""

from dagster_l2.lake.bronze import SCAN_COLUMNS, BronzeTable, Changes, VersionLog
from dagster_l2.lake.claims import GrowingTable
from dagster_l2.lake.commit import (
    Claim,
    LakeError,
    ResultManifest,
    commit_link,
    commit_parquet,
    commit_written,
    committed_files,
    done_path,
    is_intact,
    read_manifest,
)
from dagster_l2.lake.compaction import Compaction, compact
from dagster_l2.lake.gold import Description, Gold, write_gold
from dagster_l2.lake.views import quoted, register_views

__all__ = [
    "SCAN_COLUMNS",
    "BronzeTable",
    "Changes",
    "Claim",
    "Compaction",
    "Description",
    "Gold",
    "GrowingTable",
    "LakeError",
    "ResultManifest",
    "VersionLog",
    "commit_link",
    "commit_parquet",
    "commit_written",
    "committed_files",
    "compact",
    "done_path",
    "is_intact",
    "quoted",
    "read_manifest",
    "register_views",
    "write_gold",
]
