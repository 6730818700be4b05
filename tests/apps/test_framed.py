"""The table of framed protocols: QEMU's guest agent, varlink, sd_notify, logs, and the rest."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, losses, mutated, recorded
from samples import SAMPLES
from talking import END, Turn, heard

from vsockdump.apps import framed, texts
from vsockdump.apps.message import Kind
from vsockdump.wire import SocketType

# --- talks -------------------------------------------------------------------------------------


def lines(*values: Any, mark: bytes = b"\n") -> bytes:
    return b"".join(json.dumps(value).encode() + mark for value in values)


def headed(form: str, body: bytes, *numbers: int) -> bytes:
    return struct.pack(form, *numbers) + body


def behind(form: str, *bodies: bytes) -> bytes:
    return b"".join(struct.pack(form, len(body)) + body for body in bodies)


VARLINK: list[Turn] = [
    (0, lines({"method": "org.example.Get", "parameters": {"name": "x"}}, mark=b"\0")),
    (1, lines({"parameters": {"value": 1}}, mark=b"\0")),
    (0, lines({"method": "org.example.Watch", "more": True}, mark=b"\0")),
    (1, lines({"parameters": {"n": 1}, "continues": True}, mark=b"\0")),
    (1, lines({"parameters": {"n": 2}}, mark=b"\0")),
    (0, lines({"method": "org.example.Log", "oneway": True}, mark=b"\0")),
    (0, lines({"method": "org.example.Nope"}, mark=b"\0")),
    (1, lines({"error": "org.varlink.service.MethodNotFound"}, mark=b"\0")),
]
QMP: list[Turn] = [
    (1, lines({"QMP": {"version": {}, "capabilities": ["oob"]}})),
    (0, lines({"execute": "qmp_capabilities", "id": 1}, {"exec-oob": "yank", "id": "a"})),
    (1, lines({"return": {}, "id": "a"})),
    (1, lines({"event": "RESUME", "data": {}}, {"return": {}, "id": 1})),
]
KATA: list[Turn] = [
    (1, lines({"msg": "announce", "level": "INFO", "subsystem": "root", "ts": "2026-01-01"})),
    (1, lines({"msg": "ttrpc server started", "level": "info", "source": "agent"})),
]
SPAN = {"span_context": {"trace_id": "1"}, "name": "rpc_call", "span_kind": "Internal"}
SPANS: list[Turn] = [(0, behind(">Q", json.dumps(SPAN).encode(), b"\x01\x02\x03" * 9))]
JSON_RPC: list[Turn] = [
    (0, lines({"jsonrpc": "2.0", "id": 1, "method": "add", "params": [1, 2]})),
    (1, lines({"jsonrpc": "2.0", "id": 1, "result": 3})),
    (0, lines({"jsonrpc": "2.0", "method": "notify"})),
    (0, lines({"jsonrpc": "2.0", "id": "1", "method": "sub"})),
    (1, lines({"jsonrpc": "2.0", "id": "1", "error": {"code": -32601}})),
]
GCS: list[Turn] = [
    (0, headed("<IIQ", b'{"ContainerId":"c1"}', 0x10100101, 36, 5)),
    (1, headed("<IIQ", b'{"Result":-2147024809,"ErrorMessage":"bad"}', 0x20100101, 59, 5)),
    (1, headed("<IIQ", b'{"ContainerId":"c1","Type":"GracefulExit"}', 0x30100101, 58, 0)),
]
QGS: list[Turn] = [
    (0, behind(">I", headed("<HHIII", b"\0" * 8, 1, 0, 0, 24, 0))),
    (1, behind(">I", headed("<HHIII", b"\0" * 8, 1, 0, 1, 24, 0x12001))),
]
WSL: list[Turn] = [(0, headed("<IIII", b"ab", 5, 18, 7, 1)), (1, headed("<IIII", b"", 6, 16, 7, 2))]
TRACE: list[Turn] = [
    (0, headed(">III", struct.pack(">IIQ", 0, 1, 9) + b"-e\0", 31, 6, 16)),
    (1, headed(">III", b"\0" * 48, 60, 7, 48)),
    (0, headed(">III", b"", 12, 0, 0)),
    (1, headed(">III", b"", 12, 5, 0)),
]
BINARY: list[Turn] = [
    (0, behind("<Q", b"\x01\x02" * 30, b"\xff" * 9)),
    (1, behind("<Q", b"\x00" * 90)),
]
CONSOLE: list[Turn] = [
    (1, b"\x1b[1mlogin:\x1b[0m \r\n"),
    (0, b"root\r\nls \xc3\xbc\r\n"),
    (0, b"no newline"),
    (0, END),
]
NOTIFY: list[Turn] = [(0, b"X_SYSTEMD_UNIT_ACTIVE=basic.target\nSTATUS=a=b\n"), (0, END)]
BEAT: list[Turn] = [(0, b"\xb7"), (1, b"\xb7")]

TALKS: dict[str, tuple[str, list[Turn]]] = {
    "qga": ("qga", recorded("qga")),
    "qmp": ("qga", QMP),
    "varlink": ("varlink", VARLINK),
    "kata": ("json", KATA),
    "json-rpc": ("json", JSON_RPC),
    "spans": ("kata-span", SPANS),
    "gcs": ("gcs", GCS),
    "qgs": ("qgs", QGS),
    "wsl": ("wsl", WSL),
    "trace": ("trace-cmd", TRACE),
    "binary": ("framed", BINARY),
    "console": ("text", CONSOLE),
    "notify": ("sd-notify", NOTIFY),
    "beat": ("heartbeat", BEAT),
    "stackrox": ("stackrox", [(0, b"\x0a\x03abc" * 40), (0, END)]),
}
EACH = pytest.mark.parametrize(("protocol", "talk"), TALKS.values(), ids=TALKS)


@EACH
def test_segments_make_no_difference(protocol: str, talk: list[Turn]) -> None:
    any_segments(talk, protocol)


# Text has no structure by which a line that lost its begin could be told.
@pytest.mark.parametrize(
    ("protocol", "talk"),
    [one for one in TALKS.values() if one[0] not in ("text", "stackrox", "sd-notify")],
)
def test_losses_never_make_wrong_messages(protocol: str, talk: list[Turn]) -> None:
    losses(talk, protocol)


NAMES = st.sampled_from(sorted({row.name for row in framed.ROWS}))


@settings(max_examples=150, deadline=None)
@given(protocol=NAMES, data=st.binary(min_size=1, max_size=80))
def test_any_bytes(protocol: str, data: bytes) -> None:
    hostile(data, protocol)


@settings(max_examples=150, deadline=None)
@given(which=st.sampled_from(sorted(TALKS)), at=st.integers(0, 1 << 16), value=st.integers(0, 255))
def test_talks_with_a_wrong_byte(which: str, at: int, value: int) -> None:
    protocol, talk = TALKS[which]
    mutated(talk, at, value, protocol)


# --- what is said ------------------------------------------------------------------------------


def told(talk: list[Turn], protocol: str, **options: Any) -> list[str]:
    result = heard(talk, **options)
    assert result.protocol == protocol
    return result.summaries


def calls(talk: list[Turn], **options: Any) -> list[tuple[str, str | None]]:
    """Method and error of each response that was paired."""
    return [
        (one.message.call.method, one.message.call.error)
        for one in heard(talk, **options).said
        if one.message.kind == Kind.RESPONSE and one.message.call and one.latency_ns is not None
    ]


def test_the_guest_agent_as_it_really_talks() -> None:
    talk = recorded("qga")
    assert told(talk, "qga")[0] == '> guest-sync-delimited {"id":4711}'
    assert "JSON parse error" in told(talk, "qga")[1]
    found = calls(talk)
    assert [method for method, error in found if error is None] == [
        "guest-sync-delimited",
        "guest-ping",
        "guest-get-time",
    ]
    assert [method for method, error in found if error] == ["guest-file-open", "guest-nonsense"]
    assert dict(found)["guest-nonsense"] == (
        "CommandNotFound: The command guest-nonsense has not been found"
    )


def test_qmp_pairs_by_id_where_there_is_one() -> None:
    assert told(QMP, "qga")[0] == "< greeting"
    assert calls(QMP) == [("yank", None), ("qmp_capabilities", None)]
    assert "< RESUME" in told(QMP, "qga")


def test_varlink() -> None:
    assert told(VARLINK, "varlink") == [
        '> org.example.Get {"name":"x"}',
        '< org.example.Get: reply {"value":1}',
        "> org.example.Watch more",
        '< org.example.Watch: reply continues {"n":1}',
        '< org.example.Watch: reply {"n":2}',
        "> org.example.Log oneway",
        "> org.example.Nope",
        "< org.example.Nope: error",
    ]
    assert [error for _method, error in calls(VARLINK)] == [
        *(None,) * 3,
        "org.varlink.service.MethodNotFound",
    ]
    assert heard(VARLINK).unanswered == []


def test_logs_spans_and_json_rpc() -> None:
    assert told(KATA, "json") == ["< INFO root: announce", "< INFO agent: ttrpc server started"]
    assert told(SPANS, "kata-span", port=10240, cid=2)[0] == "> span rpc_call"
    assert told(SPANS, "kata-span", port=10240, cid=2)[1] == "> 27 bytes of bincode"
    assert calls(JSON_RPC) == [("add", None), ("sub", '{"code":-32601}')]


@pytest.mark.parametrize("form", [">Q", "<Q", ">I", "<I", ">H", "<H"])
def test_json_behind_any_length(form: str) -> None:
    talk: list[Turn] = [(0, behind(form, b'{"a":1}', b'["b"]'))]
    assert told(talk, "json") == ['> {"a":1}', '> ["b"]']
    any_segments(talk, "json")


def test_json_without_a_mark_is_told_when_the_side_ends() -> None:
    assert told([(0, b'{"a":1}'), (0, END)], "json") == ['> {"a":1}']


def test_hcsshim() -> None:
    assert told(GCS, "gcs") == [
        "> Create c1 #5",
        "< Create #5: error",
        "< Notification c1 GracefulExit",
    ]
    assert calls(GCS) == [("Create", "0x80070057 bad")]


def test_qgs_wsl_and_trace_cmd() -> None:
    assert told(QGS, "qgs") == ["> GET_QUOTE", "< GET_QUOTE: error"]
    assert told(WSL, "wsl", port=50_000) == ["> type 5 #7 step 1", "< type 6 #7 step 2"]
    assert told(TRACE, "trace-cmd") == ["> TRACE_REQ", "< TRACE_RESP", "> CLOSE", "< NOT_SUPP"]
    assert calls(TRACE) == [("TRACE_REQ", None), ("CLOSE", "not supported")]


@pytest.mark.parametrize("kind", [SocketType.DGRAM, SocketType.SEQPACKET])
def test_sd_notify_a_message_each(kind: SocketType) -> None:
    assert told(recorded("notify"), "sd-notify", kind=kind) == [
        "> READY=1 STATUS=up and running",
        "> WATCHDOG=1",
        "> STOPPING=1",
    ]


def test_sd_notify_a_connection_each() -> None:
    assert told(NOTIFY, "sd-notify") == ["> X_SYSTEMD_UNIT_ACTIVE=basic.target STATUS=a=b"]
    assert heard(NOTIFY).messages[0].fields["STATUS"] == "a=b"


def test_heartbeat() -> None:
    result = heard(BEAT, port=9000, cid=3)
    assert result.summaries == ["> enclave is ready", "< acknowledged"]
    assert result.said[1].latency_ns == 1_000_000
    for turns in ([(0, b"\xb7")], [(0, b"\xb7"), (1, b"\xb8")], [(0, b"\xb7\x01")]):
        assert heard(turns, port=9001).protocol == "raw"


@pytest.mark.parametrize(
    ("port", "cid", "protocol"),
    [
        (1026, 3, "text"),
        (10_005, 0, "text"),
        (1025, 2, "text"),
        (1026, 2, "raw"),
        (10_005, 3, "raw"),
    ],
)
def test_consoles_by_their_ports(port: int, cid: int, protocol: str) -> None:
    assert heard(CONSOLE, port=port, cid=cid).protocol == protocol


def test_a_console_is_lines_without_what_steers_terminals() -> None:
    result = heard(CONSOLE, port=1026)
    assert result.summaries == ["< login:", "> root", "> ls ü", "> no newline"]
    assert result.messages[0].fields["data"] == b"\x1b[1mlogin:\x1b[0m \r"


@pytest.mark.parametrize("data", [b"\x00\x01\x02" * 30, b"x" * 4000], ids=["bytes", "a long line"])
def test_what_is_no_console_at_a_consoles_port(data: bytes) -> None:
    assert heard([(1, data)], port=1026).protocol == "raw"


# --- limits ------------------------------------------------------------------------------------


def test_three_lengths_make_a_chain_and_two_do_not() -> None:
    assert told(BINARY, "framed")[0].startswith("> 01 02 01 02")
    assert heard(BINARY[:1]).protocol == "raw"


@pytest.mark.parametrize(
    "data",
    [b"\0" * 5000, b"\xff" * 5000, bytes(range(256)) * 20, b"\x00\x00\x00\x01" * 1200],
    ids=["zeros", "ones", "count", "numbers"],
)
def test_bulk_is_raw(data: bytes) -> None:
    assert heard([(0, data[:2500]), (0, data[2500:])]).protocol == "raw"


def test_hostile_sizes() -> None:
    huge = struct.pack("<IIQ", 0x10100101, 0xFFFFFFFF, 1) + b"{"
    assert heard([(0, huge)]).messages[-1].kind == Kind.NOTE
    assert heard([(0, struct.pack("<IIQ", 0x10100101, 3, 1) + b"{")]).protocol == "raw"


def test_long_lines_are_cut_and_say_so() -> None:
    line = b'{"msg":"' + b"x" * 200_000 + b'"}\n'
    message = heard([(0, b'{"a":1}\n'), (0, line)]).messages[1]
    assert len(message.fields["data"]) == 64 << 10
    assert message.fields["size"] == len(line)
    assert len(message.summary) <= texts.WIDE


@pytest.mark.parametrize(
    "value", [b"[" * 100_000, b"{" + b'"a":[' * 60 + b"]" * 60 + b"}", b"1" * 9999]
)
def test_json_that_is_no_value_or_too_deep(value: bytes) -> None:
    assert texts.json_of(value) is None


def test_the_shape_of_json_is_never_relied_on() -> None:
    odd = ({"execute": 7}, {"error": "x"}, {"execute": ["a"], "id": {"b": [1]}}, {"event": None})
    for protocol, mark in (("qga", b"\n"), ("varlink", b"\0"), ("json", b"\n")):
        turns: list[Turn] = [(side, lines(*odd, mark=mark)) for side in (0, 1)]
        assert len(heard(turns, ports={1024: protocol}).messages) == 2 * len(odd)


def test_samples_of_this_module_are_among_the_samples() -> None:
    by_content = {row.name for row in framed.ROWS} - {
        *("kata-span", "stackrox", "text", "wsl")  # these need their port
    }
    assert by_content <= set(SAMPLES)


def test_content_that_is_protobuf_is_told_by_field() -> None:
    one = b"\x0a\x03abc\x10\x05"
    talk: list[Turn] = [(0, (len(one).to_bytes(4, "little") + one) * 3)]
    assert [dict(message.fields) for message in heard(talk).messages] == [{"1": "abc", "2": 5}] * 3
    report = heard([(0, one), (0, END)], port=818, cid=2)
    assert dict(report.messages[0].fields) == {"1": "abc", "2": 5}
