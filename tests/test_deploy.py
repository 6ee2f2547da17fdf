"""What containers run with says the same as what a clone runs with."""

from __future__ import annotations

from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent


def test_dagster_is_set_the_same_in_a_container_but_for_its_storage() -> None:
    here, there = (
        yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))
        for name in ("dagster.yaml", "deploy/dagster.yaml")
    )
    assert there.pop("storage") == {"postgres": {"postgres_url": {"env": "DAGSTER_DATABASE_URL"}}}
    assert there == here


def test_containers_are_reached_from_this_machine_only() -> None:
    services = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)
