"""Shell scripts and container files: what a linter finds, and what needs no container engine."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[1]
ENTRYPOINT = ROOT / "docker" / "entrypoint"
SCRIPTS = [
    *(path for path in (ROOT / "launch").iterdir() if path.suffix != ".yaml"),
    ENTRYPOINT,
    ROOT / ".ci" / "run",
]
COMPOSE = yaml.safe_load((ROOT / "docker" / "docker-compose.yml").read_text())
GPU_COMPOSE = yaml.safe_load((ROOT / "docker" / "docker-compose.gpu.yml").read_text())
DOCKERFILES = {
    name: (ROOT / "docker" / name).read_text() for name in ("Dockerfile", "Dockerfile.gpu")
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    assert script.stat().st_mode & 0o111
    checker = Path(sys.executable).parent / "shellcheck"
    found = subprocess.run([checker, script], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def entrypoint(
    *words: str, first: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the container's program here; it finds other programs in the folder ``first`` first."""
    path = [*([first] if first else []), Path(sys.executable).parent, "/usr/bin", "/bin"]
    return subprocess.run(
        ["bash", ENTRYPOINT, *words],
        env={"PATH": ":".join(map(str, path)), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ranks", "x"], "--ranks: expected a number above 0, got 'x'"),
        (["--ranks=0"], "--ranks: expected a number above 0, got '0'"),
        (["--max=2", "--ranks=3"], "--ranks: expected a number from --min 1 to --max 2, got 3"),
        (["--min"], "--min: needs a value"),
    ],
)
def test_elastic_refuses_in_one_line(words, said):
    elastic = ROOT / "launch" / "elastic"
    refused = subprocess.run([elastic, *words], capture_output=True, text=True, check=False)
    assert refused.stderr == f"launch/elastic: error: {said}\n"
    assert refused.returncode == 2


def discover(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "launch" / "discover-hosts"],
        env={"PATH": "/usr/bin:/bin", "TAL1_HVD_HOSTS": str(file)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_hosts_of_an_elastic_job(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("# two\n\n  node-1.cluster:4  # comment\r\nlocalhost\n10.0.0.2:2")
    found = discover(hosts)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == "node-1.cluster:4\nlocalhost:1\n10.0.0.2:2\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:1\nb;id>x;:1\n", ":2: expected NAME:RANKS, got 'b;id>x;:1'"),
        ("a slots=2\n", ":1: expected NAME:RANKS, got 'a slots=2'"),
        ("a:x\n", ":1: expected NAME:RANKS, got 'a:x'"),
        ("a:0\n", ":1: expected NAME:RANKS, got 'a:0'"),
        ("-oProxyCommand=id:1\n", ":1: expected NAME:RANKS, got '-oProxyCommand=id:1'"),
        ("a\x1b[31m\n", ":1: expected NAME:RANKS, got 'a?[31m'"),
        ("a:2\nb\na\n", ":3: 'a' was there before; give its ranks in one line, as a:2"),
        ("# none\n", ": names no host"),
        ("", ": names no host"),
        (None, ": cannot be read"),
    ],
)
def test_files_that_name_no_hosts(tmp_path, text, said):
    """By its exit code horovodrun goes on with the hosts that it has."""
    if text is not None:
        (tmp_path / "hosts").write_text(text)
    refused = discover(tmp_path / "hosts")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr == f"discover-hosts: error: {tmp_path}/hosts{said}\n"


class TestEntrypoint:
    def test_explains_itself(self):
        shown = entrypoint()
        assert shown.returncode == 0
        assert shown.stderr == ""
        assert "mount a folder for results at /runs" in shown.stdout.lower()
        assert "usage: tal1-hvd COMMAND" in shown.stdout

    def test_commands_of_the_package_and_others(self):
        assert entrypoint("status", "--help").stdout.startswith("usage: tal1-hvd status")
        assert entrypoint("--version").stdout.startswith("tal1-hvd ")
        assert entrypoint("echo", "hello").stdout == "hello\n"
        assert entrypoint("healthy").returncode == 0

    def test_workers_for_an_elastic_job(self, tmp_path):
        """One that does not listen yet is left out."""
        here = {"TAL1_HVD_WORKERS": "localhost", "TMPDIR": str(tmp_path)}
        try:
            socket.create_server(("127.0.0.1", 2222)).close()
        except OSError:
            pytest.skip("port 2222 of this machine is taken")
        none = entrypoint("discover", "2", **here)
        assert (none.returncode, none.stdout) == (2, "")
        assert "no worker by the name localhost listens" in none.stderr
        with socket.create_server(("127.0.0.1", 2222)):
            found = entrypoint("discover", "2", **here)
        assert found.stdout == "127.0.0.1:2\n"
        # It may be too busy to answer at once, later.
        assert entrypoint("discover", "2", **here).stdout == "127.0.0.1:2\n"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["nonsense"], "no command 'nonsense': neither of tal1-hvd nor in the image"),
            (["launcher"], "no SSH key in /home/tal1/.ssh"),
            (["launcher", "--slots", "x"], "--slots: expected a number above 0, got 'x'"),
            (["worker"], "/home/tal1/.ssh cannot be written"),
        ],
    )
    def test_bad_input_is_one_line(self, words, said):
        refused = entrypoint(*words)
        assert refused.returncode == 2
        assert refused.stdout == ""
        assert refused.stderr.startswith("tal1-hvd container: error: ")
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1


