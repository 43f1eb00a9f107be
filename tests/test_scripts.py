"""Shell scripts and container files: what a linter finds, and what needs no container engine."""

from __future__ import annotations

import json
import re
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
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    assert script.stat().st_mode & 0o111
    checker = Path(sys.executable).parent / "shellcheck"
    found = subprocess.run([checker, script], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def entrypoint(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the container's program here."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", ENTRYPOINT, *words],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


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

    def test_workers_for_an_elastic_job(self):
        found = entrypoint("discover", "2", TAL1_HVD_WORKERS="localhost")
        assert found.stdout == "127.0.0.1:2\n"

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
    def test_image_runs_as_a_normal_user(self):
        last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
        assert "\nUSER tal1\n" in last_stage
        assert "g++" not in last_stage

    def test_services(self):
        """Nothing is published or privileged; keys come from a volume."""
        assert COMPOSE["networks"]["ranks"]["internal"] is True
        for service in COMPOSE["services"].values():
            assert not {"ports", "privileged", "cap_add", "network_mode"} & set(service)
            assert service["cap_drop"] == ["ALL"]
            assert service["networks"] == ["ranks"]
            assert any(volume.startswith("keys:") for volume in service["volumes"])

    def test_names_of_containers_have_no_underscore(self):
        """Open MPI 4.1 crashes on host names with one."""
        assert not [name for name in COMPOSE["services"] if "_" in name]
