# SPDX-License-Identifier: Apache-2.0
"""What runs inside the storage guest, on its own Python and with the standard library only."""
