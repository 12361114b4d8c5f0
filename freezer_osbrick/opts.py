# SPDX-License-Identifier: Apache-2.0
"""Every configuration option, by group, and what is derived from them."""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keystoneauth1 import loading
from oslo_config import cfg, types

from freezer_osbrick import errors

_REPOSITORY_PREFIX = "repository:"

_BRICK = "os_brick"  # os-brick's own group, in Freezer's files

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?(?:/s)?", re.IGNORECASE)

_DEFAULT_FILES = (
    "/etc/freezer-osbrick/freezer-osbrick.conf",
    "~/.config/freezer-osbrick.conf",
)


class Share(types.ConfigType):
    """A share of a whole: 5%, or 0.05; above nothing and at most all."""

    def __init__(self) -> None:
        super().__init__(type_name="share")

    def __call__(self, value: Any) -> float:
        try:
            return parse_share(value)
        except errors.BadRequest as error:
            raise ValueError(str(error)) from error

    def _formatter(self, value: Any) -> str:
        return str(value)

    def __repr__(self) -> str:
        return "Share"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Share)

    __hash__ = None  # type: ignore[assignment]


def parse_share(value: Any) -> float:
    """A share of a whole from ``5%`` or ``0.05``: above 0, and up to 1.

    :raises errors.BadRequest: it is none.
    """
    text = str(value).strip()
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise errors.BadRequest(f"{text!r} is no share; write it as 5% or 0.05")
    return share


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
        type=Share(),
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
        "the first pauses are shorter.",
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

