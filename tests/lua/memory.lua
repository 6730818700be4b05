-- Prints how much Lua holds when all frames were dissected, in KiB.
local tap = Listener.new("frame")

function tap.draw()
  collectgarbage()
  collectgarbage()
  print("KiB " .. math.floor(collectgarbage("count")))
end
