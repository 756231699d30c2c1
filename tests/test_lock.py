"""The lock: every package that is required, each with the hashes of its files; what audits it."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ENTRY = re.compile(
    r"(?P<name>[a-z0-9.-]+)==(?P<version>\S+)(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
)


def test_every_requirement_is_locked_with_hashes() -> None:
    text = (ROOT / "lock.txt").read_text()
    assert ENTRY.sub("", text) == ""  # nothing but entries with hashes: no address, no option
    versions = {found["name"]: found["version"] for found in ENTRY.finditer(text)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    required = project["build-system"]["requires"] + project["project"]["dependencies"]
    for extra in project["project"]["optional-dependencies"].values():
        required += extra
    for requirement in map(Requirement, required):
        if requirement.name != "audio-tuner":
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement}: `make lock`"
    pins = [f"{name}=={version}" for name, version in versions.items()]
    assert (ROOT / "constraints.txt").read_text().split() == pins


@pytest.mark.parametrize(
    ("tool", "code", "says"),
    [
        ('echo "No known vulnerabilities found"; echo {} > "${@: -1}"; exit 0', 0, "No known"),
        ('echo "Found 1 known vulnerability"; echo {} > "${@: -1}"; exit 1', 1, "Found 1"),
        ("echo traceback; echo no route to host; exit 1", 3, "nothing was audited"),
    ],
)
def test_an_audit_that_did_not_happen_is_no_success(
    tmp_path: Path, tool: str, code: int, says: str
) -> None:
    stand_in = tmp_path / "uv"
    stand_in.write_text(f"#!/usr/bin/env bash\n{tool}\n")
    stand_in.chmod(0o755)
    variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", ROOT / ".ci/audit", tmp_path / "found.json"],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert says in done.stdout
    assert done.stdout.count("\n") == 1
