"""The public dataset search over the same records: query parameters in, plain records out.

Records are served as they are stored, without stand-ins. GraphQL lives in ``engine``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dagster_l2.store.server.catalog import Catalog
from dagster_l2.store.server.moments import asked_moment
from dagster_l2.store.server.records import Row
from dagster_l2.store.server.search import BadRequest

_PAGE_SIZE = 300
_FILTERS = "DatasetInventoriesRequest"

# The parameters whose known values the search lists, and the ones whose extremes it tells.
_CATEGORIES = {
    "headerVersion": "headerVersion",
    "highLevelSoftwareVersion": "highLevelSoftwareVersion",
    "instrumentNames": "instrumentName",
    "primaryExperimentIds": "primaryExperimentId",
    "primaryProposalIds": "primaryProposalId",
    "spectralLines": "spectralLines",
    "status": "status",
    "targetTypes": "targetTypes",
    "workflowName": "workflowName",
    "workflowVersion": "workflowVersion",
}
_RANGES = (
    "averageDatasetSpatialSampling",
    "averageDatasetSpectralSampling",
    "averageDatasetTemporalSampling",
    "createDate",
    "endTime",
    "exposureTime",
    "qualityAverageFriedParameter",
    "startTime",
)


def search(
    catalog: Catalog, parameters: Iterable[tuple[str, str]], *, count_offset: int = 0, is_empty: bool = False
) -> dict[str, Any]:
    """Answer ``GET /datasets/v1``.

    Parameters
    ----------
    catalog
        The records.
    parameters
        Name and text of each query parameter; a list comes as one text with commas or as several parameters.
    count_offset, is_empty
        See `Catalog.resolvers`.

    Raises
    ------
    BadRequest
        For a parameter that does not exist or cannot be read.
    """
    params = _read(catalog.engine.types_of(_FILTERS), parameters)
    params.setdefault("pageSize", _PAGE_SIZE)
    if is_empty:
        return {"recordCount": max(0, count_offset), "searchResults": []}
    found = catalog.datasets.count(params)
    return {
        "recordCount": max(0, found + count_offset),
        "searchResults": catalog.datasets.select(params),
    }


def search_values(catalog: Catalog) -> dict[str, Any]:
    """Answer ``GET /datasets/v1/searchValues``: the known values of each parameter."""
    rows = catalog.datasets.rows
    out = [
        {"parameterName": name, "values": {"categoricalValues": _known(rows, field)}}
        for name, field in _CATEGORIES.items()
    ]
    for field in _RANGES:
        extremes = _extremes(rows, field)
        out += [{"parameterName": f"{field}{side}", "values": extremes} for side in ("Min", "Max")]
    return {"parameterValues": out}


def _known(rows: Sequence[Row], field: str) -> list[str]:
    values: set[str] = set()
    for row in rows:
        value = row.get(field)
        values.update(
            item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)
        )
    return sorted(values)


def _extremes(rows: Sequence[Row], field: str) -> dict[str, Any]:
    kind: Any = str if field.endswith(("Date", "Time")) and field != "exposureTime" else (int, float)
    values = [value for row in rows if isinstance(value := row.get(field), kind)]
    return {"minValue": min(values, default=None), "maxValue": max(values, default=None)}


def _read(types: dict[str, str], parameters: Iterable[tuple[str, str]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, text in parameters:
        if name not in types:
            raise BadRequest(f"The dataset search has no parameter {name[:60]!r}.")
        kind = types[name]
        try:
            if kind.startswith("["):
                items = [_value(kind.strip("[]"), item.strip()) for item in text.split(",") if item.strip()]
                out.setdefault(name, []).extend(items)
            else:
                out[name] = _value(kind, text)
        except ValueError:
            raise BadRequest(f"{name} cannot be {text[:60]!r}; it takes {kind}.") from None
    return out


def _value(kind: str, text: str) -> Any:
    if kind == "Boolean":
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind == "DateTime":
        return asked_moment(text)
    return {"Int": int, "Float": float}.get(kind, str)(text)
