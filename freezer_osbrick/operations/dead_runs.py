# SPDX-License-Identifier: Apache-2.0
"""One dead run, and the removal of what it left.

Every volume and snapshot is looked at again, after it is certain that its run is dead, and must
still carry the run's tags: a finished restore has none and is the user's. A volume of the user's
that a run had borrowed is given back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from oslo_log import log as logging

from freezer_osbrick import errors
from freezer_osbrick.cloud import (
    attachments,
    borrowing,
    journal,
    resources,
    scratch,
    servers,
    tags,
)
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.groups import KINDS
from freezer_osbrick.cloud.ledger import DeadRun, Ledger
from freezer_osbrick.cloud.resources import VOLUME, Kind
from freezer_osbrick.cloud.servers import ServerVolume
from freezer_osbrick.cloud.tags import Tags
from freezer_osbrick.device.host import Host
from freezer_osbrick.operations.cleanup_report import (
    FAILED,
    KEPT,
    REMOVED,
    RETURNED,
    WOULD_REMOVE,
    WOULD_RETURN,
    CleanupItem,
)

LOG = logging.getLogger(__name__)


class Work:
    """What a cleanup works with, and what it has met so far."""

    def __init__(
        self, cloud: Cloud, host: Host, ledger: Ledger, dry_run: bool, host_gone: str | None
    ) -> None:
        self.cloud = cloud
        self.host = host
        self.ledger = ledger
        self.dry_run = dry_run
        self.host_gone = host_gone
        self.items: list[CleanupItem] = []

    def tell(
        self, state: str, kind: str, identifier: str, run: str, host: str, reason: str = ""
    ) -> None:
        if reason:
            LOG.info("%s %s of run %s: %s: %s", kind, identifier, run, state, reason)
        self.items.append(CleanupItem(state, kind, identifier, run, host, reason))


class _Run:
    """The removal of what one dead run left; subclasses know what is known of it."""

    def __init__(self, work: Work, run_id: str, host: str) -> None:
        self.work = work
        self.cloud = work.cloud
        self.id = run_id
        self.host = host
        self.met: set[str] = set()  # ids of what was dealt with, whatever came of it

    # -- what subclasses say -----------------------------------------------------------------------

    def reason_to_keep(self, found: Tags) -> str:
        """Why a resource with these tags is not to be removed; empty if it is."""
        raise NotImplementedError

    def connection_of(self, attachment: Any) -> journal.Attachment | None:
        """The connection to this host that an attachment stands for; None if there is none.

        :raises errors.OsbrickError: only another host can tell.
        """
        raise NotImplementedError

    # -- removal -----------------------------------------------------------------------------------

    def tell(self, state: str, kind: str, identifier: str, reason: str = "") -> None:
        self.work.tell(state, kind, identifier, self.id, self.host, reason)

    def remove_tagged(self) -> None:
        """Remove the run's volumes with their attachments, then its snapshots, of groups first."""
        for kind in KINDS.values():
            for resource in kind.tagged(self.cloud, {tags.RUN: self.id}):
                self.remove_resource(kind, resource)

    def remove_resource(self, kind: Kind, resource: Any) -> bool:
        """Remove one, just looked at; False if it stays."""
        found = Tags.of(resource.metadata)
        if found is None or found.run != self.id:
            return False
        self.met.add(resource.id)
        reason = self.reason_to_keep(found)
        if reason:
            self.tell(KEPT, kind.name, resource.id, reason)
            return False
        if kind is VOLUME and not self._detach_all(resource.id):
            return False
        return self._remove(kind, resource)

    def return_tagged(self) -> None:
        """Give back the user's volumes that carry the run's tags."""
        for volume in borrowing.lent(self.cloud, {tags.RUN: self.id}):
            self.return_borrowed(volume)

    def return_borrowed(self, volume: Any) -> None:
        """Give one back, just looked at: let go of it, and take our tags from it."""
        self.met.add(volume.id)
        found = Tags.of(volume.metadata, tags.BORROWED)
        reason = self.reason_to_keep(found) if found else ""
        if reason:
            self.tell(KEPT, "volume", volume.id, reason)
            return
        if not self._detach_all(volume.id, self._is_ours_on_borrowed):
            return
        notes: list[str] = []
        try:
            server = self.server_of(volume)
            told = _how_it_is(volume, server)
            if self.work.dry_run:
                self.tell(WOULD_RETURN, "volume", volume.id, told)
                return
            if server:
                borrowing.reattach(self.cloud, server, volume.size, notes.append)
                self.record("reattached", volume_id=volume.id)
            borrowing.give_back(self.cloud, volume.id)
        except errors.OsbrickError as error:
            self.tell(FAILED, "volume", volume.id, str(error))
            return
        self.record("unattached", volume_id=volume.id)
        self.record("returned", volume_id=volume.id)
        self.tell(RETURNED, "volume", volume.id, " ".join(notes) or told)

    def server_of(self, volume: Any) -> ServerVolume | None:
        """The server that a borrowed volume goes back to.

        :raises errors.OsbrickError: it goes to none.
        """
        server = borrowing.server_in_tags(volume.id, volume.metadata)
        if server is None:
            return None
        project_id = getattr(volume, "os-vol-tenant-attr:tenant_id", self.cloud.project_id)
        try:
            owner = servers.project_of(self.cloud, server.server_id)
        except errors.ResourceMissing:
            return None
        if owner != project_id:
            # Every user can write tags: they must not lead a volume into another's server.
            raise errors.CloudRefused(
                f"The volume {volume.id} and the server {server.server_id}, which its tags name,"
                " belong to different projects."
            )
        return server

    def _is_ours_on_borrowed(self, attachment: Any) -> bool:
        """Whether an attachment of a borrowed volume is this run's; others may have come since."""
        return attachment.instance is None

    def _detach_all(
        self, volume_id: str, is_ours: Callable[[Any], bool] = lambda attachment: True
    ) -> bool:
        try:
            found = [a for a in attachments.of_volume(self.cloud, volume_id) if is_ours(a)]
        except errors.OsbrickError as error:
            self.tell(FAILED, "volume", volume_id, str(error))
            return False
        detached = True
        for attachment in found:
            detached &= self.detach(volume_id, attachment)
        return detached

    def detach(self, volume_id: str, attachment: Any) -> bool:
        """Disconnect this host and delete the attachment; False if it stays."""
        self.met.add(attachment.id)
        try:
            connection = self.connection_of(attachment)
            if not self.work.dry_run:
                if connection is not None and connection.connection_info is not None:
                    # Nothing of it is wanted any more: neither clone nor unfinished restore.
                    self.work.host.disconnect(
                        connection.connection_info,
                        connection.device_info,
                        multipath=connection.multipath,
                        force=True,
                    )
                    self.record("disconnected", attachment_id=attachment.id)
                attachments.delete(self.cloud, volume_id, attachment.id)
                self.record("detached", attachment_id=attachment.id)
        except _NotOurs as reason:
            self.tell(KEPT, "attachment", attachment.id, str(reason))
            return False
        except errors.OsbrickError as error:
            self.tell(FAILED, "attachment", attachment.id, str(error))
            return False
        self.tell(self._done, "attachment", attachment.id)
        return True

    def _remove(self, kind: Kind, resource: Any) -> bool:
        if not self.work.dry_run:
            try:
                resources.delete(self.cloud, kind, resource.id, size_gib=resource.size)
            except errors.OsbrickError as error:
                self.tell(FAILED, kind.name, resource.id, str(error))
                return False
            self.record("removed", resource=kind.name, id=resource.id)
        self.tell(self._done, kind.name, resource.id)
        return True

    @property
    def _done(self) -> str:
        return WOULD_REMOVE if self.work.dry_run else REMOVED

    def record(self, step: str, **facts: Any) -> None:
        """Note a step in the journal, where there is one."""


