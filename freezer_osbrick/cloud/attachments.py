# SPDX-License-Identifier: Apache-2.0
"""Cinder's attachments: in two steps, without a server, each step in the journal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.cloud import journal
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Run

# What Cinder answers, with status 500, when the storage and not the API has failed.
_STORAGE_FAILED = re.compile(r"Unable to update (the )?attachment")


def reserve(cloud: Cloud, run: Run, volume_id: str, *, writable: bool) -> str:
    """Reserve a volume for us; returns the attachment's id.

    :raises errors.CloudRefused: Cinder refuses, or a volume that was borrowed has another
        attachment.
    """
    project_id = cloud.project_id
    is_borrowed = volume_id in run.outstanding.borrowed
    if is_borrowed:
        _refuse_others(cloud, volume_id, None)
    # No server is named: else Cinder asks Nova whether the attachment may be deleted. The mode is
    # sent by the client from microversion 3.54 on; below, and again, the connector carries it.
    run.record("attaching", volume_id=volume_id, project_id=project_id)

    def find() -> dict[str, Any] | None:
        found = of_volume(cloud, volume_id)
        if is_borrowed:
            found = [attachment for attachment in found if is_stray(attachment)]
        return {"id": found[0].id} if found else None

    try:
        attachment, _ = cloud.create(
            f"attach the volume {volume_id}",
            lambda: cloud.cinder.attachments.create(
                volume_id, None, mode="rw" if writable else "ro"
            ),
            find,
        )
    except errors.CloudUnavailable:
        raise  # it may be there after all
    except errors.OsbrickError:
        run.record("unattached", volume_id=volume_id)
        raise
    attachment_id = str(attachment["id"])
    run.record("attached", volume_id=volume_id, attachment_id=attachment_id, project_id=project_id)
    if is_borrowed:
        # Cinder lets several attach a volume that allows for it.
        try:
            _refuse_others(cloud, volume_id, attachment_id)
        except errors.CloudRefused:
            delete(cloud, volume_id, attachment_id)
            run.record("detached", attachment_id=attachment_id)
            raise
    return attachment_id


def connection(
    cloud: Cloud,
    volume_id: str,
    attachment_id: str,
    connector: Mapping[str, Any],
    *,
    writable: bool,
) -> dict[str, Any]:
    """Tell Cinder who connects; returns how.

    :param connector: of ``Host.connector_properties``.
    :raises errors.ResourceFailed: the storage refused.
    """
    properties = {**connector, "mode": "rw" if writable else "ro"}

    def update() -> Any:
        try:
            return cloud.cinder.attachments.update(attachment_id, properties)
        except Exception as error:
            if _STORAGE_FAILED.search(str(error)):
                # Not the API is out of order, and repeating for a minute does not help.
                raise errors.ResourceFailed(
                    f"The storage refused to attach the volume {volume_id}: {error}"
                ) from error
            raise

    attachment = cloud.call(f"attach the volume {volume_id}", update)
    return dict(attachment.connection_info)


def complete(cloud: Cloud, volume_id: str, attachment_id: str) -> None:
    """Tell Cinder that the host is connected."""
    cloud.call(
        f"complete the attachment of the volume {volume_id}",
        cloud.cinder.attachments.complete,
        attachment_id,
    )


def delete(cloud: Cloud, volume_id: str, attachment_id: str) -> None:
    """Delete an attachment; the host must have let go of the volume.

    :raises errors.Leftovers: it is still there.
    """
    try:
        cloud.call(f"detach the volume {volume_id}", cloud.cinder.attachments.delete, attachment_id)
    except errors.ResourceMissing:
        return
    except errors.CloudError as error:
        raise errors.Leftovers(
            f"The attachment {attachment_id} of the volume {volume_id} could not be removed: "
            f"{error}"
        ) from error


def clear(cloud: Cloud, run: Run, volume_id: str) -> None:
    """Delete the attachments that a volume of this run still has: those that a signal or an error
    kept from being used. Does nothing, and asks nobody, where the journal knows of none.

    :raises errors.Leftovers: the host holds the volume, or one could not be deleted.
    """
    outstanding = run.outstanding
    recorded = known(run, volume_id)
    if any(found.connection_info is not None for found in recorded):
        raise errors.Leftovers(
            f"The volume {volume_id} could not be let go of: this host still holds it."
            if volume_id in outstanding.borrowed
            else f"The volume {volume_id} could not be removed: this host still holds it."
        )
    if not recorded and volume_id not in outstanding.attaching:
        return
    for attachment in of_volume(cloud, volume_id):
        # A volume of the user's may have been attached by others meanwhile.
        if (
            volume_id not in outstanding.borrowed
            or attachment.id in outstanding.attachments
            or is_stray(attachment)
        ):
            delete(cloud, volume_id, attachment.id)
    for found in recorded:
        run.record("detached", attachment_id=found.id)
    run.record("unattached", volume_id=volume_id)


def known(run: Run, volume_id: str) -> list[journal.Attachment]:
    """The attachments of a volume that this run has, by its journal."""
    recorded = run.outstanding.attachments.values()
    return [attachment for attachment in recorded if attachment.volume_id == volume_id]


def is_stray(attachment: Any) -> bool:
    """Whether it is such as a request of ours makes that was never answered: for no server, and
    nobody has connected."""
    return attachment.instance is None and attachment.status == "reserved"


def _refuse_others(cloud: Cloud, volume_id: str, ours: str | None) -> None:
    others = [found for found in of_volume(cloud, volume_id) if found.id != ours]
    if others:
        users = ", ".join(str(other.instance or "another host") for other in others)
        raise errors.CloudRefused(f"The volume {volume_id} is attached to somebody else: {users}.")


def of_volume(cloud: Cloud, volume_id: str) -> list[Any]:
    """The attachments of a volume; none if the volume is not there."""
    search: dict[str, Any] = {"volume_id": volume_id}
    if cloud.is_admin:
        search["all_tenants"] = 1
    found = cloud.call(
        f"list the attachments of the volume {volume_id}",
        cloud.cinder.attachments.list,
        detailed=True,
        search_opts=search,
    )
    return [attachment for attachment in found if attachment.volume_id == volume_id]
