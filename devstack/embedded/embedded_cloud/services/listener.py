# SPDX-License-Identifier: Apache-2.0
"""Serve a WSGI application on the socket that the launcher bound for us."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import waitress

from ..process import LISTENER_VARIABLE


def serve(application: Any, threads: int) -> None:
    """Serve until SIGTERM; does not return."""
    # inherited once, and not to be inherited again by losetup and its like
    listener = socket.socket(fileno=int(os.environ.pop(LISTENER_VARIABLE)))
    listener.set_inheritable(False)
    server = waitress.create_server(application, sockets=[listener], threads=threads)
    # Everything that matters is in sqlite: no thread of ours needs a long farewell.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.run()
