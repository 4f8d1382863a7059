-- The rules of the port (base.py) for one batch, as engine.py has them: writes everything, then answers.
--
-- ARGV: prefix, milliseconds that claims and answers live, milliseconds that clicks live, age in milliseconds beyond
-- which windows of a key are dropped, phase ("both", "write" or "read"), queries, and for "read" what "write" returned.
-- Queries and results are msgpack arrays; see redis.py. Keys are made here, so this needs one server, not a cluster.
local prefix, decided_for, remembered_for, prune = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local phase, queries = ARGV[5], cmsgpack.unpack(ARGV[6])

local NEWEST_CLICKS, NEWEST_USERS, NEWEST_WINDOWS = 8, 8, 64
local LONGEST, WATCHED_FOR = 4294967295, 3600000
local NONE, NEW, REPEAT = 0, 1, 2
local LETTERS, KINDS = { [0] = '-', 'N', 'R' }, { ['-'] = 0, N = 1, R = 2 }
local OWNER, TIME, KEY, WINDOW, CLICK, ANONYMOUS, USER, REFERRAL, ASKS, JOINS, ORDER, KEEPS, FIRST =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13

local function kept(query)
  local raw = redis.call('GET', prefix .. 'a' .. query[OWNER])
  return raw and { KINDS[string.sub(raw, 1, 1)], string.sub(raw, 2), 1, 0, 0 }
end

local function recall(identity)
  local raw = redis.call('GET', prefix .. 'i' .. identity)
  return raw and cmsgpack.unpack(raw) or { {}, {} }
end

local function put_identity(identity, known)
  redis.call('SET', prefix .. 'i' .. identity, cmsgpack.pack(known), 'PX', remembered_for)
end

local function put_claim(query, windows)
  redis.call('SET', prefix .. 'c' .. query[KEY], cmsgpack.pack(windows), 'PX', decided_for + query[WINDOW])
end

