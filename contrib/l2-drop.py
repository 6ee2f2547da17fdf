#!/usr/bin/env python3
"""Say from the machine that inverts that products are ready: a JSON file, renamed into the inbox.

Needs nothing but Python 3.8 and a folder that both machines see. It says the SHA-256 of each file where it
sees the products, and prints the event id; said again with the same --event-id, it is known as the same.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import sys
import uuid
from datetime import datetime, timezone


def checksums(folder: pathlib.Path) -> dict:
    """SHA-256 of each FITS file in a folder, by its name."""
    found = {}
    for path in sorted(folder.glob("*.fits")):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for block in iter(lambda file=file: file.read(1 << 20), b""):
                digest.update(block)
        found[path.name] = digest.hexdigest()
    return found


def main() -> int:
    """Write one event into the inbox."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("op", help="the observing program")
    parser.add_argument("--inbox", required=True, help="the folder data/inbox of dagster_l2, as seen here")
    parser.add_argument("--products", required=True, help="folder or address, as dagster_l2 sees it")
    parser.add_argument("--here", help="the same folder as seen here, for the checksums; else --products")
    parser.add_argument("--commit", required=True, help="commit of the inversion software")
    parser.add_argument("--inversion", help="inv.XXXXXX; else the present one of the OP")
    parser.add_argument("--datasets", help="ID,ID: the datasets that were inverted; else all of the package")
    parser.add_argument("--as", dest="actor", help="who claimed it; else the user")
    parser.add_argument("--event-id", help="else drawn")
    parser.add_argument("--inputs-changed-ok", action="store_true", help="although the inputs have changed")
    given = parser.parse_args()
    if not re.fullmatch("[0-9a-fA-F]{7,64}", given.commit):
        parser.error("--commit takes a hash of 7 to 64 hexadecimal digits")
    inbox = pathlib.Path(given.inbox)
    if not inbox.is_dir():
        parser.error(f"the inbox {inbox} is not there")
    sums = checksums(pathlib.Path(given.here or given.products))
    if given.here and not sums:
        parser.error(f"there is no FITS file in {given.here}")
    event_id = given.event_id or str(uuid.uuid4())
    event = {
        "event_id": event_id,
        "op_id": given.op,
        "products": given.products,
        "commit": given.commit,
        "actor": given.actor or os.environ.get("USER") or os.environ.get("LOGNAME") or "unknown",
        "inversion_id": given.inversion,
        "dataset_ids": given.datasets.split(",") if given.datasets else None,
        "inputs_changed_ok": given.inputs_changed_ok,
        "checksums": sums or None,
        "sent_at": datetime.now(timezone.utc).isoformat(),  # noqa: UP017 - Python 3.8
    }
    name = re.sub("[^A-Za-z0-9_-]", "_", event_id)[:100] + ".json"
    # Hidden until it is whole: a reader never sees half a file.
    temporary = inbox / f".{name}.{os.getpid()}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(event, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(inbox / name)
    print(event_id)
    return 0


if __name__ == "__main__":
    sys.exit(main())
