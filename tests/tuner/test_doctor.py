"""Every failure that the doctor knows is provoked for real and must be reported with a remedy."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import free_ports
from tuner.doctor import environment, software

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
PINS = "torch==2.11.0 torchaudio==2.11.0 torchvision==0.26.0"  # by hand, from constraints.txt

# Message of a CUDA build of torchaudio with a torch without CUDA.
LOADS_NOT = "libcudart.so.13: cannot open shared object file: No such file or directory"
HEALTHY_TORCH = """
version = type("V", (), {"cuda": CUDA})
__version__ = "2.11.0+here"
class cuda:
    is_available = staticmethod(lambda: False)
    device_count = staticmethod(lambda: 0)
class cpu:
    get_capabilities = staticmethod(lambda: {"avx512_bf16": True})
"""


def fake_family(folder: Path, **sources: str) -> dict[str, str]:
    """Packages of these names and sources, found before the installed ones."""
    defaults = {
        "torch": HEALTHY_TORCH.replace("CUDA", "None"),
        "torchaudio": "__version__ = '2.11.0'",
        "torchvision": "__version__ = '0.26.0'",
    }
    for name, source in (defaults | sources).items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(source)
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_cuda_torchaudio_beside_cpu_torch(tmp_path: Path) -> None:
    variables = fake_family(tmp_path, torchaudio=f"raise OSError({LOADS_NOT!r})")
    check = software.check_torch(software.probe(variables), CONSTRAINTS)
    assert check.status == "FAIL"
    said = "is a CUDA build and does not load with CPU-only torch 2.11.0+here"
    assert said in check.detail
    assert "torchaudio 2.11.0 is" in check.detail
    assert "reinstall all three from the default index" in check.remedy
    assert PINS in check.remedy


def test_torchvision_beside_another_cuda_torch(tmp_path: Path) -> None:
    variables = fake_family(
        tmp_path,
        torch=HEALTHY_TORCH.replace("CUDA", "'13.0'"),
        torchvision="raise RuntimeError('operator torchvision::nms does not exist')",
    )
    check = software.check_torch(software.probe(variables), CONSTRAINTS)
    assert check.status == "FAIL"
    assert "torchvision 0.26.0 does not load with torch 2.11.0+here" in check.detail
    assert "nms does not exist" in check.detail
    assert "CUDA build" not in check.detail


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("torchvision", "__version__ = '0.27.0'", "different releases"),
        ("torchaudio", "__version__ = '2.9.1'", "different releases"),
        ("torch", "raise ImportError('libc10.so')", "torch does not load: ImportError: libc10.so"),
        ("torchaudio", "import os; os.abort()", "ended the process"),
    ],
)
def test_other_broken_families(tmp_path: Path, name: str, source: str, says: str) -> None:
    findings = software.probe(fake_family(tmp_path, **{name: source}))
    check = software.check_torch(findings, CONSTRAINTS)
    assert check.status == "FAIL"
    assert says in check.detail
    assert PINS in check.remedy


def test_family_that_fits(tmp_path: Path) -> None:
    findings = software.probe(fake_family(tmp_path))
    assert software.check_torch(findings, CONSTRAINTS).status == "ok"
    assert software.check_bf16(findings).detail == "native on the CPU"


def test_driver_without_a_device_torch_sees(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("NVRM version: 470")
    findings: software.Findings = {"devices": {"gpus": []}}
    assert software.check_gpu(findings, tmp_path / "version").status == "warn"
    assert software.check_gpu(findings, tmp_path / "missing").status == "ok"
    seen = software.check_gpu({"devices": {"gpus": ["H100", "H100"]}})
    assert seen.detail == "2 CUDA: H100, H100"


def test_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "needy-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: needy\nVersion: 1.0\nRequires-Dist: ray<1\n"
        "Requires-Dist: no-such-thing-at-all\nRequires-Dist: absent; extra == 'dev'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    check = software.check_packages("needy")
    assert check.status == "FAIL"
    assert "ray is 2.60.0, expected <1" in check.detail
    assert "no-such-thing-at-all is missing" in check.detail
    assert "absent" not in check.detail
    assert software.check_packages("not-installed-here").status == "FAIL"
    assert software.check_packages().status == "ok"


def test_audio_formats() -> None:
    assert software.check_audio().status == "ok"
    codecs = {**software.CODECS, "mp3": ("NO SUCH FORMAT", None, 44100)}
    check = software.check_audio(codecs)
    assert (check.status, check.detail.endswith("lacks mp3")) == ("warn", True)
    assert software.check_audio({"wav": ("NOT WAV", None, 8000)}).status == "FAIL"


def test_m4a_is_read_where_its_extra_is_installed() -> None:
    pytest.importorskip("av")
    check = software.check_m4a()
    assert (check.status, check.remedy) == ("ok", "")
    assert check.detail.endswith("reads it")


@pytest.mark.parametrize(
    ("installed", "status", "says"),
    [(True, "warn", "PyAV 99.0 cannot read it: libavcodec.so"), (False, "ok", "not read")],
)
def test_m4a_without_a_working_extra(
    tmp_path: Path, installed: bool, status: str, says: str
) -> None:
    """In a process where PyAV is broken, and in one that finds no installed package."""
    script = (
        "import sys\nfrom importlib import metadata\n"
        "from tuner.doctor import software\ncheck = software.check_m4a()\n"
        "print(check.status, check.detail, check.remedy, sep='|')"
    )
    paths = [str(tmp_path), str(ROOT)]
    if installed:
        (tmp_path / "av").mkdir()
        (tmp_path / "av" / "__init__.py").write_text("raise ImportError('libavcodec.so')")
        (tmp_path / "av-99.0.dist-info").mkdir()
        head = "Metadata-Version: 2.1\nName: av\nVersion: 99.0\n"
        (tmp_path / "av-99.0.dist-info" / "METADATA").write_text(head)
    command = [sys.executable, *([] if installed else ["-S"]), "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = done.stdout.strip().split("|")
    assert found[0] == status
    assert says in found[1]
    assert "[m4a]" in found[2]


def test_ray_address() -> None:
    (closed,) = free_ports(1)
    check = environment.check_ray({"RAY_ADDRESS": f"127.0.0.1:{closed}"})
    assert check.status == "FAIL"
    assert "refused" in check.detail
    assert "ray dashboard" in check.remedy
    assert environment.check_ray({"RAY_ADDRESS": "somewhere"}).status == "FAIL"
    assert environment.check_ray({}).status == "ok"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}/"):
            assert environment.check_ray({"RAY_ADDRESS": address}).status == "ok"


def test_token_that_others_can_read(tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    home = {"HOME": str(tmp_path)}
    assert environment.check_token(home).status == "ok"
    assert environment.check_token({**home, "RAY_ADDRESS": "10.0.0.1:6379"}).status == "warn"
    token.parent.mkdir()
    token.write_text("secret-value")
    token.chmod(0o644)
    check = environment.check_token(home)
    assert check.status == "warn"
    assert "644" in check.detail
    assert check.remedy == f"chmod 600 {token}"
    assert "secret-value" not in check.line()
    token.chmod(0o600)
    assert environment.check_token({"RAY_AUTH_TOKEN_PATH": str(token)}).status == "ok"


class Health(http.server.BaseHTTPRequestHandler):
    """Answers as an MLflow server does at /health, and 404 anywhere else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Health) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_tracking_server(server: str, tmp_path: Path) -> None:
    assert environment.check_tracking(f"http://{server}", tmp_path).status == "ok"
    other = environment.check_tracking(f"http://{server}/not-mlflow", tmp_path)
    assert (other.status, "404" in other.detail) == ("FAIL", True)
    (closed,) = free_ports(1)
    check = environment.check_tracking(f"http://ann:secret@127.0.0.1:{closed}", tmp_path)
    assert check.status == "FAIL"
    assert "does not answer" in check.detail
    assert "unset it" in check.remedy
    assert "secret" not in check.line()


