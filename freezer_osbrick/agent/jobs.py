# SPDX-License-Identifier: Apache-2.0
"""Freezer's jobs (``freezer.job``) with our engine: what they check, ask for, and return."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.agent import options, record


def patch(job: Any) -> None:
    """Adapt the module ``freezer.job``; jobs of other engines are left alone.

    :raises AttributeError: a class or method is missing; nothing was changed then.
    """
    initialise = functools.partial(_initialise, job)
    replaced = [
        (owner, name, _for_ours(getattr(owner, name), ours))
        for owner, name, ours in (
            (job.Job, "__init__", initialise),
            (job.BackupJob, "_validate", _validate_backup),
            (job.BackupJob, "execute", _execute_backup),
            (job.RestoreJob, "execute", _execute_restore),
            (job.AdminJob, "execute", _execute_admin),
            (job.InfoJob, "execute", _execute_info),
        )
    ]
    job.client_manager.get_client_manager  # noqa: B018  (what _initialise stands in for)
    for owner, name, method in replaced:
        setattr(owner, name, method)


def _for_ours(stock: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(stock)
    def method(self: Any, *args: Any) -> Any:
        conf = args[0] if args else self.conf
        if getattr(conf, "engine_name", None) == options.ENGINE_NAME:
            return ours(stock, self, *args)
        return stock(self, *args)

    return method


class _Clients:
    """Stands in for Freezer's client manager while a job is made.

    A stock job logs in once more and discovers Nova, Cinder and Glance, so that it fails in a
    cloud without one of them. Our engine uses none of these clients.
    """

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def get_client_manager(self, conf: Any) -> _Clients:
        return self

    def get_nova(self) -> None:
        return None

    get_cinder = get_glance = get_nova

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


def _initialise(module: Any, stock: Callable[..., None], job: Any, conf: Any, storage: Any) -> None:
    conf.engine.bind(conf)
    manager_module = module.client_manager
    module.client_manager = _Clients(conf.client_manager)
    try:
        stock(job, conf, storage)
    except ValueError as error:  # Freezer's own checks of arguments
        raise errors.BadRequest(str(error)) from error
    finally:
        module.client_manager = manager_module


def _validate_backup(stock: Callable[..., None], job: Any) -> None:
    stock(job)
    if not job.conf.incremental and (job.conf.max_level or job.conf.always_level):
        # Freezer says this for files; for volumes it would silently make full backups.
        raise errors.BadRequest("Levels are for incremental backups: give --incremental, too.")


def _execute_backup(stock: Callable[..., dict[str, Any]], job: Any) -> dict[str, Any]:
    job.engine.backup_name = job.backup_name
    failures = _let_done_volumes_count(job)
    stock_record = stock(job)
    if job.engine.report is None:
        return {}  # a dry run: with a record, freezer-api would list a backup that does not exist
    job.engine.record = record.of_backup(
        stock_record,
        job.engine.report,
        job.conf.osbrick.places,
        incremental=bool(job.conf.incremental),
        key_file=job.conf.encrypt_pass_file or None,
    )
    if failures:
        # Freezer says nothing of a job that fails, and nobody could restore what is stored.
        record.write(job.engine.record, job.conf.metadata_out)
        raise failures[0]
    return job.engine.record


def _let_done_volumes_count(job: Any) -> list[errors.OsbrickError]:
    """Keep a failure of some volumes back until the record is made; it will lie in the list."""
    engine_backup = job.engine.backup
    failures: list[errors.OsbrickError] = []

    @functools.wraps(engine_backup)
    def backup(*args: Any, **settings: Any) -> Any:
        try:
            return engine_backup(*args, **settings)
        except errors.OsbrickError as failure:
            done = record.done(job.engine.report)
            if not done:
                raise
            failures.append(failure)
            job.conf.time_stamp = max(int(volume.time_stamp) for volume in done)
            return max(int(volume.level) for volume in done)

    job.engine.backup = backup
    return failures


def _execute_restore(stock: Callable[..., dict[str, Any]], job: Any) -> dict[str, Any]:
    stock(job)
    report = job.engine.report
    return {} if report is None else record.of_restore(report, job.conf)


def _execute_admin(stock: Callable[..., Any], job: Any) -> dict[str, Any]:
    removal = record.of_removal(job.engine.remove(job.backup_name, job.remove_timestamp))
    # Behind a backup with an age limit Freezer runs this job too, and drops what it returns.
    job.engine.record.update(removal)
    return removal


def _execute_info(stock: Callable[..., Any], job: Any) -> list[Any] | None:
    return job.engine.info()
