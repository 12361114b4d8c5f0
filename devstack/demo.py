#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Back up and restore volumes of a real Cinder through freezer-agent, and prove every byte of it.

What ``tox -e demo`` runs: brings up a cloud of its own, makes two volumes with file systems, backs
them up full and incremental, restores them, compares check sums, looks for leftovers in the cloud,
prints a table, and takes everything down. Exit status 0: every byte is right, nothing is left.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import pathlib
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence

from demonstration import guest, proof, system
from demonstration.errors import DemoError
from demonstration.freezer import Agent, Run
from demonstration.table import Table
from embedded.embedded_cloud import lifecycle
from embedded.embedded_cloud.client import EmbeddedCloud
from embedded.embedded_cloud.errors import CloudError
from embedded.embedded_cloud.state import CHECKOUT, default_venv

MIB = 1 << 20
FILES = 450  # MiB of this machine's files, in each volume
RANDOM_BYTES = 96 * MIB
SPACE = 6 * 10**9  # bytes on disk, of which a plain directory needs most


class Volume:
    """A volume of the demo: who uses it, and what it held at the instants of its backups."""

    def __init__(self, volume_id: str, name: str, kind: str, using: guest.Guest) -> None:
        self.id = volume_id
        self.name = name
        self.kind = kind
        self.guest = using
        self.sums: list[str] = []  # SHA-256, one a backup


