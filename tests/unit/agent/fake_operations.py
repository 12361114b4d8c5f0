# SPDX-License-Identifier: Apache-2.0
"""Operations that do nothing but write down what they were asked for.

Behaviour comes from the environment: FAKE_CALLS (file, a JSON line a call), FAKE_FAIL (reason of a
failed volume, or with FAKE_FAIL_AT of what fails at that repository), FAKE_PRINT (noise for
standard output), FAKE_KILL (a signal to the process itself).
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Sequence
from typing import Any

from freezer_osbrick import errors, named_repositories
from freezer_osbrick.operations import backup, catalogue, context, restore
from freezer_osbrick.operations.catalogue import BackupSummary
from freezer_osbrick.operations.report import CopyReport, RunReport, VolumeReport
from freezer_osbrick.pipeline.progress import ProgressEvent

BACKUP_ID = "b" * 32
BACKUP_TIME = 1_600_000_000
LEVEL = 3
SUMMARY = BackupSummary(
    backup_id=BACKUP_ID,
    time_stamp=BACKUP_TIME,
    level=LEVEL,
    volume_id="v1",
    volume_name="data",
    project_id="p1",
    size=2**30,
    bytes_stored=1000,
    backup_name="nightly",
    hostname="web1",
)


def install() -> None:
    """Put the fakes where the agent looks for the operations."""
    context.Context.open = classmethod(_open)  # type: ignore[assignment, method-assign]
    backup.backup = _backup  # type: ignore[assignment]
    backup.preview = _preview_backup  # type: ignore[assignment]
    restore.restore = _restore  # type: ignore[assignment]
    restore.preview = _preview_restore  # type: ignore[assignment]
    catalogue.list_backups = _list_backups  # type: ignore[assignment]
    catalogue.remove_backups = _remove_backups  # type: ignore[assignment]


def volume(volume_id: str, repositories: Sequence[str] = ("one",)) -> VolumeReport:
    """What a run tells of a volume."""
    reason = os.environ.get("FAKE_FAIL")
    where = os.environ.get("FAKE_FAIL_AT")
    report = VolumeReport(
        volume_id,
        state="partial" if where else "error" if reason else "success",
        reason=reason,
        backup_id=BACKUP_ID,
        level=LEVEL,
        time_stamp=BACKUP_TIME,
    )
    if len(repositories) > 1:
        report.copies = [
            CopyReport(name, "error" if name == where else "success") for name in repositories
        ]
        report.repository = next(name for name in repositories if name != where)
    return report


def _open(cls: Any, conf: Any, *, session: Any = None, key_file: str | None = None) -> Any:
    _note(
        "open",
        workers=conf.osbrick.workers,
        compression_level=conf.osbrick.compression_level,
        region_name=conf.cloud.region_name,
        interface=conf.cloud.interface,
        key_file=key_file,
        verify=session.verify,
        timeout=session.timeout,
        trust_id=session.auth._trust_id,
    )
    return cls(conf, session, key_file)


def _backup(
    context: Any, urls: Sequence[str], request: backup.BackupRequest, progress: Any = None
) -> RunReport:
    defaults = {option.dest: option.default for option in named_repositories.OPTS}
    given = []
    for url in urls:
        settings = named_repositories.settings_of(context.conf, url)
        given.append({name: value for name, value in settings.items() if value != defaults[name]})
    _note(
        "backup",
        url=_alone(urls),
        settings=_alone(given),
        parallel=_parallel(context),
        **_facts(request),
    )
    _misbehave()
    chosen = request.volume_ids or ("v1", "v2")
    progress(ProgressEvent(chosen[0], "snapshot"))
    for done in (2**30, 2**30 + 1):
        progress(ProgressEvent(chosen[0], "read", done, 2**31))
    return RunReport([volume(volume_id, urls) for volume_id in chosen])


def _restore(
    context: Any, urls: Sequence[str], request: restore.RestoreRequest, progress: Any = None
) -> RunReport:
    _note("restore", url=_alone(urls), parallel=_parallel(context), **_facts(request))
    _misbehave()
    report = RunReport([volume(volume_id) for volume_id in request.volume_ids or ("v1", "v2")])
    for restored in report.volumes:
        restored.restored_volume_id = "new-volume"
    return report


def _preview_backup(context: Any, request: backup.BackupRequest) -> RunReport:
    """Volume v1 exists, v2 is left out."""
    return RunReport(
        [
            VolumeReport("v1", volume_name="data", size_gib=1, state="waiting"),
            VolumeReport("v2", state="excluded", reason="Its state is 'error'."),
        ]
    )


def _preview_restore(context: Any, url: str, request: restore.RestoreRequest) -> RunReport:
    """Nothing was backed up before 2020."""
    if request.before is not None and request.before < BACKUP_TIME:
        return RunReport([VolumeReport("v1", state="error", reason="There is no such backup.")])
    return RunReport([VolumeReport("v1", backup_id=BACKUP_ID, state="waiting")])


def _facts(request: Any) -> dict[str, Any]:
    """The request; of its selection what is chosen."""
    facts = dataclasses.asdict(request)
    facts["selection"] = {key: value for key, value in facts["selection"].items() if value}
    filters = facts["selection"].pop("filters")
    facts["selection"].update({key: value for key, value in filters.items() if value})
    return facts


def _parallel(context: Any) -> int:
    return int(context.conf.osbrick.parallel)


def _list_backups(context: Any, url: str, **filters: Any) -> list[BackupSummary]:
    _note("list", url=url, **filters)
    _fail_at(url)
    return [SUMMARY]


def _remove_backups(context: Any, url: str, **filters: Any) -> list[BackupSummary]:
    _note("remove", url=url, **filters)
    _fail_at(url)
    return [SUMMARY]


def _alone(values: Sequence[Any]) -> Any:
    """The only one, or all of several."""
    return values[0] if len(values) == 1 else list(values)


def _fail_at(url: str) -> None:
    if url == os.environ.get("FAKE_FAIL_AT"):
        raise errors.StoreUnavailable(os.environ["FAKE_FAIL"])


def _note(verb: str, **facts: Any) -> None:
    with open(os.environ["FAKE_CALLS"], "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"verb": verb, **facts}) + "\n")


def _misbehave() -> None:
    if "FAKE_PRINT" in os.environ:
        print(os.environ["FAKE_PRINT"])
    if "FAKE_KILL" in os.environ:
        try:
            signal.raise_signal(int(os.environ["FAKE_KILL"]))
        finally:
            _note("taken down")
