"""The launcher of MultiWorkerMirroredStrategy's workers on this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from tal1_hvd.distributed.workers import run_workers, worker_environments
from tests.jobs import living

LAUNCHER = [sys.executable, "-m", "tal1_hvd.distributed.workers"]
INDEX = "import json, os, sys; index = json.loads(os.environ['TF_CONFIG'])['task']['index']; "


def configurations(count):
    return [json.loads(given["TF_CONFIG"]) for given in worker_environments(count)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_worker_knows_all_and_itself(count):
    found = configurations(count)
    assert [config["task"] for config in found] == [
        {"type": "worker", "index": index} for index in range(count)
    ]
    addresses = found[0]["cluster"]["worker"]
    assert all(config["cluster"] == {"worker": addresses} for config in found)
    assert len(set(addresses)) == count
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def program(code):
    return [sys.executable, "-c", INDEX + code]


def test_workers_run(tmp_path):
    code = f"open(f'{tmp_path}/{{index}}', 'w').close()"
    assert run_workers(3, program(code)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137), ("raise ValueError", 1)],
)
def test_one_that_fails_ends_the_others(end, code):
    others = f"import time; {end} if index == 1 else time.sleep(600)"
    # The exit code is that of the one that failed first, not of those that were ended.
    assert run_workers(3, [sys.executable, "-c", f"{INDEX}{others}"]) == code


DEAF = "import signal; signal.signal(15, signal.SIG_IGN); import time; time.sleep(600)"


def test_one_that_does_not_listen_is_killed(monkeypatch):
    monkeypatch.setattr("tal1_hvd.distributed.workers._GRACE", 0.2)
    code = f"exec({DEAF!r}) if index else sys.exit(2)"
    assert run_workers(2, program(code)) == 2


def test_launcher_that_is_ended_kills_those_that_do_not_listen():
    code = f"os.write(1, b'x\\n'); {DEAF}"
    job = subprocess.Popen([*LAUNCHER, "1", *program(code)], stdout=subprocess.PIPE, text=True)
    job.stdout.readline()
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 128 + signal.SIGTERM
    # Nobody holds the other end any more.
    assert job.stdout.read() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_launcher(number):
    # In one call, for lines of two workers must not mix.
    code = "os.write(1, f'{os.getpid()}\\n'.encode()); import time; time.sleep(600)"
    job = subprocess.Popen([*LAUNCHER, "2", *program(code)], stdout=subprocess.PIPE, text=True)
    processes = [int(job.stdout.readline()) for _ in range(2)]
    job.send_signal(number)
    assert job.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    deadline = time.monotonic() + 60
    while living(processes):
        assert time.monotonic() < deadline, "workers outlive their launcher"