class TestGpuImage:
    """Where there is a GPU and where there is none: ``nvidia-smi`` is a stand-in."""

    @staticmethod
    def run(folder: Path, smi: str, *words: str) -> subprocess.CompletedProcess[str]:
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{smi}\n")
        program.chmod(0o755)
        return entrypoint(*words, first=folder, TAL1_HVD_NEEDS_GPU="1")

    @pytest.mark.parametrize("command", ["train", "compare", "benchmark", "worker"])
    def test_refuses_to_train_without_a_gpu(self, tmp_path, command):
        """In one line, though the driver's own words may have two."""
        refused = self.run(tmp_path, "echo 'no devices'; echo 'found'; exit 9", command)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith(
            f"tal1-hvd container: error: '{command}' wants an NVIDIA GPU and its driver, "
            "and this container sees none (nvidia-smi: no devices found ); "
        )
        assert "--gpus all" in refused.stderr
        assert refused.stderr.count("\n") == 1

    def test_a_driver_that_is_not_there_is_named(self):
        refused = entrypoint("train", TAL1_HVD_NEEDS_GPU="1")
        if Path("/usr/bin/nvidia-smi").exists():
            pytest.skip("this machine has a driver")
        assert refused.returncode == 2
        assert "(nvidia-smi is not there)" in refused.stderr

    def test_trains_with_a_gpu(self, tmp_path):
        """To get as far as the command's own error is enough."""
        shown = self.run(
            tmp_path, "echo 'GPU 0: NVIDIA H100 (UUID: GPU-0)'", "train", "--epochs", "x"
        )
        assert shown.returncode == 2
        assert "tal1-hvd: error: " in shown.stderr

    @pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
    def test_trains_on_its_cpu_if_asked(self, hidden):
        environment = {"TAL1_HVD_NEEDS_GPU": "1", "CUDA_VISIBLE_DEVICES": hidden}
        shown = entrypoint("train", "--epochs", "x", **environment)
        assert "tal1-hvd: error: " in shown.stderr

    @pytest.mark.parametrize(
        "words", [[], ["--version"], ["status", "--help"], ["train", "--help"], ["healthy"]]
    )
    def test_the_rest_needs_no_gpu(self, tmp_path, words):
        assert self.run(tmp_path, "exit 9", *words).returncode == 0

    def test_says_that_it_needs_one(self):
        assert "TAL1_HVD_GPU=1 " in DOCKERFILES["Dockerfile.gpu"]
        assert re.search(
            r"^ENV .*TAL1_HVD_NEEDS_GPU=1$", DOCKERFILES["Dockerfile.gpu"], re.MULTILINE
        )
        assert "GPU" not in DOCKERFILES["Dockerfile"]

    def test_each_worker_reserves_a_gpu(self):
        assert set(GPU_COMPOSE["services"]) == set(COMPOSE["services"])
        for service in GPU_COMPOSE["services"].values():
            assert service["build"]["dockerfile"] == "docker/Dockerfile.gpu"
        (device,) = GPU_COMPOSE["services"]["worker"]["deploy"]["resources"]["reservations"][
            "devices"
        ]
        assert device == {
            "driver": "nvidia",
            "count": "${TAL1_HVD_GPUS:-1}",
            "capabilities": ["gpu"],
        }
        assert "deploy" not in GPU_COMPOSE["services"]["launcher"]


class TestKubernetes:
    CLAIM, JOB = yaml.safe_load_all((ROOT / "launch" / "kubernetes.yaml").read_text())

    def test_fits_the_operators_schema(self):
        schema = json.loads((ROOT / "tests" / "schemas" / "mpijob-v2beta1.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(self.JOB, schema)
        for name, value in (("slotsPerWorkers", 2), ("slotsPerWorker", "2")):
            wrong = {**self.JOB, "spec": {**self.JOB["spec"], name: value}}
            with pytest.raises(jsonschema.ValidationError, match=re.escape(repr(value))):
                jsonschema.validate(wrong, schema)

    def test_runs_what_the_image_has(self):
        spec = self.JOB["spec"]
        assert spec["sshAuthMountPath"] == "/home/tal1/.ssh"
        worker = spec["mpiReplicaSpecs"]["Worker"]["template"]["spec"]
        (volume,) = worker["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == self.CLAIM["metadata"]["name"]
        for kind, role in spec["mpiReplicaSpecs"].items():
            (container,) = role["template"]["spec"]["containers"]
            assert container["args"][0] == kind.lower()
            assert re.search(rf"^    {kind.lower()}[ )]", ENTRYPOINT.read_text(), re.MULTILINE)


class TestSafety:
    @pytest.mark.parametrize("dockerfile", DOCKERFILES.values(), ids=DOCKERFILES)
    def test_image_runs_as_a_normal_user(self, dockerfile):
        last_stage = dockerfile.rpartition("\nFROM ")[2]
        assert "\nUSER tal1\n" in last_stage
        assert "g++" not in last_stage

    def test_services(self):
        """Nothing is published or privileged, with GPUs neither; keys come from a volume."""
        unsafe = {"ports", "privileged", "cap_add", "network_mode"}
        for service in GPU_COMPOSE["services"].values():
            assert not {*unsafe, "networks", "cap_drop", "security_opt", "volumes"} & set(service)
        assert COMPOSE["networks"]["ranks"]["internal"] is True
        for service in COMPOSE["services"].values():
            assert not unsafe & set(service)
            assert service["cap_drop"] == ["ALL"]
            assert service["networks"] == ["ranks"]
            assert any(volume.startswith("keys:") for volume in service["volumes"])

    def test_names_of_containers_have_no_underscore(self):
        """Open MPI 4.1 crashes on host names with one."""
        assert not [name for name in COMPOSE["services"] if "_" in name]
