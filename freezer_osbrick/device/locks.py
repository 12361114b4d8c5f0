# SPDX-License-Identifier: Apache-2.0
"""os-brick's lock files, which all services of one host must have in one folder.

Two that connect volumes at the same time without knowing of each other take away each other's
sessions and mix up each other's devices.
"""

from __future__ import annotations

import os

from oslo_config import cfg
from oslo_log import log as logging

LOG = logging.getLogger(__name__)

# Services that connect volumes with os-brick, and where their configuration is.
_SERVICES = {"nova": "/etc/nova/nova.conf", "cinder": "/etc/cinder/cinder.conf"}


def warn_of_others(ours: str, services: dict[str, str] | None = None) -> list[str]:
    """Say which services that are configured on this host lock elsewhere.

    :param ours: our folder.
    :param services: the configuration file of each.
    :returns: the warnings.
    """
    told = []
    for service, path in (_SERVICES if services is None else services).items():
        theirs = _folder_of(service, path)
        if theirs and os.path.realpath(theirs) != os.path.realpath(ours):
            told.append(
                f"By {path} the os-brick of {service} keeps its locks in {theirs}, ours keeps them "
                f"in {ours}. If {service} connects volumes on this host, set lock_path in the "
                "[device] group to its folder."
            )
            LOG.warning("%s", told[-1])
    return told


def _folder_of(service: str, path: str) -> str | None:
    """Where a service has its locks; None where its configuration does not tell us."""
    if not os.access(path, os.R_OK):
        return None
    conf = cfg.ConfigOpts()
    # Folders are often told below this one.
    conf.register_opt(cfg.StrOpt("state_path", default=f"/var/lib/{service}"))
    for group in ("oslo_concurrency", "os_brick"):
        conf.register_opt(cfg.StrOpt("lock_path"), group=group)
    folder = f"{path}.d"
    try:
        conf(
            [],
            project=service,
            default_config_files=[path],
            default_config_dirs=[folder] if os.path.isdir(folder) else [],
        )
        return conf.os_brick.lock_path or conf.oslo_concurrency.lock_path
    except (cfg.Error, OSError) as error:
        LOG.debug("%s tells nothing of locks: %s", path, error)
        return None
