"""What can be downloaded in windows: the metadata store, and REACH from the UDL.

A source plans windows, fetches and parses them; how windows run is in ``batch``, how files count in ``lake``.
"""

from dagster_l2.sources.bronze import ScanTables
from dagster_l2.sources.findings import Findings, ScanFailed, ScanReport, TooManyMissing
from dagster_l2.sources.metadata_store import SOURCE, CountMismatch, MetadataStore
from dagster_l2.sources.reach import ALL, DESCRIPTORS, Archive, Reach, chunk_length
from dagster_l2.sources.reach_records import SCHEMA as REACH_SCHEMA
from dagster_l2.sources.sweep import _END as SCAN_END
from dagster_l2.sources.sweep import Sweep, export_attempts
from dagster_l2.sources.udl import Observed, Question, UdlClient
from dagster_l2.sources.udl_address import without_secrets
from dagster_l2.sources.udl_errors import UdlError, UdlRefused

__all__ = [
    "ALL",
    "DESCRIPTORS",
    "REACH_SCHEMA",
    "SCAN_END",
    "SOURCE",
    "Archive",
    "CountMismatch",
    "Findings",
    "MetadataStore",
    "Observed",
    "Question",
    "Reach",
    "ScanFailed",
    "ScanReport",
    "ScanTables",
    "Sweep",
    "TooManyMissing",
    "UdlClient",
    "UdlError",
    "UdlRefused",
    "chunk_length",
    "export_attempts",
    "without_secrets",
]
