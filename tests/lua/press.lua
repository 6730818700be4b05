-- Loaded after the script: chooses the menu entry that the environment names, at the start of
-- the capture or, where it needs what was seen, at its end.

local entry = os.getenv("ENTRY")
local proto, tap = Proto("press", "press"), Listener.new("frame")
local running

local function go_on()
  local done, why = coroutine.resume(running)
  if not done then
    io.write("error: ", tostring(why), "\n")
  end
end

function proto.init()
  if not running and entry ~= "Findings" then
    running = coroutine.create(_G.actions["vsock/" .. entry .. "..."])
    go_on()
  end
end

function tap.packet() end

function tap.draw()
  running = running or coroutine.create(_G.actions["vsock/" .. entry])
  if coroutine.status(running) == "suspended" then
    go_on()
  end
end
