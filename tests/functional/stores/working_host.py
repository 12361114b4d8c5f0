# SPDX-License-Identifier: Apache-2.0
"""A host at work with a repository that others use at the same time: a process of its own.

    python -m tests.functional.stores.working_host ROLE SEED FOLDER_OR_JSON SCALE

does what the role says again and again, and until it succeeds after its standard input has ended.
It says on its standard output, a JSON object a line, what came of it. A backup is made some times;
each carries in its metadata what must come back.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import select
import sys
import time
from collections.abc import Callable
from typing import Any

from oslo_config import cfg

from freezer_osbrick import errors, opts
from freezer_osbrick.operations.check import check
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.prune import PruneRequest, prune
from freezer_osbrick.operations.verify import VerifyRequest, verify
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.restore import RestoreReader
from freezer_osbrick.repository import catalogue, collection, leases, repository
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.store.base import Store
from freezer_osbrick.store.local import LocalStore
from freezer_osbrick.store.retry import RetryingStore
from tests.unit.care.conftest import volume_backup
from tests.unit.fakes import MemoryDevice

# Seconds in place of hours, so that leases expire and packs are deleted while all are at work;
# longer by a scale for stores whose calls take longer.
SHORT = {"RENEWED_EVERY": 1.0, "TRUSTED_FOR": 6.0, "EXPIRED_AFTER": 12.0, "SETTLES_WITHIN": 1.0}
GRACE = 2.0

SIZE = 3 << 20
BACKUPS = 6


def shorten(scale: float, set_value: Callable[[str, float], None]) -> None:
    """Give each of the times of leases its short value."""
    for name, value in SHORT.items():
        set_value(name, value * scale)


def opened(place: str) -> Store:
    """:param place: a folder, or what an :class:`S3Store` is made with, as JSON."""
    if not place.startswith("{"):
        return LocalStore(place)
    from freezer_osbrick.store.s3 import S3Store

    return RetryingStore(S3Store(**json.loads(place)))


def context_of(repo: Repository) -> Context:
    conf = cfg.ConfigOpts()
    opts.register(conf)
    conf([], project="freezer-osbrick", default_config_files=[], default_config_dirs=[])
    made = Context(conf)
    made.open_repository = lambda url, **options: repo  # type: ignore[method-assign]
    return made


class Host:
    """What the roles do; each gives what it saw."""

    def __init__(self, repo: Repository, seed: int, grace: float) -> None:
        self.repo = repo
        self.grace = grace
        self.random = random.Random(seed)
        self.context = context_of(repo)
        self.volume = f"volume-{seed}"
        self.content = bytearray(self.random.randbytes(SIZE))

    def backup(self) -> dict[str, Any]:
        for _ in range(20):
            start = self.random.randrange(SIZE - 70_000)
            length = self.random.choice([100, 70_000])
            self.content[start : start + length] = self.random.randbytes(length)
        device = MemoryDevice(self.content, writable=False)
        one, record, report = volume_backup(
            self.context, self.repo, self.volume, device, name=digest(self.content)
        )
        backup_id = os.urandom(form.OBJECT_ID_SIZE)
        one.store(backup_id, record, int(time.time()))
        return {"backup": backup_id.hex(), "notes": report.notes}

    def restore(self) -> dict[str, Any]:
        backups = catalogue.backups(self.repo)
        if not backups:
            return {}
        backup = self.random.choice(backups)
        try:
            with leases.Lease(self.repo, "restore", needed=False):
                return {"restored": restored(self.repo, backup)}
        except errors.Damaged:
            if backup.id in {one.id for one in catalogue.backups(self.repo)}:
                raise
            return {"removed meanwhile": backup.id}

    def verify(self) -> dict[str, Any]:
        report = verify(self.context, "", VerifyRequest())
        listed = {one.id for one in catalogue.backups(self.repo)}
        damaged = [one for one in report.backups if one.state != "ok" and one.backup_id in listed]
        assert not damaged, damaged
        return {"verified": len(report.backups)}

    def check(self) -> dict[str, Any]:
        report = check(self.context, "")
        listed = {one.id for one in catalogue.backups(self.repo)}
        problems = [problem for problem in report.problems if problem.backup in {None, *listed}]
        assert not problems, problems
        return {"checked": report.census.backups}

    def gc(self) -> dict[str, Any]:
        below = self.random.choice([0.0, 0.5])
        done = collection.collect(self.repo, grace=self.grace, rewrite_below=below)
        return {"deleted": done.deleted, "rewritten": done.rewritten}

    def prune(self) -> dict[str, Any]:
        lines = prune(self.context, "", PruneRequest(keep_last=3))
        return {"pruned": sum(line.action == "delete" for line in lines)}


def digest(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()


def restored(repo: Repository, backup: Backup) -> str:
    """Restore the backup and compare; its id."""
    device = MemoryDevice(random.randbytes(backup.size))
    manifest = Manifest(repo, bytes.fromhex(backup.id))
    RestoreReader(repo, manifest, device, compare=False, progress=Progress("v")).run()
    assert digest(device.content) == backup.head["volume"]["name"], f"wrong data in {backup.id}"
    return backup.id


def main() -> None:
    role, seed, place, scale = sys.argv[1:]
    shorten(float(scale), functools.partial(setattr, leases))
    host = Host(repository.open_repository(opened(place)), int(seed), GRACE * float(scale))
    work: Callable[[], dict[str, Any]] = getattr(host, role)
    left = BACKUPS if role == "backup" else 1  # rounds that must end well
    while left:
        counts = role == "backup" or bool(select.select([sys.stdin], [], [], 0)[0])
        try:
            told = work()
            left -= counts
        except (errors.BackupMissing, errors.LeaseLost) as error:
            # Removed meanwhile; or this process got no turn for so long that it counted as dead.
            told = {"excused": f"{type(error).__name__}: {error}"}
        print(json.dumps({"role": role, **told}), flush=True)
        if role in ("gc", "prune"):
            time.sleep(0.5)


if __name__ == "__main__":
    main()
