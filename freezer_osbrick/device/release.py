# SPDX-License-Identifier: Apache-2.0
"""Letting go of a volume: what os-brick does not look for, and the proof that nothing is left.

An attachment is deleted only after that proof: from then on the storage may put another volume in
the place of ours.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from oslo_log import log as logging

from freezer_osbrick import errors
from freezer_osbrick.device import disks, places, traces

LOG = logging.getLogger(__name__)

# Seconds that udev and multipathd have to take away what belonged to a volume.
_PATIENCE = 15.0
_PAUSE = 0.2


def namespace(connector: Any, place: places.NVMe) -> dict[str, Any]:
    """The device info of a namespace that a dead process has connected; empty where there is none.
    Connections to the storage that have no namespace at all are ended here."""
    found = place.disks()
    if found:
        return {"type": "block", "path": disks.node_of(found[0])}
    for controller in place.idle_controllers():
        connector.run_nvme_cli(["disconnect", "-d", f"/dev/{controller}"])
    return {}


def prove_gone(
    connector: Any, place: places.Place | None, left: Mapping[str, Any], *, force: bool
) -> None:
    """Nothing of the volume is on this host any more.

    :param place: where Cinder said that the volume is.
    :param left: the traces that it had.
    :param force: multipath devices without paths are removed.
    :raises errors.DeviceError: something is still there; the message names it.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        folders = traces.remaining(left)
        found = [disks.name_of(folder) for folder in folders]
        found += place.remains() if place else []
        if not found:
            break
        if time.monotonic() > deadline:
            raise errors.DeviceError(
                f"Of the volume there is still on this host: {', '.join(dict.fromkeys(found))}."
            )
        if force:
            _remove_empty_maps(connector, folders)
        time.sleep(_PAUSE)
    _remove_links(traces.dangling(left))


def _remove_empty_maps(connector: Any, folders: Iterable[str]) -> None:
    """os-brick does not look for the multipath device of paths that do not answer."""
    for folder in folders:
        if disks.kind(folder) == "multipath" and not disks.below(folder):
            try:
                connector._linuxscsi.multipath_del_map(disks.name_of(folder))
            except Exception as error:  # os-brick's and processutils'
                LOG.warning("%s could not be removed: %s", disks.name_of(folder), error)


def _remove_links(links: list[str]) -> None:
    """A link that udev has forgotten would show the next disk of that name as this one."""
    if not links:
        return
    from os_brick.privileged import rootwrap

    LOG.warning("Removing links to disks that are gone: %s", ", ".join(links))
    rootwrap.unlink_root(*links, no_errors=True)
