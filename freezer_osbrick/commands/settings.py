# SPDX-License-Identifier: Apache-2.0
"""The configuration of one run of the command."""

from __future__ import annotations

import os
from collections.abc import Sequence

from oslo_config import cfg

from freezer_osbrick import errors, opts

DEFAULT_FILES = (
    "/etc/freezer-osbrick/freezer-osbrick.conf",
    "~/.config/freezer-osbrick.conf",
)


def load(files: Sequence[str], *, os_cloud: str | None = None) -> cfg.ConfigOpts:
    """Read the configuration files and check every value in them.

    :param files: the files to read, later ones win; the default ones that exist where empty.
    :param os_cloud: the entry of clouds.yaml to use, whatever the files say.
    :raises errors.ConfigurationError: a file that cannot be read or a value that makes no sense.
    """
    chosen = [os.path.expanduser(name) for name in files or DEFAULT_FILES]
    if not files:
        chosen = [name for name in chosen if os.path.exists(name)]
    conf = cfg.ConfigOpts()
    opts.register(conf)
    try:
        conf([], project="freezer-osbrick", default_config_files=chosen, default_config_dirs=[])
        _check_values(conf)
    except cfg.Error as exc:
        raise errors.ConfigurationError(f"The configuration cannot be used: {exc}") from exc
    if os_cloud:
        conf.set_override("os_cloud", os_cloud, group="cloud")
    return conf


def _check_values(conf: cfg.ConfigOpts) -> None:
    # oslo.config looks at a value when it is first read, which may be hours into a run.
    for group, options in opts.list_opts():
        for option in options:
            if group in conf:
                getattr(conf[group], option.dest)
