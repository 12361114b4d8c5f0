# SPDX-License-Identifier: Apache-2.0
from tests.unit.cloud.conftest import sleeps

__all__ = ["sleeps"]
