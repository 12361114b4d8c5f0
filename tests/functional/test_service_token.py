# SPDX-License-Identifier: Apache-2.0
"""A service token beside the user's, on real Cinder with Keystone.

Cinder tells the two apart where somebody wants to take away an attachment that a server uses: that
is for services only (CVE-2023-2088).
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from freezer_osbrick import errors, opts
from freezer_osbrick.cloud import attachments
from freezer_osbrick.cloud.clients import Cloud
from tests.functional.workbench import Workbench

SERVICE_USER = """
[service_user]
send_service_user_token = {send}
auth_type = password
auth_url = {url}
username = {user}
password = {password}
project_name = {project}
user_domain_name = Default
project_domain_name = Default
"""


@pytest.fixture
def bench(cloud: EmbeddedCloud, tmp_path: pathlib.Path) -> Iterator[Workbench]:
    bench = Workbench(cloud, tmp_path / "state")
    yield bench
    bench.close()


def signed_in(
    bench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    *,
    user: str = "cinder",
    project: str = "service",
    password: str | None = None,
    send: bool = True,
) -> Cloud:
    """The user of the project ``demo``, with the token of this service user."""
    state = bench.embedded.state
    path = bench.state_path / "service-user.conf"
    path.write_text(
        SERVICE_USER.format(
            send=send,
            url=state.auth_url,
            user=user,
            password=password or state.settings["passwords"][user],
            project=project,
        )
    )
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    for name, value in bench.embedded.env("demo").items():
        monkeypatch.setenv(name, value)
    return Cloud.from_environment(opts.load([str(path)]))


def used_by_a_server(bench: Workbench) -> tuple[str, str]:
    """A volume that a server has; its id and that of the attachment."""
    volume_id = bench.volume().id
    bench.embedded.pretend_server(volume_id)
    (attachment,) = attachments.of_volume(bench.cloud, volume_id)
    return volume_id, attachment.id


def test_a_service_may_do_what_a_user_may_not(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume_id, attachment_id = used_by_a_server(bench)
    for alone in (bench.cloud, signed_in(bench, monkeypatch, send=False)):
        with pytest.raises(errors.Leftovers, match="could not be removed"):
            attachments.delete(alone, volume_id, attachment_id)
    service = signed_in(bench, monkeypatch)
    attachments.delete(service, volume_id, attachment_id)
    assert attachments.of_volume(bench.cloud, volume_id) == []
    # It is the user's request still, in the user's project and with the user's roles.
    assert service.project_id == bench.cloud.project_id
    assert not service.is_admin


def test_a_token_of_somebody_without_the_role_of_services(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cloud requires the role, and refuses the whole request."""
    volume_id, attachment_id = used_by_a_server(bench)
    nobody = signed_in(bench, monkeypatch, user="other", project="other")
    with pytest.raises(errors.CloudAccessDenied):
        attachments.of_volume(nobody, volume_id)
    (attachment,) = attachments.of_volume(bench.cloud, volume_id)
    assert attachment.id == attachment_id


def test_a_service_user_that_keystone_does_not_know(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = signed_in(bench, monkeypatch, password="wrong")
    with pytest.raises(errors.ConfigurationError, match=r"refuses the service user of .*\[service"):
        wrong.cinder  # noqa: B018
