# SPDX-License-Identifier: Apache-2.0
"""The embedded cloud: real Cinder and Keystone on one machine, for tests and demonstrations.

The modules beside this file run in any Python and use the standard library only; those in
``services`` run inside the cloud's own virtual environment.
"""
