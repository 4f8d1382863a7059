-- The rules of the ledger (play in ledger.py) for one turn: operations in order, each seeing those before it.
--
-- ARGV: prefix, milliseconds that an order is remembered, milliseconds that it may be sent again, milliseconds that an
-- attempt counts as in flight, the caller's time, operations. An operation is {name of the order, name of the attempt,
-- kind}. Of an order is kept {delivered, since, attempt, begun}; absent are NEVER and "". Answers a number for each.
local prefix, retention, window, lease, now =
  ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local operations = cmsgpack.unpack(ARGV[6])

local ORDER, ATTEMPT, KIND = 1, 2, 3
local BEGIN, BEGIN_AGAIN, DELIVERED_NOW, NOTHING, UNKNOWN = 1, 2, 3, 4, 5
local SETTLED, CLEAR, AMBIGUOUS, EXPIRED, DELIVERED, BUSY = 0, 1, 2, 3, 4, 5
local NEVER = -1

local function recall(order)
  local raw = redis.call('GET', prefix .. 'o' .. order)
  if not raw then return nil end
  local kept = cmsgpack.unpack(raw)
  return { delivered = kept[1], since = kept[2], attempt = kept[3], begun = kept[4] }
end

local function keep(order, delivered, since, attempt, begun)
  local raw = cmsgpack.pack({ delivered, since, attempt, begun })
  redis.call('SET', prefix .. 'o' .. order, raw, 'PX', retention)
end

-- Since when the outcome is unknown, the attempt in flight counted as one without an answer.
local function unknown_since(entry)
  if entry.attempt == '' then return entry.since end
  if entry.since == NEVER then return entry.begun end
  return math.min(entry.since, entry.begun)
end

local function begin(order, attempt, again)
  local entry = recall(order)
  if not entry then
    keep(order, false, NEVER, attempt, now)
    return CLEAR
  end
  if entry.attempt == attempt then return entry.since == NEVER and CLEAR or AMBIGUOUS end
  if entry.delivered and not again then return DELIVERED end
  if entry.attempt ~= '' and math.abs(now - entry.begun) < lease then return BUSY end
  if entry.delivered then
    keep(order, true, NEVER, attempt, now)
    return CLEAR
  end
  local since = unknown_since(entry)
  if now - since >= window then return EXPIRED end
  keep(order, false, since, attempt, now)
  return AMBIGUOUS
end

local function settle(order, attempt, kind)
  if kind == DELIVERED_NOW then return keep(order, true, NEVER, '', 0) end
  local entry = recall(order)
  if not entry then
    if kind == UNKNOWN then keep(order, false, now, '', 0) end
    return
  end
  if entry.attempt ~= attempt then return end
  if entry.delivered then return keep(order, true, NEVER, '', 0) end
  local since = entry.since
  if kind == UNKNOWN then since = unknown_since(entry) end
  if since == NEVER then
    redis.call('DEL', prefix .. 'o' .. order)
  else
    keep(order, false, since, '', 0)
  end
end

local answers = {}
for at, operation in ipairs(operations) do
  local kind = operation[KIND]
  if kind == BEGIN or kind == BEGIN_AGAIN then
    answers[at] = begin(operation[ORDER], operation[ATTEMPT], kind == BEGIN_AGAIN)
  else
    settle(operation[ORDER], operation[ATTEMPT], kind)
    answers[at] = SETTLED
  end
end
return answers
