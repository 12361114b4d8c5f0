# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run inside Freezer: our groups, from our files and from Freezer's."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

from freezer_osbrick import opts


def load(freezer: cfg.ConfigOpts, clients: Any, *, compressed: bool) -> cfg.ConfigOpts:
    """Read ``[osbrick]``, ``[cloud]`` and ``[device]``; Freezer's files come last and count.

    The options live in a configuration of their own: Freezer's is a global of the process.

    :param freezer: Freezer's configuration, for the files that it read.
    :param clients: Freezer's client manager, for region and interface where no file names them.
    :raises errors.ConfigurationError: a file or a value in it cannot be used.
    """
    conf = opts.load([*opts.default_files(), *(freezer.config_file or ())])
    if not compressed:
        conf.set_override("compression_level", 0, group="osbrick")
    conf.set_default("region_name", clients.client_kwargs.get("region_name"), group="cloud")
    conf.set_default("interface", _interface(clients), group="cloud")
    return conf


def _interface(clients: Any) -> str | None:
    """``OS_INTERFACE``, or ``OS_ENDPOINT_TYPE`` in its old spelling (``internalURL``)."""
    known = clients.client_kwargs
    return known.get("interface") or known.get("endpoint_type", "").removesuffix("URL") or None
