# SPDX-License-Identifier: Apache-2.0
"""What is asked of Ceph on a volume's history, with a pretended cluster."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Any

import pytest

from freezer_osbrick import errors
from freezer_osbrick.device import rbd_changes
from freezer_osbrick.device.handle_device import HandleDevice
from freezer_osbrick.device.hints import FrozenState
from tests.unit.device.conftest import FakeHandle

OBJECT = 4 << 20
SIZE = 16 * OBJECT
VOLUME = "11111111-2222-3333-4444-555555555555"
CLONE = "99999999-2222-3333-4444-555555555555"
OLD, NEW = "aaaaaaaa-0000-0000-0000-000000000001", "aaaaaaaa-0000-0000-0000-000000000002"
STATE = FrozenState(VOLUME, NEW)
SOURCE = f"volume-{VOLUME}"

Range = tuple[int, int]


@dataclasses.dataclass
class Stored:
    """An image in the cluster.

    :ivar objects: ranges that are there, by snapshot; None for the image itself.
    :ivar changed: ranges that differ, by the two snapshots.
    :ivar broken: snapshots whose object map is invalid.
    """

    id: str
    size: int = SIZE
    features: int = 61
    parent: tuple[str, str, str] | None = None
    overlap: int = SIZE
    snapshots: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    objects: dict[str | None, list[Range]] = dataclasses.field(default_factory=dict)
    changed: dict[tuple[str, str], list[Range]] = dataclasses.field(default_factory=dict)
    broken: set[str | None] = dataclasses.field(default_factory=set)


class Image:
    """An image or one of its snapshots, opened."""

    def __init__(self, cluster: Cluster, name: str, snapshot: str | None = None) -> None:
        self.name = name
        self.client: Any = types.SimpleNamespace(client=cluster, rbd_pool="volumes")
        self._cluster = cluster
        self._stored = cluster.images[name]
        self._snapshot = snapshot

    def size(self) -> int:
        return self._stored.size

    def id(self) -> str:
        return self._stored.id

    def features(self) -> int:
        return self._stored.features

    def flags(self) -> int:
        return 1 if self._snapshot in self._stored.broken else 0

    def overlap(self) -> int:
        return self._stored.overlap

    def parent_info(self) -> tuple[str, str, str]:
        if self._stored.parent is None:
            raise Cluster.ImageNotFound("no parent")
        return self._stored.parent

    def list_snaps(self) -> list[dict[str, Any]]:
        return self._stored.snapshots

    def diff_iterate(
        self,
        offset: int,
        length: int,
        since: str | None,
        tell: Callable[[int, int, bool], None],
        parents: bool,
        whole: bool,
    ) -> None:
        assert not (since and whole), "the object map is not believed on what has changed"
        self._cluster.asked.append((offset, length, since))
        stored = self._stored
        found = stored.changed[since, str(self._snapshot)] if since else stored.objects
        for start, size in found[self._snapshot] if isinstance(found, dict) else found:
            if offset <= start < offset + length:
                tell(start, size, True)

    def close(self) -> None:
        self._cluster.open -= 1


class Cluster:
    """The modules rados and rbd, the connection and the pool in one."""

    class ImageNotFound(Exception):
        pass

    RBD_FEATURE_OBJECT_MAP, RBD_FEATURE_FAST_DIFF = 8, 16
    RBD_FLAG_OBJECT_MAP_INVALID, RBD_FLAG_FAST_DIFF_INVALID = 1, 2

    def __init__(self) -> None:
        self.open = 0
        self.asked: list[tuple[int, int, str | None]] = []
        self.images = {
            SOURCE: Stored(
                "id-1",
                snapshots=[
                    {"name": f"snapshot-{OLD}", "id": 4, "size": SIZE},
                    {"name": f"snapshot-{NEW}", "id": 9, "size": SIZE},
                ],
                objects={
                    f"snapshot-{OLD}": [(0, 2 * OBJECT)],
                    f"snapshot-{NEW}": [(0, OBJECT), (5 * OBJECT, OBJECT)],
                },
                changed={
                    (f"snapshot-{OLD}", f"snapshot-{NEW}"): [(4096, 512), (5 * OBJECT, OBJECT)]
                },
            ),
            f"volume-{CLONE}": Stored(
                "id-2", parent=("volumes", SOURCE, f"snapshot-{NEW}"), objects={None: []}
            ),
        }

    def get_fsid(self) -> str:
        return "fsid"

    def open_ioctx(self, pool: str) -> Cluster:
        assert pool == "volumes"
        self.open += 1
        return self

    def close(self) -> None:
        self.open -= 1

    def Image(self, ioctx: Any, name: str, snapshot: str | None, read_only: bool) -> Image:
        assert read_only
        self.open += 1
        return Image(self, name, snapshot)

    def clone(self) -> Image:
        return Image(self, f"volume-{CLONE}")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    cluster = Cluster()
    monkeypatch.setattr(rbd_changes.linuxrbd, "rbd", cluster)
    yield cluster
    assert cluster.open == 0


def mark_of_old(**other: Any) -> dict[str, Any]:
    return {
        **{"kind": "rbd", "cluster": "fsid", "pool": "volumes", "image": "id-1"},
        **{"snapshot": OLD, "name": f"snapshot-{OLD}", "number": 4},
        **other,
    }


def changed(cluster: Cluster, since: dict[str, Any] | None = None) -> list[Range]:
    told = rbd_changes.unchanged(cluster.clone(), SIZE, STATE, since or mark_of_old())
    return list(told.complement(SIZE))


def test_mark_names_the_snapshot_beyond_doubt(cluster: Cluster) -> None:
    assert rbd_changes.mark(cluster.clone(), STATE) == mark_of_old(
        snapshot=NEW, name=f"snapshot-{NEW}", number=9
    )


def test_asks_only_where_objects_are(cluster: Cluster) -> None:
    assert changed(cluster) == [(4096, 512), (5 * OBJECT, OBJECT)]
    since = f"snapshot-{OLD}"
    assert [asked for asked in cluster.asked if asked[2]] == [
        (0, 2 * OBJECT, since),
        (5 * OBJECT, OBJECT, since),
    ]


@pytest.mark.parametrize("without", ["feature", "old", "new"])
def test_without_an_object_map_everything_is_asked(cluster: Cluster, without: str) -> None:
    source = cluster.images[SOURCE]
    if without == "feature":
        source.features = 1
    else:
        source.broken = {f"snapshot-{OLD if without == 'old' else NEW}"}
    assert changed(cluster) == [(4096, 512), (5 * OBJECT, OBJECT)]
    assert cluster.asked[-1] == (0, SIZE, f"snapshot-{OLD}")


def test_a_flattened_clone_is_known_by_names(cluster: Cluster) -> None:
    cluster.images[f"volume-{CLONE}"].parent = None
    assert changed(cluster) == [(4096, 512), (5 * OBJECT, OBJECT)]
    cluster.images[SOURCE].snapshots.pop()
    with pytest.raises(errors.HintsUnfit, match=f"{NEW} is not to be found"):
        changed(cluster)


@pytest.mark.parametrize(
    ("since", "message"),
    [
        ({"kind": "lvm"}, "another kind of storage"),
        ({"cluster": "other"}, "another image"),
        ({"image": "id-7"}, "another image"),
        ({"number": 3}, f"The snapshot {OLD}, which was kept for it, is gone"),
        ({"name": "snapshot-x"}, "is gone"),
        ({"name": f"snapshot-{NEW}", "number": 9}, "the younger one"),
    ],
)
def test_what_does_not_fit(cluster: Cluster, since: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.HintsUnfit, match=message):
        changed(cluster, mark_of_old(**since))


def test_sizes_and_clones_that_do_not_fit(cluster: Cluster) -> None:
    cluster.images[SOURCE].snapshots[0]["size"] = OBJECT
    with pytest.raises(errors.HintsUnfit, match="resized"):
        changed(cluster)
    clone = cluster.images[f"volume-{CLONE}"]
    clone.overlap = OBJECT
    with pytest.raises(errors.HintsUnfit, match="no whole clone"):
        changed(cluster)
    clone.parent = ("volumes", SOURCE, f"snapshot-{OLD}")
    with pytest.raises(errors.HintsUnfit, match=f"and not of {NEW}"):
        changed(cluster)


def test_what_ceph_refuses_is_a_reason(cluster: Cluster) -> None:
    del cluster.images[SOURCE].changed[f"snapshot-{OLD}", f"snapshot-{NEW}"]
    with pytest.raises(errors.HintsUnfit, match="does not tell what has changed"):
        changed(cluster)


def test_holes_are_where_neither_image_nor_parent_has_objects(cluster: Cluster) -> None:
    assert list(rbd_changes.holes(cluster.clone(), SIZE)) == [
        (OBJECT, 4 * OBJECT),
        (6 * OBJECT, 10 * OBJECT),
    ]
    cluster.images[f"volume-{CLONE}"].objects[None] = [(15 * OBJECT, OBJECT)]
    assert not rbd_changes.holes(cluster.clone(), SIZE).touch(15 * OBJECT, 1)
    cluster.images[SOURCE].broken = {f"snapshot-{NEW}"}
    assert not rbd_changes.holes(cluster.clone(), SIZE)


def test_a_device_whose_storage_does_not_tell_is_read(cluster: Cluster) -> None:
    clone: Any = cluster.clone()
    device = HandleDevice(FakeHandle(clone), size=SIZE, writable=False, connection_info={})
    assert device.hearsay and device.unallocated() and not device.holes()
    clone.diff_iterate = None
    assert not device.unallocated()
