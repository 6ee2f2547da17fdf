"""A real Slurm on this host: munged, slurmctld and slurmd of Debian's packages, without systemd and cgroups.

All its files are in one temporary folder, and all that was started is stopped. It has to be run as root.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

MAX_ARRAY_SIZE = 8
_START_S = 30
_CONFIG = """
ClusterName=l2
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
MpiDefault=none
MaxArraySize={max_array_size}
KillWait=10
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=node1 NodeAddr=127.0.0.1 NodeHostname={host} CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""


class SlurmCluster:
    """A Slurm of one node with four pretended processors, for the time of a ``with`` block."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def ask(self, *command: str) -> str:
        """What one of Slurm's own commands says."""
        return subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, check=True
        ).stdout

    def _start(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="l2-slurm-"))
        self._open.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        for name in ("state", "spool", "munge"):
            (folder / name).mkdir(mode=0o755)
        self._start_munge(folder / "munge")
        config = folder / "slurm.conf"
        host = socket.gethostname().partition(".")[0]
        text = _CONFIG.format(host=host, ports=_free_ports(2), folder=folder, max_array_size=MAX_ARRAY_SIZE)
        config.write_text(text)
        self.environment = {"SLURM_CONF": str(config)}
        self._run(["slurmctld", "-D", "-i", "-f", str(config)], folder / "slurmctld.out")
        self._run(["slurmd", "-D", "-f", str(config), "-N", "node1"], folder / "slurmd.out")
        self._open.callback(self._end_jobs)
        _wait(lambda: self.ask("sinfo", "-h", "-o", "%T").strip() == "idle", folder)

    def _start_munge(self, folder: Path) -> None:
        key = folder / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        for path in (folder, key):
            shutil.chown(path, "munge", "munge")
        places = {
            "key-file": "key",
            "socket": "socket",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        options = [f"--{name}={folder / place}" for name, place in places.items()]
        self._run(
            ["runuser", "-u", "munge", "--", "munged", "--foreground", *options], folder.parent / "munged.out"
        )
        _wait((folder / "socket").exists, folder.parent)

    def _run(self, command: list[str], out: Path) -> None:
        with out.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | self.environment)
        self._open.callback(_end, process)

    def _end_jobs(self) -> None:
        """No task may outlive the cluster."""
        subprocess.run(["scancel", "--signal=KILL", "--me"], env=os.environ | self.environment, check=False)
        with suppress(TimeoutError):
            _wait(lambda: not self.ask("squeue", "-h").strip(), None)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _wait(is_so: object, folder: Path | None) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        try:
            if callable(is_so) and is_so():
                return
        except (OSError, subprocess.SubprocessError):
            pass
        time.sleep(0.1)
    said = "".join(path.read_text()[-1500:] for path in sorted(folder.glob("*.*"))) if folder else ""
    raise TimeoutError(f"Slurm did not come up: {said}")
