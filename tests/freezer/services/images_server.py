# SPDX-License-Identifier: Apache-2.0
"""As much of Glance, Nova and Neutron as Freezer's engines ``glance`` and ``nova`` ask for: images
with their bytes, and one server whose snapshots are images. Ends with its standard input.

Usage: images_server.py. Says ``{"port": N, "image": ID, "server": ID}``.
"""

import http.server
import json
import os
import sys
import threading
import uuid

IMAGE, SERVER, FLAVOR = (str(uuid.uuid4()) for _ in range(3))
CONTENT = bytes(range(256)) * 10
NOTHING = {"message": "There is no such thing."}


class Cloud:
    """All images; images that were uploaded, and servers that were made, are told apart by name."""

    def __init__(self):
        self.images = {}
        self.content = {}
        self.servers = {SERVER: server(SERVER, "shop")}
        self.add_image("linux", IMAGE, CONTENT)

    def add_image(self, name, image_id=None, content=None):
        image_id = image_id or str(uuid.uuid4())
        self.images[image_id] = {
            "id": image_id,
            "name": name,
            "status": "queued" if content is None else "active",
            "disk_format": "raw",
            "container_format": "bare",
            "visibility": "private",
            "protected": False,
            "size": None if content is None else len(content),
            "file": f"/v2/images/{image_id}/file",
        }
        if content is not None:
            self.content[image_id] = content
        return self.images[image_id]

    def fill(self, image_id, content):
        self.content[image_id] = content
        self.images[image_id].update(status="active", size=len(content))


def server(server_id, name):
    return {
        "id": server_id,
        "name": name,
        "status": "ACTIVE",
        "OS-EXT-STS:task_state": None,
        "image": {"id": IMAGE},
        "flavor": {"id": FLAVOR},
        "addresses": {},
        "metadata": {},
    }


CLOUD = Cloud()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(*self._routed("GET"))

    def do_POST(self):
        self._answer(*self._routed("POST"))

    def do_PUT(self):
        self._answer(*self._routed("PUT"))

    def do_DELETE(self):
        self._answer(*self._routed("DELETE"))

    def log_message(self, *_words):
        pass

    def _routed(self, verb):
        body = self._body()
        service, *rest = self.path.partition("?")[0].strip("/").split("/")
        root = f"http://{self.headers['Host']}/{service}"
        found = {"image": images, "compute": compute, "network": network}.get(service)
        return found(verb, rest, body, root) if found else (404, NOTHING)

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status, answer, headers=()):
        raw = isinstance(answer, bytes)
        body = answer if raw else b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        kind = "application/octet-stream" if raw else "application/json"
        told = {"Content-Type": kind, "Content-Length": len(body), **dict(headers)}
        for name, value in told.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)


def images(verb, path, body, root):
    if not path or path == [""]:
        versions = [{"id": "v2.16", "status": "CURRENT", "links": [link(f"{root}/v2/")]}]
        return 300, {"versions": versions}
    if path == ["v2", "images"]:
        if verb == "POST":
            return 201, CLOUD.add_image(json.loads(body)["name"])
        return 200, {"images": list(CLOUD.images.values())}
    if path[:2] != ["v2", "images"] or len(path) < 3 or path[2] not in CLOUD.images:
        return 404, NOTHING
    image_id = path[2]
    if path[3:] == ["file"]:
        if verb == "PUT":
            CLOUD.fill(image_id, body)
            return 204, None
        return 200, CLOUD.content[image_id]
    if verb == "DELETE":
        del CLOUD.images[image_id]
        return 204, None
    return 200, CLOUD.images[image_id]


def compute(verb, path, body, root):
    if path in ([], ["v2.1"]):
        version = {
            "id": "v2.1",
            "status": "CURRENT",
            "version": "2.1",
            "min_version": "2.1",
            "links": [link(f"{root}/v2.1/")],
        }
        return 200, {"version": version} if path else {"versions": [version]}
    if path[1:] == ["servers"] and verb == "POST":
        made = server(str(uuid.uuid4()), json.loads(body)["server"]["name"])
        CLOUD.servers[made["id"]] = made
        return 202, {"server": made}
    if path[1:2] == ["servers"] and path[2] in CLOUD.servers:
        if path[3:] == ["action"]:
            made = CLOUD.add_image(json.loads(body)["createImage"]["name"], content=CONTENT)
            return 202, None, {"Location": f"{root}/images/{made['id']}"}
        return 200, {"server": CLOUD.servers[path[2]]}
    if path[1:] == ["flavors", FLAVOR]:
        return 200, {"flavor": {"id": FLAVOR, "name": "small"}}
    return 404, NOTHING


def network(verb, path, body, root):
    if path[-1:] == ["networks"]:
        return 200, {"networks": []}
    versions = [{"id": "v2.0", "status": "CURRENT", "links": [link(f"{root}/v2.0/")]}]
    return 200, {"versions": versions}


def link(address):
    return {"rel": "self", "href": address}


def main():
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    told = {"port": httpd.server_address[1], "image": IMAGE, "server": SERVER}
    print(json.dumps(told), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
