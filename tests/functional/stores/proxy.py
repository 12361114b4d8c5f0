# SPDX-License-Identifier: Apache-2.0
"""What lies between a host and a server: a way that can be closed, narrow, or cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Proxy:
    """Passes connections to a port of this host on.

    :ivar port: where it listens itself.
    :ivar rate: bytes a second in each direction of a connection; None for no limit.
    :ivar cuts: of how many answers to come only the first bytes get through.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.rate: int | None = None
        self.cuts = 0
        self._open = True
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close_the_way(self) -> None:
        """From now on everybody is turned away, and what was under way breaks off."""
        with self._lock:
            self._open = False
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def open_the_way(self) -> None:
        self._open = True

    def stop(self) -> None:
        self._listening.close()
        self.close_the_way()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if not self._open:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._connections |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pass_on, args=(source, sink, source is server), daemon=True
                ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(16384):
                if self.rate:
                    time.sleep(len(data) / self.rate)
                if answers and len(data) > 2000 and self._cut():
                    sink.sendall(data[: len(data) // 2])
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _cut(self) -> bool:
        with self._lock:
            cut, self.cuts = self.cuts > 0, max(0, self.cuts - 1)
            return cut
