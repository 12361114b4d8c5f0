# SPDX-License-Identifier: Apache-2.0
"""A backup and a restore over each transport, as root and as a plain user.

Where there are two paths, one of them is cut in the midst of root's backup.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.transports.guest import GIB, ROW, USER, Done, Guest, backup_words

_TRANSPORTS = {
    "Fibre Channel": ("fc", False),
    "iSCSI": ("iscsi", False),
    "iSCSI, multipath": ("iscsi", True),
    "NVMe/TCP": ("nvme", False),
    "NVMe/TCP, multipath": ("nvme", True),
}
# The one whose plain user runs the installed program; the others save the time of its imports.
_PLAIN = "Fibre Channel"


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_round_trips(
    guest: Guest, record_property: Callable[[str, object], None], transport: str
) -> None:
    kind, multipath = _TRANSPORTS[transport]
    seed = list(_TRANSPORTS).index(transport)
    volume_id = guest.volume(kind, seed)
    of_user = back_up(guest, volume_id, USER, multipath, plain=transport == _PLAIN)
    of_root = back_up(guest, volume_id, "root", multipath, cut=multipath)

    # The plain user's goes into a clone of the volume, of which that is written which differs.
    guest.call("volumes.change", volume_id, seed, 4 << 20, 8)
    restored = bring_back(guest, volume_id, seed, USER, multipath)
    record_property(ROW, row(transport, USER, of_user, *restored))
    # Root's goes into a new volume, of which every byte is written.
    guest.drop(volume_id)
    restored = bring_back(guest, volume_id, seed, "root", multipath)
    name = f"{transport}, one path cut" if multipath else transport
    record_property(ROW, row(name, "root", of_root, *restored))


def back_up(
    guest: Guest,
    volume_id: str,
    user: str,
    multipath: bool,
    *,
    plain: bool = False,
    cut: bool = False,
) -> Done:
    """A full backup that reads all of the volume and leaves nothing.

    :param cut: one of the paths, when a tenth has been read.
    """
    number = guest.start(*backup_words(volume_id), user=user, multipath=multipath, plain=plain)
    try:
        if cut:
            guest.until(number, moved=GIB // 10)
            guest.call("faults.cut", 1)
        done = guest.finish(number)
    finally:
        guest.call("faults.mend")
    assert done.record["bytes_read"] == GIB
    assert guest.leftovers() == {}
    return done


def bring_back(
    guest: Guest, volume_id: str, seed: int, user: str, multipath: bool
) -> tuple[Done, dict[str, list[str]]]:
    """A restore whose every byte is right, and what is left beside its volume, which goes."""
    done = guest.restore(volume_id, user=user, multipath=multipath)
    restored_id = done.record["restored_volume_id"]
    guest.volumes.append(restored_id)
    assert guest.holds(restored_id, seed)
    left = guest.leftovers()
    assert left == {}
    guest.drop(restored_id)
    return done, left


def row(
    transport: str, user: str, backup: Done, restore: Done, left: dict[str, list[str]]
) -> dict[str, str]:
    """What was measured."""
    return {
        "transport": transport,
        "as": user,
        "attach s": f"{seconds(backup, 'attaching', 'connected'):.1f}",
        "read MB/s": f"{speed(backup):.0f}",
        "restore MB/s": f"{speed(restore):.0f}",
        "detach s": f"{seconds(backup, 'closed', 'detached'):.1f}",
        "leftovers": str(sum(map(len, left.values()))),
    }


def seconds(done: Done, begin: str, end: str) -> float:
    return done.seen[end] - done.seen[begin]


def speed(done: Done) -> float:
    """Of the volume, in MB a second, from the first byte to the last."""
    return GIB / 1e6 / seconds(done, "opened", "closed")
