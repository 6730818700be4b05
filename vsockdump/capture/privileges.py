"""Giving up what a process may do, once it has opened what it needs.

Packets are what a stranger sent; nothing that reads them shall be root.  By the system calls
themselves: libcap and its bindings are not everywhere.

Rules for editors: fail closed.  What cannot be given up is an error, never a warning, with
one exception that is said where it stands.
Sources: capabilities(7), capset(2), prctl(2).
"""

import ctypes
import os
import pwd
from contextlib import suppress
from typing import Final, NamedTuple

from vsockdump.capture.errors import CaptureError

CAP_DAC_OVERRIDE: Final = 1
CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13

_CAPABILITY_VERSION_3: Final = 0x20080522
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


class User(NamedTuple):
    """Whom to become."""

    name: str
    uid: int
    gid: int


def user_named(name: str) -> User:
    """The user of this name; raises CaptureError."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise CaptureError(f"There is no user {name}; give another one to -Z.") from None
    return User(name, entry.pw_uid, entry.pw_gid)


def invoking_user() -> User | None:
    """Who ran sudo, if that is how root came to run this and it was another user."""
    uid, gid = (os.environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID"))
    if os.geteuid() or not (uid.isdigit() and gid.isdigit() and int(uid)):
        return None
    return User(os.environ.get("SUDO_USER") or uid, int(uid), int(gid))


def effective() -> int:
    """The effective capabilities, as a mask."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("CapEff:"))
    return int(line.split()[1], 16)


def has(capability: int) -> bool:
    """Whether the process may use this capability."""
    return bool(effective() >> capability & 1)


def drop(user: User | None) -> None:
    """Become `user` if one is given, and give up all capabilities for good.

    Root that stays root keeps CAP_DAC_OVERRIDE: without it root could not write to the
    folder of another user, which is what root expects.  Raises CaptureError.
    """
    kept: tuple[int, ...] = ()
    if user is not None and os.geteuid():
        if user.uid != os.geteuid():
            raise CaptureError(f"Only root can become user {user.name} (-Z).")
        user = None
    _drop_bounds()
    try:
        if user is not None:
            _become(user)
        if os.geteuid() == 0:
            kept = (CAP_DAC_OVERRIDE,)
        keep_only(*kept)
    except OSError as error:
        raise CaptureError(
            f"Cannot give up privileges: {os.strerror(error.errno or 0).lower()}."
        ) from None


def _become(user: User) -> None:
    groups = [user.gid]
    with suppress(KeyError):  # a uid without a name has no other groups
        groups = os.getgrouplist(pwd.getpwuid(user.uid).pw_name, user.gid)
    os.setgroups(groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def keep_only(*capabilities: int) -> None:
    """Reduce the process to these capabilities, none of them inheritable; OSError."""
    held = effective()
    mask = sum(1 << capability for capability in capabilities) & held
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _check(_libc().capset(header, data))


def _drop_bounds() -> None:
    """Empty the bounding set, where we may: it only matters for programs run later.

    Who is not root has no CAP_SETPCAP for it, and no_new_privs then serves the same end.
    """
    capability = 0
    with suppress(OSError):
        while _libc().prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
            _prctl(_PR_CAPBSET_DROP, capability)
            capability += 1


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    _check(_libc().prctl(option, value, 0, 0, 0))


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
