"""The records of the metadata store: each field once, with its column, type and nullability.

The GraphQL query, the parser, the bronze schema and the local store derive from these tables.
What a field *means* for the decision to invert lives in the dbt project, not here.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import cache

import polars as pl


class FieldType(enum.Enum):
    """What a field holds, as the store's GraphQL schema names it."""

    TEXT = "String"
    INT = "Int"
    FLOAT = "Float"
    BOOL = "Boolean"
    DATETIME = "DateTime"
    TEXT_LIST = "[String!]"
    DISTRIBUTION = "DistributionString"
    HEALTH = "HealthCounts"
    GOS = "GosStatusCounts"


STRUCT_KEYS: dict[FieldType, tuple[str, ...]] = {
    FieldType.DISTRIBUTION: ("min", "p25", "med", "p75", "max"),
    FieldType.HEALTH: ("good", "bad", "ill", "unknown"),
    FieldType.GOS: ("open", "opening", "closed", "closing", "undefined"),
}

DATETIME = pl.Datetime("us")

COUNT = "datasetInventoriesRecordCount"
"""The store's question for the number of dataset records."""

POLARS_TYPES: dict[FieldType, pl.DataType] = {
    FieldType.TEXT: pl.String(),
    FieldType.INT: pl.Int64(),
    FieldType.FLOAT: pl.Float64(),
    FieldType.BOOL: pl.Boolean(),
    FieldType.DATETIME: DATETIME,
    FieldType.TEXT_LIST: pl.List(pl.String()),
    FieldType.DISTRIBUTION: pl.Struct(dict.fromkeys(STRUCT_KEYS[FieldType.DISTRIBUTION], pl.Float64())),
    FieldType.HEALTH: pl.Struct(dict.fromkeys(STRUCT_KEYS[FieldType.HEALTH], pl.Int64())),
    FieldType.GOS: pl.Struct(dict.fromkeys(STRUCT_KEYS[FieldType.GOS], pl.Int64())),
}


@cache
def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a store record.

    Parameters
    ----------
    name
        The service's name (camelCase).
    type
        What it holds.
    nullable
        Whether the store's schema lets it be null. A dump may lack any field; a missing field is null.
    required
        Whether a record without it cannot be used at all and is rejected.
    """

    name: str
    type: FieldType
    nullable: bool = True
    required: bool = False

    @property
    def column(self) -> str:
        """The bronze column: the service's name in snake_case."""
        return _snake_case(self.name)

    @property
    def dtype(self) -> pl.DataType:
        """The polars type of the bronze column."""
        return POLARS_TYPES[self.type]

    @property
    def graphql_type(self) -> str:
        """The type as the store's schema writes it."""
        return self.type.value if self.nullable else f"{self.type.value}!"


@dataclass(frozen=True, slots=True)
class RecordType:
    """A kind of record: the query that lists it, its GraphQL type, its identity and its fields."""

    table: str
    query: str
    graphql_type: str
    key: str
    fields: tuple[Field, ...]

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Column name to polars type, in the order of the fields."""
        return {field.column: field.dtype for field in self.fields}

    @property
    def key_column(self) -> str:
        """The bronze column that identifies a record."""
        return next(field.column for field in self.fields if field.name == self.key)


def _fields(text: str) -> tuple[Field, ...]:
    """Read lines of ``name Type``; ``!`` is never null, with ``!!`` a record without it is rejected."""
    out = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        name, type_name = line.split()
        bare = type_name.rstrip("!")
        marks = len(type_name) - len(bare)
        out.append(Field(name, FieldType(bare), nullable=marks == 0, required=marks == 2))
    return tuple(out)


DATASETS = RecordType(
    table="datasets",
    query="datasetInventories",
    graphql_type="DatasetInventoryViewResponse",
    key="datasetId",
    fields=_fields("""
        datasetInventoryId Int!
        datasetId String!!
        productId String!
        status String!
        createDate DateTime!!
        updateDate DateTime
        observingProgramExecutionId String
        instrumentProgramExecutionId String
        instrumentName String
        primaryProposalId String!!
        primaryExperimentId String
        contributingProposalIds [String!]!
        contributingExperimentIds [String!]!
        startTime DateTime
        endTime DateTime
        boundingBox String
        wavelengthMin Float
        wavelengthMax Float
        spectralLines [String!]
        stokesParameters String
        hasAllStokes Boolean
        frameCount Int!
        originalFrameCount Int!
        exposureTime Float
        health HealthCounts
        gosStatus GosStatusCounts
        aoLocked Int
        lightLevel DistributionString
        polarimetricAccuracy DistributionString
        friedParameter DistributionString
        qualityAverageFriedParameter Float
        qualityAveragePolarimetricAccuracy Float
        bucket String!
        asdfObjectKey String
        browseMovieObjectKey String
        browseMovieUrl String
        qualityReportObjectKey String
        qualityDataObjectKey String
        datasetSize Float
        isEmbargoed Boolean
        embargoEndDate DateTime
        experimentDescription String
        targetTypes [String!]!
        proposalInvestigators [String!]!
        authorizedAgents [String!]
        hasSpectralAxis Boolean
        hasTemporalAxis Boolean
        averageDatasetSpectralSampling Float
        averageDatasetSpatialSampling Float
        averageDatasetTemporalSampling Float
        isManuallyProcessed Boolean
        recipeId Int!
        recipeInstanceId Int!
        recipeRunId Int!
        inputDatasetParametersPartId Int
        inputDatasetObserveFramesPartId Int
        inputDatasetCalibrationFramesPartId Int
        workflowName String
        workflowVersion String
        highLevelSoftwareVersion String
        headerVersion String
        headerDataUnitCreationDate DateTime
        headerDocumentationUrl String
        infoUrl String
        calibrationDocumentationUrl String
    """),
)

EXPERIMENTS = RecordType(
    table="experiments",
    query="experimentDescriptions",
    graphql_type="ExperimentDescriptionResponse",
    key="experimentId",
    fields=_fields("""
        experimentDescriptionId Int!
        experimentId String!!
        experimentDescription String
        createDate DateTime!
        updateDate DateTime
    """),
)

PROCESSING_CANDIDATES = RecordType(
    table="processing_candidates",
    query="processingCandidates",
    graphql_type="ProcessingCandidateViewResponse",
    key="observingProgramExecutionId",
    fields=_fields("""
        processingCandidateId Int!
        observingProgramExecutionId String!!
        proposalId String!
        experimentId String!
        plannedRecipeCount Int
        totalRecipeInstanceCount Int!
        completeRecipeInstanceCount Int!
        isLocked Boolean!
        dataAcquisitionCompletionDate DateTime!
        createDate DateTime!
        updateDate DateTime
    """),
)

RECORD_TYPES: tuple[RecordType, ...] = (DATASETS, EXPERIMENTS, PROCESSING_CANDIDATES)
