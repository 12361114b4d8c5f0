# SPDX-License-Identifier: Apache-2.0
"""The configuration files of Keystone and Cinder."""

from __future__ import annotations

import configparser
import pathlib
from typing import Any

from .errors import CloudError
from .state import REGION, State, write_atomically

Sections = dict[str, dict[str, Any]]


def write(path: pathlib.Path, sections: Sections) -> bool:
    """Write an ini file, readable by its owner only; True when its content has changed."""
    parts = []
    for section, options in sections.items():
        parts.append(f"[{section}]\n")
        parts += [f"{name} = {value}\n" for name, value in options.items()]
    text = "".join(parts)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    write_atomically(path, text, 0o600)
    return True


def read(path: pathlib.Path) -> Sections:
    """The sections of an ini file."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        with open(path, encoding="utf-8") as stream:
            parser.read_file(stream)
    except (OSError, configparser.Error) as error:
        raise CloudError(f"{path} cannot be read: {error}") from error
    return {name: dict(parser[name]) for name in parser.sections()}


def keystone(state: State) -> Sections:
    """Keystone on sqlite with fernet tokens."""
    folder = state.keystone
    return {
        "DEFAULT": {"log_file": state.log / "keystone.log"},
        "database": {"connection": f"sqlite:///{folder}/keystone.sqlite?timeout=60"},
        "token": {"provider": "fernet", "expiration": 3600},
        "fernet_tokens": {"key_repository": folder / "fernet", "max_active_keys": 3},
        "fernet_receipts": {"key_repository": folder / "fernet"},
        "credential": {"key_repository": folder / "credential"},
        # passwords are random and the cloud is a test's: cheap hashes make it start sooner
        "identity": {
            "password_hash_algorithm": "bcrypt",
            "password_hash_rounds": 4,
            "max_password_length": 72,
        },
        "cache": {"enabled": "true", "backend": "dogpile.cache.memory"},
        "oslo_concurrency": {"lock_path": folder},
    }


def _service_user(state: State) -> dict[str, Any]:
    return {
        "auth_type": "password",
        "auth_url": state.auth_url,
        "username": "cinder",
        "password": state.settings["passwords"]["cinder"],
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }


def cinder(state: State, venv: pathlib.Path) -> Sections:
    """Cinder with sqlite, in-process RPC and one backend a volume type."""
    backends = state.settings["backends"]
    sections: Sections = {
        "DEFAULT": {
            "log_file": state.log / "cinder.log",
            "state_path": state.cinder,
            "host": "embedded",
            "my_ip": "127.0.0.1",
            "transport_url": "fake://",
            "auth_strategy": "keystone",
            "api_paste_config": venv / "etc/cinder/api-paste.ini",
            "resource_query_filters_file": venv / "etc/cinder/resource_filters.json",
            "osapi_volume_listen": "127.0.0.1",
            "osapi_volume_listen_port": state.settings["ports"]["cinder"],
            "enabled_backends": ",".join(backends),
            "default_volume_type": "file",
            "scheduler_driver_init_wait_time": 1,
            "scheduler_default_filters": "AvailabilityZoneFilter,CapacityFilter,CapabilitiesFilter",
            "report_interval": 10,
            "service_down_time": 60,
            "periodic_fuzzy_delay": 0,
            "rpc_response_timeout": 600,  # a slow machine is not a broken one
            "quota_volumes": 10000,
            "quota_snapshots": 10000,
            "quota_gigabytes": 1000000,
            "quota_groups": 1000,
        },
        "file": {
            "volume_driver": "embedded_cloud.services.filedriver.FileDriver",
            "volume_backend_name": "file",
            "embedded_pool": state.pool,
            "embedded_attach": state.settings["attach"],
            "embedded_faults": state.faults_file,
        },
        "embedded": {
            "api_faults": state.api_faults_file,
            "servers": state.servers_file,
        },
        "database": {"connection": f"sqlite:///{state.cinder}/cinder.sqlite"},
        "oslo_concurrency": {"lock_path": state.cinder / "lock"},
        "coordination": {"backend_url": f"file://{state.cinder}/lock"},
        "oslo_messaging_notifications": {"driver": "noop"},
        "keystone_authtoken": {
            "www_authenticate_uri": state.auth_url,
            "service_token_roles": "service",
            "service_token_roles_required": "true",
            **_service_user(state),
        },
        # One key for all encrypted volumes, in place of a service that keeps keys.
        "key_manager": {
            "backend": "cinder.keymgr.conf_key_mgr.ConfKeyManager",
            "fixed_key": "42" * 32,
        },
        "nova": {"region_name": REGION, "interface": "public", **_service_user(state)},
    }
    if "rbd" in backends:
        sections["rbd"] = {
            "volume_driver": "cinder.volume.drivers.rbd.RBDDriver",
            "volume_backend_name": "rbd",
            "rbd_pool": "volumes",
            "rbd_user": "cinder",
            "rbd_ceph_conf": state.ceph / "ceph.conf",
            "rbd_cluster_name": "ceph",
            "rbd_secret_uuid": "457eb676-33da-42ec-9a8c-9293d545c337",
            "rbd_flatten_volume_from_snapshot": "false",
            "rbd_exclusive_cinder_pool": "true",
            "report_discard_supported": "true",
        }
    sections["DEFAULT"].update(state.settings.get("more_options", {}))
    for name, options in state.settings.get("more_backends", {}).items():
        sections[name] = {"volume_backend_name": name, **options}
    return sections
