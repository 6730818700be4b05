"""The story of a connection: what it says, and that every number in it stands elsewhere too."""

import json
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks import pcap_header, pcap_record
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import memory_file
from running import ALL_CAPTURES, CAPTURES, Pcapng, environment, lines, run
from scenario import build_frame
from stories import stories, texts
from talking import ACCEPTOR, END, INITIATOR, talk_capture
from terminal import Tmux
from tracking import batches

from vsockdump import manual
from vsockdump.address import Endpoint
from vsockdump.amounts import span
from vsockdump.batch import NO_TIME
from vsockdump.output import story as output_story
from vsockdump.story.chart import folds
from vsockdump.story.model import OPS, Arrow, Fold, Kind, Spoken, Story, Wait
from vsockdump.story.packets import COMPACT_DTYPE, UNKNOWN, Recent
from vsockdump.story.record import MOST_CONTROL, MOST_FIRST, MOST_WAITS, Recorder
from vsockdump.story.spoken import MOST_FAILED, Talking
from vsockdump.story.text import NARROWEST, Pen, cells, values
from vsockdump.track.tracker import Tracker
from vsockdump.wire import Op

CASES = Path(__file__).parent / "cases" / "vsock"
EVERY = [*ALL_CAPTURES, *sorted(CASES.glob("*.pcap*"))]
every = pytest.mark.parametrize("path", EVERY, ids=lambda path: path.name)
AMOUNT = re.compile(r"(?<![\w.:#])(\d+(?:\.\d+)?)(?: (ns|us|ms|s)\b)?")


def case(name: str) -> Path:
    """A capture of one connection's trouble."""
    return CASES / f"{name}.pcap"


def told(path: Path, conn: int = 1) -> Story:
    """The story of a connection."""
    return next(one for one in stories(path) if one.facts.connection.number == conn)


# --- what a story says -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "conn", "said"),
    [
        (
            "f1_linux_stops_at_own_64k",
            1,
            [
                "was without credit for 3 s",
                "its own buffer was full, not that of host:5006",
                "until the CREDIT_UPDATE of host:5006 (packet 11)",
            ],
        ),
        ("f7_truly_slow_reader", 1, ["filled the buffer of guest 3:6001"]),
        ("f5_vhost_guest3_to_guest4", 2, ["guest 4:5201 did not answer for 4 s"]),
        (
            "f6_rst_refuses_then_response",
            2,
            ["refused (packet 9), and accepted after 140 us"],
        ),
        (
            "f10_unanswered_close_unread",
            1,
            ["closed first: SHUTDOWN of both directions (packet 6)", "gave up by RST after 8.1 s"],
        ),
        ("f3_true_reset", 1, ["host:7002 reset the connection (packet 20)", "4096 bytes beyond"]),
        ("f11_half_closed_names_ends", 1, ["half closed: nothing more can go from guest 3:47000"]),
        ("nB_credit_request_before_response", 1, ["gave the connect up after 40 us (packet 3)"]),
        ("nC_shutdown_unanswered", 1, ["host:8002 closed first", "host:8002 gave up by RST"]),
        ("nD_storm_of_rst", 1, ["199 more RSTs came after the end, from packet 3 on."]),
        ("nE_burst_answered_late", 8, ["accepted only after 2.6 s (packet 22)"]),
        ("nF_accepts_once", 2, ["accepted others"]),
    ],
)
def test_what_decided_it_is_told(name: str, conn: int, said: list[str]) -> None:
    """Who refused, waited, closed, gave up: with the packet that shows it."""
    text = texts(told(case(name), conn))
    assert [] == [part for part in said if part not in text]


def test_a_wait_that_goes_on_is_told_as_such() -> None:
    """Since which packet, and that nothing has ended it."""
    story = told(case("f10_one_way_stall_for_ever"))
    (wait,) = (one for one in story.sentences if one.kind == Kind.WAIT)
    assert (6,) == wait.packets
    assert "has been without credit since then" in wait.text
    assert any(line.text.strip(" :").endswith("and it goes on") for line in Pen(100).lines(story))


def test_an_open_connection_is_told_as_of_the_end() -> None:
    """And how long ago its last packet was."""
    story = told(CAPTURES / "l2_guest_view.pcap", 5)
    last = story.sentences[-1]
    assert Kind.STATE == last.kind
    assert last.text.startswith("As of the end of the capture the connection was open")
    assert "its last packet, 101, was 1.817 s earlier" in last.text


