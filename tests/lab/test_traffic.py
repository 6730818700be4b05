"""Real kernels, real sockets: what vsockdump says of traffic is what its programs did.

Each test runs for each kernel of the lab, on one recording of all scenarios of traffic.py
(over loopback, by CID 1 and by CID 2) and guest_traffic.py, which ran at the same time.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from machine import Machine
from recording import Recording, key
from running import lines, packets_of, pcap_file
from traffic import CONNECTIONS_AT_ONCE, DEFAULT_BUFFER, STALL_S

from vsockdump.findings.registry import WRONG_MARKS, words
from vsockdump.wire import MAX_FRAME, MAX_PAYLOAD, Seqpacket

# How the connections of each name end.
STATES: Final = {
    "echo": "closed",
    "messages": "closed",
    "http": "closed",
    "many": "closed",
    "stall": "closed",
    "buffers": "closed",
    "nobody listens": "refused",
    "wrong type": "refused",
    "full backlog": "refused",
    "last": "refused",
    "waited in the backlog": "closed",
    "initiator sends no more": "closed",
    "acceptor sends no more": "closed",
    "initiator receives no more": "closed",
    "closed with unread data": "closed",
    "closed by both": "closed",
    "initiator killed": "closed",
    "acceptor killed": "closed",
    "guest sends": "closed",
    "host sends": "reset",
    "host sends messages": "closed",
    "small window": "closed",
    "beyond its credit": "reset",
    "guest refuses": "refused",
    "guest ignores": "timed-out",
    "guest answers late": "timed-out",
    "guest never confirms the close": "timed-out",
}
WRONG: Final = {
    "closed with unread data": {"bytes lost"},
    "initiator killed": {"bytes lost"},
    "acceptor killed": {"bytes lost"},
    "beyond its credit": {"over credit", "reset for overrun", "bytes lost"},
    "guest ignores": {"unanswered"},
    "guest answers late": {"late"},
    "guest never confirms the close": {"close unanswered"},
}
# Packets to a guest are split, and there the tap of Linux 6.1 repeats payload.
SPLIT: Final = {"host sends", "host sends messages"}
REPEATING_KERNELS: Final = {"6.1"}
TROUBLE: Final = frozenset(words(WRONG_MARKS))


def test_the_kernel_is_the_one_asked_for(machine: Machine) -> None:
    """Or the two runs would be of the same."""
    assert machine.release.startswith(f"{machine.kernel.name}.")


def test_every_packet_is_shown(recording: Recording) -> None:
    """As many as tcpdump counted, which lost none; the largest whole."""
    counts = [int(line.split()[0]) for line in recording.reference.err.splitlines()[-3:]]
    assert [len(recording.packets), len(recording.packets), 0] == counts
    sizes = [packet["frame"]["cap_len"] for packet in recording.packets]
    assert MAX_FRAME in sizes
    assert sizes == [packet["frame"]["len"] for packet in recording.packets]


def test_every_connection_is_there_and_no_other(recording: Recording) -> None:
    """By the addresses that the sockets gave."""
    expected = {key(truth) for truth in recording.truths}
    assert expected == set(recording.conversations)
    for each in recording.connections:
        for end in ("initiator", "acceptor"):
            cid, port = each.truth[end]
            assert each.conv[end]["port"] == port
            assert each.conv[end]["cid"] == cid or cid is None, each.name


def test_each_scenario_left_its_connections(recording: Recording) -> None:
    """None of the tests below is about nothing."""
    names = Counter(each.name for each in recording.connections)
    assert set(STATES) == set(names)
    assert 2 * CONNECTIONS_AT_ONCE == names["many"]
    assert (2, 2) == (names["stall"], names["waited in the backlog"] // 2)


def test_how_connections_end(recording: Recording) -> None:
    """State, and who closed first."""
    for each in recording.connections:
        assert (each.name, STATES[each.name]) == (each.name, each.conv["state"])
        if each.name != "closed by both":
            assert (each.name, each.truth["closer"]) == (each.name, each.conv["closer"])


def test_connects_that_fail(recording: Recording) -> None:
    """What connect() told the program is what vsockdump calls it."""
    words = {"ECONNRESET": "refused", "ETIMEDOUT": "timed-out", None: None}
    for each in recording.connections:
        error = each.truth["errors"].get("connect")
        failed = each.conv["bytes"] == [0, 0] and each.conv["state"] in ("refused", "timed-out")
        if error or (failed and each.conv["closer"] != "initiator"):
            assert (each.name, words[error]) == (each.name, each.conv["state"])


def test_bytes_each_way(recording: Recording) -> None:
    """What send() took."""
    for each in recording.connections:
        sent = each.truth.get("sent", [0, 0])
        assert (each.name, sent) == (each.name, each.conv["bytes"])


def test_the_data_of_each_stream(recording: Recording) -> None:
    """`vsock.data`, put together, is what the program sent, repeated by the tap or not."""
    compared = 0
    for each in recording.connections:
        for side, digest in enumerate(each.truth.get("digests", ())):
            actual = hashlib.sha256(each.data(side)).hexdigest()
            assert (each.name, digest) == (each.name, actual)
            compared += 1
    assert compared > 4 * CONNECTIONS_AT_ONCE


def test_seqpacket_messages(recording: Recording) -> None:
    """EOM and EOR cut the stream where the program's messages end."""
    for each in recording.named("messages") + recording.named("host sends messages"):
        for side, messages in enumerate(each.truth["messages"]):
            actual = _messages(each.sent_by(side))
            assert [(size, bool(end)) for size, end in messages] == actual


