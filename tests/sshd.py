"""An ssh server of a test's own: its keys, its settings, and an `ssh` that knows it.

Everything stands in one folder, nothing of the user's is read or changed.  Who runs the
server, where, and until when is the test's matter.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

PROGRAM: Final = "/usr/sbin/sshd"
HOST: Final = "monitored"  # what the client calls it
_SEPARATION: Final = Path("/run/sshd")  # where sshd demands an empty folder


class Server:
    """The files of a server for root on a port of loopback; `path` is PATH behind it."""

    def __init__(self, folder: Path, port: int, path: str) -> None:
        self.port = port
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name in ("host", "user"):
            key = str(folder / name)
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]
            subprocess.run(command, check=True, timeout=60)
        self._config = folder / "sshd_config"
        self._config.write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nPermitRootLogin yes\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv PATH={path}\n"
        )
        client = folder / "ssh_config"
        client.write_text(
            f"Host {HOST}\n  HostName 127.0.0.1\n  Port {port}\n  User root\n"
            f"  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder}/known\n"
        )
        public = (folder / "host.pub").read_text()
        (folder / "known").write_text(f"[127.0.0.1]:{port} {public}")
        self.tool("ssh", f'exec /usr/bin/ssh -F {client} "$@"')

    def tool(self, name: str, body: str) -> None:
        """A program of this name for those who search in `bin` first."""
        program = self.bin / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)

    @property
    def client_path(self) -> str:
        """A PATH on which `ssh` is the one that knows this server."""
        return f"{self.bin}:{os.environ['PATH']}"

    @property
    def command(self) -> list[str]:
        """The server in the foreground, which says on stderr when it listens."""
        _SEPARATION.mkdir(mode=0o755, exist_ok=True)
        return [PROGRAM, "-D", "-e", "-f", str(self._config)]
