"""The words of filters on real captures and scenarios, and what is said of wrong ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from filtering import batch_of
from running import ALL_CAPTURES, CAPTURES, Raw, lines, pcap_file, run
from scenario import parse as scenario

from vsockdump.filters.errors import FilterError
from vsockdump.filters.filter import Filter
from vsockdump.filters.parse import parse
from vsockdump.filters.printer import text
from vsockdump.filters.words import KEYWORDS, WORDS
from vsockdump.wire import VIRTIO

REFUSED = CAPTURES / "k612_refused.pcap"
STALL = CAPTURES / "k612_bulk_stall.pcap"
HTTP = CAPTURES / "prog_http.pcapng"


def chosen(packets: str, filter_text: str) -> list[int]:
    """The numbers of a scenario's packets that match."""
    batch = batch_of([packet.frame for packet in scenario(packets)])
    return batch.rows["number"][Filter.of(filter_text).mask(batch)].tolist()


TALK = """
0.0  3:1024  >  host:5000  REQUEST   buf=4096
0.1  3:1024  <  host:5000  RESPONSE  buf=4096
0.2  3:1024  >  host:5000  RW 4096 "GET / HTTP/1.1"
0.3  3:1024  <  host:5000  CREDIT_UPDATE  buf=4096 fwd=4096
0.4  3:1024  <  host:5000  SHUTDOWN  buf=4096 fwd=4096
0.5  3:1024  >  host:5000  RST
0.6  4:5000  >  host:1024  RW 10  type=SEQPACKET flags=EOM
0.7  local:7 >  local:8    REQUEST
0.8  local:7 <  local:8    RST nosock
"""


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("port 1024", [1, 2, 3, 4, 5, 6, 7]),
        ("src port 1024", [1, 3, 6]),
        ("dst port 1024 or 5000", [1, 2, 3, 4, 5, 6, 7]),
        ("src and dst port 7", []),
        ("src or dst port 7", [8, 9]),
        ("portrange 7-8", [8, 9]),
        ("port >= 5000", [1, 2, 3, 4, 5, 6, 7]),
        ("cid 3", [1, 2, 3, 4, 5, 6]),
        ("guest", [1, 2, 3, 4, 5, 6, 7]),
        ("guest 4", [7]),
        ("src guest", [1, 3, 6, 7]),
        ("host and guest 4", [7]),
        ("local", [8, 9]),
        ("src and dst local", [8, 9]),
        ("host:5000", [1, 2, 3, 4, 5, 6]),
        ("2:1024", [7]),
        ("src guest 3:1024", [1, 3, 6]),
        ("src 3:1024 or 4:5000", [1, 3, 6, 7]),
        ("guest:5000", [7]),
        ("type seqpacket", [7]),
        ("op rw or rst", [3, 6, 7, 9]),
        ("flag eom", [7]),
        ("flag rcv", [5]),
        ("flag rcv or eom", [5, 7]),
        ("not host", [8, 9]),
        ("! op rw && (port 7 || flag send)", [5, 8, 9]),
        ("port 7 or op rw and op request", [8]),
        ("port 7 or (op rw and op request)", [8, 9]),
        ("vsock.virtio.flags & 3 == 3", [5]),
        ("vsock.virtio.op == RW", [3, 7]),
        ("vsock.virtio.op in {rw, CREDIT_UPDATE..credit-request}", [3, 4, 7]),
        ("vsock.op != payload", [1, 2, 4, 5, 6, 8, 9]),
        ("conn 2 or 3", [7, 8, 9]),
        ("conn in {2..3}", [7, 8, 9]),
        ("state refused", [9]),
        ("state open and side acceptor", [2, 4]),
        ("midstream", [7]),
        ("stalled", [3]),
        ("free < 1 and not op rst", [3]),
        ("granted == 4096 and op credit-update", [4]),
        ("finding credit-used-up", [3]),
        ("finding no-socket", [9]),
        ("finding wrong", []),
        ("finding note", [4, 9]),
        ("finding chat", [1, 2, 3, 7]),
        ("finding close.reset", []),
        ("finding vsock.credit.small_buffer or credit-used-up", [1, 2, 3]),
        ('payload contains "HTTP/"', [3]),
        (r'payload contains "GET\x20"', [3]),
        ("payload matches /^get .*1$/i", []),
        (r"payload matches /^get .*1\.1/i", [3]),
        ('vsock.payload contains "GET"', [3]),
        ("frame.number >= 8", [8, 9]),
        ("frame.time_epoch == 3", [4]),
        ("frame.time_ns < 2000000000", [1, 2]),
        ("less 76 and not op rw", [1, 2, 4, 5, 6, 8, 9]),
        ("greater 77", [3, 7]),
        ("link[62] = 5", [3, 7]),
    ],
)
def test_words(filter_text: str, expected: list[int]) -> None:
    """Each word chooses the packets that it says, also after printing."""
    assert expected == chosen(TALK, filter_text)
    assert expected == chosen(TALK, text(parse(filter_text)))


