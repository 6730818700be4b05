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
