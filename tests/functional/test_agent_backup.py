# SPDX-License-Identifier: Apache-2.0
"""The real freezer-agent as its users meet it: volumes undisturbed, restored whole, clear words."""

from __future__ import annotations

import os
import pathlib
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.functional.backup_host import GIB, MIB, BackupHost, data_of

pytest.importorskip("freezer")

NOWHERE = "11111111-2222-3333-4444-555555555555"


# -- the volume is left in peace -------------------------------------------------------------------


class Background(threading.Thread):
    """Does something again and again while a block runs; its first error comes out at the end."""

    def __init__(self, pause: float) -> None:
        super().__init__(daemon=True)
        self.times = 0
        self._pause = pause
        self._ended = threading.Event()
        self._error: BaseException | None = None

    def once(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        try:
            while not self._ended.wait(self._pause):
                self.once()
                self.times += 1
        except BaseException as error:
            self._error = error

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self.join()
        if self._error:
            raise self._error


class Watch(Background):
    """Notes what Cinder says of a volume, every 50 ms."""

    def __init__(self, cloud: EmbeddedCloud, volume_id: str) -> None:
        super().__init__(0.05)
        self.statuses: set[str] = set()
        self.attachments: set[int] = set()
        self._cloud = cloud
        self._volume_id = volume_id

    def once(self) -> None:
        volume = self._cloud.cinder("GET", f"/volumes/{self._volume_id}")["volume"]
        self.statuses.add(volume["status"])
        self.attachments.add(len(volume["attachments"]))


class Guest(Background):
    """Writes to the device of an attached volume."""

    def __init__(self, device: str) -> None:
        super().__init__(0.02)
        self._device = device

    def once(self) -> None:
        descriptor = os.open(self._device, os.O_WRONLY)
        try:
            os.pwrite(descriptor, os.urandom(4096), self.times % 64 * MIB)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def test_an_available_volume_never_changes_its_status(host: BackupHost) -> None:
    volume_id = host.bench.volume(1).id
    host.write(volume_id, 0, data_of(1, 64 * MIB))
    with Watch(host.bench.embedded, volume_id) as watch:
        host.backup(volume_id)
        host.write(volume_id, 0, data_of(2, 8 * MIB))
        host.backup(volume_id, "--incremental")
    assert watch.times > 20
    assert (watch.statuses, watch.attachments) == ({"available"}, {0})
    assert host.leftovers() == {}
    host.drop(volume_id)


def test_a_volume_in_use_never_changes_its_status(host: BackupHost) -> None:
    volume_id = host.bench.volume(1).id
    server = host.bench.embedded.pretend_server(volume_id)
    with Watch(host.bench.embedded, volume_id) as watch, Guest(server["device"]) as guest:
        host.backup(volume_id)
        second = host.backup(volume_id, "--incremental")
    assert watch.times > 20
    assert (watch.statuses, watch.attachments) == ({"in-use"}, {1})
    assert guest.times > 20
    assert second["level"] == 1
    assert second["bytes_new"] > 0
    # A clone of a volume in use, too: nobody but its server may write to it.
    with Watch(host.bench.embedded, volume_id) as watch:
        host.restore(volume_id)
    assert (watch.statuses, watch.attachments) == ({"in-use"}, {1})
    assert host.leftovers() == {}


# -- a restored volume is the old one again --------------------------------------------------------


@pytest.fixture
def fast_type(host: BackupHost) -> Iterator[str]:
    """A second volume type, until a test or this fixture removes it."""
    cinder = host.bench.embedded.cinder
    body = {"volume_type": {"name": "fast", "extra_specs": {"volume_backend_name": "file"}}}
    made = cinder("POST", "/types", body, "admin")["volume_type"]["id"]
    yield str(made)
    if made in {known["id"] for known in cinder("GET", "/types")["volume_types"]}:
        cinder("DELETE", f"/types/{made}", project="admin")


def test_a_new_volume_has_the_properties_of_the_old_one(host: BackupHost, fast_type: str) -> None:
    cinder = host.bench.embedded.cinder
    fields = {
        "name": "database é",
        "description": "of the shop",
        "metadata": {"tier": "gold", "empty": ""},
        "volume_type": "fast",
    }
    volume_id = host.bench.volume(2, **fields).id
    action = f"/volumes/{volume_id}/action"
    cinder("POST", action, {"os-set_bootable": {"bootable": True}})
    image = {"hw_disk_bus": "scsi", "os_distro": "debian"}
    cinder("POST", action, {"os-set_image_metadata": {"metadata": image}})
    host.write(volume_id, 1500 * MIB, data_of(1, 4 * MIB))
    digest = host.digest(volume_id)
    host.backup(volume_id)
    old = cinder("GET", f"/volumes/{volume_id}")["volume"]
    host.drop(volume_id)

    told = host.restore(volume_id)
    assert told["target"] == "new"
    new = cinder("GET", f"/volumes/{told['restored_volume_id']}")["volume"]
    same = (
        *("name", "description", "metadata", "volume_type", "size", "bootable"),
        *("volume_image_metadata", "availability_zone", "status", "multiattach", "encrypted"),
    )
    assert {key: new[key] for key in same} == {key: old[key] for key in same}
    assert (new["bootable"], new["volume_image_metadata"]) == ("true", image)
    assert host.digest(new["id"]) == digest
    host.drop(new["id"])

    # Its type is gone.
    cinder("DELETE", f"/types/{fast_type}", project="admin")
    failed = host.agent("restore", volume_id)
    assert "'fast' is not there" in failed.error
    assert "--volume-type" in failed.error
    assert host.leftovers() == {}
    told = host.restore(volume_id, "--volume-type", "file", "--new-name", "database again")
    new = cinder("GET", f"/volumes/{told['restored_volume_id']}")["volume"]
    assert (new["volume_type"], new["name"]) == ("file", "database again")
    assert host.digest(new["id"]) == digest
    assert host.leftovers() == {}


def test_a_volume_that_has_grown_since(host: BackupHost) -> None:
    """It is restored into a clone of its present size; what came behind stays as it is."""
    volume_id = host.bench.volume(1).id
    old = data_of(1, 4 * MIB)
    host.write(volume_id, 0, old)
    host.backup(volume_id)
    host.bench.embedded.cinder(
        "POST", f"/volumes/{volume_id}/action", {"os-extend": {"new_size": 2}}
    )
    host.bench.embedded.wait(f"/volumes/{volume_id}", "available")
    behind = data_of(2, 4 * MIB)
    host.write(volume_id, 0, behind)
    host.write(volume_id, GIB, behind)
    restored = host.restore(volume_id)["restored_volume_id"]
    with open(host.bench.file_of(restored), "rb") as file:
        assert file.seek(0, os.SEEK_END) == 2 * GIB
        assert (os.pread(file.fileno(), 4 * MIB, 0), os.pread(file.fileno(), 4 * MIB, GIB)) == (
            old,
            behind,
        )
    host.drop(restored)
    # The next backup takes the new size, and builds on the old one all the same.
    told = host.backup(volume_id, "--incremental")
    assert (told["level"], told["bytes_read"]) == (1, 2 * GIB)
    restored = host.restore(volume_id)["restored_volume_id"]
    assert host.digest(restored) == host.digest(volume_id)
    host.drop(restored)
    host.drop(volume_id)
    assert host.leftovers() == {}


def test_two_backups_at_a_time(host: BackupHost) -> None:
    """Of one volume, into one repository."""
    volume_id = host.bench.volume(1).id
    host.write(volume_id, 0, data_of(3, 16 * MIB))
    digest = host.digest(volume_id)
    runs = [host.start_agent("backup", volume_id, "--incremental") for _ in range(2)]
    made = {run.wait().record["backup_id"] for run in runs}
    assert {backup["backup_id"] for backup in host.listed("--volume-id", volume_id)} == made
    for backup_id in sorted(made):
        (told,) = host.command("restore", "--backup", backup_id, "-f", "json").rows
        host.bench.users_own(told["restored_volume_id"])
        assert host.digest(told["restored_volume_id"]) == digest
        host.drop(told["restored_volume_id"])
    host.drop(volume_id)
    assert host.leftovers() == {}


# -- clear words -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def volume_id(host: BackupHost) -> str:
    """A volume of demo's with 40 MiB that cannot be compressed."""
    volume_id = host.bench.volume(1, name="data").id
    host.write(volume_id, 0, data_of(5, 40 * MIB))
    return volume_id


def test_another_project_cannot_back_it_up(host: BackupHost, volume_id: str) -> None:
    failed = host.agent("backup", volume_id, project="other")
    assert f"Volume {volume_id} could not be found" in failed.error
    by_command = host.command("backup", volume_id, "-f", "json", project="other")
    assert by_command.status == 1
    assert f"Volume {volume_id} could not be found" in by_command.stdout
    assert host.leftovers() == {}


def test_a_volume_that_is_not_there(host: BackupHost) -> None:
    assert "could not be found" in host.agent("backup", NOWHERE).error
    assert "holds no such backup" in host.agent("restore", NOWHERE).error
    assert host.leftovers() == {}


# What is wrong → the words that say so. The options come last and win over the usual ones.
NONSENSE = {
    ("--storage", "swift"): "names no object store",  # as this one has none
    ("--container", "backups"): "absolute path",
    ("--mode", "mysql"): "--mode",
    ("--cinder-vol-id", NOWHERE): "are different volumes",
    ("--cinder-vol-name", "data"): "not by both",
    ("--nova-inst-id", NOWHERE): "--nova-inst-id",
    ("--max-level", "1"): "incremental",
    ("--max-level", "many"): "many",
    ("--compression", "best"): "best",
    ("--single-volume-id", f"{NOWHERE},{NOWHERE[::-1]}"): "2 of 2 volumes failed",
    ("--upload-limit", "much"): "much",
    ("--no-such-option",): "--no-such-option",
}


@pytest.mark.parametrize("options", NONSENSE, ids=" ".join)
def test_nonsense_is_refused(host: BackupHost, volume_id: str, options: tuple[str, ...]) -> None:
    before = host.objects()
    assert NONSENSE[options] in host.agent("backup", volume_id, *options).error
    assert host.objects() == before
    assert host.leftovers() == {}


def test_a_date_that_is_none(host: BackupHost, volume_id: str) -> None:
    words = ("--restore-from-date", "yesterday")
    assert "date" in host.agent("restore", volume_id, *words).error
    by_command = host.command("restore", volume_id, *words)
    assert by_command.status == 2
    assert "yesterday" in by_command.error


@pytest.mark.parametrize("folder", ["/dev/null/backups", "/proc/backups"])
def test_a_container_that_cannot_be_written(host: BackupHost, volume_id: str, folder: str) -> None:
    assert folder in host.agent("backup", volume_id, "--container", folder).error
    assert host.leftovers() == {}


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(host: BackupHost, volume_id: str, small_disk: pathlib.Path) -> None:
    container = ("--container", str(small_disk / "backups"))
    failed = host.agent("backup", volume_id, *container)
    assert "No space left" in failed.error or "room" in failed.error
    assert host.leftovers() == {}
    listed = host.start("freezer-osbrick", "list", "-f", "json", "--repository", container[1])
    assert listed.wait().rows == []
    # With room it goes on where it failed, in the same repository.
    subprocess.run(["mount", "-o", "remount,size=128m", str(small_disk)], check=True)
    told = host.agent("backup", volume_id, *container).record
    assert told["bytes_new"] == 40 * MIB
    restored = host.restore(volume_id, *container)["restored_volume_id"]
    assert host.digest(restored) == host.digest(volume_id)
    host.drop(restored)
    assert host.leftovers() == {}


def test_a_damaged_repository(host: BackupHost, volume_id: str) -> None:
    """A flipped bit in what is stored of the blocks: nothing wrong is restored."""
    repository = host.folder / "damaged"
    container = ("--container", str(repository))
    assert host.agent("backup", volume_id, *container).status == 0
    pack = max(repository.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    pack.chmod(0o600)
    with open(pack, "r+b") as file:
        file.seek(pack.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    host.write(volume_id, 0, data_of(6, 40 * MIB))
    failed = host.agent("restore", volume_id, *container)
    assert "damaged" in failed.error.lower()
    assert failed.stdout == ""
    assert host.leftovers() == {}


def test_without_credentials(host: BackupHost, volume_id: str) -> None:
    nobody = dict.fromkeys(host.bench.embedded.env("demo"), "")
    words = ("backup", volume_id, "--repository", "nightly")
    failed = host.start("freezer-osbrick", *words, **nobody).wait()
    assert "OS_" in failed.error
    wrong = host.start("freezer-osbrick", *words, OS_PASSWORD="wrong").wait()
    assert wrong.status == 1
    assert "401" in wrong.error or "uthori" in wrong.error
    assert host.leftovers() == {}


# -- the other ways in -----------------------------------------------------------------------------


def test_an_ini_file(host: BackupHost, volume_id: str) -> None:
    """``freezer-agent --config``, which a job file is, too."""
    ini = host.folder / "nightly.ini"
    ini.write_text(
        "[default]\naction = backup\nengine_name = cinder-osbrick\nstorage = local\n"
        f"container = {host.repository}\nbackup_name = from a file\n"
        f"single_volume_id = {volume_id}\nmetadata_out = -\n"
    )
    told = host.start("freezer-agent", "--config", str(ini)).wait().record
    (listed,) = host.listed("--backup-name", "from a file")
    assert listed["backup_id"] == told["backup_id"]
    assert host.leftovers() == {}
