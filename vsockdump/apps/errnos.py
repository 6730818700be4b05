"""Names of Linux' error numbers, as protocols send them; not this machine's (`errno`), which
may be another system.

Rules for editors: numbers and names of include/uapi/asm-generic/errno*.h of Linux.
"""

from typing import Final

_NAMES: Final = (
    "EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT "
    "ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG "
    "ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY "
    "ELOOP"
)
_ERRNOS: Final = {
    **dict(enumerate(_NAMES.split(), 1)),
    61: "ENODATA", 71: "EPROTO", 75: "EOVERFLOW", 88: "ENOTSOCK", 90: "EMSGSIZE",
    93: "EPROTONOSUPPORT", 94: "ESOCKTNOSUPPORT", 95: "EOPNOTSUPP", 97: "EAFNOSUPPORT",
    98: "EADDRINUSE", 99: "EADDRNOTAVAIL", 100: "ENETDOWN", 101: "ENETUNREACH", 104: "ECONNRESET",
    105: "ENOBUFS", 106: "EISCONN", 107: "ENOTCONN", 108: "ESHUTDOWN", 110: "ETIMEDOUT",
    111: "ECONNREFUSED", 112: "EHOSTDOWN", 113: "EHOSTUNREACH", 114: "EALREADY",
    115: "EINPROGRESS", 116: "ESTALE", 122: "EDQUOT", 524: "ENOTSUPP",
}  # fmt: skip


def errno_name(number: int) -> str:
    """`ENOENT`; the number, where it has no name here."""
    return _ERRNOS.get(number, f"errno {number}")
