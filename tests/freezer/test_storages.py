# SPDX-License-Identifier: Apache-2.0
"""Jobs with storages elsewhere: what a record says is enough to restore, but for the secrets.

Passwords and secret keys lie with the client, in the environment of its scheduler.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from freezer_osbrick.dashboard import settings
from tests.freezer import rig
from tests.freezer.client import Person
from tests.freezer.test_jobs import action_of, volumes_named
from tests.functional.backup_host import MIB, BackupHost, data_of
from tests.functional.stores import environment

# The user and the password that the FTP server of the stores' tests knows.
FTP = ("backup", "backup-secret")
# Of an identity that is not used here.
NOTHING = {"Effect": "Deny", "Action": ["s3:*"], "Resource": ["*"]}
POLICY = {"Version": "2012-10-17", "Statement": [NOTHING]}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a job says of each storage, at ``s3`` and ``ftp``, and the ``secret`` of S3."""
    folder = tmp_path_factory.mktemp("servers")
    s3 = environment.server("s3_server.py", json.dumps(POLICY), log=folder / "s3.log")
    ftp = environment.server("ftp_server.py", str(folder), log=folder / "ftp.log")
    with s3 as bucket, ftp as ports:
        admin = bucket["identities"]["admin"]
        yield {
            "s3": {
                "storage": "s3",
                "container": "vault/of the project",
                "endpoint": bucket["url"],
                "access_key": admin["access_key"],
            },
            "ftp": {
                "storage": "ftp",
                "container": "/backups",
                "ftp_host": "127.0.0.1",
                "ftp_port": ports["ftp"],
                "ftp_username": FTP[0],
            },
            "secret": admin["secret_key"],
        }


@pytest.fixture(scope="module")
def scheduler(
    host: BackupHost, freezer_api: str, servers: dict[str, Any]
) -> Iterator[rig.Scheduler]:
    """One that knows the secrets."""
    secrets = {"SECRET_KEY": servers["secret"], "FREEZER_OSBRICK_PASSWORD": FTP[1]}
    with rig.scheduler(host.folder / "scheduler", {**host.environment("demo"), **secrets}) as one:
        yield one


@pytest.mark.parametrize("kind", ["s3", "ftp"])
def test_a_sealed_backup_comes_back_by_its_record(
    host: BackupHost,
    person: Person,
    scheduler: rig.Scheduler,
    servers: dict[str, Any],
    kind: str,
    tmp_path: pathlib.Path,
) -> None:
    volume_id = host.bench.volume(1, name=f"data on {kind}").id
    host.write(volume_id, 10 * MIB, data_of(1, 8 * MIB))
    digest = host.digest(volume_id)
    key_file = tmp_path / "key"
    key_file.write_text("a long secret\n")
    sealed = {"single_volume_id": volume_id, "encrypt_pass_file": str(key_file)}
    assert person.run(action_of(host, "backup", kind, **sealed, **servers[kind])) == "success"
    (record,) = person.records(kind)
    metadata = record["backup_metadata"]
    assert metadata["encrypted"] is True
    restore = settings.of_restore(metadata, {"osbrick_volumes": [volume_id]})
    told = {key for key in restore if restore[key] != metadata.get(key)}
    assert told == {"action", "restore_from_date", "single_volume_id"}
    assert person.run({**restore, "new_name": f"{kind}-again"}) == "success"
    (restored,) = volumes_named(host, f"{kind}-again")
    assert host.digest(restored) == digest
    for secret in (servers["secret"], FTP[1], "a long secret"):
        assert secret not in json.dumps(record) + scheduler.log()
    assert host.leftovers() == {}
