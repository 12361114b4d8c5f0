# SPDX-License-Identifier: Apache-2.0
"""Used at build time only: puts the .pth of the Freezer hook into site-packages.

pbr discards ``cmdclass`` of setup.py and takes commands from ``[global] commands`` in setup.cfg.
"""

import os

from setuptools.command import build_py as _build_py
from setuptools.command import editable_wheel as _editable_wheel

PTH = "freezer-osbrick.pth"


class build_py(_build_py.build_py):
    """Also lay the .pth beside the package: the root of a wheel becomes site-packages."""

    def run(self):
        super().run()
        if not self.editable_mode:
            self.copy_file(PTH, os.path.join(self.build_lib, PTH), preserve_mode=False)

    def get_outputs(self, include_bytecode=True):
        outputs = super().get_outputs(include_bytecode)
        if self.editable_mode:
            return outputs
        return [*outputs, os.path.join(self.build_lib, PTH)]


class editable_wheel(_editable_wheel.editable_wheel):
    """``pip install -e`` makes a wheel of its own, which build_py has no part in."""

    def _run_build_commands(self, dist_name, unpacked_wheel, build_lib, tmp_dir):
        result = super()._run_build_commands(dist_name, unpacked_wheel, build_lib, tmp_dir)
        self.copy_file(PTH, os.path.join(str(unpacked_wheel), PTH), preserve_mode=False)
        return result
