"""--export mixed and ethernet: what stands behind the frames, and what tshark makes of it."""

import ssl
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from blocks import enhanced, interface, secrets, section
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import memory_file, read_file
from running import ALL_CAPTURES, CAPTURES, packets_of, run
from secrecy import secret_talk
from segments import Made, export, link_types, made
from talking import Cut, Turn, talk_capture
from test_export_tcp import shown

from vsockdump.apps.byte_stream import ByteStream
from vsockdump.apps.dialogues import DialogueOptions
from vsockdump.apps.protocol import Context, Opening
from vsockdump.capture.reader import ROWS, FileReader
from vsockdump.export.ethernet import Frames
from vsockdump.export.export_file import Exported
from vsockdump.export.layered import Layer, LayeredExport
from vsockdump.export.pdu import MOST, Pdus, TlsRecords
from vsockdump.track.store import DEFAULT_CAP
from vsockdump.track.tracker import Tracker

sys.path.append(str(Path(__file__).with_name("apps")))
from samples import SAMPLES

GUEST_AGENT: list[Turn] = [
    (0, b'{"execute":"guest-ping"}\n{"execute":"guest-'),
    (0, b'info"}\n'),
    (1, b'{"return":{}}\n'),
]
captures = pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
layers = pytest.mark.parametrize("kind", ["mixed", "ethernet"])


def tags_of(packet: Made) -> tuple[dict[int, bytes], bytes]:
    """The tags of an exported PDU, and what stands behind them."""
    tags, at = {}, 0
    while True:
        kind, size = struct.unpack_from(">HH", packet.data, at)
        assert size % 4 == 0
        at += 4 + size
        if not kind:
            return tags, packet.data[at:]
        tags[kind] = packet.data[at - size : at]


@captures
@layers
def test_the_frames_stay_as_they_are(capture: Path, kind: str, tmp_path: Path) -> None:
    """On the first interface, with their times; tshark reads all of the file."""
    path = tmp_path / "export.pcapng"
    assert 0 == run("-r", capture, "--export", kind, "-w", path).status
    frames = [one for one in made(path.read_bytes()) if one.interface == 0]
    names = ("frame.time_epoch", "frame.len", "frame.cap_len")
    original = shown(capture, *names)
    assert original == shown(path, *names, chosen="frame.interface_id == 0")
    assert len(original) == len(frames)
    assert [] == shown(path, "frame.number", chosen="_ws.malformed")
    assert read_file(str(capture)).packets == [one.data for one in frames]


def test_a_message_follows_the_frame_that_completes_it() -> None:
    """With its tags, also where it is one of several, or began in an earlier packet."""
    data = export(talk_capture(GUEST_AGENT), kind="mixed")
    assert [271, 252] == link_types(data)
    packets = made(data)
    assert [0, 0, 0, 1, 0, 1, 0, 1] == [packet.interface for packet in packets]
    found = [tags_of(packet) for packet in packets if packet.interface == 1]
    texts = [b'{"execute":"guest-ping"}', b'{"execute":"guest-info"}', b'{"return":{}}']
    assert texts == [text for _tags, text in found]
    tags = found[2][0]
    assert (b"json", b"QGA\0") == (tags[12], tags[33])
    guest = bytes.fromhex("fd76 0000 0000000000000003 00000400")
    host = bytes.fromhex("fd76 0000 0000000000000002 0000c000")
    assert (guest, host) == (tags[22], tags[23])
    numbers = [struct.unpack(">I", tags[kind])[0] for kind in (24, 25, 26, 30)]
    assert [2, 1024, 49152, 7] == numbers
    comments = [packet.comments for packet in packets if packet.interface == 1]
    assert ["#1 guest 3:1024 > host:49152, packet 5: qga ← guest-ping: return 14 B"] == comments[2]


def test_wireshark_takes_messages_apart(tmp_path: Path) -> None:
    """By its own dissectors; those that it lacks are named and shown as bytes."""
    path = tmp_path / "export.pcapng"
    seen = {}
    for name in ("9p", "varlink", "qgs"):
        path.write_bytes(export(talk_capture(SAMPLES[name]), kind="mixed"))
        table = shown(path, "frame.protocols", "_ws.col.Protocol", chosen="exported_pdu")
        seen[name] = table[0]
    assert ["exported_pdu", "9P"] == seen["9p"]
    assert ["exported_pdu:json", "VARLINK/JSON"] == seen["varlink"]
    assert ["exported_pdu:data", "QGS"] == seen["qgs"]


