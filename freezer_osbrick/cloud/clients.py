# SPDX-License-Identifier: Apache-2.0
"""The cloud: credentials, Cinder's client, and who we are there."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from cinderclient import client as cinder_client
from keystoneauth1 import adapter
from keystoneauth1 import exceptions as auth_exceptions
from keystoneauth1 import session as auth_session
from oslo_config import cfg

from freezer_osbrick import errors
from freezer_osbrick.cloud import service_token
from freezer_osbrick.cloud.calls import Calls

T = TypeVar("T")

# 3.44: an attachment is completed, which the two-step attachments need. 3.54: it has a mode. 3.71
# is the newest whose behaviour is known here.
_OLDEST = (3, 44)
_NEWEST = (3, 71)

# 2.70: a server's volume shows its tag. 2.79: and whether it is deleted with the server.
_NEWEST_OF_NOVA = (2, 79)

# A request that attaches waits for the storage itself.
_REQUEST_TIMEOUT = 300


class Cloud:
    """One project in one region of a cloud.

    :param session: keystoneauth session with the credentials.
    :param conf: its ``[cloud]`` group says how patient we are, and ``[service_user]`` whose token
        goes with the user's.
    """

    def __init__(
        self,
        session: auth_session.Session,
        *,
        conf: cfg.ConfigOpts,
        region_name: str | None = None,
        interface: str | None = None,
    ) -> None:
        self.conf = conf
        self.session = session
        self._region_name = region_name or conf.cloud.region_name
        self._interface = interface or conf.cloud.interface or "public"
        self._calls = Calls(conf.cloud.api_retries)
        self._of_thread = threading.local()
        self._auth = service_token.authentication(conf, session.auth)

    @classmethod
    def from_environment(cls, conf: cfg.ConfigOpts) -> Cloud:
        """By the OS_* variables, or a cloud named in clouds.yaml, as every OpenStack client does
        it.

        :raises errors.ConfigurationError: neither is there, or they do not suffice.
        """
        import openstack.config
        from openstack import exceptions as sdk_exceptions

        try:
            region = openstack.config.OpenStackConfig().get_one(cloud=conf.cloud.os_cloud)
            session = region.get_session()
        except (sdk_exceptions.SDKException, auth_exceptions.ClientException) as error:
            raise errors.ConfigurationError(
                "No usable credentials: set the OS_* variables, or OS_CLOUD with a clouds.yaml "
                f"({' '.join(str(error).split())})."
            ) from error
        if session.timeout is None:
            session.timeout = _REQUEST_TIMEOUT
        return cls(
            session,
            conf=conf,
            region_name=conf.cloud.region_name or region.get_region_name(),
            interface=conf.cloud.interface or _first(region.get_interface("block-storage")),
        )

    @property
    def cinder(self) -> Any:
        """cinderclient's client, with the newest microversion that both sides know.

        Each thread has its own: its managers keep a file open while they list. They share the
        session, which knows the token and what was discovered.
        """
        if not hasattr(self._of_thread, "cinder"):
            self._of_thread.cinder = self.call("reach Cinder", self._connect)
        return self._of_thread.cinder

    @functools.cached_property
    def nova(self) -> adapter.Adapter:
        """Requests to Nova, below ``/v2.1``, with the newest microversion that both sides know."""
        return self.call("reach Nova", self._connect_nova)

    @property
    def microversion(self) -> tuple[int, int]:
        """What Cinder and we agreed on: ``(3, minor)``."""
        version = self.cinder.api_version
        return version.ver_major, version.ver_minor

    @functools.cached_property
    def project_id(self) -> str:
        project_id = self.call("identify the project", self.session.get_project_id)
        if not project_id:
            raise errors.ConfigurationError("The credentials name no project.")
        return project_id

    @functools.cached_property
    def user_id(self) -> str | None:
        return self.call("identify the user", self.session.get_user_id)

    @functools.cached_property
    def is_admin(self) -> bool:
        """Whether other projects' resources can be seen."""
        # Every plug-in that signs in with Keystone has this; others say nothing of roles.
        get_access = getattr(self.session.auth, "get_access", None)
        if get_access is None:
            return False
        return "admin" in self.call("identify the roles", get_access, self.session).role_names

    def call(self, what: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Make one request through ``Calls.call``: repeated on server errors, errors translated."""
        return self._calls.call(what, function, *args, **kwargs)

    def create(
        self, what: str, make: Callable[[], T], find: Callable[[], T | None]
    ) -> tuple[T, bool]:
        """Make one creating request through ``Calls.create``: never a second resource unnoticed."""
        return self._calls.create(what, make, find)

    def messages(self, resource_id: str) -> str:
        """What Cinder told its users about a resource, newest first; empty if nothing."""
        try:
            found = self.call(
                "read Cinder's messages",
                self.cinder.messages.list,
                search_opts={"resource_uuid": resource_id},
            )
        except errors.CloudError:
            return ""  # only an embellishment of an error that is being told
        ours = [message for message in found if message.resource_uuid == resource_id]
        ours.sort(key=lambda message: message.created_at, reverse=True)
        return "; ".join(dict.fromkeys(message.user_message.rstrip(".") for message in ours))

    def _connect(self) -> Any:
        service_token.prove(self._auth, self.session)
        data = self.session.get_endpoint_data(
            service_type="block-storage",
            region_name=self._region_name,
            interface=self._interface,
        )
        newest = data.max_microversion if data is not None else None
        if data is None:
            raise errors.ConfigurationError(
                "The cloud's catalogue has no block storage"
                + (f" in region {self._region_name}." if self._region_name else ".")
            )
        if newest is None or tuple(newest) < _OLDEST:
            raise errors.CloudError(
                f"This Cinder is too old: it knows microversions up to {_dotted(newest)}, and "
                f"{_dotted(_OLDEST)} (OpenStack Queens) is needed."
            )
        return cinder_client.Client(
            _dotted(min(tuple(newest), _NEWEST)),
            session=self.session,
            auth=self._auth,
            service_type="block-storage",
            region_name=self._region_name,
            interface=self._interface,
        )

    def _connect_nova(self) -> adapter.Adapter:
        where: dict[str, Any] = {
            "service_type": "compute",
            "region_name": self._region_name,
            "interface": self._interface,
        }
        data = self.session.get_endpoint_data(**where)
        if data is None:
            raise errors.ConfigurationError("The cloud's catalogue has no compute service.")
        newest = tuple(data.max_microversion or (2, 1))
        return adapter.Adapter(
            self.session,
            auth=self._auth,
            default_microversion=_dotted(min(newest, _NEWEST_OF_NOVA)),
            raise_exc=True,
            **where,
        )


def _first(names: Any) -> str | None:
    return names[0] if isinstance(names, list) and names else names


def _dotted(version: tuple[float, ...] | None) -> str:
    return ".".join(str(part) for part in version) if version else "none"
