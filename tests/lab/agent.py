"""Runs programs in the virtual machine for the tests outside: `agent.py PORT`.

PORT is a virtio console port that the harness (machine.py) listens to.  A line is a JSON
object.  In: `{"id": 1, "run": [argv]}`, `{"id": 1, "signal": 2}`.  Out, once: `{"ready":
release}`; then for each program `{"id": 1, "pid": 80}`, any number of `{"id": 1, "stream":
"stdout", "data": base64}` and at last `{"id": 1, "status": 0}`, negative where a signal
ended it.  When the other end of the port closes, the agent ends, and the machine with it.

Rules for editors: standard library only; no import that costs start-up time for nothing,
since a processor in software is some twenty times slower.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from typing import IO, Any

BLOCK = 65536


class Agent:
    """The programs that run, and the port on which they are spoken of."""

    def __init__(self, port: str) -> None:
        self._port = os.open(port, os.O_RDWR)
        self._lock = threading.Lock()
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def serve(self) -> None:
        """Do what the lines of the port ask for, until it closes."""
        self._say(ready=os.uname().release)
        with os.fdopen(os.dup(self._port), "rb", buffering=BLOCK) as lines:
            for line in lines:
                request = json.loads(line)
                if "run" in request:
                    threading.Thread(target=self._run, args=(request,), daemon=True).start()
                elif request["id"] in self._running:
                    self._running[request["id"]].send_signal(request["signal"])

    def _say(self, **message: Any) -> None:
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._port, line) :]

    def _run(self, request: dict[str, Any]) -> None:
        name = request["id"]
        try:
            process = subprocess.Popen(
                request["run"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **request["environment"]},
                start_new_session=True,
            )
        except OSError as error:
            message = f"{request['run'][0]}: {error}\n".encode()
            self._say(id=name, stream="stderr", data=b64encode(message).decode())
            self._say(id=name, status=127)
            return
        self._running[name] = process
        self._say(id=name, pid=process.pid)
        assert process.stdout is not None
        assert process.stderr is not None
        other = threading.Thread(target=self._forward, args=(name, "stderr", process.stderr))
        other.start()
        self._forward(name, "stdout", process.stdout)
        other.join()
        self._say(id=name, status=process.wait())

    def _forward(self, name: int, stream: str, pipe: IO[bytes]) -> None:
        while data := os.read(pipe.fileno(), BLOCK):
            self._say(id=name, stream=stream, data=b64encode(data).decode())


def main() -> None:
    """Serve, with the signals as a login would have them."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    Agent(sys.argv[1]).serve()


if __name__ == "__main__":
    main()
