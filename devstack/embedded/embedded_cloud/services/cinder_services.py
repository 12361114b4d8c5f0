# SPDX-License-Identifier: Apache-2.0
"""cinder-api, cinder-scheduler and a cinder-volume for each backend, in one process.

Called as ``cinder_services --config-file <cinder.conf>``, with
``OS_CINDER_DISABLE_EVENTLET_PATCHING=true`` in the environment: everything runs in native threads.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any

from cinder import monkey_patch

monkey_patch.patch("threading")  # before anything of Cinder's that starts threads

import os_brick  # noqa: E402
import os_brick.privileged  # noqa: E402
from cinder import coordination, i18n, objects, privsep, rpc, version  # noqa: E402
from cinder.cmd import volume as volume_command  # noqa: E402
from cinder.common import config, constants  # noqa: E402
from cinder.db import migration  # noqa: E402
from keystonemiddleware import auth_token  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_log import log as logging  # noqa: E402
from oslo_service import wsgi  # noqa: E402

from . import api_faults, compute, listener, one_process, standins  # noqa: E402

CONF = cfg.CONF
CONF.register_opts(
    [
        cfg.StrOpt("api_faults", help="JSON file of faults for Cinder's API"),
        cfg.StrOpt("servers", help="JSON file of the pretended servers"),
    ],
    group="embedded",
)


def _sync_database() -> None:
    """Bring the database to Cinder's present schema; begin anew what was interrupted."""
    folder = pathlib.Path(CONF.state_path)
    done = folder / "synced"
    if not done.exists():
        for leftover in folder.glob("cinder.sqlite*"):
            leftover.unlink()
    migration.db_sync()
    done.touch()


def _start_services() -> list[one_process.Service]:
    services = [one_process.Service.create(binary=constants.SCHEDULER_BINARY)]
    for backend in CONF.enabled_backends:
        CONF.register_opt(volume_command.host_opt, group=backend)
        services.append(
            one_process.Service.create(
                host=f"{CONF.host}@{backend}",
                service_name=backend,
                binary=constants.VOLUME_BINARY,
                coordination=True,
            )
        )
    for each in services:
        each.start()
    return services


def _application() -> Any:
    """Cinder's API behind the faults, and beside it the stand-ins."""
    cinder = api_faults.ApiFaults(
        wsgi.Loader(CONF).load_app("osapi_volume"), CONF.embedded.api_faults
    )
    authenticated = auth_token.filter_factory({})
    nova = compute.Compute(CONF.embedded.servers)
    image = standins.Image()
    return standins.Dispatcher(
        cinder,
        {
            "/compute": standins.Discovery("/compute", nova.VERSIONS, authenticated(nova)),
            "/image": standins.Discovery("/image", image.VERSIONS, authenticated(image)),
        },
    )


def main() -> None:
    """Start all of it and serve."""
    i18n.enable_lazy()
    objects.register_all()
    CONF(sys.argv[1:], project="cinder", version=version.version_string())
    config.set_middleware_defaults()
    logging.setup(CONF, "cinder")
    os_brick.setup(CONF)
    if os.geteuid() == 0:  # no helper process
        for context in (privsep.sys_admin_pctxt, os_brick.privileged.default):
            context.set_client_mode(False)
        one_process.run_rtstool_here()
    one_process.start_commands_without_a_copy()
    one_process.tune_sqlite()
    one_process.wake_fake_rpc()
    one_process.book_work_by_host()
    _sync_database()
    coordination.COORDINATOR.start()
    rpc.init(CONF)
    services = _start_services()
    logging.getLogger(__name__).info("%d services run", len(services))
    listener.serve(_application(), threads=8)


if __name__ == "__main__":
    main()
