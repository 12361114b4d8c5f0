# SPDX-License-Identifier: Apache-2.0
"""File systems of guests, read in user space from the bytes of a volume.

Nothing here asks the kernel of this host, or a program of it, to look at what a guest has written.
Only reading, and no more of each file system than it takes to list files and to give their content
and metadata.
"""
