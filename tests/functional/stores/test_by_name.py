# SPDX-License-Identifier: Apache-2.0
"""From a section of the configuration file to a repository on a real server."""

import pytest

from freezer_osbrick import errors, opts
from freezer_osbrick.operations.context import Context
from tests.functional.stores.conftest import new_name


def sections(swift_server, ssh_server, ftp_server):
    """Settings of one repository on each server."""
    name = new_name()
    login = swift_server.login()
    password = {"user": "backup", "password": "backup-secret"}
    return {
        "swift": {"url": f"swift://{name}/deep/er", "auth_url": login["auth_url"]}
        | {"user": login["user"], "password": login["key"]},
        "s3": {"url": f"s3://{name}-s3", "endpoint": swift_server.url, "region": "test-region"}
        | {"access_key": "test:admin", "secret_key": "admin-secret", "addressing": "path"},
        "sftp": {
            "url": f"sftp://{ssh_server.user}@127.0.0.1:{ssh_server.port}"
            f"{ssh_server.folder}/files/{name}",
            "ssh_key_file": f"{ssh_server.folder}/key",
            "known_hosts": f"{ssh_server.folder}/known_hosts",
        },
        "ftp": {"url": f"ftp://127.0.0.1:{ftp_server.ports['ftp']}/{name}/a"} | password,
        "ftps": {"url": f"ftps://backup@127.0.0.1:{ftp_server.ports['ftps']}/{name}/b"}
        | {"ca_file": f"{ftp_server.folder}/certificate.pem", "password": "backup-secret"},
    }


@pytest.mark.parametrize("kind", ["swift", "s3", "sftp", "ftp", "ftps"])
def test_a_repository_by_its_name_and_by_its_url(
    kind, swift_server, ssh_server, ftp_server, tmp_path
):
    settings = sections(swift_server, ssh_server, ftp_server)[kind]
    lines = [f"{option} = {value}" for option, value in settings.items()]
    limits = ["upload_limit = 1G", "download_limit = 1G"]
    (tmp_path / "conf").write_text("\n".join(["[repository:vault]", *lines, *limits]))
    context = Context.open(opts.load([str(tmp_path / "conf")]))
    with pytest.raises(errors.OsbrickError):
        context.open_repository("vault")
    made = context.open_repository("vault", create=True)
    assert context.open_repository("vault", create=True).id == made.id
    assert context.open_repository(settings["url"]).id == made.id
    with context.open_store("vault") as store:
        assert "config" in [info.name for info in store.list("")]
        assert store.url == settings["url"].replace("ftp://127", "ftp://backup@127", kind == "ftp")
