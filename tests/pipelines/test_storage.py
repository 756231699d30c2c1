from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.errors import StorageFullError, UnsupportedStorageError, full_disk_named
from pipelines.storage import Folder


def listed(folder: Path) -> list[str]:
    """All names in a folder, hidden ones too: no scratch may be left."""
    return sorted(path.name for path in folder.iterdir())


def test_files_come_back_as_they_were_written(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path) / "a" / "b"
    assert not folder.exists()
    folder.write_json("x.json", {"genre": "Electrónica"})
    folder.write_text("y.txt", "two\n")
    assert folder.read_json("x.json") == {"genre": "Electrónica"}
    assert folder.read_bytes("y.txt") == b"two\n"
    assert folder.names() == ["x.json", "y.txt"]
    assert listed(tmp_path / "a" / "b") == ["x.json", "y.txt"]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ftp://host/results", "write a folder, or s3://"),
        ("http://host/results", "write a folder, or s3://"),
        ("file://host/results", "write a folder, or s3://"),
        ("s3:///results", "write a folder, or s3://"),
        ("s3://key:s3cr3t@bucket/results", "keys come from the environment"),
        ("gs://key:s3cr3t@bucket/results", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("s3://bucket/results?session_token=s3cr3t", "options may be endpoint_override"),
    ],
)
def test_an_address_that_cannot_be_used_is_named_without_its_secrets(
    address: str, reason: str
) -> None:
    with pytest.raises(UnsupportedStorageError) as caught:
        Folder.at(address)
    assert reason in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    assert "results" in str(caught.value)


