# SPDX-License-Identifier: Apache-2.0
"""What a connected volume is on this host, kept until nothing of it is there any more."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from typing import Any

from freezer_osbrick.device import disks

_LINKS = ("dev/disk/*/*", "dev/mapper/*")


def of(path: str, sysfs: str = disks.SYSFS) -> dict[str, str]:
    """The disks behind a path: their folders in sysfs, with what tells them from later ones.

    NVMe namespaces are none of them: where others share their subsystem they stay until Cinder
    takes them away.
    """
    try:
        number = os.stat(path).st_rdev
    except OSError:
        return {}
    if not number:
        return {}  # a file
    folder = disks.folder_by_number(f"{os.major(number)}:{os.minor(number)}", sysfs)
    found = {folder, *disks.below(folder)}
    return {each: disks.mark(each) for each in sorted(found) if disks.kind(each) != "nvme"}


def remaining(traces: Mapping[str, Any]) -> list[str]:
    """Folders of the disks that are there still."""
    return [
        folder
        for folder, mark in traces.items()
        if os.path.isdir(folder) and disks.mark(folder) == mark
    ]


def dangling(traces: Iterable[str], root: str = "/") -> list[str]:
    """Links that udev made for these disks, and did not remove with them."""
    names = {disks.name_of(folder) for folder in traces}
    found = []
    for pattern in _LINKS:
        for link in glob.glob(os.path.join(root, pattern)):
            if (
                os.path.islink(link)
                and not os.path.exists(link)
                and os.path.basename(os.readlink(link)) in names
            ):
                found.append(link)
    return sorted(found)
