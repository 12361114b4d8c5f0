# SPDX-License-Identifier: Apache-2.0
"""Several hosts, each a process, at one repository on a real store: backups, restores,
verifications, checks, garbage collections and prunes at the same time, one of them killed."""

import functools
import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from freezer_osbrick.operations.check import check
from freezer_osbrick.repository import catalogue, collection, leases, repository
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.store.local import LocalStore
from tests.functional.stores import working_host
from tests.functional.stores.conftest import new_name

CHECKOUT = pathlib.Path(__file__).parents[3]
ROLES = ("backup", "backup", "backup", "restore", "verify", "check", "gc", "gc", "prune")


def begin(role, seed, place, scale):
    module = "tests.functional.stores.working_host"
    command = [sys.executable, "-m", module, role, str(seed), place, str(scale)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=CHECKOUT, text=True, **pipes)


def killed_soon(place, scale, seeds):
    """Backups that die, one after the other, each at another moment."""
    randomness = random.Random(7)
    for seed in seeds:
        process = begin("backup", seed, place, scale)
        process.stdout.readline()  # it has made one
        time.sleep(randomness.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(("kind", "scale"), [("local", 1), ("s3", 3)])
def test_several_hosts_at_once(request, kind, scale, tmp_path, monkeypatch):
    working_host.shorten(scale, functools.partial(monkeypatch.setattr, leases))
    if kind == "local":
        place = str(tmp_path / "store")
        store = LocalStore(place, create=True)
    else:
        server, bucket = request.getfixturevalue("s3_server"), new_name()
        store = server.s3(bucket, create=True)
        login = {"endpoint": server.url, "region": "us-east-1", **server.identities["admin"]}
        place = json.dumps({"bucket": bucket, **login})
    repository.create(store)
    processes = [begin(role, seed, place, scale) for seed, role in enumerate(ROLES)]
    killed_soon(place, scale, range(100, 103))
    told = []
    for process in processes:  # those that back up first; the others end when they have ended
        output, log = process.communicate()
        assert process.returncode == 0, log[-3000:]
        told += [json.loads(line) for line in output.splitlines()]
    nothing_is_lost(store, told, scale)


def nothing_is_lost(store, told, scale):
    repo = repository.open_repository(store)
    backups = catalogue.backups(repo)
    made = {one["backup"] for one in told if "backup" in one}
    listed = {backup.id for backup in backups}
    # Every volume whose host was not killed has its newest backup, and those before it.
    for volume in ("volume-0", "volume-1", "volume-2"):
        assert len([backup for backup in backups if backup.volume_id == volume]) >= 1
    assert len(made) > len(made & listed) > 0, "something is pruned, and not all"
    for backup in backups:
        assert working_host.restored(repo, backup) == backup.id
    assert check(working_host.context_of(repo), "").ok
    # What the killed left behind goes when their leases have expired.
    for _ in range(30):
        collection.collect(repo, grace=working_host.GRACE * scale)
        time.sleep(scale)
    assert left(repo, store) == set()


def left(repo, store):
    """What no backup needs."""
    needed = {
        form.pack_name(pack)
        for backup in catalogue.backups(repo)
        for pack in Manifest(repo, bytes.fromhex(backup.id)).packs
    }
    prefixes = (form.PACKS, form.LEASES, form.DOOMED)
    return {info.name for info in store.list("") if info.name.startswith(prefixes)} - needed
