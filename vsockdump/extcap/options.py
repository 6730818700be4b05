"""The options of a capture: those in Wireshark's dialog, checked.

Rules for editors: an option stands in OPTIONS once; the dialog and the command line come
from it.  No text may hold braces, which end a value in Wireshark's grammar.  What becomes a
word of another program is checked against a pattern of what it may be, not for what it may
not: it must never become an option of ssh or a word of a shell.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from vsockdump.extcap.errors import ExtcapError

HERE: Final = "vsockdump"  # the monitor that is up, or one made for the capture
ON_DEVICE: Final = "vsockdump-on-"  # before the name of a device
BY_SSH: Final = "vsockdump-ssh"


class Option(NamedTuple):
    """One option; `kind` is Wireshark's type, `limits` least and most of a number.

    `pattern` is what a text must match as a whole, `rule` says the same in words.
    """

    name: str
    display: str
    kind: str
    tooltip: str
    default: str = ""
    limits: tuple[int, int] | None = None
    pattern: str = ""
    rule: str = ""
    required: bool = False
    ssh_only: bool = False

    @property
    def call(self) -> str:
        """How Wireshark passes it."""
        return f"--{self.name}"

    def checked(self, text: str) -> str:
        """The value, or the default for ""; ExtcapError where it may not be this."""
        text = text or self.default
        if not text:
            if self.required:
                raise ExtcapError(f"{self.display} is missing; enter it in the interface's options")
            return ""
        if self.limits is not None:
            least, most = self.limits
            if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
                raise ExtcapError(
                    f"{self.display}: {text!r} is not a whole number from {least} to {most}"
                )
        elif self.pattern and not re.fullmatch(self.pattern, text):
            raise ExtcapError(f"{self.display}: {text!r} is not {self.rule}")
        return text


OPTIONS: Final = (
    Option(
        "snaplen",
        "Bytes kept of a packet",
        "unsigned",
        "0 keeps them all",
        "0",
        (0, 262144),
    ),
    Option(
        "buffer",
        "Kernel buffer in KiB",
        "unsigned",
        "a larger one bridges longer pauses before packets are dropped",
        "32768",
        (1, 4194303),
    ),
    Option(
        "annotate",
        "Findings as packet comments",
        "boolflag",
        "what vsockdump finds wrong or worth knowing becomes a comment of its packet",
        "true",
    ),
    Option(
        "sudo",
        "Capture as root by sudo",
        "boolflag",
        "sudo must not ask for a password: Wireshark has no terminal to ask on",
        "false",
    ),
    Option(
        "host",
        "Host",
        "string",
        "name or address, or a name of ssh's configuration",
        pattern=r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*",
        rule="a host's name or address",
        required=True,
        ssh_only=True,
    ),
    Option(
        "port",
        "Port of ssh",
        "unsigned",
        "0: as ssh's configuration says, or 22",
        "0",
        (0, 65535),
        ssh_only=True,
    ),
    Option(
        "user",
        "User",
        "string",
        "empty: as ssh's configuration says, or yourself; keys or ssh's agent must let you in",
        pattern=r"[A-Za-z0-9_][A-Za-z0-9_.@-]*",
        rule="a user's name",
        ssh_only=True,
    ),
    Option(
        "command",
        "vsockdump at the other end",
        "string",
        "its path, where it is not in the PATH there; without it ip and tcpdump are used",
        "vsockdump",
        pattern=r"[A-Za-z0-9_./][A-Za-z0-9_./+@-]*",
        rule="a program's name or path without spaces",
        ssh_only=True,
    ),
)


class Request(NamedTuple):
    """What to capture.  `device` "": the one that is up, or a new one; `host` "": here.

    `port` "0" and `user` "" leave them to ssh.
    """

    device: str
    filter: str
    snaplen: str
    buffer: str
    annotate: bool = False
    sudo: bool = False
    host: str = ""
    port: str = "0"
    user: str = ""
    command: str = ""


def options_of(interface: str) -> list[Option]:
    """The options that an interface has; ExtcapError where there is no such interface."""
    if interface not in (HERE, BY_SSH) and not _device(interface):
        raise ExtcapError(f"there is no interface {interface!r}; --extcap-interfaces lists them")
    own = [option for option in OPTIONS if option.ssh_only and interface == BY_SSH]
    return own + [option for option in OPTIONS if not option.ssh_only]


def request(interface: str, values: Mapping[str, str | bool], filter_text: str) -> Request:
    """The request that these values of options make; ExtcapError where one is wrong."""
    checked: dict[str, Any] = {}
    for option in options_of(interface):
        value = values[option.name]
        checked[option.name] = value if isinstance(value, bool) else option.checked(value)
    return Request(device=_device(interface), filter=filter_text, **checked)


def _device(interface: str) -> str:
    """The device that an interface stands for, "" where it is not fixed."""
    return interface.removeprefix(ON_DEVICE) if interface.startswith(ON_DEVICE) else ""
