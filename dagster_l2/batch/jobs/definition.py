"""Job definitions: the template of a job, read from ``jobs/<name>.yaml``.

What a job does with these values is in the other modules; one run of a definition is in ``coordinator``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dagster_l2.base.errors import WrongUse
from dagster_l2.batch.jobs.model import Phase


class JobDefinitionInvalid(WrongUse):
    """A definition that can't be meant as it stands."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RateRules(_Strict):
    """The numbers of the rate, in requests per second; ``increase`` per second of success."""

    initial: float = Field(5.0, gt=0)
    increase: float = Field(1.0, gt=0)
    decrease: float = Field(0.5, gt=0, lt=1)
    min: float = Field(1 / 60, gt=0)
    max: float = Field(25.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> RateRules:
        if not self.min <= self.initial <= self.max:
            raise ValueError("min, initial and max must rise in this order")
        return self


class RetryRules(_Strict):
    """How long passing failures are tried again, in seconds; the wait doubles from round to round."""

    budget_s: float = Field(3600.0, ge=0)
    first_wait_s: float = Field(5.0, ge=0)
    max_wait_s: float = Field(300.0, ge=0)
    max_claims: int = Field(5, ge=1)

    def wait_s(self, number: int) -> float:
        """Seconds before the n-th retry, from 1."""
        return min(self.max_wait_s, self.first_wait_s * 2.0 ** min(number - 1, 60))


class SlurmRules(_Strict):
    """What Slurm is told of each task of the array; ``options`` are further ones of sbatch, by long name."""

    minutes: int = Field(60, ge=1)
    cpus: int = Field(1, ge=1)
    memory_gb: float | None = Field(None, gt=0)
    partition: str | None = None
    options: dict[str, str | int] = {}


class ExecutorRules(_Strict):
    """Who runs the tasks: how many at once, and how many chunks of one batch are fetched at once.

    A worker that is not heard of for ``lease_s`` seconds has lost its task. ``address`` is that of a Dask
    scheduler; without one Dask runs on this machine.
    """

    kind: Literal["threads", "processes", "dask", "slurm"] = "threads"
    workers: int = Field(1, ge=1)
    in_flight: int = Field(4, ge=1)
    lease_s: float = Field(60.0, gt=0)
    address: str | None = Field(None, min_length=1)
    slurm: SlurmRules = SlurmRules()


class JobDefinition(_Strict):
    """The template of a job.

    ``handler`` is the import path (``module:function``) of what makes the source from the parameters of a
    run; ``source`` is the name that this source must bear. ``keep_chunks`` false: the chunks of a batch that
    is not finished are in memory only, and fetched again after a death; for batches that are quickly fetched.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")
    handler: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    source: str = Field(min_length=1)
    batch_size: int = Field(1, ge=1)
    keep_chunks: bool = True
    rate: RateRules = RateRules()
    retries: RetryRules = RetryRules()
    executor: ExecutorRules = ExecutorRules()
    phases: tuple[Phase, ...] = (Phase.INITIAL, Phase.RETRY, Phase.AGGREGATION)
    fan_in: int | None = Field(None, ge=2)

    @model_validator(mode="after")
    def _phases_in_order(self) -> JobDefinition:
        order = list(Phase)
        if Phase.INITIAL not in self.phases or list(self.phases) != [p for p in order if p in self.phases]:
            raise ValueError(f"phases must be initial and what follows of {', '.join(order)}, in this order")
        return self


def load_definition(path: Path) -> JobDefinition:
    """Read ``jobs/<name>.yaml``; the file's name is the job's.

    Raises
    ------
    JobDefinitionInvalid
        When the file is not there, is no YAML, or a value in it is wrong; the message names the first.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise JobDefinitionInvalid(
            f"The job definition {path} can't be read ({error.strerror}); is its name right?"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())[:200]
        raise JobDefinitionInvalid(f"{path.name} is no YAML ({text}); correct it.") from None
    if not isinstance(content, dict):
        raise JobDefinitionInvalid(f"{path.name} holds no settings; write handler and source at least.")
    return parse_definition({"name": path.stem, **content}, path.name)


def parse_definition(content: dict[str, Any], place: str) -> JobDefinition:
    """A definition from its values.

    Raises
    ------
    JobDefinitionInvalid
        When a value is wrong or one lacks.
    """
    try:
        return JobDefinition.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        what = first["msg"].removeprefix("Value error, ")
        raise JobDefinitionInvalid(f"{place}: {where}: {what}; correct it.") from None
