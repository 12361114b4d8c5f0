# SPDX-License-Identifier: Apache-2.0
"""Nova, as far as volumes that are attached to servers need it."""

from __future__ import annotations

import dataclasses
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.cloud import waiting
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.resources import VOLUME

_PASSING = ("attaching", "detaching", "reserved")


@dataclasses.dataclass(frozen=True)
class ServerVolume:
    """A volume as a server has it: all that is needed to attach it again.

    :ivar device: its name in the server, such as ``/dev/vdb``; None where Nova does not say.
    :ivar tag: by which the guest knows it.
    """

    server_id: str
    volume_id: str
    device: str | None = None
    tag: str | None = None
    delete_on_termination: bool = False

    @property
    def called(self) -> str:
        return f"the volume {self.volume_id} of the server {self.server_id}"


def find(cloud: Cloud, server_id: str, volume_id: str) -> ServerVolume | None:
    """How a server has a volume; None if it has not.

    :raises errors.ResourceMissing: there is no such server, or it is hidden from this project.
    """
    path = f"/servers/{server_id}/os-volume_attachments"
    listed = _request(cloud, f"look at the server {server_id}", "GET", path)["volumeAttachments"]
    for shown in listed:
        if shown["volumeId"] == volume_id:
            return ServerVolume(
                server_id,
                volume_id,
                shown.get("device"),
                shown.get("tag"),
                bool(shown.get("delete_on_termination")),
            )
    return None


def root_device(cloud: Cloud, server_id: str) -> str | None:
    """The name of a server's root device; None where Nova does not tell, as it does only
    administrators.

    :raises errors.ResourceMissing: there is no such server, or it is hidden from this project.
    """
    path = f"/servers/{server_id}"
    server = _request(cloud, f"look at the server {server_id}", "GET", path)["server"]
    name = server.get("OS-EXT-SRV-ATTR:root_device_name")
    return str(name) if name else None


def project_of(cloud: Cloud, server_id: str) -> str:
    """The project that a server belongs to.

    :raises errors.ResourceMissing: there is no such server, or it is hidden from this project.
    """
    path = f"/servers/{server_id}"
    return str(
        _request(cloud, f"look at the server {server_id}", "GET", path)["server"]["tenant_id"]
    )


def detach(cloud: Cloud, held: ServerVolume, *, size_gib: int) -> None:
    """Let a server give a volume back, and wait until Cinder has it.

    :raises errors.CloudRefused: Nova refuses; the server has the volume still.
    :raises errors.CloudAccessDenied: the same, by policy, or as it is the server's root disk.
    :raises errors.ResourceFailed: the guest does not give the volume back.
    """
    path = f"/servers/{held.server_id}/os-volume_attachments/{held.volume_id}"
    try:
        _request(cloud, f"detach {held.called}", "DELETE", path)
    except (errors.CloudRefused, errors.ResourceMissing):
        # The repetition of a request that was not answered, and had done its work.
        if VOLUME.get(cloud, held.volume_id).status not in ("available", "detaching"):
            raise
    waiting.wait_for(
        cloud,
        held.called,
        cloud.cinder.volumes.get,
        held.volume_id,
        wanted=("available",),
        passing=_PASSING,
        size_gib=size_gib,
    )


def attach(cloud: Cloud, held: ServerVolume, *, size_gib: int) -> ServerVolume:
    """Give a volume back to its server, and wait until it has it. May be called when it has.

    :returns: how the server has it now: a hypervisor may choose another device.
    :raises errors.ResourceMissing: the server is gone.
    :raises errors.CloudError: it has it not.
    """
    what = f"attach {held.called} again"
    current = VOLUME.get(cloud, held.volume_id)
    if current.status in _PASSING:
        current = _settled(cloud, held, size_gib)
    if current.status == "available":
        cloud.create(
            what,
            lambda: _post(cloud, held, what),
            lambda: find(cloud, held.server_id, held.volume_id),
        )
        _settled(cloud, held, size_gib, wanted=("in-use",))
    found = find(cloud, held.server_id, held.volume_id)
    if found is None:
        raise errors.CloudRefused(
            f"Could not {what}: it is in state {current.status!r}, and the server has it not."
        )
    return found


def _settled(
    cloud: Cloud,
    held: ServerVolume,
    size_gib: int,
    wanted: tuple[str, ...] = ("available", "in-use"),
) -> Any:
    return waiting.wait_for(
        cloud,
        held.called,
        cloud.cinder.volumes.get,
        held.volume_id,
        wanted=wanted,
        passing=_PASSING,
        size_gib=size_gib,
    )


def _post(cloud: Cloud, held: ServerVolume, what: str) -> Any:
    body: dict[str, Any] = {"volumeId": held.volume_id}
    if held.device:
        body["device"] = held.device
    if held.tag:
        body["tag"] = held.tag
    if held.delete_on_termination:
        body["delete_on_termination"] = True
    path = f"/servers/{held.server_id}/os-volume_attachments"
    return cloud.nova.post(path, json={"volumeAttachment": body})


def _request(cloud: Cloud, what: str, method: str, path: str) -> Any:
    response = cloud.call(what, cloud.nova.request, path, method)
    return response.json() if response.content else None
