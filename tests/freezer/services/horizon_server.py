# SPDX-License-Identifier: Apache-2.0
"""Horizon with freezer-web-ui and our plug-in, under waitress. Runs in an environment of its own,
and ends with its standard input.

Usage: horizon_server.py FOLDER AUTH_URL [--without-plugin]. Says ``{"port": N}``. What an operator
would put into ``openstack_dashboard/local`` is put into FOLDER.
"""

import ast
import json
import os
import pathlib
import re
import shutil
import socket
import sys
import threading

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
OURS = CHECKOUT / "freezer_osbrick" / "dashboard" / "enabled"

SETTINGS = """\
from openstack_dashboard.settings import HORIZON_CONFIG

# The usual page behind the login needs Neutron and all of Nova.
HORIZON_CONFIG["user_home"] = "/project/freezer-backups/"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
SECRET_KEY = {secret!r}
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
CACHES = {{"default": {{"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}}}
OPENSTACK_HOST = "127.0.0.1"
OPENSTACK_KEYSTONE_URL = {auth_url!r}
OPENSTACK_KEYSTONE_DEFAULT_ROLE = "member"
OPENSTACK_API_VERSIONS = {{"identity": 3}}
WEBROOT = "/"
STATIC_ROOT = {static!r}
COMPRESS_ENABLED = False
LOCALE_PATHS = [{locale!r}]
LOGGING = {{
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {{"console": {{"class": "logging.StreamHandler"}}}},
    "root": {{"handlers": ["console"], "level": "INFO"}},
}}
"""


def make_local(folder: pathlib.Path, auth_url: str, *, with_plugin: bool) -> None:
    """Lay out the settings, and the files that enable the panels."""
    import freezer_ui.enabled

    local, enabled = folder / "local", folder / "enabled"
    local.mkdir()
    enabled.mkdir()
    (local / "__init__.py").touch()
    (local / "local_settings.py").write_text(
        SETTINGS.format(
            secret=os.urandom(16).hex(),
            auth_url=auth_url,
            static=str(folder / "static"),
            locale=str(folder / "locale"),
        )
    )
    sources = [pathlib.Path(freezer_ui.enabled.__path__[0])] + ([OURS] if with_plugin else [])
    for source in sources:
        for path in source.glob("_*.py"):
            if path.name != "__init__.py":
                shutil.copy(path, enabled)


# What templates say: {% trans "..." %}, _("...") of a filter, and blocks.
TEMPLATE = re.compile(
    r'\{% trans "([^"]*)" %\}'
    r'|_\("([^"]*)"\)'
    r"|\{% blocktrans trimmed[^%]*%\}(.*?)\{% endblocktrans",
    re.DOTALL,
)


def messages(path: pathlib.Path) -> set[str]:
    """All that a module or a template of the plug-in lets Django translate."""
    source = path.read_text()
    if path.suffix == ".py":
        return {
            call.args[0].value
            for call in ast.walk(ast.parse(source))
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id in ("_", "gettext")
        }
    found = {next(filter(None, match)) for match in TEMPLATE.findall(source)}
    return {re.sub(r"\{\{ (\w+) \}\}", r"%(\1)s", " ".join(one.split())) for one in found}


def translate(folder: pathlib.Path) -> None:
    """A catalogue of all that the plug-in says: to a browser in German it is said between stars."""
    from babel.messages import catalog, mofile

    made = catalog.Catalog(locale="de", charset="utf-8")
    for path in OURS.parent.rglob("*"):
        if path.suffix in (".py", ".html"):
            for message in messages(path):
                made.add(message, f"*{message}*")
    target = folder / "locale" / "de" / "LC_MESSAGES"
    target.mkdir(parents=True)
    with open(target / "django.mo", "wb") as stream:
        mofile.write_mo(stream, made)


def kept(application):
    """Let browsers keep the hundreds of scripts, as behind the web server of a real Horizon."""

    def answering(environ, start_response):
        def start(status, headers, *more):
            if environ["PATH_INFO"].startswith("/static/"):
                headers = [*headers, ("Cache-Control", "max-age=3600")]
            return start_response(status, headers, *more)

        return application(environ, start)

    return answering


def main():
    folder, auth_url = pathlib.Path(sys.argv[1]), sys.argv[2]
    make_local(folder, auth_url, with_plugin="--without-plugin" not in sys.argv)
    translate(folder)
    sys.path[:0] = [str(folder), str(CHECKOUT)]
    import openstack_dashboard.local.enabled

    openstack_dashboard.local.enabled.__path__.append(str(folder / "enabled"))
    os.environ["DJANGO_SETTINGS_MODULE"] = "openstack_dashboard.settings"
    listener = socket.create_server(("127.0.0.1", 0))
    ready = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Horizon prints is no answer

    import waitress
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.wsgi import get_wsgi_application

    application = kept(StaticFilesHandler(get_wsgi_application()))
    server = waitress.create_server(application, sockets=[listener], threads=4)
    threading.Thread(target=server.run, daemon=True).start()
    print(json.dumps({"port": listener.getsockname()[1]}), file=ready, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
