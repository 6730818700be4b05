"""The command line: arguments become one Config, errors become one sentence.

Rules for editors: tcpdump's letters keep tcpdump's meanings; modes are long options.  Only
what every run needs is imported at the top: `--version` must not load NumPy.
"""

import argparse
import gc
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NoReturn

from vsockdump import __version__

if TYPE_CHECKING:
    from vsockdump.apps.dialogues import DialogueOptions
    from vsockdump.config import Config, LiveOptions, TuiOptions
    from vsockdump.output.extract import ExtractOptions
    from vsockdump.output.follow import FollowOptions
    from vsockdump.output.rotation import RingBuffer, Savefiles

EXIT_INPUT = 1
EXIT_USAGE = 2

_LONGEST = 262144  # bytes of a packet, as in tcpdump
_LARGEST_RING_KIB = (4 << 20) - 1  # places in the ring are 32-bit numbers
_LONGEST_TIMEOUT_MS = 60_000
_PLAIN_WIDTH = 100  # characters of a line where no terminal says how many it has

_COMPILED_MODULES = (
    "capture.scan",
    "track.tracker",
    "track.window",
    "output.rows",
    "output.packet_records",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run vsockdump; returns the exit status.

    0 done, 1 bad input, failed capture or output, 2 wrong usage, 3 found what --fail-on names.
    """
    # Threads of NumPy's linear algebra, which is not used here, cost start-up and memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # There is no garbage in cycles to look for, and looking costs a tenth of the start-up.
    gc.set_threshold(100_000, 50, 50)
    # A reader of our output that goes away ends us silently, as it ends other filters; so
    # does ^C, until there is something to finish (pipeline.Interrupt).
    for number in (signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    _open_standard_streams()
    words = sys.argv[1:] if argv is None else list(argv)
    if _asks_for_manual(words):
        return _manual("".join(words[1:]))
    parser = _parser()
    # A filter is words between, before or behind the options, as for tcpdump.
    arguments = parser.parse_intermixed_args(words)
    if not words:
        arguments.tui = _suits_tui()
    if arguments.version:
        return _say([version()])
    if arguments.list_fields:
        return _list_fields()
    if arguments.lua:
        return _lua_script()
    if arguments.filter_help:
        return _filter_help()
    if arguments.print_program:
        return _print_program(parser, arguments)
    if any(text.partition(",")[2].startswith("explain") for text in arguments.statistics or ()):
        return _explain_findings(parser, arguments)
    if arguments.list_interfaces or arguments.doctor:
        return _look_at_machine(arguments.doctor)
    if arguments.verify:
        return _verify(parser, arguments)
    if arguments.install_wireshark or arguments.uninstall_wireshark:
        return _wireshark(arguments.install_wireshark, arguments.user)
    return _run(parser, arguments)


def _asks_for_manual(words: Sequence[str]) -> bool:
    """`help` and at most a subject: with options beside it, it would be a filter."""
    return words[:1] == ["help"] and len(words) < 3 and not any(map(_is_option, words))


def _is_option(word: str) -> bool:
    return word.startswith("-")


def _manual(subject: str) -> int:
    """`help [SUBJECT]`: on a terminal drawn, in a pipe as it was written."""
    from vsockdump import manual

    try:
        text = manual.page(subject)
    except manual.SubjectError as error:
        print(f"vsockdump: {error}", file=sys.stderr)
        return EXIT_USAGE
    if not sys.stdout.isatty():
        return _say(text.splitlines())
    os.environ.setdefault("LESS", "-FRX")  # colours, and nothing to leave where all is seen
    manual.show(text, _colour("auto"))
    return 0


def _suits_tui() -> bool:
    """Whether who gives no option is at a terminal, and there is a monitor device to look at."""
    terminal = all(map(os.isatty, range(3))) and os.environ.get("TERM", "dumb") != "dumb"
    if not terminal:
        return False
    from vsockdump.capture.vsockmon import existing

    return existing() is not None


def _open_standard_streams() -> None:
    """Give those of stdin, stdout and stderr that were closed to us /dev/null.

    Without it the next file that is opened, such as the capture, would take their place.
    """
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free number: `fd`
            setattr(sys, name, open(null, mode))  # noqa: SIM115 - stays open
            assert fd == null


def _say(lines: Iterable[str]) -> int:
    """Print lines; the exit status."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        print(f"vsockdump: Cannot write to stdout: {reason}.", file=sys.stderr)
        _discard_output()
        return EXIT_INPUT
    return 0


def _discard_output() -> None:
    """Let Python's last flush succeed, where stdout could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from vsockdump.capture.errors import CaptureError
    from vsockdump.errors import UsageError
    from vsockdump.output.errors import OutputError
    from vsockdump.pipeline import complain, run
    from vsockdump.tui.errors import ScreenError

    try:
        return run(_config(parser, arguments))
    except (CaptureError, ScreenError) as error:
        complain(str(error))
        return EXIT_INPUT
    except OutputError as error:
        complain(str(error))
        _discard_output()
        return EXIT_INPUT
    except UsageError as error:
        complain(str(error))
        return EXIT_USAGE


def version() -> str:
    """Version, and whether the hot loops are compiled; loads none of them."""
    from importlib.util import find_spec

    specs = [find_spec(f"vsockdump.{name}") for name in _COMPILED_MODULES]
    origins = [spec.origin or "" for spec in specs if spec]
    compiled = [not origin.endswith(".py") for origin in origins]
    if all(compiled):
        how = "compiled"
    elif any(compiled):
        how = "partly compiled"
    else:
        how = "pure Python, slower: no C compiler was found when it was installed"
    python = ".".join(map(str, sys.version_info[:3]))
    return f"vsockdump {__version__} ({how}; Python {python})"


def _explain_findings(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """-z findings,explain and -z findings,explain NAME: no packets are looked at."""
    from vsockdump.findings.registry import FindingError, explain

    if len(arguments.statistics) > 1 or arguments.read or arguments.interface or arguments.write:
        parser.error("-z findings,explain looks at no packets and takes no other options")
    name, _, rest = arguments.statistics[0].partition(",")
    asked = [rest.removeprefix("explain").strip(" ,"), *arguments.filter]
    if name != "findings" or len(list(filter(None, asked))) > 1:
        parser.error("what explains one finding is -z findings,explain NAME")
    try:
        return _say(explain("".join(asked)))
    except FindingError as error:
        print(f"vsockdump: {error}", file=sys.stderr)
        return EXIT_USAGE


def _list_fields() -> int:
    from vsockdump.fields import list_fields

    return _say(list_fields())


def _lua_script() -> int:
    from vsockdump.output.lua import script

    return _say(script().splitlines())


def _look_at_machine(doctor: bool) -> int:
    from vsockdump.capture import machine

    facts = machine.gather()
    return _say(machine.doctor(facts) if doctor else machine.report(facts))


def _verify(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """--verify: Wireshark's engine beside ours; nothing else is done with the file."""
    from vsockdump.capture.errors import CaptureError
    from vsockdump.verify.engine import EngineError
    from vsockdump.verify.report import Verification

    others = ("filter", "filter_file", "write", "interface", "statistics", "explain", "follow")
    given = any(getattr(arguments, name) for name in (*others, "extract"))
    if arguments.read in (None, "-") or given:
        parser.error("--verify compares the packets of -r FILE, all or -c N, and does nothing else")
    verification = Verification(arguments.read, arguments.limit)
    try:
        status = _say(verification.lines())
    except (CaptureError, EngineError) as error:
        sys.stdout.flush()
        print(f"vsockdump: {error}", file=sys.stderr)
        return EXIT_INPUT
    return status or (0 if verification.agrees else EXIT_INPUT)


def _wireshark(install: bool, user: str | None) -> int:
    from vsockdump import wireshark
    from vsockdump.capture.errors import CaptureError

    try:
        return _say(wireshark.install(user) if install else wireshark.uninstall(user))
    except (CaptureError, wireshark.WiresharkError) as error:
        print(f"vsockdump: {error}", file=sys.stderr)
        return EXIT_INPUT


def _filter_help() -> int:
    from vsockdump.filters.words import help_lines

    return _say(help_lines())


def _print_program(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """-d: what of the filter the kernel would decide in this run, and by which program."""
    from vsockdump.filters.errors import FilterError
    from vsockdump.filters.explain import explanation, remarks

    try:
        text = _filter_text(parser, arguments)
        # Packets that are only written need not be tracked; see pipeline.
        tracked = arguments.statistics or arguments.print_packets or arguments.explain
        tracked = tracked or arguments.follow or arguments.extract
        tracked = tracked or arguments.annotate or arguments.export
        only_written = arguments.write and not tracked
        keep_state = None if only_written else True
        lines = explanation(text, arguments.print_program, keep_state)
        for remark in remarks(text, keep_state) if arguments.print_program > 1 else ():
            print(f"vsockdump: {remark}", file=sys.stderr)
    except FilterError as error:
        print(f"vsockdump: {error}", file=sys.stderr)
        return EXIT_USAGE
    return _say(lines)


def _filter_text(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """The filter from the command line or from -F's file, "" if there is none."""
    if arguments.filter_file is None:
        return _joined(arguments.filter)
    if arguments.filter:
        parser.error("give a filter on the command line or with -F FILE, not both")
    try:
        with open(arguments.filter_file, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        parser.error(f"the filter {arguments.filter_file} cannot be read: {reason}")


def _joined(words: Sequence[str]) -> str:
    """The words of the command line as one filter.

    The shell takes quotes away; the words that need them, the text after `contains` or
    `matches`, get them back.
    """
    parts: list[str] = []
    for word in words:
        if parts and parts[-1] in ("contains", "matches") and word[:1] not in ('"', "/"):
            word = '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
        parts.append(word)
    return " ".join(parts)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, as for every other error."""
        self.exit(EXIT_USAGE, f"vsockdump: {message}; vsockdump --help lists all options.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vsockdump",
        allow_abbrev=False,
        description="Packet analyzer for AF_VSOCK.",
        epilog="vsockdump help [SUBJECT] shows the manual.  Without -r a vsock monitor is"
        " captured live.  Exit status: 0 done, 1 bad input, failed capture or output, 2 wrong"
        " usage, 3 found what --fail-on names.",
    )
    add = parser.add_argument
    add("--version", action="store_true", help="print the version and how it was built")
    source = parser.add_argument_group("source and destination")
    add = source.add_argument
    add("-r", dest="read", metavar="FILE", help="read this pcap or pcapng capture; - is stdin")
    add("-i", dest="interface", metavar="IFACE", help="capture on this vsock monitor")
    add("-w", dest="write", metavar="FILE", help="write the packets to this capture; - is stdout")
    add("-c", dest="limit", metavar="N", type=_positive, default=0, help="stop after N packets")
    add(
        "--reorder",
        action="store_true",
        help="with -r: put the packets in order of time, among 1024 and more; they keep their"
        " numbers",
    )
    add(
        "--annotate",
        action="store_true",
        help="with -w: write findings and the names of connections into the pcapng file, as"
        " comments of packets",
    )
    add(
        "--keylog",
        dest="key_log",
        metavar="FILE",
        help="with -w: write the TLS secrets of this key log into the pcapng file, for Wireshark",
    )
    add(
        "--export",
        choices=("tcp", "mixed", "ethernet"),
        help="with -w: write what programs without a plugin understand: connections as TCP over"
        " IPv6, or the packets with application messages or tunnelled Ethernet frames behind them",
    )
    add("-U", action="store_true", help="as in tcpdump; here -w never keeps packets back")
    files = parser.add_argument_group("several files (with -w)")
    add = files.add_argument
    add(
        "-C",
        dest="megabytes",
        metavar="MB",
        type=_positive,
        help="a new file every MB million bytes",
    )
    add(
        "-G",
        dest="rotate_s",
        metavar="SECONDS",
        type=_positive,
        help="a new file every SECONDS; the name may hold strftime's %% formats",
    )
    add(
        "-W",
        dest="files",
        metavar="N",
        type=_positive,
        help="with -C: overwrite the first after N files; with -G: stop after N",
    )
    add(
        "-b",
        dest="ring_buffer",
        metavar="KEY:VALUE",
        action="append",
        help="as in dumpcap: a new file after filesize:KB, duration:SECONDS, packets:N, or at"
        " multiples of interval:SECONDS; files:N keeps the last N",
    )
    add(
        "--postrotate-command",
        dest="postrotate",
        metavar="COMMAND",
        help="run COMMAND FILE, without a shell, for every finished file; so does -z COMMAND",
    )
    live = parser.add_argument_group("live capture")
    add = live.add_argument
    add("-s", dest="snaplen", metavar="N", type=_snaplen, help="bytes kept of a packet; 0 all")
    add("-B", dest="ring", metavar="KIB", type=_ring, help="ring in KiB (default 32768)")
    add(
        "--block-timeout",
        metavar="MS",
        type=_timeout,
        help="hand over packets after so many milliseconds (default 100)",
    )
    add(
        "-D",
        "--list-interfaces",
        action="store_true",
        help="list vsock monitors, and what this machine can capture",
    )
    add("--doctor", action="store_true", help="say what is in the way of a capture, and what helps")
    add(
        "-Z",
        dest="user",
        metavar="USER",
        help="become USER when all is open (default under sudo: who ran it)",
    )
    add("--duration", metavar="SECONDS", type=_seconds, default=0, help="stop after this time")
    add(
        "--control-stdin",
        action="store_true",
        help="for programs: print the counts at each line of stdin, stop at its end",
    )
    chosen = parser.add_argument_group("filter")
    add = chosen.add_argument
    add("filter", nargs="*", metavar="FILTER", help="only the packets that match")
    add("-F", dest="filter_file", metavar="FILE", help="take the filter from this file")
    add("--filter-help", action="store_true", help="explain the words of filters")
    add(
        "-d",
        dest="print_program",
        action="count",
        default=0,
        help="print how the kernel decides the filter, and stop; -dd in C, -ddd in decimal",
    )
    lines = parser.add_argument_group("packet lines")
    add = lines.add_argument
    add("-n", dest="numeric", action="store_true", help="context ids as numbers, not names")
    add("-q", dest="quiet", action="store_true", help="shorter lines")
    add("-v", dest="verbose", action="count", default=0, help="more; -vv and -vvv more still")
    add(
        "-t",
        dest="times",
        action="count",
        default=0,
        help="no time; -tt seconds since 1970, -ttt since the packet before,"
        " -tttt with the date, -ttttt since the first packet",
    )
    add("--nano", action="store_true", help="nine decimals of a second, not six")
    add("-#", "--number", dest="number", action="store_true", help="packet numbers")
    add("-x", dest="hex", action="count", default=0, help="the packet in hex; -xx whole frames")
    add("-X", dest="both", action="count", default=0, help="in hex and ASCII; -XX whole frames")
    add("-A", dest="ascii", action="store_true", help="in ASCII")
    add("-l", dest="line_buffered", action="store_true", help="flush the output after every batch")
    add(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colours: on a terminal unless NO_COLOR is set (auto)",
    )
    other = parser.add_argument_group("other output")
    add = other.add_argument
    add("--json", action="store_true", help="one JSON object a packet; with -x its data too")
    add("-T", dest="output", choices=("text", "json", "fields"), help="kind of output")
    add("-e", dest="fields", metavar="FIELD", action="append", help="a field of -T fields")
    add("-E", dest="settings", metavar="header=y|n", action="append", help="field names on top")
    add("--list-fields", action="store_true", help="list all fields and what they mean")
    add("--lua", action="store_true", help="print the script that shows all this in Wireshark")
    add(
        "-z",
        dest="statistics",
        metavar="NAME",
        action="append",
        help="a statistic instead of packets: conv, endpoints, credit[,CONNECTION], io,SECONDS,"
        " findings, findings,explain [NAME], connects, stalls, apps, rpc[,slowest],"
        " story,CONNECTION; with another ,SECONDS it is shown again so often while a capture runs",
    )
    add(
        "--explain",
        metavar="N",
        help="the story of connection N instead of packets: who asked whom, what was said, who"
        " waited for whom, how it ended, what is suspicious, and a chart of the packets that"
        " decide it; `wrong` for the connections with the worst findings",
    )
    add(
        "--fail-on",
        choices=("warn", "error"),
        help="exit with status 3 if anything that severe, or more so, is found",
    )
    add(
        "--follow",
        metavar="N[,FORM][,SIDE]",
        help="what connection N said instead of packets, as text, hex, raw or json; of both"
        " sides, or of the initiator or acceptor",
    )
    add(
        "--extract",
        metavar="DIR",
        help="write what each side of each connection sent to a file of DIR, with an index",
    )
    add(
        "--max-segments",
        metavar="N",
        type=_positive,
        help="with --extract: let so many pieces of data wait for the filter, and list so many"
        " gaps and messages (default 1000000)",
    )
    add(
        "--max-held",
        metavar="MIB",
        type=_positive,
        help="with --extract, a filter, and no plain file to read again: hold so many MiB of"
        " data for it (default 256)",
    )
    add("--tui", action="store_true", help="look at the packets in the terminal, live or of -r")
    add("--demo", action="store_true", help="--tui with real packets played as if they came now")
    add(
        "--max-copy",
        metavar="MIB",
        type=_positive,
        help="with --tui and no plain file to read again: list packets until their copy in a"
        " temporary file has so many MiB (default 4096)",
    )
    add(
        "--decode",
        metavar="PORT=PROTOCOL",
        action="append",
        help="what is spoken on a port, or raw; --decode none decodes no application protocols",
    )
    add(
        "--proto",
        metavar="FILE",
        action="append",
        help="a descriptor set of protobuf (protoc --descriptor_set_out), for names of fields",
    )
    add(
        "-P",
        "--print",
        dest="print_packets",
        action="store_true",
        help="print packets with -z or -w too",
    )
    add(
        "--verify",
        action="store_true",
        help="compare header fields and messages of -r FILE with what Wireshark's engine says",
    )
    add(
        "--install-wireshark",
        action="store_true",
        help="let Wireshark capture vsock: put vsockdump-extcap into your folder of Wireshark",
    )
    add("--uninstall-wireshark", action="store_true", help="remove it again")
    add(
        "--max-connections",
        metavar="N",
        type=_positive,
        default=1_000_000,
        help="keep so many connections, forgetting the oldest beyond (default 1000000)",
    )
    return parser


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _up_to(most: int, text: str) -> int:
    number = _positive(text)
    if number > most:
        raise argparse.ArgumentTypeError(f"{text} is more than {most}")
    return number


def _snaplen(text: str) -> int:
    return _LONGEST if text == "0" else _up_to(_LONGEST, text)


def _ring(text: str) -> int:
    return _up_to(_LARGEST_RING_KIB, text)


def _timeout(text: str) -> int:
    return _up_to(_LONGEST_TIMEOUT_MS, text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _live(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> "LiveOptions":
    from vsockdump.config import LiveOptions

    options = LiveOptions(
        arguments.interface,
        arguments.snaplen,
        arguments.ring,
        arguments.block_timeout,
        arguments.duration,
        arguments.control_stdin,
    )
    if arguments.reorder and arguments.read is None:
        parser.error("--reorder goes with -r FILE: packets that come now are not held back")
    if arguments.read is not None and options != LiveOptions():
        parser.error(
            "-r reads a file; -i, -s, -B, --block-timeout, --duration and --control-stdin are"
            " for live"
        )
    return options


def _rotation(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> "Savefiles | RingBuffer | None":
    savefiles = arguments.megabytes or arguments.rotate_s
    if arguments.files and not savefiles:
        parser.error("-W goes with -C or -G")
    if not (savefiles or arguments.ring_buffer):
        return None
    if savefiles and arguments.ring_buffer:
        parser.error("-b is dumpcap's way and -C, -G and -W are tcpdump's; use one of them")
    if arguments.write in (None, "-"):
        parser.error("-C, -G and -b need -w FILE to name the files after")
    from vsockdump.output.rotation import Savefiles, ring_buffer

    if arguments.ring_buffer:
        return ring_buffer(arguments.ring_buffer)
    return Savefiles(arguments.megabytes or 0, arguments.rotate_s or 0, arguments.files or 0)


def _statistics(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, rotates: bool
) -> tuple[tuple[str, ...], str | None]:
    """What -z asks for: statistics and, as in tcpdump, a command for finished files.

    Where there are several files, a -z that names no statistic is a command.
    """
    wishes, commands = arguments.statistics or (), []
    if wishes and rotates:
        from vsockdump.output.statistics import STATISTICS

        commands = [wish for wish in wishes if wish.partition(",")[0] not in STATISTICS]
    statistics = tuple(wish for wish in wishes if wish not in commands)
    if arguments.explain is not None:
        statistics += (f"story,{arguments.explain}",)
    if arguments.postrotate:
        commands.append(arguments.postrotate)
    if commands and not rotates:
        parser.error("--postrotate-command goes with -C, -G or -b")
    if len(commands) > 1:
        parser.error(f"finished files can go to one command only, not to {' and '.join(commands)}")
    return statistics, commands[0] if commands else None


def _follow(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> "FollowOptions | None":
    """What --follow asks for; it has stdout for itself where it has to."""
    if arguments.follow is None:
        return None
    from vsockdump.output.follow import follow_options

    options = follow_options(arguments.follow)
    if not options.form:
        options = options._replace(form="json" if arguments.json else "text")
    if arguments.print_packets:
        parser.error("--follow and --print cannot both go to stdout")
    if options.form == "raw" and arguments.statistics:
        parser.error("--follow N,raw and -z cannot both go to stdout")
    if options.form == "raw" and sys.stdout.isatty():
        parser.error("--follow N,raw would steer the terminal: send it to a file or a pipe")
    return options


def _extract(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> "ExtractOptions | None":
    """What --extract asks for, with its limits."""
    if arguments.extract is None:
        if arguments.max_segments or arguments.max_held:
            parser.error("--max-segments and --max-held go with --extract")
        return None
    from vsockdump.output.extract import ExtractOptions

    options = ExtractOptions(arguments.extract)
    return options._replace(
        segments=arguments.max_segments or options.segments,
        held=(arguments.max_held or 0) << 20 or options.held,
    )


def _tui(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> "TuiOptions | None":
    """What --tui asks for; it shows everything on the screen and writes nothing."""
    from vsockdump.config import TuiOptions

    if arguments.demo and (arguments.read or arguments.interface):
        parser.error("--demo plays a capture of its own; leave -r and -i out")
    if not (arguments.tui or arguments.demo):
        if arguments.max_copy:
            parser.error("--max-copy goes with --tui")
        return None
    others = {
        "-w": arguments.write,
        "-c": arguments.limit,
        "--reorder": arguments.reorder,
        "-z": arguments.statistics,
        "--explain": arguments.explain,
        "-T": arguments.output,
        "--json": arguments.json,
        "--follow": arguments.follow,
        "--extract": arguments.extract,
        "--print": arguments.print_packets,
        "--fail-on": arguments.fail_on,
        "--duration": arguments.duration,
    }
    for option, given in others.items():
        if given:
            parser.error(f"--tui and {option} do not go together")
    options = TuiOptions()
    most = (arguments.max_copy or 0) << 20 or options.max_copy
    return options._replace(max_copy=most, demo=arguments.demo)


def _apps(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> "DialogueOptions | None":
    """How application protocols are decoded; None with --decode none."""
    from vsockdump.apps.dialogues import DialogueOptions
    from vsockdump.apps.protocol import Setting
    from vsockdump.apps.registry import decode_map

    wishes = tuple(arguments.decode or ())
    if "none" in wishes:
        if len(wishes) > 1 or arguments.proto:
            parser.error("--decode none decodes nothing and cannot be with --decode or --proto")
        return None
    ports = decode_map(wishes)
    descriptors = tuple(arguments.proto or ())
    if descriptors:
        from vsockdump.apps.protobuf import schema

        schema(descriptors)  # complains of a file that cannot be used, before anything is read
    return DialogueOptions(ports, Setting(descriptors))


def _config(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> "Config":
    from vsockdump.config import Config
    from vsockdump.output.rows import Kind
    from vsockdump.output.text import TextOptions

    output = arguments.output or ("json" if arguments.json else "text")
    if arguments.json and output != "json":
        parser.error(f"--json and -T {output} contradict each other")
    if output == "fields" and not arguments.fields:
        parser.error("-T fields needs at least one -e FIELD; --list-fields lists them")
    if arguments.fields and output != "fields":
        parser.error("-e goes with -T fields")
    for setting in arguments.settings or []:
        if setting not in ("header=y", "header=n"):
            parser.error(f"-E takes header=y or header=n, not {setting}")
    rotation = _rotation(parser, arguments)
    statistics, postrotate = _statistics(parser, arguments, rotation is not None)
    if (arguments.annotate or arguments.key_log or arguments.export) and not arguments.write:
        parser.error("--annotate, --keylog and --export need the pcapng file of -w FILE")
    follow = _follow(parser, arguments)
    extract = _extract(parser, arguments)
    prints = arguments.print_packets or not (statistics or arguments.write or follow or extract)
    if arguments.write == "-" and (prints or statistics or follow):
        parser.error("-w - and other output cannot both go to stdout")
    dump = None
    if arguments.both:
        dump = Kind.FULL_DUMP
    elif arguments.hex:
        dump = Kind.HEX_DUMP
    elif arguments.ascii:
        dump = Kind.ASCII_DUMP
    colour = _colour(arguments.color)
    apps = _apps(parser, arguments)
    if arguments.export in ("mixed", "ethernet") and apps is None:
        parser.error(f"--export {arguments.export} needs what --decode none leaves out")
    return Config(
        read=arguments.read,
        reorder=arguments.reorder,
        write=arguments.write,
        output=output,
        fields=tuple(arguments.fields or ()),
        header="header=y" in (arguments.settings or ()),
        statistics=statistics,
        print_packets=prints,
        limit=arguments.limit,
        filter=_filter_text(parser, arguments),
        text=TextOptions(
            times=min(arguments.times, 5),
            quiet=arguments.quiet,
            verbose=arguments.verbose,
            numeric=arguments.numeric,
            number=arguments.number,
            dump=dump,
            dump_link=max(arguments.hex, arguments.both) > 1,
            nano=arguments.nano,
            colour=colour,
            apps=apps is not None and not arguments.quiet,
        ),
        data=bool(arguments.hex),
        line_buffered=arguments.line_buffered,
        rotation=rotation,
        postrotate=postrotate,
        annotate=arguments.annotate,
        key_log=arguments.key_log,
        fail_on=arguments.fail_on,
        follow=follow,
        extract=extract,
        export=arguments.export or "",
        apps=apps,
        max_connections=arguments.max_connections,
        colour=colour,
        width=_width(),
        live=_live(parser, arguments),
        user=arguments.user,
        tui=_tui(parser, arguments),
    )


def _colour(choice: str) -> bool:
    if choice == "auto":
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return sys.stdout.isatty() and not plain
    return choice == "always"


def _width() -> int:
    """Of the lines that are wrapped: COLUMNS, the terminal's, or a plain width."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or _PLAIN_WIDTH
    except OSError:
        return _PLAIN_WIDTH
