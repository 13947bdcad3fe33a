"""Two hosts, as network namespaces of this one with a cable between them, which is cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.yolo.conftest import ARCHITECTURE, IMGSZ
from tests.yolo.test_faults import charged

TIMEOUT = 20  # seconds: team_timeout


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Hosts:
    """Two hosts with an address each; a command runs on one of them."""

    def __init__(self) -> None:
        mark = uuid4().hex[:6]
        self.names = [f"discreet-{mark}-{number}" for number in range(2)]
        self.ends = [f"d{mark}{number}" for number in range(2)]
        self.addresses = ["10.213.7.1", "10.213.7.2"]

    def connect(self) -> None:
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        first, second = self.ends
        ip("link", "add", first, "netns", self.names[0], "type", "veth",
           "peer", "name", second, "netns", self.names[1])  # fmt: skip
        for name, end, address in zip(self.names, self.ends, self.addresses, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", end)
        self.set_cable("up")

    def set_cable(self, state: str) -> None:
        """Plug the cable in ("up") or pull it out ("down")."""
        for name, end in zip(self.names, self.ends, strict=True):
            ip("-n", name, "link", "set", end, state)

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def start(self, rank: int, *command: str, log: Path) -> subprocess.Popen[str]:
        """Run one of two processes on the host of its rank, as a cluster's launcher would."""
        place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        place |= {"MASTER_ADDR": self.addresses[0], "MASTER_PORT": 29400}
        place |= {"GLOO_SOCKET_IFNAME": self.ends[rank], "OMP_NUM_THREADS": 1}
        with log.open("w") as stream:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.names[rank], *command],
                env={**os.environ, **{name: str(value) for name, value in place.items()}},
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
            )


@pytest.fixture
def hosts() -> Generator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("needs `ip` of iproute2")
    made = Hosts()
    try:
        made.connect()
    except subprocess.CalledProcessError as error:
        made.remove()
        pytest.skip(f"network namespaces cannot be made here (needs root): {error.stderr.strip()}")
    yield made
    made.remove()


def train_on(hosts: Hosts, given: Mapping[str, Any], folder: Path) -> list[subprocess.Popen[str]]:
    words = [f"{name}={value}" for name, value in given.items()]
    command = (sys.executable, "-m", "discreet", "train", *words)
    return [hosts.start(rank, *command, log=folder / f"host{rank}.log") for rank in range(2)]


@pytest.mark.slow
def test_a_host_that_is_cut_off_in_mid_step_stops_both_and_the_run_goes_on(
    hosts: Hosts, scenes: Path, tmp_path: Path
):
    project, ledger = tmp_path / "runs", tmp_path / "ledger.sqlite"
    given = {
        "data": scenes, "model": ARCHITECTURE, "epsilon": 8, "batch": 8, "steps": 60,
        "imgsz": IMGSZ, "val": False, "project": project, "ledger": ledger, "device": "cpu",
        "team_timeout": TIMEOUT, "sign": False,
    }  # fmt: skip
    processes = train_on(hosts, given, tmp_path)
    limit = time.monotonic() + 400
    while not (ledger.exists() and charged(project, ledger)[1] > 3):
        assert time.monotonic() < limit, (tmp_path / "host0.log").read_text()
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    hosts.set_cable("down")
    began = time.monotonic()
    assert [process.wait(timeout=5 * TIMEOUT) for process in processes] == [2, 2]
    assert time.monotonic() - began < 3 * TIMEOUT
    told = [(tmp_path / f"host{rank}.log").read_text() for rank in range(2)]
    for text in told:
        assert text.count("another process of the run has ended or cannot be reached") == 1
        assert "Traceback" not in text
    run = next(project.glob("*/internal/run.json")).parent.parent
    assert f"resume={run}" in told[0]
    # A line of the journal follows the update that it tells of.
    visible = len((run / "internal" / "steps.csv").read_text().splitlines()) - 1
    assert 3 <= visible <= min(charged(project, ledger)) <= visible + 1
    hosts.set_cable("up")
    resumed = {"resume": run, "ledger": ledger, "team_timeout": 300}
    processes = train_on(hosts, resumed, tmp_path)
    assert [process.wait(timeout=500) for process in processes] == [0, 0]
    assert charged(project, ledger) == (60, 60)
    assert (run / "release" / "weights.pt").exists()
