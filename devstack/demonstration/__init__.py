# SPDX-License-Identifier: Apache-2.0
"""The parts of the demo: guests that use volumes, freezer-agent, proofs, and the table."""
