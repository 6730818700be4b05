-- vsockdump in Wireshark: connections, credit and findings of AF_VSOCK captures, and the
-- protocols inside them. `vsockdump --lua` prints this file; how to install and use it stands
-- in vsockdump's README. Wireshark 4.0 and newer.
--
-- Made by vsockdump/output/lua.py: change that, or lua_parts beside it, and not this file.

local wire = {
  monitor_size = 32,
  virtio_size = 44,
  headers_size = 76,
  addresses_size = 24,
  max_payload = 65536,
  arphrd = 826,
  no_info = 1,
  virtio = 2,
  cid_local = 1,
  cid_host = 2,
  cid_parent = 3,
  cid_any = 4294967295,
  cid_names = { [0] = "hypervisor", [1] = "local", [2] = "host", [4294967295] = "any" },
  op = {
    INVALID = 0,
    REQUEST = 1,
    RESPONSE = 2,
    RST = 3,
    SHUTDOWN = 4,
    RW = 5,
    CREDIT_UPDATE = 6,
    CREDIT_REQUEST = 7,
  },
  last_op = 7,
  type = { INVALID = 0, STREAM = 1, SEQPACKET = 2, DGRAM = 3 },
  op_names = {
    [0] = "INVALID",
    [1] = "REQUEST",
    [2] = "RESPONSE",
    [3] = "RST",
    [4] = "SHUTDOWN",
    [5] = "RW",
    [6] = "CREDIT_UPDATE",
    [7] = "CREDIT_REQUEST",
  },
  type_names = { [0] = "INVALID", [1] = "STREAM", [2] = "SEQPACKET", [3] = "DGRAM" },
  monitor_op_names = {
    [0] = "UNKNOWN",
    [1] = "CONNECT",
    [2] = "DISCONNECT",
    [3] = "CONTROL",
    [4] = "PAYLOAD",
  },
  transport_names = { [0] = "UNKNOWN", [1] = "NO_INFO", [2] = "VIRTIO" },
  outer_op = { [1] = 1, [2] = 1, [3] = 2, [4] = 2, [5] = 4, [6] = 3, [7] = 3 },
  eor = 2,
  shutdown_flags = { "RCV", "SEND" },
  seqpacket_flags = { "EOM", "EOR" },
}

do
  local unpack = Struct and Struct.unpack or string.unpack
  function wire.read_headers(p, raw)
    p.mon_op, p.mon_t, p.mon_len, p.mon_reserved, p.src_cid_lo, p.src_cid_hi,
      p.dst_cid_lo, p.dst_cid_hi, p.src_port, p.dst_port, p.len, p.type, p.op, p.flags,
      p.buf_alloc, p.fwd_cnt
      = unpack("<I2I2I2I2I4I4I4I4I4I4I4I2I2I4I4I4", raw, 25)
  end
end

do
  local unpack = Struct and Struct.unpack or string.unpack
  function wire.read_monitor(p, raw)
    p.mon_op, p.mon_t, p.mon_len, p.mon_reserved
      = unpack("<I2I2I2I2", raw, 25)
  end
end

local states = {
  state = {
    NONE = 0,
    CONNECTING = 1,
    LATE = 2,
    OPEN = 3,
    HALF_CLOSED_INITIATOR = 4,
    HALF_CLOSED_ACCEPTOR = 5,
    CLOSING = 6,
    CLOSED = 7,
    RESET = 8,
    REFUSED = 9,
    TIMED_OUT = 10,
    REPLACED = 11,
    DATAGRAM = 12,
  },
  word = {
    [0] = "none",
    [1] = "connecting",
    [2] = "late",
    [3] = "open",
    [4] = "half-closed-initiator",
    [5] = "half-closed-acceptor",
    [6] = "closing",
    [7] = "closed",
    [8] = "reset",
    [9] = "refused",
    [10] = "timed-out",
    [11] = "replaced",
    [12] = "datagram",
  },
  sides = { [0] = "initiator", [1] = "acceptor" },
  event = {
    NOTHING = 0,
    RESPONSE = 1,
    LATE_RESPONSE = 2,
    DATA = 3,
    INITIATOR_ENDED = 4,
    ACCEPTOR_ENDED = 5,
    BOTH_ENDED = 6,
    INITIATOR_RST = 7,
    ACCEPTOR_RST = 8,
    CLOSER_ABORTED = 9,
    CLOSER_GAVE_UP = 10,
  },
  terminal = { [7] = true, [8] = true, [9] = true, [10] = true, [11] = true },
  transitions = {
    [1] = { [1] = 3, [2] = 2, [7] = 8, [8] = 9 },
    [2] = { [7] = 10, [8] = 8, [6] = 6, [4] = 4, [5] = 5, [3] = 3 },
    [3] = { [7] = 8, [8] = 8, [6] = 6, [4] = 4, [5] = 5 },
    [4] = { [7] = 8, [8] = 8, [6] = 6 },
    [5] = { [7] = 8, [8] = 8, [6] = 6 },
    [9] = { [1] = 3 },
    [6] = { [7] = 7, [8] = 7, [9] = 8, [10] = 10 },
  },
  cause = { READER = 0, OWN_BUFFER = 1, UNTOLD = 2 },
  limit = { UNKNOWN = 0, UNCAPPED = 1, CAPPED = 2 },
  doubt = { MISSING = 1, ORDER = 2, SHARED = 4 },
  doubts = {
    [2] = "; the connection's packets are out of order (--reorder), and it may not be so",
    [4] = "; two connections share these addresses",
    [1] = ", unless packets are missing",
  },
}

local limits = {
  SECOND = 1000000000,
  CONNECT_TIMEOUT_NS = 2000000000,
  CLOSE_TIMEOUT_NS = 1000000000,
  CLOSE_UNANSWERED_NS = 8000000000,
  ANSWER_TIMEOUT_NS = 2000000000,
  HALF_CLOSED_IDLE_NS = 30000000000,
  LONG_STALL_NS = 100000000,
  DEADLOCK_NS = 2000000000,
  LATEST_ANSWER_NS = 60000000000,
  UNDER_WAY_NS = 100000000,
  SOON_NS = 1000000000,
  TIME_BACK_NS = 1000000,
  HUGE_BUFFER = 4026531840,
  OVERHEAD = 576,
  MANY_QUEUED = 64,
  FEW_QUEUED = 8,
  EMPTY_RUN = 16,
  QUIET_RUN = 3,
  UPDATE_STORM = 32,
  BACKS = 4,
  RST_STORM = 16,
  WAITS_NS = 100000000,
  WAITS_PART = 10,
  WAITS_SEEN = 2,
  GIVEN_UP_NS = { 1900000000, 2500000000 },
  AT_ONCE_NS = 100000000,
  HANG_NS = 10000000000,
  GAP_LEAST = 4097,
  GAP_ROUNDS = 4,
  ANSWERS = 3,
  connections = 65536,
  peers = 4096,
}

local malformed = {
  code = {
    NONE = 0,
    FOREIGN = 1,
    SHORT_MONITOR = 2,
    CUT_MONITOR = 3,
    TRANSPORT_LENGTH = 4,
    SHORT_TRANSPORT = 5,
    CUT_TRANSPORT = 6,
  },
  text = {
    [1] = "not a vsock frame",
    [2] = "frame shorter than the 32-byte monitor header",
    [3] = "snaplen cuts the monitor header",
    [4] = "transport header length is less than the 44 bytes of virtio",
    [5] = "transport header runs past the end of the frame",
    [6] = "snaplen cuts the transport header",
  },
}

local MARK = {
  MIDSTREAM = 0,
  TAP_REPEAT = 1,
  CUT = 2,
  LATE_RESPONSE = 6,
  SHORT_PAYLOAD = 7,
  ADDRESS_MISMATCH = 8,
  OP_MISMATCH = 9,
  UNKNOWN_OP = 10,
  UNKNOWN_TYPE = 11,
  CONTROL_PAYLOAD = 12,
  TYPE_CHANGED = 13,
  NOT_ESTABLISHED = 14,
  AFTER_SHUTDOWN = 15,
  STILL_OPEN = 78,
  OVER_CREDIT = 17,
  FWD_AHEAD = 18,
  FWD_BACK = 19,
  MALFORMED = 20,
  CUT_HEADERS = 21,
  LONG_HEADER = 22,
  UNKNOWN_TRANSPORT = 23,
  RESERVED = 24,
  FRAME_PAYLOAD = 25,
  TOO_LONG = 26,
  EMPTY_DATA = 27,
  EMPTY_MESSAGES = 28,
  WIDE_CID = 29,
  RESERVED_CID = 30,
  UNROUTED = 93,
  FLAGS = 32,
  SHUTDOWN_FLAGS = 33,
  MESSAGE_FLAGS = 34,
  MESSAGE_CUT = 35,
  MESSAGE_SIZE = 36,
  REFUSED = 37,
  UNANSWERED = 38,
  REUSED = 39,
  UNASKED_RESPONSE = 40,
  UNKNOWN_CONNECTION = 41,
  RST_FOR_RST = 42,
  DEAF_PEER = 43,
  CLOSE_TIMEOUT = 44,
  RESET = 45,
  HALF_CLOSED_IDLE = 46,
  BYTES_LOST = 47,
  NO_CREDIT = 48,
  TIME_BACK = 49,
  STALL = 50,
  DEADLOCK = 51,
  UNANSWERED_ASK = 52,
  NO_UPDATES = 53,
  UPDATE_STORM = 54,
  HUGE_BUFFER = 55,
  SMALL_BUFFER = 56,
  SMALL_PACKETS = 57,
  OVERRUN_RESET = 58,
  OWN_BUFFER = 59,
  BUFFER_CHANGED = 60,
  INTERLEAVED = 61,
  SHRUNK = 62,
  DROPPED = 125,
  NO_CAP = 126,
  REOPENED = 127,
  TWO_ANSWERS = 128,
  UNSEEN = 129,
  OLD_COUNTERS = 130,
  RESTARTED = 131,
  RST_STORM = 132,
  SHARED_FWD = 133,
  GRANT_IGNORED = 134,
  HOLE = 135,
  REQUEST_DROPPED = 136,
  ANSWER_LOST = 137,
  ANSWER_CUT = 138,
  COPIES = 31,
  OUT_OF_ORDER = 140,
  NO_SOCKET = 3,
  LATER_RST = 4,
  ZERO_CREDIT = 5,
  OPEN_BEFORE = 16,
}

local MARKS = 64

local REMARKS = { [3] = true, [4] = true, [5] = true, [16] = true }

