# SPDX-License-Identifier: Apache-2.0
"""Every configuration option, by group, and what is derived from them."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Iterable, Sequence
from typing import Any

from keystoneauth1 import loading
from oslo_config import cfg

from freezer_osbrick import errors, named_repositories, quantities

_BRICK = "os_brick"  # os-brick's own group, in Freezer's files

_DEFAULT_FILES = (
    "/etc/freezer-osbrick/freezer-osbrick.conf",
    "~/.config/freezer-osbrick.conf",
)


OSBRICK_OPTS = [
    cfg.StrOpt(
        "state_path",
        help="Folder for the journals of running backups and for scratch files. Default: "
        "/var/lib/freezer-osbrick for root, ~/.local/state/freezer-osbrick for everyone else.",
    ),
    cfg.IntOpt(
        "parallel",
        default=10,
        min=1,
        help="Volumes that are backed up or restored at the same time; fewer where memory does not "
        "suffice, 512 MiB for each.",
    ),
    cfg.IntOpt(
        "workers",
        default=4,
        min=1,
        help="Threads that read, compress and write: all volumes of a run share them.",
    ),
    cfg.IntOpt(
        "compression_level",
        default=1,
        min=0,
        max=22,
        help="Level of zstd; 0 stores blocks uncompressed.",
    ),
    cfg.BoolOpt(
        "keep_snapshot",
        help="Leave the snapshot of each backup on its volume until the next one, which then reads "
        "only what the storage says has changed (Ceph). It takes room and quota, and Cinder "
        "neither deletes nor migrates a volume that has a snapshot. Default: only where a job asks "
        "for it with --keep-snapshot. false: none, and 'freezer-osbrick cleanup' removes those "
        "that are there.",
    ),
    cfg.Opt(
        "audit",
        type=quantities.Share(),
        default="1%",
        help="Share of the blocks which the storage says need not be read that is read all the "
        "same, to prove it; 64 blocks at least.",
    ),
    cfg.IntOpt(
        "full_read_every",
        default=30,
        min=0,
        help="Each so many backups of a volume one reads it whole, whatever the storage says has "
        "changed; 0 for never.",
    ),
]

CLOUD_OPTS = [
    cfg.StrOpt(
        "os_cloud",
        help="Name of a cloud in clouds.yaml. Default: OS_CLOUD, or the OS_* variables.",
    ),
    cfg.StrOpt("region_name", help="Region whose Cinder is used. Default: OS_REGION_NAME."),
    cfg.StrOpt(
        "interface",
        help="Kind of endpoint: public, internal or admin. Default: OS_INTERFACE, else public.",
    ),
    cfg.FloatOpt(
        "poll_interval",
        default=2.0,
        min=0.05,
        help="Longest pause, in seconds, between two looks at something that Cinder works on; "
        "the first pauses are shorter, unless Cinder's answers take long.",
    ),
    cfg.IntOpt(
        "timeout",
        default=300,
        min=1,
        help="How long Cinder may take for one step, in seconds, whatever the size of the volume.",
    ),
    cfg.IntOpt(
        "timeout_per_gib",
        default=30,
        min=0,
        help="Seconds added to the timeout for each GiB of the volume.",
    ),
    cfg.IntOpt(
        "api_retries",
        default=8,
        min=0,
        help="How often a request is repeated that the cloud answered with a server error or did "
        "not answer at all. The pauses double from half a second to 16 seconds.",
    ),
    cfg.IntOpt(
        "create_attempts",
        default=3,
        min=1,
        help="How often a snapshot or a volume is tried that goes to an error state while Cinder "
        "creates it; the failed one is deleted first.",
    ),
    cfg.IntOpt(
        "delete_attempts",
        default=6,
        min=1,
        help="How often a deletion is tried that Cinder refuses.",
    ),
    cfg.IntOpt(
        "lease",
        default=3600,
        min=60,
        help="Seconds that snapshots and volumes of a run which no longer renews them are kept "
        "before another host may remove them. Renewed four times as often.",
    ),
]

DEVICE_OPTS = [
    cfg.StrOpt("my_ip", help="Address of this host towards the storage. Default: found by route."),
    cfg.StrOpt(
        "hostname",
        help="Name of this host towards Cinder and in the tags of what we create. Default: the "
        "host's own name.",
    ),
    cfg.BoolOpt("use_multipath", default=False, help="Connect volumes over several paths."),
    cfg.BoolOpt(
        "enforce_multipath", default=False, help="Refuse to work when multipathd does not run."
    ),
    cfg.StrOpt(
        "root_helper",
        help="Command that runs a program as root, used by others than root. An empty value: no "
        "root rights at all (volumes that are files, and Ceph, need none). Default: sudo, where it "
        "may be used without a password.",
    ),
    cfg.IntOpt(
        "scan_attempts", default=3, min=1, help="How often is looked for a device to appear."
    ),
    cfg.StrOpt(
        "lock_path",
        help="Folder of os-brick's lock files. On a host that also runs nova-compute or "
        "cinder-volume it must be theirs. Default: [oslo_concurrency]lock_path, else a folder in "
        "the state path.",
    ),
    cfg.StrOpt(
        "ceph_keyring",
        help="Keyring file of the Ceph user. Default: /etc/ceph/<cluster>.client.<user>.keyring.",
    ),
]

SERVICE_USER_OPTS = [
    cfg.BoolOpt(
        "send_service_user_token",
        default=False,
        help="Send the token of a service user beside the user's own, to Cinder and Nova. Clouds "
        "that follow OSSA-2023-003 (CVE-2023-2088) have such a user for each service; it needs the "
        "role that their service_token_roles name. The other options of this group are "
        "keystoneauth's.",
    ),
    *loading.get_auth_common_conf_options(),
]

_GROUPS = {
    "osbrick": OSBRICK_OPTS,
    "cloud": CLOUD_OPTS,
    "device": DEVICE_OPTS,
    "service_user": SERVICE_USER_OPTS,
}


def register(conf: cfg.ConfigOpts) -> None:
    """Make every option known to ``conf``; may be called again."""
    for group, options in _GROUPS.items():
        conf.register_opts(options, group=group)


def load(files: Sequence[str] = ()) -> cfg.ConfigOpts:
    """Our options in a configuration of their own, every value checked.

    :param files: to be read, later ones win; the default ones that exist where there are none.
    :raises errors.ConfigurationError: a file that cannot be read, or a value that makes no sense.
    """
    conf = cfg.ConfigOpts()
    register(conf)
    chosen = [os.path.expanduser(name) for name in files] or default_files()
    try:
        conf([], project="freezer-osbrick", default_config_files=chosen, default_config_dirs=[])
        # oslo.config looks at a value when it is first read, which may be hours into a run.
        for group, options in _GROUPS.items():
            for option in options:
                getattr(conf[group], option.dest)
    except cfg.Error as error:
        raise errors.ConfigurationError(f"The configuration cannot be used: {error}") from error
    for path in chosen:
        _refuse_unknown(path)
    return conf


def _refuse_unknown(path: str) -> None:
    """oslo.config passes over what it does not know: nobody would learn of a mistyped setting.

    Other groups than ours may stand in a file; one that is almost ours is a slip, too.

    :raises errors.ConfigurationError: one of our groups has an option that is none.
    """
    groups: dict[str, dict[str, Any]] = {}
    cfg.ConfigParser(path, groups).parse()
    for group, given in groups.items():
        if group.startswith(named_repositories.PREFIX):
            _refuse_unknown_options(path, group, given, named_repositories.OPTS)
        elif group == "service_user":
            pass  # keystoneauth's plug-ins have options of their own
        elif group in _GROUPS:
            _refuse_unknown_options(path, group, given, _GROUPS[group])
        elif group != _BRICK:
            meant = difflib.get_close_matches(group, _GROUPS, n=1, cutoff=0.8)
            if meant:
                raise errors.ConfigurationError(
                    f"{path}: there is no group [{group}]; did you mean [{meant[0]}]?"
                )


def _refuse_unknown_options(
    path: str, group: str, given: Iterable[str], known: Iterable[cfg.Opt]
) -> None:
    names = [option.dest for option in known]
    for name in given:
        if name not in names:
            meant = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {meant[0]}?" if meant else f"there are {', '.join(names)}."
            raise errors.ConfigurationError(
                f"{path}: the group [{group}] has no option {name}; {hint}"
            )


def default_files() -> list[str]:
    """The configuration files that are read where none is named: those that exist."""
    names = [os.path.expanduser(name) for name in _DEFAULT_FILES]
    return [name for name in names if os.path.exists(name)]


def list_opts() -> list[tuple[str, list[Any]]]:
    """What oslo-config-generator asks for: groups and their options."""
    known = {group: copy.deepcopy(options) for group, options in _GROUPS.items()}
    # These are registered when the plug-in is loaded that auth_type names.
    known["service_user"] += loading.get_auth_plugin_conf_options("password")
    return [
        *known.items(),
        (named_repositories.PREFIX + "NAME", copy.deepcopy(named_repositories.OPTS)),
    ]


def state_path(conf: cfg.ConfigOpts) -> str:
    """The folder for journals and scratch files, made with mode 0700 when it is not there.

    :raises errors.ConfigurationError: it cannot be made.
    """
    path = conf.osbrick.state_path
    if not path and os.geteuid() == 0:
        path = "/var/lib/freezer-osbrick"
    elif not path:
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        path = os.path.join(home, "freezer-osbrick")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise errors.ConfigurationError(
            f"The state folder {path} cannot be made: {error.strerror}. "
            "Name another with state_path in the [osbrick] group."
        ) from error
    return path