def test_a_connection_from_before_the_capture_has_no_beginning() -> None:
    """Nobody is said to have asked, and credit is unknown, not 0."""
    story = told(CAPTURES / "k612_fakeguest.pcap", 5)
    text = texts(story)
    assert "began before the capture" in text
    assert " asked host" not in text
    assert "how much credit it had is not known" in text
    data = [row for row in story.rows if isinstance(row, Arrow) and row.packet.op == Op.RW]
    assert {"free ?"} == {row.credit for row in data}


def test_datagrams_have_no_connection() -> None:
    """Neither credit nor an end is told of them."""
    frame = build_frame(Endpoint(3, 1), Endpoint(2, 2), Op.RW, b"hello", virtio={"type": 3})
    capture = pcap_header() + b"".join(pcap_record("<", frame, at, 0) for at in range(3))
    with memory_file(capture) as path:
        (story,) = stories(path)
    assert "datagrams have neither connection nor credit" in texts(story)
    assert "15 bytes in 3 datagrams" in texts(story)
    assert {""} == {row.credit for row in story.rows if isinstance(row, Arrow)}
    assert not [one for one in story.sentences if one.kind in (Kind.CLOSE, Kind.STATE)]


def test_calls_are_told_with_their_times() -> None:
    """Requests, answers, which failed, which was slowest."""
    story = told(CAPTURES / "k612_http.pcap")
    text = texts(story)
    assert "asked: http → GET /nope 62 B (packet 15)" in text
    assert "answered with a failure after 3.555 ms" in text
    assert "4 requests, 4 answered, 1 failed; the slowest answer to GET / took 19.75 ms" in text


def test_a_request_without_an_answer_is_told() -> None:
    """Whether one may still come or not."""
    request = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
    with memory_file(talk_capture([(INITIATOR, request)])) as path:
        (story,) = stories(path)
    assert "GET /slow of host:49152 (packet 3) had waited for 0 ns for an answer" in texts(story)
    with memory_file(talk_capture([(INITIATOR, request), (ACCEPTOR, END), (INITIATOR, END)])) as at:
        (story,) = stories(at)
    assert 1 == story.facts.record.talk.without_answer


def test_losses_are_said() -> None:
    """Bytes whose packets are not in the capture."""
    turns = [(INITIATOR, b"x" * 100), (INITIATOR, b"y" * 100), (ACCEPTOR, b"z")]
    with memory_file(talk_capture(turns, lost=[1])) as path:
        (story,) = stories(path)
    assert "consumed 100 bytes more than" in texts(story)


def test_without_times_nothing_is_said_of_them() -> None:
    """Simple packets of pcapng have none."""
    frames = [
        build_frame(Endpoint(3, 1), Endpoint(2, 2), op, virtio={"buf_alloc": 65536})
        for op in (Op.REQUEST,)
    ]
    frames.append(build_frame(Endpoint(2, 2), Endpoint(3, 1), Op.RESPONSE))
    file = Pcapng().section().interface()
    for frame in frames:
        file = file.simple_packet(frame)
    with memory_file(file.data) as path:
        (story,) = stories(path)
    assert {None} == {sentence.time_ns for sentence in story.sentences}
    assert not re.search(r"\d (ns|us|ms|s)\b", texts(story) + story.summary)
    assert "The packets have no times" in " ".join(story.notes)


# --- that it is so ---------------------------------------------------------------------------


@every
def test_sentences_are_in_order_and_name_packets_of_the_connection(path: Path) -> None:
    """In the order of time; every packet that is named is one of its own."""
    own = packets(path)
    for story in stories(path):
        times = [one.time_ns for one in story.sentences if one.time_ns is not None]
        assert times == sorted(times)
        numbers = set(own.get(story.facts.connection.number, {}))
        named = {number for one in story.sentences for number in one.packets}
        assert named <= numbers | {found.packet for found in story.found}
        for sentence in story.sentences:
            shown = {int(text) for text in re.findall(r"packets? (\d+)", sentence.text)}
            assert shown <= numbers