REPOSITORY_OPTS = [
    cfg.StrOpt(
        "url",
        help="Address of the repository: an absolute path, file:///srv/backups, "
        "s3://bucket/prefix, swift://container/prefix, sftp://user@host:port/path, "
        "ftp://user@host:port/path or ftps://user@host:port/path.",
    ),
    cfg.StrOpt("endpoint", help="S3: URL of the service. Default: AWS_ENDPOINT_URL, else Amazon."),
    cfg.StrOpt(
        "region",
        help="S3 and Swift: region of the service. Default: AWS_DEFAULT_REGION and "
        "[cloud]region_name.",
    ),
    cfg.StrOpt(
        "access_key",
        secret=True,
        help="S3: access key. Default: AWS_ACCESS_KEY_ID and what else programs for S3 look at.",
    ),
    cfg.StrOpt("secret_key", secret=True, help="S3: secret key. Default: AWS_SECRET_ACCESS_KEY."),
    cfg.StrOpt(
        "addressing",
        default="auto",
        choices=("auto", "path", "virtual"),
        help="S3: whether the bucket is named in the path of a URL or in its host.",
    ),
    cfg.StrOpt(
        "conditional_put",
        default="auto",
        choices=("auto", "yes", "no"),
        help="S3: whether the service honours If-None-Match. auto finds it out, by an object "
        ".conditional-put.",
    ),
    cfg.StrOpt(
        "auth_url",
        help="Swift: where Swift's own login is, if it is not Keystone's. Default: ST_AUTH.",
    ),
    cfg.StrOpt(
        "storage_url", help="Swift: URL of the account. Default: the one that the login names."
    ),
    cfg.StrOpt(
        "user",
        help="SFTP, FTP and Swift's own login: name of the user. Default: the one in the address; "
        "ST_USER.",
    ),
    cfg.StrOpt(
        "password",
        secret=True,
        help="SFTP, FTP and Swift's own login: password of the user. Default: the variable "
        "FREEZER_OSBRICK_PASSWORD; ST_KEY.",
    ),
    cfg.StrOpt("password_file", help="File whose first line is the password."),
    cfg.StrOpt(
        "ssh_key_file",
        help="SFTP: file with the private key. Default: the keys of ~/.ssh and of the agent.",
    ),
    cfg.StrOpt(
        "known_hosts",
        help="SFTP: file with the keys of servers. Default: ~/.ssh/known_hosts.",
    ),
    cfg.BoolOpt(
        "accept_new_host",
        default=False,
        help="SFTP: take the key of a server that known_hosts does not name, and write it there.",
    ),
    cfg.StrOpt(
        "ca_file",
        help="S3, Swift and FTPS: certificates of the authorities that are trusted. Default: the "
        "system's.",
    ),
    cfg.FloatOpt(
        "patience",
        default=300.0,
        min=0,
        help="For how many seconds a call is repeated that a remote store could not answer.",
    ),
    cfg.IntOpt(
        "connections",
        default=16,
        min=1,
        help="Requests to the store that are under way at the same time, for all volumes of a run.",
    ),
    cfg.StrOpt(
        "upload_limit", help="Bytes a second that are sent at most: a number, or 10K, 120M, 1G."
    ),
    cfg.StrOpt("download_limit", help="Bytes a second that are fetched at most."),
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
        known = REPOSITORY_OPTS if group.startswith(_REPOSITORY_PREFIX) else _GROUPS.get(group)
        if known is None and group != _BRICK:
            meant = difflib.get_close_matches(group, _GROUPS, n=1, cutoff=0.8)
            if meant:
                raise errors.ConfigurationError(
                    f"{path}: there is no group [{group}]; did you mean [{meant[0]}]?"
                )
        if known is None or known is SERVICE_USER_OPTS:
            continue  # keystoneauth's plug-ins have options of their own
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
    return [*known.items(), (_REPOSITORY_PREFIX + "NAME", copy.deepcopy(REPOSITORY_OPTS))]


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


def repository_names(conf: cfg.ConfigOpts) -> list[str]:
    """Names of the ``[repository:NAME]`` groups in the configuration files."""
    try:
        sections = conf.list_all_sections()
    except AttributeError:  # oslo.config's way to say that it never was called to read files
        return []
    return sorted(
        section[len(_REPOSITORY_PREFIX) :]
        for section in sections
        if section.startswith(_REPOSITORY_PREFIX)
    )


def repository_url(conf: cfg.ConfigOpts, name: str) -> str:
    """The URL of a repository named in the configuration.

    :raises errors.ConfigurationError: there is no such group, or it has no URL.
    """
    return str(_repository_group(conf, name)["url"])


def repository_settings(conf: cfg.ConfigOpts, address: str) -> dict[str, Any]:
    """What is configured for a repository, by option; ``url`` is its address.

    :param address: a name from the configuration or a URL. A URL that one of the configured
        repositories has gets what is configured for it.
    :raises errors.ConfigurationError: there is no such name, or a URL has several.
    """
    if _REPOSITORY_PREFIX + address in conf or not ("://" in address or address.startswith("/")):
        return _repository_group(conf, address)
    found = {}
    for name in repository_names(conf):
        conf.register_opts(REPOSITORY_OPTS, group=_REPOSITORY_PREFIX + name)
        url = conf[_REPOSITORY_PREFIX + name].url
        if url and url.rstrip("/") == address.rstrip("/"):
            found[name] = _repository_group(conf, name)
    if len(found) > 1:
        raise errors.ConfigurationError(
            f"{address} is the repository {' and '.join(found)} of the configuration: give the "
            "name of one."
        )
    defaults = {option.dest: option.default for option in REPOSITORY_OPTS}
    return {**defaults, **next(iter(found.values()), {}), "url": address}


def set_repository(
    conf: cfg.ConfigOpts, url: str, settings: Mapping[str, Any], name: str | None = None
) -> None:
    """Configure the repository at a URL as if a file had done it.

    :param settings: count more than those of a file for the same URL.
    :param name: under which it is then known, in place of the URL.
    """
    whole = {**repository_settings(conf, url), **settings, "url": url}
    group = _REPOSITORY_PREFIX + (name or url)
    conf.register_opts(REPOSITORY_OPTS, group=group)
    for option, value in whole.items():
        conf.set_override(option, value, group=group)


def _repository_group(conf: cfg.ConfigOpts, name: str) -> dict[str, Any]:
    known = repository_names(conf)
    group = _REPOSITORY_PREFIX + name
    if name not in known and group not in conf:
        hint = f"known are: {', '.join(known)}" if known else "no configuration file names any"
        raise errors.ConfigurationError(f"No repository is named {name!r}: {hint}.")
    try:
        conf.register_opts(REPOSITORY_OPTS, group=group)
        settings = {option.dest: conf[group][option.dest] for option in REPOSITORY_OPTS}
    except cfg.Error as error:
        raise errors.ConfigurationError(
            f"The group [{group}] of the configuration cannot be used: {error}"
        ) from error
    if not settings["url"]:
        raise errors.ConfigurationError(f"The group [{group}] of the configuration has no url.")
    return settings


def parse_rate(text: str | int | None) -> int | None:
    """Bytes a second from ``10K``, ``120M``, ``1.5G`` or a number; None means no limit.

    Freezer writes no limit as -1.

    :raises errors.BadRequest: it is no rate, or nothing would get through.
    """
    if text is None or str(text).strip() in ("", "-1"):
        return None
    found = _RATE.fullmatch(str(text).strip())
    if found is None:
        raise errors.BadRequest(f"{text!r} is no bandwidth: give bytes a second, or 10K, 120M, 1G.")
    rate = int(float(found[1]) * _UNITS[found[2].upper()])
    if rate < 1:
        raise errors.BadRequest(f"With a bandwidth of {text!r} nothing would get through.")
    return rate
