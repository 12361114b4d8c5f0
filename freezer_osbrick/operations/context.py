# SPDX-License-Identifier: Apache-2.0
"""What every verb needs: configuration, the cloud, this host, the ledger, a repository."""

from __future__ import annotations

import functools
import os
from typing import Any

from oslo_config import cfg

from freezer_osbrick import errors, named_repositories, opts
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Ledger
from freezer_osbrick.device.host import Host
from freezer_osbrick.pipeline.workers import Budget
from freezer_osbrick.repository import repository
from freezer_osbrick.store import address
from freezer_osbrick.store.base import Store


class Context:
    """Made once for a run. The cloud, the host and the ledger are set up when first asked for."""

    def __init__(
        self, conf: cfg.ConfigOpts, session: Any = None, key_file: str | None = None
    ) -> None:
        self.conf = conf
        self.key_file = key_file
        self._session = session

    @classmethod
    def open(
        cls, conf: cfg.ConfigOpts, *, session: Any = None, key_file: str | None = None
    ) -> Context:
        """
        :param conf: called already; our options are registered on it.
        :param session: keystoneauth session of the caller; without it the environment says who we
            are.
        :param key_file: holds the secret that unlocks, and for a new one seals, the repository.
        """
        opts.register(conf)
        return cls(conf, session, key_file)

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

    @functools.cached_property
    def budget(self) -> Budget:
        """The steps that all volumes of a run may have under way together."""
        return Budget(self.conf.osbrick.workers)

    def set_up(self) -> None:
        """Make at once what the threads of several volumes are going to share.

        :raises errors.ConfigurationError: there are no credentials, or not enough.
        """
        self.cloud.cinder, self.cloud.project_id, self.cloud.is_admin  # noqa: B018
        self.ledger, self.budget  # noqa: B018
        self.host.set_up()

    def open_store(self, url: str, *, create: bool = False) -> Store:
        """The store at a URL, or the one that the configuration has by that name."""
        settings = named_repositories.settings_of(self.conf, url)
        settings.setdefault("interface", self.conf.cloud.interface)
        if not settings["region"] and settings["url"].startswith("swift:"):
            settings["region"] = self.conf.cloud.region_name
        return address.open_store(
            settings["url"], create=create, settings=settings, session=lambda: self.cloud.session
        )

    def open_repository(self, url: str, *, create: bool = False) -> repository.Repository:
        """The repository at a URL, or the one that the configuration has by that name.

        :param create: make it if there is none.
        :raises errors.RepositoryMissing: there is none.
        """
        store = self.open_store(url, create=create)
        secret = read_secret(self.key_file) if self.key_file else None
        if create:
            return repository.open_or_create(store, secret=secret)
        return repository.open_repository(store, secret=secret)


def read_secret(path: str) -> bytes:
    """The secret in a key file; a line feed at its end does not belong to it.

    :raises errors.ConfigurationError: it cannot be read, or is empty.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:
            secret = file.read(1 << 16).removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        raise errors.ConfigurationError(
            f"The key file {path} cannot be read: {error.strerror}."
        ) from error
    if not secret:
        raise errors.ConfigurationError(f"The key file {path} is empty.")
    return secret