def test_every_keyword_is_in_the_grammar() -> None:
    """The examples of --filter-help are filters, and each shows a keyword of its entry."""
    for word in WORDS:
        Filter.of(word.example)
        assert not word.keywords or any(keyword in word.example for keyword in word.keywords)
    assert len(set(KEYWORDS)) == len(KEYWORDS)


def test_precedence_is_that_of_tcpdump() -> None:
    """`and` and `or` from left to right."""
    assert parse("(op rw or op rst) and port 5") == parse("op rw or op rst and port 5")
    assert parse("(op rw and op rst) or port 5") == parse("op rw and op rst or port 5")


@pytest.mark.parametrize(
    ("filter_text", "sentence", "at"),
    [
        ("pot 5", "There is no word pot. Did you mean port?", 0),
        ("port 5 and opp rw", "There is no word opp. Did you mean op?", 11),
        ("op rwx", "op has no value rwx. Did you mean rw?", 3),
        ("state opne", "state has no value opne. Did you mean open?", 6),
        ("flag oem", "There is no flag oem. Did you mean eom?", 5),
        ("finding over-credits", "There is no finding over-credits. Did you mean over-credit?", 8),
        (
            "vsock.virtio.opp == 3",
            "There is no field vsock.virtio.opp. Did you mean vsock.virtio.op?",
            0,
        ),
        ("vsock.data == 3", "vsock.data is bytes; use contains or matches.", 0),
        ("port 4294967296", "port is at most 4294967295.", 5),
        (
            "1024",
            "No word stands before 1024. A value takes the word before it, as in port 5 or 6.",
            0,
        ),
        ("free < 0", "free is never < 0.", 5),
        ("port != 5", "Of two ends one is nearly always another; use not port.", 5),
        ("port 09", "A number that begins with 0 is octal.", 5),
        ("link[0:3] = 1", "A raw form takes 1, 2 or 4 bytes.", 7),
        ("link[0] / 0 = 1", "This divides by zero.", 8),
        ("1 % 2 + 3 = link[0]", "Beside other operators, % needs parentheses.", 2),
        (
            "payload matches /(/",
            "This is no regular expression: missing ), unterminated subpattern at position 0.",
            16,
        ),
        ("op rw and op rst", "No packet can match this filter.", 0),
        ("src host and src local", "No packet can match this filter.", 0),
    ],
)
def test_wrong_filters(filter_text: str, sentence: str, at: int) -> None:
    """One sentence, and a caret below what is meant."""
    with pytest.raises(FilterError) as caught:
        Filter.of(filter_text)
    assert (sentence, at) == (caught.value.sentence, caught.value.at)
    shown, caret = str(caught.value).split("\n")[1:]
    assert f"  {filter_text}" == shown
    assert at + 2 == caret.index("^")


def test_what_was_expected_is_said() -> None:
    """For a filter that ends too early or goes on too long."""
    for filter_text, words in (
        ("port", "a number"),
        ("port 5 and", "a word such as port"),
        ("port 5 port 6", "and, or"),
        ("(port 5", ")"),
        ("payload contains x", "text in quotes"),
        ("link[5 = 3", "]"),
    ):
        with pytest.raises(FilterError, match="expected") as caught:
            Filter.of(filter_text)
        assert words in caught.value.sentence


