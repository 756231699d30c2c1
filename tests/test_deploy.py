"""Container, Kubernetes, Slurm and SkyPilot: their files are valid, and run as far as they can."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipelines.storage import Folder
from tests.bucket_world import SETTINGS, kinds, write_noise
from tests.two_hosts import ADDRESSES, missing, two_hosts
from tuner.ledger.journal import recorded

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
SLURM = (DEPLOY / "slurm.sbatch").read_text()
SKY = yaml.safe_load((DEPLOY / "sky.yaml").read_text())
JOB = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())
STUDY = ["search_spaces/quickstart.yaml", *(f"--set={setting}" for setting in SETTINGS)]


def fields(*needed: str, **known: Any) -> dict[str, Any]:
    """JSON schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": known,
        "required": list(needed),
        "additionalProperties": False,
    }


def items(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": 1}


def one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


TEXT, FLAG, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|[KMGT]i?)?$"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}
# What rayjob.yaml uses: of a pod, as the Kubernetes client 37 has it; of KubeRay's types, where
# authOptions is known from the notes of release 1.5.1.
EXPRESSION = fields("key", "operator", key=TEXT, operator=one_of("In", "Exists", "DoesNotExist"))
CONTAINER = fields(
    "name", "image", "resources", "securityContext",
    name=TEXT, image=TEXT, env=items(fields("name", "value", name=TEXT, value=TEXT)),
    envFrom=items(fields("secretRef", secretRef=fields("name", name=TEXT))),
    resources=fields("requests", "limits", requests=QUANTITIES, limits=QUANTITIES),
    securityContext=fields(
        allowPrivilegeEscalation=FLAG, capabilities=fields(drop=items(TEXT))
    ),
    volumeMounts=items(fields("name", "mountPath", name=TEXT, mountPath=TEXT)),
)  # fmt: skip
POD = fields(
    "containers",
    affinity=fields(nodeAffinity=fields(requiredDuringSchedulingIgnoredDuringExecution=fields(
        "nodeSelectorTerms", nodeSelectorTerms=items(fields(matchExpressions=items(EXPRESSION)))
    ))),
    nodeSelector=TEXTS,
    tolerations=items(fields(
        key=TEXT, operator=one_of("Exists", "Equal"),
        effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
    )),
    securityContext=fields(
        runAsNonRoot=FLAG, runAsUser=COUNT, fsGroup=COUNT,
        seccompProfile=fields("type", type=one_of("RuntimeDefault", "Unconfined", "Localhost")),
    ),
    containers=items(CONTAINER),
    volumes=items(fields(
        "name", name=TEXT, emptyDir=fields(medium=one_of("", "Memory"), sizeLimit=QUANTITY)
    )),
)  # fmt: skip
TEMPLATE = fields("spec", metadata=fields(labels=TEXTS), spec=POD)
RAY_JOB = fields(
    "apiVersion", "kind", "metadata", "spec",
    apiVersion=one_of("ray.io/v1"), kind=one_of("RayJob"),
    metadata=fields("name", name={**TEXT, "maxLength": 47}, labels=TEXTS),
    spec=fields(
        "entrypoint", "rayClusterSpec",
        entrypoint=TEXT, backoffLimit=COUNT, shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
        rayClusterSpec=fields(
            "headGroupSpec", "rayVersion",
            rayVersion=TEXT, enableInTreeAutoscaling=FLAG,
            authOptions=fields("mode", mode=one_of("token", "disabled")),
            autoscalerOptions=fields(idleTimeoutSeconds=COUNT),
            headGroupSpec=fields("template", rayStartParams=TEXTS, template=TEMPLATE),
            workerGroupSpecs=items(fields(
                "groupName", "minReplicas", "maxReplicas", "template",
                groupName=TEXT, minReplicas=COUNT, maxReplicas=COUNT, rayStartParams=TEXTS,
                template=TEMPLATE,
            )),
        ),
    ),
)  # fmt: skip
# What sky.yaml uses of SkyPilot 0.14.1.
SKY_TASK = fields(
    "run",
    name=TEXT, num_nodes=COUNT, workdir=TEXT, setup=TEXT, run=TEXT,
    envs={"type": "object", "additionalProperties": {"type": ["string", "null"]}},
    secrets={"type": "object", "additionalProperties": {"type": ["string", "null"]}},
    resources=fields(
        accelerators={"type": "object", "additionalProperties": COUNT}, cpus=TEXT, use_spot=FLAG,
        disk_size=COUNT, labels=TEXTS, job_recovery=fields(max_restarts_on_errors=COUNT),
    ),
)  # fmt: skip