@every
def test_the_chart_has_all_packets(path: Path) -> None:
    """Each row is a packet as --json has it; rows and folds together are all of them."""
    own = packets(path)
    for story in stories(path):
        of_conn = own[story.facts.connection.number]
        arrows = [row.packet for row in story.rows if isinstance(row, Arrow)]
        assert [packet.number for packet in arrows] == sorted({one.number for one in arrows})
        assert len(of_conn) == len(arrows) + folds(list(story.rows))
        for packet in arrows:
            vsock = of_conn[packet.number]["vsock"]
            assert vsock["virtio"]["op"] == packet.op
            assert vsock["payload_len"] == packet.len
            assert vsock["credit"]["free"] == packet.free
        check_folds(story, of_conn)


def check_folds(story: Story, of_conn: dict[int, Any]) -> None:
    """What a fold counts is what lies between the rows beside it."""
    numbers = sorted(of_conn)
    last = None
    for row, following in pairwise([*story.rows, None]):
        if isinstance(row, Arrow):
            last = row.packet.number
        if isinstance(row, Fold):
            assert isinstance(following, Arrow)
            between = [n for n in numbers if (last or 0) < n < following.packet.number]
            ops = Counter(min(of_conn[n]["vsock"]["virtio"]["op"], OPS - 1) for n in between)
            tally = [a + b for a, b in zip(row.tally[:OPS], row.tally[OPS:], strict=True)]
            assert ops == Counter({op: count for op, count in enumerate(tally) if count})
            sizes = sum(of_conn[n]["vsock"]["payload_len"] for n in between)
            assert sizes == sum(row.sent)


@every
def test_every_number_stands_in_another_output(path: Path) -> None:
    """In -z conv, -z stalls, -z findings, -z connects, -z rpc,slowest, or the packets."""
    statistics = ("conv", "stalls", "findings", "connects")
    asked = [word for name in statistics for word in ("-z", name)]
    printed = [json.loads(line) for line in run("-r", path, "--json", *asked).out.splitlines()]
    own = packets(path)
    for story in stories(path):
        number = story.facts.connection.number
        rows = [row for row in printed if row.get("conn") in (number, None)]
        known = known_numbers(rows, list(own[number].values()))
        for sentence in story.sentences:
            text = without_quotes(story, sentence.text)
            for amount, unit in AMOUNT.findall(text):
                shown = f"{amount} {unit}" if unit else amount
                assert shown in known, (shown, sentence.text)


def known_numbers(rows: list[Any], of_conn: list[Any]) -> set[str]:
    """All numbers of JSON objects, as they are and as lengths of time."""
    integers: set[int] = {0, 1, 2}  # 2 s: the limit of connect()
    stack: list[Any] = [*rows, *of_conn]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list):
            stack += value
        elif isinstance(value, int):
            integers.add(value)
        elif isinstance(value, str):
            integers |= {int(text) for text in re.findall(r"\b\d{1,18}\b", value[:200])}
    times = [one["frame"]["time_ns"] for one in of_conn if one["frame"]["time_ns"] is not None]
    ends = [row["start_ns"] + row["duration_ns"] for row in rows if row.get("z") == "conv"]
    lengths = {*integers, *(after - before for before, after in pairwise(times))}
    lengths |= {after - before for before in times[-40:] for after in times[-40:]}
    counts = range(len(of_conn) + 1)
    return {
        *map(str, integers),
        *map(str, counts),
        *(span(one) for one in lengths if one >= 0),
        *map(str, ends),
        "2 s",
    }


def without_quotes(story: Story, text: str) -> str:
    """A sentence without names, application messages, and what is quoted from others."""
    for name in (*story.facts.names, *(one.text for one in story.facts.record.talk.kept)):
        text = text.replace(name, "")
    for spoken in story.facts.record.talk.kept:
        text = text.replace(spoken.method, "") if spoken.method else text
    found = [one.text for one in story.found]
    for sentence in found:
        text = text.replace(sentence[:1].upper() + sentence[1:], "").replace(sentence, "")
    text = re.sub(r"As of the end .*", "", text)  # the capture's end is no packet of it
    text = re.sub(r"\d+ messages?(: \d+ requests?, \d+ answered)?", "", text)
    return re.sub(r"(did not answer|had waited|so far).*", "", text)


