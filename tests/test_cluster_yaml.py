"""The shipped cluster files pass Ray's own validation and hold what the project promises."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from pipelines.sources.files import EXTENSIONS

ROOT = Path(__file__).resolve().parents[1]
FILES = ("cluster.yaml", "deploy/gcp.yaml", "deploy/azure.yaml")


@pytest.fixture(scope="module", params=FILES)
def file(request: pytest.FixtureRequest) -> str:
    return (ROOT / request.param).read_text()


def prepare(text: str) -> dict[str, Any]:
    """A file as `ray up` sees it before it talks to the cloud; raises where `ray up` would."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(yaml.safe_load(text))
    validate_config(config)
    return config


@pytest.fixture(scope="module")
def prepared(file: str) -> dict[str, Any]:
    return prepare(file)


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return dict(line.lower().split("==") for line in lines)


def start_lines(config: dict[str, Any]) -> list[str]:
    keys = ("head_start_ray_commands", "worker_start_ray_commands")
    lines = [line for key in keys for line in config[key] if "ray start" in line]
    assert len(lines) == 2
    return lines


def test_start_commands_demand_a_token_and_keep_files_private(prepared: dict[str, Any]) -> None:
    for line in start_lines(prepared):
        # each command is a shell of its own, so it counts only before `ray start` on the same line
        before = line.split("ray start")[0]
        assert "export RAY_AUTH_MODE=token;" in before
        assert "umask 077;" in before
    assert prepared["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_dashboard_listens_on_loopback_only(prepared: dict[str, Any], file: str) -> None:
    head = start_lines(prepared)[0]
    assert re.findall(r"--dashboard-host[= ](\S+)", head) == ["127.0.0.1"]
    assert "0.0.0.0" not in file


def test_workers_are_on_spot_and_the_head_is_not(prepared: dict[str, Any]) -> None:
    """In the words of each cloud: EC2, Compute Engine, a parameter of Ray's template for Azure."""
    block, key = {
        "aws": ("InstanceMarketOptions", "MarketType"),
        "gcp": ("scheduling", "provisioningModel"),
        "azure": ("azure_arm_parameters", "priority"),
    }[prepared["provider"]["type"]]
    found = {
        name: str(kind["node_config"].get(block, {}).get(key)).lower() == "spot"
        for name, kind in prepared["available_node_types"].items()
    }
    assert found == {"head": False, "gpu_worker": True}


def test_parameters_for_azure_are_those_of_rays_template() -> None:
    template = Path(ray.__file__).parent / "autoscaler/_private/_azure/azure-vm-template.json"
    known = json.loads(template.read_text())["parameters"]
    config = yaml.safe_load((ROOT / "deploy/azure.yaml").read_text())
    for kind in config["available_node_types"].values():
        given = kind["node_config"]["azure_arm_parameters"]
        assert given.keys() <= known.keys()
        kinds = {"string": str, "int": int}
        assert all(isinstance(value, kinds[known[key]["type"]]) for key, value in given.items())


def test_what_no_cloud_names_is_the_same_in_all_files(prepared: dict[str, Any]) -> None:
    aws = yaml.safe_load((ROOT / FILES[0]).read_text())
    same = (
        "cluster_name", "max_workers", "idle_timeout_minutes", "docker", "head_node_type",
        "file_mounts", "rsync_exclude", "setup_commands", "head_start_ray_commands",
        "worker_start_ray_commands",
    )  # fmt: skip
    given = yaml.safe_load(json.dumps(prepared))
    for key in same:
        assert given[key] == aws[key], key


def test_autoscaler_is_on_and_goes_down_to_no_worker(prepared: dict[str, Any]) -> None:
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start_lines(prepared)[0]
    types = prepared["available_node_types"]
    head = types[prepared["head_node_type"]]
    workers = [kind for kind in types.values() if kind is not head]
    assert head["max_workers"] == 0
    assert "GPU" not in head["resources"]
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in workers)
    assert any(kind["resources"].get("GPU", 0) >= 1 for kind in workers)


