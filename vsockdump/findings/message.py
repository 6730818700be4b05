"""Rules about the boundaries of SEQPACKET messages."""

from typing import Final

from vsockdump.findings.rule import Rule, Severity
from vsockdump.track.kinds import Kind

_VIRTIO: Final = "net/vmw_vsock/virtio_transport_common.c"
_SPEC: Final = "virtio specification, Socket Device, Stream and Seqpacket Sockets"

RULES: Final = (
    Rule(
        "vsock.message.flags",
        Severity.WARN,
        Kind.MESSAGE_FLAGS,
        "message flags",
        "data with flags it cannot have: any on STREAM, EOR without EOM, unknown ones",
        "{who} sent {b:type} data with flags {a:hex}",
        "Flags left over in a header, or the wrong type in one.",
        "where the sender sets EOM (1) and EOR (2)",
        _SPEC,
    ),
    Rule(
        "vsock.message.cut",
        Severity.WARN,
        Kind.MESSAGE_CUT,
        "message cut",
        "a SEQPACKET message ended before its EOM",
        "{a:bytes} of a message by {who} were sent when it was cut off without EOM",
        "The sender was closed or killed within a message that did not fit into the credit.",
        "-z stalls: whether it waited for credit; the receiver never gets such a message",
        _SPEC,
    ),
    Rule(
        "vsock.message.too_large",
        Severity.WARN,
        Kind.MESSAGE_SIZE,
        "large message",
        "a SEQPACKET message larger than the receiver's buffer",
        "a message of {who} has {a:bytes} so far, and {peer} has a buffer of {b}",
        "Linux refuses such a message (EMSGSIZE), other senders may not; it can never be read.",
        "the receiver's SO_VM_SOCKETS_BUFFER_SIZE and the size of messages",
        _VIRTIO,
    ),
    Rule(
        "vsock.message.empty_run",
        Severity.WARN,
        Kind.EMPTY_MESSAGES,
        "empty messages",
        "many SEQPACKET messages without bytes in a row",
        "{who} sent {a} messages without bytes in a row",
        "They cost the receiver memory and no credit, so nothing limits them: an attack, or a"
        " loop.",
        "the sender; memory of the receiver's kernel",
        "CVE-2026-53132",
    ),
)
