# SPDX-License-Identifier: Apache-2.0
"""Operations that do nothing but write down what they were asked for.

Behaviour comes from the environment: FAKE_CALLS (file, a JSON line a call), FAKE_FAIL (reason of a
failed volume), FAKE_PRINT (noise for standard output), FAKE_KILL (a signal to the process itself).
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import types
from typing import Any

BACKUP_TIME = 1_600_000_000
LEVEL = 3


@dataclasses.dataclass(frozen=True)
class BackupRequest:
    volume_ids: tuple[str, ...]
    backup_name: str
    hostname: str
    incremental: bool = False
    max_level: int | None = None
    always_level: int | None = None
    restart_always_level: float | None = None


@dataclasses.dataclass(frozen=True)
class RestoreRequest:
    volume_ids: tuple[str, ...] = ()
    backup_id: str | None = None
    backup_name: str | None = None
    hostname: str | None = None
    before: int | None = None
    volume_type: str | None = None
    availability_zone: str | None = None
    new_name: str | None = None


@dataclasses.dataclass
class Volume:
    volume_id: str
    state: str = "success"
    reason: str | None = None
    backup_id: str = "b" * 32
    level: int = LEVEL
    time_stamp: int = BACKUP_TIME
    restored_volume_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass
class Report:
    volumes: list[Volume]

    @property
    def ok(self) -> bool:
        return all(volume.state == "success" for volume in self.volumes)


@dataclasses.dataclass
class Context:
    conf: Any
    session: Any

    @classmethod
    def open(cls, conf: Any, *, session: Any = None) -> Context:
        _note(
            "open",
            workers=conf.osbrick.workers,
            compression_level=conf.osbrick.compression_level,
            region_name=conf.cloud.region_name,
            verify=session.verify,
            trust_id=session.auth._trust_id,
        )
        return cls(conf, session)


def backup(context: Any, url: str, request: BackupRequest, progress: Any = None) -> Report:
    _note("backup", url=url, **dataclasses.asdict(request))
    _misbehave()
    event = types.SimpleNamespace(
        volume_id=request.volume_ids[0],
        phase="read",
        done_bytes=2**30,
        total_bytes=2**31,
        stored_bytes=1,
    )
    progress(event)
    return Report([_volume(volume_id) for volume_id in request.volume_ids])


def restore(context: Any, url: str, request: RestoreRequest, progress: Any = None) -> Report:
    _note("restore", url=url, **dataclasses.asdict(request))
    _misbehave()
    volumes = [_volume(volume_id) for volume_id in request.volume_ids]
    for volume in volumes:
        volume.restored_volume_id = "new-volume"
    return Report(volumes)


def list_backups(context: Any, url: str, **filters: Any) -> list[Volume]:
    _note("list", url=url, **filters)
    return [Volume(filters.get("volume_id") or "v1")]


def remove_backups(context: Any, url: str, **filters: Any) -> list[Volume]:
    _note("remove", url=url, **filters)
    return [Volume("v1")]


def install() -> None:
    """Put the fakes where the operations are looked for."""
    import freezer_osbrick.operations as package

    for name, members in {
        "context": (Context,),
        "backup": (BackupRequest, backup),
        "restore": (RestoreRequest, restore),
        "catalogue": (list_backups, remove_backups),
    }.items():
        module = types.ModuleType(f"{package.__name__}.{name}")
        for member in members:
            setattr(module, member.__name__, member)
        sys.modules[module.__name__] = module
        setattr(package, name, module)


def _note(verb: str, **facts: Any) -> None:
    with open(os.environ["FAKE_CALLS"], "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"verb": verb, **facts}) + "\n")


def _volume(volume_id: str) -> Volume:
    reason = os.environ.get("FAKE_FAIL")
    return Volume(volume_id, state="error" if reason else "success", reason=reason)


def _misbehave() -> None:
    if "FAKE_PRINT" in os.environ:
        print(os.environ["FAKE_PRINT"])
    if "FAKE_KILL" in os.environ:
        try:
            signal.raise_signal(int(os.environ["FAKE_KILL"]))
        finally:
            _note("taken down")
