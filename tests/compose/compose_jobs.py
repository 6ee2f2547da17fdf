"""The commands of compose.yaml, started here as processes over a real PostgreSQL (`make test-compose`).

No container engine is needed: what is tried is that these commands, with this environment and dagster.yaml,
come up, see each other and stop when they are told to.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 240

_DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"
_LOADED = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name sensors { name } } } } }"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _wait_for(look: Callable[[], Any], processes: dict[str, subprocess.Popen[bytes]], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for name, process in processes.items():
            assert process.poll() is None, f"{name} ended by itself with {process.returncode}"
        try:
            if found := look():
                return found
        except (httpx.HTTPError, KeyError, TypeError, ValueError):
            pass
        time.sleep(0.5)
    pytest.fail(f"{what} did not come")


def _stopped(processes: dict[str, subprocess.Popen[bytes]]) -> dict[str, int | None]:
    """What they end with when they are told to; None for one that has to be killed."""
    for process in processes.values():
        process.send_signal(signal.SIGTERM)
    ended: dict[str, int | None] = {}
    for name, process in processes.items():
        try:
            ended[name] = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            ended[name] = None
    return ended


def test_the_parts_come_up_see_each_other_and_stop(tmp_path: Path, postgres_url: str) -> None:
    services = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    plain_url = postgres_url.replace("postgresql+psycopg://", "postgresql://", 1)
    ports = {"service": _free_port(), "webserver": _free_port()}
    (tmp_path / "dagster").mkdir()
    shutil.copyfile(REPOSITORY / "deploy" / "dagster.yaml", tmp_path / "dagster" / "dagster.yaml")

    def environment(name: str) -> dict[str, str]:
        said = {key: str(value) for key, value in services[name]["environment"].items()}
        assert set(said) == {"L2_DATA_DIR", "L2_DATABASE_URL", "DAGSTER_DATABASE_URL", "PGPASSWORD"}
        assert said["L2_DATABASE_URL"].startswith("postgresql+psycopg://")
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DAGSTER_HOME": str(tmp_path / "dagster"),
            "L2_DATA_DIR": str(tmp_path / "data"),
            "L2_DATABASE_URL": postgres_url,
            "L2_DB_SCHEMA": "compose",
            "DAGSTER_DATABASE_URL": plain_url,
            "L2_SCAN_EVERY": "0 0 1 1 *",
        }

    def command(name: str) -> list[str]:
        words = [word.replace("0.0.0.0", "127.0.0.1") for word in services[name]["command"]]
        if name == "webserver":
            words[words.index("3000")] = str(ports[name])
        return [*words, "--port", str(ports[name])] if name == "service" else words

    subprocess.run(command("upgrade"), env=environment("upgrade"), cwd=REPOSITORY, check=True)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in ("service", "webserver", "daemon"):
            # Started in the background, a process may have been told to ignore what ends it.
            words = ["env", "--default-signal=INT,TERM", *command(name)]
            processes[name] = subprocess.Popen(words, env=environment(name), cwd=REPOSITORY)
        url, graphql = (
            f"http://127.0.0.1:{ports['service']}",
            f"http://127.0.0.1:{ports['webserver']}/graphql",
        )

        def ask(query: str) -> Any:
            return httpx.post(graphql, json={"query": query}, timeout=30).json()["data"]

        _wait_for(lambda: httpx.get(f"{url}/healthz", timeout=30).is_success, processes, "the service")
        nodes = _wait_for(lambda: ask(_LOADED)["repositoriesOrError"]["nodes"], processes, "the webserver")
        assert {sensor["name"] for sensor in nodes[0]["sensors"]} >= {"ready_events", "alerts"}

        def healthy() -> bool:
            daemons = ask(_DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
            return all(one["healthy"] for one in daemons if one["required"])

        _wait_for(healthy, processes, "the daemon's heartbeat")
        engine = sa.create_engine(postgres_url)
        with engine.connect() as connection:

            def ticks() -> int:
                connection.rollback()
                return int(connection.execute(sa.text("select count(*) from job_ticks")).scalar_one())

            _wait_for(ticks, processes, "a tick of a sensor in PostgreSQL")
        engine.dispose()
        assert not list((tmp_path / "dagster").rglob("*.db")), "Dagster keeps records beside PostgreSQL"
    finally:
        ended = _stopped(processes)
    assert None not in ended.values(), ended
