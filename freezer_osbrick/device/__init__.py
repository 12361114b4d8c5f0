# SPDX-License-Identifier: Apache-2.0
"""A volume on this host: connecting, proving its identity, reading, writing, letting go."""

from freezer_osbrick.device.host import Host
from freezer_osbrick.device.opening import open_device
from freezer_osbrick.device.volume_device import Device

__all__ = ["Device", "Host", "open_device"]
