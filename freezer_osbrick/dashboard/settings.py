# SPDX-License-Identifier: Apache-2.0
"""What forms say, as settings of a freezer action, and the other way round.

A form's fields begin with ``osbrick_``: all tabs of a workflow are one form to the browser.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

ENGINES = ("osbrick", "cinder-osbrick")
PREFIX = "osbrick_"

CHOSEN, PROJECT, GROUPS, EVERYTHING = (
    "single_volume_id",
    "all_tenant_volumes",
    "consistency_groups",
    "all_tenants",
)
SCOPES = (CHOSEN, PROJECT, GROUPS, EVERYTHING)
NEW, IN_PLACE = "new", "in_place"

# Settings that a field gives as they are, by the actions that they are for.
_PLAIN = {
    "backup": (
        *("content", "fallback_to_blocks", "incremental", "max_level", "parallel", "compression"),
        *("encrypt_pass_file", "remove_older_than", "endpoint", "access_key", "cold"),
    ),
    "restore": (
        *("new_name", "volume_type", "availability_zone", "parallel", "encrypt_pass_file"),
        *("meta_override", "recreate_vol_on_error", "remove_old_vol", "endpoint", "access_key"),
        "verify",
    ),
    "admin": ("encrypt_pass_file", "endpoint", "access_key"),
}
KEYS = tuple(sorted({*SCOPES, IN_PLACE, "yes", *(key for keys in _PLAIN.values() for key in keys)}))

# Fields of the other tabs that mean something else, or nothing, for volumes.
_STRANGE = (
    *(
        "cinder_vol_id",
        "cindernative_vol_id",
        "fullbackup_rotation",
        "nova_inst_id",
        "no_incremental",
    ),
    *("glance_image_id", "nova_restore_network", "get_object", "dst_file", "path_to_backup"),
    *("restore_abs_path", "mysql_conf", "sql_server_conf", "snapshot", "max_segment_size"),
    *("dereference_symlink", "encryption_password", "compression", "max_level", "always_level"),
    *("restart_always_level",),
)

# Of a record: where its backups lie, and what opens them.
_KEPT = (
    *("storage", "container", "backup_name", "hostname", "encrypt_pass_file"),
    *("ssh_host", "ssh_port", "ssh_username", "ssh_key", "endpoint", "access_key"),
    *("ftp_host", "ftp_port", "ftp_username"),
)


def is_ours(document: Mapping[str, Any]) -> bool:
    """Whether an action, or the metadata of a backup's record, is of this engine."""
    return document.get("engine_name") in ENGINES


def of_form(data: Mapping[str, Any], action: str) -> dict[str, Any]:
    """The settings that a filled-in form stands for.

    :param data: cleaned values by field.
    :param action: ``backup``, ``restore`` or ``admin``.
    """
    settings = {key: data.get(PREFIX + key) for key in _PLAIN.get(action, ())}
    if action in ("backup", "restore"):
        scope = data.get("osbrick_scope") or CHOSEN
        settings[scope] = _chosen(data, scope)
    if action == "restore" and data.get("osbrick_target") == IN_PLACE:
        settings[IN_PLACE] = True
    if settings.get("remove_old_vol"):
        settings["yes"] = True  # the form has asked
    return {key: value for key, value in settings.items() if value not in (None, "", False, [])}


def _chosen(data: Mapping[str, Any], scope: str) -> Any:
    if scope == CHOSEN:
        typed = (data.get("osbrick_volume_ids") or "").replace(",", " ").split()
        return list(dict.fromkeys([*data.get("osbrick_volumes", ()), *typed]))
    if scope == GROUPS:
        return list(data.get("osbrick_groups", ()))
    return True


def to_form(action: Mapping[str, Any]) -> dict[str, Any]:
    """The fields' values for an action that exists, to change it."""
    values = {PREFIX + key: action[key] for key in KEYS if action.get(key) not in (None, "")}
    scopes = [scope for scope in SCOPES if action.get(scope)]
    if scopes:
        values["osbrick_scope"] = scopes[0]
    values["osbrick_volumes"] = as_list(action.get(CHOSEN))
    values["osbrick_groups"] = as_list(action.get(GROUPS))
    values["osbrick_target"] = IN_PLACE if action.get(IN_PLACE) else NEW
    return values


def as_list(value: Any) -> list[str]:
    """Ids from a list or from a text with commas."""
    if not value:
        return []
    words = value if isinstance(value, list | tuple) else str(value).split(",")
    return [str(word).strip() for word in words if str(word).strip()]


def completed(action: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """What all tabs gave, as an action of this engine.

    :param action: of Freezer's own tabs.
    :param ours: of ``of_form``.
    """
    kept = {key: value for key, value in action.items() if key not in _STRANGE and key not in KEYS}
    if action.get("action") == "admin":
        kept["remove_older_than"] = action.get("remove_older_than")
    return {**kept, "mode": "cinder", **ours}


def of_restore(metadata: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The action that restores from a backup's record.

    :param metadata: the record's.
    :param data: cleaned values of the form; ``osbrick_volumes`` are the ids of volumes.
    """
    kept = {key: metadata[key] for key in _KEPT if metadata.get(key)}
    chosen = [
        volume for volume in volumes_of(metadata) if volume["volume_id"] in data["osbrick_volumes"]
    ]
    # Each volume of a run has a time of its own; the next run's are all younger.
    newest = max(volume.get("time_stamp") or 0 for volume in chosen)
    return {
        "action": "restore",
        "engine_name": "osbrick",
        "mode": "cinder",
        **kept,
        "restore_from_date": iso_date(newest or int(metadata["time_stamp"])),
        **of_form({**data, "osbrick_scope": CHOSEN}, "restore"),
    }


def volumes_of(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The volumes in a record, as the engine told of them."""
    return list((metadata.get("osbrick") or {}).get("volumes") or ())


def restorable(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The volumes in a record of which there is a backup."""
    return [volume for volume in volumes_of(metadata) if volume.get("backup_id")]


def iso_date(moment: int) -> str:
    """A time as the agent reads it; without the Z at its end it would depend on time zones."""
    date = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    return date.strftime("%Y-%m-%dT%H:%M:%SZ")
