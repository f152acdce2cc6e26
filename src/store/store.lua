#!lua name=callbound_1
-- Function `callbound_1` for the store that all gateways share. A call runs one batch atomically: all charges are taken or
-- none, then changes apply. 1 is the number of the layout, the words and keys below: gateways call the function of their
-- own layout, and libraries of two layouts can be installed at once. A layout that gives a key another meaning must give
-- it another name.
--   keys[1]  beginning of every key in Redis
--   args[1]  nonce of the batch; args[2] "1" when Redis keeps all data across a restart
--   args[3]  and later: operations, each a letter and the words of its form
-- Returns JSON: {nonce, epoch, answers: one per operation} or {nonce, epoch, charge: index, refusal: [...]}.
-- The nonce detects an answer that the bridge delivers to the wrong client.

-- Words of each operation: n number, t text, k name of a counter, d digest and i id of an API key.
local FORMS = {
  W = 'knn', R = 'knn', U = 'knnn', T = 'knnntnk', S = 'knt', B = 'knnnn', P = 'knnn',
  N = 'ktn', E = 'ktn', G = 'kn', K = 'tnn', Q = '',
  D = 'd', I = 'i', A = 'idt', X = 'i', V = 'tn', F = 'n',
}

-- The most revocations, in total and by one team, and the seconds after which every revoked token has expired.
local MOST, SHARE, LONGEST = 10000, 1000, 86460

-- How many seconds the clocks of gateways may be ahead of this one: a token issued within that time may be older than
-- this run of Redis.
local AHEAD = 2

-- Set by each call: names of common keys, Unix time in seconds and microseconds, and the second the store began to record.
local EPOCH, REVOCATIONS, VERSION, USAGE
local second, now, since

local function begin(prefix, durable)
  EPOCH, REVOCATIONS = prefix .. 'epoch', prefix .. 'revocations'
  VERSION, USAGE = prefix .. 'version', prefix .. 'usage'
  local time = redis.call('TIME')
  second = tonumber(time[1])
  now = second * 1000000 + tonumber(time[2])
  -- A new run of Redis may have lost all uses, so the epoch begins again.
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local epoch = redis.call('HMGET', EPOCH, 'since', 'run')
  if not epoch[1] or (epoch[2] ~= run and durable ~= '1') then
    epoch[1] = second + AHEAD
    redis.call('HSET', EPOCH, 'since', epoch[1], 'run', run)
    -- No version of the new list equals a version of the lost one.
    redis.call('SET', VERSION, second * 1000)
  end
  since = tonumber(epoch[1])
end

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

function charge.U(key, max, issued, till)
  if issued <= since or till <= second then return nil, {FORGOTTEN, 0, 0} end
  local result, refusal = counted(tonumber(redis.call('GET', key) or 0), max, 0, 0)
  return result, refusal, function()
    redis.call('INCR', key)
    redis.call('EXPIREAT', key, till)
  end
end

-- A use that opens a stream. A stream that ended is resumed without another use.
function charge.T(key, max, issued, till, holder, grace, place)
  local result, refusal, count = charge.U(key, max, issued, till)
  if refusal and refusal[1] == FORGOTTEN then return nil, refusal end
  local _, ends = stream(place)
  if ends and ends > second then return nil, {SPENT, 0, 0} end
  if ends then result, refusal = {math.max(max - tonumber(redis.call('GET', key) or 0), 0), 0}, nil end
  return result, refusal, function()
    if not ends then count() end
    redis.call('SET', place, holder .. ' ' .. (second + LEASE), 'EX', LEASE + grace)
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
  local _, refusal = charge.U(key, max, issued, till)
  return refusal and 1 or 0
end

-- Adds the uses of an API key since the last report, and the time of the last one.
function change.K(id, uses, last)
  redis.call('HINCRBY', USAGE, id, uses)
  redis.call('HSET', USAGE, id .. ' last', last)
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
  local all, usage = redis.call('HGETALL', USAGE), {}
  for i = 1, #all, 2 do usage[all[i]] = all[i + 1] end
  return usage
end

-- Removes the revocations of expired tokens and returns the rest.
local function clean()
  local all, kept = redis.call('HGETALL', REVOCATIONS), {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 4) ~= 'key ' and tonumber(all[i + 1]) + LONGEST <= second then
      redis.call('HDEL', REVOCATIONS, all[i])
    else
      kept[all[i]] = all[i + 1]
    end
  end
  return kept
end

-- Adds a revocation.
function change.V(name, before)
  clean()
  local known = tonumber(redis.call('HGET', REVOCATIONS, name) or -1)
  if known >= before then return 1 end
  if known < 0 then
    local by, own = string.match(name, ' %S+$'), 0
    local names = redis.call('HKEYS', REVOCATIONS)
    for _, other in ipairs(names) do
      if string.sub(other, -#by) == by then own = own + 1 end
    end
    if #names >= MOST or (by ~= ' *' and own >= SHARE) then return 0 end
  end
  redis.call('HSET', REVOCATIONS, name, string.format('%.0f', before))
  redis.call('INCR', VERSION)
  return 1
end

-- Returns the revocations unless the version is `known`; -1 when Redis may evict data.
function change.F(known)
  if not string.find(redis.call('INFO', 'memory'), 'maxmemory_policy:noeviction', 1, true) then return -1 end
  local version = tonumber(redis.call('GET', VERSION) or 0)
  if version == known then return {version} end
  return {version, clean()}
end

-- Returns the operations of a batch with their words; fails if one is malformed.
local function read(prefix, args)
  local operations, at = {}, 3
  while at <= #args do
    local letter = args[at]
    local form, words = FORMS[letter], {}
    if not form or at + #form > #args then error('malformed operation') end
    for i = 1, #form do
      local kind, word = string.sub(form, i, i), args[at + i]
      if kind == 'n' then word = tonumber(word)
      elseif kind == 'k' then word = prefix .. word
      elseif kind == 'd' then word = prefix .. 'key:' .. word
      elseif kind == 'i' then word = prefix .. 'key-id:' .. word end
      if not word then error('malformed number') end
      words[i] = word
    end
    operations[#operations + 1] = {letter, words}
    at = at + 1 + #form
  end
  return operations
end

local function run(keys, args)
  local operations = read(keys[1], args)
  begin(keys[1], args[2])
  local answers, todo = {}, {}
  for i, operation in ipairs(operations) do
    local letter, words = operation[1], operation[2]
    if charge[letter] then
      local result, refusal, write = charge[letter](unpack(words))
      if refusal then
        return cjson.encode({nonce = args[1], epoch = since, charge = i, refusal = refusal})
      end
      answers[i] = result
      todo[#todo + 1] = write
    else
      todo[#todo + 1] = function() answers[i] = change[letter](unpack(words)) end
    end
  end
  for _, write in ipairs(todo) do write() end
  return cjson.encode({nonce = args[1], epoch = since, answers = answers})
end

redis.register_function('callbound_1', run)
