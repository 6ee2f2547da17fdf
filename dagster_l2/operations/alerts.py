"""Alerts: what people should be told, compared with what was recorded, and sent by webhook or mail.

Level-triggered: who looks later finds the same. An alert is recorded when it is raised and again when it went
out, so a receiver that is down delays it and nothing repeats it. Runs are told by ``outcomes``.
"""

from __future__ import annotations

import hashlib
import logging
import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.base.files import AlreadyRunning, only_one
from dagster_l2.batch import batch_attempts
from dagster_l2.ledger import Ledger, RaisedAlert
from dagster_l2.pipeline.gold import BadQuery, NoGold
from dagster_l2.pipeline.queue import live_queue
from dagster_l2.settings import Settings

_LOG = logging.getLogger(__name__)

FRESH = timedelta(days=7)
"""What happened longer ago is not raised any more: who sets up alerts is not told the whole past."""

MANY_MISSING = "TooManyMissing"
"""The error of a scan that found more than a tenth missing, by the name of its class."""

WEBHOOK, MAIL = "webhook", "mail"
_AT_ONCE = 50
_OF_THIS_ONE = (400, 413, 422)
_STALL_S = 10.0
_PASSED_ON = ("taken", "duplicate")
_OPERATOR, _LOW = "operator", "low_coverage"


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that failed; ``after`` is the run of the same job that last went well, if any."""

    run_id: str
    job: str
    sentence: str
    error: str | None
    ended_at: datetime
    after: str | None


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that people should be told, once for its cause.

    ``about`` names what several of a kind are told of together, so that no other alert tells of them again;
    it is recorded and not sent.
    """

    cause: str
    kind: str
    what: str
    responsible: str
    look: str
    more: dict[str, Any] = field(default_factory=dict)
    about: list[str] = field(default_factory=list)


class NotDelivered(L2Error):
    """A receiver did not take an alert; it is tried again.

    ``is_of_this_one``: it answers, and what it does not take is this one; others may go out.
    """

    transient = True

    def __init__(self, sentence: str, *, is_of_this_one: bool = False) -> None:
        super().__init__(sentence)
        self.is_of_this_one = is_of_this_one


def tell(settings: Settings, ledger: Ledger, failed_runs: Iterable[FailedRun]) -> int:
    """Raise what is to be raised and send what has not gone out yet; how many went out.

    It never fails for a receiver that is down or for a second one at work: the next call goes on.
    """
    ways = ways_of(settings)
    if not ways:
        return 0
    try:
        with only_one(settings.data / "locks" / "alerts.lock", "The sending of alerts"):
            known = ledger.alert_causes()
            for alert in wanted(settings, ledger, failed_runs):
                if alert.cause not in known:
                    details = {name: said for name, said in asdict(alert).items() if name not in _COLUMNS}
                    ledger.raise_alert(alert.cause, kind=alert.kind, ways=list(ways), details=details)
            return sum(_send_all(ledger, way, send) for way, send in ways.items())
    except AlreadyRunning:
        return 0
    except (L2Error, OSError, SQLAlchemyError) as error:
        _LOG.warning("Alerts wait: %s", " ".join(str(error).split())[:300])
        return 0


_COLUMNS = ("cause", "kind")


def wanted(settings: Settings, ledger: Ledger, failed_runs: Iterable[FailedRun]) -> Iterator[Alert]:
    """Everything that people should be told of now, told or not."""
    since = datetime.now(UTC) - FRESH
    yield from (_of_run(run) for run in failed_runs if run.ended_at >= since)
    yield from _overdue(settings, ledger)
    yield from _refused(ledger, since)
    if settings.availability_floor > 0:
        yield from _low_coverage(settings, ledger, since)


def _of_run(run: FailedRun) -> Alert:
    """A run that fails as the one before it is the same cause, until one goes well."""
    is_missing = run.error == MANY_MISSING
    # Numbers and ids differ from run to run.
    said = "" if is_missing else re.sub(r"[0-9a-f]{6,}|[0-9]+", "#", run.sentence)
    digest = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    kind = "scan_missing" if is_missing else "run_failed"
    look = "l2 scan --accept-missing, if they are really gone" if is_missing else "l2 ui"
    what = run.sentence if is_missing else f"The run {run.run_id[:8]} of {run.job} failed: {run.sentence}"
    more = {"run_id": run.run_id, "job": run.job}
    return Alert(f"{kind}/{run.job}/{run.after}/{digest}", kind, what, _OPERATOR, look, more)


