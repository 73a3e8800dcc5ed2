-- A batch of operations on budgets, applied at once (rootcost_litellm/operations.py says what each means).
-- Amounts come and go as text, since numbers are doubles here: exact up to 2^53, which the caller keeps to.
local prefix = KEYS[1]
local clock = redis.call('TIME')
local now_us = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

local function text(number) return string.format('%.0f', number) end
local function level_key(key) return prefix .. 'level:' .. key end
local function hold_key(id) return prefix .. 'hold:' .. id end
local function leases_key(key) return prefix .. 'leases:' .. key end
local ready = now_us >= tonumber(redis.call('GET', prefix .. 'ready') or '0')
local OPEN, UNCERTAIN, FINISHED = prefix .. 'open', prefix .. 'uncertain', prefix .. 'finished'

local function sums_of(key)
  local row = redis.call('HMGET', level_key(key), 'cap', 'committed', 'reserved', 'uncertain')
  if not row[1] then return nil end
  local cap, committed, reserved, uncertain = tonumber(row[1]), tonumber(row[2]), tonumber(row[3]), tonumber(row[4])
  return {cap = cap, committed = committed, reserved = reserved, uncertain = uncertain, left = cap - committed - reserved - uncertain}
end

local function with_sums(result, sums)
  for name, amount in pairs(sums) do result[name] = text(amount) end
  return result
end

local function add(column, amounts, sign)
  for _, pair in ipairs(amounts) do
    if redis.call('EXISTS', level_key(pair[1])) == 1 then
      local amount = tonumber(redis.call('HGET', level_key(pair[1]), column)) + sign * tonumber(pair[2])
      redis.call('HSET', level_key(pair[1]), column, text(amount))
    end
  end
end

local function hold_of(id)
  local row = redis.call('HMGET', hold_key(id), 'state', 'amounts', 'deadline', 'sequence')
  if not row[1] then return nil end
  return {state = row[1], amounts = cjson.decode(row[2]), deadline = tonumber(row[3]), sequence = tonumber(row[4])}
end

local function encoded(amounts)
  if #amounts == 0 then return '[]' end
  return cjson.encode(amounts)
end

local function save(id, state, amounts, deadline, sequence)
  redis.call('HSET', hold_key(id), 'state', state, 'amounts', encoded(amounts), 'deadline', text(deadline), 'sequence', text(sequence))
  redis.call('ZREM', OPEN, id)
  redis.call('ZREM', UNCERTAIN, id)
  redis.call('ZREM', FINISHED, id)
  if state == 'open' then redis.call('ZADD', OPEN, text(deadline), id)
  elseif state == 'uncertain' then redis.call('ZADD', UNCERTAIN, text(deadline), id)
  else redis.call('ZADD', FINISHED, text(now_us), id) end
end

