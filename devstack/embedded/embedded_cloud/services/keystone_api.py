# SPDX-License-Identifier: Apache-2.0
"""Keystone in one process: makes its database at the first start, then serves.

Called as ``keystone_api <keystone.conf> <auth url>``; the administrator's password comes in
``OS_BOOTSTRAP_PASSWORD``.
"""

from __future__ import annotations

import os
import pathlib
import sys

from ..state import REGION


def bootstrap(conf: pathlib.Path, auth_url: str) -> None:
    """``keystone-manage`` db_sync, fernet_setup, credential_setup and bootstrap."""
    from keystone.cmd import cli  # late: it reads the environment

    folder = conf.parent
    for leftover in folder.glob("keystone.sqlite*"):  # of a bootstrap that was interrupted
        leftover.unlink()
    for name in ("fernet", "credential"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    urls = [f"--bootstrap-{kind}-url={auth_url}" for kind in ("admin", "public", "internal")]
    # keystone-manage insists on these two from root, and needs neither from anyone else
    owner = ["--keystone-user=root", "--keystone-group=root"] if os.geteuid() == 0 else []
    for command in (
        ["db_sync"],
        ["fernet_setup", *owner],
        ["credential_setup", *owner],
        ["bootstrap", *urls, "--bootstrap-region-id", REGION],
    ):
        cli.CONF.reset()
        cli.main(argv=["keystone-manage", "--config-file", str(conf), *command])


def main() -> None:
    """Bootstrap where needed, then serve."""
    conf, auth_url = pathlib.Path(sys.argv[1]), sys.argv[2]
    bootstrapped = conf.parent / "bootstrapped"
    if not bootstrapped.exists():
        bootstrap(conf, auth_url)
        bootstrapped.touch()
        # keystone-manage has made this interpreter its own: serve from a fresh one, same pid
        os.execv(sys.executable, sys.orig_argv)
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = str(conf)
    os.environ["OS_KEYSTONE_CONFIG_DIR"] = str(conf.parent)
    sys.argv = ["keystone"]
    from keystone.server import wsgi

    from . import listener

    listener.serve(wsgi.initialize_public_application(), threads=4)


if __name__ == "__main__":
    main()
