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
