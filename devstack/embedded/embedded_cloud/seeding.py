# SPDX-License-Identifier: Apache-2.0
"""Users, projects, roles, the catalogue, volume types and a group type."""

from __future__ import annotations

from typing import Any

from .rest import Session
from .state import REGION, State

# type → path below Cinder's address. Old clients look for volumev3 by its own name.
_CATALOGUE = {
    "block-storage": ("cinder", "/v3/%(project_id)s"),
    "volumev3": ("cinderv3", "/v3/%(project_id)s"),
    "compute": ("nova", "/compute/v2.1"),
    "image": ("glance", "/image"),
}
GROUP_TYPE = "consistent"


class Identity:
    """Keystone's objects, found by name or made."""

    def __init__(self, session: Session, url: str) -> None:
        self._session, self._url = session, url

    def ensure(self, kind: str, name: str, **fields: Any) -> dict[str, Any]:
        """The object of that name; made with ``fields`` when there is none."""
        found = self._session.request("GET", f"{self._url}/{kind}s?name={name}")[f"{kind}s"]
        if found:
            return dict(found[0])
        body = {kind: {"name": name, **fields}}
        return dict(self._session.request("POST", f"{self._url}/{kind}s", body)[kind])

    def user(self, name: str, password: str) -> dict[str, Any]:
        """The user of that name."""
        return self.ensure("user", name, password=password, domain_id="default")

    def grant(self, project_id: str, user_id: str, *roles: str) -> None:
        """Give the user the roles in the project."""
        for role in roles:
            role_id = self.ensure("role", role)["id"]
            self._session.request(
                "PUT", f"{self._url}/projects/{project_id}/users/{user_id}/roles/{role_id}"
            )

    def endpoints(self, service_id: str, url: str) -> None:
        """Let the three interfaces of the service point at the address."""
        listed = self._session.request("GET", f"{self._url}/endpoints?service_id={service_id}")
        known = {e["interface"]: e for e in listed["endpoints"]}
        for interface in ("public", "internal", "admin"):
            if interface not in known:
                fields = {"service_id": service_id, "interface": interface, "region_id": REGION}
                body = {"endpoint": {**fields, "url": url}}
                self._session.request("POST", f"{self._url}/endpoints", body)
            elif known[interface]["url"] != url:
                address = f"{self._url}/endpoints/{known[interface]['id']}"
                self._session.request("PATCH", address, {"endpoint": {"url": url}})


def admin_session(state: State) -> Session:
    """A session of the administrator."""
    return Session(state.auth_url, "admin", state.settings["passwords"]["admin"], "admin")


def identity(state: State) -> None:
    """Fill Keystone. Needs Keystone only; what is there already stays."""
    wanted = [state.auth_url, state.cinder_root]
    if state.settings.get("seeded_identity") == wanted:
        return
    passwords = state.settings["passwords"]
    session = admin_session(state)
    keystone = Identity(session, state.auth_url)
    service = keystone.ensure("project", "service", domain_id="default")
    cinder = keystone.user("cinder", passwords["cinder"])
    keystone.grant(service["id"], cinder["id"], "admin", "service")
    projects = {}
    for name in ("demo", "other"):
        project = keystone.ensure("project", name, domain_id="default")
        user = keystone.user(name, passwords[name])
        keystone.grant(project["id"], user["id"], "member", "reader")
        projects[name] = project["id"]
    session.authenticate()
    projects["admin"] = session.project_id
    for kind, (name, path) in _CATALOGUE.items():
        made = keystone.ensure("service", name, type=kind)
        keystone.endpoints(made["id"], state.cinder_root + path)
    made = keystone.ensure("service", "keystone", type="identity")
    keystone.endpoints(made["id"], state.auth_url)
    state.settings["projects"] = projects
    state.settings["seeded_identity"] = wanted
    state.save()


def volume_types(state: State, admin: Session) -> None:
    """Make one volume type a backend, and the group type, in Cinder."""
    wanted = list(state.settings["backends"])
    if state.settings.get("seeded_types") == wanted:
        return
    url = f"{state.cinder_root}/v3/{admin.project_id}"
    known = {t["name"] for t in admin.request("GET", f"{url}/types")["volume_types"]}
    for backend in wanted:
        if backend not in known:
            specs = {"volume_backend_name": backend}
            body = {"volume_type": {"name": backend, "extra_specs": specs}}
            admin.request("POST", f"{url}/types", body)
    known = {t["name"] for t in admin.request("GET", f"{url}/group_types")["group_types"]}
    if GROUP_TYPE not in known:
        body = {"group_type": {"name": GROUP_TYPE}}
        made = admin.request("POST", f"{url}/group_types", body)["group_type"]
        specs = {"group_specs": {"consistent_group_snapshot_enabled": "<is> True"}}
        admin.request("POST", f"{url}/group_types/{made['id']}/group_specs", specs)
    state.settings["seeded_types"] = wanted
    state.save()
