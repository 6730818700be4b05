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