def packets(path: Path) -> dict[int, dict[int, Any]]:
    """The packets that --json prints, by connection and number."""
    found: dict[int, dict[int, Any]] = {}
    for line in run("-r", path, "--json").out.splitlines():
        packet = json.loads(line)
        conn = packet["vsock"]["conn"]
        if conn is not None:
            found.setdefault(conn, {})[packet["frame"]["number"]] = packet
    return found


@pytest.mark.parametrize("rows", [1, 7, 50])
@pytest.mark.parametrize(
    "name",
    ["k612_bulk_stall.pcap", "k612_seqpacket.pcap", "app_grpc.pcapng", "k612_fakeguest.pcap"],
)
def test_batches_do_not_matter(name: str, rows: int) -> None:
    """The story is the same from batches of any size."""
    one, other = stories(CAPTURES / name), stories(CAPTURES / name, rows)
    assert [values(story) for story in one] == [values(story) for story in other]


# --- how it looks ----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 133, 200])
@pytest.mark.parametrize("name", ["k612_http.pcap", "app_grpc.pcapng", "k612_fakeguest.pcap"])
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    """From the narrowest on; the chart uses the whole width."""
    for story in stories(CAPTURES / name):
        widths = [cells(line.text) for line in Pen(width).lines(story)]
        assert max(widths) <= width
        assert NARROWEST - 10 <= max(widths)


def test_columns_is_the_width() -> None:
    """As for other programs, where no terminal tells it."""
    done = subprocess.run(
        [sys.executable, "-m", "vsockdump", "-r", CAPTURES / "k612_http.pcap", "--explain", "1"],
        capture_output=True,
        text=True,
        env=environment(COLUMNS="70"),
        timeout=60,
        check=True,
    )
    assert 60 < max(map(cells, done.stdout.splitlines())) <= 70


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1, max_size=60))
def test_nothing_of_a_payload_steers_the_terminal(text: str) -> None:
    """Paths of requests and reasons of answers are escaped."""
    path = text.replace("\r", "").replace("\n", "").replace(" ", "") or "x"
    request = f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode("utf-8", "replace")
    answer = f"HTTP/1.1 404 \x1b[31m{path}\r\nContent-Length: 0\r\n\r\n".encode("utf-8", "replace")
    with memory_file(talk_capture([(INITIATOR, request), (ACCEPTOR, answer)])) as file:
        (story,) = stories(file)
    for line in Pen(80).lines(story):
        assert line.text.isprintable(), repr(line.text)


def test_colour_is_only_colour() -> None:
    """Without its escapes the text is the same."""
    arguments = ("-r", CAPTURES / "k612_fakeguest.pcap", "--explain", "2")
    coloured = run(*arguments, "--color", "always").out
    assert "\033[" in coloured
    assert run(*arguments).out == re.sub(r"\033\[[0-9;]*m", "", coloured)


# --- what it keeps ---------------------------------------------------------------------------


def plain(count: int, first: int = 1) -> Any:
    """Packets that decide nothing: data, one a microsecond."""
    rows = np.zeros(count, COMPACT_DTYPE)
    rows["number"] = np.arange(first, first + count)
    rows["time_ns"] = rows["number"] * 1000
    rows["conn"], rows["op"], rows["len"] = 1, int(Op.RW), 10
    rows["free"], rows["granted"] = 1000, UNKNOWN
    return rows


def test_memory_does_not_grow_with_packets() -> None:
    """Of a million packets, a storm among them, a few are kept and all are counted."""
    recorder = Recorder()
    for first in range(1, 1_000_000, 50_000):
        rows = plain(50_000, first)
        rows["op"][::3] = int(Op.RST)
        waits = [Wait(0, at, at + at % 97, at, at + 1, 5) for at in range(first, first + 900)]
        recorder.add(rows, range(first, first + 500), waits)
    record = recorder.record()
    assert MOST_WAITS == len(record.waits)
    assert [96] * MOST_WAITS == [wait.length_ns for wait in record.waits]
    assert len(record.packets) <= MOST_FIRST + 2 * MOST_CONTROL + 24 + 2 * MOST_WAITS + 20
    last = record.packets[-1][0]
    assert 1_000_000 == last.number == sum(last.tally) == recorder.count
    assert 10_000_000 == sum(last.sent)