class Demo:
    """The story, told as it happens.

    :param files: MiB of this machine's files that each volume gets.
    """

    def __init__(
        self, cloud: EmbeddedCloud, folder: pathlib.Path, venv: pathlib.Path, files: int
    ) -> None:
        self.began = time.monotonic()
        self.cloud = cloud
        self.folder = folder
        self.venv = venv
        self.files = files
        self.table = Table("Step", "Volume", "Bytes", "Seconds", "MB/s", "Stored", "SHA-256")
        self.guests: list[guest.Guest] = []
        self._agent: Agent | None = None

    def say(self, line: str) -> None:
        print(f"[{time.monotonic() - self.began:5.1f} s] {line}", flush=True)

    @property
    def agent(self) -> Agent:
        if self._agent is None:
            self._agent = Agent(self.cloud, self.folder)
        return self._agent

    @property
    def mounts(self) -> bool:
        """Whether volumes are block devices, so that their file systems can be mounted."""
        return bool(self.cloud.state.settings.get("attach") == "loop")

    # -- the steps

    def play(self) -> None:
        """Everything between bringing the cloud up and taking it down.

        :raises DemoError: a step failed, a byte differs, or something is left.
        """
        data, archive = self.make_volumes()
        self.say("the backups, as one would type the first of them:")
        self.say("  " + shlex.join(self.agent.command("backup", data.id, [])))
        full = self.back_up_in_use(data, incremental=False)
        self.back_up_available(archive, incremental=False)
        self.change(data, archive)
        self.back_up_in_use(data, incremental=True)
        self.back_up_available(archive, incremental=True)
        restored = [self.restore(data, data.sums[-1], "clone", "restore over existing")]
        self.cloud.delete_volume(archive.id)
        self.say(f"{archive.name} is deleted from the cloud")
        restored.append(self.restore(archive, archive.sums[-1], "new", "restore of deleted"))
        date = datetime.datetime.fromtimestamp(full.volume["time_stamp"], datetime.timezone.utc)
        restored.append(
            self.restore(
                data,
                data.sums[0],
                "clone",
                "restore by date, the full",
                date.strftime("%Y-%m-%dT%H:%M:%SZ"),
            )
        )
        for device, volume in zip(restored, (data, archive, data), strict=True):
            words = proof.check_file_system(device, volume.kind)
            if self.mounts:
                words += "; " + proof.read_files(
                    device, volume.kind, self.folder / "restored" / guest.MOUNT_POINT
                )
            self.say(f"restored {volume.name} ({volume.kind}): {words}")
        data.guest.leave()

    def bring_up(self) -> None:
        self.say(f"bringing the cloud up (its Python environment: {self.venv})")
        lifecycle.up(self.cloud.state, self.venv, lambda line: self.say("  " + line))
        if self.mounts:
            self.say("as root: volumes are loop devices, and servers mount their file systems")
        else:
            why = "no loop devices here" if system.is_root() else "not root"
            self.say(f"{why}: volumes are file paths, not block devices, and nothing is mounted")

    def make_volumes(self) -> tuple[Volume, Volume]:
        data = self._make("server-data", "ext4", 0)
        archive = self._make("archive", "xfs", 1)
        archive.guest.leave()
        self.cloud.release_server(archive.id)
        self.say("server-data stays attached to its server: in-use; archive is detached: available")
        return data, archive

    def _make(self, name: str, kind: str, turn: int) -> Volume:
        made = self.cloud.create_volume(
            1, name=name, description="of the demo", metadata={"file_system": kind}
        )
        device = self.cloud.pretend_server(made["id"])["device"]
        user = guest.MountedGuest if self.mounts else guest.FileGuest
        using = user(device, kind, self.folder / name)
        self.guests.append(using)
        files = guest.real_files(self.files * MIB, turn)
        using.fill(files, RANDOM_BYTES)
        size = sum(path.lstat().st_size for path in files)
        self.say(
            f"{name}: 1 GiB, {kind} with {len(files)} files of this machine "
            f"({size // MIB} MiB) and random data, at {device}"
        )
        return Volume(made["id"], name, kind, using)

    def back_up_in_use(self, volume: Volume, *, incremental: bool) -> Run:
        """Its server holds still until the snapshot is there, and writes on while we read."""
        statuses = set()
        still = True
        volume.guest.hold_still()

        def look() -> None:
            nonlocal still
            statuses.add(self.cloud.cinder("GET", f"/volumes/{volume.id}")["volume"]["status"])
            if still and self._is_frozen(volume.id):
                volume.guest.go_on()
                volume.guest.write_steadily()
                still = False

        try:
            volume.sums.append(proof.sha256(volume.guest.device))
            run = self.agent.backup(volume.id, incremental=incremental, meanwhile=look)
        finally:
            if still:
                volume.guest.go_on()
            written = volume.guest.stop()
        if still or not written:
            raise DemoError("the backup ended before its snapshot was seen: nothing was proved")
        if statuses != {"in-use"}:
            raise DemoError(f"{volume.name} was {' and '.join(sorted(statuses))}, not only in-use")
        self._tell_backup(volume, run, incremental)
        self.say(f"  in-use all the time; its server wrote {written / MIB:.1f} MiB meanwhile")
        return run

    def _is_frozen(self, volume_id: str) -> bool:
        found = self.cloud.cinder("GET", f"/snapshots/detail?volume_id={volume_id}")["snapshots"]
        return any(snapshot["status"] == "available" for snapshot in found)

    def back_up_available(self, volume: Volume, *, incremental: bool) -> Run:
        with self._device_of(volume.id) as device:
            volume.sums.append(proof.sha256(device))
        run = self.agent.backup(volume.id, incremental=incremental)
        self._tell_backup(volume, run, incremental)
        return run

    def _tell_backup(self, volume: Volume, run: Run, incremental: bool) -> None:
        step = "incremental backup" if incremental else "full backup"
        told = run.volume
        if told["level"] != int(incremental):
            raise DemoError(f"the {step} of {volume.name} became level {told['level']}")
        self._row(step, volume, told["bytes_read"], run.seconds, told["bytes_stored"], None)
        self.say(
            f"{step} of {volume.name}: {told['bytes_read'] // MIB} MiB read, "
            f"{told['bytes_stored'] / MIB:.1f} MiB stored, {run.seconds:.1f} s"
        )

    def change(self, data: Volume, archive: Volume) -> None:
        data.guest.change()
        with self._device_of(archive.id) as device:
            archive.guest.device = device
            archive.guest.arrive()
            archive.guest.change()
            archive.guest.leave()
        self.say("both volumes are changed: files removed, changed and added, scattered writes")

    def restore(
        self, volume: Volume, expected: str, target: str, step: str, date: str | None = None
    ) -> str:
        """Restore, compare; returns the device of the restored volume, which a server holds now."""
        run = self.agent.restore(volume.id, date=date)
        told = run.volume
        if told["target"] != target or told["restored_volume_id"] == volume.id:
            raise DemoError(f"{volume.name} was restored into the wrong volume: {told}")
        device = self.cloud.pretend_server(told["restored_volume_id"])["device"]
        equal = proof.sha256(device) == expected
        self._row(
            step,
            volume,
            told["size_gib"] << 30,
            run.seconds,
            None,
            "equal" if equal else "DIFFERENT",
        )
        into = "a clone of it" if target == "clone" else "a new volume"
        self.say(
            f"{step}: {volume.name} into {into}, {told['bytes_written'] / MIB:.1f} MiB "
            f"written, {run.seconds:.1f} s, SHA-256 {'equal' if equal else 'DIFFERENT'}"
        )
        if not equal:
            raise DemoError(f"{step}: {volume.name} is not what was backed up")
        return device

    @contextlib.contextmanager
    def _device_of(self, volume_id: str) -> Iterator[str]:
        """The device of an available volume, attached to a server meanwhile."""
        yield self.cloud.pretend_server(volume_id)["device"]
        self.cloud.release_server(volume_id)
        self.cloud.wait(f"/volumes/{volume_id}", "available")

    def _row(
        self,
        step: str,
        volume: Volume,
        size: int,
        seconds: float,
        stored: int | None,
        checked: str | None,
    ) -> None:
        rate = size / seconds / 1e6
        name = f"{volume.name} ({volume.kind})"
        self.table.add(step, name, size, seconds, rate, stored, checked)

    # -- the end

    def prove_clean(self) -> None:
        """:raises DemoError: something of ours is left in the cloud or on this machine."""
        found = proof.leftovers(self.cloud, self.agent.state)
        print("\nWhat is left of ours, asking Cinder as the admin over all projects:")
        for what, count in found.items():
            print(f"  {what:<30} {count}", flush=True)
        left = [what for what, count in found.items() if count]
        if left:
            raise DemoError(f"the backups and restores left {' and '.join(left)}")