def _how_it_is(volume: Any, server: ServerVolume | None) -> str:
    """For the owner of a volume that was given back."""
    incomplete = volume.metadata.get(tags.INCOMPLETE)
    if incomplete:
        return (
            f"the restore of backup {incomplete} in place was broken off: the volume holds parts of"
            " two states; restore it again"
        )
    return f"to the server {server.server_id}" if server else "nothing is attached to it"


class OwnRun(_Run):
    """A dead run of this ledger, with its journal."""

    def __init__(self, work: Work, dead: DeadRun) -> None:
        super().__init__(work, dead.id, work.ledger.host)
        self._dead = dead

    def clean(self) -> None:
        outstanding = self._dead.outstanding
        try:
            self.remove_tagged()
            self.return_tagged()
            for attachment in list(outstanding.attachments.values()):
                self._remove_recorded_attachment(attachment)
            for resource in list(outstanding.resources.values()):
                self._remove_recorded(resource)
            for volume_id, project_id in list(outstanding.borrowed.items()):
                self._return_recorded(volume_id, project_id)
            self._forget_what_never_was()
            self._remove_files()
        except errors.OsbrickError as error:
            self.tell(FAILED, "run", self.id, str(error))
            self._dead.release()
            return
        if outstanding or self.work.dry_run:
            self._dead.release()
        else:
            self._dead.remove()

    def reason_to_keep(self, found: Tags) -> str:
        return ""

    def connection_of(self, attachment: Any) -> journal.Attachment | None:
        return self._dead.outstanding.attachments.get(attachment.id)

    def record(self, step: str, **facts: Any) -> None:
        self._dead.record(step, **facts)

    def _remove_recorded_attachment(self, attachment: journal.Attachment) -> None:
        """One that no tagged volume led to: the volume is gone, or finished, or out of sight."""
        if attachment.id in self.met:
            return
        if self._is_hidden("attachment", attachment.id, attachment.project_id):
            return
        self.detach(attachment.volume_id, attachment)

    def _remove_recorded(self, resource: journal.Resource) -> None:
        """One that was not found by its tags: gone, finished, or out of sight."""
        if resource.id in self.met:
            return
        if self._is_hidden(resource.kind, resource.id, resource.project_id):
            return
        kind = KINDS[resource.kind]
        try:
            present = kind.get(self.cloud, resource.id)
        except errors.ResourceMissing:
            self._settle("removed", resource=resource.kind, id=resource.id)
            return
        found = Tags.of(present.metadata)
        if found is None or found.run != self.id:
            self._settle("finished", id=resource.id)  # it is the user's
            return
        self.remove_resource(kind, present)

    def _return_recorded(self, volume_id: str, project_id: str) -> None:
        """One that was not found by its tags: it has none yet, or no more, or is out of sight."""
        if volume_id in self.met or self._is_hidden("volume", volume_id, project_id):
            return
        try:
            present = VOLUME.get(self.cloud, volume_id)
        except errors.ResourceMissing:
            for step in ("unattached", "reattached", "returned"):
                self._settle(step, volume_id=volume_id)
            return
        self.return_borrowed(present)

    def server_of(self, volume: Any) -> ServerVolume | None:
        # Not by the tags alone, which every user can write.
        recorded = self._dead.outstanding.released.get(volume.id)
        return ServerVolume(**recorded) if recorded else None

    def _is_ours_on_borrowed(self, attachment: Any) -> bool:
        outstanding = self._dead.outstanding
        return attachment.id in outstanding.attachments or (
            attachment.volume_id in outstanding.attaching and attachments.is_stray(attachment)
        )

    def _forget_what_never_was(self) -> None:
        """Requests whose result no tag showed: they made nothing."""
        if self.work.dry_run:
            return
        outstanding = self._dead.outstanding
        for token, resource in list(outstanding.creating.items()):
            if self._sees(resource.project_id):
                self.record("abandoned", token=token)
        for volume_id, project_id in list(outstanding.attaching.items()):
            known = volume_id in outstanding.resources or volume_id in outstanding.borrowed
            if self._sees(project_id) and not known:
                self.record("unattached", volume_id=volume_id)

    def _is_hidden(self, kind: str, identifier: str, project_id: str) -> bool:
        if self._sees(project_id):
            return False
        self.tell(
            KEPT,
            kind,
            identifier,
            f"it belongs to the project {project_id}: clean up with its credentials",
        )
        return True

    def _sees(self, project_id: str) -> bool:
        return self.cloud.is_admin or self.cloud.project_id == project_id

    def _settle(self, step: str, **facts: Any) -> None:
        if not self.work.dry_run:
            self.record(step, **facts)

    def _remove_files(self) -> None:
        folder = self._dead.scratch_path
        if not os.path.exists(folder):
            return
        if not self.work.dry_run:
            scratch.clear(folder)
        self.tell(self._done, "files", folder)