def test_tracking_file(tmp_path: Path) -> None:
    assert environment.check_tracking(None, tmp_path / "not" / "yet").status == "ok"
    # a path below a file can never be made, whoever asks
    (tmp_path / "file").write_text("")
    check = environment.check_tracking(f"sqlite:///{tmp_path}/file/mlflow.db", tmp_path)
    assert (check.status, "cannot be written" in check.detail) == ("FAIL", True)


def test_room(tmp_path: Path) -> None:
    usage = os.statvfs(tmp_path)
    free = usage.f_bavail * usage.f_frsize
    assert environment.check_room("storage", tmp_path / "new", free // 2, 1).status == "ok"
    assert environment.check_room("storage", tmp_path, free * 2, free // 2).status == "warn"
    check = environment.check_room("storage", tmp_path, free * 4, free * 2)
    assert (check.status, "free some space" in check.remedy) == ("FAIL", True)
    (tmp_path / "file").write_text("")
    assert environment.check_room("storage", tmp_path / "file" / "new", 2, 1).status == "FAIL"
    check = environment.check_shared_memory(tmp_path, free * 2)
    assert check.status == "warn"
    assert "--shm-size=2g" in check.remedy
    assert "medium: Memory" in check.remedy
    assert environment.check_shared_memory(tmp_path / "none").status == "ok"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_busy_port(host: str) -> None:
    with socket.create_server((host, 0)) as busy:
        port = busy.getsockname()[1]
        check = environment.check_port(port, "the UI", "use another")
    assert check.line() == f"warn port {port}: busy; the UI - use another"
    assert environment.check_port(port, "the UI", "use another").status == "ok"


def examined(folder: Path, **more: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Run the command with more variables; return what it said, as JSON too."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    command = [sys.executable, "-m", "tuner.doctor", "--storage", str(folder / "out"), "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env={**variables, **more}, capture_output=True, text=True, timeout=150
    )
    assert not (folder / "out").exists()  # it looks, and leaves nothing on the disk
    return done, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(180)
def test_command_line_tells_that_all_is_well(tmp_path: Path) -> None:
    done, found = examined(tmp_path)
    assert [check["name"] for check in found["checks"] if check["status"] == "FAIL"] == []
    assert (done.returncode, found["ok"]) == (0, True)


@pytest.mark.timeout(180)
def test_what_is_broken_is_a_finding_and_ends_no_other_check(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise ImportError('libtorch.so: broken')")
    server = f"http://127.0.0.1:{free_ports(1)[0]}"
    done, found = examined(tmp_path, PYTHONPATH=str(tmp_path), MLFLOW_TRACKING_URI=server)
    assert (done.returncode, found["ok"]) == (1, False)
    assert "Traceback" not in done.stderr
    of_name = {check["name"]: check for check in found["checks"]}
    assert "libtorch.so: broken" in of_name["torch"]["detail"]
    states = {name: of_name[name]["status"] for name in ("torch", "mlflow", "ray")}
    assert states == {"torch": "FAIL", "mlflow": "FAIL", "ray": "ok"}


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom tuner.doctor.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert "--storage" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_doctor_says_what_confines_the_decoder() -> None:
    check = software.check_decoder()
    offered = "Seccomp_filters:" in Path("/proc/self/status").read_text()
    assert check.status == ("ok" if offered else "warn")
    assert check.detail.endswith("seccomp") == offered
