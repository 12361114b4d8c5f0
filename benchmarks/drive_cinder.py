# SPDX-License-Identifier: Apache-2.0
"""Cinder's own posix backup driver, without Cinder's services: run in an environment with Cinder.

The driver class is the real one and is called as cinder-backup's manager calls it; what stands
behind it (database, notifications) is replaced. Settings are Cinder's defaults but for the
compression.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import uuid
from typing import Any

from cinder import context, objects, utils
from cinder.backup.drivers import posix
from cinder.volume import volume_utils
from oslo_config import cfg

GIB = 1 << 30
VOLUME = "5c1f2d6e-6f0b-4b06-9f4c-000000000001"


class Backup:
    """A row of Cinder's table of backups, as far as the driver looks at it."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __getitem__(self, field: str) -> Any:
        return getattr(self, field)

    def save(self) -> None:
        pass

    def refresh(self) -> None:
        pass

    @contextlib.contextmanager
    def as_read_deleted(self) -> Any:
        yield


class Database:
    """What the driver asks the database for."""

    def __init__(self, gib: int) -> None:
        self._gib = gib

    def volume_get(self, _context: Any, _volume_id: str) -> dict[str, int]:
        return {"size": self._gib}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithm", required=True)
    parser.add_argument("verb", choices=["backup", "restore"])
    parser.add_argument("folder", help="holds the backups")
    parser.add_argument("state", help="file with the rows of the backups made so far")
    parser.add_argument("image", help="to back up, or to restore to")
    args = parser.parse_args()

    cfg.CONF([], project="cinder", default_config_files=[])
    cfg.CONF.set_override("backup_compression_algorithm", args.algorithm)
    cfg.CONF.set_override("connection", "sqlite://", group="database")  # never asked
    volume_utils.notify_about_backup_usage = lambda *_args, **_kwargs: None

    rows: list[dict[str, Any]] = []
    if os.path.exists(args.state):
        with open(args.state) as file:
            rows = json.load(file)
    backups = {row["id"]: Backup(**row, status="restoring") for row in rows}
    objects.register_all()
    objects.Backup.get_by_id = lambda _context, backup_id: backups[backup_id]

    driver = posix.PosixBackupDriver(context.get_admin_context(), backup_path=args.folder)
    gib = -(-os.path.getsize(args.image) // GIB)
    driver.db = Database(gib)
    if args.verb == "backup":
        row = _new_row(rows, gib)
        backup = Backup(**row, status="creating")
        with open(args.image, "rb") as volume:
            driver.backup(backup, utils.tpool_wrap(volume), backup_metadata=False)
        row |= {"container": backup.container, "service_metadata": backup.service_metadata}
        with open(args.state, "w") as file:
            json.dump([*rows, row], file)
    else:
        # A volume that Cinder's API has just made for the restore. The manager opens it with "wb",
        # which would cut a plain file short where a block device keeps its size.
        with open(args.image, "rb+") as volume:
            newest = backups[rows[-1]["id"]]
            driver.restore(newest, VOLUME, utils.tpool_wrap(volume), volume_is_new=True)


def _new_row(rows: list[dict[str, Any]], gib: int) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "parent_id": rows[-1]["id"] if rows else None,
        "volume_id": VOLUME,
        "size": gib,
        "container": None,
        "service_metadata": None,
        "display_name": "bench",
        "display_description": "",
        "created_at": str(datetime.datetime.now(datetime.timezone.utc)),
    }


if __name__ == "__main__":
    main()