class RunWithoutJournal(_Run):
    """A run that only tags tell of: of another ledger, or of a journal that somebody removed."""

    def __init__(self, work: Work, run_id: str) -> None:
        super().__init__(work, run_id, "")
        self._is_ours = False

    def clean(self) -> None:
        try:
            self.remove_tagged()
            self.return_tagged()
        except errors.OsbrickError as error:
            self.tell(FAILED, "run", self.id, str(error))

    def reason_to_keep(self, found: Tags) -> str:
        self.host = found.host
        self._is_ours = found.ledger == self.work.ledger.id
        if self._is_ours or found.host == self.work.host_gone or found.expires < time.time():
            return ""
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.expires))
        return f"its run on the host {found.host} holds it until {until}"

    def connection_of(self, attachment: Any) -> journal.Attachment | None:
        if self.host == self.work.host_gone:
            return None
        if not self._is_ours:
            raise _NotOurs(
                f"only the host {self.host} can disconnect it: clean up there, or say "
                f"--host {self.host} if that host is gone for good"
            )
        # The journal is gone: Cinder's own record of the connection has to serve.
        shown = self.cloud.call(
            f"look at the attachment {attachment.id}",
            self.cloud.cinder.attachments.show,
            attachment.id,
        )
        info = dict(shown.connection_info or {})
        return journal.Attachment(
            attachment.id,
            shown.volume_id,
            self.cloud.project_id,
            connection_info=info if info.get("driver_volume_type") else None,
        )


class _NotOurs(errors.OsbrickError):
    """Somebody else has to do it."""