def test_http_comes_whole(tmp_path: Path) -> None:
    """Also what was said in several packets; the answers know their requests."""
    path = tmp_path / "export.pcapng"
    path.write_bytes(export((CAPTURES / "k612_http.pcap").read_bytes(), kind="mixed"))
    posts = shown(path, "http.content_length", chosen="http.request.method == POST")
    assert [["30000"]] == posts
    answers = shown(path, "http.response.code", "http.request_in", chosen="http.response")
    assert ["200", "200", "404", "201"] == [code for code, _request in answers]
    assert all(request for _code, request in answers)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_secrets_open_tls_messages(version: ssl.TLSVersion, tmp_path: Path) -> None:
    """Each record is a message, which tshark decrypts with the secrets."""
    talk = secret_talk(tmp_path, version)
    path = tmp_path / "export.pcapng"
    capture = talk_capture(talk.turns, port=8443)
    path.write_bytes(export(capture, "--keylog", str(talk.keys), kind="mixed"))
    names = ("frame.interface_id", "http.request.uri", "http.response.code")
    assert [["1", "/secret", ""], ["1", "", "200"]] == shown(path, *names, chosen="http")


def test_torn_and_large_messages(tmp_path: Path) -> None:
    """What lacks bytes is left out and counted; what Wireshark could not read is cut."""
    source = tmp_path / "x.pcap"
    turns: list[Turn] = [
        (0, b'{"level":"info","msg":"started"}\n'),
        (0, b'{"level":"info","msg":"'),
    ]
    turns += [(0, b"x" * 65000) for _part in range(5)]
    turns += [(0, b'"}\n'), (0, Cut(b'{"level":"info","msg":"not all"}\n', 20)), (0, b"{}\n")]
    source.write_bytes(talk_capture(turns))
    path = tmp_path / "export.pcapng"
    result = run("-r", source, "--export", "mixed", "-w", path)
    sizes = [(len(one.data), one.wirelen) for one in made(path.read_bytes()) if one.interface == 1]
    assert (MOST, 325_000) == (sizes[1][0], sizes[1][1] // 1000 * 1000)
    assert f"vsockdump: 1 message cut in the export at {MOST} bytes" in result.err
    assert 0 == result.status
    shown(path, "frame.number")


def test_tls_is_cut_into_records(tmp_path: Path) -> None:
    """Every record, whatever the packets are; the bytes are those of the talk."""
    turns = secret_talk(tmp_path).turns
    parser = TlsRecords(Context(Opening((b"", b""), ((3, 1), (2, 1)))))  # type: ignore[arg-type]
    for side in (0, 1):
        said = b"".join(data for sender, data in turns if sender == side)
        stream = ByteStream(side, keep=True)
        steps = parser.messages(stream)
        found = []
        for at in range(len(said)):
            stream.feed(said[at : at + 1])
            while (message := next(steps)) is not None:
                assert ("tls", "record") == (message.protocol, message.summary)
                found.append(stream.take()[2])
        assert said == b"".join(found)
        assert all(len(one) == 5 + int.from_bytes(one[3:5]) for one in found)
        assert len(found) > 2
        assert parser.resumes(side, found[-1])
        assert not parser.resumes(side, found[-1][5:])


def test_tunnelled_frames(tmp_path: Path) -> None:
    """Each on the second interface, behind the packet that brought its end."""
    path = tmp_path / "export.pcapng"
    path.write_bytes(export(talk_capture(SAMPLES["ethernet"]), kind="ethernet"))
    assert [271, 1] == link_types(path.read_bytes())
    table = shown(path, "frame.protocols", chosen="frame.interface_id == 1")
    assert [["eth:ethertype:arp"]] == table
    (frame,) = [one for one in made(path.read_bytes()) if one.interface == 1]
    assert ["#1 host:49152 > guest 3:1024, packet 4"] == frame.comments


def test_a_frame_that_was_cut_stays_cut() -> None:
    """Its length says how long it was."""
    turns = list(SAMPLES["ethernet"])
    side, last = turns[-1]
    assert isinstance(last, bytes)
    turns.append((side, Cut(last, len(last) - 4)))
    packets = made(export(talk_capture(turns), kind="ethernet"))
    frame = [one for one in packets if one.interface == 1][-1]
    assert len(last) - 2 == frame.wirelen
    assert frame.wirelen - 4 == len(frame.data)


def test_what_is_recognised_late_comes_last(tmp_path: Path) -> None:
    """The messages of a connection that nothing ends, and whose first bytes say too little."""
    capture = talk_capture(SAMPLES["framed"])
    packets = made(export(capture, kind="mixed"))
    assert [0, 0, 0, 0, 1, 1, 1] == [packet.interface for packet in packets]
    assert ["#1 host:49152 > guest 3:1024, packet 3: framed 01 02 ff 7 B"] == packets[4].comments
    assert packets[2].time_ns == packets[4].time_ns
    chosen = made(export(capture, "op request", kind="mixed"))
    assert [0, 1, 1, 1] == [packet.interface for packet in chosen]


@layers
def test_nothing_to_add_is_said(kind: str, tmp_path: Path) -> None:
    """The file has the frames all the same."""
    path = tmp_path / "x.pcapng"
    result = run("-r", CAPTURES / "k612_bulk_stall.pcap", "--export", kind, "-w", path)
    assert 0 == result.status
    assert result.err.startswith("vsockdump: the export has only the raw frames: ")
    assert 39 == len(made(path.read_bytes()))


def test_a_filter_chooses_frames_with_what_they_complete() -> None:
    """And only these; numbers are those of the export."""
    packets = made(
        export(talk_capture(GUEST_AGENT), "cid 3 and op rw and frame.number > 3", kind="mixed")
    )
    assert [0, 1, 0, 1] == [packet.interface for packet in packets]
    tags = tags_of(packets[3])[0]
    assert 3 == struct.unpack(">I", tags[30])[0]


def test_several_interfaces_and_their_comments(tmp_path: Path) -> None:
    """The layer's is the second; the source's other ones follow, in nanoseconds."""
    packets = packets_of(talk_capture(GUEST_AGENT))
    blocks = [enhanced("<", packet.data, packet.time_ns // 1000, 1) for packet in packets]
    seconds = interface("<", resolution=0, name="slow") + interface("<", 147)
    source = tmp_path / "x.pcapng"
    source.write_bytes(
        section("<") + seconds + secrets("<") + b"".join(blocks) + enhanced("<", b"?")
    )
    path = tmp_path / "export.pcapng"
    run("-r", source, "--export", "mixed", "-w", path)
    data = path.read_bytes()
    assert [271, 252, 147] == link_types(data)
    assert b"CLIENT_RANDOM 00 11" in data
    assert {2} == {one.interface for one in made(data)[:-1]} - {1}


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--export", "mixed"], 2),
        (["--export", "mixed", "-w", "x.pcap"], 1),
        (["--export", "mixed", "-w", "x.pcapng", "--decode", "none"], 2),
        (["--export", "ethernet", "-w", "x.pcapng", "--decode", "1=nothing"], 2),
    ],
    ids=str,
)
def test_wrong_usage(arguments: list[str], status: int) -> None:
    """One sentence."""
    result = run("-r", CAPTURES / "k612_http.pcap", *arguments)
    assert (status, "", 1) == (result.status, result.out, result.err.count("\n"))


def layered(capture: bytes, layer: Layer, rows: int) -> list[tuple[int, bytes, int]]:
    """Interface, bytes and length of each packet of an export, read by so many rows."""
    tracker = Tracker()
    found: list[tuple[int, bytes, int]] = []
    with memory_file(capture) as path, closing(FileReader(path, rows=rows)) as reader:
        exporter = LayeredExport(reader, DEFAULT_CAP, layer)
        for batch in reader.batches():
            made = exporter.export(tracker.track(batch), None)
            found += _plain(made)
        late = exporter.end()
        found += _plain(late) if late is not None else []
    return found


def _plain(made: Exported) -> Iterator[tuple[int, bytes, int]]:
    for row in made.batch.rows:
        at, size = int(row["packet_at"]), int(row["caplen"])
        data = bytes(made.batch.buffer[at : at + size])
        yield int(row["interface"]), data, int(row["wirelen"])


def _sizes(found: list[tuple[int, bytes, int]]) -> list[tuple[int, int]]:
    """Interfaces and lengths, in an order that batches do not change."""
    return sorted((place, size) for place, _data, size in found)


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    rows=st.integers(1, 5),
    damage=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=3),
)
def test_damaged_talks_are_exported(name: str, rows: int, damage: list[tuple[int, int]]) -> None:
    """Whatever is said: the frames stay as they are, and the same messages are found.

    Which of the packets they follow depends on the batches, where a protocol is recognised late.
    """
    turns: list[Turn] = []
    for side, data in SAMPLES[name] * 3:
        assert isinstance(data, bytes)
        changed = bytearray(data)
        for at, value in damage:
            if at < len(changed):
                changed[at] = value
        turns.append((side, bytes(changed)))
    capture = talk_capture(turns)
    for layer in (Pdus, Frames):
        options = DialogueOptions({})
        at_once, by_rows = (layered(capture, layer(options), size) for size in (ROWS, rows))
        assert _sizes(at_once) == _sizes(by_rows)
        frames = [data for place, data, _size in by_rows if place == 0]
        assert [packet.data for packet in packets_of(capture)] == frames