def test_a_file_address_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "my results").mkdir()
    assert Folder.at(f"file://{tmp_path}/my%20results") == Folder(tmp_path / "my results")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """Use a file-size limit instead of a full disk: the kernel refuses the rest of the write."""
    code = (
        "import resource, signal, sys\n"
        "from pipelines.storage import Folder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "folder = Folder.at(sys.argv[1])\n"
        "folder.write_text('x', 'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: folder.write_bytes('x', bytes(5000))\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(errno.EFBIG), done.stderr
    assert listed(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageFullError, match="where"), Folder.at(tmp_path).building("where"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert listed(tmp_path) == []


def test_a_full_disk_is_named_however_deep_it_was_met() -> None:
    def deep() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("task failed") from error

    with (
        pytest.raises(StorageFullError, match="/some/where"),
        full_disk_named(Path("/some/where")),
    ):
        deep()
    with pytest.raises(KeyError), full_disk_named(Path("/some/where")):
        raise KeyError("other")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    with folder.writing("x") as scratch:
        scratch.write_text("old")
        assert not folder.exists("x")
    with pytest.raises(TypeError), folder.writing("x") as scratch:
        scratch.write_bytes("half")  # type: ignore[arg-type]
    assert (folder.read_text("x"), listed(tmp_path)) == ("old", ["x"])


def test_what_a_killed_process_left_of_a_folder_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pipelines.storage import Folder\n"
        "with Folder.at(sys.argv[1]).building('model') as scratch:\n"
        "    (scratch / 'first').write_text('1')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    assert Folder.at(tmp_path).names() == []
    with Folder.at(tmp_path).building("model") as scratch:
        (scratch / "second").write_text("2")
    assert listed(tmp_path) == ["model"]
    assert listed(tmp_path / "model") == ["second"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    with folder.building("model") as scratch:
        (scratch / "first").write_text("1")
        assert not folder.exists("model")
    with pytest.raises(FileNotFoundError), folder.building("model") as scratch:
        (scratch / "second").rename(scratch / "third")
    assert (folder / "model").names() == ["first"]
    with folder.building("model") as scratch:
        (scratch / "third").write_text("3")
    assert (folder / "model").names() == ["third"]
    assert listed(tmp_path) == ["model"]


def test_removing_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    folder.write_text("one", "1")
    folder.remove("one")
    folder.remove("one")
    (folder / "inside").write_text("two", "2")
    folder.remove("inside")
    assert folder.names() == []


def test_a_log_grows_and_can_lose_its_torn_end(tmp_path: Path) -> None:
    log = Folder.at(tmp_path).open_log("ledger")
    log.append(b"one\n")
    log.append(b"tw")
    log.truncate(4)
    log.append(b"two\n")
    assert Folder.at(tmp_path).log_bytes("ledger") == b"one\ntwo\n"
    log.close()


def test_an_append_that_does_not_fit_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    """Twenty bytes of room: the kernel takes a part of the write before it refuses the rest."""
    code = (
        "import resource, signal, sys\n"
        "from pipelines.storage import Folder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = Folder.at(sys.argv[1]).open_log('ledger')\n"
        "log.append(b'one\\n')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (24, resource.RLIM_INFINITY))\n"
        "try: log.append(b'x' * 99 + b'\\n')\n"
        "except OSError as error: print(error.errno)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "log.append(b'two\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(errno.EFBIG), done.stderr
    assert (tmp_path / "ledger").read_bytes() == b"one\ntwo\n"


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    refused = []

    def other() -> None:
        try:
            with folder.lock("x.lock", timeout_seconds=0.0):
                pass
        except TimeoutError as error:
            refused.append(str(error))

    with folder.lock("x.lock"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(timeout=10)
    assert "x.lock" in refused[0]
    with folder.lock("x.lock", timeout_seconds=0.0):
        pass


def test_json_that_was_changed_is_refused_and_that_without_a_checksum_is_read(
    tmp_path: Path,
) -> None:
    folder, value = Folder(tmp_path), {"labels": ["\udc80", "b"], "rate": 0.1, "of": {"1": None}}
    folder.write_json("x.json", value)
    text = folder.read_text("x.json")
    folder.write_text("x.json", text.replace("\n", "\r\n "))  # only its form
    assert folder.read_json("x.json") == value
    folder.write_text("x.json", text.replace("0.1", "0.2"))
    with pytest.raises(ValueError, match=r"`checksum`.*damaged.*changed by hand"):
        folder.read_json("x.json")
    folder.write_text("x.json", '{"rate": 0.2}')
    assert folder.read_json("x.json") == {"rate": 0.2}


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """Modes of all files and folders below a folder, as ``ls`` gives them in octal digits."""
    return {
        str(p.relative_to(folder)): f"{p.stat().st_mode & 0o7777:o}" for p in folder.rglob("*")
    }


def write_all(folder: Folder) -> None:
    """Write in every way that a study does."""
    folder.write_text("file", "x")
    (folder / "log").create()
    log = (folder / "log").open_log("log")
    log.append(b"x")
    log.close()
    with folder.lock("lock"):
        pass
    with folder.building("built") as scratch:
        (scratch / "inner").mkdir()
        (scratch / "inner" / "file").touch()


def test_what_is_kept_is_closed_to_other_users(tmp_path: Path, open_umask: None) -> None:
    write_all(Folder(tmp_path) / "a" / "b")
    found = modes(tmp_path)
    folders = {"a", "a/b", "a/b/log", "a/b/built", "a/b/built/inner"}
    files = {"a/b/file", "a/b/log/log", "a/b/lock", "a/b/built/inner/file"}
    assert found == dict.fromkeys(folders, "700") | dict.fromkeys(files, "600")


def test_a_folder_that_is_shared_stays_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)  # chmod g+rwxs
    before = os.umask(0o077)
    write_all(Folder(tmp_path) / "a")
    os.umask(before)
    assert set(modes(tmp_path).values()) == {"2770", "660"}


def stand_ins(path: Path, outside: Path) -> dict[str, Callable[[], object]]:
    """What a folder from someone else may have in place of a file."""
    outside.write_bytes(path.read_bytes())
    return {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "link": lambda: path.symlink_to(outside),
        "folder": path.mkdir,
        "huge": lambda: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 10 << 30),
        "socket": lambda: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
    }


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder", "huge", "socket"])
def test_only_files_of_a_folder_are_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path / "f")
    folder.write_json("bundle.json", {})
    make = stand_ins(tmp_path / "f" / "bundle.json", tmp_path / "outside")[kind]
    folder.remove("bundle.json")
    monkeypatch.chdir(tmp_path / "f")
    make()
    with pytest.raises(OSError, match=r"bundle\.json"):
        folder.read_json("bundle.json")
