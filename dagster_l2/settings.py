"""Every setting, in one class; the environment or ``.env`` with the prefix ``L2_``.

Unset means the embedded default. Only the entrances (commands, Dagster) read settings; the rooms are
handed what they need.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dagster_l2.base.errors import WrongUse
from dagster_l2.base.files import write_json
from dagster_l2.base.logs import LogFormat, log_as
from dagster_l2.setting_kinds import (
    PREFIX,
    Folder,
    GlobusCollection,
    HttpAddress,
    Memory,
    Port,
    SchemaName,
    warn_of_other_names,
)

REPOSITORY = Path(__file__).resolve().parent.parent

ORIGIN_MARK = "origin.json"

RESTORE_MARK = "restore.json"
"""Lies in a data folder from the first file of a restore to the last."""


class SettingsError(WrongUse):
    """A setting is wrong, or two do not go together; the message is one sentence."""


class Settings(BaseSettings):
    """The settings of one installation."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    data_dir: Folder = Field(REPOSITORY / "data", description="Everything written at run time.")
    database_url: str | None = Field(None, description="State database; unset: data/l2.sqlite.")
    db_schema: SchemaName = Field("l2", description="Schema of the state database on PostgreSQL.")

    store_url: HttpAddress | None = Field(None, description="The metadata store; unset: the local store.")
    store_token: SecretStr | None = Field(None, description="Sent raw in the Authorization header.")
    store_kind: Literal["graphql", "public"] = Field(
        "graphql", description="graphql: the store; public: the read-only dataset search."
    )
    store_records: Folder | None = Field(
        None, description="Folder or file of JSON dumps for the local store."
    )
    store_port: Port = Field(8765, description="Port of `l2 store serve`.")
    store_timeout_s: float = Field(60.0, gt=0, description="Seconds that one answer may stall.")
    store_rate_max: float | None = Field(
        None, gt=0, description="Requests per second to the store at most, by all processes; unset: no limit."
    )
    demo_observing_programs: int = Field(40, ge=1, description="Size of the local store's generated records.")

    udl_url: HttpAddress | None = Field(
        None, repr=False, description="The UDL that REACH comes from; unset: the local store."
    )
    udl_token: SecretStr | None = Field(None, description="Sent behind Basic in the Authorization header.")
    reach_settled_days: float = Field(
        7, ge=0, description="A day of REACH that ended longer ago does not change any more."
    )
    reach_satellites: int = Field(
        32, ge=1, description="Satellites of REACH: what a whole day is measured by."
    )
    reach_cadence_s: int = Field(5, ge=1, description="Seconds between two samples of a REACH dosimeter.")
    availability_floor: float = Field(
        0, ge=0, le=100, description="Percent; a day with less is downloaded again; 0: never."
    )
    executor: Literal["threads", "processes", "dask", "slurm"] | None = Field(
        None, description="Who does the tasks of a job; unset: what its definition says."
    )
    executor_workers: int | None = Field(
        None, ge=1, description="Tasks of a job at once; unset: what its definition says."
    )
    dask_address: str | None = Field(None, description="A Dask scheduler; unset: a cluster of this machine.")
    scratch_dir: Folder | None = Field(
        None, description="Chunks of unfinished downloads; unset: data/scratch."
    )

    scratch_days: float = Field(
        30, ge=0, description="Chunks that a job which failed has kept for another try go after so many days."
    )

    scan_window_records: int = Field(3000, ge=1, description="A larger window of a scan is halved.")
    scan_workers: int = Field(4, ge=1, description="Windows of a scan in flight.")
    scan_accept_missing: bool = Field(False, description="Mark missing ones even above a tenth at once.")
    scan_every: str = Field("0 */6 * * *", description="Cron of the pass, UTC.")

    warehouse_memory: Memory = Field(
        "4GB", description="Memory that DuckDB may take for a build of the warehouse, such as 4GB."
    )

    publish: Literal["auto", "approve"] = Field(
        "auto", description="auto: the ready event publishes; approve: an operator does."
    )
    publish_area: Folder | None = Field(
        None, description="Folder that published files are copied to; unset: data/published."
    )
    bus_url: SecretStr | None = Field(
        None,
        description="RabbitMQ, amqp://user:password@host:5672/vhost, for catalog messages and ready events;"
        " unset: messages wait in data/published/outbox.",
    )
    bus_exchange: str = Field("l2", description="Direct exchange that catalog messages go to.")
    bus_queue: str = Field("l2.ready", description="Queue that ready events come from.")
    publish_bucket: str | None = Field(None, description="Bucket when the inputs do not share one.")
    publish_embargoed: bool = Field(False, description="Publish embargoed OPs too.")

    frames_from: str | None = Field(
        None,
        description="Where level-1 frames lie: address or folder above the buckets, s3:// or globus;"
        " unset: the local store.",
    )
    stage_first: int = Field(
        1, ge=0, description="OPs at the head of the queue whose frames are staged, beside the claimed ones."
    )
    stage_quota_gb: float = Field(50.0, gt=0, description="Disk that all staged frames may take.")
    store_collection: GlobusCollection | None = Field(
        None, description="Globus collection of the store's frames, <uuid>:/path above the buckets."
    )
    science_collection: GlobusCollection | None = Field(
        None, description="Globus collection that transfer lists aim at, <uuid>:/path."
    )

    local_collection: GlobusCollection | None = Field(
        None, description="Globus collection of this machine, <uuid>:/path; the path is the data folder."
    )
    globus_token: SecretStr | None = Field(None, description="Access token for Globus transfers.")
    globus_url: HttpAddress | None = Field(None, description="Globus' transfer service; unset: Globus' own.")
    s3_endpoint: HttpAddress | None = Field(None, description="Address of the S3 store; unset: Amazon's.")
    s3_region: str = Field("us-east-1", description="Region of the S3 store.")
    s3_key: str | None = Field(None, repr=False, description="Access key; unset: as AWS_… or a role says.")
    s3_secret: SecretStr | None = Field(None, description="Secret of the access key.")

    products_root: Folder | None = Field(
        None, description="Folder that relative places of products are below, such as a mounted share."
    )
    products_hosts: str = Field(
        "", description="Hosts that products are fetched from, separated by commas; unset: any."
    )
    synthetic_products: bool | None = Field(
        None, description="Take products that say they are made up; unset: over the local store only."
    )
    products_most_gb: float = Field(500.0, gt=0, description="Most that is fetched as one file of products.")

    retry_limit: int = Field(
        3, ge=0, description="Tries of a step that fails transiently; then, or at 0, a person must retry."
    )

    service_port: Port = Field(8770, description="Port of `l2 serve`.")
    service_rate_max: float | None = Field(
        50.0, gt=0, description="Requests per second that one token may send to the service, on the average."
    )

    alert_url: SecretStr | None = Field(None, description="Webhook that alerts are posted to, as JSON.")
    alert_mail_to: str | None = Field(None, description="Who gets alerts by mail, separated by commas.")
    alert_smtp: SecretStr | None = Field(
        None, description="Mail server for alerts, smtp://user:password@host:587 or smtps://…"
    )
    alert_mail_from: str | None = Field(None, description="Sender of alerts; unset: dagster_l2@<host>.")
    alert_every_s: int = Field(60, ge=5, description="Seconds between looks for what is worth an alert.")

    run_days: float = Field(
        365, ge=0, description="Days that Dagster's records of ended runs are kept; 0: for ever."
    )

    job_days: float = Field(
        90,
        ge=0,
        description="Days that working folders of merged jobs are kept; 0: for ever.",
    )

    operators: str = Field("operator", description="Names that may act for others, separated by commas.")
    log_format: LogFormat | None = Field(
        None, description="text or json: log lines on standard error; unset: warnings only."
    )
    ready_sensor_s: int = Field(5, ge=5, description="Seconds between looks for ready events.")

    @field_validator("store_kind", "publish", "executor", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return self.data_dir.expanduser().absolute()

    @property
    def state_url(self) -> str:
        """Address of the state database."""
        return self.database_url or f"sqlite:///{self.data / 'l2.sqlite'}"

    @property
    def lake(self) -> Path:
        """Folder of the lake."""
        return self.data / "lake"

    @property
    def jobs_folder(self) -> Path:
        """Folder of the jobs' manifests and results."""
        return self.data / "jobs"

    @property
    def scratch(self) -> Path:
        """Folder of what unfinished tasks keep."""
        return self.scratch_dir.expanduser().absolute() if self.scratch_dir else self.data / "scratch"

    @property
    def executor_rules(self) -> dict[str, str | int]:
        """What is set of the executor rules, over those of a job's definition."""
        rules = {"kind": self.executor, "workers": self.executor_workers, "address": self.dask_address}
        return {name: value for name, value in rules.items() if value is not None}

    @property
    def published_folder(self) -> Path:
        """Where published files are copied to."""
        return self.publish_area.expanduser().absolute() if self.publish_area else self.data / "published"

    @property
    def warehouse(self) -> Path:
        """The pipeline's own DuckDB file."""
        return self.data / "warehouse.duckdb"

    @property
    def gold(self) -> Path:
        """The analysts' DuckDB file."""
        return self.data / "l2.duckdb"

    @property
    def metrics_file(self) -> Path:
        """The figures for a scraper, as Prometheus text."""
        return self.data / "metrics" / "l2.prom"

    @property
    def operator_names(self) -> frozenset[str]:
        """Who may act for others."""
        return frozenset(name.strip() for name in self.operators.split(",") if name.strip())

    @property
    def default_bucket(self) -> str | None:
        """Bucket of an inversion whose inputs share none; the embedded default has one, a store must say."""
        return self.publish_bucket or ("data" if self.is_embedded_default else None)

    @property
    def is_embedded_default(self) -> bool:
        """Whether nothing is configured: records are generated and the scientist's part may be played."""
        return self.store_url is None and self.store_records is None

    @property
    def takes_synthetic(self) -> bool:
        """Whether made-up products are taken: never over a configured store unless that is said."""
        return self.store_url is None if self.synthetic_products is None else self.synthetic_products

    @property
    def origin(self) -> str | None:
        """Where the records of this data folder come from; None while empty.

        ``demo``: they are generated; ``store``: from a store or its dumps; ``udl``: so far there are only
        observations, from a real UDL.
        """
        try:
            content = json.loads((self.data / ORIGIN_MARK).read_text(encoding="utf-8"))
            return str(content["origin"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise SettingsError(
                f"{self.data / ORIGIN_MARK} cannot be read, so it is not known whether this folder is a demo;"
                " restore it, or set L2_DATA_DIR to another folder."
            ) from None

    @property
    def is_demo(self) -> bool:
        """Whether the records of this data folder are generated, and the scientist's part may be played."""
        return self.origin == "demo"

    def mark_origin(self) -> None:
        """Remember, before the first scan, whether this data folder is a demo; it stays so."""
        origin = self.origin
        if self.is_embedded_default and (origin == "udl" or self.udl_url is not None):
            raise SettingsError(
                f"Generated records must not mix with a real UDL's observations in {self.data}:"
                " set L2_STORE_URL or L2_STORE_RECORDS,"
                " or unset L2_UDL_URL and set L2_DATA_DIR to another folder."
            )
        if origin in (None, "udl"):
            origin = "demo" if self.is_embedded_default else "store"
            write_json(self.data / ORIGIN_MARK, {"origin": origin})

    def mark_reach_origin(self) -> None:
        """Remember, before the first download, whether the observations of this data folder are real ones."""
        self.check_reach()
        if self.origin is None:
            origin = "demo" if self.udl_url is None else "udl" if self.is_embedded_default else "store"
            write_json(self.data / ORIGIN_MARK, {"origin": origin})

    def check_reach(self) -> None:
        """Refuse generated observations beside real records.

        Raises
        ------
        SettingsError
            When L2_UDL_URL is not set in a folder that is, or is to be, no demo.
        """
        is_real = self.origin in ("store", "udl") or (self.origin is None and not self.is_embedded_default)
        if self.udl_url is None and is_real:
            raise SettingsError(
                f"{self.data} is no demo, and generated observations must not mix with real records:"
                " set L2_UDL_URL, or set L2_DATA_DIR to another folder."
            )

    def check_restored(self) -> None:
        """Refuse a data folder that holds a part of a backup."""
        mark = self.data / RESTORE_MARK
        if mark.exists():
            raise SettingsError(
                f"A restore into {self.data} did not come to its end; run the same `l2 restore` again."
            )

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises
        ------
        SettingsError
            A configured store in a demo folder, records that are not there, or a public store to
            publish to.
        """
        if self.data.is_file():
            raise SettingsError(f"L2_DATA_DIR names {self.data}, which is a file; name a folder.")
        origin = self.origin
        if origin == "demo" and (not self.is_embedded_default or self.udl_url is not None):
            name = "L2_STORE_URL" if self.store_url else "L2_STORE_RECORDS"
            name, whose = (
                ("L2_UDL_URL", "a real UDL's") if self.is_embedded_default else (name, "a real store's")
            )
            raise SettingsError(
                f"{self.data} holds the history of a demo, which must not mix with {whose}:"
                f" unset {name}, or set L2_DATA_DIR to another folder."
            )
        if origin == "store" and self.is_embedded_default:
            raise SettingsError(
                f"{self.data} holds the history of a store, which must not mix with generated records:"
                " set L2_STORE_URL or L2_STORE_RECORDS, or set L2_DATA_DIR to another folder."
            )
        if self.store_records is not None and not self.store_records.expanduser().exists():
            raise SettingsError(f"L2_STORE_RECORDS names {self.store_records}, which is not there.")


def load_settings(*, restoring: bool = False, reading_gold: bool = False) -> Settings:
    """Read and check the settings, and let the log lines of this process look as they say.

    Parameters
    ----------
    restoring
        Whether this is the restore itself, which may find the data folder half restored.
    reading_gold
        Whether nothing but gold is read: then it does not matter which store the folder belongs to, and an
        analyst need not know.

    Raises
    ------
    SettingsError
        One sentence that names the setting.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        said = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name} is not usable: {said}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The file .env in {Path.cwd()} cannot be read ({error}).") from None
    if not restoring:
        settings.check_restored()
    if not reading_gold:
        settings.check()
    log_as(settings.log_format)
    warn_of_other_names(frozenset(Settings.model_fields))
    return settings
