# SPDX-License-Identifier: Apache-2.0
"""What is configured for repositories: groups ``[repository:NAME]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

from freezer_osbrick import errors

PREFIX = "repository:"

OPTS = [
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


def names(conf: cfg.ConfigOpts) -> list[str]:
    """Names of the ``[repository:NAME]`` groups in the configuration files."""
    try:
        sections = conf.list_all_sections()
    except AttributeError:  # oslo.config's way to say that it never was called to read files
        return []
    return sorted(section[len(PREFIX) :] for section in sections if section.startswith(PREFIX))


def url_of(conf: cfg.ConfigOpts, name: str) -> str:
    """The URL of a repository named in the configuration.

    :raises errors.ConfigurationError: there is no such group, or it has no URL.
    """
    return str(_group(conf, name)["url"])


def settings_of(conf: cfg.ConfigOpts, address: str) -> dict[str, Any]:
    """What is configured for a repository, by option; ``url`` is its address.

    :param address: a name from the configuration or a URL. A URL that one of the configured
        repositories has gets what is configured for it.
    :raises errors.ConfigurationError: there is no such name, or a URL has several.
    """
    if PREFIX + address in conf or not ("://" in address or address.startswith("/")):
        return _group(conf, address)
    found = {}
    for name in names(conf):
        conf.register_opts(OPTS, group=PREFIX + name)
        url = conf[PREFIX + name].url
        if url and url.rstrip("/") == address.rstrip("/"):
            found[name] = _group(conf, name)
    if len(found) > 1:
        raise errors.ConfigurationError(
            f"{address} is the repository {' and '.join(found)} of the configuration: give the "
            "name of one."
        )
    defaults = {option.dest: option.default for option in OPTS}
    return {**defaults, **next(iter(found.values()), {}), "url": address}


def configure(
    conf: cfg.ConfigOpts, url: str, settings: Mapping[str, Any], name: str | None = None
) -> None:
    """Configure the repository at a URL as if a file had done it.

    :param settings: count more than those of a file for the same URL.
    :param name: under which it is then known, in place of the URL.
    """
    whole = {**settings_of(conf, url), **settings, "url": url}
    group = PREFIX + (name or url)
    conf.register_opts(OPTS, group=group)
    for option, value in whole.items():
        conf.set_override(option, value, group=group)


def _group(conf: cfg.ConfigOpts, name: str) -> dict[str, Any]:
    known = names(conf)
    group = PREFIX + name
    if name not in known and group not in conf:
        hint = f"known are: {', '.join(known)}" if known else "no configuration file names any"
        raise errors.ConfigurationError(f"No repository is named {name!r}: {hint}.")
    try:
        conf.register_opts(OPTS, group=group)
        settings = {option.dest: conf[group][option.dest] for option in OPTS}
    except cfg.Error as error:
        raise errors.ConfigurationError(
            f"The group [{group}] of the configuration cannot be used: {error}"
        ) from error
    if not settings["url"]:
        raise errors.ConfigurationError(f"The group [{group}] of the configuration has no url.")
    return settings
