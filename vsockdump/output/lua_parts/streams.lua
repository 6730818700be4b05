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
  local UNTIL_END = 0x0ffffffe -- and above: no number of bytes, but one packet more, or all
  local FIRST = 24             -- bytes that every recogniser is content with
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
    elseif sub(data, 1, 14) == "PRI * HTTP/2.0" then
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
    elseif #data < FIRST or find(data, "^%u%u%u+ ") and not find(data, "\n", 1, true) then
      return nil
    end
    return false
  end

  -- Handlers -----------------------------------------------------------------------------

  -- What a name stands for: how it is called, or nil where Wireshark has nothing of the kind.
  local function handler(name)
    if handlers[name] == nil then
      local found, dissector = pcall(Dissector.get, protocols[name] or name)
      if found and dissector then
        handlers[name] = { name = name, dissector = dissector }
        handlers[name].plain = { handler = handlers[name] }
        handlers[name].waiting = { handler = handlers[name], upto = 0 }
      else
        handlers[name] = false
      end
    end
    return handlers[name] or nil
  end

  -- JSON has no framing that its dissector would ask for: whole lines, or a whole object.
  local function json_end(data)
    if find(data, "}%s*$") then
      return #data
    end
    local last = find(data, "\n[^\n]*$")
    return last or 0
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

  -- SSH's dissector knows the server by port 22 only.
  local function call_ssh(data, pinfo, tree, acceptor_sends)
    local source, target = pinfo.src_port, pinfo.dst_port
    if acceptor_sends then
      pinfo.src_port = 22
    else
      pinfo.dst_port = 22
    end
    local done, why = pcall(function()
      DissectorTable.get("tcp.port"):try(22, data, pinfo, tree)
    end)
    pinfo.src_port, pinfo.dst_port = source, target
    return done, why
  end

  local function call_json(of, data, pinfo, tree)
    local upto = json_end(data:raw())
    if upto < data:len() then
      pinfo.desegment_offset, pinfo.desegment_len = upto, DESEGMENT_ONE_MORE_SEGMENT
    end
    local at = 0
    while at < upto do
      local line = find(sub(data:raw(at, upto - at), 1), "\n", 1, true) or upto - at
      of.dissector:call(data:range(at, line):tvb(), pinfo, tree)
      at = at + line
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

  local function bytes_of(tvb, at, size)
    return size > 0 and tvb:raw(at, size) or ""
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

  -- Keep what a dissector wants to see again, or give the stream up as it is too long.
  local function keep(s, data, need)
    if #data > streams.largest then
      s.kept, s.wanted = nil, nil
      return false
    end
    s.kept = data
    s.wanted = need < UNTIL_END and #data + need or nil
    return true
  end

  local function deliver(of, s, data, tvb, at, size, pinfo, tree, context)
    local before = s.kept
    s.kept, s.wanted = nil, nil
    local whole = before and before .. data or data
    local shown = before and as_tvb(whole) or tvb:range(at, size):tvb()
    local need, from = call(of, shown, pinfo, tree, context, true)
    if need == 0 then
      return before and { handler = of, before = before } or of.plain
    end
    if not keep(s, sub(whole, from + 1), need) then
      return { handler = of, before = before, cut = true }
    elseif from == 0 then
      return of.waiting
    end
    return { handler = of, before = before, upto = from }
  end

  -- A piece of a message of SEQPACKET, or a datagram: given at its end.
  local function deliver_message(of, s, data, tvb, at, size, pinfo, tree, context, is_last)
    if not is_last then
      keep(s, (s.kept or "") .. data, UNTIL_END)
      return of.waiting
    end
    local before = s.kept
    s.kept = nil
    local shown = before and as_tvb(before .. data) or tvb:range(at, size):tvb()
    call(of, shown, pinfo, tree, context, false)
    return before and { handler = of, before = before, whole = true } or of.plain
  end

  local function take(p, r, tvb, at, pinfo, tree)
    local c, side = r.c, r.side
    local size = r.data_cap
    local app = c.app
    if not app then
      app = { [0] = {}, [1] = {} }
      c.app = app
    end
    local s = app[side]
    if r.data_cap < r.data_len then -- bytes are missing: what was kept will never be whole
      s.kept, s.wanted = nil, nil
    end
    if size == 0 then
      return nil
    end
    local data
    local of = app.handler
    if of == nil then
      data = bytes_of(tvb, at, size)
      of = decide(p, r, (s.kept or "") .. data)
      if of == nil then
        keep(s, (s.kept or "") .. data, UNTIL_END)
        return nil
      elseif of == false then
        app.silent = (app.silent or 0) + 1
        s.kept = nil
        if app.silent > 2 then
          c.app = false
        end
        return nil
      end
      app.handler = of
    end
    data = data or bytes_of(tvb, at, size)
    local kind = p.type
    if kind == SEQPACKET or kind == DGRAM then
      local is_last = kind == DGRAM or p.flags % 2 == 1
      return deliver_message(of, s, data, tvb, at, size, pinfo, tree, r, is_last)
    end
    if s.wanted and #s.kept + size < s.wanted and r.data_cap == r.data_len then
      local wanted = s.wanted
      if keep(s, s.kept .. data, UNTIL_END) then
        s.wanted = wanted
        return of.waiting
      end
    end
    return deliver(of, s, data, tvb, at, size, pinfo, tree, r)
  end

  -- A direction has ended: what was kept is all there will be.
  local function flush(c, side, pinfo, tree, context)
    local app = c.app
    local s = app and app.handler and app[side]
    if not s or not s.kept then
      return nil
    end
    local before = s.kept
    s.kept, s.wanted = nil, nil
    call(app.handler, as_tvb(before), pinfo, tree, context, false)
    return { handler = app.handler, before = before, whole = true, flushed = true }
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

  -- The payload of a frame on the first pass; returns what later passes are told. `at` is
  -- where the stream's bytes begin.
  function streams.first(p, r, tvb, at, pinfo, tree)
    local c = r.c
    if not c or c.app == false then
      return nil
    end
    local found
    if r.data_len > 0 and not states.terminal[r.state] then
      found = take(p, r, tvb, at, pinfo, tree)
    elseif c.app then
      found = ends(p, r, pinfo, tree)
    end
    if found then
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
      local whole = (found.before or "") .. bytes_of(tvb, at, view.data_cap)
      shown = as_tvb(found.upto and sub(whole, 1, found.upto) or whole)
    else
      shown = tvb:range(at, view.data_cap):tvb()
    end
    call(found.handler, shown, pinfo, tree, view, not found.whole)
    return found
  end
end
