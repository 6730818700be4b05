"""What vsockdump hears in a capture of real programs, against what the programs logged.

A record is what tests/lab/programs/scenarios.py returns for a scenario; `compare` holds it
against what `vsockdump --json` shows of its capture.  For the captures that are kept, and
for those that the lab makes anew.

Rules for editors: each form says in the words of a log what was heard, and leaves out only
what the program does not log.
"""

import errno
from collections import Counter
from collections.abc import Callable, Iterable
from json import loads
from pathlib import Path
from typing import Any, Final, NamedTuple

from running import lines

from vsockdump.apps.rpc_status import StatusCode

Record = dict[str, Any]
Message = dict[str, Any]  # of `vsock.app.messages`, with `side`


class Talk(NamedTuple):
    """A connection: all that was said, in order, and the bytes of each side."""

    messages: list[Message]
    sizes: Counter[str]

    @property
    def requests(self) -> list[Message]:
        """The requests."""
        return [each for each in self.messages if each["kind"] == "request"]

    @property
    def responses(self) -> list[Message]:
        """The responses."""
        return [each for each in self.messages if each["kind"] == "response"]

    def having(self, name: str) -> list[dict[str, Any]]:
        """The fields of the messages that have this one."""
        return [each["fields"] for each in self.messages if name in each["fields"]]


def compare(name: str, record: Record, capture: Path) -> None:
    """What was heard is what was logged, and all of it was understood."""
    form = FORMS[name]
    talks = heard(capture)
    said = [each for talk in talks for each in talk.messages]
    assert [] == [each["summary"] for each in said if each["kind"] == "note"]
    rows = [loads(line) for line in lines("-r", capture, "--json", "-z", "apps", "-z", "rpc")]
    assert (form.protocol, len(talks)) == recognised(rows)
    assert tallied(said) == counted(rows)
    assert form.logged(record) == form.heard(talks)


def heard(capture: Path) -> list[Talk]:
    """The connections of a capture."""
    talks: dict[int, Talk] = {}
    for line in lines("-r", capture, "--json"):
        vsock = loads(line)["vsock"]
        talk = talks.setdefault(vsock["conn"], Talk([], Counter()))
        talk.messages.extend({**m, "side": vsock["side"]} for m in vsock["app"]["messages"])
        talk.sizes[vsock["side"]] += vsock["payload_len"]
    return list(talks.values())


def recognised(rows: list[dict[str, Any]]) -> tuple[str | None, int]:
    """By `-z apps`: the protocol that the bytes of all connections tell, and their number."""
    (row,) = (row for row in rows if row["z"] == "apps")
    assert row["evidence"] in ("content", None)
    return row["protocol"], row["connections"]


def tallied(said: list[Message]) -> set[tuple[str, str, int, int]]:
    """How often each method was called, and how often in vain."""
    calls = Counter((x["protocol"], x["method"]) for x in said if x["kind"] == "request")
    errors = Counter((x["protocol"], x["method"]) for x in said if x["error"])
    return {(*call, count, errors[call]) for call, count in calls.items() if call[1] is not None}


def counted(rows: list[dict[str, Any]]) -> set[tuple[str, str, int, int]]:
    """The same by `-z rpc`, which must know of no call that was not answered."""
    calls = [row for row in rows if row["z"] == "rpc"]
    assert [] == [row["method"] for row in calls if row["unanswered"]]
    return {(row["protocol"], row["method"], row["calls"], row["errors"]) for row in calls}


# --- the forms of the logs -----------------------------------------------------------------


def http(talks: list[Talk]) -> Any:
    """Method, target and status of each request."""
    found = []
    for talk in talks:
        final = [each["fields"] for each in talk.responses if each["fields"]["status"] >= 200]
        asked = [f"{one['method']} {one['target']}" for one in talk.having("target")]
        statuses = [one["status"] for one in final]
        found.append([list(pair) for pair in zip(asked, statuses, strict=True)])
    return found


def websocket(talks: list[Talk]) -> Any:
    """Kind and size of each message, the same each way; then a ping, and 1000 at the end."""
    found = []
    for talk in talks:
        there, back = (
            [
                [each["summary"].split()[0], each["fields"]["size"]]
                for each in talk.messages
                if each["side"] == side and each["kind"] == "message"
            ]
            for side in ("initiator", "acceptor")
        )
        assert there == back
        assert ["close", len("\0\0done")] == there.pop()
        assert [[1000, "done"]] * 2 == [[x["code"], x["reason"]] for x in talk.having("code")]
        found.append(there)
    return found


def http2(talks: list[Talk]) -> Any:
    """Method, path and status of each stream."""
    found = []
    for talk in talks:
        streams = {
            one["stream"]: {name: one["headers"][f":{name}"] for name in ("method", "path")}
            for one in (each["fields"] for each in talk.requests)
        }
        for one in talk.having("status"):
            streams[one["stream"]]["status"] = one["headers"][":status"]
        found.append(list(streams.values()))
    return found