@pytest.mark.parametrize(("given", "schema"), [(JOB, RAY_JOB), (SKY, SKY_TASK)])
def test_fields_are_those_of_the_published_schemas(given: Any, schema: dict[str, Any]) -> None:
    jsonschema.validate(given, schema)


def pods() -> tuple[dict[str, Any], dict[str, Any]]:
    cluster = JOB["spec"]["rayClusterSpec"]
    (worker,) = cluster["workerGroupSpecs"]
    return cluster["headGroupSpec"]["template"]["spec"], worker["template"]["spec"]


def test_kubernetes_keeps_the_head_off_spot_nodes_and_workers_on_them() -> None:
    head, worker = pods()
    ((spot, value),) = worker["nodeSelector"].items()
    required = head["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"] == [
        {"matchExpressions": [{"key": spot, "operator": "DoesNotExist"}]}
    ]
    assert value == "true"
    assert {"nvidia.com/gpu", spot} == {rule["key"] for rule in worker["tolerations"]}
    assert "tolerations" not in head
    (group,) = JOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert 0 < group["minReplicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("pod", pods(), ids=("head", "worker"))
def test_pods_are_confined_and_get_what_they_ask_for(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert pod["securityContext"]["runAsNonRoot"]
    user = re.findall(r"^USER (\d+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert user == [str(pod["securityContext"]["runAsUser"])]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
    assert mounts.keys() == {"/dev/shm", "/home/tuner/.cache"}
    assert volumes.keys() == set(mounts.values())
    assert volumes[mounts["/dev/shm"]]["medium"] == "Memory"


def test_versions_are_those_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"', project, re.MULTILINE)
    python = re.search(r'requires-python = ">=(3\.\d+)', project)
    ray = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert version is not None
    assert python is not None
    assert ray is not None
    assert JOB["spec"]["rayClusterSpec"]["rayVersion"] == ray[1]
    for pod in pods():
        assert pod["containers"][0]["image"].endswith(f":{version[1]}")
    docker = (DEPLOY / "Dockerfile").read_text()
    assert re.search(rf"^ARG BASE=\S+:{re.escape(python[1])}\.\d+-", docker, re.MULTILINE)
    assert f"--python {python[1]} " in SKY["setup"]


def test_image_holds_what_git_knows_and_the_package_needs() -> None:
    """The package is built from these alone; what ignores everything else names them too."""
    docker = (DEPLOY / "Dockerfile").read_text()
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", docker, re.MULTILINE)
    copied = {word for line in lines for word in line.split()}
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
    extras = re.findall(r"--extra (\w+)", docker)
    assert extras
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


SCRIPTS = {"slurm": SLURM, "sky setup": SKY["setup"], "sky run": SKY["run"]}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_shell_reads_the_scripts(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    if shutil.which("shellcheck"):
        # 2086: $start is several words; 2016: the trap's variable is read when it runs
        command = ["shellcheck", "--shell=bash", "--exclude=SC2086,SC2016", "-"]
        subprocess.run(command, input=script, text=True, check=True)


@pytest.mark.parametrize("script", [SLURM, SKY["run"]], ids=["slurm", "sky"])
def test_ray_knows_the_options_of_the_scripts(script: str) -> None:
    from ray.scripts.scripts import cli

    start = {option for each in cli.commands["start"].params for option in each.opts}
    joined = script.replace("\\\n", "").replace("$start", "ray start")
    plain = re.sub(r"(^| )#.*", "", joined, flags=re.MULTILINE)
    lines = re.findall(r"\bray ([a-z-]+)(.*?)(?: -- |[|)>;]|$)", plain, re.MULTILINE)
    assert len(lines) >= 2
    for name, words in lines:
        known = {option for each in cli.commands[name].params for option in each.opts}
        asked = set(re.findall(r"--[a-z-]+", words))
        if name == "symmetric-run":  # it hands what it does not know to `ray start`, but for these
            assert not asked & {"--head", "--port", "--block", "--node-ip-address"}
            known |= start
        assert asked <= known


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[dict[str, str]]:
    if lacking := missing():
        pytest.skip(lacking)
    write_noise(tmp_path / "music")
    with two_hosts(tmp_path) as environment:
        yield environment | {"TUNER_CACHE": str(tmp_path / "cache")}


def assert_finished(storage: Path) -> None:
    study = Folder.at(str(storage / "studies" / "quickstart"))
    assert {"searched", "confirmed", "test", "study_end"} <= kinds(recorded(study))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_slurm_runs_a_study_on_two_nodes(hosts: dict[str, str], tmp_path: Path) -> None:
    """On two namespaces, with an `srun` that starts the command on both, as Slurm's does."""
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[0-1]", "SLURM_NNODES": "2"}
    words = [*STUDY, "--data", str(tmp_path / "music"), "--storage", str(tmp_path / "results")]
    subprocess.run(
        ["bash", str(DEPLOY / "slurm.sbatch"), *words],
        env=hosts | job | {"SLURM_CPUS_PER_TASK": "1"}, cwd=ROOT, check=True, timeout=540,
    )  # fmt: skip
    assert_finished(tmp_path / "results")
    head, worker = ((tmp_path / f"node-{host}.log").read_text() for host in range(2))
    assert "On head node" in head
    assert "On worker node" in worker
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o077 == 0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sky_runs_a_study_on_two_nodes(hosts: dict[str, str], tmp_path: Path) -> None:
    """The words of `run`, with a smaller space, on two namespaces; SkyPilot itself is not here."""
    script = SKY["run"].replace("search_spaces/resnet.yaml", shlex.join(STUDY))
    assert "gpus_per_worker=1" in script
    script = script.replace("gpus_per_worker=1", "gpus_per_worker=0")  # the machine has none
    job = {
        "SKYPILOT_NODE_IPS": "\n".join(ADDRESSES), "SKYPILOT_NUM_NODES": "2",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, "BUCKET": str(tmp_path),
    }  # fmt: skip
    nodes = [
        subprocess.Popen(
            ["on-host", str(host), "bash", "-e", "-c", script],
            env=hosts | job | {"SKYPILOT_NODE_RANK": str(host)}, cwd=ROOT,
        )
        for host in range(2)
    ]  # fmt: skip
    try:
        assert [node.wait(timeout=540) for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            node.kill()
    assert_finished(tmp_path / "results")


@contextmanager
def buildah_store() -> Iterator[list[str]]:
    """A store of images that needs no daemon; removed afterwards, since it grows to 10 GB."""
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    command = ["buildah", "--root", str(folder / "store"), "--runroot", str(folder / "run")]
    try:
        yield command
    finally:
        for words in (["rm", "--all"], ["rmi", "--all", "--force"]):
            subprocess.run([*command, *words], capture_output=True, check=False)
        subprocess.run(["umount", folder / "store/overlay"], capture_output=True, check=False)
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1800)
def test_image_is_built_and_its_user_runs_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a base of Debian's packages, which serves where no image can be pulled."""
    if not (shutil.which("buildah") and shutil.which("debootstrap")) or os.geteuid():
        pytest.skip("needs root, buildah and debootstrap")
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    base = tmp_path / "base"
    packages = "--include=ca-certificates,python3-venv"
    call("debootstrap", "--variant=minbase", packages, "bookworm", str(base))
    with buildah_store() as buildah:
        scratch = call(*buildah, "from", "scratch")
        call(*buildah, "copy", scratch, str(base), "/")
        shutil.rmtree(base)
        # the certificates that this machine trusts
        call(*buildah, "copy", scratch, "/etc/ssl/certs", "/etc/ssl/certs")
        bundle = "/etc/ssl/certs/ca-certificates.crt"
        trust = [f"--env={name}={bundle}" for name in ("SSL_CERT_FILE", "PIP_CERT")]
        call(*buildah, "config", *trust, scratch)
        call(*buildah, "commit", "--rm", scratch, "localhost/base")
        call(
            *buildah, "build", "--build-arg=BASE=localhost/base", "--tag=audio-tuner",
            f"--file={DEPLOY}/Dockerfile", f"--ignorefile={DEPLOY}/Dockerfile.dockerignore",
            str(ROOT),
        )  # fmt: skip
        container = call(*buildah, "from", "--pull-never", "localhost/audio-tuner")
        config = json.loads(call(*buildah, "inspect", container))["OCIv1"]["config"]

        def inside(*words: str) -> str:
            return call(*buildah, "run", container, "--", *words)

        entry = config["Entrypoint"]
        assert "Search SPACE" in inside(*entry, "tuner.run", "--help")
        listed = inside(*entry, *config["Cmd"])
        assert all(f"  {name} " in listed for name in ("run", "build", "predict"))
        assert inside("id", "-u") == config["User"] == "1000"
        # as KubeRay starts Ray and asks for its health
        version = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
        assert version
        assert inside("bash", "-lc", "ray --version").endswith(version[1])
        assert inside("bash", "-c", "command -v wget")
        assert (
            inside("bash", "-c", "touch results/x .cache/x; test -w /opt/venv || echo closed")
            == "closed"
        )


def call(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout.strip()
