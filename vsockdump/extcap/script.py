"""The script that stands in Wireshark's extcap folder: it finds the vsockdump it came from."""

import re
from typing import Final

_TEXT: Final = '''#!{first}
"""A capture source for Wireshark: its vsock monitors, here and over ssh.

Wireshark runs this; vsockdump, installed for the Python below, does the work.
"""

import os
import sys

PYTHON = {python!r}

try:
    os.execvp(PYTHON, [PYTHON, "-P", "-m", "vsockdump.extcap", *sys.argv[1:]])
except OSError as error:
    sys.exit(
        f"vsockdump: cannot run {{PYTHON}}: {{error.strerror}};"
        " install the extcap again with vsockdump --install-wireshark."
    )
'''
_PLAIN_PATH: Final = re.compile(r"/[!-~]{1,120}")  # what a script's first line can carry


def script(python: str = "python3") -> str:
    """The script for the vsockdump of this interpreter, a path or a name on the PATH.

    Where possible that interpreter runs the script too, quickly (-IS): others may be far
    slower to start, and Wireshark starts the script many times.
    """
    plain = _PLAIN_PATH.fullmatch(python)
    first = f"{python} -IS" if plain else "/usr/bin/env python3"
    return _TEXT.format(first=first, python=python)
