"""The files in cluster/ are what Ray, KubeRay, Slurm and Docker accept, as far as can be said."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LAUNCHERS = ["aws.yaml", "gcp.yaml"]
MANIFESTS = ["raycluster.yaml", "rayjob.yaml"]


def load(name):
    return yaml.safe_load((CLUSTER / name).read_text())


def cluster_spec(name):
    spec = load(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def text_of_all():
    return {
        path.name: path.read_text()
        for path in CLUSTER.iterdir()
        if path.is_file() and path.name != "smoke.py"
    }


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_pass_rays_validator(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(load(name))
    validate_config(config)
    assert "available_node_types" in config


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_pay_for_little_and_open_nothing(name):
    config = load(name)
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    (workers,) = (types[key] for key in types if key != config["head_node_type"])
    assert workers["min_workers"] == 0 and workers["resources"]["GPU"] >= 1
    node = workers["node_config"]
    spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    assert spot or {"preemptible": True} in node["scheduling"]
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert any(path.endswith(".ray/auth_token") for path in config["file_mounts"])
    (start,) = (line for line in config["head_start_ray_commands"] if "--head" in line)
    assert "--dashboard-host=127.0.0.1" in start


def test_launchers_differ_in_the_cloud_alone():
    aws, gcp = map(load, LAUNCHERS)
    of_the_cloud = {"provider", "auth", "available_node_types"}
    assert {k: v for k, v in aws.items() if k not in of_the_cloud} == {
        k: v for k, v in gcp.items() if k not in of_the_cloud
    }


# What the v1 definitions of KubeRay require, and all that they know at the same place.
REQUIRED = {
    "cluster": {"headGroupSpec"},
    "head": {"template"},
    "worker": {"groupName", "maxReplicas", "minReplicas", "template"},
}
KNOWN = {
    "job": "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint "
    "entrypointNumCpus entrypointNumGpus entrypointResources jobId managedBy metadata "
    "preRunningDeadlineSeconds rayClusterSpec runtimeEnvYAML shutdownAfterJobFinishes "
    "submissionMode submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished",
    "cluster": "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions "
    "headGroupSpec headServiceAnnotations managedBy networkPolicy rayVersion suspend "
    "upgradeStrategy workerGroupSpecs",
    "head": "enableIngress headService labels rayStartParams resources serviceType template",
    "worker": "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts "
    "rayStartParams replicas resources scaleStrategy suspend template",
    "autoscaler": "env envFrom idleTimeoutSeconds image imagePullPolicy resources "
    "securityContext upscalingMode version volumeMounts",
}


def check(kind, part):
    assert REQUIRED.get(kind, set()) <= set(part), kind
    assert set(part) <= set(KNOWN[kind].split()), kind


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_have_the_fields_of_ray_io_v1(name):
    manifest = load(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"] == {"raycluster.yaml": "RayCluster", "rayjob.yaml": "RayJob"}[name]
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,46}", manifest["metadata"]["name"])
    if manifest["kind"] == "RayJob":
        check("job", manifest["spec"])
    spec = cluster_spec(name)
    check("cluster", spec)
    check("head", spec["headGroupSpec"])
    check("autoscaler", spec["autoscalerOptions"])
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {"name", "image", "resources"} <= set(container)
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    for group in spec["workerGroupSpecs"]:
        check("worker", group)
        assert group["minReplicas"] == 0 < group["maxReplicas"]
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_open_nothing(name):
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_both_manifests_describe_one_cluster():
    assert cluster_spec("raycluster.yaml") == cluster_spec("rayjob.yaml")


def test_the_job_ends_and_its_command_is_a_shell_line():
    spec = load("rayjob.yaml")["spec"]
    assert spec["shutdownAfterJobFinishes"] and spec["activeDeadlineSeconds"] > 0
    assert subprocess.run(["bash", "-n", "-c", spec["entrypoint"]]).returncode == 0
    assert "evometa resume" in spec["entrypoint"] and "evometa search" in spec["entrypoint"]


def test_versions_are_those_of_the_package():
    requirements = {Requirement(line).name: Requirement(line) for line in PROJECT["dependencies"]}
    rays, pythons, images = set(), set(), set()
    for text in text_of_all().values():
        rays |= set(re.findall(r"rayproject/ray:([\d.]+)-", text))
        rays |= set(re.findall(r"rayVersion: \"([\d.]+)\"|ray\[default\]==([\d.]+)", text)) - {()}
        pythons |= set(re.findall(r"rayproject/ray:[\d.]+-py(\d+)", text))
        images |= set(re.findall(r"registry.example.com/evometa:([\d.]+\d)", text))
    rays = {"".join(found) for found in rays}
    (ray,), (python,), (image,) = rays, pythons, images  # one of each, in all files
    assert Version(ray) in requirements["ray"].specifier
    assert Version(f"{python[0]}.{python[1:]}") in SpecifierSet(PROJECT["requires-python"])
    assert image == PROJECT["version"]


INSTRUCTIONS = "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM LABEL RUN SHELL USER VOLUME WORKDIR"


def test_the_dockerfile_parses_and_copies_what_is_there():
    text = re.sub(r"^\s*#.*\n", "", (CLUSTER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line.split(None, 1) for line in text.replace("\\\n", " ").splitlines() if line]
    assert lines[0][0] == "FROM"
    assert {line[0] for line in lines} <= set(INSTRUCTIONS.split())
    assert all(len(line) == 2 and line[1].strip() for line in lines)
    assert subprocess.run(["bash", "-n", "-c", dict(lines)["RUN"]]).returncode == 0
    for name, rest in lines:
        if name == "ENV":
            assert all(re.fullmatch(r"\w+=\S+", word) for word in rest.split())
        if name == "COPY":
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ".git" in ignored and "evometa" not in ignored


@pytest.fixture
def slurm(tmp_path):
    """Run slurm.sh with stand-ins for Slurm; return what it would have started."""

    def start(*arguments, **environment):
        tools = tmp_path / "bin"
        tools.mkdir(exist_ok=True)
        (tools / "srun").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
        (tools / "scontrol").write_text("#!/bin/bash\necho node-1\necho node-2\n")
        (tools / "python").write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
        for tool in tools.iterdir():
            tool.chmod(0o755)
        (tmp_path / ".venv/bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / ".venv/bin/activate").touch()
        return subprocess.run(
            ["bash", str(CLUSTER / "slurm.sh"), *arguments],
            cwd=tmp_path,
            env={
                "PATH": f"{tools}:{os.environ['PATH']}",
                "SLURM_JOB_ID": "123",
                "SLURM_JOB_NODELIST": "node-[1-2]",
                "SLURM_NNODES": "2",
                "SLURM_CPUS_PER_TASK": "32",
                **environment,
            },
            capture_output=True,
            text=True,
        )

    return start


def test_the_slurm_script_is_bash():
    assert subprocess.run(["bash", "-n", str(CLUSTER / "slurm.sh")]).returncode == 0
    assert os.access(CLUSTER / "slurm.sh", os.X_OK)


def test_the_slurm_script_searches_and_then_resumes(slurm, tmp_path):
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    result = slurm("study.py", "runs/a", "--pack", "4", SLURM_GPUS_ON_NODE="4")
    assert result.returncode == 0, result.stderr
    command = result.stdout.split("\n")[:-1]
    assert command[:2] == ["ray", "symmetric-run"]
    ours, entry = command[2 : command.index("--")], command[command.index("--") + 1 :]
    assert curate_and_validate_ray_start_args([*ours]) == [
        *("--num-cpus", "32", "--num-gpus", "4"),
        *("--temp-dir", "/tmp/ray-123", "--dashboard-host", "127.0.0.1"),
    ]
    address = ours[ours.index("--address") + 1]
    assert address == "node-1:20123"
    assert entry == [
        *("evometa", "search", "study.py", "--run", "runs/a", "--pack", "4"),
        *("--address", address),
    ]
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/study.json").touch()
    again = slurm("study.py", "runs/a", "--pack", "4").stdout.split("\n")
    assert again[again.index("--") + 1 :][:3] == ["evometa", "resume", "runs/a"]


def test_the_slurm_script_says_what_it_needs(slurm):
    result = slurm()
    assert result.returncode != 0 and "the study file" in result.stderr


def test_the_readme_tells_of_every_file():
    readme = (CLUSTER / "README.md").read_text()
    for path in CLUSTER.iterdir():
        if path.is_file() and path.name != "README.md":
            assert path.name in readme, path


def test_no_secret_and_no_public_listener():
    for name, text in text_of_all().items():
        assert "0.0.0.0" not in text, name
        assert not re.search(r"RAY_AUTH_TOKEN[=:] ?[\"']?[0-9a-f]{16}", text), name
        assert not re.search(r"AKIA[0-9A-Z]{16}", text), name


@pytest.fixture(scope="module")
def smoke():
    spec = importlib.util.spec_from_file_location("smoke", CLUSTER / "smoke.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_smoke_writes_reads_and_leaves_nothing(smoke, tmp_path):
    smoke.exercise(str(tmp_path / "runs"), "smoke-1")
    assert list((tmp_path / "runs").iterdir()) == []
    (tmp_path / "file").touch()  # in the way of a folder
    with pytest.raises(OSError):
        smoke.exercise(str(tmp_path / "file"), "smoke-1")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_smoke_looks_at_every_node(tmp_path):
    command = [sys.executable, str(CLUSTER / "smoke.py"), "--address", "local"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [*command, "--storage", str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert "1 nodes, 0 faults" in result.stdout and "torch sees" in result.stdout
    assert "written and read" in result.stdout
