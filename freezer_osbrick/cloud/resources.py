# SPDX-License-Identifier: Apache-2.0
"""Snapshots and volumes of ours: made, found again, removed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from oslo_log import log as logging

from freezer_osbrick import errors, interruption
from freezer_osbrick.cloud import tags as tags_module
from freezer_osbrick.cloud import waiting
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.tags import Tags

LOG = logging.getLogger(__name__)

# States that end by themselves.
_CREATING = ("creating", "downloading")
_BUSY = (
    *_CREATING,
    "attaching",
    "backing-up",
    "detaching",
    "extending",
    "maintenance",
    "reserved",
    "restoring",
    "retyping",
    "uploading",
)
_SETTLED = ("available", "error", "error_restoring", "error_extending", "error_managing")


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the API has in common for snapshots and volumes."""

    name: str
    manager_name: str

    def manager(self, cloud: Cloud) -> Any:
        return getattr(cloud.cinder, self.manager_name)

    def get(self, cloud: Cloud, resource_id: str) -> Any:
        return cloud.call(
            f"look at {self.called(resource_id)}", self.manager(cloud).get, resource_id
        )

    def called(self, resource_id: str) -> str:
        return f"the {self.name} {resource_id}"

    def tagged(
        self,
        cloud: Cloud,
        metadata: Mapping[str, str],
        mark: Mapping[str, str] = tags_module.MARK,
    ) -> list[Any]:
        """The resources with these tags: those of all projects for an administrator."""
        wanted = {**mark, **metadata}
        search: dict[str, Any] = {"metadata": wanted}
        if cloud.is_admin:
            search["all_tenants"] = 1
        found = cloud.call(
            f"list our {self.name}s", self.manager(cloud).list, detailed=True, search_opts=search
        )
        # A cloud may be configured to ignore the filter.
        return [
            resource
            for resource in found
            if Tags.of(resource.metadata, mark) is not None
            and wanted.items() <= resource.metadata.items()
        ]


VOLUME = Kind("volume", "volumes")
SNAPSHOT = Kind("snapshot", "volume_snapshots")


def create(
    cloud: Cloud,
    run: Run,
    kind: Kind,
    what: str,
    make: Callable[[dict[str, str]], Any],
    *,
    size_gib: int,
) -> Any:
    """Make a snapshot or a volume and wait until it is available.

    One that goes to an error state is deleted and made again, ``create_attempts`` times in all.
    Whatever is raised, nothing stays; or the error says that it does, and the journal has it.

    :param what: for people: "a snapshot of volume 5cc1".
    :param make: given the tags, makes the request.
    """
    attempts = cloud.conf.cloud.create_attempts
    for attempt in range(1, attempts + 1):
        resource = _request(cloud, run, kind, what, make)
        try:
            return waiting.wait_for(
                cloud,
                f"{kind.called(resource.id)} ({what})",
                kind.manager(cloud).get,
                resource.id,
                wanted=("available",),
                passing=_CREATING,
                size_gib=size_gib,
            )
        except BaseException as error:
            if not _removed(cloud, run, kind, resource, error):
                raise
            if not isinstance(error, errors.ResourceFailed) or attempt == attempts:
                raise
            LOG.warning("%s Trying again (%s of %s).", error, attempt, attempts - 1)
    raise AssertionError("unreachable")


def remove(cloud: Cloud, run: Run, kind: Kind, resource_id: str, *, size_gib: int) -> None:
    """Delete something that this run made, and wait until it is gone.

    :raises errors.Leftovers: it is still there; the journal keeps it.
    """
    run.let_go(resource_id)
    delete(cloud, kind, resource_id, size_gib=size_gib)
    run.record("removed", resource=kind.name, id=resource_id)
    remove_twins(cloud, run, kind, resource_id, size_gib=size_gib)


def remove_twins(cloud: Cloud, run: Run, kind: Kind, resource_id: str, *, size_gib: int) -> None:
    """Delete what a request made that was never answered, beside the one that was."""
    token = run.doubtful.pop(resource_id, None)
    if token is None:
        return
    for twin in kind.tagged(cloud, {tags_module.RUN: run.id, tags_module.TOKEN: token}):
        if twin.id != resource_id:
            _record_created(cloud, run, kind, token, twin)
            remove(cloud, run, kind, twin.id, size_gib=size_gib)