-- Whether one text comes before another by its bytes; Lua's own < goes by the locale of the server.
local function before(one, other)
  for at = 1, math.min(#one, #other) do
    local left, right = string.byte(one, at), string.byte(other, at)
    if left ~= right then return left < right end
  end
  return #one < #other
end

-- Put an entry (time, value) into a list in order; false when it is there already.
local function insert(list, time, value)
  local at = #list + 1
  for index, entry in ipairs(list) do
    if entry[1] == time and entry[2] == value then return false end
    if at > #list and (entry[1] > time or (entry[1] == time and before(value, entry[2]))) then at = index end
  end
  table.insert(list, at, { time, value })
  return true
end

local function with_click(clicks, time, click_id)
  if not insert(clicks, time, click_id) then return nil end
  if #clicks <= NEWEST_CLICKS then return clicks end
  -- The middle one of three in a row with the same id goes before the oldest does.
  for index = 2, #clicks - 1 do
    if clicks[index - 1][2] == clicks[index][2] and clicks[index][2] == clicks[index + 1][2] then
      table.remove(clicks, index)
      return clicks
    end
  end
  table.remove(clicks, 1)
  return clicks
end

-- Whether a click of this time on an anonymous identity belongs to the user: identified since, and nobody else was.
local function belongs(users, user, time)
  local since = false
  for _, entry in ipairs(users) do
    if entry[2] == user then
      since = since or entry[1] >= time
    elseif entry[1] > time then
      return false
    end
  end
  return since
end

-- Write a click to an identity; true when an order went without it.
local function remember(identity, time, click_id)
  local known = recall(identity)
  local clicks = with_click(known[1], time, click_id)
  if clicks then put_identity(identity, { clicks, known[2] }) end
  local watched = redis.call('GET', prefix .. 'w' .. identity)
  if watched and time <= tonumber(watched) then
    redis.call('DEL', prefix .. 'w' .. identity)
    return true
  end
  return false
end

local function claim(query)
  local raw = redis.call('GET', prefix .. 'c' .. query[KEY])
  local windows, time, inside = raw and cmsgpack.unpack(raw) or {}, query[TIME], nil
  for _, window in ipairs(windows) do
    if window[3] == query[OWNER] then return { NEW, '', 1, window[1], window[1] + window[2] } end
    if window[1] <= time and time < window[1] + window[2] then inside = window end
  end
  if inside then
    inside[2] = math.min(math.max(inside[2], time + query[WINDOW] - inside[1]), LONGEST)
    put_claim(query, windows)
    return { REPEAT, '', 0, inside[1], inside[1] + inside[2] }
  end
  local live = {}
  for _, window in ipairs(windows) do
    if window[1] + window[2] > time - prune then table.insert(live, window) end
  end
  while #live >= NEWEST_WINDOWS do table.remove(live, 1) end
  table.insert(live, { time, query[WINDOW], query[OWNER] })
  put_claim(query, live)
  return { NEW, '', 0, time, time + query[WINDOW] }
end

local late = 0

local function record(query)
  local owners = {}
  if query[ANONYMOUS] then
    owners[query[ANONYMOUS]] = true
    local users = recall(query[ANONYMOUS])[2]
    for _, entry in ipairs(users) do
      if belongs(users, entry[2], query[TIME]) then owners[entry[2]] = true end
    end
  end
  if query[USER] then owners[query[USER]] = true end
  local missed = false
  for identity in pairs(owners) do missed = remember(identity, query[TIME], query[CLICK]) or missed end
  if missed then late = late + 1 end
end

local function join(query)
  local known, user, missed = recall(query[ANONYMOUS]), query[USER], false
  if insert(known[2], query[TIME], user) then
    while #known[2] > NEWEST_USERS do table.remove(known[2], 1) end
    put_identity(query[ANONYMOUS], known)
  end
  for _, click in ipairs(known[1]) do
    if belongs(known[2], user, click[1]) then missed = remember(user, click[1], click[2]) or missed end
  end
  if missed then late = late + 1 end
end

local function choose(query)
  local best = nil
  for _, identity in ipairs({ query[ANONYMOUS] or false, query[USER] or false }) do
    if identity then
      for _, click in ipairs(recall(identity)[1]) do
        if click[1] <= query[TIME] and click[1] >= query[TIME] - query[REFERRAL] then
          if not best or (query[FIRST] and click[1] < best[1]) or (not query[FIRST] and click[1] > best[1]) then
            best = click
          end
        end
      end
    end
  end
  return best and best[2] or ''
end

local function answer(query, result)
  local click_id = query[ASKS] and choose(query) or ''
  if query[ASKS] and query[ORDER] and click_id == '' then
    for _, identity in ipairs({ query[ANONYMOUS] or false, query[USER] or false }) do
      if identity then redis.call('SET', prefix .. 'w' .. identity, query[TIME], 'PX', WATCHED_FOR) end
    end
  end
  redis.call('SET', prefix .. 'a' .. query[OWNER], LETTERS[result[1]] .. click_id, 'PX', decided_for)
  result[2] = click_id
  return result
end

local results = phase == 'read' and cmsgpack.unpack(ARGV[7])[1] or {}
if phase ~= 'read' then
  for index, query in ipairs(queries) do
    -- Lua's false stands for msgpack's nil, which would end the array.
    local result = query[KEEPS] and kept(query)
    if not result then
      result = query[KEY] and claim(query) or { NONE, '', 0, 0, 0 }
      if query[CLICK] then record(query) end
      if query[JOINS] and query[ANONYMOUS] and query[USER] then join(query) end
    end
    results[index] = result
  end
end
if phase ~= 'write' then
  local answered = {}
  for index, query in ipairs(queries) do
    if query[KEEPS] then
      -- The same message may stand twice in a batch; the first one's answer is kept by now.
      local look = phase == 'read' or results[index][3] == 1 or answered[query[OWNER]]
      results[index] = look and kept(query) or answer(query, results[index])
      answered[query[OWNER]] = true
    end
  end
end
return cmsgpack.pack({ results, late })