local findings = {
  [0] = {
    word = "mid-stream",
    shown = true,
    name = "vsock.capture.midstream",
    severity = "chat",
    what = "the connection began before the capture; its tx_cnt is unknown",
    message = "the connection began before the capture: bytes sent and credit are unknown at first",
  },
  [1] = {
    word = "tap repeat",
    name = "vsock.frame.tap_repeat",
    severity = "chat",
    what = "the kernel's tap added bytes of other packets; they are left out",
    message = "frames of {who} carry more bytes than their packets; the tap's repeat is left out",
  },
  [2] = {
    word = "cut",
    name = "vsock.capture.cut",
    severity = "chat",
    what = "snaplen cut the payload",
    message = "payloads were cut when they were captured",
  },
  [3] = { word = "no socket", shown = true },
  [4] = { word = "after the end", shown = false },
  [5] = { word = "credit used up", shown = true },
  [6] = {
    word = "late",
    wrong = true,
    name = "vsock.connect.late",
    severity = "warn",
    what = "RESPONSE after the connect timeout of 2 s",
    message = "{who} answered after {a:time}; connect() gives up after 2 s",
  },
  [7] = {
    word = "short payload",
    wrong = true,
    name = "vsock.frame.short_payload",
    severity = "warn",
    what = "fewer bytes in the frame than len says",
    message = "the frame of {who} carries {a:bytes} and its len says {b}",
  },
  [8] = {
    word = "addresses disagree",
    wrong = true,
    name = "vsock.frame.addresses",
    severity = "warn",
    what = "monitor and virtio header give different addresses",
    message = "the monitor header's addresses are not those of {who}'s virtio header",
  },
  [9] = {
    word = "op disagrees",
    wrong = true,
    name = "vsock.frame.op",
    severity = "warn",
    what = "monitor op is not that of the virtio op",
    message = "monitor op {a:monitor} does not belong to virtio op {b:op}",
  },
  [10] = {
    word = "unknown op",
    wrong = true,
    name = "vsock.frame.unknown_op",
    severity = "warn",
    what = "op 0 or above 7",
    message = "{who} sent op {a}, which does not exist",
  },
  [11] = {
    word = "unknown type",
    wrong = true,
    name = "vsock.frame.unknown_type",
    severity = "warn",
    what = "a type other than 1, 2 and 3",
    message = "{who} sent a packet of type {a}; the receiver must answer by RST",
  },
  [12] = {
    word = "payload on control",
    wrong = true,
    name = "vsock.frame.control_payload",
    severity = "warn",
    what = "len is not 0 in a control packet",
    message = "{who} sent a {b:op} whose len is {a}; only RW packets have a payload",
  },
  [13] = {
    word = "type changed",
    wrong = true,
    name = "vsock.connection.type_changed",
    severity = "error",
    what = "the type is not the connection's",
    message = "{who} sent a packet of type {b:type} in a connection of type {a:type}",
  },
  [14] = {
    word = "not established",
    wrong = true,
    name = "vsock.connect.not_established",
    severity = "error",
    what = "data, SHUTDOWN or credit before RESPONSE",
    message = "{who} sent {a:op} before the RESPONSE; Linux resets such a connection (EPROTO)",
  },
  [15] = {
    word = "after shutdown",
    wrong = true,
    name = "vsock.close.after_shutdown",
    severity = "error",
    what = "data after its sender's own SHUTDOWN(SEND)",
    message = "{who} sent {a:bytes} after it had said that it would send no more",
  },
  [16] = { word = "addresses in use", shown = true },
  [17] = {
    word = "over credit",
    wrong = true,
    name = "vsock.credit.overrun",
    severity = "warn",
    what = "more bytes sent than credit was ever given",
    message = "{who} sent {a:bytes} beyond all credit it was ever given; {peer}'s buffer has {b}",
  },
  [18] = {
    word = "fwd_cnt ahead",
    wrong = true,
    name = "vsock.credit.fwd_ahead",
    severity = "warn",
    what = "more bytes consumed than sent: packets are missing or it is wrong",
    message = "{who} says it has consumed {a:bytes} more than {peer} was seen to send",
  },
  [19] = {
    word = "fwd_cnt back",
    wrong = true,
    name = "vsock.credit.fwd_back",
    severity = "error",
    what = "fwd_cnt went back",
    message = "fwd_cnt of {who} went back by {a}; it only counts up, mod 2^32",
  },
  [20] = {
    word = "malformed",
    wrong = true,
    name = "vsock.frame.malformed",
    severity = "error",
    what = "the headers cannot be read to their end",
    message = "the headers cannot be read: {a:malformed}",
  },
  [21] = {
    word = "headers cut",
    shown = true,
    name = "vsock.capture.cut_headers",
    severity = "note",
    what = "snaplen cut the headers: the packet belongs to no connection",
    message = "only {a:bytes} were captured of a packet, less than its headers",
  },
  [22] = {
    word = "long header",
    wrong = true,
    name = "vsock.frame.header_length",
    severity = "warn",
    what = "the transport header is longer than the 44 bytes of virtio",
    message = "the monitor header gives a transport header of {a:bytes}, virtio's has 44",
  },
  [23] = {
    word = "unknown transport",
    wrong = true,
    name = "vsock.frame.unknown_transport",
    severity = "warn",
    what = "the transport is neither virtio nor one without information",
    message = "the monitor header names transport {a}, which has no header that is known",
  },
  [24] = {
    word = "reserved",
    shown = true,
    name = "vsock.frame.reserved",
    severity = "note",
    what = "the monitor header's reserved field is not zero",
    message = "the reserved field of the monitor header is {a:hex}",
  },
  [25] = {
    word = "payload in frame",
    wrong = true,
    name = "vsock.frame.payload",
    severity = "warn",
    what = "a control packet's frame goes on behind its headers",
    message = "{a:bytes} stand behind the headers of {who}'s {b:op}, whose len is 0",
  },
  [26] = {
    word = "too long",
    wrong = true,
    name = "vsock.frame.too_long",
    severity = "warn",
    what = "len is above 65536, which vhost drops",
    message = "{who} sent a packet of {a:bytes}; vhost drops what is longer than 65536",
  },
  [27] = {
    word = "empty",
    shown = true,
    name = "vsock.frame.empty_data",
    severity = "note",
    what = "a STREAM packet without data",
    message = "{who} sent a STREAM RW without data, which Linux never does",
  },
  [28] = {
    word = "empty messages",
    wrong = true,
    name = "vsock.message.empty_run",
    severity = "warn",
    what = "many SEQPACKET messages without bytes in a row",
    message = "{who} sent {a} messages without bytes in a row",
  },
  [29] = {
    word = "wide cid",
    wrong = true,
    name = "vsock.address.wide",
    severity = "warn",
    what = "the upper 32 bits of a context id are not zero",
    message = "{who} uses a context id of more than 32 bits; the upper ones are reserved",
  },
  [30] = {
    word = "reserved cid",
    wrong = true,
    name = "vsock.address.reserved",
    severity = "warn",
    what = "a context id that nobody can have: 0, 0xffffffff or 2^64-1",
    message = "a packet between {who} and {peer}: one of these context ids is reserved",
  },
  [31] = {
    word = "copy",
    shown = true,
    name = "vsock.capture.copies",
    severity = "note",
    what = "packets that stand in the capture twice, and count once",
    message = "a packet with the monitor, time and bytes of one before it is a copy, and does not count",
  },
  [32] = {
    word = "flags",
    shown = true,
    name = "vsock.frame.flags",
    severity = "note",
    what = "flags are set in a packet that has none",
    message = "{who} sent a {b:op} with flags {a:hex}; it has none",
  },
  [33] = {
    word = "shutdown flags",
    wrong = true,
    name = "vsock.frame.shutdown_flags",
    severity = "warn",
    what = "a SHUTDOWN with no flag or an unknown one",
    message = "{who} sent a SHUTDOWN with flags {a:hex}; RCV (1) and SEND (2) are all there are",
  },
  [34] = {
    word = "message flags",
    wrong = true,
    name = "vsock.message.flags",
    severity = "warn",
    what = "data with flags it cannot have: any on STREAM, EOR without EOM, unknown ones",
    message = "{who} sent {b:type} data with flags {a:hex}",
  },
  [35] = {
    word = "message cut",
    wrong = true,
    name = "vsock.message.cut",
    severity = "warn",
    what = "a SEQPACKET message ended before its EOM",
    message = "{a:bytes} of a message by {who} were sent when it was cut off without EOM",
  },
  [36] = {
    word = "large message",
    wrong = true,
    name = "vsock.message.too_large",
    severity = "warn",
    what = "a SEQPACKET message larger than the receiver's buffer",
    message = "a message of {who} has {a:bytes} so far, and {peer} has a buffer of {b}",
  },
  [37] = {
    word = "refused",
    name = "vsock.connect.refused",
    severity = "note",
    what = "REQUEST answered by RST",
    message = "{who} refused the connection after {a:time}",
  },
  [38] = {
    word = "unanswered",
    wrong = true,
    name = "vsock.connect.unanswered",
    severity = "warn",
    what = "a REQUEST without an answer for 2 s",
    message = "{peer} did not answer the REQUEST of {who} for {a:time}",
  },
  [39] = {
    word = "reused early",
    shown = true,
    name = "vsock.connect.reused",
    severity = "note",
    what = "REQUEST on addresses whose connection waits for its last RST",
    message = "{who} used the addresses of #{a} again before the RST that ends it",
  },
  [40] = {
    word = "nobody asked",
    wrong = true,
    name = "vsock.connect.unasked",
    severity = "warn",
    what = "RESPONSE without a REQUEST",
    message = "{who} sent a RESPONSE that no REQUEST of {peer} asked for",
  },
  [41] = {
    word = "unknown to the receiver",
    wrong = true,
    name = "vsock.connection.unknown",
    severity = "warn",
    what = "data for a connection that its receiver does not know",
    message = "{peer} sent data to {who}, which knows no such connection and resets it",
  },
  [42] = {
    word = "rst for rst",
    wrong = true,
    name = "vsock.connection.rst_for_rst",
    severity = "warn",
    what = "an RST that answers an RST",
    message = "{who} answered the RST of {peer} with an RST",
  },
  [43] = {
    word = "nobody reads",
    wrong = true,
    name = "vsock.close.deaf_peer",
    severity = "warn",
    what = "data to an end that has said it will receive no more",
    message = "{who} sent {a:bytes} although {peer} had shut down its receiving {b:time} before",
  },
  [44] = {
    word = "close unanswered",
    wrong = true,
    name = "vsock.close.unanswered",
    severity = "warn",
    what = "a SHUTDOWN of both directions that no RST answered in time",
    message = "nobody answered the SHUTDOWN of {who} for {a:time}",
  },
  [45] = {
    word = "reset",
    name = "vsock.close.reset",
    severity = "note",
    what = "ended by RST while at least one direction was open",
    message = "{who} reset the connection while data could still be sent",
  },
  [46] = {
    word = "idle half closed",
    shown = true,
    name = "vsock.close.half_closed_idle",
    severity = "note",
    what = "half a connection without a packet for more than 30 s",
    message = "nothing more goes from {who} to {peer}, and {peer} has sent nothing for {a:time}",
  },
  [47] = {
    word = "bytes lost",
    wrong = true,
    name = "vsock.close.bytes_lost",
    severity = "warn",
    what = "bytes that the receiver had not read when the connection ended",
    message = "up to {a:bytes} of {who} were not read by {peer} when the connection ended",
  },
  [48] = {
    word = "no buffer",
    wrong = true,
    name = "vsock.credit.zero",
    severity = "warn",
    what = "buf_alloc is 0 in a packet of a living connection",
    message = "{who} gave a buf_alloc of 0: {peer} may send nothing",
  },
  [49] = {
    word = "time back",
    shown = true,
    name = "vsock.capture.time_back",
    severity = "note",
    what = "a packet's time is more than 1 ms before that of the packet before it",
    message = "time went back by {a:time}",
  },
  [50] = {
    word = "stall",
    shown = true,
    name = "vsock.credit.stall",
    severity = "note",
    others = {
      [1] = "{who} could send nothing for {a:time}: its own buffer was full, with {b:bytes} in flight",
      [2] = "{who} could send nothing for {a:time}: {peer} had read all {b:bytes} and not told so by a CREDIT_UPDATE",
    },
    what = "no credit for 0.1 s or longer",
    message = "{who} could send nothing for {a:time}; {b:bytes} waited for {peer} to read",
  },
  [51] = {
    word = "deadlock",
    wrong = true,
    name = "vsock.credit.deadlock",
    severity = "warn",
    what = "both ends without credit for 2 s or longer, until the end",
    message = "both ends had no credit for {a:time}: each waits for the other to read",
  },
  [52] = {
    word = "late credit",
    wrong = true,
    name = "vsock.credit.request_unanswered",
    severity = "warn",
    what = "a CREDIT_REQUEST without an answer for 2 s",
    message = "{who} did not answer the CREDIT_REQUEST of {peer} for {a:time}",
  },
  [53] = {
    word = "no updates",
    shown = true,
    name = "vsock.credit.no_updates",
    severity = "note",
    what = "a reader that tells of its progress only with data of its own",
    message = "{who} consumed {a:bytes} of a buffer of {b} without a CREDIT_UPDATE, again and again",
  },
  [54] = {
    word = "many updates",
    shown = true,
    name = "vsock.credit.update_storm",
    severity = "note",
    what = "more than two CREDIT_UPDATEs for each packet of the other end",
    message = "{who} sent {a} CREDIT_UPDATEs for {b:packets} of {peer}",
  },
  [55] = {
    word = "huge buffer",
    shown = true,
    name = "vsock.credit.huge_buffer",
    severity = "note",
    what = "a buf_alloc near 2^32: a window that is no window",
    message = "{who} gave a buf_alloc of {a}: credit limits nothing then",
  },
  [56] = {
    word = "small buffer",
    name = "vsock.credit.small_buffer",
    severity = "chat",
    what = "a buf_alloc below 64 KiB",
    message = "{who} has a buffer of {a:bytes}; below 64 KiB Linux sends an update on every read",
  },
  [57] = {
    word = "small packets",
    wrong = true,
    name = "vsock.credit.small_packets",
    severity = "warn",
    what = "a reset while many small packets were queued",
    message = "{peer} reset the connection with up to {a} small packets of {who} unread",
  },
  [58] = {
    word = "reset for overrun",
    wrong = true,
    name = "vsock.credit.overrun_reset",
    severity = "warn",
    what = "an RST soon after data beyond the credit",
    message = "{peer} reset the connection {a:time} after {who} had sent beyond its credit",
  },
  [59] = {
    word = "own buffer",
    name = "vsock.credit.own_buffer",
    severity = "chat",
    what = "the sender's own buffer limits it, not the receiver's",
    message = "{who} is limited by its own buffer of {a}, {peer} has one of {b}",
  },
  [60] = {
    word = "buffer changed",
    name = "vsock.credit.buffer_changed",
    severity = "chat",
    what = "buf_alloc changed within a connection",
    message = "the buffer of {who} changed from {a} to {b}",
  },
  [61] = {
    word = "two in one",
    wrong = true,
    name = "vsock.capture.interleaved",
    severity = "warn",
    what = "one pair of addresses with two sets of counters",
    message = "fwd_cnt of {who} went back {a} times: two connections share these addresses",
  },
  [62] = {
    word = "buffer shrunk",
    wrong = true,
    name = "vsock.credit.shrunk",
    severity = "warn",
    what = "buf_alloc fell below the bytes that are in flight",
    message = "{who} lowered its buffer to {b} with {a:bytes} in flight",
  },
  [78] = {
    word = "still open",
    wrong = true,
    name = "vsock.connect.still_open",
    severity = "error",
    what = "an unanswered REQUEST on addresses whose connection has not ended",
    message = "{who} began a connection on the addresses of #{a}, which has not ended, and has no answer",
  },
  [93] = {
    word = "not for the host",
    shown = true,
    name = "vsock.address.unrouted",
    severity = "note",
    what = "from a guest to another guest or to 1, unanswered, where vhost is the device",
    message = "{who} asked for a connection with {peer}; vhost only takes what guests send to the host",
  },
  [125] = {
    word = "dropped",
    wrong = true,
    name = "vsock.capture.dropped",
    severity = "warn",
    what = "the kernel dropped packets while they were captured",
    message = "the kernel dropped {a} of {b:packets}; bytes and credit may be wrong",
  },
  [126] = {
    word = "receiver limits",
    name = "vsock.credit.receiver_limits",
    severity = "chat",
    what = "a sender with more in flight than its own buffer: only the receiver's limits it",
    message = "{who} has {a:bytes} in flight and a buffer of {b} itself: only {peer}'s limits it",
  },
  [127] = {
    word = "reopened",
    shown = true,
    name = "vsock.connect.reopened",
    severity = "note",
    what = "a connection accepted on addresses whose connection had not ended",
    message = "{who} connected again on the addresses of #{a}; {peer} accepted after {b:time}: both ends have forgotten #{a}",
  },
  [128] = {
    word = "two answers",
    shown = true,
    name = "vsock.connect.two_answers",
    severity = "note",
    what = "a RESPONSE behind the RST that refused",
    message = "{who} accepted {a:time} after an RST had refused the same REQUEST",
  },
  [129] = {
    word = "response unseen",
    wrong = true,
    name = "vsock.connect.unseen",
    severity = "warn",
    what = "accepted at once, and reset by the initiator at its timeout without a byte",
    message = "{who} reset the connection {a:time} after its REQUEST, without a byte, although {peer} had accepted after {b:time}: it has not seen the RESPONSE",
  },
  [130] = {
    word = "old counters",
    wrong = true,
    name = "vsock.connect.old_counters",
    severity = "warn",
    what = "a new connection with the fwd_cnt of the one before on its addresses",
    message = "{who} begins with fwd_cnt {a}, that of #{b}: it takes this for the same connection",
  },
  [131] = {
    word = "ports again",
    wrong = true,
    name = "vsock.connect.restarted",
    severity = "warn",
    what = "refused on addresses whose connection had not ended",
    message = "{who} used the addresses of #{a} again, which {peer} still holds, and was refused",
  },
  [132] = {
    word = "rst storm",
    wrong = true,
    name = "vsock.connection.rst_storm",
    severity = "warn",
    what = "many RSTs for one connection",
    message = "{who} sent {a} RSTs for one connection",
  },
  [133] = {
    word = "shared fwd_cnt",
    wrong = true,
    name = "vsock.credit.shared_fwd",
    severity = "warn",
    what = "fwd_cnt goes on where another connection's stood",
    message = "fwd_cnt of {who} is {a}, where that of #{b} stood: one counter for several connections",
  },
  [134] = {
    word = "grant ignored",
    wrong = true,
    name = "vsock.credit.grant_ignored",
    severity = "warn",
    what = "credit given in a CREDIT_REQUEST that the sender did not use until told again",
    message = "{who} had credit by {peer}'s CREDIT_REQUEST for {a:time} and sent only when told again",
  },
  [135] = {
    word = "dropped by receiver",
    wrong = true,
    name = "vsock.close.hole",
    severity = "warn",
    what = "bytes that are never consumed while all behind them is",
    message = "{peer} has consumed all that {who} sent since, but never the {a:bytes} of packet {b}: they were dropped, and their credit with them",
  },
  [136] = {
    word = "unanswered request",
    shown = true,
    name = "vsock.close.request_dropped",
    severity = "note",
    what = "an acceptor that stops receiving while the initiator's last data has no answer",
    message = "{who} shut its receiving down {a:time} after {peer}'s last data, without an answer",
  },
  [137] = {
    word = "answer lost",
    shown = true,
    name = "vsock.close.answer_lost",
    severity = "note",
    what = "an answer to an end that shut down both directions behind its request",
    message = "{who} sent {a:bytes} in answer, {b:time} after {peer} had shut its receiving down together with the end of its request",
  },
  [138] = {
    word = "no answer",
    shown = true,
    name = "vsock.close.answer_cut",
    severity = "note",
    what = "both directions shut down behind a request to an endpoint that answers all others",
    message = "{who} shut both directions down {a:time} after its request, and got no answer; {peer} answered all others",
  },
  [140] = {
    word = "out of order",
    shown = true,
    name = "vsock.capture.out_of_order",
    severity = "note",
    what = "packets of the connection are not in order of time",
    message = "packets of this connection are out of order: one is {a:time} before the one ahead of it; --reorder or reordercap puts a file in order",
  },
}

local fields = {
  {
    name = "vsock.op_name",
    kind = "string",
    title = "Op name",
    meaning = "name of the coarse kind of packet",
  },
  {
    name = "vsock.trans_name",
    kind = "string",
    title = "Trans name",
    meaning = "name of the transport whose header follows",
  },
  {
    name = "vsock.virtio.src_port",
    kind = "uint32",
    title = "Virtio src port",
    meaning = "source port",
  },
  {
    name = "vsock.virtio.dst_port",
    kind = "uint32",
    title = "Virtio dst port",
    meaning = "destination port",
  },
  {
    name = "vsock.virtio.type_name",
    kind = "string",
    title = "Virtio type name",
    meaning = "name of the socket type",
  },
  {
    name = "vsock.virtio.op_name",
    kind = "string",
    title = "Virtio op name",
    meaning = "name of the operation",
  },
  {
    name = "vsock.conn",
    kind = "uint32",
    title = "Conn",
    meaning = "connection, from 1",
  },
  {
    name = "vsock.side",
    kind = "string",
    title = "Side",
    meaning = "the sender: initiator or acceptor; nothing where the capture does not tell",
  },
  {
    name = "vsock.state",
    kind = "string",
    title = "State",
    meaning = "state of the connection after the packet",
  },
  {
    name = "vsock.payload_len",
    kind = "uint32",
    title = "Payload len",
    meaning = "bytes of the stream in this packet, without the tap's repeat",
  },
  {
    name = "vsock.tx_cnt",
    kind = "uint32",
    title = "Tx cnt",
    meaning = "bytes the sender has sent, mod 2^32",
  },
  {
    name = "vsock.credit.inflight",
    kind = "uint32",
    title = "Credit inflight",
    meaning = "bytes sent and not yet consumed by the receiver",
  },
  {
    name = "vsock.credit.free",
    kind = "uint32",
    title = "Credit free",
    meaning = "free credit of the sender after the packet",
  },
  {
    name = "vsock.credit.granted",
    kind = "uint32",
    title = "Credit granted",
    meaning = "free credit of the receiver after the packet",
  },
  {
    name = "vsock.marks",
    kind = "string",
    title = "Marks",
    meaning = "what was noticed about the packet",
  },
  {
    name = "vsock.data",
    kind = "bytes",
    title = "Data",
    meaning = "the captured bytes of the stream, without the tap's repeat",
  },
  {
    name = "vsock.src",
    kind = "string",
    title = "Src",
    meaning = "the sender: name of its context id, and port",
  },
  {
    name = "vsock.dst",
    kind = "string",
    title = "Dst",
    meaning = "the receiver: name of its context id, and port",
  },
  {
    name = "vsock.virtio.flag_names",
    kind = "string",
    title = "Virtio flag names",
    meaning = "names of the flags",
  },
  {
    name = "vsock.response_in",
    kind = "framenum",
    title = "Response in",
    meaning = "the packet that answers this one",
  },
  {
    name = "vsock.response_to",
    kind = "framenum",
    title = "Response to",
    meaning = "the packet that this one answers",
  },
  {
    name = "vsock.response_time",
    kind = "relative_time",
    title = "Response time",
    meaning = "time from that packet to this one",
  },
  {
    name = "vsock.credit.stalled",
    kind = "relative_time",
    title = "Credit stalled",
    meaning = "how long a sender had no credit, until this packet",
  },
  {
    name = "vsock.app.protocol",
    kind = "string",
    title = "App protocol",
    meaning = "protocol to which the payload was given",
  },
}

local ports = { [22] = "ssh", [4433] = "tls", [8443] = "tls" }

local protocols = {
  http = "http",
  http2 = "http2",
  grpc = "http2",
  tls = "tls",
  ssh = "ssh",
  json = "json",
  protobuf = "protobuf",
  ["9p"] = "9p",
  ttrpc = "ttrpc",
}

local tcp_ports = { ["9p"] = 564, ssh = 22 }

-- The tracker: a translation of vsockdump/track/tracker.py, function by function, which
-- explains itself there.  What differs:
-- - nil or false stands for unknown times and counters, and nil for the zeros of what is rare,
--   so that flows of plain connections stay small tables. Never assign nil to a key that a
--   table may not have: Lua makes room for it each time;
-- - u64 addresses come as pairs (hi, lo), because Lua 5.2 counts in doubles;
-- - a direction is found by the 24 bytes of its addresses, and worked out once;
-- - marks are numbers of bits in a list, for there are no operators for bits that all
--   versions of Lua read;
-- - what only statistics need is left out, what answers what is added.
-- Nothing here calls Wireshark.

