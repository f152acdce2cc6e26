-- Runs one batch for the store that all gateways share, atomically: all charges are taken or none, then changes apply.
--   KEYS[1] epoch, KEYS[2] revocations, KEYS[3] their version, KEYS[4] usage, KEYS[5...] one name per operation
--   ARGV[1] nonce of the batch, ARGV[2] "1" when Redis keeps all data across a restart,
--   then seven words per operation: its letter and up to six values
-- Returns JSON: {nonce, epoch, answers: one per operation} or {nonce, epoch, charge: index, refusal: [...]}.
-- The nonce detects an answer that the bridge delivers to the wrong client.
local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second * 1000000 + tonumber(time[2])

-- A new run of Redis may have lost all uses, so the epoch begins again. AHEAD is how many seconds the clocks of gateways
-- may be ahead of this one: a token issued within that time may be older than this run.
local AHEAD = 2
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local epoch = redis.call('HMGET', KEYS[1], 'since', 'run')
if not epoch[1] or (epoch[2] ~= run and ARGV[2] ~= '1') then
  epoch[1] = second + AHEAD
  redis.call('HSET', KEYS[1], 'since', epoch[1], 'run', run)
  -- No version of the new list equals a version of the lost one.
  redis.call('SET', KEYS[3], second * 1000)
end
local since = tonumber(epoch[1])

local SPENT, FORGOTTEN = 1, 2
local LEASE = 15

local function counted(count, max, retry, reset)
  if count >= max then return nil, {SPENT, retry, reset} end
  return {max - count - 1, reset}
end

-- Each returns the state after a charge and a function that records it, or the cause of its denial.
local charge = {}

function charge.W(key, max, length)
  local start = second - second % length
  local reset = math.floor(((start + length) * 1000000 - now) / 1000)
  key = key .. ':' .. start
  local result, refusal = counted(tonumber(redis.call('GET', key) or 0), max, reset, reset)
  return result, refusal, function()
    redis.call('INCR', key)
    redis.call('EXPIREAT', key, start + length)
  end
end

function charge.R(key, interval, burst)
  local arrival = math.max(tonumber(redis.call('GET', key) or 0), now) + interval
  local ahead = arrival - now
  local left = interval * burst - ahead
  if left < 0 then
    return nil, {SPENT, math.ceil(-left / 1000), math.ceil((ahead - interval) / 1000)}
  end
  return {math.floor(left / interval), math.ceil(ahead / 1000)}, nil, function()
    redis.call('SET', key, string.format('%.0f', arrival), 'PX', math.ceil(ahead / 1000) + 1)
  end
end

-- A stream has a key of its own with the value "holder end-of-lease". It expires a grace period after that end.
local function stream(key)
  local value = redis.call('GET', key)
  if not value then return nil end
  local holder, ends = string.match(value, '^(%S+) (%d+)$')
  return holder, tonumber(ends)
end

function charge.U(key, max, issued, till, holder, grace, place)
  if issued <= since or till <= second then return nil, {FORGOTTEN, 0, 0} end
  local count = tonumber(redis.call('GET', key) or 0)
  local _, ends = nil, nil
  if holder ~= '' then _, ends = stream(place) end
  if ends and ends > second then return nil, {SPENT, 0, 0} end
  local result, refusal
  if ends then result = {math.max(max - count, 0), 0} else result, refusal = counted(count, max, 0, 0) end
  return result, refusal, function()
    if not ends then
      redis.call('INCR', key)
      redis.call('EXPIREAT', key, till)
    end
    if holder ~= '' then
      redis.call('SET', place, holder .. ' ' .. (second + LEASE), 'EX', LEASE + grace)
    end
  end
end

function charge.S(key, max, holder)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', second)
  local result, refusal = counted(redis.call('ZCARD', key), max, 1000, 0)
  return result, refusal, function()
    redis.call('ZADD', key, second + LEASE, holder)
    redis.call('EXPIRE', key, LEASE)
  end
end

function charge.B(key, max, ask, issued, till)
  if issued <= since or till <= second then return nil, {FORGOTTEN, 0, 0} end
  local used = tonumber(redis.call('GET', key) or 0)
  local granted = math.min(max - used, ask)
  if granted < 1 then return nil, {SPENT, 0, 0} end
  return {granted, 0}, nil, function()
    redis.call('INCRBY', key, granted)
    redis.call('EXPIREAT', key, till)
  end
end

local change = {}

