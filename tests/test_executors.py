"""What is missing to start ranks on Ray or Spark."""

from __future__ import annotations

import sys

import pytest

from tal1_hvd.distributed import executors
from tal1_hvd.distributed.executors import find_executor
from tal1_hvd.errors import InputError


@pytest.fixture
def installed(monkeypatch):
    """Have everything installed."""
    monkeypatch.setattr(executors.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("JAVA_HOME", "java")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["ray", "spark"])
def test_command(name, tmp_path):
    assert find_executor(name, 3, tmp_path) == [
        sys.executable,
        "-m",
        "tal1_hvd.distributed.executors",
        name,
        "3",
        str(tmp_path),
    ]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "module", "way"),
    [
        ("ray", "horovod", "launch/setup builds it"),
        ("ray", "ray", "install it: pip install -c constraints.txt ray"),
        ("spark", "pyspark", "install it: pip install -c constraints.txt pyspark pyarrow"),
        ("spark", "pyarrow", "install it: pip install -c constraints.txt pyspark pyarrow"),
    ],
)
def test_not_installed(name, module, way, tmp_path, monkeypatch):
    monkeypatch.setattr(
        executors.importlib.util, "find_spec", lambda name: None if name == module else name
    )
    with pytest.raises(InputError) as caught:
        find_executor(name, 2, tmp_path)
    assert str(caught.value) == f"--launcher: {name} needs {module}; {way}"


@pytest.mark.usefixtures("installed")
def test_no_java(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="--launcher: spark needs Java; install it"):
        find_executor("spark", 2, tmp_path)
    find_executor("ray", 2, tmp_path)