local tracker = {}

do
  local floor = math.floor
  local TWO32 = 4294967296

  local OP, TYPE, STATE, EVENT = wire.op, wire.type, states.state, states.event
  local REQUEST, RESPONSE, RST = OP.REQUEST, OP.RESPONSE, OP.RST
  local SHUTDOWN, RW = OP.SHUTDOWN, OP.RW
  local CREDIT_UPDATE, CREDIT_REQUEST = OP.CREDIT_UPDATE, OP.CREDIT_REQUEST
  local STREAM, SEQPACKET, DGRAM = TYPE.STREAM, TYPE.SEQPACKET, TYPE.DGRAM
  local HEADER_SIZE = wire.virtio_size
  local LARGEST = wire.max_payload
  local HOST, LOCAL, ANY = wire.cid_host, wire.cid_local, wire.cid_any
  local TERMINAL, TRANSITIONS = states.terminal, states.transitions
  local OUTER_OP, LAST_OP = wire.outer_op, wire.last_op
  local CAP = limits.connections

  -- State of the capture.
  local by_addresses  -- the cache: direction by its bytes and place
  local by_key        -- the last connection of each tuple, both directions in one
  local held          -- how many are in by_key
  local numbers       -- connections so far
  local alone         -- marks of packets without a connection that had their event
  local clock, earliest, latest
  local peers         -- what is known of a context id at a place, by both
  local peer_count

  -- State of the packet at hand.
  local now
  local marks, count = {}, 0
  local events, event_count = {}, 0
  local replaced     -- the connection whose tuple the packet takes
  local replaced_state -- as it was
  local prompted     -- the packet answers a CREDIT_REQUEST at once
  local result = {}
  -- Of all context ids beyond the largest number of them nothing is learnt.
  local NOBODY = { rule = states.limit.UNKNOWN, nobody = true }
  local CAUSE, LIMIT, DOUBT = states.cause, states.limit, states.doubt

  function tracker.reset()
    by_addresses, by_key, held, numbers, alone = {}, {}, 0, 0, {}
    peers, peer_count = {}, 0
    clock, earliest, latest, now = nil, nil, nil, nil
    count, event_count = 0, 0
  end

  local function step(new, old)
    local by = (new - old) % TWO32
    if by > 2147483647 then
      by = by - TWO32
    end
    return by
  end

  local function elapsed(since)
    if not since or not now or now <= since then
      return 0
    end
    return now - since
  end

  local function mark(bit)
    for at = 1, count do
      if marks[at] == bit then
        return
      end
    end
    count = count + 1
    marks[count] = bit
  end

  local function event(c, bit, side, a, b, cause, doubt)
    c.noted = c.noted or {}
    c.noted[bit] = true
    event_count = event_count + 1
    events[event_count] = {
      mark = bit, conn = c.number, side = side, a = a, b = b, cause = cause, doubt = doubt,
    }
  end

  local function had(c, bit)
    return c.noted and c.noted[bit]
  end

  local function note(c, bit, side, a, b)
    if not had(c, bit) then
      mark(bit)
      event(c, bit, side, a, b)
    elseif bit < MARKS then
      mark(bit)
    end
  end

  local function note_alone(bit, a)
    mark(bit)
    if not alone[bit] then
      alone[bit] = true
      event_count = event_count + 1
      events[event_count] = { mark = bit, conn = 0, side = 0, a = a, b = 0 }
    end
  end

  -- Connections ------------------------------------------------------------------------

  -- Forget an eighth: ended before living, long silent before fresh.
  local function forget()
    local all = {}
    for _, pair in pairs(by_key) do
      all[#all + 1] = pair
    end
    table.sort(all, function(one, other)
      local ended, gone = TERMINAL[one.c.state], TERMINAL[other.c.state]
      if ended ~= gone then
        return ended or false
      end
      return one.c.last_packet < other.c.last_packet
    end)
    local going = floor(#all / 8)
    for at = 1, going do
      by_key[all[at].key] = nil
    end
    held = held - going
    by_addresses = {}
  end

  -- What few flows have.
  local function extra(f)
    if not f.x then
      f.x = { own_stalls = 0, own_longest = 0, over = 0, gap_base = 0, gap_len = 0 }
    end
    return f.x
  end

  local function is_capped(f)
    return f.rule == LIMIT.CAPPED and f.peer.rule ~= LIMIT.UNCAPPED
  end

  local function longest_of(f)
    local longest = f.longest_stall or 0
    return f.x and f.x.own_longest > longest and f.x.own_longest or longest
  end

  local function judge_stall(c, f, g, side, length, cause)
    mark(MARK.STALL)
    if length >= 2 * longest_of(f) or not had(c, MARK.STALL) then
      event(c, MARK.STALL, side, length, f.stalled_flight, cause)
    end
    if cause == CAUSE.OWN_BUFFER then
      note(c, MARK.OWN_BUFFER, side, f.buf, g.buf)
    end
    if g.stalled_since and TERMINAL[c.state] then
      local since = f.stalled_since
      local both = elapsed(since > g.stalled_since and since or g.stalled_since)
      if both >= limits.DEADLOCK_NS and f.stalled_flight > 0 and g.stalled_flight > 0 then
        note(c, MARK.DEADLOCK, side, both, 0)
      end
    end
  end

  -- Close the stall of a side, if it is in one; it has lasted until `till`.
  local function end_stall(c, f, g, side, cause, till)
    local since = f.stalled_since
    if not since then
      return
    end
    till = till or now
    local length = till and till > since and till - since or 0
    if cause == CAUSE.READER and f.stalled_flight < g.buf and is_capped(f) then
      cause = CAUSE.OWN_BUFFER
    end
    if length >= limits.LONG_STALL_NS then
      judge_stall(c, f, g, side, length, cause)
    end
    f.stalled_since = false
    if cause == CAUSE.OWN_BUFFER then
      local x = extra(f)
      x.own_stalls = x.own_stalls + 1
      if length > x.own_longest then
        x.own_longest = length
      end
    elseif length > (f.longest_stall or 0) then
      f.longest_stall = length
    end
    if not result.stalled or length > result.stalled then
      result.stalled = length
    end
  end

  -- Whether the connection before on the same addresses had not ended.
  local function was_open(c)
    local state = c.previous_state
    return state and state ~= STATE.CONNECTING and state ~= STATE.DATAGRAM and not TERMINAL[state]
  end

  -- A REQUEST that nobody answered: Linux drops it where its addresses are still open.
  local function dropped_request(c)
    if was_open(c) and c.previous_state ~= STATE.CLOSING then
      note(c, MARK.STILL_OPEN, 0, c.previous, 0)
    end
  end

  -- A new connection takes the tuple of this one.
  local function replace(c)
    local state = c.state
    replaced, replaced_state = c, state
    if TERMINAL[state] then
      return
    end
    local marked = count
    local waited = elapsed(c.first_ns)
    if state == STATE.CONNECTING and waited > limits.CONNECT_TIMEOUT_NS then
      c.state = STATE.TIMED_OUT
      note(c, MARK.UNANSWERED, 0, waited, 0)
      dropped_request(c)
    else
      c.state = STATE.REPLACED
      end_stall(c, c[0], c[1], 0, CAUSE.READER)
      end_stall(c, c[1], c[0], 1, CAUSE.READER)
    end
    count = marked
    result.stalled = false
  end

  local function peer_of(cid_hi, cid_lo, place)
    local key = string.format("%.0f %.0f %s", cid_hi, cid_lo, place)
    local peer = peers[key]
    if not peer then
      if peer_count + 1 >= limits.peers then
        return NOBODY
      end
      peer_count = peer_count + 1
      peer = { rule = LIMIT.UNKNOWN, waits = 0 }
      peers[key] = peer
    end
    return peer
  end

  -- What is known of the ends from before: by their context ids, by these addresses.
  local function begin_flows(c, p, reverse)
    local one = peer_of(p.src_cid_hi, p.src_cid_lo, p.place)
    local other = peer_of(p.dst_cid_hi, p.dst_cid_lo, p.place)
    if c.pair.loopback then
      one = peer_of(0, LOCAL, p.place)
      other = one
    end
    c[0].peer, c[1].peer = one, other
    if reverse then
      c[0].peer, c[1].peer = other, one
    end
    c[0].rule, c[1].rule = c[0].peer.rule, c[1].peer.rule
    if replaced then
      local same = replaced.flip == c.flip
      for side = 0, 1 do
        local old = replaced[same and side or 1 - side]
        c[side].fwd = (old.fwd or 0) % TWO32
      end
    end
  end

  local function begin(pair, p, high)
    local op, kind = p.op, p.type
    local reverse = op == RESPONSE
    local known = op == REQUEST or op == RESPONSE
    numbers = numbers + 1
    local c = {
      number = numbers,
      pair = pair,
      flip = high ~= reverse,
      side_known = known,
      first_packet = p.number,
      first_ns = now,
      type = kind,
      ended = 0,
      packets = 0,
    }
    c[0], c[1] = { packets = 0, tx = 0 }, { packets = 0, tx = 0 }
    if replaced then
      c.previous, c.previous_state = replaced.number, replaced_state
    end
    pair.c = c
    if op == REQUEST then
      c.state = STATE.CONNECTING
    elseif kind == DGRAM then
      c.state = STATE.DATAGRAM
    else
      c.state = STATE.OPEN
      c.midstream = true
      mark(MARK.MIDSTREAM)
      if op == RESPONSE and elapsed(earliest) > limits.LATEST_ANSWER_NS then
        mark(MARK.UNASKED_RESPONSE)
      end
    end
    if was_open(c) then
      if replaced_state == STATE.CLOSING then
        note(c, MARK.REUSED, 0, replaced.number, 0)
      else
        mark(MARK.OPEN_BEFORE)
      end
    end
    begin_flows(c, p, reverse)
    known = known and kind ~= DGRAM and not pair.to_itself
    c[0].tx_known, c[1].tx_known = known, known
    return c
  end

  local function is_cid(hi, lo, cid)
    return hi == 0 and lo == cid
  end

  -- Whether the addresses need a closer look: see judge_addresses.
  local function is_strange(p)
    local src_hi, src, dst_hi, dst = p.src_cid_hi, p.src_cid_lo, p.dst_cid_hi, p.dst_cid_lo
    return src_hi > 0 or dst_hi > 0 or src == 0 or dst == 0 or src == ANY or dst == ANY
      or (src > HOST and dst > HOST) or (src > HOST and dst == LOCAL)
  end

  -- The direction of a packet that was not seen before.
  local function new_direction(p, addresses)
    local low_hi, low, source = p.src_cid_hi, p.src_cid_lo, p.src_port
    local high_hi, high, target = p.dst_cid_hi, p.dst_cid_lo, p.dst_port
    if is_cid(low_hi, low, LOCAL) or is_cid(high_hi, high, LOCAL) then
      low_hi, low, high_hi, high = 0, LOCAL, 0, LOCAL
    end
    local above = low_hi > high_hi or (low_hi == high_hi and low > high)
    local same = low_hi == high_hi and low == high
    local is_high = above or (same and source > target)
    if is_high then
      low_hi, low, source, high_hi, high, target = high_hi, high, target, low_hi, low, source
    end
    local key = string.format(
      "%.0f %.0f %.0f %.0f %.0f %.0f%s", low_hi, low, source, high_hi, high, target, p.place
    )
    local pair = by_key[key]
    if not pair then
      pair = { key = key, to_itself = same and source == target }
      pair.loopback = same and is_cid(low_hi, low, LOCAL)
      if held >= CAP then
        forget()
      end
      by_key[key] = pair
      held = held + 1
    end
    local direction = { pair = pair, high = is_high, strange = is_strange(p), loopback = same }
    by_addresses[addresses] = direction
    return direction
  end

  -- Single fields ----------------------------------------------------------------------

  local function judge_addresses(p)
    local src_hi, src, dst_hi, dst = p.src_cid_hi, p.src_cid_lo, p.dst_cid_hi, p.dst_cid_lo
    local all = TWO32 - 1 -- ANY, and twice that is the 64-bit -1
    if
      (src == all and (src_hi == all or src_hi == 0))
      or (dst == all and (dst_hi == all or dst_hi == 0))
    then
      mark(MARK.RESERVED_CID)
    elseif
      (is_cid(src_hi, src, 0) and dst_hi == 0 and dst <= HOST)
      or (is_cid(dst_hi, dst, 0) and src_hi == 0 and src <= HOST)
    then
      mark(MARK.RESERVED_CID)
    elseif src_hi > 0 or dst_hi > 0 then
      mark(MARK.WIDE_CID)
    end
  end

  local function judge_fields(p, c, side)
    local op, kind, flags = p.op, p.type, p.flags
    if p.mon_reserved ~= 0 then
      note(c, MARK.RESERVED, side, p.mon_reserved, 0)
    end
    if p.mon_len > HEADER_SIZE and not p.malformed then
      note(c, MARK.LONG_HEADER, side, p.mon_len, 0)
    end
    if p.len > LARGEST then
      note(c, MARK.TOO_LONG, side, p.len, 0)
    end
    judge_addresses(p)
    if flags == 0 or op == SHUTDOWN then
      return
    end
    if op == RW then
      if flags > 3 or kind == STREAM or flags == wire.eor then
        note(c, MARK.MESSAGE_FLAGS, side, flags, kind)
      end
    else
      note(c, MARK.FLAGS, side, flags, op)
    end
  end

  local function compare_headers(p, c, side)
    local op, kind, expected = p.op, p.type, 0
    if not p.same_addresses then
      mark(MARK.ADDRESS_MISMATCH)
    end
    if op == 0 or op > LAST_OP then
      note(c, MARK.UNKNOWN_OP, side, op, 0)
    else
      expected = OUTER_OP[op]
    end
    if p.mon_op ~= expected then
      note(c, MARK.OP_MISMATCH, side, p.mon_op, op)
    end
    if kind < STREAM or kind > DGRAM then
      note(c, MARK.UNKNOWN_TYPE, side, kind, 0)
    end
    if p.malformed then
      note(c, MARK.MALFORMED, side, p.malformed, 0)
    end
  end

  -- Payload ----------------------------------------------------------------------------

  local function message(p, c, f, g, side)
    f.message = (f.message or 0) + p.len
    if g.credit_seen and f.message > g.most_buf then
      note(c, MARK.MESSAGE_SIZE, side, f.message, g.most_buf)
    end
    if p.flags % 2 == 0 then -- no EOM
      return
    end
    if f.message > 0 then
      f.empty = 0
    else
      f.empty = (f.empty or 0) + 1
      if f.empty >= limits.EMPTY_RUN then
        note(c, MARK.EMPTY_MESSAGES, side, f.empty, 0)
      end
    end
    f.message = 0
  end

  local function repeat_offset(f, whole, size)
    local last, skip = f.repeat_wire, 0
    if last then
      if whole == last - f.repeat_len then
        f.repeat_variant = "A"
      elseif
        whole == last
        and f.repeat_variant ~= "A"
        and f.repeat_sum + size <= whole
        and size <= f.repeat_len
      then
        f.repeat_variant = "B"
        skip = f.repeat_sum
        if size < f.repeat_len then
          skip = whole - size
        end
      end
    end
    f.repeat_wire = whole
    f.repeat_len = size
    f.repeat_sum = skip + size
    if skip + size == whole then
      f.repeat_wire = false
    end
    return skip
  end

  -- Data to an end that has said it will receive no more.
  local function to_the_deaf(c, f, g, side, size)
    local since = elapsed(g.deaf_ns)
    if c.asker == 1 - side and g.data_ns and f.bytes == size then
      local asked = g.deaf_ns and g.deaf_ns > g.data_ns and g.deaf_ns - g.data_ns or 0
      if asked <= limits.AT_ONCE_NS then
        note(c, MARK.ANSWER_LOST, side, size, since)
        return
      end
    end
    if since > limits.UNDER_WAY_NS then
      note(c, MARK.DEAF_PEER, side, size, since)
    end
  end

  local function payload(p, c, f, g, side)
    local size, whole, have, skip = p.len, p.payload_wire, p.payload_cap, 0
    if p.op ~= RW then
      if size ~= 0 then
        note(c, MARK.CONTROL_PAYLOAD, side, size, p.op)
      elseif whole ~= 0 then
        note(c, MARK.FRAME_PAYLOAD, side, whole, p.op)
      end
      result.skip, result.data_cap, result.data_len = 0, 0, 0
      return
    end
    if whole > size then
      mark(MARK.TAP_REPEAT)
      skip = repeat_offset(f, whole, size)
    else
      if f.repeat_wire then
        f.repeat_wire = false
      end
      if whole < size then
        note(c, MARK.SHORT_PAYLOAD, side, whole, size)
      end
    end
    have = have - skip
    if have < 0 then
      have = 0
    elseif have > size then
      have = size
    end
    if have < size and p.caplen < p.wirelen then
      mark(MARK.CUT)
    end
    result.skip, result.data_cap, result.data_len = skip, have, size
    f.tx = f.tx + size
    f.bytes = (f.bytes or 0) + size
    f.queued = (f.queued or 0) + 1
    f.data_ns = now
    if p.type ~= STREAM then
      if p.type == SEQPACKET then
        message(p, c, f, g, side)
      end
    elseif size == 0 then
      note(c, MARK.EMPTY_DATA, side, 0, 0)
    end
    if f.ended_sending then
      note(c, MARK.AFTER_SHUTDOWN, side, size, 0)
    elseif g.ended_receiving and not TERMINAL[c.state] then
      to_the_deaf(c, f, g, side, size)
    end
    c.asker = side
  end

  -- Credit -----------------------------------------------------------------------------

  local function judge_buffer(c, side, buf, op)
    if buf == 0 then
      note(c, MARK.NO_CREDIT, side, op, 0)
    elseif buf < LARGEST then
      note(c, MARK.SMALL_BUFFER, side, buf, 0)
    elseif buf >= limits.HUGE_BUFFER then
      note(c, MARK.HUGE_BUFFER, side, buf, 0)
    end
  end

  local function buffer_changed(c, f, g, side, buf)
    local flight = g.tx - f.fwd
    note(c, MARK.BUFFER_CHANGED, side, f.buf, buf)
    if buf < f.buf and g.tx_known and flight > buf then
      note(c, MARK.SHRUNK, side, flight, buf)
    end
    judge_buffer(c, side, buf, 0)
  end

  local function fwd_back(c, f, side, back)
    note(c, MARK.FWD_BACK, side, back, 0)
    f.backs = (f.backs or 0) + 1
    if f.backs == limits.BACKS then
      note(c, MARK.INTERLEAVED, side, f.backs, 0)
    end
  end

  local function consumed_unsaid(c, f, side, by)
    if by <= 0 or by + LARGEST <= f.buf or 4 * by <= f.buf then
      return
    end
    f.quiet = (f.quiet or 0) + 1
    if f.quiet >= limits.QUIET_RUN then
      f.quiet = limits.QUIET_RUN
      note(c, MARK.NO_UPDATES, side, by, f.buf)
    end
  end

  local function settle(f)
    if f.base_high then
      if f.base_low == f.base_high then
        f.tx = f.tx + f.base + f.base_low
        f.tx_known = true
      elseif f.base_low > f.base_high then
        f.base, f.base_high = false, false
      end
    end
  end

  local function bound_below(f, g)
    if not f.base then
      f.base = g.fwd - f.tx
      f.base_low, f.base_high = 0, false
    else
      local least = g.fwd - f.tx - f.base
      if least > f.base_low then
        f.base_low = least
      end
    end
    settle(f)
  end

  local function bound_above(f, g)
    if f.base then
      local most = g.limit - f.tx - f.base
      if not f.base_high or most < f.base_high then
        f.base_high = most
      end
      settle(f)
    end
  end

  -- More is said to be consumed than was seen to be sent; credit is unknown from here.
  local function ahead(c, f, g, side)
    local peer = f.peer
    local since = step(f.fwd % TWO32, peer.fwd or 0)
    local other = peer.conn and peer.conn ~= c.number and peer.fwd > 0
    if other and since >= 0 and since <= (g.bytes or 0) then
      note(c, MARK.SHARED_FWD, side, f.fwd % TWO32, peer.conn)
    else
      note(c, MARK.FWD_AHEAD, side, f.fwd - g.tx, 0)
    end
    g.tx_known = false
    g.base, g.base_high = false, false
  end

  local function take_credit(p, c, f, g, side)
    local buf, fwd, op = p.buf_alloc, p.fwd_cnt, p.op
    if buf == 0 and op == RST then
      if fwd == 0 then
        mark(MARK.NO_SOCKET)
      end
      return false
    end
    if f.credit_seen then
      local by = step(fwd, f.fwd)
      if by == 0 and buf == f.buf then
        return false
      end
      if by < 0 then
        if op == RST then
          return false
        end
        fwd_back(c, f, side, -by)
      end
      f.fwd = f.fwd + by
      if f.fwd + buf > f.limit then
        f.limit = f.fwd + buf
      end
      if buf ~= f.buf then
        if op ~= RST then
          buffer_changed(c, f, g, side, buf)
        end
      elseif op == RW and not f.updates then
        consumed_unsaid(c, f, side, by)
      end
    else
      local old = f.fwd
      f.credit_seen = true
      f.fwd, f.limit = fwd, fwd + buf
      if g.tx_known and fwd > g.tx and fwd == old and c.previous then
        note(c, MARK.OLD_COUNTERS, side, fwd, c.previous)
        g.tx_known = false
        g.base, g.base_high = false, false
      end
      if op ~= RST then
        judge_buffer(c, side, buf, op)
      end
    end
    f.buf = buf
    if buf > (f.most_buf or 0) then
      f.most_buf = buf
    end
    f.most_buf = f.most_buf or 0
    if g.tx_known and f.fwd > g.tx then
      ahead(c, f, g, side)
    end
    if not f.peer.nobody then
      f.peer.fwd, f.peer.conn = f.fwd % TWO32, c.number
    end
    if not g.tx_known then
      bound_below(g, f)
    elseif g.tx - f.fwd < (g.queued or 0) then
      g.queued = g.tx - f.fwd
    end
    return true
  end

  local function over_credit(c, f, g, side)
    local x, over = extra(f), f.tx - g.limit
    mark(MARK.OVER_CREDIT)
    f.stalled_since = false
    x.over_ns, x.over_tx, x.over_pending = now, f.tx, true
    if not x.over_proven then
      c.missing = true
    end
    if over >= 2 * x.over then
      event(c, MARK.OVER_CREDIT, side, over, g.buf, nil, not x.over_proven and DOUBT.MISSING)
    end
    if over > x.over then
      x.over = over
    end
  end

  -- The sender is not limited by its own buffer: what was taken for waits was none.
  local function uncapped(c, f, side, flight)
    local x, noted = f.x, c.noted
    f.rule = LIMIT.UNCAPPED
    if not f.peer.nobody then
      f.peer.rule = LIMIT.UNCAPPED
    end
    if x then
      x.own_since, x.own_until = false, false
      x.own_stalls, x.own_longest = 0, 0
    end
    if noted and c[1 - side].rule ~= LIMIT.CAPPED then
      noted[MARK.OWN_BUFFER] = false
    end
    if noted and longest_of(c[0]) < limits.LONG_STALL_NS
      and longest_of(c[1]) < limits.LONG_STALL_NS
    then
      noted[MARK.STALL] = false
    end
    note(c, MARK.NO_CAP, side, flight, f.buf)
  end

  -- The sender waited at exactly its own buffer, which limits it: that was a stall.
  local function capped(c, f, g, x, side)
    local peer = f.peer
    f.rule = LIMIT.CAPPED
    if peer.rule == LIMIT.UNKNOWN and not peer.nobody then
      local long = x.own_until - x.own_since >= limits.LONG_STALL_NS
      peer.waits = peer.waits + (long and 2 or 1)
      if peer.waits >= limits.WAITS_SEEN then
        peer.rule = LIMIT.CAPPED
      end
    end
    note(c, MARK.OWN_BUFFER, side, f.buf, g.buf)
    f.stalled_since, f.stalled_flight = x.own_since, x.own_flight
    end_stall(c, f, g, side, CAUSE.OWN_BUFFER, x.own_until)
  end

  local function has_waited(x)
    local after, waited = elapsed(x.own_until), x.own_until - x.own_since
    if waited < 0 then
      waited = 0
    end
    return not x.own_talk and after <= limits.WAITS_NS and after * limits.WAITS_PART <= waited
  end

  -- After data of a sender whose own buffer is the smaller one.
  local function judge_own(c, f, g, side)
    if not f.tx_known or f.rule == LIMIT.UNCAPPED then
      return
    end
    local flight = f.tx - g.fwd
    if flight > f.buf then
      uncapped(c, f, side, flight)
      return
    end
    if f.rule == LIMIT.CAPPED or not (f.x or flight == f.buf) then
      return
    end
    local x = extra(f)
    if x.own_until then
      if has_waited(x) then
        capped(c, f, g, x, side)
      end
      x.own_since, x.own_until = false, false
    end
    if flight == f.buf and f.rule == LIMIT.UNKNOWN and not x.own_since then
      x.own_since, x.own_flight, x.own_talk = now, flight, false
    end
  end

  -- A large packet with nothing else in flight: if it is dropped, that will show.
  local function may_be_dropped(p, f, g)
    if f.tx - p.len - g.fwd == (f.x and f.x.gap_base or 0) then
      local x = extra(f)
      x.gap_len, x.gap_end, x.gap_packet, x.gap_rounds = p.len, f.tx, p.number, 0
    end
  end

  -- News of the receiver: is all consumed that was sent behind a packet, but never that?
  local function judge_gap(c, f, g, x, side)
    local left = g.tx - f.fwd - x.gap_base
    if not g.tx_known or left < x.gap_len then
      x.gap_len = 0
    elseif left == x.gap_len and g.tx ~= x.gap_end then
      x.gap_end, x.gap_rounds = g.tx, x.gap_rounds + 1
      if x.gap_rounds >= limits.GAP_ROUNDS then
        note(c, MARK.HOLE, 1 - side, x.gap_len, x.gap_packet)
        x.gap_base, x.gap_len = x.gap_base + x.gap_len, 0
      end
    end
  end

  -- Data of a sender to which a CREDIT_REQUEST had given credit when it had none.
  local function use_grant(c, f, side)
    local x = f.x
    if x.grant_ns then
      local waited = elapsed(x.grant_ns)
      if waited > limits.SOON_NS and x.grant_again_ns then
        if elapsed(x.grant_again_ns) <= limits.AT_ONCE_NS then
          note(c, MARK.GRANT_IGNORED, side, waited, 0)
        end
      end
      x.grant_ns, x.grant_again_ns = false, false
    end
  end

  -- What the receiver of `g` says, where something rare waits for it.
  local function rare_news(p, c, f, g, side)
    local x, op = g.x, p.op
    if op == RST and p.buf_alloc == 0 then
      return
    end
    if x.over_pending then
      x.over_pending = false
      if f.limit < x.over_tx and not x.over_proven then
        x.over_proven, c.missing = true, false
        event(c, MARK.OVER_CREDIT, 1 - side, x.over, f.buf)
      end
    end
    if x.gap_len > 0 then
      judge_gap(c, f, g, x, side)
    end
    if x.grant_ns and op ~= CREDIT_REQUEST then
      x.grant_again_ns = now
    end
    if x.own_since then
      if op == RW then
        x.own_talk = true
      end
      if not x.own_until and g.tx - f.fwd < g.buf then
        x.own_until = now
      end
    end
  end

  local function judge_sent(p, c, f, g, side)
    if not g.credit_seen then
      return
    end
    if not f.tx_known then
      bound_above(f, g)
    elseif f.tx > g.limit then
      if f.base then
        f.tx_known = false
        f.base, f.base_high = false, false
      else
        over_credit(c, f, g, side)
      end
    end
    if f.credit_seen and f.buf < g.buf then
      judge_own(c, f, g, side)
    end
    if p.len >= limits.GAP_LEAST and f.tx_known then
      may_be_dropped(p, f, g)
    end
    if f.x then
      use_grant(c, f, side)
    end
  end

  local function free_of(f, g)
    if not f.tx_known or not g.credit_seen or not f.credit_seen then
      return false
    end
    local window = g.buf
    if f.buf < window and is_capped(f) then
      window = f.buf
    end
    window = window - (f.tx - g.fwd)
    return window > 0 and window or 0
  end

  -- Why the sender of `f` waited until this packet.
  local function cause_of(p, f, g, flight)
    if f.stalled_flight < g.buf and is_capped(f) then
      return CAUSE.OWN_BUFFER
    end
    if flight == 0 and f.stalled_flight > 0 and (p.op == RW or prompted) then
      return CAUSE.UNTOLD
    end
    return CAUSE.READER
  end

  local function note_window(p, c, f, g, free, side)
    if free == 0 then
      if not f.stalled_since and not f.ended_sending and not g.ended_receiving then
        local flight = f.tx - g.fwd
        f.stalled_since = now
        f.stalled_flight = flight < TWO32 - 1 and flight or TWO32 - 1
      end
    elseif f.stalled_since then
      end_stall(c, f, g, side, cause_of(p, f, g, f.tx - g.fwd))
      if p.op == CREDIT_REQUEST then
        extra(f).grant_ns = now
      end
    end
  end

  local function answer(p, c, g, side)
    local waited = elapsed(g.asked_ns)
    result.answer_to, result.answer_ns = g.asked, waited
    g.asked = false
    prompted = waited <= limits.AT_ONCE_NS
    if waited > limits.ANSWER_TIMEOUT_NS and p.op ~= RST then
      note(c, MARK.UNANSWERED_ASK, side, waited, 0)
    end
  end

  -- Lifecycle --------------------------------------------------------------------------

  local function judge_message(c, f, side)
    if f.message and f.message > 0 then
      note(c, MARK.MESSAGE_CUT, side, f.message, 0)
      f.message = 0
    end
  end

  local function judge_loss(c, f, g, side, final)
    local base = f.x and f.x.gap_base or 0
    if final and f.tx_known and g.credit_seen and f.tx - base > g.fwd then
      note(c, MARK.BYTES_LOST, side, f.tx - base - g.fwd, 0)
    end
  end

  -- A REQUEST was answered by RST; addresses used before may be the reason.
  local function refused(c, side, no_socket)
    local waited = elapsed(c.first_ns)
    result.answer_to, result.answer_ns = c.first_packet, waited
    c.answered_ns, c.ended_ns = now, now
    note(c, MARK.REFUSED, side, waited, no_socket and 1 or 0)
    if was_open(c) then
      note(c, MARK.RESTARTED, 1 - side, c.previous, 0)
    end
  end

  -- Whether the initiator resets as if no RESPONSE had come.
  local function is_unseen(c, f, side, before)
    local answered, waited = c.answered_ns, elapsed(c.first_ns)
    if side ~= 0 or before ~= STATE.OPEN or f.packets ~= 1 or not answered then
      return false
    end
    local took = c.first_ns and answered > c.first_ns and answered - c.first_ns or 0
    if took > limits.SOON_NS then
      return false
    end
    return waited >= limits.GIVEN_UP_NS[1] and waited <= limits.GIVEN_UP_NS[2] and took
  end

  -- An RST soon after data beyond the credit that its sender has not taken.
  local function gave_up(c, f, g, side)
    local x = g.x
    if not (x and x.over_ns) or elapsed(x.over_ns) > limits.SOON_NS or (f.fwd or 0) >= g.tx then
      return false
    end
    if not had(c, MARK.OVERRUN_RESET) then
      local doubt = c.missing and DOUBT.MISSING
      event(c, MARK.OVERRUN_RESET, 1 - side, elapsed(x.over_ns), 0, nil, doubt)
    end
    mark(MARK.OVERRUN_RESET)
    return true
  end

  -- What an RST by `side`, which ended a connection, says of its end.
  local function ended(p, c, side, before, no_socket)
    local f, g = c[side], c[1 - side]
    if c.state == STATE.REFUSED then
      refused(c, side, no_socket)
      return
    end
    local unseen = c.state == STATE.RESET and is_unseen(c, f, side, before)
    if g.closed then
      result.answer_to, result.answer_ns = g.closed, elapsed(g.closed_ns)
    end
    if unseen then
      note(c, MARK.UNSEEN, side, elapsed(c.first_ns), unseen)
    elseif c.state == STATE.RESET then
      note(c, MARK.RESET, side, 0, 0)
      if before == STATE.CONNECTING and elapsed(c.first_ns) > limits.SOON_NS then
        dropped_request(c)
      end
    elseif c.state == STATE.TIMED_OUT and before == STATE.CLOSING then
      note(c, MARK.CLOSE_TIMEOUT, side, elapsed(f.closed_ns), 0)
    end
    if
      not (before ~= STATE.CLOSING and gave_up(c, f, g, side))
      and g.tx_known
      and not f.ended_sending
      and not f.ended_receiving
      and (g.queued or 0) >= limits.MANY_QUEUED
      and g.tx - (f.fwd or 0) < (f.buf or 0)
    then
      local over = g.queued * limits.OVERHEAD - f.buf
      if over > 0 and over <= limits.FEW_QUEUED * limits.OVERHEAD then
        note(c, MARK.SMALL_PACKETS, 1 - side, g.queued, f.buf)
      end
    end
    judge_message(c, f, side)
    judge_message(c, g, 1 - side)
    local counts = p.buf_alloc ~= 0 and p.fwd_cnt == (f.fwd or 0) % TWO32
    local given_up = c.state == STATE.TIMED_OUT and before == STATE.CLOSING
    judge_loss(c, f, g, side, g.ended_receiving or given_up)
    judge_loss(c, g, f, 1 - side, f.ended_receiving or counts)
  end

  local function shutdown(p, c, side)
    local f, g = c[side], c[1 - side]
    local flags, before = p.flags, c.ended
    local receiving, sending = flags % 2 == 1, flags % 4 >= 2
    if flags == 0 or flags > 3 then
      note(c, MARK.SHUTDOWN_FLAGS, side, flags, 0)
    end
    if receiving and not f.ended_receiving then
      f.deaf_ns = now
      if not sending and side == 1 and c.asker == 0 and not g.ended_sending then
        note(c, MARK.REQUEST_DROPPED, side, elapsed(g.data_ns), 0)
      end
      end_stall(c, g, f, 1 - side, CAUSE.READER)
    end
    if sending then
      judge_message(c, f, side)
      end_stall(c, f, g, side, CAUSE.READER)
    end
    f.ended_receiving = f.ended_receiving or receiving
    f.ended_sending = f.ended_sending or sending
    if f.ended_receiving and f.ended_sending and not f.closed then
      f.closed, f.closed_ns = p.number, now
    end
    local after = 0
    if c[0].ended_sending or c[1].ended_receiving then
      after = 1
    end
    if c[1].ended_sending or c[0].ended_receiving then
      after = after + 2
    end
    c.ended = after
    if after == before then
      return EVENT.NOTHING
    elseif after == 3 then
      return EVENT.BOTH_ENDED
    end
    return after == 1 and EVENT.INITIATOR_ENDED or EVENT.ACCEPTOR_ENDED
  end

  -- Whether an RST of no socket, by the sender of `f`, answers data that nobody waits for.
  local function forgot(c, f, g)
    if
      f.ended_sending or f.ended_receiving or g.ended_sending or g.ended_receiving
      or g.packets == 0
    then
      return false
    elseif f.packets == 0 then
      return c.midstream
    end
    local said, data = f.said_ns, g.data_ns
    if c.state ~= STATE.OPEN or not data or not said or g.said_ns < said then
      return false
    end
    return elapsed(data) <= limits.AT_ONCE_NS and data - said > limits.SOON_NS
  end

  local function rst(p, c, side, no_socket)
    local f, g, state = c[side], c[1 - side], c.state
    if TERMINAL[state] then
      mark(MARK.LATER_RST)
      if no_socket and g.rst_packet and g.rst_packet == c.last_packet then
        note(c, MARK.RST_FOR_RST, side, 0, 0)
      end
      return EVENT.NOTHING
    end
    if elapsed(c.last_ns) > limits.UNDER_WAY_NS then
      f.rst_packet = p.number
    end
    if no_socket and forgot(c, f, g) then
      note(c, MARK.UNKNOWN_CONNECTION, side, g.packets, 0)
    end
    if c.pair.to_itself then
      return EVENT.ACCEPTOR_RST
    end
    if state == STATE.CLOSING and f.ended_sending and f.ended_receiving then
      if not (g.ended_sending and g.ended_receiving) then
        if elapsed(f.closed_ns) >= limits.CLOSE_TIMEOUT_NS then
          return EVENT.CLOSER_GAVE_UP
        end
      end
      if not g.ended_sending then
        return EVENT.CLOSER_ABORTED
      end
    end
    return side == 0 and EVENT.INITIATOR_RST or EVENT.ACCEPTOR_RST
  end

  local function response(c, side)
    local event_of = EVENT.NOTHING
    if side == 1 or c.pair.to_itself then
      event_of = EVENT.RESPONSE
      if c.state == STATE.REFUSED then
        note(c, MARK.TWO_ANSWERS, side, elapsed(c.ended_ns), 0)
        c.answered_ns = now
      elseif c.state == STATE.CONNECTING then
        local waited = elapsed(c.first_ns)
        result.answer_to, result.answer_ns = c.first_packet, waited
        c.answered_ns = now
        if was_open(c) and c.previous_state ~= STATE.CLOSING then
          note(c, MARK.REOPENED, 1 - side, c.previous, waited)
        end
        if waited > limits.CONNECT_TIMEOUT_NS then
          event_of = EVENT.LATE_RESPONSE
          note(c, MARK.LATE_RESPONSE, side, waited, 0)
        end
      end
    end
    if c.state ~= STATE.CONNECTING and c.state ~= STATE.REFUSED and c.last_packet then
      note(c, MARK.UNASKED_RESPONSE, side, 0, 0)
    end
    return event_of
  end

  local function lifecycle(p, c, side, no_socket)
    local state, op, event_of = c.state, p.op, EVENT.NOTHING
    if state == STATE.HALF_CLOSED_INITIATOR or state == STATE.HALF_CLOSED_ACCEPTOR then
      local idle = elapsed(c.last_ns)
      if idle > limits.HALF_CLOSED_IDLE_NS then
        local closed = state == STATE.HALF_CLOSED_INITIATOR and 0 or 1
        note(c, MARK.HALF_CLOSED_IDLE, closed, idle, 0)
      end
    end
    if op >= RW then
      event_of = op <= LAST_OP and EVENT.DATA or EVENT.NOTHING
      if state == STATE.CONNECTING then
        note(c, MARK.NOT_ESTABLISHED, side, op, 0)
      end
    elseif op == RESPONSE then
      event_of = response(c, side)
    elseif op == SHUTDOWN then
      event_of = shutdown(p, c, side)
      if state == STATE.CONNECTING then
        note(c, MARK.NOT_ESTABLISHED, side, op, 0)
      end
    elseif op == RST then
      event_of = rst(p, c, side, no_socket)
    end
    local moves = TRANSITIONS[state]
    local following = moves and moves[event_of]
    if following and following ~= state then
      c.state = following
      if TERMINAL[following] then
        end_stall(c, c[0], c[1], 0, CAUSE.READER)
        end_stall(c, c[1], c[0], 1, CAUSE.READER)
        ended(p, c, side, state, no_socket)
      end
    end
  end

  local function count_credit(p, c, f, g, side)
    local op = p.op
    if op == CREDIT_UPDATE then
      f.updates = (f.updates or 0) + 1
      local others = g.packets - (g.updates or 0)
      if f.updates >= limits.UPDATE_STORM and f.updates > 2 * others then
        note(c, MARK.UPDATE_STORM, side, f.updates, others)
      end
    elseif op == CREDIT_REQUEST and not f.asked then
      f.asked, f.asked_ns = p.number, now
    end
  end

  -- Events without numbers for marks that had none yet.
  local function plain_events(c, side)
    local noted = c.noted
    for at = 1, count do
      local bit = marks[at]
      if bit ~= MARK.TIME_BACK and not (noted and noted[bit]) then
        if REMARKS[bit] then
          noted = noted or {}
          c.noted = noted
          noted[bit] = true
        else
          event(c, bit, side, 0, 0)
          noted = c.noted
        end
      end
    end
  end

  -- Whether a REQUEST is the one that this connection's first RESPONSE has answered: it stands
  -- behind it in the file, but its time is before, by little.
  local function is_belated(p, c, high)
    if not c.midstream or not c.side_known or c.state ~= STATE.OPEN or high ~= c.flip then
      return false
    end
    local time, first = p.time, c.first_ns
    return time and first and time < first and first < time + limits.SOON_NS
  end

  local function virtio(p)
    local addresses, op, kind = p.addresses, p.op, p.type
    if p.place ~= "" then
      addresses = addresses .. p.place
    end
    local direction = by_addresses[addresses] or new_direction(p, addresses)
    local pair = direction.pair
    local c = pair.c
    local over = c and TERMINAL[c.state] and c.state ~= STATE.REFUSED
    if c and op == REQUEST and is_belated(p, c, direction.high) then
      c.midstream = false
      if c.noted then
        c.noted[MARK.MIDSTREAM] = false
      end
    elseif not c or op == REQUEST or (op == RESPONSE and over) then
      replaced = nil
      if c then
        replace(c)
      end
      c = begin(pair, p, direction.high)
    end
    local side = direction.high ~= c.flip and 1 or 0
    if p.time and c.last_ns and p.time < c.last_ns then
      note(c, MARK.OUT_OF_ORDER, side, c.last_ns - p.time, 0)
    end
    local f, g = c[side], c[1 - side]
    -- These tests spare nearly all packets the calls, which cost more than anything else here.
    if
      p.mon_op ~= OUTER_OP[op] or not p.same_addresses or p.malformed
      or kind < STREAM or kind > DGRAM
    then
      compare_headers(p, c, side)
    end
    if
      direction.strange or p.flags > 0 or p.mon_reserved > 0
      or p.mon_len ~= HEADER_SIZE or p.len > LARGEST
    then
      judge_fields(p, c, side)
    end
    if kind ~= c.type then
      note(c, MARK.TYPE_CHANGED, side, c.type, kind)
    end
    payload(p, c, f, g, side)
    local moved = false
    local no_socket = false
    prompted = false
    if kind ~= DGRAM then
      if p.buf_alloc ~= f.buf or (p.fwd_cnt - f.fwd) % TWO32 > 0 or op == RST then
        moved = take_credit(p, c, f, g, side)
      end
      no_socket = op == RST and p.buf_alloc == 0 and p.fwd_cnt == 0
      if g.x then
        rare_news(p, c, f, g, side)
      end
      if op == RW then
        judge_sent(p, c, f, g, side)
      end
      if g.asked then
        answer(p, c, g, side)
      end
    end
    if op < RW or c.state ~= STATE.OPEN then
      lifecycle(p, c, side, no_socket)
    end
    c.last_packet = p.number
    if now and (not c.last_ns or now > c.last_ns) then
      if not c.last_ns then
        c.first_ns = now
      end
      c.last_ns = now
    end
    f.packets = f.packets + 1
    f.said_ns = now
    if op == RST then
      f.rsts = (f.rsts or 0) + 1
      if f.rsts >= limits.RST_STORM + g.packets then
        note(c, MARK.RST_STORM, side, f.rsts, 0)
      end
    end
    if op > RW then
      count_credit(p, c, f, g, side)
    end
    local free, granted = false, false
    if kind ~= DGRAM then
      free, granted = free_of(f, g), free_of(g, f)
      if not TERMINAL[c.state] then
        if free and (moved or op == RW) then
          note_window(p, c, f, g, free, side)
        end
        if granted then
          if moved then
            note_window(p, c, g, f, granted, 1 - side)
          end
        elseif g.stalled_since then
          end_stall(c, g, f, 1 - side, CAUSE.READER)
        end
      end
      if free == 0 and op == RW then
        mark(MARK.ZERO_CREDIT)
      end
    end
    if count > 0 then
      plain_events(c, side)
    end
    result.c, result.conn, result.loopback = c, c.number, direction.loopback
    result.side, result.side_known, result.state = side, c.side_known, c.state
    result.tx_cnt = f.tx_known and f.tx % TWO32
    result.in_flight = free and (f.tx - g.fwd) % TWO32
    result.free, result.granted = free, granted
  end

  -- A packet without a virtio header: no connection can be told.
  local function untracked(p)
    if p.cut_headers then
      note_alone(MARK.CUT_HEADERS, p.caplen)
    elseif p.malformed then
      note_alone(MARK.MALFORMED, p.malformed)
    elseif p.mon_t ~= wire.no_info then
      note_alone(MARK.UNKNOWN_TRANSPORT, p.mon_t)
    end
    result.c, result.conn, result.loopback = false, 0, false
    result.side, result.side_known, result.state = 0, false, STATE.NONE
    result.skip, result.data_cap, result.data_len = 0, 0, 0
    result.tx_cnt, result.in_flight, result.free, result.granted = false, false, false, false
  end

  -- What a packet means: a table that is valid until the next call.  `p` is what
  -- frame.read made of it, with its number and `time` (ns, nil if it has none).
  function tracker.track(p)
    count, event_count = 0, 0
    result.answer_to, result.stalled = false, false
    local time = p.time
    if time then
      if clock and time < clock then
        if clock - time > limits.TIME_BACK_NS then
          note_alone(MARK.TIME_BACK, clock - time)
        end
      end
      clock = time
      earliest = earliest or time
    end
    now = clock
    if p.is_virtio then
      virtio(p)
    else
      untracked(p)
    end
    result.mark_list, result.mark_count = marks, count
    result.events, result.event_count = events, event_count
    return result
  end
end

-- Frames: the two headers of a captured frame as one table of numbers, read by a single call.
-- As the scanner (vsockdump/capture/scan.py) reads them. Nothing here calls Wireshark.

local frame = {}

do
  local sub = string.sub
  local MONITOR, BOTH = wire.monitor_size, wire.headers_size
  local VIRTIO_SIZE, VIRTIO = wire.virtio_size, wire.virtio
  local CIDS_AND_PORTS = wire.addresses_size
  local BAD = malformed.code

  -- The table that read fills: `place` is "", or tells apart what has the same addresses.
  local p = { number = 0, place = "" }

  -- Read a frame of `wirelen` bytes, of which `caplen` were captured; `raw` holds the headers,
  -- as far as they were captured. `malformed` is false where nothing is wrong.
  function frame.read(raw, caplen, wirelen)
    p.caplen, p.wirelen = caplen, wirelen
    p.is_virtio, p.malformed, p.cut_headers = false, false, false
    p.payload_at, p.payload_cap, p.payload_wire = caplen, 0, 0
    if caplen < MONITOR then
      if wirelen >= MONITOR then
        p.malformed, p.cut_headers = BAD.CUT_MONITOR, true
      else
        p.malformed = BAD.SHORT_MONITOR
      end
      p.has_monitor = false
      return p
    end
    p.has_monitor = true
    if caplen >= BOTH then
      wire.read_headers(p, raw)
      p.addresses = sub(raw, MONITOR + 1, MONITOR + CIDS_AND_PORTS)
      p.same_addresses = sub(raw, 1, CIDS_AND_PORTS) == p.addresses
    else
      wire.read_monitor(p, raw)
    end
    local before = MONITOR + p.mon_len
    if wirelen < before then
      p.malformed = BAD.SHORT_TRANSPORT
    elseif caplen < before then
      p.malformed, p.cut_headers = BAD.CUT_TRANSPORT, true
    end
    if p.mon_t == VIRTIO then
      if p.mon_len < VIRTIO_SIZE then
        p.malformed, p.cut_headers = BAD.TRANSPORT_LENGTH, false
      elseif caplen >= BOTH then
        p.is_virtio = true
      end
    end
    if caplen >= before then
      p.payload_at, p.payload_cap, p.payload_wire = before, caplen - before, wirelen - before
    elseif wirelen > before then
      p.payload_wire = wirelen - before
    end
    return p
  end
end

-- Whether each frame is dissected once: by tshark without -2 that is so, and what was found of a
-- frame need not be kept. Wireshark asks again. Where it cannot be told for sure, it is kept.

local ONCE = false

do
  local function dissects_once(line)
    if not line:match("^[^\0]*"):find("tshark[^/]*$") then
      return false
    end
    for argument in line:gmatch("[^\0]+") do
      if argument:find("^%-") and (argument:find("2", 1, true) or argument:find("two", 1, true)) then
        return false -- -2, or letters that may have it among them
      end
    end
    return true
  end

  local file = not gui_enabled() and io.open("/proc/self/cmdline", "rb")
  if file then
    ONCE = dissects_once(file:read("*a") or "")
    file:close()
  end
end

-- Words: names of addresses, operations and flags, sentences of findings. As vsockdump has
-- them in address.py, amounts.py and findings/rule.py. Nothing here calls Wireshark.

local text = {}

do
  local format, floor = string.format, math.floor

  local CID_BY_NUMBER = wire.cid_names

  -- A 64-bit number, given in halves, in decimal: Lua 5.2 has none of that size.
  local function u64(hi, lo)
    local parts = { floor(hi / 65536), hi % 65536, floor(lo / 65536), lo % 65536 }
    local digits, left = "", true
    while left do
      local rest = 0
      left = false
      for at = 1, 4 do
        local part = rest * 65536 + parts[at]
        rest = part % 1000000000
        parts[at] = (part - rest) / 1000000000
        left = left or parts[at] > 0
      end
      digits = format("%09.0f", rest) .. digits
    end
    return (digits:gsub("^0+(%d)", "%1"))
  end
  text.u64 = u64

  function text.cid(hi, lo)
    return hi == 0 and CID_BY_NUMBER[lo] or "guest " .. u64(hi, lo)
  end

  function text.source(p)
    return format("%s:%.0f", text.cid(p.src_cid_hi, p.src_cid_lo), p.src_port)
  end

  function text.target(p)
    return format("%s:%.0f", text.cid(p.dst_cid_hi, p.dst_cid_lo), p.dst_port)
  end

  -- The name of a value; "unknown (99)" for one that has none.
  function text.name(names, number)
    return names[number] or format("unknown (%.0f)", number)
  end

  -- Names of the set flags, bits without a name together as hex.
  function text.flags(op, kind, flags)
    local names
    if op == wire.op.SHUTDOWN then
      names = wire.shutdown_flags
    elseif op == wire.op.RW and kind == wire.type.SEQPACKET then
      names = wire.seqpacket_flags
    end
    local found = {}
    for bit, name in ipairs(names or {}) do
      local size = 2 ^ (bit - 1)
      if flags % (2 * size) >= size then
        found[#found + 1] = name
        flags = flags - size
      end
    end
    if flags > 0 then
      found[#found + 1] = format("0x%x", flags)
    end
    return table.concat(found, "|")
  end

  function text.span(nanoseconds)
    for _, unit in ipairs({ { "s", 1e9 }, { "ms", 1e6 }, { "us", 1e3 } }) do
      if nanoseconds >= unit[2] then
        return format("%.4g %s", nanoseconds / unit[2], unit[1])
      end
    end
    return format("%.0f ns", nanoseconds)
  end

  local function counted(number, noun)
    return format("%.0f %s%s", number, noun, number == 1 and "" or "s")
  end

  local AS = {
    [""] = function(number) return format("%.0f", number) end,
    time = text.span,
    hex = function(number) return format("0x%x", number) end,
    op = function(number) return text.name(wire.op_names, number) end,
    monitor = function(number) return text.name(wire.monitor_op_names, number) end,
    type = function(number) return text.name(wire.type_names, number) end,
    malformed = function(number) return malformed.text[number] end,
  }

  -- What happened; `ends` are the names of side 0 and side 1.
  function text.sentence(event, ends)
    local values = { who = ends[event.side], peer = ends[1 - event.side] }
    local finding = findings[event.mark]
    local message = event.cause and finding.others and finding.others[event.cause]
    local said = ((message or finding.message):gsub("{(%w+):?(%w*)}", function(name, kind)
      if values[name] then
        return values[name]
      end
      local number = event[name]
      return AS[kind] and AS[kind](number) or counted(number, (kind:gsub("s$", "")))
    end))
    return said .. (event.doubt and states.doubts[event.doubt] or "")
  end
end

-- ttRPC, which Wireshark lacks: containerd's small RPC over streams, spoken by the agents of
-- Kata Containers and of firecracker-containerd. Frames, request and response as pairs, and
-- the payload to Wireshark's protobuf dissector, which names its fields if it was given the
-- .proto files. Source: PROTOCOL.md of containerd/ttrpc.

local ttrpc = { session = 0 }

do
  local byte, sub, format = string.byte, string.sub, string.format
  local HEADER, LARGEST = 10, 4194304
  local REQUEST, RESPONSE, DATA = 1, 2, 3
  local KINDS = { "Request", "Response", "Data" }
  local FLAGS = { "remote closed", "remote open", "no data" }
  -- google.rpc.Code, which is gRPC's
  local CODES = {
    [0] = "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
  }

  local exists, taken = pcall(Dissector.get, "ttrpc")
  local proto
  if not (exists and taken) then
    proto = Proto("ttrpc", "ttRPC")
  end

  local f = {}
  local calls    -- session and stream -> the open call
  local answers  -- frame, session and stream -> the call, for later passes

  function ttrpc.reset()
    calls, answers = {}, {}
  end

  -- Protobuf, as far as requests and responses need it -----------------------------------

  local function varint(data, at)
    local value, size = 0, 1
    for position = at, at + 9 do
      local part = byte(data, position)
      if not part then
        return nil
      end
      value = value + part % 128 * size
      if part < 128 then
        return value, position + 1
      end
      size = size * 128
    end
    return nil
  end

  -- The fields of a message: { number, value or string, offset, size }; stops at what is wrong.
  local function fields_of(data)
    local found, at = {}, 1
    while at <= #data do
      local key, next_at = varint(data, at)
      if not key then
        break
      end
      local number, wire_type = (key - key % 8) / 8, key % 8
      local value, size
      if wire_type == 0 then
        value, at = varint(data, next_at)
        size = at and at - next_at
      elseif wire_type == 2 then
        local length, start = varint(data, next_at)
        if length and start + length - 1 <= #data then
          value, size = sub(data, start, start + length - 1), length
          next_at, at = start, start + length
        end
      elseif wire_type == 1 or wire_type == 5 then
        size = wire_type == 1 and 8 or 4
        if next_at + size - 1 <= #data then
          value, at = sub(data, next_at, next_at + size - 1), next_at + size
        end
      end
      if not value or not at then
        break
      end
      if size > 0 then -- Wireshark has no empty ranges, and an empty field is as good as none
        found[#found + 1] = { number = number, value = value, at = next_at - 1, size = size }
      end
    end
    return found
  end

  -- One frame ------------------------------------------------------------------------------

  local function describe_flags(flags)
    local found = {}
    for bit, name in ipairs(FLAGS) do
      local size = 2 ^ (bit - 1)
      if flags % (2 * size) >= size then
        found[#found + 1] = name
      end
    end
    return #found > 0 and table.concat(found, ", ") or "none"
  end

  -- Bytes of a message; in place of none, which Wireshark does not take, their length's byte.
  local function part(body, at, size)
    if size == 0 then
      return body:range(at - 1, 1)
    end
    return body:range(at, size)
  end

  local function show_payload(call, which, body, field, pinfo, tree)
    if field.size == 0 then
      return
    end
    local data = body:range(field.at, field.size)
    tree:add(f.payload, data)
    local found, dissector = pcall(Dissector.get, "protobuf")
    if found and dissector then
      if call then
        pinfo.private["pb_msg_type"] =
          format("application/grpc,/%s/%s,%s", call.service, call.method, which)
      end
      pcall(dissector.call, dissector, data:tvb(), pinfo, tree)
    end
  end

  local function show_metadata(data, body, at, tree)
    local pair = {}
    for _, field in ipairs(fields_of(data)) do
      if type(field.value) == "string" then
        pair[field.number] = field.value
      end
    end
    tree:add(f.metadata, part(body, at, #data), format("%s: %s", pair[1] or "", pair[2] or ""))
  end

  local function new_call(key, pinfo, fields)
    local call = { service = "", method = "", frame = pinfo.number, time = pinfo.rel_ts }
    for _, field in ipairs(fields) do
      if field.number == 1 and type(field.value) == "string" then
        call.service = field.value
      elseif field.number == 2 and type(field.value) == "string" then
        call.method = field.value
      end
    end
    calls[key] = call
    return call
  end

  local function show_request(call, fields, body, pinfo, tree)
    for _, field in ipairs(fields) do
      local value, range = field.value, part(body, field.at, field.size)
      local is_text = type(value) == "string"
      if field.number == 1 and is_text then
        tree:add(f.service, range, value)
      elseif field.number == 2 and is_text then
        tree:add(f.method, range, value)
      elseif field.number == 3 and is_text then
        show_payload(call, "request", body, field, pinfo, tree)
      elseif field.number == 4 and not is_text then
        local nanoseconds = value % 1000000000
        tree:add(f.timeout, range, NSTime.new((value - nanoseconds) / 1000000000, nanoseconds))
      elseif field.number == 5 and is_text then
        show_metadata(value, body, field.at, tree)
      end
    end
    return format("%s/%s", call.service, call.method)
  end

  local function show_status(data, body, at, tree)
    local code, message = 0, ""
    for _, field in ipairs(fields_of(data)) do
      if field.number == 1 and type(field.value) == "number" then
        code = field.value
      elseif field.number == 2 and type(field.value) == "string" then
        message = field.value
        tree:add(f.message, part(body, at + field.at, field.size), message)
      end
    end
    local name = CODES[code] or format("code %.0f", code)
    tree:add(f.code, part(body, at, #data), code % 4294967296)
    tree:add(f.status, part(body, at, #data), name)
    return name, message
  end

  local function show_response(call, fields, body, pinfo, tree)
    local status, message = "OK", ""
    for _, field in ipairs(fields) do
      if type(field.value) == "string" then
        if field.number == 1 then
          status, message = show_status(field.value, body, field.at, tree)
        elseif field.number == 2 then
          show_payload(call, "response", body, field, pinfo, tree)
        end
      end
    end
    local of = call and format("%s/%s ", call.service, call.method) or ""
    return of .. status .. (message ~= "" and ": " .. message or "")
  end

  -- The call that a frame belongs to, on any pass.
  local function call_of(key, kind, pinfo, fields)
    local now = pinfo.number .. " " .. key .. " " .. kind
    if not pinfo.visited then
      local call = kind == REQUEST and new_call(key, pinfo, fields) or calls[key]
      if call and kind == RESPONSE then
        call.answer = pinfo.number
        calls[key] = nil
      end
      if ONCE then
        return call
      end
      answers[now] = call
    end
    return answers[now]
  end

  local function show_pair(call, kind, pinfo, tree)
    if not call then
      return
    end
    if kind == REQUEST then
      if call.answer then
        tree:add(f.response_in, call.answer):set_generated()
      end
      return
    end
    tree:add(f.request_in, call.frame):set_generated()
    local waited = math.floor((pinfo.rel_ts - call.time) * 1e9 + 0.5)
    if waited >= 0 then
      local rest = waited % 1000000000
      tree:add(f.time, NSTime.new((waited - rest) / 1000000000, rest)):set_generated()
    end
  end

  local function show_frame(frame, pinfo, root)
    local length, id = frame:range(0, 4):uint(), frame:range(4, 4):uint()
    local kind, flags = frame:range(8, 1):uint(), frame:range(9, 1):uint()
    local tree = root:add(proto, frame)
    tree:add(f.length, frame:range(0, 4))
    tree:add(f.stream, frame:range(4, 4))
    tree:add(f.type, frame:range(8, 1))
    tree:add(f.flags, frame:range(9, 1)):append_text(" (" .. describe_flags(flags) .. ")")
    local body = length > 0 and frame:range(HEADER, length) or nil
    local data = body and body:raw() or ""
    local fields = kind == DATA and {} or fields_of(data)
    local key = format("%s:%.0f", ttrpc.session, id)
    local call = call_of(key, kind, pinfo, fields)
    local said
    if kind == REQUEST then
      said = show_request(call, fields, body, pinfo, tree)
    elseif kind == RESPONSE then
      said = show_response(call, fields, body, pinfo, tree)
    else
      if body then
        tree:add(f.payload, body)
      end
      said = (call and format("%s/%s ", call.service, call.method) or "") .. length .. " bytes"
    end
    show_pair(call, kind, pinfo, tree)
    local line = format("%s #%.0f %s", KINDS[kind] or format("type %.0f", kind), id, said)
    tree:append_text(", " .. line)
    return line
  end

  if proto then
    f.length = ProtoField.uint32("ttrpc.length", "Length")
    f.stream = ProtoField.uint32("ttrpc.stream_id", "Stream")
    f.type = ProtoField.uint8("ttrpc.type", "Type", base.DEC, KINDS)
    f.flags = ProtoField.uint8("ttrpc.flags", "Flags", base.HEX)
    f.service = ProtoField.string("ttrpc.service", "Service")
    f.method = ProtoField.string("ttrpc.method", "Method")
    f.timeout = ProtoField.relative_time("ttrpc.timeout", "Timeout")
    f.metadata = ProtoField.string("ttrpc.metadata", "Metadata")
    f.code = ProtoField.uint32("ttrpc.status.code", "Status code")
    f.status = ProtoField.string("ttrpc.status", "Status")
    f.message = ProtoField.string("ttrpc.status.message", "Status message")
    f.payload = ProtoField.bytes("ttrpc.payload", "Payload")
    f.response_in =
      ProtoField.framenum("ttrpc.response_in", "Response in", base.NONE, frametype.RESPONSE)
    f.request_in =
      ProtoField.framenum("ttrpc.request_in", "Request in", base.NONE, frametype.REQUEST)
    f.time = ProtoField.relative_time("ttrpc.time", "Time since the request")
    f.malformed = ProtoField.string("ttrpc.malformed", "Not a ttRPC frame")
    local all = {}
    for _, field in pairs(f) do
      all[#all + 1] = field
    end
    proto.fields = all

    function proto.dissector(tvb, pinfo, root)
      local size, at, lines = tvb:len(), 0, {}
      while at < size do
        local need = HEADER
        if size - at >= HEADER then
          local length = tvb:range(at, 4):uint()
          if length > LARGEST then
            root:add(f.malformed, tvb:range(at), "longer than 4 MiB: not the start of a frame")
            break
          end
          need = HEADER + length
        end
        if size - at < need then
          pinfo.desegment_offset = at
          pinfo.desegment_len = need - (size - at)
          break
        end
        lines[#lines + 1] = show_frame(tvb:range(at, need), pinfo, root)
        at = at + need
      end
      if #lines > 0 then
        pinfo.cols.protocol = "ttRPC"
        pinfo.cols.info = table.concat(lines, "; ")
      end
    end
  end
end

-- Payload for other dissectors: which protocol a connection speaks, and its bytes in whole
-- messages. To them this plays TCP: it lets them ask for more bytes (can_desegment), keeps
-- what they could not use, and comes back with more.
--
-- What is decided is decided on the first pass, in order of packets; `handed` keeps for each
-- frame what later passes need: the handler alone, or with the bytes kept from before and the
-- point up to which it got through. SEQPACKET and DGRAM have messages of their own, which are
-- given whole.

local streams = { recognise = true, largest = 1048576 }

do
  local UNTIL_END = 0x0ffffffe -- not a number of bytes; above it: one packet more
  local MOST_IN_VAIN = 4096
  -- Protocols of which each message begins as recognise wants it.
  local TELLING = { http = true, json = true, ttrpc = true }
  local FIRST = 24             -- bytes that every recogniser is content with
  local PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
  local SEQPACKET, DGRAM = wire.type.SEQPACKET, wire.type.DGRAM
  local sub, byte, find = string.sub, string.byte, string.find

  local handlers   -- by name
  local chosen     -- port -> handler, the user's
  local assumed    -- port -> handler, of the table
  local handed     -- frame number -> what was done with its payload
  streams.failures = {}

  -- Protocols by their first bytes ------------------------------------------------------

  local function be32(data, at)
    local a, b, c, d = byte(data, at, at + 3)
    return ((a * 256 + b) * 256 + c) * 256 + d
  end

  local function is_tls(data)
    local kind, major, minor, _, _, message = byte(data, 1, 6)
    return kind == 22 and major == 3 and minor <= 4 and (message == 1 or message == 2)
  end

  local function is_ttrpc(data)
    if #data < 10 or byte(data, 1) ~= 0 then
      return false
    end
    local length, id, kind, flags = be32(data, 1), be32(data, 5), byte(data, 9, 10)
    if length > 4194304 or id % 2 == 0 or kind < 1 or kind > 3 or flags > 7 then
      return false
    end
    if kind == 1 then
      return byte(data, 11) == 0x0a
    end
    return #data == length + 10
  end

  local function is_9p(data)
    return find(data, "^....d\255\255") ~= nil and find(data, "9P2000", 12, true) ~= nil
  end

  local function is_http(data)
    return find(data, "^HTTP/1%.[01] ") ~= nil
      or find(data, "^%u%u%u+ [%w/*][^\r\n]* HTTP/1%.[01]\r\n") ~= nil
  end

  -- The protocol's name, false if it is none that is known, nil if there are too few bytes.
  local function recognise(data)
    if #data < 8 then
      return nil
    elseif sub(data, 1, 4) == "SSH-" then
      return "ssh"
    elseif sub(data, 1, #PREFACE) == PREFACE then
      return "http2"
    elseif is_http(data) then
      return "http"
    elseif is_tls(data) then
      return "tls"
    elseif is_ttrpc(data) then
      return "ttrpc"
    elseif is_9p(data) then
      return "9p"
    elseif find(data, '^\255?%s*{%s*"') then
      return "json"
    elseif #data < FIRST or find(data, "^%u%u%u+ [%w/*]") and not find(data, "\n", 1, true) then
      return nil
    end
    return false
  end

  -- Handlers -----------------------------------------------------------------------------

  -- What a name stands for: how it is called, or nil where Wireshark has nothing of the kind.
  local function handler(name)
    if handlers[name] == nil then
      local dissector_name = protocols[name] or name
      local found, dissector = pcall(Dissector.get, dissector_name)
      if not (found and dissector) and tcp_ports[name] then -- some have no name
        dissector = DissectorTable.get("tcp.port"):get_dissector(tcp_ports[name])
      end
      if dissector then
        handlers[name] = { name = name, dissector_name = dissector_name, dissector = dissector }
        handlers[name].plain = { handler = handlers[name] }
        handlers[name].waiting = { handler = handlers[name], upto = 0 }
      else
        handlers[name] = false
      end
    end
    return handlers[name] or nil
  end

  -- Where a JSON string ends, from inside it; nil if it does not.
  local function closing_quote(data, at)
    while true do
      at = find(data, '[\\"]', at)
      if not at or byte(data, at) == 34 then
        return at
      end
      at = at + 2 -- a backslash, and what it escapes
    end
  end

  -- JSON has no framing that its dissector would ask for: up to the last whole value.
  local function json_end(data)
    local upto, depth, at = 0, 0, 1
    while true do
      at = find(data, '["{}%[%]]', at)
      local sign = at and sub(data, at, at)
      if not at then
        return upto
      elseif sign == '"' then
        at = closing_quote(data, at + 1)
        if not at then
          return upto
        end
      elseif sign == "{" or sign == "[" then
        depth = depth + 1
      elseif depth > 0 then
        depth = depth - 1
        if depth == 0 then
          upto = at
        end
      end
      at = at + 1
    end
  end

  -- A port map such as "1024=ttrpc,8443=tls"; what is wrong with it is returned as well.
  function streams.parse_ports(text)
    local map, wrong = {}, nil
    for entry in text:gmatch("[^,]+") do
      local port, name = entry:match("^%s*(%d+)%s*=%s*([%w_.-]+)%s*$")
      local of = name and handler(name:lower())
      if of then
        map[tonumber(port)] = of
      else
        wrong = wrong or entry
      end
    end
    return map, wrong
  end

  function streams.reset(port_text)
    handlers, handed, assumed = {}, {}, {}
    for port, name in pairs(ports) do
      assumed[port] = handler(name)
    end
    local wrong
    chosen, wrong = streams.parse_ports(port_text)
    return wrong
  end

  -- Calling a dissector ------------------------------------------------------------------

  -- SSH's dissector knows the server by its port only.
  local function call_ssh(data, pinfo, tree, acceptor_sends)
    local source, target = pinfo.src_port, pinfo.dst_port
    if acceptor_sends then
      pinfo.src_port = tcp_ports.ssh
    else
      pinfo.dst_port = tcp_ports.ssh
    end
    local done, why = pcall(function()
      DissectorTable.get("tcp.port"):try(tcp_ports.ssh, data, pinfo, tree)
    end)
    pinfo.src_port, pinfo.dst_port = source, target
    return done, why
  end

  local function call_json(of, data, pinfo, tree)
    local bytes = data:raw()
    local upto = json_end(bytes)
    if find(bytes, "[^%s]", upto + 1) then
      pinfo.desegment_offset, pinfo.desegment_len = upto, DESEGMENT_ONE_MORE_SEGMENT
    end
    local at = 0
    while at < upto do
      local size = find(bytes, "\n", at + 1, true)
      size = (size and size < upto and size or upto) - at
      of.dissector:call(data:range(at, size):tvb(), pinfo, tree)
      at = at + size
    end
  end

  -- Call a handler. Wireshark's own dissectors pair what two ends say by their addresses;
  -- loopback calls one end local and host by turns, so it gets one name meanwhile.
  local function call(of, data, pinfo, tree, context, more)
    pinfo.can_desegment = more and 2 or 0
    pinfo.desegment_len, pinfo.desegment_offset = 0, 0
    local target = context.loopback and pinfo.dst
    if target then
      pinfo.dst = pinfo.src
    end
    local done, why
    ttrpc.session = context.conn
    if of.name == "ssh" then
      done, why = call_ssh(data, pinfo, tree, context.side == 1)
    elseif of.name == "json" then
      done, why = pcall(call_json, of, data, pinfo, tree)
    else
      done, why = pcall(of.dissector.call, of.dissector, data, pinfo, tree)
    end
    if target then
      pinfo.dst = target
    end
    local need, from = pinfo.desegment_len, pinfo.desegment_offset
    pinfo.can_desegment, pinfo.desegment_len, pinfo.desegment_offset = 0, 0, 0
    if not done then
      -- The dissector has said in the tree what is malformed.
      return 0, 0, why
    end
    return need, from
  end

  local function as_tvb(data)
    return ByteArray.new(data, true):tvb("vsock stream")
  end

  -- The first pass -----------------------------------------------------------------------

  -- Who speaks what: by the user's ports, by the bytes, by the ports of the table if the
  -- bytes by which it is told went before the capture. False if it is nothing that is known,
  -- nil if more bytes will tell.
  local function decide(p, r, data)
    local acceptor, initiator = p.dst_port, p.src_port
    if r.side == 1 then
      acceptor, initiator = initiator, acceptor
    end
    local of = chosen[acceptor] or chosen[initiator]
    if of then
      return of
    end
    local name = false
    if streams.recognise then
      name = recognise(data)
    end
    if name then
      return handler(name) or false
    elseif name == false then
      return r.c.midstream and (assumed[acceptor] or assumed[initiator]) or false
    end
    return nil
  end

  -- What is kept of a direction: parts, their size, how large they have to be before it is
  -- worth looking at them again, and how often that was in vain.

  local function drop(s)
    s.parts, s.size, s.wanted, s.vain = nil, nil, nil, nil
  end

  local function kept(s)
    if s.parts and #s.parts > 1 then
      s.parts = { table.concat(s.parts) }
    end
    return s.parts and s.parts[1]
  end

  -- Keep more; false where it is too much. Then the stream is given up until a packet begins
  -- as a message of its protocol does.
  local function keep(s, data, wanted)
    s.parts = s.parts or {}
    s.parts[#s.parts + 1] = data
    s.size = (s.size or 0) + #data
    s.wanted = wanted
    if s.size > streams.largest or (s.vain or 0) > MOST_IN_VAIN then
      drop(s)
      s.lost = true
      return false
    end
    return true
  end

  local function finds_its_way(of, s, data)
    if TELLING[of.dissector_name] and recognise(data) ~= of.dissector_name then
      return false
    end
    s.lost = false
    return true
  end

  -- Look at what is kept and at a packet's own bytes; `piece` says where they are.
  local function deliver(of, s, data, piece, pinfo, tree, r)
    local before, vain = kept(s), s.vain or 0
    drop(s)
    local whole = before and before .. data or data
    local begun = #whole < #PREFACE and find(PREFACE, whole, 1, true) == 1
    if begun and of.dissector_name == "http2" then
      keep(s, whole) -- its dissector takes a part of the preface for a frame
      return of.waiting
    end
    local is_whole = r.data_cap == r.data_len -- or snaplen has cut it, and no more will fit
    local shown = before and as_tvb(whole) or piece.tvb:range(piece.at, piece.size):tvb()
    local need, from = call(of, shown, pinfo, tree, r, is_whole)
    if need == 0 or not is_whole then
      return before and { handler = of, before = before, last = not is_whole } or of.plain
    end
    local rest = sub(whole, from + 1)
    s.vain = from == 0 and vain + 1 or 0
    local wanted = need < UNTIL_END and #rest + need or need == UNTIL_END and math.huge or nil
    if not keep(s, rest, wanted) then
      return { handler = of, before = before }
    elseif from == 0 then
      return of.waiting
    end
    return { handler = of, before = before, upto = from }
  end

  -- A piece of a message of SEQPACKET, or a datagram: given at its end.
  local function deliver_message(of, s, data, piece, pinfo, tree, r, is_last)
    if not is_last then
      return keep(s, data) and of.waiting or nil
    end
    local before = kept(s)
    drop(s)
    local shown = before and as_tvb(before .. data) or piece.tvb:range(piece.at, piece.size):tvb()
    call(of, shown, pinfo, tree, r, false)
    return before and { handler = of, before = before, last = true } or of.plain
  end

  -- The handler of a connection, once it is known; nothing is looked for after three packets
  -- that were of no protocol.
  local function handler_of(app, s, p, r, data)
    local before = kept(s)
    local of = decide(p, r, before and before .. data or data)
    if of then
      app.handler = of
    elseif of == nil then
      s.vain = (s.vain or 0) + 1
      keep(s, data)
    else
      drop(s)
      app.silent = app.silent + 1
      if app.silent == 3 then
        r.c.app = false
      end
    end
    return of
  end

  local function take(p, r, tvb, at, pinfo, tree)
    local c, size = r.c, r.data_cap
    local app = c.app or { [0] = {}, [1] = {}, silent = 0 }
    c.app = app
    local s = app[r.side]
    if size == 0 then
      drop(s) -- snaplen has cut what would have been kept
      return nil
    end
    local data = tvb:raw(at, size)
    local of = app.handler or handler_of(app, s, p, r, data)
    if not of then
      return nil
    end
    if s.lost and not finds_its_way(of, s, data) then
      return nil
    end
    local piece = { tvb = tvb, at = at, size = size }
    if p.type == SEQPACKET or p.type == DGRAM then
      local is_last = p.type == DGRAM or p.flags % 2 == 1
      return deliver_message(of, s, data, piece, pinfo, tree, r, is_last)
    end
    if s.wanted and s.size + size < s.wanted and size == r.data_len then
      if keep(s, data, s.wanted) then
        return of.waiting
      end
      return of.plain
    end
    return deliver(of, s, data, piece, pinfo, tree, r)
  end

  -- A direction has ended: what was kept is all there will be.
  local function flush(c, side, pinfo, tree, context)
    local app = c.app
    local s = app and app.handler and app[side]
    local before = s and kept(s)
    if not before then
      return nil
    end
    drop(s)
    call(app.handler, as_tvb(before), pinfo, tree, context, false)
    return { handler = app.handler, before = before, last = true, flushed = true }
  end

  local function ends(p, r, pinfo, tree)
    local c = r.c
    local found
    if p.op == wire.op.SHUTDOWN and p.flags % 4 >= 2 then
      found = flush(c, r.side, pinfo, tree, r)
    elseif states.terminal[r.state] then
      found = flush(c, 0, pinfo, tree, r) or flush(c, 1, pinfo, tree, r)
      c.app = false
    end
    return found
  end

  -- The payload of a frame on the first pass, if its connection has one that may be of use
  -- (`app` is not false); returns what later passes are told. `at` is where the stream's bytes
  -- begin.
  function streams.first(p, r, tvb, at, pinfo, tree)
    local found
    if r.data_len > 0 and not states.terminal[r.state] then
      found = take(p, r, tvb, at, pinfo, tree)
    elseif r.c.app then
      found = ends(p, r, pinfo, tree)
    end
    if found and not ONCE then
      handed[p.number] = found
    end
    return found
  end

  -- The same on later passes; `view` has what is known of the frame.
  function streams.again(view, tvb, at, pinfo, tree)
    local found = handed[view.number]
    if not found or found.upto == 0 then
      return found
    end
    local shown
    if found.flushed then
      shown = as_tvb(found.before)
    elseif found.before or found.upto then
      local whole = (found.before or "") .. tvb:raw(at, view.data_cap)
      shown = as_tvb(found.upto and sub(whole, 1, found.upto) or whole)
    else
      shown = tvb:range(at, view.data_cap):tvb()
    end
    call(found.handler, shown, pinfo, tree, view, not found.last)
    return found
  end
end

-- The dissector: calls Wireshark's own, tracks the frame on the first pass, and shows what is
-- known of it on every pass: fields, findings as expert information, the Info column.
--
-- What a frame needs later is kept in few numbers a frame, since Wireshark asks for frames
-- again, in any order: `kept` has five for each, the tables beside it only what is rare.

local vsock = {}

do
  local format, floor, concat = string.format, math.floor, table.concat
  local OP, TYPE = wire.op, wire.type
  local RW, RST, REQUEST, CREDIT_UPDATE = OP.RW, OP.RST, OP.REQUEST, OP.CREDIT_UPDATE
  local HEADERS = wire.headers_size

  local proto = Proto("vsockdump", "vsockdump")
  local sll_proto = Proto("vsockdump_sll", "vsockdump of cooked captures")
  local builtin = DissectorTable.get("wtap_encap"):get_dissector(wtap_encaps.VSOCK)
  local builtin_call = builtin.call
  local interface_id = Field.new("frame.interface_id")
  local interface_name = Field.new("frame.interface_name")
  local ifindex = Field.new("sll.ifindex")

  vsock.proto = proto
  proto.prefs.ports = Pref.string(
    "Ports and protocols", "",
    "Protocol of a port, whatever the bytes look like: 1024=ttrpc,9000=http. Known are 9p,"
      .. " grpc, http, http2, json, protobuf, ssh, tls, ttrpc, and every dissector of Wireshark."
  )
  proto.prefs.recognise = Pref.bool(
    "Recognise protocols", true, "Tell the protocol of a connection by its first bytes"
  )
  proto.prefs.largest = Pref.uint(
    "Longest message (bytes)", 1048576, "How much of one message is kept to put it together"
  )
  proto.prefs.info = Pref.bool(
    "Own Info column", true, "Connection, operation, credit and findings in the Info column"
  )

  -- Fields and findings --------------------------------------------------------------------

  local F, EXPERT = {}, {}

  do
    local all, experts = {}, {}
    for at, field in ipairs(fields) do
      local made
      if field.kind == "framenum" then
        local kind = field.name == "vsock.response_in" and frametype.RESPONSE or frametype.REQUEST
        made = ProtoField.framenum(field.name, field.title, base.NONE, kind, 0, field.meaning)
      elseif field.kind == "relative_time" then
        made = ProtoField.relative_time(field.name, field.title, field.meaning)
      elseif field.kind == "uint32" then
        made = ProtoField.uint32(field.name, field.title, base.DEC, nil, 0, field.meaning)
      elseif field.kind == "bytes" then
        made = ProtoField.bytes(field.name, field.title, base.NONE, field.meaning)
      else
        made = ProtoField.string(field.name, field.title, base.UNICODE, field.meaning)
      end
      all[at], F[field.name] = made, made
    end
    proto.fields = all
    local severities = {
      chat = expert.severity.CHAT,
      note = expert.severity.NOTE,
      warn = expert.severity.WARN,
      error = expert.severity.ERROR,
    }
    for bit, finding in pairs(findings) do
      if finding.name then
        EXPERT[bit] = ProtoExpert.new(
          finding.name, finding.what, expert.group.PROTOCOL, severities[finding.severity]
        )
        experts[#experts + 1] = EXPERT[bit]
      end
    end
    proto.experts = experts
  end

  -- Mark sets: few different ones occur, so that a frame keeps the number of one ------------

  local sets, set_by_key

  -- Words of a list: of its marks, or of what is found without a mark of its own (`more`).
  local function words_of(list, which, more)
    local found = {}
    for _, number in ipairs(list) do
      local finding = findings[number]
      if (number >= MARKS) == (more or false) and (not which or finding[which]) then
        found[#found + 1] = finding.word
      end
    end
    return found
  end

  local function bracketed(list, more, first)
    local words = words_of(list, "shown", more)
    if first then
      table.insert(words, 1, first)
    end
    return #words > 0 and " [" .. concat(words, ", ") .. "]" or ""
  end

  local function accused(list, more)
    local wrong = concat(words_of(list, "wrong", more), ", ")
    return wrong ~= "" and " ! " .. wrong or ""
  end

  -- The end of an Info column: what is worth knowing, behind `first`, and what is wrong.
  local function tail(list, first)
    return bracketed(list, false, first) .. accused(list) .. bracketed(list, true) .. accused(list, true)
  end

  local function set_of(marks, count)
    local key = marks[1]
    if count > 1 then
      local list = {}
      for at = 1, count do
        list[at] = marks[at]
      end
      table.sort(list)
      key = concat(list, ",")
      marks = list
    end
    local number = set_by_key[key]
    if not number then
      local list = {}
      for at = 1, count do
        list[at] = marks[at]
      end
      number = #sets + 1
      sets[number] = {
        list = list,
        words = concat(words_of(list), ","),
        tail = tail(list),
      }
      for _, bit in ipairs(list) do
        sets[number].later = sets[number].later or bit == MARK.LATER_RST
      end
      set_by_key[key] = number
    end
    return number
  end

  -- What is kept of frames -----------------------------------------------------------------

  local kept, frame_marks, frame_skips, sentences, answers, answered, stalls

  -- conn, state, side and whether it is known, in one number
  local function packed(r)
    return r.conn * 64 + r.state * 4 + r.side * 2 + (r.side_known and 1 or 0)
  end

  local function remember(p, r)
    local number = p.number
    if not ONCE then
      local at = number * 5
      kept[at] = packed(r)
      kept[at + 1] = r.tx_cnt or -1
      kept[at + 2] = r.in_flight or -1
      kept[at + 3] = r.free or -1
      kept[at + 4] = r.granted or -1
    end
    r.number, r.marks = number, false
    if r.mark_count > 0 then
      local set = set_of(r.mark_list, r.mark_count)
      frame_marks[number] = set
      r.marks = sets[set]
    end
    if r.skip > 0 then
      frame_skips[number] = r.skip
    end
    if r.answer_to then
      answers[number] = { r.answer_to, r.answer_ns }
      if not ONCE then
        answered[r.answer_to] = number
      end
    end
    if r.stalled then
      stalls[number] = r.stalled
    end
    if r.event_count > 0 then
      local ends = { [0] = "one end", [1] = "the other end" }
      if p.is_virtio then
        ends[r.side], ends[1 - r.side] = text.source(p), text.target(p)
      end
      local of = {}
      for at_event = 1, r.event_count do
        local event = r.events[at_event]
        if event.conn == 0 or event.conn == r.conn then
          local said = of[event.mark] or {}
          said[#said + 1] = text.sentence(event, ends)
          of[event.mark] = said
        end
      end
      sentences[number] = of
    end
  end

  local function forget(number)
    frame_marks[number], frame_skips[number], sentences[number] = nil, nil, nil
    answers[number], stalls[number] = nil, nil
  end

  local view = {} -- what is known of the frame at hand

  local function known(value)
    return value >= 0 and value
  end

  local function recall(p)
    local number = p.number
    local at = number * 5
    local code = kept[at]
    view.number = number
    view.skip = frame_skips[number] or 0
    view.marks = sets[frame_marks[number]] or false
    if not code then -- never seen on a first pass
      code = 0
      kept[at + 1], kept[at + 2], kept[at + 3], kept[at + 4] = -1, -1, -1, -1
    end
    view.side_known = code % 2 == 1
    code = floor(code / 2)
    view.side = code % 2
    code = floor(code / 2)
    view.state = code % 16
    view.conn = floor(code / 16)
    view.tx_cnt, view.in_flight = known(kept[at + 1]), known(kept[at + 2])
    view.free, view.granted = known(kept[at + 3]), known(kept[at + 4])
    view.data_len, view.data_cap = 0, 0
    if p.is_virtio and p.op == RW then
      local have = p.payload_cap - view.skip
      view.data_len = p.len
      view.data_cap = have < 0 and 0 or have > p.len and p.len or have
    end
    view.loopback = p.is_virtio and p.src_cid_hi == 0 and p.dst_cid_hi == 0
      and (p.src_cid_lo == wire.cid_local or p.dst_cid_lo == wire.cid_local)
    return view
  end

  -- The Info column ------------------------------------------------------------------------

  -- u32 numbers do not fit %d of Lua 5.2 where C's long has 32 bits.
  local INTEGER = pcall(format, "%d", 4294967295) and "%%d" or "%%.0f" -- for gsub

  -- Formats of lines, by type and op: address and operation, then a number, then two.
  local formats = {}

  local function formats_of(op, kind)
    local start = "#%d %d \226\134\146 %d "
    if kind ~= TYPE.STREAM then
      start = start .. text.name(wire.type_names, kind) .. " "
    end
    start = start .. text.name(wire.op_names, op)
    local number = op == RW and " %d" or op == CREDIT_UPDATE and " grants %d" or nil
    local found = {
      start = start:gsub("%%d", INTEGER),
      none = (start .. "%s"):gsub("%%d", INTEGER),
      number = number and (start .. number .. "%s"):gsub("%%d", INTEGER),
      free = (start .. " free %d%s"):gsub("%%d", INTEGER),
      both = number and (start .. number .. " free %d%s"):gsub("%%d", INTEGER),
    }
    formats[kind * 65536 + op] = found
    return found
  end

  -- How an RST ended the connection stands before the other remarks.
  local function ending_of(p, v)
    local marks = v.marks
    if p.op ~= RST or not states.terminal[v.state] or (marks and marks.later) then
      return marks and marks.tail or ""
    end
    return tail(marks and marks.list or {}, (states.word[v.state]:gsub("-", " ")))
  end

  local function info_of_other(p, v)
    local ending = v.marks and v.marks.tail or ""
    if not p.has_monitor then
      return "#- " .. malformed.text[p.malformed] .. ending
    end
    local line = format(
      "#- %s %s length %.0f", text.name(wire.transport_names, p.mon_t),
      text.name(wire.monitor_op_names, p.mon_op), p.payload_wire
    )
    return (p.malformed and line .. ", " .. malformed.text[p.malformed] or line) .. ending
  end

  -- In one call of format where there are no flags, which is nearly always.
  local function info(p, v)
    if not p.is_virtio then
      return info_of_other(p, v)
    end
    local op, free, conn, source, target = p.op, v.free, v.conn, p.src_port, p.dst_port
    local as = formats[p.type * 65536 + op] or formats_of(op, p.type)
    local number = op == RW and p.len or op == CREDIT_UPDATE and v.granted or nil
    local ending = (v.marks or op == RST) and ending_of(p, v) or ""
    if op == RST or op == REQUEST then
      free = false
    end
    if p.flags > 0 then
      return format(as.start, conn, source, target)
        .. (op == RW and format(" %.0f", p.len) or "")
        .. " " .. text.flags(op, p.type, p.flags)
        .. (free and format(" free %.0f", free) or "") .. ending
    elseif number and free then
      return format(as.both, conn, source, target, number, free, ending)
    elseif number then
      return format(as.number, conn, source, target, number, ending)
    elseif free then
      return format(as.free, conn, source, target, free, ending)
    end
    return format(as.none, conn, source, target, ending)
  end

  -- The tree -------------------------------------------------------------------------------

  local function nstime(nanoseconds)
    local rest = nanoseconds % 1000000000
    return NSTime.new(floor((nanoseconds - rest) / 1000000000), floor(rest))
  end

  local function show_names(tree, tvb, p)
    tree:add(F["vsock.op_name"], tvb:range(24, 2), text.name(wire.monitor_op_names, p.mon_op))
    tree:add(F["vsock.trans_name"], tvb:range(26, 2), text.name(wire.transport_names, p.mon_t))
    if not p.is_virtio then
      return
    end
    tree:add(F["vsock.src"], tvb:range(32, 8), text.source(p))
    tree:add(F["vsock.dst"], tvb:range(40, 8), text.target(p))
    tree:add_le(F["vsock.virtio.src_port"], tvb:range(48, 4))
    tree:add_le(F["vsock.virtio.dst_port"], tvb:range(52, 4))
    tree:add(F["vsock.virtio.type_name"], tvb:range(60, 2), text.name(wire.type_names, p.type))
    tree:add(F["vsock.virtio.op_name"], tvb:range(62, 2), text.name(wire.op_names, p.op))
    if p.flags > 0 then
      local flags = text.flags(p.op, p.type, p.flags)
      tree:add(F["vsock.virtio.flag_names"], tvb:range(64, 4), flags)
    end
  end

  local function generated(tree, name, value)
    if value then
      tree:add(F[name], value):set_generated()
    end
  end

  local function show_state(tree, tvb, p, v)
    if v.conn > 0 then
      generated(tree, "vsock.conn", v.conn)
      generated(tree, "vsock.side", v.side_known and states.sides[v.side] or nil)
      generated(tree, "vsock.state", states.word[v.state])
    end
    if p.is_virtio then
      generated(tree, "vsock.payload_len", v.data_len)
    end
    generated(tree, "vsock.tx_cnt", v.tx_cnt)
    generated(tree, "vsock.credit.inflight", v.in_flight)
    generated(tree, "vsock.credit.free", v.free)
    generated(tree, "vsock.credit.granted", v.granted)
    generated(tree, "vsock.marks", v.marks and v.marks.words)
    if v.data_cap > 0 then
      tree:add(F["vsock.data"], tvb:range(p.payload_at + v.skip, v.data_cap))
    end
  end

  local function show_times(tree, number)
    generated(tree, "vsock.response_in", answered[number])
    local answer = answers[number]
    if answer then
      generated(tree, "vsock.response_to", answer[1])
      generated(tree, "vsock.response_time", nstime(answer[2]))
    end
    if stalls[number] then
      generated(tree, "vsock.credit.stalled", nstime(stalls[number]))
    end
  end

  local function summary(v)
    if v.conn == 0 then
      return "no connection"
    end
    local from = v.side_known and ", sent by " .. states.sides[v.side] or ""
    return format("connection %.0f, %s%s", v.conn, states.word[v.state]:gsub("-", " "), from)
  end

  local function show_findings(tree, v)
    local of = sentences[v.number] or {}
    local shown = {}
    for _, number in ipairs(v.marks and v.marks.list or {}) do
      shown[number] = of[number] or { findings[number].what }
    end
    for number, said in pairs(of) do -- an event of which the packet has no mark
      shown[number] = said
    end
    for number, said in pairs(shown) do
      for _, sentence in ipairs(EXPERT[number] and said or {}) do
        tree:add_proto_expert_info(EXPERT[number], sentence)
      end
    end
  end

  local function show(root, tvb, p, v)
    local tree = root:add(proto, tvb:range(0, 0))
    tree:set_text("vsockdump: " .. summary(v))
    if p.has_monitor then
      show_names(tree, tvb, p)
    end
    show_state(tree, tvb, p, v)
    show_times(tree, v.number)
    return tree
  end

  -- Frames ---------------------------------------------------------------------------------

  local started, own_info, base_time, last_time, shift
  local taps, tap_by_name, tap_count
  local blind, seen_again, several

  -- Nanoseconds since the first frame, nil for frames without a time. Wireshark gives seconds
  -- in doubles, which are exact for those since the first frame only; a time reference set by
  -- the user moves it, which shows as a jump.
  local function time_of(pinfo)
    local relative = pinfo.rel_ts
    if not last_time or relative < last_time or relative > last_time + 60 then
      local absolute = pinfo.abs_ts
      if absolute == 0 then
        return nil
      end
      local from = absolute - relative
      if not base_time then
        base_time = from
      elseif from - base_time > 0.001 or base_time - from > 0.001 then
        shift = shift + floor((from - base_time) * 1e9 + 0.5)
        base_time = from
      end
    end
    last_time = relative
    return floor(relative * 1e9 + 0.5) + shift
  end

  -- Interfaces of one place of capture share its connections, others do not. Nothing where
  -- Wireshark does not say which interface it was.
  local function tap_of()
    local id = interface_id()
    if not id then
      return nil
    end
    id = id.value
    local tap = taps[id]
    if not tap then
      local name = interface_name()
      local place = format("%.0f %s", id, name and tostring(name.value) or "")
      if not tap_by_name[place] then
        tap_by_name[place] = tap_count == 0 and "" or "t" .. tap_count
        tap_count = tap_count + 1
      end
      tap = tap_by_name[place]
      taps[id] = tap
    end
    return tap
  end

  local function track(p, pinfo, tap, place)
    p.time = time_of(pinfo)
    place = tap .. place
    p.place = p.is_virtio and p.type == TYPE.DGRAM and place .. "d" or place
    return tracker.track(p)
  end

  -- A pcap file has no interfaces, and `tshark -2` tells them on its second pass only. So all
  -- is tracked again then, and from where a second tap appears, that is what holds.
  local function track_again(p, pinfo, place)
    local tap = tap_of()
    if not tap then
      blind = false
      return nil
    elseif p.number <= seen_again then
      return nil
    end
    if seen_again == 0 then
      tracker.reset()
    end
    seen_again = p.number
    local r = track(p, pinfo, tap, place)
    if tap_count < 2 then
      return nil
    elseif not several then
      several, answered = true, {}
    end
    forget(p.number)
    remember(p, r)
    return r
  end

  local function reset()
    tracker.reset()
    ttrpc.reset()
    kept, frame_marks, frame_skips, sentences = {}, {}, {}, {}
    answers, answered, stalls = {}, {}, {}
    sets, set_by_key = {}, {}
    base_time, last_time, shift = nil, nil, 0
    taps, tap_by_name, tap_count = {}, {}, 0
    blind, seen_again, several = false, 0, false
    own_info = proto.prefs.info
    streams.recognise = proto.prefs.recognise
    streams.largest = proto.prefs.largest
    local wrong = streams.reset(proto.prefs.ports)
    if wrong then
      report_failure(
        "vsockdump: \"" .. wrong .. "\" is not PORT=PROTOCOL with a protocol that Wireshark has;"
          .. " change it in the preferences of vsockdump."
      )
    end
    started = true
  end

  -- Call Wireshark's own dissector, but not with bytes that snaplen cut off. Reading them it
  -- leaves by a C exception, which in Wireshark 4.0 passes Lua by and never lets it clean up:
  -- after 200 such frames Lua is out of stack. So it gets what was captured of the headers as
  -- if that were all, and nothing where it would call them malformed for it.
  local function call_builtin(tvb, pinfo, root, p)
    if p.caplen == p.wirelen and p.is_virtio then
      builtin_call(builtin, tvb, pinfo, root)
    elseif p.caplen == p.wirelen then
      pcall(builtin_call, builtin, tvb, pinfo, root)
    elseif p.has_monitor and (p.caplen >= HEADERS or p.mon_t ~= wire.virtio) then
      local size = p.caplen < HEADERS and p.caplen or HEADERS
      pcall(builtin_call, builtin, tvb:range(0, size):tvb(), pinfo, root)
    else
      pinfo.cols.protocol = "vSocket"
    end
  end

  local latest -- the frame before
  local itself -- the dissector of `proto`, for `referenced`

  local function dissect(tvb, pinfo, root, caplen, wirelen, place)
    if not started then
      reset()
    end
    local size = caplen < HEADERS and caplen or HEADERS
    local p = frame.read(
      size > 0 and tvb:raw(0, size) or "", caplen, wirelen > caplen and wirelen or caplen
    )
    call_builtin(tvb, pinfo, root, p)
    local number = pinfo.number
    p.number = number
    if ONCE and latest then
      forget(latest)
    end
    latest = number
    local first = not pinfo.visited
    local r
    if first then
      local tap = not blind and tap_of()
      blind = not tap
      r = track(p, pinfo, tap or "", place)
      remember(p, r)
    elseif blind then
      r = track_again(p, pinfo, place)
    end
    local v = r or recall(p)
    if own_info then
      pinfo.cols.info = info(p, v)
    end
    itself = itself or Dissector.get("vsockdump")
    local tree
    if root:referenced(itself) then
      tree = show(root, tvb, p, v)
    end
    if v.marks or sentences[v.number] then
      show_findings(tree or root:add(proto, tvb:range(0, 0)), v)
    end
    local handed
    local at = p.payload_at + v.skip
    if not first then
      handed = streams.again(v, tvb, at, pinfo, root)
    elseif r.c and r.c.app ~= false then
      handed = streams.first(p, r, tvb, at, pinfo, root)
    end
    if handed then
      if tree then
        generated(tree, "vsock.app.protocol", handed.handler.name)
      end
      if handed.upto == 0 and own_info then
        pinfo.cols.info = info(p, v) .. " [message goes on]"
      end
    end
  end

  -- What the findings of a severity say, each at its packet, in order; `most` of them.
  function vsock.findings(severity, most)
    local packets, found = {}, {}
    for packet in pairs(sentences or {}) do
      packets[#packets + 1] = packet
    end
    table.sort(packets)
    for _, packet in ipairs(packets) do
      for bit, said in pairs(sentences[packet]) do
        local finding = findings[bit]
        for at = 1, finding.severity == severity and #said or 0 do
          if #found < most then
            found[#found + 1] = { name = finding.name, packet = packet, said = said[at] }
          end
        end
      end
    end
    return found
  end

  function proto.dissector(tvb, pinfo, root)
    dissect(tvb, pinfo, root, pinfo.caplen, pinfo.len, "")
  end

  function sll_proto.dissector(tvb, pinfo, root)
    local index = ifindex()
    local place = index and format("i%.0f", index.value) or ""
    dissect(tvb, pinfo, root, tvb:captured_len(), tvb:reported_len(), place)
  end

  function proto.init()
    started = false
  end

  DissectorTable.get("wtap_encap"):add(wtap_encaps.VSOCK, proto)
  DissectorTable.get("sll.hatype"):add(wire.arphrd, sll_proto)
end

-- What only Wireshark's window has: entries of the menu Tools, and, where Wireshark has them
-- (4.2 and newer), of the menu of a packet. A connection followed as text, its credit drawn,
-- its packets filtered, the findings of the capture listed.
--
-- Lua can neither draw nor add to Wireshark's own dialogs: all are windows of text. What they
-- show is collected by a tap, for which the window goes through the capture once more.

do
  local format, rep = string.format, string.rep
  local MOST_BYTES, MOST_LINES = 1048576, 20000
  local WIDTH = 24 -- of a bar: a window of text holds 73 characters as it opens
  local SIDES = { initiator = "initiator > acceptor", acceptor = "acceptor > initiator" }
  local SHORT = { initiator = "i>a", acceptor = "a>i" }

  local function new_fields(names)
    local found = {}
    for _, name in ipairs(names) do
      found[name] = Field.new("vsock." .. name)
    end
    return found
  end

  local function value_of(field)
    local found = field()
    return found and found.value
  end

  -- A window that a tap fills: `packet` takes a packet, `finished` gives the text.
  local function collect(title, filter, packet, finished)
    local tap = Listener.new("frame", filter)
    tap.packet = packet
    retap_packets()
    tap:remove()
    TextWindow.new(title):set(finished())
  end

  local function printable(data)
    return (data:gsub("\r\n", "\n"):gsub("[^\n\t\32-\126]", "."))
  end

  local function follow(number, own)
    local lines, size, left_out, last = {}, 0, 0, nil
    local function packet(pinfo)
      local data, side = value_of(own.data), value_of(own.side)
      if not data or data:len() == 0 then
        return
      end
      if size > MOST_BYTES then
        left_out = left_out + data:len()
        return
      end
      size = size + data:len()
      if side ~= last then
        local from = SIDES[side] or "?"
        lines[#lines + 1] = format("\n--- %s, from packet %.0f ---\n", from, pinfo.number)
        last = side
      end
      lines[#lines + 1] = printable(data:raw())
    end
    collect("vsock connection " .. number, "vsock.conn == " .. number, packet, function()
      if left_out > 0 then
        lines[#lines + 1] = format("\n--- %.0f bytes more were left out ---\n", left_out)
      end
      return table.concat(lines)
    end)
  end

  local function bar(flight, free, largest)
    local filled = math.floor(flight / largest * WIDTH + 0.5)
    local window = math.floor((flight + free) / largest * WIDTH + 0.5)
    return "|" .. rep("#", filled) .. rep(".", window - filled) .. rep(" ", WIDTH - window) .. "|"
  end

  local function credit(number, own)
    local rows, largest, left_out = {}, 1, 0
    local function packet(pinfo)
      local free, flight = value_of(own["credit.free"]), value_of(own["credit.inflight"])
      if not free then
        return
      elseif #rows == MOST_LINES then
        left_out = left_out + 1
        return
      end
      rows[#rows + 1] = { pinfo.rel_ts, pinfo.number, value_of(own.side), flight, free }
      largest = math.max(largest, flight + free)
    end
    collect("Credit of vsock connection " .. number, "vsock.conn == " .. number, packet, function()
      local lines = {
        "i>a: sent by the initiator; # bytes in flight, . free credit, ! no credit\n",
        format("full width: %.0f bytes\n\n", largest),
        format("%11s %7s %3s %9s %9s\n", "seconds", "packet", "", "in flight", "free"),
      }
      for _, row in ipairs(rows) do
        lines[#lines + 1] = format(
          "%11.6f %7.0f %3s %9.0f %9.0f %s%s\n", row[1], row[2], SHORT[row[3]] or "",
          row[4], row[5], bar(row[4], row[5], largest), row[5] == 0 and "!" or ""
        )
      end
      if left_out > 0 then
        lines[#lines + 1] = format("%.0f packets more were left out\n", left_out)
      end
      return table.concat(lines)
    end)
  end

  local function filter(number)
    set_filter("vsock.conn == " .. number)
    apply_filter()
  end

  -- The findings of all packets that were seen, the worst first.
  local function list_findings()
    local lines = {}
    for _, severity in ipairs({ "error", "warn", "note", "chat" }) do
      for _, found in ipairs(vsock.findings(severity, MOST_LINES)) do
        lines[#lines + 1] =
          format("%-5s %-32s packet %.0f: %s\n", severity, found.name, found.packet, found.said)
      end
    end
    local found = #lines > 0 and table.concat(lines) or "Nothing was found.\n"
    TextWindow.new("vsock findings"):set(found)
  end

  local function number_of(text)
    return tonumber(text) and format("%.0f", tonumber(text)) or nil
  end

  local function asking(title, action)
    return function()
      new_dialog(title, function(text)
        local number = number_of(text)
        if number then
          action(number)
        else
          report_failure("vsockdump: Give the number of a connection, as in #7.")
        end
      end, "Connection #")
    end
  end

  -- The connection of the packet whose menu was opened.
  local function of_packet(action)
    return function(...)
      for _, info in ipairs({ ... }) do
        if info.name == "vsock.conn" then
          action(format("%.0f", info.value))
          return
        end
      end
    end
  end

  if gui_enabled() then
    local own = new_fields({ "conn", "data", "side", "credit.free", "credit.inflight" })
    local entries = {
      { "Follow connection", function(number) follow(number, own) end },
      { "Credit graph", function(number) credit(number, own) end },
      { "Filter connection", filter },
    }
    for _, entry in ipairs(entries) do
      register_menu("vsock/" .. entry[1] .. "...", asking(entry[1], entry[2]), MENU_TOOLS_UNSORTED)
      if register_packet_menu then
        register_packet_menu("vsock/" .. entry[1], of_packet(entry[2]), "vsock.conn")
      end
    end
    register_menu("vsock/Findings", list_findings, MENU_TOOLS_UNSORTED)
  end
end
