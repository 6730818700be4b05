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
