# SPDX-License-Identifier: Apache-2.0
"""Volumes of the user's that a run works on directly, because the user asked for it.

Such a volume carries tags as long as it is borrowed, so that any host can give it back for one that
died. They differ from the tags of what a run has made: a borrowed volume is never deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from oslo_log import log as logging

from freezer_osbrick import errors
from freezer_osbrick.cloud import attachments, servers
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.resources import VOLUME
from freezer_osbrick.cloud.servers import ServerVolume
from freezer_osbrick.cloud.tags import BORROWED, DISTRUSTED, INCOMPLETE, PREFIX, Tags
from freezer_osbrick.cloud.unwinding import Unwinding
from freezer_osbrick.cloud.volumes import VolumeRecord

LOG = logging.getLogger(__name__)

_SERVER = PREFIX + "_server_"
_STAY = (DISTRUSTED, INCOMPLETE)


@contextlib.contextmanager
def borrowed(
    cloud: Cloud,
    run: Run,
    volume_id: str,
    *,
    server: ServerVolume | None = None,
    size_gib: int,
    tell: Callable[[str], None] = LOG.warning,
) -> Iterator[str]:
    """A volume of the user's, for as long as a block runs.

    :param server: has the volume, gives it back for that long, and has it again at the end,
        whatever happened. Otherwise nothing may be attached to the volume.
    :param tell: told what the owner should know of that.
    :returns: the volume's id.
    :raises errors.CloudRefused: another run has borrowed it, or the server does not give it.
    :raises errors.Leftovers: the server has not got it back. The journal and the volume's tags keep
        what is needed to try that again.
    """
    _refuse_borrowed(cloud, volume_id)
    with Unwinding() as unwinding:
        unwinding.push(functools.partial(_give_back, cloud, run, volume_id))
        run.record("borrowing", volume_id=volume_id, project_id=cloud.project_id)
        metadata = run.new_tags().to_metadata(BORROWED)
        tag(cloud, volume_id, {**metadata, **(server_tags(server) if server else {})})
        run.hold(volume_id, functools.partial(tag, cloud, volume_id))
        if server:
            unwinding.push(functools.partial(_reattach, cloud, run, server, size_gib, tell))
            run.record("releasing", volume_id=volume_id, server=dataclasses.asdict(server))
            servers.detach(cloud, server, size_gib=size_gib)
        unwinding.push(functools.partial(attachments.clear, cloud, run, volume_id))
        yield volume_id


def server_of(cloud: Cloud, record: VolumeRecord) -> ServerVolume | None:
    """The server that has a volume and could give it back; None if nothing is attached to it.

    :raises errors.BadRequest: it cannot be had; nothing was done.
    """
    server_ids = [attachment.get("server_id") for attachment in record.attachments]
    if record.status not in ("available", "in-use"):
        reason = f"it is in state {record.status!r}"
    elif len(server_ids) > 1:
        reason = f"{len(server_ids)} servers have it"
    elif record.status == "available" and not server_ids:
        return None
    elif not server_ids or server_ids[0] is None:
        reason = "it is attached to a host, and to no server"
    else:
        held, reason = _held(cloud, server_ids[0], record.id)
        if held:
            return held
    raise errors.BadRequest(f"Volume {record.id} cannot be detached for a cold backup: {reason}.")


def _held(cloud: Cloud, server_id: str, volume_id: str) -> tuple[ServerVolume | None, str]:
    """How the server has the volume, or why it cannot give it back."""
    try:
        held = servers.find(cloud, server_id, volume_id)
        root = servers.root_device(cloud, server_id)
    except (errors.ResourceMissing, errors.CloudAccessDenied):
        return None, f"its server {server_id} is hidden from these credentials"
    if held is None:
        return None, f"Nova does not know that its server {server_id} has it"
    if root and held.device == root:
        return None, f"it is the root disk of the server {server_id}"
    return held, ""


def reattach(
    cloud: Cloud, server: ServerVolume, size_gib: int, tell: Callable[[str], None]
) -> None:
    """Let the server have its volume again. May be called when it has.

    :raises errors.Leftovers: it has it not.
    """
    pause = 0.5
    attempts = cloud.conf.cloud.delete_attempts
    for attempt in range(1, attempts + 1):
        try:
            now = servers.attach(cloud, server, size_gib=size_gib)
        except errors.ResourceMissing as error:
            tell(f"The volume {server.volume_id} stays detached: {error}")
            return
        except errors.OsbrickError as error:
            retriable = isinstance(error, errors.CloudRefused | errors.ResourceFailed)
            if not retriable or attempt == attempts:
                raise errors.Leftovers(
                    f"The server {server.server_id} has not got its volume {server.volume_id} back:"
                    f" {error} 'freezer-osbrick cleanup' tries again."
                ) from error
            LOG.warning("%s Trying again (%s of %s).", error, attempt, attempts - 1)
        else:
            if server.device and now.device != server.device:
                tell(
                    f"The server {server.server_id} has its volume {server.volume_id} as"
                    f" {now.device} now; it was {server.device}."
                )
            return
        time.sleep(pause)
        pause *= 2


def give_back(cloud: Cloud, volume_id: str) -> None:
    """Take our tags from a borrowed volume; what is known of the volume stays."""
    current = VOLUME.get(cloud, volume_id)
    ours = [key for key in current.metadata if key.startswith(PREFIX) and key not in _STAY]
    # What says that it is borrowed goes first: the rest means nothing without it.
    untag(cloud, volume_id, sorted(ours))


def lent(cloud: Cloud, metadata: Mapping[str, str]) -> list[Any]:
    """The borrowed volumes with these tags: those of all projects for an administrator."""
    return VOLUME.tagged(cloud, metadata, BORROWED)


def server_tags(server: ServerVolume) -> dict[str, str]:
    """What another host must know to let the server have its volume again."""
    known = {key: str(value or "") for key, value in dataclasses.asdict(server).items()}
    return {_SERVER + key: value for key, value in known.items() if value}


def server_in_tags(volume_id: str, metadata: Mapping[str, str]) -> ServerVolume | None:
    """What ``server_tags`` wrote into the metadata of a volume."""
    known: dict[str, Any] = {
        field.name: metadata[_SERVER + field.name]
        for field in dataclasses.fields(ServerVolume)
        if _SERVER + field.name in metadata
    }
    if "server_id" not in known:
        return None
    known["volume_id"] = volume_id
    known["delete_on_termination"] = "delete_on_termination" in known
    return ServerVolume(**known)


def tag(cloud: Cloud, volume_id: str, metadata: Mapping[str, str]) -> None:
    """Add to the metadata of a volume."""
    what = f"set the properties of the volume {volume_id}"
    cloud.call(what, cloud.cinder.volumes.set_metadata, volume_id, dict(metadata))


def untag(cloud: Cloud, volume_id: str, keys: list[str]) -> None:
    """Take from the metadata of a volume, key by key, in this order."""
    for key in keys:
        with contextlib.suppress(errors.ResourceMissing):
            cloud.call(
                f"set the properties of the volume {volume_id}",
                cloud.cinder.volumes.delete_metadata,
                volume_id,
                [key],
            )


def _refuse_borrowed(cloud: Cloud, volume_id: str) -> None:
    found = Tags.of(VOLUME.get(cloud, volume_id).metadata, BORROWED)
    if found:
        raise errors.CloudRefused(
            f"A run on the host {found.host} works on volume {volume_id}: wait for it, or let"
            " 'freezer-osbrick cleanup' give the volume back if that run has died."
        )


def _reattach(
    cloud: Cloud, run: Run, server: ServerVolume, size_gib: int, tell: Callable[[str], None]
) -> None:
    if attachments.known(run, server.volume_id):
        raise errors.Leftovers(
            f"The server {server.server_id} has not got its volume {server.volume_id} back, as this"
            " host still holds it. 'freezer-osbrick cleanup' tries again."
        )
    reattach(cloud, server, size_gib, tell)
    run.record("reattached", volume_id=server.volume_id)


def _give_back(cloud: Cloud, run: Run, volume_id: str) -> None:
    run.let_go(volume_id)
    if volume_id in run.outstanding.released or attachments.known(run, volume_id):
        return  # and the error of that tells so; the tags say what is to be done
    give_back(cloud, volume_id)
    run.record("returned", volume_id=volume_id)
