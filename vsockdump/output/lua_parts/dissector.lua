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