def grpc(talks: list[Talk]) -> Any:
    """Method, status and number of answers of each call, in the order of their ends."""
    found = []
    for talk in talks:
        answers = Counter(
            each["fields"]["stream"] for each in talk.responses if "message" in each["fields"]
        )
        calls = []
        for each in talk.responses:
            if "status" in each["fields"]:
                status, _, details = each["fields"]["status"].partition(": ")
                call = {"method": each["method"], "status": status, "details": details}
                calls.append({**call, "answers": answers[each["fields"]["stream"]]})
        found.append(calls)
    return found


def ttrpc(talks: list[Talk]) -> Any:
    """Method, status and its message of each call, in the order of their ends."""
    found = []
    for talk in talks:
        calls = []
        for each in talk.responses:
            status, _, message = each["fields"]["status"].partition(": ")
            call = {"method": each["method"], "code": StatusCode[status]}
            calls.append({**call, "message": message})
        found.append(calls)
    return found


def ttrpc_of(record: Record) -> Any:
    """The calls; those that came to a method are the ones that the service logged."""
    (calls,) = record["connections"]
    unknown = [call for call in calls if call["code"] == StatusCode.UNIMPLEMENTED]
    came = Counter(call["method"] for call in calls if call not in unknown)
    assert came == Counter(record["served"])
    return record["connections"]


_SIDES: Final = {">>>": "initiator", "<<<": "acceptor"}
# OpenSSL's names of cipher suites for IANA's; in TLS 1.3 they are the same.
_SUITES: Final = {"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384"}
_HELLOS: Final = ("ClientHello", "HelloRetryRequest", "ServerHello")
_TLS12: Final = ("Certificate", "ServerKeyExchange", "ServerHelloDone", "ClientKeyExchange")
_IN_CLEAR: Final = (*_HELLOS, *_TLS12, "NewSessionTicket")


def tls(talks: list[Talk]) -> Any:
    """What each side said in the clear, what was agreed on, and the names asked for."""
    found = []
    for talk in talks:
        named = [[each["side"], each["summary"].split()[0], each["size"]] for each in talk.messages]
        shown = _by_side(each for each in named if each[1] in _IN_CLEAR)
        alerts = [each for each in talk.messages if "level" in each["fields"]]
        texts = [[each["side"], " ".join(each["fields"].values())] for each in alerts]
        agreed = _agreed(talk)
        if any(each["error"] for each in alerts):  # the client gave up and read no further
            shown = [each for each in shown if each[1] in (*_HELLOS, "Certificate")]
            agreed = {}
        found.append({"handshake": shown, "alerts": texts, **agreed})
    names = [hello["server name"] for talk in talks for hello in talk.having("server name")]
    return found, [name for name in names if name]


def _agreed(talk: Talk) -> dict[str, Any]:
    server = talk.having("cipher suite")[-1]
    suite = server["cipher suite"]
    subjects = [each["certificates"][0]["subject"] for each in talk.having("certificates")]
    agreed = {"version": server["version"].replace(" ", "v"), "alpn": server["alpn"]}
    return agreed | {"cipher": _SUITES.get(suite, suite), "subjects": subjects}


def tls_of(record: Record) -> Any:
    """The same of the log, which knows what was encrypted too."""
    found = []
    for log in record["connections"]:
        is_tls13 = log.get("version") == "TLSv1.3"
        named = [[_SIDES[sign], name, size] for sign, name, size in log["handshake"]]
        hellos = [each for each in named if each[1] == "ServerHello"]
        if len(hellos) > 1:
            hellos[0][1] = "HelloRetryRequest"  # which is a ServerHello to OpenSSL
        clear = _HELLOS if is_tls13 else _IN_CLEAR
        shown = _by_side(each for each in named if each[1] in clear)
        alerts = [[_SIDES[sign], text] for sign, text in log["alerts"] if "close" not in text]
        agreed = {}
        if "version" in log:
            subjects = [] if is_tls13 else [log["subject"].replace(" ", "")]
            agreed = {"version": log["version"], "alpn": log.get("alpn", "")}
            agreed |= {"cipher": log["cipher"], "subjects": subjects}
        found.append({"handshake": shown, "alerts": alerts, **agreed})
    return found, record["names"]


def _by_side(messages: Iterable[list[Any]]) -> list[list[Any]]:
    """In order on each side; how the sides alternate is not the same at both ends."""
    return sorted(messages, key=lambda each: each[0])


def ssh(talks: list[Talk]) -> Any:
    """Banners and algorithms."""
    found = []
    for talk in talks:
        banner, other = (each for each in talk.messages if "software" in each["fields"])
        client, server = talk.having("key exchange")
        agreed = server["negotiated"]
        software = other["summary"].removeprefix("SSH-2.0-")
        names = {"kex": "key exchange", "host key": "host key", "cipher": "cipher to server"}
        found.append(
            {"banner": banner["summary"], "software": software}
            | {key: agreed[name] for key, name in names.items()}
            | {"proposal": ",".join(client["key exchange"])}
            | {"ciphers": ",".join(server["cipher to client"])}
        )
    return found


