"""The script that stands in Wireshark's extcap folder: it finds the vsockdump it came from."""

from typing import Final

# Through an interpreter on the PATH, and not by its own first line, which may hold neither
# a long path nor one with spaces.
_TEXT: Final = '''#!/usr/bin/env python3
"""A capture source for Wireshark: its vsock monitors, here and over ssh.

Wireshark runs this; vsockdump, installed for the Python below, does the work.
"""

import os
import sys

PYTHON = {python!r}

try:
    os.execvp(PYTHON, [PYTHON, "-P", "-m", "vsockdump.extcap", *sys.argv[1:]])
except OSError as error:
    sys.exit(f"vsockdump: cannot run {{PYTHON}}: {{error.strerror}}; "
             "install the extcap again with vsockdump --install-wireshark.")
'''


def script(python: str = "python3") -> str:
    """The script for the vsockdump of this interpreter, a path or a name on the PATH."""
    return _TEXT.format(python=python)
