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
