"""Observations of the REACH dosimeters for any span of time, made from a seed while they are asked for.

Nothing is stored: what a sensor saw follows from its name and the time. How they are asked for is in ``udl``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dagster_l2.store.server.generate import DEMO_NOW
from dagster_l2.store.server.udl import Ask

Row = dict[str, Any]
_Hashes = npt.NDArray[np.uint64]
_Times = npt.NDArray[np.int64]

SOURCE = "Aerospace"
DATA_MODE = "REAL"
DESCRIPTORS = ("QUICKLOOK", "PROVISIONAL")
FIRST_SENSOR = 101

_S = 1_000_000
_DAY = 86_400 * _S
_CHUNK = 300 * _S
_GAP = 600 * _S
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (the moments asked for have no zone)
_DOSIMETERS = "ABCDEFGH"
_PARTICLES = ("ELECTRON", "PROTON")
_ORBIT_S = (5_400, 5_700, 6_000)


@dataclass
class ReachFleet:
    """The satellites, their dosimeters, and the moment the archive stands at.

    Parameters
    ----------
    satellites, dosimeters
        How many satellites (sensors ``REACH-101`` and on), and dosimeters on each.
    cadence_s
        Seconds between two samples of a dosimeter.
    seed
        The same seed gives the same observations.
    begins
        Nothing was observed before.
    now
        Observations created later are not there yet; it may be moved while the fleet is served.
    quirks
        Whether there are gaps, nulls, missing lists, duplicates, late observations and other key
        orders. Without them every sample is there once.
    """

    satellites: int = 32
    dosimeters: int = 2
    cadence_s: int = 5
    seed: int = 1
    begins: datetime = datetime(2022, 1, 1, tzinfo=UTC)
    now: datetime = DEMO_NOW
    quirks: bool = True
    is_strict_json: ClassVar[bool] = True

    def count(self, ask: Ask) -> int:
        """How many observations there are."""
        return sum(len(block.times) for block in self._blocks(ask))

    def page(self, ask: Ask, first: int, most: int) -> list[Row]:
        """At most ``most`` of them by ``obTime``, from number ``first`` on."""
        out: list[Row] = []
        for block in self._blocks(ask):
            if first < len(block.times):
                out += self._rows(block.cut(first, first + most - len(out)))
            first = max(0, first - len(block.times))
            if len(out) >= most:
                break
        return out

    def _streams(self, ask: Ask) -> list[tuple[int, int, str]]:
        """(Number of the satellite, of the dosimeter, descriptor) of all that the question means."""
        if ask.source not in (None, SOURCE) or ask.data_mode not in (None, DATA_MODE):
            return []
        return [
            (satellite, dosimeter, descriptor)
            for descriptor in DESCRIPTORS
            if ask.descriptor in (None, descriptor)
            for satellite in range(self.satellites)
            if ask.sensor in (None, f"REACH-{FIRST_SENSOR + satellite}")
            for dosimeter in range(self.dosimeters)
        ]

    def _blocks(self, ask: Ask) -> Iterator[_Block]:
        """The observations, a UTC day at a time, so that a long span needs no more memory than a day."""
        streams = self._streams(ask)
        low = max(_micros(ask.start), _micros(self.begins))
        high = min(_micros(ask.end), _micros(self.now))
        for day in range(low // _DAY, high // _DAY + 1) if streams else ():
            first, last = max(low, day * _DAY), min(high, (day + 1) * _DAY - 1)
            yield self._block(streams, first, last)

    def _block(self, streams: list[tuple[int, int, str]], first: int, last: int) -> _Block:
        step = self.cadence_s * _S
        ticks = np.arange(first // step, last // step + 1, dtype=np.int64)
        times = np.repeat(ticks * step, len(streams))
        stream = np.tile(np.arange(len(streams)), len(ticks))
        salts = np.array([self._salt(*named) for named in streams], np.uint64)
        hashes = _mixed(salts[stream] ^ _mixed(times.astype(np.uint64)))
        lags = 300 * _S + (hashes >> np.uint64(40)).astype(np.int64) % (3600 * _S)
        versions = np.zeros(len(times), np.uint64)
        if self.quirks:
            lags += np.where(_one_in(hashes, 500, 1), 6 * 3600 * _S + lags * 40, 0)
            # A satellite falls silent as a whole.
            silent = np.array(
                [self._salt(satellite, 15, DESCRIPTORS[0]) for satellite, *_ in streams], np.uint64
            )
            gaps = _mixed(silent[stream] ^ _mixed((times // _GAP).astype(np.uint64)))
            kept = ~_one_in(gaps, 150, 2) & ~_one_in(hashes, 700, 3)
            times = _at_the_edge(times, hashes, step)
            again = _one_in(hashes, 300, 4) & kept
            times = np.concatenate([times[kept], times[again]])
            lags = np.concatenate([lags[kept], lags[again] + 2 * 3600 * _S])
            versions = np.concatenate([versions[kept], versions[again] + np.uint64(1)])
            stream = np.concatenate([stream[kept], stream[again]])
            hashes = np.concatenate([hashes[kept], hashes[again]])
        there = (times >= first) & (times <= last) & (times + lags <= _micros(self.now))
        order = np.flatnonzero(there)
        order = order[np.lexsort((versions[order], stream[order], times[order]))]
        return _Block(streams, times[order], lags[order], stream[order], hashes[order] + versions[order])

    def _salt(self, satellite: int, dosimeter: int, descriptor: str) -> int:
        number = ((self.seed * 1009 + satellite) * 16 + dosimeter) * 4 + DESCRIPTORS.index(descriptor)
        return int(_mixed(np.array([number], np.uint64))[0])

    def _rows(self, block: _Block) -> list[Row]:
        exponents = (block.hashes >> np.uint64(20)) % np.uint64(4000) / 1000.0 - 7.0
        made = zip(
            [block.streams[i] for i in block.stream.tolist()],
            block.hashes.tolist(),
            (block.times / _S).tolist(),
            _texts(block.times),
            _texts(block.times + block.lags),
            _texts(block.times + block.lags // 2),
            np.round(10.0**exponents, 12).tolist(),
            strict=True,
        )
        if not self.quirks:
            return [_row(*parts) for parts in made]
        return [_quirky(_row(*parts), parts[1]) for parts in made]


@dataclass(frozen=True, slots=True)
class _Block:
    """Observations by time: µs since 1970 of the sample, µs until created, stream, hash."""

    streams: list[tuple[int, int, str]]
    times: _Times
    lags: _Times
    stream: _Times
    hashes: _Hashes

    def cut(self, first: int, end: int) -> _Block:
        part = slice(first, end)
        return _Block(self.streams, self.times[part], self.lags[part], self.stream[part], self.hashes[part])


def _row(
    stream: tuple[int, int, str],
    number: int,
    seconds: float,
    observed: str,
    created: str,
    generated: str,
    flux: float,
) -> Row:
    satellite, dosimeter, descriptor = stream
    sensor, letter = f"REACH-{FIRST_SENSOR + satellite}", _DOSIMETERS[dosimeter]
    orbit = 2 * math.pi * (seconds / _ORBIT_S[satellite % 3] % 1.0 + satellite / 32)
    lat = 86.4 * math.sin(orbit)
    lon = (seconds / 240.0 + satellite * 11.25 + 90.0 * math.sin(2 * orbit)) % 360.0 - 180.0
    alt = 780.0 + 4.0 * math.cos(orbit)
    flat = math.cos(math.radians(lat)) * (6371.0 + alt)
    text = f"{number:016x}{number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF:016x}"
    return {
        "id": f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}",
        "classificationMarking": "U",
        "dataType": "DOSIMETER",
        "genTime": generated,
        "idOnOrbit": str(43_100 + satellite),
        "satNo": 43_100 + satellite,
        "idSensor": sensor,
        "origSensorId": f"{FIRST_SENSOR + satellite}-{letter}",
        "observatoryType": "LEO",
        "observatoryName": "REACH",
        "instrumentType": "DOSIMETER",
        "lat": round(lat, 6),
        "lon": round(lon, 6),
        "alt": round(alt, 4),
        "senPos": [
            round(flat * math.cos(math.radians(lon)), 4),
            round(flat * math.sin(math.radians(lon)), 4),
            round(math.sin(math.radians(lat)) * (6371.0 + alt), 4),
        ],
        "obSetId": f"{sensor}-{observed[:10]}",
        "particleType": _PARTICLES[dosimeter % 2],
        "obTime": observed,
        "seoList": [
            {
                "obType": "Dose Rate",
                "obUoM": "rad/s",
                "obValue": flux,
                "obQuality": "good",
                "obDescription": f"Dosimeter {letter} dose rate",
            }
        ],
        "descriptor": descriptor,
        "createdAt": created,
        "createdBy": "reach.ingest",
        "source": SOURCE,
        "dataMode": DATA_MODE,
        "origNetwork": "OPS1",
    }


def _quirky(row: Row, number: int) -> Row:
    """The record as an archive with some years behind it would send it."""
    draw = number >> 3
    for one_in, change in _QUIRKS:
        if draw % one_in == 0:
            row = change(row)
        draw //= 7
    return row


_QUIRKS: tuple[tuple[int, Callable[[Row], Row]], ...] = (
    (401, lambda row: {name: value for name, value in row.items() if name != "seoList"}),
    (409, lambda row: {**row, "genTime": None, "satNo": None}),
    (419, lambda row: {**row, "lat": None, "lon": None, "alt": None, "senPos": None}),
    (421, lambda row: {**row, "seoList": [{**part, "obQuality": None} for part in row.get("seoList", ())]}),
    (13, lambda row: dict(reversed(row.items()))),
    (29, lambda row: dict(sorted(row.items()))),
)


def _at_the_edge(times: _Times, hashes: _Hashes, step: int) -> _Times:
    """Some samples move to the last millisecond or microsecond before a boundary of five minutes."""
    is_last = (times + step) % _CHUNK == 0
    before = np.where(_one_in(hashes, 2, 5), _S // 1000, 1)
    return np.where(is_last & _one_in(hashes, 4, 6), times + step - before, times)


def _mixed(numbers: _Hashes) -> _Hashes:
    """The splitmix64 finalizer: neighbours become unrelated."""
    with np.errstate(over="ignore"):
        out = numbers + np.uint64(0x9E3779B97F4A7C15)
        out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return out ^ (out >> np.uint64(31))


def _one_in(hashes: _Hashes, share: int, salt: int) -> npt.NDArray[np.bool_]:
    drawn: npt.NDArray[np.bool_] = _mixed(hashes + np.uint64(salt)) % np.uint64(share) == 0
    return drawn


def _micros(when: datetime) -> int:
    naive = when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when
    return (naive - _EPOCH) // timedelta(microseconds=1)


def _texts(times: _Times) -> list[str]:
    """ISO text with milliseconds, or with microseconds where there are some."""
    moments = times.astype("datetime64[us]")
    out: list[str] = np.char.add(np.datetime_as_string(moments, unit="ms"), "Z").tolist()
    for i in np.flatnonzero(times % 1000).tolist():
        out[i] = f"{np.datetime_as_string(moments[i], unit='us')}Z"
    return out