def _overdue(settings: Settings, ledger: Ledger) -> Iterator[Alert]:
    try:
        late = [row for row in live_queue(settings.gold, ledger) if row["is_overdue"]]
    except (NoGold, BadQuery):
        return
    presents = ledger.present_all() if late else {}
    for row in late:
        op_id, limit = row["op_id"], row["limit_days"]
        seq = presents[op_id].seq if op_id in presents else 0
        what = (
            f"OP {op_id!a} is {row['state']} for {row['days_in_state']:.1f} days, more than {limit:g}:"
            f" {row['reason']}"
        )
        more = {"op_id": op_id, "state": row["state"]}
        yield Alert(f"overdue/{op_id}/{seq}", "overdue", what, row["responsible"], f"l2 show {op_id}", more)


def _refused(ledger: Ledger, since: datetime) -> Iterator[Alert]:
    for event, outcome in ledger.refused_events(since):
        what = f"The hand-over of OP {event.op_id!a} ({event.inversion_id}) was refused: {outcome.reason}"
        more = {"op_id": event.op_id, "inversion_id": event.inversion_id}
        look = f"l2 show {event.op_id}"
        yield Alert(f"handover/{event.event_id}", "handover_refused", what, event.actor, look, more)
    for receipt in ledger.receipts(since=since):
        if receipt.outcome not in _PASSED_ON:
            what = f"A ready event by {receipt.door} ({receipt.source}) was not taken: {receipt.reason}"
            who, about = receipt.actor or _OPERATOR, {"op_id": receipt.op_id, "outcome": receipt.outcome}
            yield Alert(f"inbox/{receipt.delivery_id}", "handover_refused", what, who, "l2 inbox", about)


def _low_coverage(settings: Settings, ledger: Ledger, since: datetime) -> Iterator[Alert]:
    """Windows of a job that got less than the floor and do not change any more, together and once."""
    floor = settings.availability_floor
    columns = batch_attempts.c
    settled = datetime.now(UTC) - timedelta(days=settings.reach_settled_days)
    newest = sa.select(sa.func.max(columns.attempt_id)).group_by(columns.unit_id)
    query = (
        sa.select(batch_attempts)
        .where(columns.attempt_id.in_(newest), columns.availability_pct < floor)
        .where(columns.recorded_at >= since, columns.window_end <= settled)
        .order_by(columns.window_start)
    )
    told = {unit for alert in ledger.alerts(kind=_LOW) for unit in alert.details.get("about", ())}
    jobs: dict[tuple[str, str], list[Any]] = {}
    with ledger.engine.connect() as connection:
        for row in connection.execute(query):
            if row.unit_id not in told:
                jobs.setdefault((row.source, row.job_id), []).append(row)
    for (source, job_id), rows in jobs.items():
        about = sorted(row.unit_id for row in rows)
        units = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
        first = rows[0]
        what = (
            f"{len(rows)} windows of {source} got less than {floor:g} %, first"
            f" {first.window_start:%Y-%m-%d} with {first.availability_pct:.1f} %"
        )
        more = {"job_id": job_id, "windows": len(rows)}
        look = f"l2 jobs show {job_id}"
        yield Alert(f"coverage/{units}", _LOW, what, _OPERATOR, look, more, about)


Send = Callable[[dict[str, Any]], None]


def ways_of(settings: Settings) -> dict[str, Send]:
    """The ways that are set, each with what sends one alert by it.

    Raises
    ------
    WrongUse
        When the address of the mail server is none, or nobody is named to write to.
    """
    ways: dict[str, Send] = {}
    if settings.alert_url is not None:
        url = settings.alert_url.get_secret_value()
        ways[WEBHOOK] = lambda content: _post(url, content)
    if settings.alert_mail_to or settings.alert_smtp:
        if not settings.alert_mail_to or settings.alert_smtp is None:
            raise WrongUse("Alerts by mail need L2_ALERT_MAIL_TO and L2_ALERT_SMTP; set both.")
        to = [name.strip() for name in settings.alert_mail_to.split(",") if name.strip()]
        server = MailServer.parse(settings.alert_smtp.get_secret_value())
        sender = settings.alert_mail_from or f"dagster_l2@{socket.gethostname()}"
        ways[MAIL] = lambda content: server.send(sender, to, content)
    return ways


