"""What this machine can capture, and why a capture shows nothing.

The tap is called by three transports only: the guest's virtio driver, vhost in the host,
and loopback.  Whoever uses another one sees an empty capture and no error; this module
knows which, and what to do.

Rules for editors: `gather` asks the machine and judges nothing; all else is a pure function
of Facts, so that it is tested for machines that are not at hand.  What is not known is
None and gives no advice.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from vsockdump.address import cid_name
from vsockdump.capture import privileges
from vsockdump.capture.link import Link, monitors

_IOCTL_VM_SOCKETS_GET_LOCAL_CID: Final = 0x7B9  # _IO(7, 0xb9), linux/vm_sockets.h
_NO_CID: Final = 0xFFFFFFFF

_GUEST: Final = "vmw_vsock_virtio_transport"
_HOST: Final = "vhost_vsock"
_LOOPBACK: Final = "vsock_loopback"
_TAPPED: Final = {
    _GUEST: "this guest's own connections, to its host and back",
    _HOST: "connections between this host and its guests",
    _LOOPBACK: "connections within this machine",
}
_UNTAPPED: Final = {
    "vmw_vsock_vmci_transport": "VMware's VMCI",
    "hv_sock": "Hyper-V's",
}
# By the 15 characters of /proc/PID/comm.  These serve their guests' vsock themselves.
_USER_SPACE: Final = {
    "firecracker": "Firecracker",
    "cloud-hyperviso": "Cloud Hypervisor",
    "krun": "libkrun",
    "krunvm": "libkrun",
    "muvm": "libkrun",
    "vhost-device-vs": "vhost-device-vsock",
}


class Facts(NamedTuple):
    """What was found.

    `modules`: loaded or built in.  `installed`: whether the kernel has a vsockmon module, None
    where its modules cannot be looked at.  `local_cid`: None without vsock.  `vmms`: programs
    whose guests' vsock the kernel does not carry.  `system`: ID of os-release.
    """

    release: str
    may_capture: bool
    may_make: bool
    monitors: tuple[Link, ...]
    modules: frozenset[str]
    installed: bool | None
    local_cid: int | None
    vmms: tuple[str, ...]
    system: str
    container: bool


class Problem(NamedTuple):
    """One thing in the way: a sentence without its full stop, and the command that helps."""

    sentence: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.sentence}{': ' if self.command else ''}{self.command}."


def obstacles(facts: Facts) -> list[Problem]:
    """Why a capture cannot start."""
    found = []
    if not facts.may_capture:
        found.append(
            Problem("Capturing needs root or the capability CAP_NET_RAW", "sudo vsockdump")
        )
    if not any(link.up for link in facts.monitors):
        found += _no_device(facts)
    return found


def _no_device(facts: Facts) -> Iterator[Problem]:
    """What keeps us from having a monitor device that is up."""
    if "vsockmon" not in facts.modules and facts.installed is False:
        yield _no_module(facts)
        return
    if facts.may_make:
        return
    if facts.monitors:
        name = facts.monitors[0].name
        yield Problem(f"Monitor {name} is down", f"sudo ip link set {name} up")
        return
    yield Problem(
        "There is no vsock monitor, and making one needs root or CAP_NET_ADMIN",
        "sudo ip link add vsockmon0 type vsockmon && sudo ip link set vsockmon0 up",
    )


def _doubts(facts: Facts) -> Iterator[Problem]:
    """What only the attempt can tell."""
    up = any(link.up for link in facts.monitors)
    if not up and "vsockmon" not in facts.modules and facts.installed is None:
        yield Problem(
            f"Whether kernel {facts.release} has the module vsockmon cannot be seen from here;"
            " try it with",
            "sudo modprobe vsockmon",
        )


def no_device(facts: Facts) -> Problem:
    """Why the kernel refused to make a device."""
    return next(iter(_no_device(facts)), None) or _no_module(facts)


def _no_module(facts: Facts) -> Problem:
    if facts.container:
        return Problem(
            "The kernel's module vsockmon is not loaded, which only the machine outside this"
            " container can do",
            "sudo modprobe vsockmon",
        )
    if facts.installed:
        return Problem("The kernel's module vsockmon is not loaded", "sudo modprobe vsockmon")
    if facts.system == "ubuntu":
        return Problem(
            f"Kernel {facts.release} has no module vsockmon",
            f"sudo apt install linux-modules-extra-{facts.release}",
        )
    return Problem(
        f"Kernel {facts.release} has no module vsockmon; use one that is built with CONFIG_VSOCKMON"
    )


def blind_spots(facts: Facts) -> list[Problem]:
    """Which vsock traffic of this machine no capture here can show."""
    found = []
    for module, name in _UNTAPPED.items():
        if module in facts.modules:
            found.append(
                Problem(f"{name} vsock transport is in use, which no vsock monitor ever sees")
            )
    for name in facts.vmms:
        found.append(
            Problem(
                f"The guests of {name} have a vsock device that this host's kernel knows nothing"
                " of; capture inside the guest"
            )
        )
    if not facts.modules & set(_TAPPED):
        found.append(
            Problem(
                "No vsock transport that a monitor sees is loaded; a host of virtual machines"
                " loads it with",
                "sudo modprobe vhost_vsock",
            )
        )
    return found


def why_silent(facts: Facts) -> str:
    """Why a capture may have seen no packet, in one sentence."""
    found = blind_spots(facts)
    if found:
        return f"Nothing was captured. {found[0]}"
    return "Nothing was captured: no vsock packet passed while vsockdump listened."


def report(facts: Facts) -> Iterator[str]:
    """-D: the monitors, and what this machine can capture."""
    for link in facts.monitors:
        yield f"{link.name} ({'up' if link.up else 'down'})"
    if not facts.monitors:
        yield "no vsock monitor; vsockdump makes one for the time of a capture"
    if facts.local_cid is not None:
        yield f"this machine's context id is {facts.local_cid} ({cid_name(facts.local_cid)})"
    for module, what in _TAPPED.items():
        if module in facts.modules:
            yield f"can be captured: {what} ({module})"
    for problem in blind_spots(facts):
        yield f"cannot be captured: {problem}"


def doctor(facts: Facts) -> Iterator[str]:
    """--doctor: what is wrong, each with the command that helps."""
    problems = [*obstacles(facts), *_doubts(facts), *blind_spots(facts)]
    yield from map(str, problems)
    if not problems:
        yield "Nothing is wrong: vsockdump can capture here."


def gather() -> Facts:
    """Ask the machine."""
    release = os.uname().release
    return Facts(
        release=release,
        may_capture=privileges.has(privileges.CAP_NET_RAW),
        may_make=privileges.has(privileges.CAP_NET_ADMIN),
        monitors=tuple(monitors()),
        modules=frozenset(_names("/sys/module")),
        installed=_installed(Path("/lib/modules", release)),
        local_cid=_local_cid(),
        vmms=tuple(sorted({_USER_SPACE[name] for name in _commands() if name in _USER_SPACE})),
        system=_system(),
        container=_in_container(),
    )


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _installed(folder: Path) -> bool | None:
    lists = [_text(folder / name) for name in ("modules.dep", "modules.builtin")]
    if not any(lists):
        return None
    return any("/vsockmon.ko" in text for text in lists)


def _local_cid() -> int | None:
    try:
        fd = os.open("/dev/vsock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        (cid,) = struct.unpack("I", fcntl.ioctl(fd, _IOCTL_VM_SOCKETS_GET_LOCAL_CID, bytes(4)))
    except OSError:
        return None
    finally:
        os.close(fd)
    return None if cid == _NO_CID else int(cid)


def _commands() -> Iterator[str]:
    """Names of the running programs."""
    for name in _names("/proc"):
        if name.isdigit():
            yield _text(f"/proc/{name}/comm").strip()


def _system() -> str:
    fields = (line.partition("=") for line in _text("/etc/os-release").splitlines())
    return next((value.strip('"') for name, _, value in fields if name == "ID"), "")


def _in_container() -> bool:
    marks = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
    return any(map(os.path.exists, marks))
