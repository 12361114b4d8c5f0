# SPDX-License-Identifier: Apache-2.0
"""What every verb needs: configuration, the cloud, this host, the ledger, a repository."""

from __future__ import annotations

import functools
import os
from typing import Any

from oslo_config import cfg

from freezer_osbrick import opts
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Ledger
from freezer_osbrick.device.host import Host
from freezer_osbrick.repository import repository
from freezer_osbrick.store import address


class Context:
    """Made once for a run. The cloud, the host and the ledger are set up when first asked for."""

    def __init__(self, conf: cfg.ConfigOpts, session: Any = None) -> None:
        self.conf = conf
        self._session = session

    @classmethod
    def open(cls, conf: cfg.ConfigOpts, *, session: Any = None) -> Context:
        """
        :param conf: called already; our options are registered on it.
        :param session: keystoneauth session of the caller; without it the environment says who we
            are.
        """
        opts.register(conf)
        return cls(conf, session)

    @functools.cached_property
    def cloud(self) -> Cloud:
        if self._session is None:
            return Cloud.from_environment(self.conf)
        return Cloud(self._session, conf=self.conf)

    @functools.cached_property
    def host(self) -> Host:
        return Host(self.conf)

    @functools.cached_property
    def ledger(self) -> Ledger:
        folder = os.path.join(opts.state_path(self.conf), "ledger")
        return Ledger(folder, self.host.name, lease=self.conf.cloud.lease)

    def open_repository(self, url: str, *, create: bool = False) -> repository.Repository:
        """The repository at a URL.

        :param create: make it if there is none.
        :raises errors.RepositoryMissing: there is none.
        """
        store = address.open_store(url, create=create)
        return repository.open_or_create(store) if create else repository.open_repository(store)
