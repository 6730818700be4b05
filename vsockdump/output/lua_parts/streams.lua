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
