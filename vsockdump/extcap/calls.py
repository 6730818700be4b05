"""What Wireshark asks an extcap, and the answers.

Rules for editors: an answer is a line of Wireshark's grammar, made by `sentence`.  Wireshark
takes an answer only where the exit status is 0, the one that refuses a filter too.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

from vsockdump import __version__
from vsockdump.extcap.control import Field
from vsockdump.extcap.errors import ExtcapError
from vsockdump.extcap.options import BY_SSH, HERE, ON_DEVICE, OPTIONS, Request, options_of, request
from vsockdump.output.escaped import on_line
from vsockdump.wire import LINKTYPE_VSOCK

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]+")  # what the grammar can carry
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one call; the exit status."""
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown and not unknown[0].startswith("--extcap-"):  # those of a Wireshark to come
        parser.error(f"unknown argument: {unknown[0]}")
    try:
        return _answer(parser, arguments)
    except ExtcapError as error:
        return _fail(error)


def _fail(error: ExtcapError) -> int:
    print(f"vsockdump: {error}.", file=sys.stderr)
    return EXIT_FAILED


def _answer(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.extcap_interfaces:
        return _print(interfaces())
    if not arguments.extcap_interface:
        parser.error("give --extcap-interfaces, or --extcap-interface with what is asked of it")
    options_of(arguments.extcap_interface)
    if arguments.extcap_dlts:
        return _print([link_type()])
    if arguments.extcap_config:
        return _print(config(arguments.extcap_interface))
    if arguments.capture:
        return _capture(parser, arguments)
    if arguments.extcap_capture_filter is not None:
        return _print(filter_error(arguments.extcap_capture_filter))
    parser.error("nothing is asked of the interface")


def _print(lines: Sequence[str] | Iterator[str]) -> int:
    for line in lines:
        print(line)
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, which Wireshark shows."""
        self.exit(EXIT_USAGE, f"vsockdump: {message}.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vsockdump-extcap",
        allow_abbrev=False,
        description="Captures vsock for Wireshark, which calls this by itself.",
    )
    add = parser.add_argument
    add("--version", action="version", version=f"vsockdump-extcap {__version__}")
    for name in ("extcap-interfaces", "extcap-dlts", "extcap-config", "capture"):
        add(f"--{name}", action="store_true")
    for name in ("extcap-interface", "extcap-control-in", "extcap-control-out", "fifo"):
        add(f"--{name}", default="")
    add("--extcap-version", nargs="?")
    add("--extcap-capture-filter")
    for option in OPTIONS:
        if option.kind == "boolflag":
            add(option.call, action="store_true")
        else:
            add(option.call, default="")
    return parser


def _capture(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if not arguments.fifo:
        parser.error("--capture needs --fifo")
    from vsockdump.extcap.session import capture, opened

    # Opened before anything can fail, since Wireshark waits for the pipe without end, and
    # open until all is said, since Wireshark listens no longer.
    with opened(arguments.fifo) as sink:
        try:
            wanted = _request(arguments)
            return capture(wanted, sink, arguments.extcap_control_in, arguments.extcap_control_out)
        except ExtcapError as error:
            return _fail(error)


def _request(arguments: argparse.Namespace) -> Request:
    values = {option.name: getattr(arguments, option.name) for option in OPTIONS}
    text = arguments.extcap_capture_filter or ""
    for wrong in filter_error(text):
        raise ExtcapError(f"the capture filter is wrong: {wrong.rstrip('.')}")
    return request(arguments.extcap_interface, values, text)


# --- the answers -------------------------------------------------------------------------


def sentence(word: str, **values: str | int) -> str:
    """A line of Wireshark's grammar."""
    return word + " " + "".join(f"{{{name}={value}}}" for name, value in values.items())


def interfaces() -> Iterator[str]:
    """--extcap-interfaces: what can be captured, and the controls of the toolbar."""
    from vsockdump.capture.link import monitors

    yield sentence("extcap", version=__version__, display="vsockdump")
    yield sentence("interface", value=HERE, display="vsock monitor: this machine")
    for link in monitors():
        if _PLAIN_NAME.fullmatch(link.name):
            shown = f"vsock monitor: {link.name}{'' if link.up else ' (down)'}"
            yield sentence("interface", value=ON_DEVICE + link.name, display=shown)
    yield sentence("interface", value=BY_SSH, display="vsock monitor over SSH")
    for field, display, tooltip in (
        (Field.CAPTURED, "Captured", "packets captured"),
        (Field.DROPPED, "Dropped", "packets that the kernel dropped for want of buffer"),
    ):
        yield sentence("control", number=field, type="string", display=display, tooltip=tooltip)
    yield sentence(
        "control",
        number=Field.LOG,
        type="button",
        role="logger",
        display="Log",
        tooltip="what vsockdump says",
    )


def link_type() -> str:
    """--extcap-dlts: the same for all interfaces."""
    return sentence("dlt", number=LINKTYPE_VSOCK, name="VSOCK", display="Linux vsock")


def config(interface: str) -> Iterator[str]:
    """--extcap-config: the options of an interface."""
    for number, option in enumerate(options_of(interface)):
        values: dict[str, str | int] = {
            "number": number,
            "call": option.call,
            "display": option.display,
            "tooltip": option.tooltip,
            "type": option.kind,
        }
        if option.default:
            values["default"] = option.default
        if option.limits is not None:
            values["range"] = ",".join(map(str, option.limits))
        if option.pattern:
            values["validation"] = f"^({option.pattern})?$"
        if option.required:
            values["required"] = "true"
        yield sentence("arg", **values)


def filter_error(text: str) -> list[str]:
    """--extcap-capture-filter: what is wrong with the filter; nothing where it is good."""
    if not text.strip():
        return []
    from vsockdump.filters.errors import FilterError
    from vsockdump.filters.filter import Filter

    try:
        Filter.of(text)
    except FilterError as error:
        return [on_line(error.sentence)]
    return []
