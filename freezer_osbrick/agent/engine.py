# SPDX-License-Identifier: Apache-2.0
"""The engine that Freezer loads for ``--engine osbrick``.

Freezer asks it for a backup or a restore with the words of its own storages (levels, dates,
names); it passes them on to the operations, which do the work. Blocks never flow through
Freezer's storage objects.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from freezer.engine import engine as freezer_engine
from oslo_config import cfg
from oslo_log import log

from freezer_osbrick import errors, named_repositories
from freezer_osbrick.agent import arguments, ending, options, progress, record, settings

if TYPE_CHECKING:
    from freezer_osbrick.operations import context as operations_context

CONF = cfg.CONF
LOG = log.getLogger(__name__)

REQUEST_TIMEOUT = 300  # seconds; Cinder waits for the storage before it answers


class OsbrickEngine(freezer_engine.BackupEngine):
    """
    :ivar report: of the last backup or restore; None after a dry run.
    :ivar record: what Freezer will say of the backup once its job has ended.
    """

    def __init__(self, storage: Any = None, dry_run: bool = False, **_stream_settings: Any) -> None:
        super().__init__(storage=storage)
        self.dry_run = bool(dry_run)
        self.backup_name: str | None = None
        self.report: Any = None
        self.record: dict[str, Any] = {}
        self._arguments: Any = None

    @property
    def name(self) -> str:
        return "osbrick"

    def bind(self, run: Any) -> None:
        """Take Freezer's arguments of this run, and find the volume where only its name was given.

        :raises errors.ResourceMissing: no volume has that name.
        :raises errors.BadRequest: several volumes have that name.
        """
        self._arguments = run
        vars(run).update(self._run.osbrick.places[0].words if self._run.osbrick.places else {})
        selection = self._run.osbrick
        if selection.volume_name and not selection.volumes:
            volume_id = find_volume(run.client_manager.get_cinder(), selection.volume_name)
            arguments.set_volumes(
                run, dataclasses.replace(selection.volumes, volume_ids=(volume_id,))
            )

    def backup(
        self,
        backup_resource: str,
        hostname_backup_name: str,
        incremental: bool,
        max_level: Any,
        always_level: Any,
        restart_always_level: Any,
        queue_size: int = 2,
    ) -> int | None:
        """Back the volume up.

        :returns: the level of the backup; None after a dry run.
        :raises errors.OsbrickError: a volume could not be backed up, or not to all storages.
        """
        from freezer_osbrick.operations import backup, hinting

        run = self._run
        request = backup.BackupRequest(
            volume_ids=run.osbrick.volumes.volume_ids,
            selection=dataclasses.replace(run.osbrick.volumes, volume_ids=()),
            backup_name=self.backup_name or run.backup_name,
            hostname=run.hostname,
            incremental=bool(incremental),
            content=run.content,
            exclude=excluded(run),
            fallback_to_blocks=bool(run.fallback_to_blocks),
            cold=bool(run.cold),
            max_level=int(max_level) if max_level else None,
            always_level=int(always_level) if always_level else None,
            restart_always_level=float(restart_always_level) if restart_always_level else None,
            report_file=run.report_file,
            hints=hinting.HintPolicy(
                use=not run.no_hints,
                keep=run.keep_snapshot,
                audit=run.audit,
                full_read_every=run.full_read_every,
            ),
        )
        if self.dry_run:
            with self._context() as context:
                for volume in backup.preview(context, request).volumes:
                    self._say_what_would_be_backed_up(volume, request.backup_name)
            return None
        with self._context() as context:
            clean_up(context)
            self.report = backup.backup(
                context, run.osbrick.repositories, request, progress=progress.Logged(LOG)
            )
        if not self.report.ok:
            raise record.failure(self.report)
        done = record.done(self.report)
        # By this time a restore finds the backups of all volumes.
        run.time_stamp = max(int(volume.time_stamp) for volume in done)
        return max(int(volume.level) for volume in done)

    def restore(
        self,
        hostname_backup_name: str,
        restore_resource: str,
        overwrite: bool,
        recent_to_date: int | None,
        backup_media: str | None = None,
    ) -> None:
        """Restore the volume's newest backup that is not younger than ``recent_to_date``.

        A volume that exists is not written to: a volume made of its snapshot is.

        :raises errors.OsbrickError: the volume could not be restored.
        """
        from freezer_osbrick.operations import consent, restore

        run = self._run
        if run.remove_old_vol and not self.dry_run:
            consent.to_remove_old_volumes(given=run.yes)
        request = restore.RestoreRequest(
            volume_ids=run.osbrick.volumes.volume_ids,
            selection=dataclasses.replace(run.osbrick.volumes, volume_ids=()),
            backup_name=run.osbrick.backup_name,
            hostname=run.osbrick.hostname,
            before=recent_to_date,
            volume_type=run.volume_type,
            availability_zone=run.availability_zone,
            new_name=run.new_name,
            size_gib=run.size,
            meta_override=run.meta_override,
            in_place=run.in_place,
            verify=run.verify,
            recreate_vol_on_error=run.recreate_vol_on_error,
            remove_old_vol=run.remove_old_vol,
            to_folder=run.to_folder,
            report_file=run.report_file,
        )
        if self.dry_run:
            self._say_what_would_be_restored(request)
            return
        with self._context() as context:
            clean_up(context)
            self.report = restore.restore(
                context, run.osbrick.repositories, request, progress=progress.Logged(LOG)
            )
        if not self.report.ok:
            raise record.failure(self.report)
        for volume in record.done(self.report):
            if run.to_folder:
                LOG.info("Backup %s is restored to %s.", volume.backup_id, volume.target)
                continue
            LOG.info(
                "Volume %s of backup %s is restored to volume %s.",
                volume.volume_id,
                volume.backup_id,
                volume.restored_volume_id,
            )

    def remove(self, backup_name: str, before: int) -> list[dict[str, Any]]:
        """Remove this host's backups of that name that were made at ``before`` or earlier.

        Where a volume was given, only its backups.

        :raises errors.OsbrickError: a storage could not do it; the others have.
        """
        from freezer_osbrick.operations import catalogue

        run = self._run

        def one(context: operations_context.Context, repository: str) -> list[Any]:
            return catalogue.remove_backups(
                context,
                repository,
                backup_name=backup_name,
                hostname=run.hostname,
                before=before,
                dry_run=self.dry_run,
                volume_id=run.osbrick.volume_id,
            )

        found, failed = self._of_each(one)
        removed = [backup for _, backups in found for backup in backups]
        for backup in removed:
            verb = "would be" if self.dry_run else "is"
            LOG.info("Backup %s of volume %s %s removed.", backup.backup_id, backup.volume_id, verb)
        if failed:
            raise errors.OsbrickError(" ".join(map(str, failed)))
        return [backup.to_dict() for backup in removed]

    def info(self) -> list[Any] | None:
        """The backups of the repository as ``[fields, rows]``; None where there is none."""
        found = self._list()
        rows = [record.row(backup) for _, backups in found for backup in backups]
        fields = list(record.INFO_FIELDS)
        if len(self._run.osbrick.places) > 1:
            fields.append("Storage")
            where = [repository for repository, backups in found for _ in backups]
            rows = [[*row, repository] for row, repository in zip(rows, where, strict=True)]
        return [fields, rows] if rows else None

    # Freezer's own engines are fed by a stream of files; these three are abstract there.

    def backup_data(self, backup_path: str, manifest_path: str) -> Iterator[bytes]:
        raise errors.BadRequest("Engine osbrick cannot be read as a stream of files.")

    def restore_level(
        self, restore_path: str, read_pipe: Any, backup: Any, except_queue: Any
    ) -> None:
        raise errors.BadRequest("Engine osbrick cannot be fed by a stream of files.")

    def metadata(self, backup_resource: str) -> dict[str, Any]:
        return {"engine_name": self.name, "volume_id": backup_resource}

    @property
    def _run(self) -> Any:
        if not hasattr(self._arguments, "osbrick"):
            raise errors.ConfigurationError(
                "Freezer did not hand its arguments over: this version of Freezer is not supported."
            )
        return self._arguments

    def _list(self) -> list[tuple[str, list[Any]]]:
        """The backups of each storage. One of several that cannot be read is told of, and left
        out."""
        from freezer_osbrick.operations import catalogue

        selection = self._run.osbrick

        def one(context: operations_context.Context, repository: str) -> list[Any]:
            return catalogue.list_backups(
                context,
                repository,
                volume_id=selection.volume_id,
                backup_name=selection.backup_name,
                hostname=selection.hostname,
            )

        found, failed = self._of_each(one)
        if not found:
            raise errors.OsbrickError(" ".join(map(str, failed)))
        for error in failed:
            sys.stderr.write(f"{error}\n")
        return found

    def _of_each(
        self, one: Callable[[operations_context.Context, str], list[Any]]
    ) -> tuple[list[tuple[str, list[Any]]], list[errors.OsbrickError]]:
        """What there is in each storage, and of several what keeps others from telling."""
        found: list[tuple[str, list[Any]]] = []
        failed: list[errors.OsbrickError] = []
        repositories = self._run.osbrick.repositories
        with self._context() as context:
            for repository in repositories:
                try:
                    found.append((repository, one(context, repository)))
                except errors.OsbrickError as error:
                    if len(repositories) == 1:
                        raise
                    LOG.error("%s: %s", repository, error)
                    failed.append(errors.OsbrickError(f"{repository}: {error}"))
        return found, failed

    def _say_what_would_be_backed_up(self, volume: Any, backup_name: str) -> None:
        if volume.reason:
            LOG.info("Dry run: volume %s would be left out: %s", volume.volume_id, volume.reason)
            return
        LOG.info(
            "Dry run: volume %s (%s, %s GiB) would be backed up to %s as %s.",
            volume.volume_id,
            volume.volume_name or "without a name",
            volume.size_gib,
            self._run.osbrick.where,
            backup_name,
        )

    def _say_what_would_be_restored(self, request: Any) -> None:
        from freezer_osbrick.operations import restore

        with self._context() as context:
            report = restore.preview(context, self._run.osbrick.repositories, request)
        for volume in report.volumes:
            if volume.reason:
                why = f"Volume {volume.volume_id} would be left out: {volume.reason}"
                if volume.state == "error":
                    raise errors.BackupMissing(why)
                LOG.info("Dry run: %s", why)
                continue
            LOG.info(
                "Dry run: backup %s of volume %s would be restored.",
                volume.backup_id,
                volume.volume_id,
            )

    @contextlib.contextmanager
    def _context(self) -> Iterator[operations_context.Context]:
        """What the operations need, with Freezer's own login and nothing on standard output.

        Standard output carries the record that the scheduler reads.
        """
        from freezer_osbrick.operations import context

        run = self._run
        conf = settings.load(CONF, run.client_manager, compressed=run.compression != "none")
        if run.parallel:
            conf.set_override("parallel", run.parallel, group="osbrick")
        for place in run.osbrick.places:
            if place.settings or place.name:
                named_repositories.configure(conf, place.url, place.settings, name=place.name)
        with contextlib.redirect_stdout(sys.stderr), ending.in_order(LOG):
            yield context.Context.open(
                conf,
                session=session_of(run.client_manager),
                key_file=run.encrypt_pass_file or None,
            )


def clean_up(context: operations_context.Context) -> None:
    """Remove what runs of this host left that died, so that no scheduler leaves it for ever.

    What cannot be removed now does not keep this run from its work: the next one tries again.
    """
    from freezer_osbrick.operations import cleanup

    if not context.ledger.runs():
        return
    try:
        report = cleanup.cleanup_own(context.cloud, context.host, context.ledger)
    except errors.OsbrickError as error:
        LOG.warning("What earlier runs left could not be removed: %s", error)
        return
    for item in report.removed:
        LOG.info("%s %s, which the dead run %s left, is removed.", item.kind, item.id, item.run)
    for item in report.returned:
        LOG.warning(
            "Volume %s, which the dead run %s worked on, is given back: %s",
            *(item.id, item.run, item.reason),
        )
    for item in report.failed:
        LOG.warning(
            "%s %s, which the dead run %s left, could not be removed: %s",
            *(item.kind, item.id, item.run, item.reason),
        )


def excluded(run: Any) -> tuple[str, ...]:
    """The patterns of Freezer's ``--exclude``: one, several between commas, or a list.

    :raises errors.BadRequest: there are some, and no files to leave out.
    """
    patterns = tuple(options.parse_list(run.exclude)) if run.exclude else ()
    if run.content == "blocks" and (patterns or run.fallback_to_blocks):
        raise errors.BadRequest("--exclude and --fallback-to-blocks need --content files.")
    return patterns


def session_of(clients: Any) -> Any:
    """Freezer's Keystone session, which knows passwords, tokens and trusts.

    Freezer switches the check of certificates off even where OS_CACERT names whom to trust, and
    waits for ever for an answer.
    """
    session = clients.sess
    authority = clients.swift_args.get("cacert")
    if authority and not clients.swift_args.get("insecure"):
        session.verify = authority
    if session.timeout is None:
        session.timeout = REQUEST_TIMEOUT
    return session


def find_volume(cinder: Any, name: str) -> str:
    """The id of the one volume that has this name.

    :param cinder: openstacksdk's proxy of the block storage service.
    """
    found = [
        volume.id for volume in cinder.volumes(details=False, name=name) if volume.name == name
    ]
    if not found:
        raise errors.ResourceMissing(f"No volume has the name {name!r}.")
    if len(found) > 1:
        raise errors.BadRequest(
            f"{len(found)} volumes have the name {name!r}: give --single-volume-id with one of "
            f"{', '.join(sorted(found))}."
        )
    return str(found[0])
