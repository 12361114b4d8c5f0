# SPDX-License-Identifier: Apache-2.0
"""What Cinder's target helper ``nvmet`` imports: the library of nvmetcli.

It is not on PyPI and not in every distribution, so the embedded cloud brings as much of it as
Cinder calls.
"""

from __future__ import annotations

from . import nvme
from .nvme import ANAGroup, Host, Namespace, Port, Referral, Root, Subsystem

__all__ = ["ANAGroup", "Host", "Namespace", "Port", "Referral", "Root", "Subsystem", "nvme"]