def _introduce(folder: pathlib.Path) -> None:
    print(
        "freezer_osbrick backs up and restores two volumes of a cloud of its own. This takes\n"
        "some four minutes, the first time two more."
    )
    print(
        "It needs the Debian packages python3-venv, e2fsprogs and xfsprogs (what is missing is\n"
        f"installed by apt-get where this runs as root), and {SPACE // 10**9} GB in {folder}.",
        flush=True,
    )


def _explain_keep(demo: Demo) -> None:
    launcher = CHECKOUT / "devstack" / "embedded" / "cloud.py"
    command = pathlib.Path(sys.executable).with_name("freezer-osbrick")
    state = demo.cloud.state.folder
    print(
        f"""
The cloud stays up. To use it:
    . {state}/demorc
    {command} list --repository {demo.agent.repository}
To take it down, volumes, backups and all:
    {launcher} down --wipe --state {state} && rm -rf {demo.folder}""",
        flush=True,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--folder",
        type=pathlib.Path,
        metavar="DIR",
        default=CHECKOUT / ".embedded-cloud" / "demo",
        help="for the cloud, its volumes and the backups (default: %(default)s)",
    )
    parser.add_argument(
        "--venv",
        type=pathlib.Path,
        default=default_venv(),
        metavar="DIR",
        help="the cloud's Python environment (default: %(default)s)",
    )
    parser.add_argument(
        "--files",
        type=int,
        choices=range(1, FILES + 1),
        default=FILES,
        metavar="MIB",
        help="of this machine's files, which each volume gets (default and most: %(default)s)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave the cloud, the volumes and the backups as they are at the end",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo; returns the exit status."""
    options = _parse(arguments)
    # mkfs, losetup and e2fsck lie where a plain shell may not look
    os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    folder = options.folder.expanduser().absolute()
    venv = options.venv.expanduser().absolute()
    demo = Demo(EmbeddedCloud(folder / "cloud"), folder, venv, options.files)
    _introduce(folder)
    try:
        _play(demo, keep=options.keep)
    except (DemoError, CloudError, OSError) as error:
        print(f"demo.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo.py: interrupted", file=sys.stderr)
        return 130
    demo.say("every byte is right, and nothing is left")
    return 0


def _play(demo: Demo, *, keep: bool) -> None:
    system.provide_packages(demo.say)
    if demo.folder.exists():  # of an earlier demo that was kept or killed
        _take_down(demo)
    demo.folder.mkdir(parents=True)
    if shutil.disk_usage(demo.folder).free < SPACE:
        raise DemoError(f"less than {SPACE // 10**9} GB are free in {demo.folder}: give --folder")
    try:
        demo.bring_up()
        try:
            demo.play()
        finally:
            if demo.table.rows:
                print(f"\n{demo.table}", flush=True)
        demo.prove_clean()
    finally:
        if keep and demo.cloud.state.exists():
            _explain_keep(demo)
        else:
            demo.say("taking everything down")
            for using in demo.guests:
                using.stop()
            _take_down(demo)


def _take_down(demo: Demo) -> None:
    guest.unmount_all(demo.folder)
    demo.cloud.down(wipe=True)
    shutil.rmtree(demo.folder)


if __name__ == "__main__":
    sys.exit(main())
