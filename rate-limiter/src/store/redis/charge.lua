-- Charges cells, all of them at one moment.
--
-- KEYS[i]   the i-th cell.
-- ARGV[1]   now, in ticks; empty: by the server's clock. A tick is 1/8 microsecond, counted from 2025-01-01T00:00:00Z.
--           With a time given, cells are kept for an hour of the server's clock instead of until they are spent.
-- ARGV[2]   one record of 41 bytes per key, in their order: an unsigned byte and five little-endian doubles
--             kind       0 bucket, 1 bucket that pays debts, 2 window
--             interval   ticks per hit            | period of the window, in ticks
--             tolerance  ticks ahead of now       | ticks that the tick zero lies after the start of its window
--             most       ticks ahead at the most  | unused
--             hits       to take; negative: to give back
--             want       further tokens to take, as many as there are, if the hits are admitted | unused
-- Returns   now, then for each key what it held before: a bucket's cell (0: nothing), a window's hits so far.
--           That and the record determine everything else; the caller computes it with the same arithmetic.
--
-- Cells: a bucket is one double, its theoretical arrival time; a window is two, its number and its hits. Bytes and not
-- decimals, because formatting a number costs Redis as much as storing it. All numbers are whole and below 2^53.
-- A key lives until its cell says nothing any more. For buckets that moment is rounded up to a grid of 2^22 ticks
-- (524 ms), so that most charges leave the expiry as it is: setting one costs more than the rest of the charge.
local GRID = 4194304
local EPOCH = 1735689600
local call, floor, ceil, unpack, pack = redis.call, math.floor, math.ceil, struct.unpack, struct.pack
local records, at = ARGV[2], 1
local now = tonumber(ARGV[1])
local given = now
if not now then
  local time = call('TIME')
  now = (time[1] - EPOCH) * 8000000 + time[2] * 8
end
local answer = { now }

for i = 1, #KEYS do
  local key = KEYS[i]
  local value = call('GET', key)
  local kind, interval, tolerance, most, hits, want
  kind, interval, tolerance, most, hits, want, at = unpack('<Bddddd', records, at)
  if kind == 2 then
    local window, before = floor((now + tolerance) / interval), 0
    if value then
      local number, count = unpack('<dd', value)
      if number == window then before = count end
    end
    answer[i + 1] = before
    local after = before + hits
    if after < 0 then after = 0 elseif after > 1099511627775 then after = 1099511627775 end
    if after ~= before then
      if given then
        call('SET', key, pack('<dd', window, after), 'EX', 3600)
      else
        local ends = (window + 1) * interval - tolerance
        call('SET', key, pack('<dd', window, after), 'PXAT', ceil(ends / 8000) + EPOCH * 1000)
      end
    end
  else
    local cell = 0
    if value then cell = unpack('<d', value) end
    answer[i + 1] = cell
    local before = cell - now
    if before < 0 then before = 0 end
    local ahead = before
    if ahead > most then ahead = most end
    local after = ahead + hits * interval
    if hits < 0 then
      if after < 0 then after = 0 end
    elseif after <= tolerance and (hits > 0 or after + interval <= tolerance) then
      if want > 0 then
        local spare = floor((tolerance - after) / interval)
        if spare < want then want = spare end
        after = after + want * interval
      end
    elseif kind == 1 then
      if after > most then after = most end
    else
      after = ahead
    end
    if after ~= before then
      local spent = ceil((now + after) / GRID)
      if value and spent == ceil(cell / GRID) then
        call('SET', key, pack('<d', now + after), 'KEEPTTL')
      elseif given then
        call('SET', key, pack('<d', now + after), 'EX', 3600)
      else
        call('SET', key, pack('<d', now + after), 'PXAT', ceil(spent * GRID / 8000) + EPOCH * 1000)
      end
    end
  end
end
return answer
