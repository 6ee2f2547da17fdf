#!/usr/bin/env python3
"""Work with dagster_l2 from the cluster: list the queue, claim, release, say that products are ready.

Needs nothing but Python 3.8 and the address of the service. The token is read from L2_TOKEN, or from the file
that L2_TOKEN_FILE names (by default ~/.l2-token). An order whose answer did not come is sent again with the
same key, also by a later call: what it is about is kept in L2_STATE (by default ~/.l2-ready) until it is
answered, so nothing is ordered twice.
"""

import argparse
import hashlib
import http.client
import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

TRIES = 8
PASSING = (429, 500, 502, 503, 504)


class Refused(Exception):
    """The service said no, in one sentence."""


class Service:
    """The service over HTTP."""

    def __init__(self, url, token, timeout_s=60.0):
        if not url.startswith(("http://", "https://")):
            raise Refused(f"{url} is no address of a service; write it like https://l2.example")
        self.url, self.token, self.timeout_s = url.rstrip("/"), token, timeout_s

    def ask(self, method, path, body=None, key=None):
        """The answer to one request; tried again as long as it may well be answered later."""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(min(0.25 * 2**attempt, 30.0))
            try:
                try:
                    return self._send(method, path, body, key)
                except urllib.error.HTTPError as error:
                    with error:
                        said = error.read()  # may be cut off as well
                    if error.code in PASSING and attempt + 1 < TRIES:
                        continue
                    raise Refused(sentence(said) or f"HTTP {error.code}") from None
            except (OSError, ValueError, http.client.HTTPException) as error:
                # Not answered, or cut off: it may have been done, and the key makes it once.
                reason = str(getattr(error, "reason", error)) or type(error).__name__
                if not attempt:
                    print(f"No answer from {self.url} ({reason}); trying for a minute.", file=sys.stderr)
        raise Refused(f"the service does not answer at {self.url} ({reason}); run the same again")

    def _send(self, method, path, body, key):
        headers = {"Authorization": "Bearer " + self.token, "Accept": "application/json"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
            text, wanted = answer.read(), answer.headers.get("Content-Length")
            if wanted is not None and len(text) != int(wanted):
                raise ValueError("the answer was cut off")
            return json.loads(text)


def sentence(said):
    """The sentence of a refusal."""
    try:
        return str(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError):
        return ""


class Orders:
    """Orders that were sent and not answered yet, each with its key, in a folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder).expanduser()

    def give(self, service, op, order, body=None):
        """Send an order once, however often this is called until its answer has come."""
        what = json.dumps([service.url, op, order, body], sort_keys=True)
        path = self.folder / (hashlib.sha256(what.encode()).hexdigest()[:32] + ".json")
        try:
            key = json.loads(path.read_text(encoding="utf-8"))["key"]
        except (OSError, ValueError, KeyError):
            key = str(uuid.uuid4())
            self._keep(path, {"key": key, "order": [op, order, body]})
        answered = "/observing-programs/{}/{}".format(urllib.parse.quote(op, safe=""), order)
        try:
            answer = service.ask("POST", answered, body, key)
        except Refused as refused:
            if "does not answer" not in str(refused):
                path.unlink()
            raise
        path.unlink()
        return answer

    def _keep(self, path, content):
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)


def checksums(folder):
    """SHA-256 of each FITS file in a folder, by its name."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.fits")):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for block in iter(lambda file=file: file.read(1 << 20), b""):
                digest.update(block)
        found[path.name] = digest.hexdigest()
    if not found:
        raise Refused(f"there is no FITS file in {folder}")
    return found


def token():
    """The personal token, which is never an argument: those are seen by everybody on the machine."""
    said = os.environ.get("L2_TOKEN")
    if said:
        return said.strip()
    path = pathlib.Path(os.environ.get("L2_TOKEN_FILE", "~/.l2-token")).expanduser()
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Refused(
            f"there is no token in L2_TOKEN nor in {path} ({error.strerror}); `l2 token add` gives one out"
        ) from None


def parsed(arguments):
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--url", default=os.environ.get("L2_URL", "http://127.0.0.1:8770"), help="of the service; L2_URL"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    queue = commands.add_parser("queue", help="who does what next, best first")
    queue.add_argument("--for", dest="whom", help="only what waits for this person or role")
    queue.add_argument("--state", help="only OPs in this state")
    queue.add_argument("--limit", type=int, default=20)
    for name, text in (("claim", "take an OP; prints its inversion id"), ("release", "give it back")):
        commands.add_parser(name, help=text).add_argument("op")
    show = commands.add_parser("show", help="everything about an OP, as JSON")
    show.add_argument("op")
    ready = commands.add_parser("ready", help="say that products are ready; prints the event id")
    ready.add_argument("op")
    ready.add_argument("--products", required=True, help="folder or address, as dagster_l2 sees it")
    ready.add_argument("--here", help="the same folder as seen here, for the checksums; else --products")
    ready.add_argument("--commit", required=True, help="of the inversion software")
    ready.add_argument("--inversion", help="inv.XXXXXX; else the present one of the OP")
    ready.add_argument("--datasets", help="ID,ID: what was inverted; else all of the package")
    ready.add_argument("--inputs-changed-ok", action="store_true")
    return parser.parse_args(arguments)


def run(given):
    """Do one command; what it prints."""
    service, orders = Service(given.url, token()), Orders(os.environ.get("L2_STATE", "~/.l2-ready"))
    if given.command == "queue":
        asked = {"for": given.whom, "state": given.state, "limit": given.limit}
        query = urllib.parse.urlencode({name: value for name, value in asked.items() if value is not None})
        rows = service.ask("GET", "/queue?" + query)["items"]
        names = ("rank", "op_id", "state", "responsible", "days_in_state", "reason")
        return "\n".join("\t".join(str(row[name]) for name in names) for row in rows)
    if given.command == "show":
        path = "/observing-programs/" + urllib.parse.quote(given.op, safe="")
        return json.dumps(service.ask("GET", path), indent=2)
    if given.command == "claim":
        return orders.give(service, given.op, "claim")["inversion_id"]
    if given.command == "release":
        return orders.give(service, given.op, "release")["state"]
    body = {
        "products": given.products,
        "commit": given.commit,
        "inversion_id": given.inversion,
        "datasets": given.datasets.split(",") if given.datasets else None,
        "inputs_changed_ok": given.inputs_changed_ok,
        "checksums": checksums(given.here or given.products),
    }
    return orders.give(service, given.op, "ready", body)["event_id"]


def main(arguments=None):
    """Run; 0 well, 1 refused or not answered."""
    try:
        print(run(parsed(arguments)))
        sys.stdout.flush()
    except Refused as refused:
        print(f"Error: {refused}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Who reads has seen enough; what is left must not be written at the end, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("Interrupted; run the same again, an order is given once.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
