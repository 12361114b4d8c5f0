# SPDX-License-Identifier: Apache-2.0
"""The real freezer-api under waitress. Runs in an environment of its own, and ends with its
standard input.

Usage: freezer_api_server.py FOLDER AUTH_URL DATABASE_URL, the password of the user ``freezer`` in
``FREEZER_API_PASSWORD``. Says ``{"port": N}``.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

CONFIGURATION = """\
[DEFAULT]
log_file = {folder}/freezer-api.log
[paste_deploy]
config_file = {paste}
[storage]
driver = sqlalchemy
backend = sqlalchemy
[database]
connection = {database}
[keystone_authtoken]
auth_type = password
auth_url = {auth_url}
www_authenticate_uri = {auth_url}
username = freezer
password = {password}
project_name = service
user_domain_id = default
project_domain_id = default
service_token_roles_required = False
[centralized_scheduler]
# Empty: a trust delegates all roles of its user, an administrator's too.
trusts_delegated_roles =
[oslo_policy]
enforce_new_defaults = True
"""


def main():
    folder, auth_url, database = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    configuration = folder / "freezer-api.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder,
            paste=pathlib.Path(sys.prefix) / "etc" / "freezer" / "freezer-paste.ini",
            database=database,
            auth_url=auth_url,
            password=os.environ["FREEZER_API_PASSWORD"],
        )
    )
    manage = pathlib.Path(sys.executable).with_name("freezer-manage")
    subprocess.run(
        [manage, "--config-file", configuration, "db", "sync"],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    )
    # It reads sys.argv as if it were its own program.
    sys.argv = ["freezer-api", "--config-file", str(configuration)]
    import waitress
    from freezer_api.wsgi import application

    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    # One request after the other: sqlite gives up at once where two that read begin to write.
    server = waitress.create_server(application, sockets=[listener], threads=1)
    threading.Thread(target=server.run, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
