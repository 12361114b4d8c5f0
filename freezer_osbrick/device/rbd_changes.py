# SPDX-License-Identifier: Apache-2.0
"""What Ceph tells of an image without reading it: what is allocated, and what has changed.

librbd has two ways to tell. One looks at its object map and names whole objects ("fast diff"); the
other asks the OSDs for the snapshots of each object and names bytes. The object map's word on what
has *changed* is not taken: whoever wrote while a snapshot was taken may have got it wrong, unless
it was a librbd or a kernel of 2023 or later (Ceph's issue 61472), and a backup host cannot know
what its tenants' hypervisors run. The OSDs' word is. Which objects *exist* is taken from the object
map: nobody who reads the image gets to see others.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from os_brick.initiator import linuxrbd

from freezer_osbrick import errors
from freezer_osbrick.device.hints import Extents, FrozenState, Gathering, Mark

KIND = "rbd"

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def holes(image: Any, size: int) -> Extents:
    """Where neither the image nor what it is a clone of has an object; nothing where an object map
    does not tell.

    :param image: os-brick's ``RBDVolume``, open.
    :param size: of the image, in bytes.
    :raises Exception: librbd's own.
    """
    allocated = Gathering()
    with contextlib.ExitStack() as stack:
        _allocated_with_parents(stack, image.client, image, size, allocated)
    return allocated.extents().complement(size)


def mark(image: Any, state: FrozenState) -> Mark:
    """What names the snapshot that a clone shows.

    :param image: the clone, os-brick's ``RBDVolume``, open.
    :raises errors.HintsUnfit: the snapshot is not to be found.
    """
    with _source(image, state) as source:
        return source.mark(state)


def unchanged(image: Any, size: int, state: FrozenState, since: Mark) -> Extents:
    """Ranges in which the snapshot that a clone shows is what an earlier one of the same image is.

    :param image: the clone, os-brick's ``RBDVolume``, open.
    :param since: of the earlier snapshot.
    :raises errors.HintsUnfit: that cannot be told.
    """
    with _source(image, state) as source:
        return source.unchanged(size, state, since)


class _Source:
    """The image that a clone was made of, open at the snapshot that the clone shows."""

    def __init__(self, client: Any, pool: str, name: str, image: Any, snapshot: str) -> None:
        self._client = client
        self._cluster = client.client.get_fsid()
        self._pool = pool
        self._name = name
        self._image = image
        self._snapshot = snapshot
        self._snapshots = {found["name"]: found for found in image.list_snaps()}

    def mark(self, state: FrozenState) -> Mark:
        return {
            "kind": KIND,
            "cluster": self._cluster,
            "pool": self._pool,
            "image": self._image.id(),
            "snapshot": state.snapshot_id,
            "name": self._snapshot,
            "number": int(self._snapshots[self._snapshot]["id"]),
        }

    def unchanged(self, size: int, state: FrozenState, since: Mark) -> Extents:
        now = self.mark(state)
        if since.get("kind") != KIND:
            raise errors.HintsUnfit("The volume lay in another kind of storage then.")
        if any(since.get(key) != now[key] for key in ("cluster", "pool", "image")):
            raise errors.HintsUnfit("The volume lay in another image of Ceph then.")
        before = self._snapshots.get(since.get("name"))
        if before is None or before["id"] != since.get("number"):
            raise errors.HintsUnfit(
                f"The snapshot {since.get('snapshot')}, which was kept for it, is gone."
            )
        if before["id"] >= now["number"]:
            raise errors.HintsUnfit("The snapshot that was kept for it is the younger one.")
        if not before["size"] == self._snapshots[self._snapshot]["size"] == size:
            raise errors.HintsUnfit("The volume was resized since.")
        changed = Gathering()
        for offset, length in self._places(size, before["name"]):
            self._image.diff_iterate(
                offset, min(length, size - offset), before["name"], _into(changed), True, False
            )
        return changed.extents().complement(size)

    def _places(self, size: int, before: str) -> Extents:
        """Where one of the two snapshots has objects: elsewhere both are empty, or what the image
        was made of. Asking the OSDs takes a request an object, also for those that are not there.
        """
        places = Gathering()
        with contextlib.ExitStack() as stack:
            then = _open(stack, self._client, self._pool, self._name, before)
            for image in (then, self._image):
                if not _has_map(image):
                    return Extents([(0, size)])
                image.diff_iterate(0, size, None, _into(places), False, True)
        return places.extents()


@contextlib.contextmanager
def _source(image: Any, state: FrozenState) -> Iterator[_Source]:
    try:
        with contextlib.ExitStack() as stack:
            pool, name, snapshot = _find(stack, image, state)
            opened = _open(stack, image.client, pool, name, snapshot)
            yield _Source(image.client, pool, name, opened, snapshot)
    except errors.OsbrickError:
        raise
    except Exception as error:  # librbd has its own tree of them
        raise errors.HintsUnfit(f"Ceph does not tell what has changed: {error}.") from error


def _find(stack: contextlib.ExitStack, image: Any, state: FrozenState) -> tuple[str, str, str]:
    """Pool, image and snapshot that a clone was made of."""
    try:
        pool, name, snapshot = image.parent_info()
    except linuxrbd.rbd.ImageNotFound:
        # Cinder flattens clones where it is configured to: then their names have to tell.
        pool = image.client.rbd_pool
        name = _ID.sub(state.volume_id, image.name)
        found = [
            one["name"]
            for one in _open(stack, image.client, pool, name).list_snaps()
            if one["name"].endswith(state.snapshot_id)
        ]
        if len(found) != 1:
            raise errors.HintsUnfit(
                f"The snapshot {state.snapshot_id} is not to be found in Ceph's image {name}."
            ) from None
        return pool, name, found[0]
    if not snapshot.endswith(state.snapshot_id):
        raise errors.HintsUnfit(
            f"The volume that is read was made of Ceph's snapshot {name}@{snapshot}, and not of "
            f"{state.snapshot_id}."
        )
    if image.overlap() != image.size():
        raise errors.HintsUnfit("The volume that is read is no whole clone of the snapshot.")
    return pool, name, snapshot


def _open(
    stack: contextlib.ExitStack, client: Any, pool: str, name: str, snapshot: str | None = None
) -> Any:
    """Another image by the same connection; not by os-brick's class, which ends the connection when
    it is closed."""
    ioctx = client.client.open_ioctx(pool)
    stack.callback(ioctx.close)
    opened = linuxrbd.rbd.Image(ioctx, name, snapshot=snapshot, read_only=True)
    stack.callback(opened.close)
    return opened


def _has_map(image: Any) -> bool:
    """Whether the object map of what is open, an image or a snapshot, is there and valid.

    What it says of which objects *exist* is what every reader goes by: librbd does not ask an OSD
    for an object that is not in it.
    """
    rbd = linuxrbd.rbd
    wanted = rbd.RBD_FEATURE_OBJECT_MAP | rbd.RBD_FEATURE_FAST_DIFF
    broken = rbd.RBD_FLAG_OBJECT_MAP_INVALID | rbd.RBD_FLAG_FAST_DIFF_INVALID
    return image.features() & wanted == wanted and not image.flags() & broken


def _allocated_with_parents(
    stack: contextlib.ExitStack, client: Any, image: Any, size: int, allocated: Gathering
) -> None:
    """Add where an image has objects, and what it is a clone of. The parents are asked one by one:
    early librbds forget them."""
    if not _has_map(image):
        allocated.add(0, size)
        return
    image.diff_iterate(0, size, None, _into(allocated), False, True)
    try:
        pool, name, snapshot = image.parent_info()
    except linuxrbd.rbd.ImageNotFound:
        return
    overlap = min(size, image.overlap())
    if overlap:
        parent = _open(stack, client, pool, name, snapshot)
        _allocated_with_parents(stack, client, parent, min(overlap, parent.size()), allocated)


def _into(gathering: Gathering) -> Callable[[int, int, bool], None]:
    """For ``diff_iterate``, which tells for each range whether there is something now."""
    return lambda offset, length, exists: gathering.add(offset, length)