local function missing_of(amounts)
  local missing = {}
  for _, pair in ipairs(amounts) do
    if redis.call('EXISTS', level_key(pair[1])) == 0 then missing[#missing + 1] = pair[1] end
  end
  if #missing > 0 then return {ok = false, state = '', missing = missing} end
  return nil
end

-- What replicas have of a level and may give back.
local function leased_of(key)
  local total = 0
  for _, amount in ipairs(redis.call('HVALS', leases_key(key))) do total = total + tonumber(amount) end
  return text(total)
end

-- Why not all levels have room. Nothing is added before every level was looked at.
local function refusal_of(amounts)
  local missing = missing_of(amounts)
  if missing then return missing end
  if not ready then return {ok = false, state = '', wait = true} end
  for _, pair in ipairs(amounts) do
    local sums, amount = sums_of(pair[1]), tonumber(pair[2])
    if amount > 0 and amount > sums.left then
      local leased = leased_of(pair[1])
      if tonumber(leased) > 0 and amount <= sums.left + tonumber(leased) then redis.call('HSET', level_key(pair[1]), 'recall', '1') end
      return with_sums({ok = false, state = '', level = pair[1], leased = leased}, sums)
    end
  end
  return nil
end

local function finish(id, hold, state, costs)
  if hold and hold.state == 'open' then add('reserved', hold.amounts, -1)
  elseif hold and hold.state == 'uncertain' then add('uncertain', hold.amounts, -1) end
  add('committed', costs, 1)
  save(id, state, costs, hold and hold.deadline or 0, 0)
  return {ok = true, state = state}
end

local function any(amounts)
  for _, pair in ipairs(amounts) do if tonumber(pair[2]) ~= 0 then return true end end
  return false
end

local apply = {}

function apply.level(operation)
  local key = level_key(operation.level)
  if redis.call('EXISTS', key) == 0 then
    if not operation.committed then return {ok = false, missing = {operation.level}} end
    redis.call('HSET', key, 'cap', '0', 'committed', operation.committed, 'reserved', '0', 'uncertain', '0')
  elseif operation.reset then redis.call('HSET', key, 'committed', operation.committed or '0') end
  redis.call('HSET', key, 'cap', operation.cap)
  return with_sums({ok = true}, sums_of(operation.level))
end

function apply.reserve(operation)
  local hold = hold_of(operation.id)
  if hold then return {ok = hold.state == 'open', state = hold.state} end
  local refusal = refusal_of(operation.amounts)
  if refusal then return refusal end
  save(operation.id, 'open', operation.amounts, now_us + operation.seconds * 1000000, 0)
  add('reserved', operation.amounts, 1)
  return {ok = true, state = 'open'}
end

function apply.resize(operation)
  local hold = hold_of(operation.id)
  if not hold or hold.state ~= 'open' then return {ok = false, state = hold and hold.state or ''} end
  local before, growth = {}, {}
  for _, pair in ipairs(hold.amounts) do before[pair[1]] = tonumber(pair[2]) end
  for _, pair in ipairs(operation.amounts) do
    local amount = tonumber(pair[2]) - (before[pair[1]] or 0)
    if amount > 0 then growth[#growth + 1] = {pair[1], text(amount)} end
  end
  local refusal = refusal_of(growth)
  if refusal then return refusal end
  add('reserved', hold.amounts, -1)
  add('reserved', operation.amounts, 1)
  save(operation.id, 'open', operation.amounts, hold.deadline, 0)
  return {ok = true, state = 'open'}
end

function apply.commit(operation)
  local hold = hold_of(operation.id)
  if hold and hold.state == 'committed' then return {ok = true, state = 'committed'} end
  return missing_of(operation.amounts) or finish(operation.id, hold, 'committed', operation.amounts)
end

function apply.settle(operation)
  local hold = hold_of(operation.id)
  if not hold or hold.state ~= 'uncertain' then return {ok = false, state = hold and hold.state or ''} end
  return missing_of(operation.amounts) or finish(operation.id, hold, 'committed', operation.amounts)
end

function apply.release(operation)
  local hold = hold_of(operation.id)
  if hold and hold.state ~= 'open' then return {ok = hold.state == 'released', state = hold.state} end
  return finish(operation.id, hold, 'released', {})
end

function apply.uncertain(operation)
  local hold = hold_of(operation.id)
  if hold and hold.state ~= 'open' then return {ok = hold.state == 'uncertain', state = hold.state} end
  local missing = missing_of(operation.amounts)
  if missing then return missing end
  if hold then add('reserved', hold.amounts, -1) end
  save(operation.id, 'uncertain', operation.amounts, hold and hold.deadline or now_us, 0)
  add('uncertain', operation.amounts, 1)
  return {ok = true, state = 'uncertain'}
end

function apply.expire(operation)
  local moved = 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', OPEN, '-inf', text(now_us), 'LIMIT', 0, 1000)) do
    local hold = hold_of(id)
    if string.sub(id, 1, 6) == 'lease/' then redis.call('HDEL', leases_key(hold.amounts[1][1]), id) end
    if any(hold.amounts) then
      add('reserved', hold.amounts, -1)
      add('uncertain', hold.amounts, 1)
      save(id, 'uncertain', hold.amounts, hold.deadline, hold.sequence)
      moved = moved + 1
    else
      redis.call('DEL', hold_key(id))
      redis.call('ZREM', OPEN, id)
    end
  end
  local oldest = text(now_us - operation.keep * 1000000)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', FINISHED, '-inf', oldest, 'LIMIT', 0, 1000)) do
    redis.call('DEL', hold_key(id))
    redis.call('ZREM', FINISHED, id)
  end
  return {ok = true, moved = moved}
end

function apply.lease(operation)
  local level = operation.level
  if redis.call('EXISTS', level_key(level)) == 0 then return {ok = false, missing = {level}} end
  local hold = hold_of(operation.id)
  if not hold or hold.state == 'committed' or hold.state == 'released' then
    hold = {state = 'open', amounts = {{level, '0'}}, sequence = 0}
  elseif hold.state == 'uncertain' then
    add('uncertain', hold.amounts, -1)
    add('reserved', hold.amounts, 1)
  end
  local amount, granted = tonumber(hold.amounts[1][2]), 0
  if operation.sequence > hold.sequence then
    hold.sequence = operation.sequence
    add('committed', {{level, operation.used}}, 1)
    local back = math.min(amount, tonumber(operation.returned))
    amount = amount - back
    add('reserved', {{level, text(back)}}, -1)
    redis.call('HSET', leases_key(level), operation.id, text(amount))
    if tonumber(leased_of(level)) == 0 then redis.call('HDEL', level_key(level), 'recall') end
    local need = tonumber(operation.need)
    local share = math.floor(sums_of(level).left / (2 * operation.replicas))
    local recall = redis.call('HEXISTS', level_key(level), 'recall') == 1
    if need > 0 and share >= tonumber(ARGV[2]) * need and ready and not recall then granted = share end
    amount = amount + granted
    add('reserved', {{level, text(granted)}}, 1)
  end
  save(operation.id, 'open', {{level, text(amount)}}, now_us + operation.seconds * 1000000, hold.sequence)
  redis.call('HSET', leases_key(level), operation.id, text(amount))
  local recall = redis.call('HEXISTS', level_key(level), 'recall') == 1
  return with_sums({ok = true, recall = recall, amount = text(amount), granted = text(granted), leased = leased_of(level)}, sums_of(level))
end

function apply.epoch(operation)
  if redis.call('SETNX', prefix .. 'epoch', operation.proposed) == 1 then
    local ready_us = now_us + operation.grace_seconds * 1000000
    redis.call('SET', prefix .. 'ready', text(ready_us))
    ready = now_us >= ready_us
  end
  return {ok = true, epoch = redis.call('GET', prefix .. 'epoch')}
end

function apply.holds(operation)
  local listed = {}
  for _, index in ipairs({UNCERTAIN, OPEN}) do
    for _, id in ipairs(redis.call('ZRANGE', index, 0, operation.limit - 1)) do
      local hold = hold_of(id)
      if any(hold.amounts) then
        listed[#listed + 1] = {id = id, state = hold.state, amounts = hold.amounts, deadline_us = text(hold.deadline)}
      end
    end
  end
  return {ok = true, holds = listed}
end

function apply.read(operation)
  local levels = {}
  for _, key in ipairs(operation.levels) do
    local sums = sums_of(key)
    if sums then levels[#levels + 1] = with_sums({key = key}, sums) end
  end
  return {ok = true, levels = levels}
end

local results = {}
for number, operation in ipairs(cjson.decode(ARGV[1])) do results[number] = apply[operation.op](operation) end
return cjson.encode(results)
