"""What vsockdump hears in a capture of real programs, against what the programs logged.

A record is what tests/lab/programs/scenarios.py returns for a scenario; `compare` puts what
`vsockdump --json` shows into the same form and holds it against the record.  Used for the
captures that are kept, and for those that the lab makes anew.

Rules for editors: a form says in words of the log what was heard, and leaves out only what
the program does not log.
"""

import errno
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from json import loads
from pathlib import Path
from typing import Any, Final, NamedTuple

from running import lines

from vsockdump.apps.rpc_status import StatusCode

Record = dict[str, Any]
Message = dict[str, Any]  # of `vsock.app.messages`, with the side that said it


class Talk(NamedTuple):
    """A connection: its protocol and its messages, in order."""

    protocol: str | None
    messages: list[Message]

    def of(self, *kinds: str, protocol: str | None = None) -> list[Message]:
        """The messages of these kinds."""
        wanted = protocol or self.protocol
        return [m for m in self.messages if m["kind"] in kinds and m["protocol"] == wanted]

    @property
    def answered(self) -> list[tuple[Message, list[Message]]]:
        """Each request with the responses to it, in the order of the last of these."""
        found = []
        for last in self.of("response"):
            request = next(
                (m for m in self.of("request") if m["packet"] == last["request_packet"]), None
            )
            assert request is not None, f"a response to nothing: {last}"
            found.append((request, [last]))
        return found


def heard(capture: Path) -> list[Talk]:
    """The connections of a capture."""
    talks: dict[int, Talk] = {}
    for line in lines("-r", capture, "--json"):
        packet = loads(line)
        vsock = packet["vsock"]
        app, number = vsock["app"], packet["frame"]["number"]
        said = [{**m, "side": vsock["side"], "packet": number} for m in app["messages"]]
        before = talks[vsock["conn"]].messages if vsock["conn"] in talks else []
        talks[vsock["conn"]] = Talk(app["protocol"], before + said)
    return list(talks.values())
