"""Rules about the life of a connection: connect, data out of turn, close."""

from typing import Final

from vsockdump.findings.rule import Rule, Severity
from vsockdump.track.kinds import Kind

_SOCKET: Final = "net/vmw_vsock/af_vsock.c"
_VIRTIO: Final = "net/vmw_vsock/virtio_transport_common.c"
_SPEC: Final = "virtio specification, Socket Device"

_CONNECT: Final = (
    Rule(
        "vsock.connect.unanswered",
        Severity.WARN,
        Kind.UNANSWERED,
        "unanswered",
        "a REQUEST without an answer for 2 s",
        "{peer} did not answer the REQUEST of {who} for {a:time}",
        "A guest that has stopped or has no driver yet, a device that drops the packet, or one"
        " that knows the addresses as connected.",
        "the receiver's end of the connection; vsock.connect.still_open",
        _SOCKET + ": VSOCK_DEFAULT_CONNECT_TIMEOUT",
    ),
    Rule(
        "vsock.connect.late",
        Severity.WARN,
        Kind.LATE_RESPONSE,
        "late",
        "RESPONSE after the connect timeout of 2 s",
        "{who} answered after {a:time}; connect() gives up after 2 s",
        "A guest without CPU time, or a listener behind a slow proxy.",
        "whether data follows (SO_VM_SOCKETS_CONNECT_TIMEOUT is longer) or an RST",
        _SOCKET,
    ),
    Rule(
        "vsock.connect.refused",
        Severity.NOTE,
        Kind.REFUSED,
        "refused",
        "REQUEST answered by RST",
        "{who} refused the connection after {a:time}",
        "Nobody listens on the port, its listener is of another type, or its backlog is full.",
        "-z connects: whether the same port accepted others",
        _VIRTIO,
    ),
    Rule(
        "vsock.connect.still_open",
        Severity.ERROR,
        Kind.STILL_OPEN,
        "still open",
        "an unanswered REQUEST on addresses whose connection has not ended",
        "{who} began a connection on the addresses of #{a}, which has not ended, and has no answer",
        "One end has forgotten the connection: a guest restored from a snapshot, a proxy or"
        " device that was restarted, a lost RST. Linux drops such a REQUEST, and the client"
        " hangs.",
        "the end of the connection before, and whether an RST was sent for it",
        _VIRTIO,
    ),
    Rule(
        "vsock.connect.reopened",
        Severity.NOTE,
        Kind.REOPENED,
        "reopened",
        "a connection accepted on addresses whose connection had not ended",
        "{who} connected again on the addresses of #{a}; {peer} accepted after {b:time}: both ends"
        " have forgotten #{a}",
        "A guest that was restored from a snapshot or rebooted: its connections are dropped by a"
        " transport reset, which no packet shows, and its ports begin again.",
        "what #N had not finished",
        _SOCKET,
    ),
    Rule(
        "vsock.connect.restarted",
        Severity.WARN,
        Kind.RESTARTED,
        "ports again",
        "refused on addresses whose connection had not ended",
        "{who} used the addresses of #{a} again, which {peer} still holds, and was refused",
        "A guest that was restored or rebooted counts its ports from where they were; the other end"
        " has not been told that its connections are gone.",
        "whether the device resets connections when it is restored",
        _VIRTIO,
    ),
    Rule(
        "vsock.connect.two_answers",
        Severity.NOTE,
        Kind.TWO_ANSWERS,
        "two answers",
        "a RESPONSE behind the RST that refused",
        "{who} accepted {a:time} after an RST had refused the same REQUEST",
        "A late RST of the connection before on these addresses: a device that answers RST by RST."
        " The initiator takes the first answer and resets the second.",
        "the end of the connection before; who sent an RST for an RST",
        _VIRTIO,
    ),
    Rule(
        "vsock.connect.unseen",
        Severity.WARN,
        Kind.UNSEEN,
        "response unseen",
        "accepted at once, and reset by the initiator at its timeout without a byte",
        "{who} reset the connection {a:time} after its REQUEST, without a byte, although {peer} had"
        " accepted after {b:time}: it has not seen the RESPONSE",
        "The initiator's receiving queue is dead: a guest restored from a snapshot whose device"
        " lost its buffers.",
        "whether anything reaches that end any more",
        _SOCKET + ": VSOCK_DEFAULT_CONNECT_TIMEOUT",
    ),
    Rule(
        "vsock.connect.old_counters",
        Severity.WARN,
        Kind.OLD_COUNTERS,
        "old counters",
        "a new connection with the fwd_cnt of the one before on its addresses",
        "{who} begins with fwd_cnt {a}, that of #{b}: it takes this for the same connection",
        "A device that still has the old connection, and answers for it.",
        "what the device does with a REQUEST for a connection that it knows",
        _SPEC,
    ),
    Rule(
        "vsock.connect.reused",
        Severity.NOTE,
        Kind.REUSED,
        "reused early",
        "REQUEST on addresses whose connection waits for its last RST",
        "{who} used the addresses of #{a} again before the RST that ends it",
        "Ports handed out without regard to connections that are being closed.",
        "how the sender chooses its ports",
        _SPEC,
    ),
    Rule(
        "vsock.connect.unasked",
        Severity.WARN,
        Kind.UNASKED_RESPONSE,
        "nobody asked",
        "RESPONSE without a REQUEST",
        "{who} sent a RESPONSE that no REQUEST of {peer} asked for",
        "A RESPONSE sent twice, or an end that confuses its connections.",
        "the packets of these addresses before it",
        _SPEC,
    ),
    Rule(
        "vsock.connect.not_established",
        Severity.ERROR,
        Kind.NOT_ESTABLISHED,
        "not established",
        "data, SHUTDOWN or credit before RESPONSE",
        "{who} sent {a:op} before the RESPONSE; Linux resets such a connection (EPROTO)",
        "A device that sends before the connection stands, or a RESPONSE that was lost.",
        "the order in which the sender's device queues packets",
        _VIRTIO,
    ),
)

