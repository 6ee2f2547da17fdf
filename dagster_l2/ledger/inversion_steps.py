"""What was done with an inversion, once each and with its outcome: taking its products home, publishing it.

Append-only; a step that is recorded is not done again. Which steps there are is for those who take them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from dagster_l2.ledger.base import Base, known
from dagster_l2.ledger.columns import as_details, text
from dagster_l2.ledger.records import InversionStep, Present
from dagster_l2.ledger.tables import inversion_steps


class InversionSteps(Base):
    """The recorded steps of inversions."""

    def record_step(
        self,
        op_id: str,
        *,
        inversion_id: str,
        subject: str,
        step: str,
        details: Mapping[str, Any],
        actor: str,
        run_id: str | None,
    ) -> InversionStep:
        """Record that a step is done; where it is recorded already, that record is given and none is added.

        Raises
        ------
        UnknownOp
            When the ledger has no such OP.
        """

        def work(connection: sa.Connection, present: Present | None) -> InversionStep:
            known(present, op_id)
            query = sa.select(inversion_steps).where(
                inversion_steps.c.subject == subject, inversion_steps.c.step == step
            )
            if row := connection.execute(query).first():
                return InversionStep(**row._mapping)
            values: dict[str, Any] = {
                "op_id": op_id,
                "inversion_id": text(inversion_id, "inversion id"),
                "subject": text(subject, "subject"),
                "step": text(step, "step"),
                "recorded_at": datetime.now(UTC),
                "actor": text(actor, "actor"),
                "run_id": run_id,
                "details": as_details(details),
            }
            result = connection.execute(sa.insert(inversion_steps).values(values))
            (record_id,) = result.inserted_primary_key or (0,)
            return InversionStep(record_id=record_id, **values)

        return self._write(op_id, work)

    def steps_of(self, subject: str) -> dict[str, InversionStep]:
        """The recorded steps of a science event or an inversion, by name, in the order they were taken."""
        query = (
            sa.select(inversion_steps)
            .where(inversion_steps.c.subject == subject)
            .order_by(inversion_steps.c.record_id)
        )
        with self._database.reading() as connection:
            return {row.step: InversionStep(**row._mapping) for row in connection.execute(query)}