def _messages(packets: list[dict[str, Any]]) -> list[tuple[int, bool]]:
    """Length of each message, and whether it ends a record."""
    found, size = [], 0
    for packet in packets:
        size += packet["payload_len"]
        flags = packet["virtio"]["flags"]
        if packet["virtio"]["op_name"] == "RW" and flags & Seqpacket.EOM:
            found.append((size, bool(flags & Seqpacket.EOR)))
            size = 0
    assert not size
    return found


def test_half_closed(recording: Recording) -> None:
    """One direction ends; the other carries its data in the state that says so."""
    for first, second in (("initiator", "acceptor"), ("acceptor", "initiator")):
        for each in recording.named(f"{first} sends no more"):
            state = f"half-closed-{first}"
            packets = [packet["vsock"] for packet in each.packets]
            meanwhile = [packet for packet in packets if packet["state"] == state]
            assert {first, second} >= {packet["side"] for packet in meanwhile}
            late = sum(packet["payload_len"] for packet in meanwhile if packet["side"] == second)
            assert each.conv["bytes"][second == "acceptor"] == late
            assert each.conv["bytes"][first == "acceptor"] == 3000


def test_a_stall_and_its_length(recording: Recording) -> None:
    """It lies between the moments that the programs saw it begin and end."""
    for each in recording.named("stall"):
        times = each.truth["times"]
        ((start, end),) = each.credit[0]["stalls"]
        assert times["before the last credit"] <= start <= times["all has arrived"]
        assert times["before reading"] <= end <= times["credit is back"]
        assert STALL_S <= (end - start) / 1e9
        assert [end - start, 0] == each.conv["stalled_ns"]
        assert [0, DEFAULT_BUFFER] == each.conv["min_free"]
        assert DEFAULT_BUFFER == each.credit[0]["max_in_flight"]


def test_a_stall_ends_with_its_reader(recording: Recording) -> None:
    """The reader is killed while the writer waits."""
    for each in recording.named("acceptor killed"):
        assert "EPIPE" == each.truth["errors"]["send"]
        assert ([1, 0], [0, DEFAULT_BUFFER]) == (each.conv["stalls"], each.conv["min_free"])


def test_credit_within_buffers(recording: Recording) -> None:
    """No Linux sender ever had more in flight than its peer's buffer, at no packet."""
    for each in recording.connections:
        for side in (0, 1):
            largest = max((p["virtio"]["buf_alloc"] for p in each.sent_by(1 - side)), default=0)
            flights = [packet["credit"]["inflight"] or 0 for packet in each.sent_by(side)]
            if each.name == "beyond its credit" and side == 0:
                assert DEFAULT_BUFFER + MAX_PAYLOAD == max(flights)
            else:
                assert max(flights, default=0) <= largest, each.name


def test_buffers_of_other_sizes(recording: Recording) -> None:
    """The sizes that the program set, and a window that is full again and again."""
    for each in recording.named("buffers") + recording.named("small window"):
        allowed = {packet["virtio"]["buf_alloc"] for packet in each.sent_by(1)}
        assert set(each.truth["buffers"]) == allowed
        assert 0 == each.conv["min_free"][0]
        assert 0 < each.conv["stalls"][0]
    for each in recording.named("small window"):
        assert 64 == each.credit[0]["max_in_flight"]
        assert 1000 // 64 == each.conv["stalls"][0]  # what is left over fits