_DATA: Final = (
    Rule(
        "vsock.connection.type_changed",
        Severity.ERROR,
        Kind.TYPE_CHANGED,
        "type changed",
        "the type is not the connection's",
        "{who} sent a packet of type {b:type} in a connection of type {a:type}",
        "Linux answers with RST: an end that mixes its sockets up.",
        "where the sender takes the type from",
        _VIRTIO,
    ),
    Rule(
        "vsock.connection.unknown",
        Severity.WARN,
        Kind.UNKNOWN_CONNECTION,
        "unknown to the receiver",
        "data for a connection that its receiver does not know",
        "{peer} sent data to {who}, which knows no such connection and resets it",
        "One end lost its connections: a guest restored from a snapshot or migrated, a device"
        " that was restarted.",
        "what happened to the end that sent the RST",
        _VIRTIO,
    ),
    Rule(
        "vsock.connection.rst_for_rst",
        Severity.WARN,
        Kind.RST_FOR_RST,
        "rst for rst",
        "an RST that answers an RST",
        "{who} answered the RST of {peer} with an RST",
        "Linux never answers an RST. Two ends that both do, never stop.",
        "the device that sent the second RST",
        _VIRTIO,
    ),
    Rule(
        "vsock.connection.rst_storm",
        Severity.WARN,
        Kind.RST_STORM,
        "rst storm",
        "many RSTs for one connection",
        "{who} sent {a} RSTs for one connection",
        "A loop in the device, which takes its processor and every other connection with it.",
        "the device that sends them",
        _VIRTIO,
        most="largest",
    ),
)