def _send_all(ledger: Ledger, way: str, send: Send) -> int:
    """Send what has not gone out by a way; a receiver that is down ends it until the next time."""
    sent = 0
    for alert in ledger.undelivered(way, limit=_AT_ONCE):
        try:
            send(body_of(alert))
        except NotDelivered as error:
            _LOG.warning("%s", error)
            if error.is_of_this_one:
                continue
            break
        ledger.record_alert_delivery(alert.alert_id, way)
        sent += 1
    return sent


def body_of(alert: RaisedAlert) -> dict[str, Any]:
    """What a receiver gets; ``id`` is the same whenever the same alert comes."""
    said = alert.details
    return {
        "id": hashlib.sha256(alert.cause.encode("utf-8", "surrogatepass")).hexdigest()[:32],
        "kind": alert.kind,
        "raised_at": alert.raised_at.isoformat(timespec="seconds"),
        "text": f"{said['what']} Responsible: {said['responsible']}. Look further: {said['look']}",
        **{name: said[name] for name in ("what", "responsible", "look")},
        "details": said["more"],
    }


def _post(url: str, content: dict[str, Any]) -> None:
    try:
        answer = httpx.post(url, json=content, timeout=_STALL_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Addresses of webhooks are secrets, so the error's own words are not told.
        raise NotDelivered(f"The receiver of alerts does not answer ({type(error).__name__}).") from None
    if not answer.is_success:
        status = answer.status_code
        raise NotDelivered(
            f"The receiver of alerts answered {status}.", is_of_this_one=status in _OF_THIS_ONE
        )


@dataclass(frozen=True, slots=True)
class MailServer:
    """An SMTP server; `smtps` speaks TLS from the start, `smtp` as soon as the server offers it."""

    host: str
    port: int
    is_tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, address: str) -> MailServer:
        """From ``smtp://[user:password@]host[:port]`` or ``smtps://…``; raises `WrongUse`."""
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise WrongUse("L2_ALERT_SMTP must be like smtp://user:password@host:587 or smtps://host.")
        is_tls = parts.scheme == "smtps"
        user, password = (unquote(one) if one else None for one in (parts.username, parts.password))
        return cls(parts.hostname, port or (465 if is_tls else 25), is_tls, user, password)

    def send(self, sender: str, to: Sequence[str], content: dict[str, Any]) -> None:
        """Send one alert; raises `NotDelivered`."""
        mail = EmailMessage()
        mail["From"], mail["To"] = sender, ", ".join(to)
        mail["Subject"] = f"[dagster_l2] {' '.join(content['what'].split())[:120]}"
        mail["Message-ID"] = f"<{content['id']}@dagster-l2>"
        more = "".join(f"{name}: {value}\n" for name, value in content["details"].items())
        mail.set_content(
            f"{content['what']}\n\nResponsible: {content['responsible']}\nLook further: {content['look']}\n"
            f"Raised at {content['raised_at']}\n{more}"
        )
        context = ssl.create_default_context()
        try:
            if self.is_tls:
                server: smtplib.SMTP = smtplib.SMTP_SSL(
                    self.host, self.port, timeout=_STALL_S, context=context
                )
            else:
                server = smtplib.SMTP(self.host, self.port, timeout=_STALL_S)
            with server:
                server.ehlo()
                if not self.is_tls and server.has_extn("starttls"):
                    server.starttls(context=context)
                if self.user is not None:
                    server.login(self.user, self.password or "")
                server.send_message(mail)
        except (OSError, smtplib.SMTPException) as error:
            sentence = f"The mail server of alerts took none ({type(error).__name__})."
            raise NotDelivered(sentence, is_of_this_one=isinstance(error, smtplib.SMTPDataError)) from None