def test_the_closer_had_read_everything(recording: Recording) -> None:
    """In the SHUTDOWN of close() its fwd_cnt is what its program had received."""
    compared = 0
    for each in recording.connections:
        if "received" not in each.truth or each.truth["closer"] is None:
            continue
        side = ("initiator", "acceptor").index(each.truth["closer"])
        shutdowns = [p for p in each.sent_by(side) if p["virtio"]["op_name"] == "SHUTDOWN"]
        if shutdowns:
            assert each.truth["received"][side] == shutdowns[-1]["virtio"]["fwd_cnt"], each.name
            compared += 1
    assert compared > 2 * CONNECTIONS_AT_ONCE


def test_data_nobody_read(recording: Recording) -> None:
    """The closer's fwd_cnt stays behind what was sent to it."""
    for each in recording.named("closed with unread data"):
        assert [0, 0] == each.truth["received"]
        assert {0} == {packet["virtio"]["fwd_cnt"] for packet in each.sent_by(1)}
        assert [7000, 0] == each.conv["bytes"]


def test_nothing_is_called_wrong_that_is_not(machine: Machine, recording: Recording) -> None:
    """The marks that mean trouble are where trouble was made; the tap's repeat is no trouble."""
    expected = {(each.name, frozenset(WRONG.get(each.name, ()))) for each in recording.connections}
    found = {(each.name, TROUBLE & set(each.conv["marks"])) for each in recording.connections}
    assert expected == found
    for each in recording.connections:
        marks = set(each.conv["marks"])
        assert "mid-stream" not in marks
        repeats = machine.kernel.name in REPEATING_KERNELS and each.name in SPLIT
        assert (each.name, repeats) == (each.name, "tap repeat" in marks)


def test_the_tap_repeats_more_than_was_sent(machine: Machine, recording: Recording) -> None:
    """What the frames carry, as against what the stream got: only some kernels differ."""
    for each in recording.named("host sends"):
        frames = sum(packet["frame"]["len"] for packet in each.packets)
        carried = frames - len(each.packets) * (MAX_FRAME - MAX_PAYLOAD)
        factor = carried / sum(each.truth["sent"])
        assert factor > 2 if machine.kernel.name in REPEATING_KERNELS else factor == 1


def test_refused_without_a_socket(recording: Recording) -> None:
    """Linux refuses without a socket, so without credit; a guest may have one."""
    for each in recording.connections:
        if each.conv["state"] == "refused":
            assert (each.name != "guest refuses") == ("no socket" in each.conv["marks"])


# --- captures that begin late -----------------------------------------------------------

# In these the window is full and empty again and again, which is what makes tx_cnt known.
JOINED: Final = ("buffers", "small window")


def test_what_a_late_capture_knows_is_true(recording: Recording, tmp_path: Path) -> None:
    """Where a capture that begins later tells of credit, it tells what the whole one does."""
    packets = packets_of(recording.path.read_bytes())
    path = tmp_path / "late.pcap"
    known = Counter[str]()
    for each in (one for name in JOINED for one in recording.named(name)):
        start = each.packets[len(each.packets) // 3]["frame"]["number"] - 1
        path.write_bytes(pcap_file(packets[start:]))
        late = [json.loads(line)["vsock"] for line in lines("-r", path, "--json")]
        joined = {packet["conn"] for packet in late if "mid-stream" in packet["marks"]}
        assert late[0]["conn"] in joined
        for packet, whole in zip(late, recording.packets[start:], strict=True):
            expected = _credit(whole["vsock"])
            actual = {name: value for name, value in _credit(packet).items() if value is not None}
            assert actual.items() <= expected.items()
            truth = set(whole["vsock"]["marks"])
            # That an RST without a socket knows no connection is true of one that was refused
            # data after its end, too; the whole capture sees that end.
            if "no socket" in truth:
                truth.add("unknown to the receiver")
            assert TROUBLE & set(packet["marks"]) <= truth
            if packet["conn"] in joined:
                known.update(actual.keys())
    assert {"tx_cnt", "inflight", "free", "granted"} == set(+known)


def _credit(packet: dict[str, Any]) -> dict[str, int | None]:
    return {"tx_cnt": packet["tx_cnt"], **packet["credit"]}