def test_pins_are_those_of_the_constraints(prepared: dict[str, Any], pins: dict[str, str]) -> None:
    """What the autoscaler alone needs is pinned as in Ray's own defaults for the cloud."""
    image = prepared["docker"]["image"]
    requires = re.search(r'requires-python = ">=3\.(\d+)', (ROOT / "pyproject.toml").read_text())
    assert requires is not None
    assert image == f"rayproject/ray:{pins['ray']}-py3{requires[1]}-gpu"
    commands = prepared["setup_commands"] + prepared["head_setup_commands"]
    defaults = (
        Path(ray.__file__).parent / "autoscaler" / prepared["provider"]["type"] / "defaults.yaml"
    )
    needed = " ".join(yaml.safe_load(defaults.read_text())["head_setup_commands"])
    pins = dict(re.findall(r"([\w-]+)==([\w.]+)", needed)) | pins
    installs = [line for line in commands if "pip install" in line]
    assert any("-e ." in line for line in installs)
    for line in installs:
        assert "-c constraints.txt" in line
        for name, version in re.findall(r"([\w-]+)==([\w.]+)", line):
            assert pins[name.lower()] == version


def test_file_mounts_hold_the_program_and_little_else(prepared: dict[str, Any]) -> None:
    mounts = dict(prepared["file_mounts"])
    mounts.pop("~/.ray/auth_token")
    assert {"pipelines", "tuner", "search_spaces", "pyproject.toml", "constraints.txt"} <= {
        *mounts.values()
    }
    for target, source in mounts.items():
        assert target == f"~/audio-tuner/{source}"
        assert (ROOT / source).exists()
        # `ray up` reads every byte to see what changed
        files = [path for path in (ROOT / source).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 10e6


def test_own_machines_do_what_the_cloud_does(prepared: dict[str, Any]) -> None:
    """Which `tests/integration/test_ray_up.py` starts; Ray's newer autoscaler starts no worker."""
    own = prepare((ROOT / "deploy" / "own-machines.yaml").read_text())
    assert own["provider"]["type"] == "local"
    keys = ["file_mounts", "rsync_exclude", "setup_commands", "worker_setup_commands"]
    keys += ["head_start_ray_commands", "worker_start_ray_commands"]
    for key in keys:
        text = yaml.safe_dump(own[key]).replace(" RAY_enable_autoscaler_v2=0;", ";")
        assert yaml.safe_load(text) == prepared[key], key


def test_job_upload_leaves_data_and_environment_at_home(tmp_path: Path) -> None:
    """Ray's own packaging, on a tree with one file of each kind."""
    from ray._private.runtime_env.packaging import create_package

    keep = [
        "tuner/run.py",
        "pipelines/build/__main__.py",
        "search_spaces/quickstart.yaml",
        "pyproject.toml",
    ]
    leave = [
        ".venv/lib/torch.so", ".git/HEAD", "results/mlflow.db", "demo-data/house/a.wav",
        "tuner/__pycache__/run.pyc", ".mypy_cache/x.json", "tests/test_x.py", "venv/lib/torch.so",
        "my-model/model.safetensors", "build/lib/tuner/run.py", "docs/notebook.ipynb",
        *(f"my-music/a{suffix}" for suffix in EXTENSIONS),
        *(f"MUSIC/A{suffix.upper()}" for suffix in EXTENSIONS),
    ]  # fmt: skip
    tree = tmp_path / "tree"
    for name in keep + leave:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    (tree / ".rayignore").write_text((ROOT / ".rayignore").read_text())
    package = tmp_path / "package.zip"
    create_package(str(tree), package, include_gitignore=True)
    with zipfile.ZipFile(package) as archive:
        packed = {name for name in archive.namelist() if not name.endswith("/")}
    assert packed == {*keep, ".rayignore"}