def qga(talks: list[Talk]) -> Any:
    """Each command with its answer."""
    return [[[each["method"], each["fields"]] for each in talk.responses] for talk in talks]


_NBD_COMMANDS: Final = {"READ": "Read", "WRITE": "Write", "BLOCK_STATUS": "Extents"}


def nbd(talks: list[Talk]) -> Any:
    """Command, offset, size and error of each request, which nbdkit's threads log in any order."""
    found = []
    for talk in talks:
        errors = {
            each["fields"]["cookie"]: each["error"]
            for each in talk.responses
            if "cookie" in each["fields"]
        }
        log = []
        for each in talk.requests:
            fields = each["fields"]
            if "cookie" not in fields:
                continue
            place = [fields["offset"], fields["length"]]
            log.append([_NBD_COMMANDS[each["method"]], *place, errors[fields["cookie"]]])
        found.append(sorted(log))
    return found


def nbd_of(record: Record) -> Any:
    """The same of the log."""
    return [sorted(log) for log in record["connections"]]


def adb(talks: list[Talk]) -> Any:
    """The services that were opened, and the requests of sync but the one that ends it."""
    found = []
    for talk in talks:
        log = []
        for each in talk.requests:
            fields = each["fields"]
            if fields.get("command") == "OPEN":
                log.append(["service", fields["service"]])
            elif "request" in fields:
                log.append(["sync", f"{fields['request']} {fields['path']}"])
        found.append(log)
    return found


def nine_p(talks: list[Talk]) -> Any:
    """Name, tag and error of each message."""
    found = []
    for talk in talks:
        log = []
        for each in talk.messages:
            fields = each["fields"]
            error = getattr(errno, each["error"]) if each["error"] else None
            log.append([each["summary"].split()[0].upper(), fields["tag"], error])
        found.append(log)
    return found


def iperf3(talks: list[Talk]) -> Any:
    """Each test, which has two connections."""
    found = []
    for control, data in zip(talks[::2], talks[1::2], strict=True):
        (cookie,) = {one["cookie"] for talk in (control, data) for one in talk.having("cookie")}
        (parameters,) = control.having("client_version")
        results = control.having("streams")
        is_reverse = parameters.get("reverse", False)
        sender = results[is_reverse]
        found.append(
            {
                "cookie": cookie,
                "version": f"iperf {parameters['client_version']}",
                "reverse": is_reverse,
                "sent": sum(stream["bytes"] for stream in sender["streams"]),
            }
        )
    return found


def varlink(talks: list[Talk]) -> Any:
    """Method, number of answers and error of the call of each connection.

    Before it the client asks for the description of the interface, of which it logs nothing.
    """
    found = []
    for talk in talks:
        method = talk.requests[-1]["method"]
        answers = [each for each in talk.responses if each["method"] == method]
        found.append([[method, len(answers), answers[-1]["error"]]])
    return found


def notify(talks: list[Talk]) -> Any:
    """The text of each note."""
    return ["\n".join(f"{name}={value}" for name, value in one.items()) for one in _notes(talks)]


def _notes(talks: list[Talk]) -> list[dict[str, str]]:
    return [each["fields"] for talk in talks for each in talk.messages]


def raw(talks: list[Talk]) -> Any:
    """The bytes of each connection, the same each way."""
    found = []
    for talk in talks:
        assert talk.messages == []
        (size,) = set(talk.sizes.values())
        found.append(size)
    return found


# --- which form is whose --------------------------------------------------------------------


def connections(record: Record) -> Any:
    """What most logs say."""
    return record["connections"]


def adb_of(record: Record) -> Any:
    """Without the end of sync, which is no request to vsockdump."""
    return [[line for line in log if line != ["sync", "QUIT"]] for log in record["connections"]]


class Form(NamedTuple):
    """The protocol of a scenario's connections, and its log as heard and as logged."""

    protocol: str | None
    heard: Callable[[list[Talk]], Any]
    logged: Callable[[Record], Any] = connections


FORMS: Final = {
    "http": Form("http", http),
    "websocket": Form("http", websocket),
    "http2": Form("http2", http2),
    "grpc": Form("http2", grpc),
    "ttrpc": Form("ttrpc", ttrpc, ttrpc_of),
    "tls": Form("tls", tls, tls_of),
    "ssh": Form("ssh", ssh),
    "qga": Form("qga", qga),
    "nbd": Form("nbd", nbd, nbd_of),
    "adb": Form("adb", adb, adb_of),
    "9p": Form("9p", nine_p),
    "iperf3": Form("iperf3", iperf3),
    "varlink": Form("varlink", varlink),
    "notify-stream": Form("sd-notify", notify),
    "notify-seqpacket": Form("sd-notify", notify),
    "raw": Form(None, raw),
}
