# SPDX-License-Identifier: Apache-2.0
"""How much memory this process may still take."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

# Version 2 and version 1 of control groups: limit, usage, and what of it the kernel gives back.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """Bytes that can be had without swapping: of the host, and of each control group that this
    process is in. None where the kernel does not say.

    :param root: below which ``proc`` and ``sys`` lie.
    """
    found = [_of_host(root), *(_of_group(folder) for folder in _groups(root))]
    known = [size for size in found if size is not None]
    return min(known) if known else None


def _of_host(root: pathlib.Path) -> int | None:
    match = re.search(r"^MemAvailable:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(match[1]) << 10 if match else None


def _groups(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folders of the control groups of this process, with those around them."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        group = top / path.lstrip("/")
        yield group
        yield from (above for above in group.parents if above.is_relative_to(top))


def _of_group(folder: pathlib.Path) -> int | None:
    for limit_name, usage_name, given_back in _FILES:
        limit, usage = _text(folder / limit_name), _text(folder / usage_name)
        if limit.strip().isdecimal() and usage.strip().isdecimal():
            inactive = re.search(
                rf"^{given_back} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE
            )
            free = int(limit) - int(usage) + (int(inactive[1]) if inactive else 0)
            return max(0, free)
    return None


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
