"""What can be downloaded in windows: the metadata store.

A source plans windows, fetches and parses them; how windows run is in ``batch``, how files count in ``lake``.
"""

from dagster_l2.sources.bronze import ScanTables
from dagster_l2.sources.metadata_store import SOURCE, CountMismatch, MetadataStore
from dagster_l2.sources.sweep import ScanFailed, ScanReport, Sweep, export_attempts

__all__ = [
    "SOURCE",
    "CountMismatch",
    "MetadataStore",
    "ScanFailed",
    "ScanReport",
    "ScanTables",
    "Sweep",
    "export_attempts",
]