def test_the_longest_silences_are_kept() -> None:
    """In whatever batch they are, and between two batches."""
    rows = plain(1000)
    for place, gap in ((100, 5), (500, 7), (600, 9), (900, 3)):
        rows["time_ns"][place:] += gap * 10**9
    for parts in (1, 4, 10, 1000):
        recorder = Recorder()
        for part in np.array_split(rows, parts):
            recorder.add(part)
        found = [(one.before.number, one.after.number) for one in recorder.record().silences]
        assert [(100, 101), (500, 501), (600, 601)] == found


def test_the_packet_that_used_the_last_credit_is_kept_until_it_is_asked_for() -> None:
    """The wait may end many batches later."""
    rows = plain(3000)
    rows["free"][700:] = 0
    recorder = Recorder()
    for part in np.array_split(rows, 30):
        recorder.add(part, (), [])
    recorder.add(plain(1, 3001), (), [Wait(0, 701_000, 3_001_000, 701, 3001, 10)])
    kept = {packet.number for packet, _why in recorder.record().packets}
    assert {701, 3001} <= kept


def test_failed_and_slow_messages_are_kept_of_many() -> None:
    """All are counted."""
    talking = Talking()
    for number in range(1, 5001):
        error = "no" if number % 100 == 0 else None
        latency = 10**9 if number == 2222 else number
        talking.add(Spoken(number, number, 1, "response", "x", "m", error, latency, number))
    talk = talking.talk()
    assert (5000, 5000, 50) == (talk.messages, talk.calls, talk.failed)
    assert talk.slowest is not None
    assert 2222 == talk.slowest.packet
    assert MOST_FAILED + 1 == sum(1 for one in talk.kept if one.error)  # the last message failed
    assert len(talk.kept) < 40
    assert {2222, 4999, 5000} <= {one.packet for one in talk.kept}


def test_the_window_of_recent_packets_is_bounded() -> None:
    """It drops whole batches, and keeps at least as many packets as were asked for."""
    tracker, recent = Tracker(), Recent(100)
    for batch in batches(CAPTURES / "k612_many.pcap", 30):
        recent.add(tracker.track(batch))
    kept = [recent.of(conn)["number"] for conn in range(1, 201)]
    numbers = sorted(np.concatenate(kept).tolist())
    assert 100 <= len(numbers) < 130
    assert list(range(numbers[0], numbers[-1] + 1)) == numbers


# --- the command line --------------------------------------------------------------------------