@pytest.mark.parametrize(
    ("before", "after"),
    [("(", ")"), ("not (port 5 or ", ")"), ("!", ""), ("1 + (", ")"), ("-", "")],
)
def test_nesting_has_a_limit(before: str, after: str) -> None:
    """Fifty levels work in every evaluator; ten thousand are refused in a sentence."""
    inner = "link[0] = 1" if before in ("1 + (", "-") else "port 7"
    inner, rest = ("link[0]", " = 1") if inner[0] == "l" else (inner, "")
    batch = batch_of([packet.frame for packet in scenario(TALK)])
    deep = Filter.of(before * 50 + inner + after * 50 + rest)
    assert [deep.matches(batch, row) for row in range(len(batch))] == deep.mask(batch).tolist()
    assert parse(str(deep)) == deep.tree
    deep.split()
    with pytest.raises(FilterError, match="nested too deeply"):
        Filter.of(before * 10_000 + inner + after * 10_000 + rest)


def test_an_error_on_the_command_line() -> None:
    """Exit 2, the caret below the word, before anything is read."""
    result = run("-r", "/does/not/exist", "port", "5", "and", "opp", "rw")
    shown = "vsockdump: There is no word opp. Did you mean op?\n  port 5 and opp rw\n"
    assert (2, "", f"{shown}             ^^^\n") == result


# --- in use ----------------------------------------------------------------------------------


def numbers(*arguments: str | Path) -> list[int]:
    """The numbers of the packets that a run prints as fields."""
    return [int(line) for line in lines(*arguments, "-T", "fields", "-e", "frame.number")]


def test_options_and_words_may_be_mixed(tmp_path: Path) -> None:
    """As for tcpdump; -F takes the filter from a file, which may have several lines."""
    expected = numbers("-r", REFUSED, "port 7777 and op rst")
    assert len(expected) == 2
    assert expected == numbers("port", "7777", "-r", REFUSED, "-n", "and", "op", "rst")
    path = tmp_path / "filter"
    path.write_text("port 7777\n  and op rst\n")
    assert expected == numbers("-r", REFUSED, "-F", path)
    assert 2 == run("-r", REFUSED, "-F", path, "port", "5").status
    assert 2 == run("-r", REFUSED, "-F", tmp_path / "missing").status


def test_the_shell_may_take_the_quotes() -> None:
    """payload contains "GET /" arrives as two words and a text."""
    expected = numbers("-r", HTTP, 'payload contains "GET /"')
    assert expected
    assert expected == numbers("-r", HTTP, "payload", "contains", "GET /")
    assert expected == numbers("-r", HTTP, "payload", "matches", "^GET /")


def test_an_empty_filter_is_none() -> None:
    """A script's empty variable does no harm."""
    assert lines("-r", REFUSED) == lines("-r", REFUSED, "")


@pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
def test_filtered_lines_are_lines_of_the_whole(capture: Path) -> None:
    """What is printed of a packet does not depend on the filter: all traffic is tracked."""
    parts = (lines("-r", capture, "-#", filter_text) for filter_text in ("op rw", "not op rw"))
    assert sorted(lines("-r", capture, "-#")) == sorted([line for part in parts for line in part])


def test_count_is_of_packets_that_match() -> None:
    """-c stops after N of them, also where the filter asks what only tracking tells."""
    for filter_text in ("op rw", "free < 200000"):
        every = numbers("-r", STALL, filter_text)
        assert every[:3] == numbers("-r", STALL, "-c", "3", filter_text)
        assert len(every) > 3


@pytest.mark.parametrize("filter_text", ["op rw", "free < 200000"])
def test_statistics_end_where_count_ends(filter_text: str) -> None:
    """With -c no packet behind the last one counts, whatever the filter asks."""
    last = numbers("-r", STALL, filter_text)[2]
    options = ["-z", "conv", "-z", "credit", "--json"]
    expected = run("-r", STALL, "-c", str(last), *options).out
    _selection, found = run("-r", STALL, "-c", "3", *options, filter_text).out.split("\n", 1)
    assert expected == found


