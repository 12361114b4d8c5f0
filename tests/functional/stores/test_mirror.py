# SPDX-License-Identifier: Apache-2.0
"""A folder, Swift and an SFTP server that mirror each other, by both doors."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.backup_host import MIB, BackupHost, Done, data_of
from tests.functional.stores.conftest import SshServer, SwiftServer, new_name

pytest.importorskip("freezer")

CONFIGURATION = """
[repository:near]
url = file://{near}
[repository:swift]
url = swift://{container}
auth_url = {swift}/auth/v1.0
user = test:admin
password = admin-secret
patience = 2
[repository:sftp]
url = sftp://{user}@127.0.0.1:{port}{far}
ssh_key_file = {key}
known_hosts = {known_hosts}
patience = 8
upload_limit = 8M
"""


class Cable(threading.Thread):
    """What lies between the backup host and a server; it can be cut."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.passed = 0
        self._server = port
        self._ends: list[socket.socket] = []
        self._whole = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
                here.close()
                continue
            there = socket.create_connection(("127.0.0.1", self._server))
            self._ends += [here, there]
            for ends in ((here, there), (there, here)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.passed += len(data)
                target.sendall(data)
        _shut(source, target)

    def cut(self) -> None:
        self._whole = False
        _shut(*self._ends)

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        self.cut()
        self._listener.close()


def _shut(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):  # it was shut already
            end.shutdown(socket.SHUT_RDWR)


class Mirror:
    """Three storages as an ini file of Freezer has them, and as repositories of the command."""

    def __init__(self, host: BackupHost, swift: SwiftServer, ssh: SshServer) -> None:
        name = new_name("mirror")
        self.host = host
        self.cable = Cable(ssh.port)
        self.near = host.folder / name
        self.far = ssh.folder / "files" / name
        known = host.folder / f"{name}.known_hosts"
        known.write_text(
            (ssh.folder / "known_hosts")
            .read_text()
            .replace(f":{ssh.port} ", f":{self.cable.port} ")
        )
        self.conf = host.folder / f"{name}.conf"
        self.conf.write_text(
            (host.folder / "home" / ".config" / "freezer-osbrick.conf").read_text()
            + CONFIGURATION.format(
                near=self.near,
                container=name,
                swift=swift.url,
                user=ssh.user,
                port=self.cable.port,
                far=self.far,
                key=ssh.folder / "key",
                known_hosts=known,
            )
        )
        storages = {
            "near": {"storage": "local", "container": self.near},
            "swift": {"storage": "swift", "container": name},
            "sftp": {
                "storage": "ssh",
                "container": self.far,
                "ssh_host": "127.0.0.1",
                "ssh_port": self.cable.port,
                "ssh_username": ssh.user,
                "ssh_key": ssh.folder / "key",
            },
        }
        self.sections = "".join(
            f"[storage:{key}]\n" + "".join(f"{k} = {v}\n" for k, v in values.items())
            for key, values in storages.items()
        )

    def agent(self, action: str, volume_id: str, **settings: Any) -> Done:
        """freezer-agent with an ini file that lists the three."""
        values = {
            "action": action,
            "engine_name": "osbrick",
            "backup_name": "nightly",
            "single_volume_id": volume_id,
            "metadata_out": "-",
            **settings,
        }
        ini = self.host.folder / "job.ini"
        lines = [f"{key} = {value}\n" for key, value in values.items()]
        ini.write_text("[default]\n" + "".join(lines) + self.sections)
        files = ("--config-file", str(self.conf))
        return self.host.start("freezer-agent", *files, "--config", str(ini)).wait()

    def command(self, *words: str, repositories: tuple[str, ...] = ("near", "swift", "sftp")):
        """freezer-osbrick with some of them."""
        named = [word for name in repositories for word in ("--repository", name)]
        line = ("--config-file", str(self.conf), *words, *named, "-f", "json")
        return self.host.start("freezer-osbrick", *line)

    def listed(self, name: str) -> list[str]:
        """The ids of the backups in one of them, oldest first."""
        rows = self.command("list", repositories=(name,)).wait().rows
        return [row["backup_id"] for row in rows]


@pytest.fixture
def mirror(host: BackupHost, swift_server: SwiftServer, ssh_server: SshServer) -> Iterator[Mirror]:
    made = Mirror(host, swift_server, ssh_server)
    yield made
    made.cable.close()
    shutil.rmtree(made.near, ignore_errors=True)


@pytest.fixture
def volume_id(host: BackupHost) -> Iterator[str]:
    """A volume with 40 MiB that cannot be compressed."""
    made = host.bench.volume(1).id
    host.write(made, 0, data_of(1, 40 * MIB))
    yield made
    host.drop(made)
    assert host.leftovers() == {}


def restored(mirror: Mirror, done: Done, digest: str) -> dict[str, Any]:
    """What the agent told of a restore that gave these bytes."""
    told = done.record
    host = mirror.host
    host.bench.users_own(told["restored_volume_id"])
    assert host.digest(told["restored_volume_id"]) == digest
    host.drop(told["restored_volume_id"])
    return told


def test_each_storage_has_every_backup(mirror: Mirror, volume_id: str) -> None:
    host = mirror.host
    first = mirror.agent("backup", volume_id)
    assert [copy["state"] for copy in first.record["copies"]] == ["success"] * 3
    assert (first.document["storage"], first.document["container"]) == ("local", str(mirror.near))
    host.write(volume_id, 20 * MIB, data_of(2, MIB))
    second = mirror.agent("backup", volume_id, incremental=True).record
    for copy in second["copies"]:
        assert (copy["level"], copy["bytes_new"]) == (1, MIB), copy
    ids = [first.record["backup_id"], second["backup_id"]]
    for name in ("near", "swift", "sftp"):
        assert mirror.listed(name) == ids
    # Each of them alone gives the volume back.
    digest = host.digest(volume_id)
    host.write(volume_id, 0, data_of(3, 40 * MIB))
    for name in ("near", "swift", "sftp"):
        (row,) = mirror.command("restore", volume_id, repositories=(name,)).wait().rows
        host.bench.users_own(row["restored_volume_id"])
        assert host.digest(row["restored_volume_id"]) == digest
        host.drop(row["restored_volume_id"])
    # Removal and info ask them all.
    removed = mirror.agent("admin", volume_id, remove_before_date="2100-01-01T00:00:00Z").document
    assert [one["backup_id"] for one in removed["removed_backups"]] == ids[:1] * 3
    told = mirror.agent("info", volume_id).stdout
    assert told.count(ids[1]) == 3 and told.count(ids[0]) == 0
    for name in ("near", "swift", "sftp"):
        assert f'"storage:{name}"' in told


def test_one_that_is_down(mirror: Mirror, volume_id: str) -> None:
    host = mirror.host
    mirror.agent("backup", volume_id).record  # noqa: B018  (it succeeds)
    mirror.cable.cut()
    host.write(volume_id, 0, data_of(4, MIB))
    done = mirror.agent("backup", volume_id, incremental=True)
    assert done.status == 1
    assert "The backup is in storage:near and storage:swift only. storage:sftp: " in done.error
    (told,) = json.loads(done.stdout)["osbrick"]["volumes"]
    assert told["state"] == "partial"
    assert [copy["state"] for copy in told["copies"]] == ["success", "success", "error"]
    assert host.leftovers() == {}
    # The command says the same.
    words = ("backup", volume_id, "--incremental", "--backup-name", "nightly")
    by_command = mirror.command(*words).wait()
    (row,) = json.loads(by_command.stdout)
    assert (by_command.status, row["state"]) == (1, "partial")
    # Info shows what can be seen, and says what cannot.
    info = mirror.agent("info", volume_id)
    assert info.stdout.count(row["backup_id"]) == 2
    assert "storage:sftp: " in info.stderr
    # A removal does what it can, and fails.
    removal = mirror.agent("admin", volume_id, remove_before_date="2100-01-01T00:00:00Z")
    assert "storage:sftp: " in removal.error
    assert mirror.listed("near") == mirror.listed("swift") == [row["backup_id"]]
    # Back again, it lacks two backups, and gets the next.
    mirror.cable.mend()
    assert len(mirror.listed("sftp")) == 1
    after = mirror.agent("backup", volume_id, incremental=True).record
    assert after["state"] == "success"
    # Near builds on the last one; the other on the one before the change.
    assert [copy["bytes_new"] for copy in after["copies"]] == [0, 0, MIB]


def test_one_that_dies_in_the_middle(mirror: Mirror, volume_id: str) -> None:
    host = mirror.host
    running = mirror.command("backup", volume_id, repositories=("sftp", "near"))
    running.until(lambda: mirror.cable.passed > 16 * MIB)
    mirror.cable.cut()
    done = running.wait()
    (row,) = json.loads(done.stdout)
    assert (done.status, row["state"], row["repository"]) == (1, "partial", "near")
    assert row["reason"].startswith("The backup is in near only. sftp: ")
    assert host.leftovers() == {}
    mirror.cable.mend()
    assert (mirror.listed("near"), mirror.listed("sftp")) == ([row["backup_id"]], [])
    # What was left half done there is no harm to the next.
    (again,) = mirror.command("backup", volume_id).wait().rows
    assert again["state"] == "success"
    assert mirror.listed("sftp") == [again["backup_id"]]


def test_all_are_down(mirror: Mirror, volume_id: str) -> None:
    mirror.cable.cut()
    mirror.near.parent.joinpath(mirror.near.name).write_text("a file where a folder should be")
    words = mirror.command("backup", volume_id, repositories=("near", "sftp")).wait()
    assert words.error.startswith("No repository can be used. near: ")
    assert "sftp: " in words.error
    mirror.near.unlink()


def test_a_restore_takes_what_it_can_get(mirror: Mirror, volume_id: str) -> None:
    host = mirror.host
    backup_id = mirror.agent("backup", volume_id).record["backup_id"]
    digest = host.digest(volume_id)
    host.write(volume_id, 0, data_of(5, 40 * MIB))
    assert restored(mirror, mirror.agent("restore", volume_id), digest)["repository"] == (
        "storage:near"
    )
    # Blocks of the first are damaged: these alone are fetched elsewhere.
    damage(mirror.near)
    told = restored(mirror, mirror.agent("restore", volume_id), digest)
    assert told["repository"] == "storage:near and storage:swift"
    assert told["notes"][0].startswith("storage:near: ")
    # It is gone: the next is asked from the beginning.
    shutil.rmtree(mirror.near)
    told = restored(mirror, mirror.agent("restore", volume_id), digest)
    assert told["repository"] == "storage:swift"
    # The far one alone, and it breaks in the middle: nothing of the restore stays.
    running = mirror.command("restore", "--backup", backup_id, repositories=("sftp",))
    start = mirror.cable.passed
    running.until(lambda: mirror.cable.passed > start + 8 * MIB)
    mirror.cable.cut()
    assert running.wait().status == 1
    assert host.leftovers() == {}
    # With another behind it, the restore goes on there.
    mirror.cable.mend()
    start = mirror.cable.passed
    running = mirror.command("restore", volume_id, repositories=("sftp", "swift"))
    running.until(lambda: mirror.cable.passed > start + 8 * MIB)
    mirror.cable.cut()
    told = restored_by_command(mirror, running.wait(), digest)
    assert told["repository"].endswith("swift")


def restored_by_command(mirror: Mirror, done: Done, digest: str) -> dict[str, Any]:
    (told,) = done.rows
    host = mirror.host
    host.bench.users_own(told["restored_volume_id"])
    assert host.digest(told["restored_volume_id"]) == digest
    host.drop(told["restored_volume_id"])
    return told


def damage(repository: pathlib.Path) -> None:
    """Flip bytes in the largest pack."""
    packs = [path for path in (repository / "packs").rglob("*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    with open(pack, "r+b") as file:
        for place in range(2 * MIB, 4 * MIB, 4096):
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 1]))
