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
# The one backup that is the installed program's; the others save the time of its imports.
_PLAIN = ("Fibre Channel", USER)


@pytest.mark.parametrize("user", [USER, "root"])
@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_round_trip(
    guest: Guest, record_property: Callable[[str, object], None], transport: str, user: str
) -> None:
    kind, multipath = _TRANSPORTS[transport]
    how = {"user": user, "multipath": multipath}
    cut = multipath and user == "root"
    seed = 2 * list(_TRANSPORTS).index(transport) + (user == "root")
    volume_id = guest.volume(kind, seed)
    number = guest.start(*backup_words(volume_id), plain=(transport, user) == _PLAIN, **how)
    try:
        if cut:
            guest.until(number, moved=100 << 20)
            guest.call("faults.cut", 1)
        backup = guest.finish(number)
    finally:
        guest.call("faults.mend")
    assert backup.record["bytes_read"] == GIB
    assert guest.leftovers() == {}

    if user == "root":  # into a new volume, of which every byte is written
        guest.drop(volume_id)
    else:  # into a clone of the volume, of which that is written which differs
        guest.call("volumes.change", volume_id, seed, 4 << 20, 8)
    restore = guest.restore(volume_id, **how)
    restored_id = restore.record["restored_volume_id"]
    guest.volumes.append(restored_id)
    assert guest.holds(restored_id, seed)
    left = guest.leftovers()
    assert left == {}

    record_property(
        ROW,
        {
            "transport": f"{transport}, one path cut" if cut else transport,
            "as": user,
            "attach s": f"{seconds(backup, 'attaching', 'connected'):.1f}",
            "read MB/s": f"{speed(backup):.0f}",
            "restore MB/s": f"{speed(restore):.0f}",
            "detach s": f"{seconds(backup, 'closed', 'detached'):.1f}",
            "leftovers": str(sum(map(len, left.values()))),
        },
    )
    for made in list(guest.volumes):
        guest.drop(made)


def seconds(done: Done, begin: str, end: str) -> float:
    return done.seen[end] - done.seen[begin]


def speed(done: Done) -> float:
    """Of the volume, in MB a second, from the first byte to the last."""
    return GIB / 1e6 / seconds(done, "opened", "closed")