def objects(*arguments: str | Path) -> list[dict[str, Any]]:
    """The JSON lines of a run."""
    return [json.loads(line) for line in lines(*arguments, "--json")]


def test_tables_of_connections_choose_connections() -> None:
    """Those with a packet that matches, with all their packets; the table says so."""
    capture = CAPTURES / "k612_many.pcap"
    every = {row["conn"]: row for row in objects("-r", capture, "-z", "conv")}
    packets = objects("-r", capture, "op rst")
    wanted = {packet["vsock"]["conn"] for packet in packets}
    selection, *rows = objects("-r", capture, "-z", "conv", "op rst")
    assert [every[number] for number in sorted(wanted)] == rows
    assert {"z": "selection", "filter": "op rst", "in_kernel": None} == selection
    for statistic in ("conv", "endpoints", "credit"):
        assert "matches the filter" in run("-r", capture, "-z", statistic, "op rst").out
    _selection, *some = objects("-r", REFUSED, "-z", "endpoints", "port 7777")
    assert {"7777"} < {str(row["endpoint"]["port"]) for row in some}
    assert len(some) < len(objects("-r", REFUSED, "-z", "endpoints"))


def test_intervals_count_packets_that_match() -> None:
    """-z io counts them alone, and says so."""
    _selection, row = objects("-r", STALL, "-z", "io,0", "op rw")
    assert len(numbers("-r", STALL, "op rw")) == row["packets"]
    assert "match the filter" in run("-r", STALL, "-z", "io,0", "op rw").out


@pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
def test_written_are_the_packets_that_match(capture: Path, tmp_path: Path) -> None:
    """-w writes them, unchanged, in either format; reading them again gives the same lines."""
    for suffix, filter_text in ((".pcap", "op rw"), (".pcapng", "stalled")):
        path = tmp_path / f"part{suffix}"
        assert [] == lines("-r", capture, "-w", path, filter_text)
        sizes = ("-T", "fields", "-e", "frame.time_ns", "-e", "frame.len", "-e", "vsock.virtio.len")
        assert lines("-r", capture, *sizes, filter_text) == lines("-r", path, *sizes)


def test_program_and_rest_are_shown() -> None:
    """-d shows both halves; -dd and -ddd the program alone, and say that there is a rest."""
    shown = lines("-d", "port 1024 and free < 4096")
    assert "in the kernel: port 1024" == shown[0]
    assert shown[1].startswith("(000) ")
    assert "afterwards: free <= 4095" == shown[-1]
    result = run("-ddd", "port 1024 and free < 4096")
    assert (0, str(len(shown) - 2)) == (result.status, result.out.splitlines()[0])
    assert "free <= 4095" in result.err
    assert ["in the kernel: every packet", "(000) ret      #262144"] == lines("-d")
    assert 2 == run("-d", "pot 5").status


def test_filter_help_knows_every_word() -> None:
    """--filter-help prints the table."""
    shown = "\n".join(lines("--filter-help"))
    assert all(keyword in shown for keyword in KEYWORDS)


def test_packets_without_headers(tmp_path: Path) -> None:
    """Frames too short for a header have no port: `port` is false and `not port` true."""
    frame = scenario("0.0 3:1024 > host:5000 RW 5")[0].frame
    sizes = (10, 40, 32 + VIRTIO.size, len(frame))
    path = tmp_path / "cut.pcap"
    path.write_bytes(pcap_file(Raw(n, frame[:size], size) for n, size in enumerate(sizes)))
    assert [2, 3, 4] == numbers("-r", path, "port 1024")
    assert [1] == numbers("-r", path, "not port 1024")
    assert [3, 4] == numbers("-r", path, "op rw")
    assert [1, 2] == numbers("-r", path, "not op rw")
    assert [4] == numbers("-r", path, "not link[76] = 0")
