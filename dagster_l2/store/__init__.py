"""The observatory's metadata store: its records, its errors, and a client that speaks to it.

The server that plays the store on this machine is in ``store.server``; deciding anything about a record
is the dbt project's work.
"""

from dagster_l2.store.client import INVERSION_FIELDS, StoreClient, StoreKind
from dagster_l2.store.errors import (
    DuplicateInversion,
    StoreAnswerInvalid,
    StoreError,
    StoreQueryError,
    StoreReadOnly,
    StoreRefused,
    StoreTurnedDown,
    StoreUnreachable,
)
from dagster_l2.store.fields import (
    DATASETS,
    EXPERIMENTS,
    PROCESSING_CANDIDATES,
    RECORD_TYPES,
    Field,
    FieldType,
    RecordType,
)
from dagster_l2.store.pace import Pace
from dagster_l2.store.page import Record
from dagster_l2.store.parse import Rejected, content_hashes, parse_records

__all__ = [
    "DATASETS",
    "EXPERIMENTS",
    "INVERSION_FIELDS",
    "PROCESSING_CANDIDATES",
    "RECORD_TYPES",
    "DuplicateInversion",
    "Field",
    "FieldType",
    "Pace",
    "Record",
    "RecordType",
    "Rejected",
    "StoreAnswerInvalid",
    "StoreClient",
    "StoreError",
    "StoreKind",
    "StoreQueryError",
    "StoreReadOnly",
    "StoreRefused",
    "StoreTurnedDown",
    "StoreUnreachable",
    "content_hashes",
    "parse_records",
]
