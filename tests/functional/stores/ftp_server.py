# SPDX-License-Identifier: Apache-2.0
"""FTP servers of pyftpdlib in one process: plain, under TLS, and one of the old kind.

Runs in an environment of its own, and ends with its standard input.

Usage: ftp_server.py FOLDER. Serves FOLDER/files; says its ports as JSON when it is ready, and has
written FOLDER/certificate.pem, which signs itself.
"""

import datetime
import ipaddress
import json
import os
import pathlib
import sys
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer


class Plain(FTPHandler):
    pass


class Tls(TLS_FTPHandler):
    tls_control_required = True
    tls_data_required = True


class Old(FTPHandler):
    """Without machine-readable listings, as vsftpd is."""

    proto_cmds = {
        name: command
        for name, command in FTPHandler.proto_cmds.items()
        if name not in ("MLSD", "MLST", "OPTS")
    }


def make_certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def main():
    folder = pathlib.Path(sys.argv[1])
    files = folder / "files"
    files.mkdir(parents=True)
    make_certificate(folder)
    users = DummyAuthorizer()
    users.add_user("backup", "backup-secret", str(files), perm="elradfmwMT")
    users.add_user("reader", "reader-secret", str(files), perm="elr")
    Tls.certfile, Tls.keyfile = str(folder / "certificate.pem"), str(folder / "key.pem")
    ports = {}
    for name, handler in (("ftp", Plain), ("ftps", Tls), ("old", Old)):
        handler.authorizer = users
        server = FTPServer(("127.0.0.1", 0), handler)
        server.max_cons = 512
        ports[name] = server.socket.getsockname()[1]
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    print(json.dumps(ports), flush=True)
    server.serve_forever(handle_exit=False)  # one loop serves them all


if __name__ == "__main__":
    main()
