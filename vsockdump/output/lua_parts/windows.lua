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