_CLOSE: Final = (
    Rule(
        "vsock.close.after_shutdown",
        Severity.ERROR,
        Kind.AFTER_SHUTDOWN,
        "after shutdown",
        "data after its sender's own SHUTDOWN(SEND)",
        "{who} sent {a:bytes} after it had said that it would send no more",
        "SHUTDOWN is permanent; a proxy that shuts down before its last bytes loses them.",
        "the sender's order of write and shutdown",
        _SPEC,
    ),
    Rule(
        "vsock.close.deaf_peer",
        Severity.WARN,
        Kind.DEAF_PEER,
        "nobody reads",
        "data to an end that has said it will receive no more",
        "{who} sent {a:bytes} although {peer} had shut down its receiving {b:time} before",
        "The sender ignores SHUTDOWN(RCV); its bytes are thrown away.",
        "how the sender handles SHUTDOWN",
        _SPEC,
    ),
    Rule(
        "vsock.close.unanswered",
        Severity.WARN,
        Kind.CLOSE_TIMEOUT,
        "close unanswered",
        "a SHUTDOWN of both directions that no RST answered in time",
        "nobody answered the SHUTDOWN of {who} for {a:time}",
        "An application that does not read its data nor close, or a device that sends no RST.",
        "the other end: is it stuck, and does its device answer SHUTDOWN at all?",
        _VIRTIO,
    ),
    Rule(
        "vsock.close.reset",
        Severity.NOTE,
        Kind.RESET,
        "reset",
        "ended by RST while at least one direction was open",
        "{who} reset the connection while data could still be sent",
        "An end that was killed, a device that was removed, or an error: see other findings of"
        " the connection.",
        "what came just before the RST",
        _VIRTIO,
    ),
    Rule(
        "vsock.close.half_closed_idle",
        Severity.NOTE,
        Kind.HALF_CLOSED_IDLE,
        "idle half closed",
        "half a connection without a packet for more than 30 s",
        "nothing more goes from {who} to {peer}, and {peer} has sent nothing for {a:time}",
        "A proxy that does not pass the end of the stream on, or an application that waits for"
        " more.",
        "who should close next: -z conv shows which half is open",
        _SPEC,
    ),
    Rule(
        "vsock.close.bytes_lost",
        Severity.WARN,
        Kind.BYTES_LOST,
        "bytes lost",
        "bytes that the receiver had not read when the connection ended",
        "up to {a:bytes} of {who} were not read by {peer} when the connection ended",
        "The receiver closed or was killed with data unread; nothing else tells the sender.",
        "the receiver's last reads; -z conv for who closed first",
        _VIRTIO,
    ),
    Rule(
        "vsock.close.hole",
        Severity.WARN,
        Kind.HOLE,
        "dropped by receiver",
        "bytes that are never consumed while all behind them is",
        "{peer} has consumed all that {who} sent since, but never the {a:bytes} of packet {b}: they"
        " were dropped, and their credit with them",
        "A device that cannot take a packet over several descriptors: guests with Linux 6.17 and"
        " newer send more than 32 KiB at once so.",
        "the device's log; the largest packet that it took",
        _SPEC,
    ),
    Rule(
        "vsock.close.request_dropped",
        Severity.NOTE,
        Kind.REQUEST_DROPPED,
        "unanswered request",
        "an acceptor that stops receiving while the initiator's last data has no answer",
        "{who} shut its receiving down {a:time} after {peer}'s last data, without an answer",
        "The program at the acceptor ended or failed with a request at hand.",
        "what the acceptor's program did with that request",
        _SPEC,
    ),
    Rule(
        "vsock.close.answer_lost",
        Severity.NOTE,
        Kind.ANSWER_LOST,
        "answer lost",
        "an answer to an end that shut down both directions behind its request",
        "{who} sent {a:bytes} in answer, {b:time} after {peer} had shut its receiving down together"
        " with the end of its request",
        "A proxy or device that makes a SHUTDOWN of both directions of the end of a request (a half"
        " close): the answer is thrown away.",
        "how the end of the request is passed on: SHUT_WR has to stay one direction",
        _SPEC,
    ),
    Rule(
        "vsock.close.answer_cut",
        Severity.NOTE,
        Kind.ANSWER_CUT,
        "no answer",
        "both directions shut down behind a request to an endpoint that answers all others",
        "{who} shut both directions down {a:time} after its request, and got no answer; {peer}"
        " answered all others",
        "A proxy or device that makes a SHUTDOWN of both directions of the end of a request (a half"
        " close), or an initiator that wants no answer.",
        "how the end of the request is passed on: SHUT_WR has to stay one direction",
        _SPEC,
    ),
)

RULES: Final = (*_CONNECT, *_DATA, *_CLOSE)
