# SPDX-License-Identifier: Apache-2.0
"""Requests to Keystone and Cinder with nothing but the standard library."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from .errors import ApiError, CloudError

# the machine's proxy settings are not for 127.0.0.1
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str, seconds: float = 5) -> bool:
    """Whether an HTTP server answers there, with whatever status below 500."""
    try:
        _opener.open(url, timeout=seconds).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except (OSError, ValueError):
        return False
    return True


class Session:
    """Requests as one user in one project; the token is fetched at the first of them."""

    def __init__(self, auth_url: str, user: str, password: str, project: str) -> None:
        self._auth_url = auth_url
        self._user, self._password, self._project = user, password, project
        self._token: str | None = None
        self.project_id = ""

    @classmethod
    def of_token(cls, token: str) -> Session:
        """Requests with a token that somebody else has; it is not renewed."""
        session = cls("", "", "", "")
        session._token = token
        return session

    def authenticate(self) -> None:
        """Fetch a token and learn the project's id."""
        domain = {"id": "default"}
        user = {"name": self._user, "domain": domain, "password": self._password}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": self._project, "domain": domain}},
            }
        }
        headers, answer = self._send("POST", f"{self._auth_url}/auth/tokens", body, {})
        self._token = headers["X-Subject-Token"]
        self.project_id = answer["token"]["project"]["id"]

    def request(self, method: str, url: str, body: Any = None) -> Any:
        """Send a request with the token; returns the decoded body.

        Raises ApiError with the service's own words. An expired token is renewed once.
        """
        for attempt in (1, 2):
            if self._token is None:
                self.authenticate()
            headers = {
                "X-Auth-Token": str(self._token),
                "OpenStack-API-Version": "volume 3.70",
            }
            try:
                return self._send(method, url, body, headers)[1]
            except ApiError as error:
                if error.status != 401 or attempt == 2 or not self._auth_url:
                    raise
                self._token = None
        raise AssertionError("unreachable")

    @staticmethod
    def _send(method: str, url: str, body: Any, headers: dict[str, str]) -> tuple[Any, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        try:
            with _opener.open(request, timeout=120) as response:
                content = response.read()
                return response.headers, json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            with error:
                message = _message(error.read())
            raise ApiError(
                f"{method} {url} was answered {error.code}: {message}", error.code
            ) from error
        except OSError as error:
            raise CloudError(f"{method} {url} was not answered: {error}") from error


def _message(content: bytes) -> str:
    """The words inside an OpenStack error document."""
    try:
        document = json.loads(content)
        (inner,) = document.values()
        return str(inner["message"])
    except (ValueError, AttributeError, KeyError, TypeError):
        return content.decode(errors="replace").strip()[:300]