def test_explain_is_the_statistic() -> None:
    """--explain N is -z story,N, from a file or a pipe, beside others, behind a filter."""
    path = CAPTURES / "k612_shutdowns.pcap"
    expected = lines("-r", path, "-z", "story,5")
    assert expected == lines("-r", path, "--explain", "5")
    assert expected == lines("-r", "-", "--explain", "5", stdin=path.read_bytes())
    filtered = lines("-r", path, "--explain", "5", "port", "1044")
    assert expected == filtered[: len(expected)]
    assert "port 1044" in filtered[-1]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("--explain", "9"), 1, "has no connection 9, only 8 connections"),
        (("--explain", "0"), 2, "takes the number of a connection"),
        (("--explain", "first"), 2, "or the word wrong, not first"),
        (("-z", "story"), 2, "not nothing"),
        (("--explain", "1", "port", "9"), 1, "has no packet that matches the filter"),
        (("--explain", "1", "--tui"), 2, "--tui and --explain do not go together"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(
    arguments: tuple[str, ...], status: int, sentence: str
) -> None:
    """Bad input exits with 1, wrong use with 2."""
    result = run("-r", CAPTURES / "k612_refused.pcap", *arguments)
    assert (status, "") == (result.status, result.out)
    assert 1 == result.err.count("\n")
    assert sentence in result.err


def test_a_forgotten_connection_is_one_sentence() -> None:
    """It was there, and there is no more to be told of it."""
    arguments = ("--explain", "1", "--max-connections", "8")
    result = run("-r", CAPTURES / "k612_many.pcap", *arguments)
    assert (1, "") == (result.status, result.out)
    assert "Connection 1 was forgotten; see --max-connections" in result.err


def test_json_has_what_the_text_says() -> None:
    """The same sentences, findings and packets; times in nanoseconds."""
    path = CAPTURES / "k612_fakeguest.pcap"
    (line,) = lines("-r", path, "--explain", "4", "--json")
    found = json.loads(line)
    story = told(path, 4)
    assert [one.text for one in story.sentences] == [one["text"] for one in found["sentences"]]
    assert ["vsock.connect.unanswered"] == [one["finding"] for one in found["findings"]]
    assert [36] == [row["packet"] for row in found["chart"]]
    assert "timed-out" == found["state"]


def test_without_decoding_protocols_that_is_said() -> None:
    """--decode none is no reason not to tell the rest."""
    text = "\n".join(lines("-r", CAPTURES / "k612_http.pcap", "--explain", "1", "--decode", "none"))
    assert "(--decode none)" in text
    assert "http" not in text
    assert "sent 30265 bytes in 5 packets" in text


def test_wrong_tells_one_of_each_kind() -> None:
    """The worst first; those with the same findings are named."""
    out = lines("-r", CAPTURES / "k612_fakeguest.pcap", "--explain", "wrong")
    heads = [line for line in out if line.startswith("Connection ")]
    assert heads[0].startswith("Connection 5:")
    assert 5 == len(heads)
    assert "The same was found in connections 7, 8." in out
    printed = [
        json.loads(line)
        for line in lines("-r", CAPTURES / "k612_fakeguest.pcap", "-z", "conv", "--json")
    ]
    wrong = sum(1 for row in printed if row["worst"] in ("warn", "error"))
    assert out[0].startswith(f"{wrong} connections with findings that are warnings or errors")


def test_wrong_is_the_story_of_each() -> None:
    """What is told of a connection is what --explain N tells of it."""
    path = CAPTURES / "k612_fakeguest.pcap"
    for line in lines("-r", path, "--explain", "wrong", "--json"):
        found = json.loads(line)
        found.pop("same_findings")
        (one,) = lines("-r", path, "--explain", str(found["conn"]), "--json")
        assert json.loads(one) == found


def test_wrong_of_a_healthy_capture() -> None:
    """One sentence, and all is well."""
    out = lines("-r", CAPTURES / "k612_http.pcap", "--explain", "wrong")
    assert ["No connection has a finding that is a warning or an error."] == out


def test_wrong_says_what_came_before_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose finding comes late has no beginning, and its rows still count right."""
    monkeypatch.setattr(output_story, "_WINDOW", 4)
    tracker = Tracker()
    teller = output_story.WrongExplained(tracker)
    for batch in batches(case("f3_true_reset"), 5):
        tracker.track(batch)
        teller.add(batch)
    tracker.finish()
    ((story, _alike),) = teller._stories(numeric=False)
    joined = story.facts.record.joined
    assert 0 < joined < 20
    assert "not kept" in " ".join(story.notes)
    arrows = sum(1 for row in story.rows if isinstance(row, Arrow))
    assert 20 == joined + arrows + folds(list(story.rows))


# --- the manual ---------------------------------------------------------------------------------


def test_help_lists_the_pages_and_shows_them() -> None:
    """In a pipe as they were written."""
    listed = run("help")
    assert (0, "") == (listed.status, listed.err)
    for subject in manual.subjects():
        assert f"- `{subject}`: {manual.title(subject)}" in listed.out
        assert manual.page(subject) == run("help", subject).out
    assert "story" in manual.subjects()


def test_an_unknown_subject_is_one_sentence() -> None:
    """With the nearest name."""
    result = run("help", "storry")
    assert (2, "") == (result.status, result.out)
    assert "vsockdump: The manual has no page storry; did you mean story?\n" == result.err


def test_a_filter_that_is_help_is_a_filter() -> None:
    """With options beside it, `help` is a word of a filter, which has none of that name."""
    for arguments in (("-r", "x", "help"), ("help", "-r", "x")):
        result = run(*arguments)
        assert 2 == result.status
        assert "help\n" in result.err


def test_help_on_a_terminal(tmux: Tmux) -> None:
    """Drawn by Rich, a page at a time."""
    tmux.start(f"{Path(sys.executable).with_name('vsockdump')} help story", 80, 24)
    shown = tmux.until("The story of a connection")
    assert "# The story" not in shown
    tmux.keys("q")
    tmux.until("status 0")


def test_no_time_is_no_length() -> None:
    """A silence needs two times."""
    rows = plain(10)
    rows["time_ns"][5] = NO_TIME
    recorder = Recorder()
    recorder.add(rows)
    lengths = {one.length_ns for one in recorder.record().silences}
    assert lengths == {1000}