function change.N(key, holder, grace)
  if grace > 0 then
    local own = stream(key)
    if own == nil or own == holder then
      redis.call('SET', key, holder .. ' ' .. (second + LEASE), 'EX', LEASE + grace)
    end
    return 1
  end
  redis.call('ZADD', key, second + LEASE, holder)
  redis.call('EXPIRE', key, LEASE)
  return 1
end

function change.E(key, holder, grace)
  if grace > 0 then
    if stream(key) == holder then redis.call('SET', key, holder .. ' ' .. second, 'EX', grace) end
    return 1
  end
  return redis.call('ZREM', key, holder)
end

function change.G(key, seconds)
  local used = tonumber(redis.call('GET', key) or 0)
  if used > 0 then redis.call('DECRBY', key, math.min(used, seconds)) end
  return 1
end

-- Returns 1 when a token has no use left.
function change.P(key, max, issued, till)
  local _, refusal = charge.U(key, max, issued, till, '')
  return refusal and 1 or 0
end

-- Adds the uses of an API key since the last report, and the time of the last one.
function change.K(_, id, uses, last)
  redis.call('HINCRBY', KEYS[4], id, uses)
  redis.call('HSET', KEYS[4], id .. ' last', last)
  return 1
end

-- API keys outside the policy: the entry is stored under the digest, and that name under the id.
function change.D(key) return redis.call('GET', key) end

function change.I(key)
  local name = redis.call('GET', key)
  return name and redis.call('GET', name)
end

function change.X(key)
  local name = redis.call('GET', key)
  if name then redis.call('DEL', name) end
  return redis.call('DEL', key)
end

function change.A(key, name, text)
  change.X(key)
  redis.call('SET', name, text)
  redis.call('SET', key, name)
  return 1
end

function change.Q()
  local all, usage = redis.call('HGETALL', KEYS[4]), {}
  for i = 1, #all, 2 do usage[all[i]] = all[i + 1] end
  return usage
end

-- Removes the revocations of expired tokens and returns the rest.
local function clean(longest)
  local all, kept = redis.call('HGETALL', KEYS[2]), {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 4) ~= 'key ' and tonumber(all[i + 1]) + longest <= second then
      redis.call('HDEL', KEYS[2], all[i])
    else
      kept[all[i]] = all[i + 1]
    end
  end
  return kept
end

-- Adds a revocation. `share` is the most by one team, `most` the most in total.
function change.V(_, name, before, share, most, longest)
  clean(longest)
  local known = tonumber(redis.call('HGET', KEYS[2], name) or -1)
  if known >= before then return 1 end
  if known < 0 then
    local by, own = string.match(name, ' %S+$'), 0
    local names = redis.call('HKEYS', KEYS[2])
    for _, other in ipairs(names) do
      if string.sub(other, -#by) == by then own = own + 1 end
    end
    if #names >= most or (by ~= ' *' and own >= share) then return 0 end
  end
  redis.call('HSET', KEYS[2], name, string.format('%.0f', before))
  redis.call('INCR', KEYS[3])
  return 1
end

-- Returns the revocations unless the version is `known`; -1 when Redis may evict data.
function change.F(_, known, longest)
  if not string.find(redis.call('INFO', 'memory'), 'maxmemory_policy:noeviction', 1, true) then return -1 end
  local version = tonumber(redis.call('GET', KEYS[3]) or 0)
  if version == known then return {version} end
  return {version, clean(longest)}
end

local answers, todo = {}, {}
local count = (#ARGV - 2) / 7
for i = 1, count do
  local at = 3 + (i - 1) * 7
  local values = {}
  for j = 1, 6 do values[j] = tonumber(ARGV[at + j]) or ARGV[at + j] end
  local letter = ARGV[at]
  if letter == 'U' or letter == 'S' or letter == 'N' or letter == 'E' then
    -- A session id stays a text even when it looks like a number.
    local place = letter == 'U' and 4 or (letter == 'S' and 2 or 1)
    values[place] = ARGV[at + place]
    if letter == 'U' then values[6] = ARGV[at + 6] end
  elseif letter == 'K' or letter == 'V' or letter == 'A' then
    values[1] = ARGV[at + 1]
  end
  local make = charge[letter]
  if make then
    local result, refusal, write = make(KEYS[4 + i], unpack(values))
    if refusal then
      return cjson.encode({nonce = ARGV[1], epoch = since, charge = i, refusal = refusal})
    end
    answers[i] = result
    todo[#todo + 1] = write
  else
    todo[#todo + 1] = function() answers[i] = change[letter](KEYS[4 + i], unpack(values)) end
  end
end
for _, write in ipairs(todo) do write() end
return cjson.encode({nonce = ARGV[1], epoch = since, answers = answers})
