# SPDX-License-Identifier: Apache-2.0
"""The service token beside the user's own, where the operator configured one.

It tells Cinder that a request comes from a service of the cloud, which since CVE-2023-2088 may do
what a user alone may not: take away an attachment that a server may still be using. And a request
that began with a user's valid token is not refused when that expires on the way.
"""

from __future__ import annotations

from keystoneauth1 import exceptions, loading, plugin, service_token, session
from oslo_config import cfg

from freezer_osbrick import errors

_GROUP = "service_user"


def authentication(
    conf: cfg.ConfigOpts, user: plugin.BaseAuthPlugin | None
) -> plugin.BaseAuthPlugin | None:
    """What to sign in to Cinder and Nova with.

    :param user: the user's own; None where a session has none.
    :raises errors.ConfigurationError: the service user's credentials do not suffice.
    """
    if user is None or not conf.service_user.send_service_user_token:
        return user
    try:
        service = loading.load_auth_from_conf_options(conf, _GROUP)
    except (exceptions.ClientException, cfg.Error) as error:
        raise errors.ConfigurationError(
            f"The group [{_GROUP}] of the configuration cannot be used: {error}"
        ) from error
    if service is None:
        raise errors.ConfigurationError(
            f"A service token is to be sent, but the group [{_GROUP}] of the configuration has no "
            "auth_type."
        )
    return service_token.ServiceTokenAuthWrapper(user, service)


def prove(auth: plugin.BaseAuthPlugin | None, used: session.Session) -> None:
    """Let the service user sign in: what Keystone says later would seem to be about the user.

    :raises errors.ConfigurationError: Keystone does not know it.
    """
    if not isinstance(auth, service_token.ServiceTokenAuthWrapper):
        return
    try:
        auth.service_auth.get_token(used)
    except exceptions.HttpError as error:
        if error.http_status >= 500:
            raise
        raise errors.ConfigurationError(
            f"Keystone refuses the service user of the group [{_GROUP}]: "
            f"{' '.join(str(error).split())}"
        ) from error
