# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import pathlib
import types
from typing import Any

import pytest
from keystoneauth1 import exceptions as keystone

from freezer_osbrick import errors
from freezer_osbrick.cloud.clients import Cloud
from tests.unit.cloud.fake_cinder import configuration


class Session:
    """A session that knows the catalogue and nothing else."""

    auth: Any = None

    def __init__(self, newest: tuple[float, ...] | None = (3, 71)) -> None:
        self.newest = newest
        self.asked: list[dict[str, Any]] = []

    def get_endpoint_data(self, **asked: Any) -> Any:
        self.asked.append(asked)
        return types.SimpleNamespace(max_microversion=self.newest)

    def get_project_id(self) -> str | None:
        return "p1"


def cloud_with(session: Any, **options: Any) -> Cloud:
    return Cloud(session, conf=configuration(), **options)


@pytest.mark.parametrize(
    ("newest", "agreed"), [((3, 44), (3, 44)), ((3, 60), (3, 60)), ((3, 99), (3, 71))]
)
def test_newest_version_that_both_know(newest: tuple[float, ...], agreed: tuple[int, int]) -> None:
    cloud = cloud_with(Session(newest), region_name="R", interface="internal")
    assert cloud.microversion == agreed
    assert cloud.session.asked == [  # type: ignore[attr-defined]
        {"service_type": "block-storage", "region_name": "R", "interface": "internal"}
    ]


@pytest.mark.parametrize(("newest", "told"), [((3, 43), "3.43"), (None, "none")])
def test_a_cinder_too_old(newest: Any, told: str) -> None:
    with pytest.raises(errors.CloudError, match=f"up to {told}, and 3.44"):
        cloud_with(Session(newest)).cinder  # noqa: B018


def test_a_cloud_without_cinder(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    monkeypatch.setattr(session, "get_endpoint_data", lambda **asked: None)
    with pytest.raises(errors.ConfigurationError, match="no block storage in region R"):
        cloud_with(session, region_name="R").cinder  # noqa: B018


def test_credentials_without_a_project(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    monkeypatch.setattr(session, "get_project_id", lambda: None)
    with pytest.raises(errors.ConfigurationError, match="no project"):
        cloud_with(session).project_id  # noqa: B018


def test_credentials_that_keystone_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()

    def refuse(**asked: Any) -> None:
        raise keystone.Unauthorized("The request you have made requires authentication.")

    monkeypatch.setattr(session, "get_endpoint_data", refuse)
    with pytest.raises(errors.CloudAccessDenied, match="requires authentication"):
        cloud_with(session).cinder  # noqa: B018


@pytest.mark.parametrize(("roles", "is_admin"), [(["admin"], True), (["member"], False)])
def test_administrators(roles: list[str], is_admin: bool) -> None:
    session = Session()
    access = types.SimpleNamespace(role_names=roles)
    session.auth = types.SimpleNamespace(get_access=lambda session: access)
    assert cloud_with(session).is_admin is is_admin


def test_a_plugin_without_roles() -> None:
    session = Session()
    session.auth = types.SimpleNamespace()
    assert cloud_with(session).is_admin is False


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    for name in os.environ:
        if name.startswith("OS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("cloud_name", [None, "mine"])
def test_no_credentials(nothing_set: pathlib.Path, cloud_name: str | None) -> None:
    conf = configuration(os_cloud=cloud_name)
    with pytest.raises(errors.ConfigurationError, match="OS_\\* variables, or OS_CLOUD") as caught:
        Cloud.from_environment(conf)
    assert "\n" not in str(caught.value)


def test_half_of_the_credentials(
    nothing_set: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_USERNAME", "me")
    with pytest.raises(errors.ConfigurationError, match="No usable credentials"):
        Cloud.from_environment(configuration())


def test_a_named_cloud(nothing_set: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(nothing_set / "clouds.yaml"))
    (nothing_set / "clouds.yaml").write_text(
        """
clouds:
  mine:
    region_name: R2
    interface: internal
    auth: {auth_url: "http://192.0.2.1/v3", username: me, password: x, project_name: p,
           user_domain_name: d, project_domain_name: d}
"""
    )
    cloud = Cloud.from_environment(configuration(os_cloud="mine"))
    assert cloud._region_name == "R2"
    assert cloud._interface == "internal"
    assert cloud.session.timeout == 300
    overridden = Cloud.from_environment(configuration(os_cloud="mine", interface="public"))
    assert overridden._interface == "public"


def test_variables(nothing_set: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AUTH_URL": "http://192.0.2.1/v3",
        "USERNAME": "me",
        "PASSWORD": "x",
        "PROJECT_NAME": "p",
        "USER_DOMAIN_NAME": "d",
        "PROJECT_DOMAIN_NAME": "d",
        "REGION_NAME": "R1",
    }.items():
        monkeypatch.setenv(f"OS_{name}", value)
    assert Cloud.from_environment(configuration())._region_name == "R1"
    cloud = Cloud.from_environment(configuration(region_name="R9"))
    assert cloud._region_name == "R9"


def test_what_cinder_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def message(resource: str, at: str, text: str) -> Any:
        return types.SimpleNamespace(resource_uuid=resource, created_at=at, user_message=text)

    cloud = cloud_with(Session())
    found = [
        message("v1", "1", "first."),
        message("v1", "3", "last"),
        message("v1", "2", "first"),
        message("v2", "4", "not asked for"),  # a cloud may ignore the filter
    ]
    cloud._of_thread.cinder = types.SimpleNamespace(
        messages=types.SimpleNamespace(list=lambda search_opts: found)
    )
    assert cloud.messages("v1") == "last; first"
    assert cloud.messages("v3") == ""


def test_an_error_is_not_hidden_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = cloud_with(Session())

    def fail(search_opts: Any) -> None:
        raise keystone.Forbidden("no messages for you")

    cloud._of_thread.cinder = types.SimpleNamespace(messages=types.SimpleNamespace(list=fail))
    assert cloud.messages("v1") == ""
