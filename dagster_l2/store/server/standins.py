"""What a dump lacks and the schema says is never null, filled in while answering.

A stand-in depends on nothing but the record's own identity, never on file order or ``updateDate``, so that a
dump served twice is the same twice. Stored records are never touched.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

from dagster_l2.store.server.records import Row

StandIn = Callable[[Row], Any]

_DESCRIPTION_DATE = "2020-01-01T00:00:00"


def stable_int(identifier: object) -> int:
    """A positive 32-bit integer that stays with an id."""
    digest = hashlib.sha256(str(identifier).encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:4], "big") & 0x7FFFFFFF) or 1


def _product_id(row: Row) -> str:
    """By the facts, versions of a product share instrument program and ``wavelengthMin`` to 0.1 nm."""
    program, wavelength = row.get("instrumentProgramExecutionId"), row.get("wavelengthMin")
    usable = isinstance(wavelength, int | float) and math.isfinite(wavelength)
    if isinstance(program, str) and usable and wavelength is not None:
        return f"standin-{program}-{wavelength:.1f}"
    return f"standin-{row.get('datasetId')}"


def _list_of(name: str) -> StandIn:
    return lambda row: [value] if isinstance(value := row.get(name), str) else []


def _always(value: Any) -> StandIn:
    return lambda _row: value


STAND_INS: dict[str, dict[str, StandIn]] = {
    "DatasetInventoryViewResponse": {
        "datasetInventoryId": lambda row: stable_int(row.get("datasetId")),
        "productId": _product_id,
        "status": _always("ACTIVE"),
        "contributingProposalIds": _list_of("primaryProposalId"),
        "contributingExperimentIds": _list_of("primaryExperimentId"),
        "targetTypes": _always([]),
        "proposalInvestigators": _always([]),
        "originalFrameCount": lambda row: row.get("frameCount"),
        "recipeId": _always(0),
        "recipeInstanceId": _always(0),
        "recipeRunId": _always(0),
    },
    "ExperimentDescriptionResponse": {
        "experimentDescriptionId": lambda row: stable_int(row.get("experimentId")),
        "createDate": _always(_DESCRIPTION_DATE),
    },
}
"""By GraphQL type and field: the value for a record that has none."""
