"""The monitor device: one that is there, or one that is made for the time of a capture.

A device of ours is made and removed by a small process of its own.  It keeps the right to
do so when the capture has given up its rights, and it outlives the capture, whatever ends
that: the end of a pipe tells it.  Cleaning up in the capture itself would need root until
the end and would be skipped by a SIGKILL; a device that vanishes with its owner, as a TUN
device does, is not offered by the kernel.

Rules for editors: a device that we did not make is never changed.  Ours is removed by its
index, since its name may be another's by then.
"""

import errno
import os
import signal
import struct
from typing import TYPE_CHECKING, Final

from vsockdump.capture import machine, privileges
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.link import monitors

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_KIND: Final = "vsockmon"
_MOST_NAMES: Final = 1000
_RESULT: Final = struct.Struct("i16s")  # errno, name
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)


def existing() -> str | None:
    """A monitor device that is up, the first one."""
    return next((link.name for link in monitors() if link.up), None)


def make() -> "MonitorDevice":
    """A device of our own; raises CaptureError, which says what is in the way."""
    for problem in machine.obstacles(machine.gather()):
        raise CaptureError(str(problem))
    return MonitorDevice()


class MonitorDevice:
    """A monitor device that exists until `close`, or until this process ends.

    Raises CaptureError, which says what to do.  `kind` is another kind of device for tests.
    """

    def __init__(self, kind: str = _KIND) -> None:
        results, theirs = os.pipe()
        stays, self._pipe = os.pipe()
        self._keeper = os.fork()
        if not self._keeper:
            _be_keeper(kind, theirs, stays)
        os.close(theirs)
        os.close(stays)
        with os.fdopen(results, "rb") as file:
            answer = file.read(_RESULT.size)
        code, name = _RESULT.unpack(answer) if len(answer) == _RESULT.size else (errno.EIO, b"")
        if code:
            self.close()
            raise _cannot_make(code)
        self.name = name.rstrip(b"\0").decode()

    def close(self) -> None:
        """Remove the device and wait until it is gone; raises CaptureError where it stays."""
        if self._pipe < 0:
            return
        os.close(self._pipe)
        self._pipe = -1
        _, status = os.waitpid(self._keeper, 0)
        if status:
            raise CaptureError(
                f"Could not remove {self.name}; remove it with: sudo ip link del {self.name}."
            )


def _cannot_make(code: int) -> CaptureError:
    if code in (errno.EPERM, errno.EOPNOTSUPP):
        return CaptureError(str(machine.no_device(machine.gather())))
    return CaptureError(f"Cannot make a vsock monitor: {os.strerror(code).lower()}.")


def _be_keeper(kind: str, results: int, stays: int) -> None:
    """The other process: make a device, say so, wait for the end of the pipe, remove it."""
    status = 1
    try:
        os.setsid()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        _let_go_of_files(results, stays)
        status = _keep(kind, results, stays)
    finally:
        os._exit(status)


def _let_go_of_files(*kept: int) -> None:
    """Close what the capture has open: who waits for the end of its output waits for it."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in kept:
            try:
                os.close(fd)
            except OSError:
                continue  # the one that listed them


def _keep(kind: str, results: int, stays: int) -> int:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as routes:
        try:
            name, index = _make(routes, kind)
        except (NetlinkError, OSError) as error:
            code = error.code if isinstance(error, NetlinkError) else error.errno
            os.write(results, _RESULT.pack(code or errno.EIO, b""))
            return 0
        try:
            privileges.keep_only(privileges.CAP_NET_ADMIN)
            os.write(results, _RESULT.pack(0, name.encode()))
            os.close(results)
            os.read(stays, 1)
        finally:
            try:
                routes.link("del", index=index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise
    return 0


def _make(routes: "IPRoute", kind: str) -> tuple[str, int]:
    """Make a device with the first name that is free, and bring it up; its name and index."""
    from pyroute2.netlink.exceptions import NetlinkError

    for number in range(_MOST_NAMES):
        name = f"{kind}{number}"
        try:
            routes.link("add", ifname=name, kind=kind)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            continue
        (index,) = routes.link_lookup(ifname=name)
        try:
            routes.link("set", index=index, state="up")
        except NetlinkError:
            routes.link("del", index=index)
            raise
        return name, index
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