def delete(cloud: Cloud, kind: Kind, resource_id: str, *, size_gib: int) -> None:
    """Delete a snapshot or a volume, wait until it is gone, and try again if Cinder refuses.

    :raises errors.Leftovers: it is still there; the message says what Cinder said.
    """
    pause = 0.5
    attempts = cloud.conf.cloud.delete_attempts
    for attempt in range(1, attempts + 1):
        try:
            _delete_once(cloud, kind, resource_id, size_gib)
            return
        except errors.ResourceMissing:
            return
        except errors.CloudError as error:
            retriable = isinstance(error, errors.CloudRefused | errors.ResourceFailed)
            if not retriable or attempt == attempts:
                raise errors.Leftovers(
                    f"{kind.called(resource_id).capitalize()} could not be removed: {error}"
                ) from error
            LOG.warning("%s Trying again (%s of %s).", error, attempt, attempts - 1)
        time.sleep(pause)
        pause *= 2


def _request(
    cloud: Cloud, run: Run, kind: Kind, what: str, make: Callable[[dict[str, str]], Any]
) -> Any:
    """One request for a resource, in the journal before and after."""
    tags = run.new_tags()

    def find() -> Any:
        found = kind.tagged(cloud, {tags_module.RUN: run.id, tags_module.TOKEN: tags.token})
        return found[0] if found else None

    run.record("creating", resource=kind.name, token=tags.token, project_id=cloud.project_id)
    try:
        resource, doubtful = cloud.create(f"create {what}", lambda: make(tags.to_metadata()), find)
    except errors.CloudUnavailable:
        raise  # it may be there after all: the journal keeps the token
    except errors.OsbrickError:
        run.record("abandoned", token=tags.token)
        raise
    except BaseException as error:
        # A signal while Cinder was at it.
        _remove_by_token(cloud, run, kind, tags.token, error)
        raise
    _record_created(cloud, run, kind, tags.token, resource)
    if doubtful:
        run.doubtful[resource.id] = tags.token
    manager = kind.manager(cloud)
    run.hold(
        resource.id,
        lambda metadata: cloud.call(
            f"renew {kind.called(resource.id)}", manager.set_metadata, resource.id, metadata
        ),
    )
    return resource


def _removed(cloud: Cloud, run: Run, kind: Kind, resource: Any, because: BaseException) -> bool:
    """Remove a resource because of an error, and tell with the error if that fails."""
    try:
        with interruption.shielded():
            remove(cloud, run, kind, resource.id, size_gib=resource.size)
    except errors.OsbrickError as failure:
        errors.annotate(because, f"Also: {failure}")
        return False
    return True


def _remove_by_token(
    cloud: Cloud, run: Run, kind: Kind, token: str, because: BaseException
) -> None:
    """Remove what a request made that was broken off. The journal keeps the token: Cinder may not
    have got that far yet."""
    try:
        found = kind.tagged(cloud, {tags_module.RUN: run.id, tags_module.TOKEN: token})
    except errors.OsbrickError as failure:
        LOG.error("Also, while cleaning up: %s", failure)
        return
    for resource in found:
        _record_created(cloud, run, kind, token, resource)
        _removed(cloud, run, kind, resource, because)


def _record_created(cloud: Cloud, run: Run, kind: Kind, token: str, resource: Any) -> None:
    run.record(
        "created",
        resource=kind.name,
        token=token,
        id=resource.id,
        project_id=cloud.project_id,
    )


def _delete_once(cloud: Cloud, kind: Kind, resource_id: str, size_gib: int) -> None:
    called = kind.called(resource_id)
    manager = kind.manager(cloud)
    resource = waiting.wait_for(
        cloud,
        called,
        manager.get,
        resource_id,
        wanted=(*_SETTLED, "in-use", "deleting", "error_deleting", "error_attaching"),
        passing=_BUSY,
        size_gib=size_gib,
    )
    if resource.status == "error_deleting":
        if not cloud.is_admin:
            raise errors.Leftovers(
                f"{called.capitalize()} could not be removed: its deletion failed within the "
                "storage, and Cinder lets only an administrator try again."
            )
        force = getattr(manager, "force_delete", None) or _force_delete_snapshot(manager)
        cloud.call(f"delete {called}", force, resource_id)
    elif resource.status != "deleting":
        cloud.call(f"delete {called}", manager.delete, resource_id)
    waiting.wait_gone(cloud, called, manager.get, resource_id, size_gib=size_gib)


def _force_delete_snapshot(manager: Any) -> Callable[[str], Any]:
    return lambda resource_id: manager.delete(resource_id, force=True)
