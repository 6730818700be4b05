"""The commands of a capture: here, or at the other end of ssh.

Rules for editors: pure functions that make lists of words.  A filter is one word behind
`--`, whatever it says; at the other end every word is quoted for the shell there.
"""

import shlex
import sys
from typing import Final, NamedTuple

from vsockdump.extcap.errors import ExtcapError
from vsockdump.extcap.options import Request

# -P: Wireshark's working directory is no place to import from.
VSOCKDUMP: Final = (sys.executable, "-P", "-m", "vsockdump")
_SUDO: Final = ("sudo", "-n", "--")
_ANSWER: Final = "vsockdump-extcap:"


class Plan(NamedTuple):
    """Commands of which each writes to the next, the last one to Wireshark; and what to say."""

    commands: list[list[str]]
    remark: str = ""


class Tools(NamedTuple):
    """Paths of programs at the other end, "" for those that are not there."""

    vsockdump: str
    ip: str
    tcpdump: str


def here(wanted: Request) -> Plan:
    """A capture on this machine."""
    return Plan([[*_sudo(wanted), *VSOCKDUMP, *_arguments(wanted)]])


def _sudo(wanted: Request) -> tuple[str, ...]:
    return _SUDO if wanted.sudo else ()


def _arguments(wanted: Request) -> list[str]:
    """The words for a vsockdump that captures."""
    words = ["-w", "-", "--control-stdin"]
    if wanted.device:
        words += ["-i", wanted.device]
    words += ["-s", wanted.snaplen, "-B", wanted.buffer]
    if wanted.annotate:
        words.append("--annotate")
    return words + _filter(wanted)


def _filter(wanted: Request) -> list[str]:
    return ["--", wanted.filter] if wanted.filter.strip() else []


# --- over ssh ----------------------------------------------------------------------------


def ssh(wanted: Request, command: str) -> list[str]:
    """The words that run a shell command at the other end, where nobody can be asked.

    A master connection that is there is used; one made here would outlive the capture.
    """
    words = ["ssh", "-T", "-x"]
    for setting in ("BatchMode=yes", "ConnectTimeout=20", "ControlMaster=no"):
        words += ["-o", setting]
    words += ["-o", "ServerAliveInterval=15"]
    if int(wanted.port):
        words += ["-p", wanted.port]
    if wanted.user:
        words += ["-l", wanted.user]
    return [*words, "--", wanted.host, command]


_LOOK: Final = """PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
for name in "$@"; do printf '%s%s\\n' {answer} "$(command -v "$name")"; done"""


def look(wanted: Request) -> list[str]:
    """The words that ask which programs the other end has."""
    script = _LOOK.format(answer=_ANSWER)
    return ssh(wanted, shlex.join(["sh", "-c", script, "sh", wanted.command, "ip", "tcpdump"]))


def tools(answer: str) -> Tools:
    """What the other end said it has; lines of others, such as a greeting, are skipped."""
    found = [line.removeprefix(_ANSWER) for line in answer.splitlines() if line.startswith(_ANSWER)]
    if len(found) != len(Tools._fields):
        raise ExtcapError("the other end did not say which programs it has; its shell must be"
                          " able to run: sh -c true")  # fmt: skip
    return Tools(*(path if path.startswith("/") else "" for path in found))


def there(wanted: Request, found: Tools) -> Plan:
    """A capture at the other end, by what there is; what tcpdump writes is filtered here."""
    if found.vsockdump:
        words = [*_sudo(wanted), found.vsockdump, *_arguments(wanted)]
        return Plan([ssh(wanted, shlex.join(words))])
    missing = [name for name in ("ip", "tcpdump") if not getattr(found, name)]
    if missing:
        raise ExtcapError(
            f"{wanted.host} has neither {wanted.command} nor {' and '.join(missing)}; install"
            " vsockdump there, or say where it is"
        )
    script = _TCPDUMP.format(ip=shlex.quote(found.ip), tcpdump=shlex.quote(found.tcpdump))
    words = [*_sudo(wanted), "sh", "-c", script, "sh", wanted.snaplen, wanted.buffer]
    commands = [ssh(wanted, shlex.join(words))]
    if wanted.filter.strip():
        commands.append([*VSOCKDUMP, "-r", "-", "-w", "-", *_filter(wanted)])
    return Plan(
        commands,
        f"{wanted.host} has no {wanted.command}: tcpdump captures there"
        + (", without findings as comments" if wanted.annotate else ""),
    )


# For a shell at the other end: a monitor that is up, or one made and removed again; tcpdump,
# which counts at every line of stdin (SIGUSR1) and ends when that ends, as vsockdump does.
_TCPDUMP: Final = """
device=$({ip} -o link show type vsockmon up | sed -n '1s/^[0-9]*: \\([^:@]*\\).*/\\1/p')
made=
if [ -z "$device" ]; then
  number=0
  while {ip} link show "vsockmon$number" >/dev/null 2>&1; do number=$((number + 1)); done
  device=vsockmon$number
  {ip} link add "$device" type vsockmon || exit 1
  made=$device
fi
pid=
end() {{
  [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null
  [ -z "$made" ] || {ip} link del "$made"
}}
trap end EXIT
trap 'exit 1' HUP INT TERM
[ -z "$made" ] || {ip} link set "$made" up || exit 1
{tcpdump} -U -i "$device" -s "$1" -B "$2" -w - &
pid=$!
while read -r line && kill -USR1 "$pid" 2>/dev/null; do :; done
kill -TERM "$pid" 2>/dev/null
wait "$pid"
status=$?
pid=
exit "$status"
"""
