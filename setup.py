# SPDX-License-Identifier: Apache-2.0
import os
import sys

import setuptools

# setup_commands.py lies beside this file; PEP 517 builds do not put that folder on the path.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
setuptools.setup(setup_requires=["pbr"], pbr=True)
