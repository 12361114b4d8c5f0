# SPDX-License-Identifier: Apache-2.0
"""What a person may pick: the project's volumes and groups, and what a new volume may be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from django.utils.translation import gettext_lazy as _
from openstack_dashboard.api import cinder

LOG = logging.getLogger(__name__)
Choices = list[tuple[str, Any]]


def volumes(request: Any) -> Choices:
    """The project's volumes, by name; not the engine's own temporary ones."""
    listed = _listed(request, cinder.volume_list)
    return [
        (volume.id, f"{volume.name or volume.id} ({volume.size} GiB, {volume.status})")
        for volume in sorted(listed, key=lambda volume: (volume.name or "", volume.id))
        if not any(key.startswith("freezer_osbrick") for key in volume.metadata or {})
    ]


def groups(request: Any) -> Choices:
    """The project's groups of volumes, by name."""
    listed = _listed(request, cinder.group_list)
    return sorted(((group.id, group.name or group.id) for group in listed), key=lambda it: it[1])


def volume_types(request: Any) -> Choices:
    names = sorted(kind.name for kind in _listed(request, cinder.volume_type_list))
    return [("", _("As in the backup")), *((name, name) for name in names)]


def availability_zones(request: Any) -> Choices:
    zones = _listed(request, cinder.availability_zone_list)
    names = sorted(zone.zoneName for zone in zones if zone.zoneState["available"])
    return [("", _("As in the backup")), *((name, name) for name in names)]


def with_chosen(choices: Choices, chosen: Iterable[str]) -> Choices:
    """The choices, and what was chosen earlier and is not among them: a volume that is gone."""
    known = {value for value, _label in choices}
    return choices + [(value, value) for value in chosen if value not in known]


def _listed(request: Any, ask: Callable[[Any], Iterable[Any]]) -> list[Any]:
    """Nothing where Cinder does not answer: the ids can still be typed in."""
    try:
        return list(ask(request))
    except Exception:
        LOG.exception("Cinder cannot be asked for its %s", ask.__name__)
        return []
