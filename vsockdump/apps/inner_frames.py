"""One line for an Ethernet frame, as tcpdump would print it, and its fields, when asked for.

Rules for editors: the line is made for every frame of a tunnel, so it is read with struct
and looks no deeper than who talks to whom and, for DNS, about what.  All other fields are
Scapy's, which takes a hundred times as long: `frame_fields` asks it only when somebody looks.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from struct import Struct, error
from typing import Any, Final

from vsockdump.apps.message import Fields, Value
from vsockdump.lazy import DECODERS, Decoded

HEADER: Final = 14  # bytes of an Ethernet header without tags
_VLAN: Final = (0x8100, 0x88A8)
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_ETHERTYPES: Final = {_IPV4: "IPv4", _IPV6: "IPv6", _ARP: "ARP", 0x888E: "EAPOL", 0x88CC: "LLDP"}
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_IP_PROTOCOLS: Final = {_TCP: "TCP", _UDP: "UDP", _ICMP: "ICMP", _ICMPV6: "ICMPv6", 2: "IGMP"}
_ICMP_TYPES: Final = {
    0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded",
}  # fmt: skip
_ICMPV6_TYPES: Final = {
    1: "unreachable", 2: "too big", 3: "time exceeded", 128: "echo request", 129: "echo reply",
    133: "router solicitation", 134: "router advertisement", 135: "neighbour solicitation",
    136: "neighbour advertisement", 143: "multicast report",
}  # fmt: skip
_DNS_TYPES: Final = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT",
                     28: "AAAA", 33: "SRV", 65: "HTTPS", 255: "ANY"}  # fmt: skip
_TCP_FLAGS: Final = "FSRP.UEW"  # from the lowest bit, in tcpdump's letters
_DNS_PORTS: Final = (53, 5353)
_MOST_LABELS: Final = 32
_DECODER: Final = "frame"

_TYPE: Final = Struct(">H")
_ARP_BODY: Final = Struct(">HHBBH6s4s6s4s")
_IPV4_HEADER: Final = Struct(">BBHHHBBH4s4s")
_IPV6_HEADER: Final = Struct(">IHBB16s16s")
_PORTS: Final = Struct(">HH")
_DNS_HEADER: Final = Struct(">HHHHHH")


def frame_line(frame: bytes) -> str:
    """`192.168.127.2.40000 > 192.168.127.1.53 UDP DNS A? example.com`."""
    try:
        return _ethernet(frame)
    except (error, IndexError):
        return f"{_macs(frame)} cut" if len(frame) >= HEADER else f"{len(frame)} bytes of a frame"


def ethertype_of(frame: bytes) -> int:
    """What the header says that it carries; frame has HEADER bytes."""
    return int(_TYPE.unpack_from(frame, 12)[0])


def is_usual(frame: bytes) -> bool:
    """Whether a frame carries IP or ARP, as nearly all do."""
    return len(frame) >= HEADER and ethertype_of(frame) in (_IPV4, _IPV6, _ARP, *_VLAN)


def _macs(frame: bytes) -> str:
    return f"{frame[6:12].hex(':')} > {frame[:6].hex(':')}"


def _ethernet(frame: bytes) -> str:
    kind, at, tag = ethertype_of(frame), HEADER, ""
    while kind in _VLAN:
        tag += f"vlan {_TYPE.unpack_from(frame, at)[0] & 0xFFF} "
        kind, at = _TYPE.unpack_from(frame, at + 2)[0], at + 4
    if kind == _ARP:
        return tag + _arp(frame, at)
    if kind == _IPV4:
        return tag + _ipv4(frame, at)
    if kind == _IPV6:
        return tag + _ipv6(frame, at)
    return f"{tag}{_macs(frame)} {_ETHERTYPES.get(kind, f'ethertype {kind:#06x}')}"


def _arp(frame: bytes, at: int) -> str:
    *_sizes, op, hardware, sender, _target_hardware, target = _ARP_BODY.unpack_from(frame, at)
    if op == 2:
        return f"ARP {IPv4Address(sender)} is-at {hardware.hex(':')}"
    return f"ARP who-has {IPv4Address(target)} tell {IPv4Address(sender)}"


def _ipv4(frame: bytes, at: int) -> str:
    first, _tos, _size, _id, fragment, _ttl, protocol, _sum, source, target = (
        _IPV4_HEADER.unpack_from(frame, at)
    )
    ends = (str(IPv4Address(source)), str(IPv4Address(target)))
    if fragment & 0x1FFF:
        return f"{ends[0]} > {ends[1]} {_named(protocol)} fragment"
    return _transport(frame, at + 4 * (first & 15), protocol, ends)


def _ipv6(frame: bytes, at: int) -> str:
    _first, _size, following, _hops, source, target = _IPV6_HEADER.unpack_from(frame, at)
    ends = (str(IPv6Address(source)), str(IPv6Address(target)))
    at += _IPV6_HEADER.size
    if following == 0:  # hop-by-hop options, which multicast reports have
        following, at = frame[at], at + 8 + 8 * frame[at + 1]
    return _transport(frame, at, following, ends)


def _named(protocol: int) -> str:
    return _IP_PROTOCOLS.get(protocol, f"protocol {protocol}")


def _transport(frame: bytes, at: int, protocol: int, ends: tuple[str, str]) -> str:
    if protocol not in (_TCP, _UDP):
        kinds = {_ICMP: _ICMP_TYPES, _ICMPV6: _ICMPV6_TYPES}.get(protocol)
        what = f" {kinds.get(frame[at], f'type {frame[at]}')}" if kinds else ""
        return f"{ends[0]} > {ends[1]} {_named(protocol)}{what}"
    ports = _PORTS.unpack_from(frame, at)
    talk = f"{ends[0]}.{ports[0]} > {ends[1]}.{ports[1]} {_named(protocol)}"
    if protocol == _TCP:
        flags = frame[at + 13]
        letters = "".join(letter for bit, letter in enumerate(_TCP_FLAGS) if flags >> bit & 1)
        return f"{talk} [{letters}]"
    if not set(ports).isdisjoint(_DNS_PORTS):
        return f"{talk} {_dns(frame[at + 8 :])}"
    return talk


def _dns(data: bytes) -> str:
    """The question of a DNS message, and how many answers there are."""
    _id, flags, questions, answers, *_rest = _DNS_HEADER.unpack_from(data)
    if not questions:
        return "DNS"
    at, labels = _DNS_HEADER.size, list[str]()
    while (size := data[at]) and size < 64 and len(labels) < _MOST_LABELS:
        labels.append(data[at + 1 : at + 1 + size].decode("ascii", "backslashreplace"))
        at += 1 + size
    kind = _TYPE.unpack_from(data, at + 1)[0]
    question = f"{_DNS_TYPES.get(kind, f'type {kind}')}? {'.'.join(labels) or '.'}"
    if not flags >> 15:
        return f"DNS {question}"
    failure = f" error {flags & 15}" if flags & 15 else ""
    return f"DNS {question} answers {answers}{failure}"


def frame_fields(frame: bytes, missing: int = 0) -> Fields:
    """The fields of a tunnelled frame.

    Its bytes (`frame`), how many of them are `missing` from the capture, and its `layers`,
    which Scapy decodes when somebody looks.
    """
    return {"frame": frame, "missing": missing, "layers": Decoded(_DECODER, frame)}


def _layers(frame: bytes) -> Mapping[str, Value]:
    # Layers that are not imported are not known to those below them.
    from scapy.layers import dhcp, dns, inet, inet6  # noqa: F401
    from scapy.layers.l2 import Ether

    layers: dict[str, Value] = {}
    packet: Any = Ether(frame)
    while packet:
        name = packet.name if packet.name not in layers else f"{packet.name} {len(layers)}"
        layers[name] = {key: _plain(value) for key, value in packet.fields.items()}
        packet = packet.payload
    return layers


def _plain(value: Any) -> Value:
    """A value of a field of Scapy's, without its types."""
    if isinstance(value, int | float | str | bytes | None):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value)


DECODERS[_DECODER] = _layers
