# SPDX-License-Identifier: Apache-2.0
"""What runs inside the cloud's own environment: Keystone, Cinder and two stand-ins."""
