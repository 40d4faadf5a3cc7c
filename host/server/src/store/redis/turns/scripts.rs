//! The steps of [`Turns`](crate::store::Turns) as Redis runs them.
//!
//! `KEYS` of all of them, in one hash slot: the stream; whose turn it is, by group and key; the key, by
//! group and place of the entry whose turn it is; what stands in line; and the notes of this group's
//! entries whose turn has come, a stream so that one can wait for it. `ARGV[1]` is the group.
//!
//! A place is an entry id, or `~` and the id that a retry had before it was put aside until it is due.
//! Members of the line are sorted: group, key, and the id filled up with zeros.

/// Taking, passing and carrying turns.
macro_rules! lines {
    () => {
        r"
local stream, turns, holders, waiting, ready = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group = ARGV[1]
local function line(key) return #group .. ':' .. group .. #key .. ':' .. key end
local function hold(key, place)
  redis.call('HSET', holders, group .. '/' .. place, key)
  redis.call('HSET', turns, line(key), place)
end
local function pass(key)
  local own = line(key)
  local first = redis.call('ZRANGEBYLEX', waiting, '[' .. own, '[' .. own .. '\255', 'LIMIT', 0, 1)[1]
  if not first then return redis.call('HDEL', turns, own) end
  local ms, seq = first:sub(-41):match('^0*(%d+)-0*(%d+)$')
  hold(key, ms .. '-' .. seq)
  redis.call('XADD', ready, '*', 'id', ms .. '-' .. seq)
  redis.call('ZREM', waiting, first)
end
local function carry(from, to)
  local key = redis.call('HGET', holders, group .. '/' .. from)
  if not key then return end
  if redis.call('HGET', turns, line(key)) == from then
    if to then hold(key, to) else pass(key) end
  end
  redis.call('HDEL', holders, group .. '/' .. from)
end
"
    };
}

/// Where ids stand, and how far the group has read.
macro_rules! places {
    () => {
        r"
local function padded(id)
  local ms, seq = id:match('^(%d+)-(%d+)$')
  return ('0'):rep(20 - #ms) .. ms .. '-' .. ('0'):rep(20 - #seq) .. seq
end
local function delivered()
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then return nil end
  for _, info in ipairs(groups) do
    local found = {}
    for index = 1, #info, 2 do found[info[index]] = info[index + 1] end
    if found['name'] == group then return found['last-delivered-id'] end
  end
end
"
    };
}

/// Which key an entry has, and whether it is its turn. Reads as much of the envelope as it must.
macro_rules! seats {
    () => {
        r"
local function varint(text, at)
  local value, unit = 0, 1
  while true do
    local byte = text:byte(at)
    if not byte then return nil end
    value = value + byte % 128 * unit
    at, unit = at + 1, unit * 128
    if byte < 128 then return value, at end
  end
end
local function each(text, visit)
  local at = 1
  while at <= #text do
    local tag, size
    tag, at = varint(text, at)
    if not tag then return end
    local wire = tag % 8
    if wire == 0 then
      size, at = varint(text, at)
      if not size then return end
    elseif wire == 1 then at = at + 8
    elseif wire == 5 then at = at + 4
    elseif wire == 2 then
      size, at = varint(text, at)
      if not size or at + size > #text + 1 then return end
      visit((tag - wire) / 8, at, at + size - 1)
      at = at + size
    else return end
  end
end
local function key_of(fields)
  local payload
  for index = 1, #fields, 2 do
    if fields[index] == 'payload' then payload = fields[index + 1] break end
  end
  if not payload then return nil end
  local attributes = {}
  each(payload, function(number, first, last)
    if number ~= 3 then return end
    local attribute, pair = payload:sub(first, last), {'', ''}
    each(attribute, function(part, from, to) pair[part] = attribute:sub(from, to) end)
    attributes[pair[1]] = pair[2]
  end)
  local meant = attributes['oona.retry_group']
  if meant and meant ~= '' and meant ~= group then return nil end
  if attributes['oona.key'] ~= '' then return attributes['oona.key'] end
end
local function seat(id, fields)
  local key = key_of(fields)
  if not key then return true end
  local holder = redis.call('HGET', turns, line(key))
  if holder == id then return true end
  if not holder then
    hold(key, id)
    return true
  end
  redis.call('ZADD', waiting, 0, line(key) .. padded(id))
  redis.call('XCLAIM', stream, group, 'oona:in-line', 0, id, 'JUSTID')
  return false
end
"
    };
}

/// Also `ARGV`: consumer, how many. The entries handed out, and how far the group has read.
pub(super) const READ: &str = concat!(
    lines!(),
    places!(),
    seats!(),
    r"
local consumer, count = ARGV[2], tonumber(ARGV[3])
local found = {}
local last = delivered()
if not last then return redis.error_reply('NOGROUP ' .. group) end
while #found < count do
  local notes = redis.call('XRANGE', ready, '-', '+', 'COUNT', count - #found)
  if #notes == 0 then break end
  for _, note in ipairs(notes) do
    local id = note[2][2]
    local entry = redis.call('XCLAIM', stream, group, consumer, 0, id, 'RETRYCOUNT', 1)[1]
    if type(entry) == 'table' and entry[2] then
      found[#found + 1] = entry
    else
      redis.call('XACK', stream, group, id)
      carry(id, nil)
    end
    redis.call('XDEL', ready, note[1])
  end
end
local new = {}
if #found < count then
  local read = redis.call('XREADGROUP', 'GROUP', group, consumer,
    'COUNT', count - #found, 'STREAMS', stream, '>')
  new = read and read[1][2] or {}
  for _, entry in ipairs(new) do
    last = entry[1]
    if seat(entry[1], entry[2]) then found[#found + 1] = entry end
  end
end
-- Before Redis 7.2, who reads and gets nothing is not known.
if #new == 0 then redis.call('XGROUP', 'CREATECONSUMER', stream, group, consumer) end
return {found, last, #new}
"
);

/// Also `ARGV`: consumer, how many, ms. The entries handed out, each with how often.
pub(super) const CLAIM: &str = concat!(
    lines!(),
    places!(),
    seats!(),
    r"
local consumer, count, idle = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local pending = redis.pcall('XPENDING', stream, group)
if pending.err then return pending end
local left = {}
for _, member in ipairs(pending[4] or {}) do
  if member[1] ~= 'oona:in-line' then
    local own = redis.call('XPENDING', stream, group, 'IDLE', idle, '-', '+', count, member[1])
    for _, one in ipairs(own) do left[#left + 1] = {padded(one[1]), one[1], one[4]} end
  end
end
table.sort(left, function(one, other) return one[1] < other[1] end)
local found = {}
for _, one in ipairs(left) do
  if #found >= count then break end
  local entry = redis.call('XCLAIM', stream, group, consumer, idle, one[2])[1]
  if type(entry) == 'table' and entry[2] then
    if seat(entry[1], entry[2]) then found[#found + 1] = {entry[1], entry[2], one[3] + 1} end
  else
    redis.call('XACK', stream, group, one[2])
    carry(one[2], nil)
  end
end
return found
"
);

/// Also `KEYS`: destination. Also `ARGV`: id, what becomes of it, due, then the fields. 1 if it was
/// settled, 0 if it was not pending or there is no such group.
pub(super) const SETTLE: &str = concat!(
    lines!(),
    r"
local id, step = ARGV[2], ARGV[3]
local pending = redis.pcall('XPENDING', stream, group, id, id, 1)
if pending.err and not pending.err:find('NOGROUP', 1, true) then return pending end
if pending.err or #pending == 0 then return 0 end
local place
if step == 'again' then
  place = redis.call('XADD', stream, '*', unpack(ARGV, 5))
elseif step == 'later' then
  redis.call('ZADD', KEYS[6], ARGV[4], cmsgpack.pack({group .. '/' .. id, unpack(ARGV, 5)}))
  place = '~' .. id
elseif step == 'letter' then
  redis.call('XADD', KEYS[6], '*', unpack(ARGV, 5))
end
carry(id, place)
redis.call('XACK', stream, group, id)
return 1
"
);

/// Also `KEYS`: the delayed retries. Also `ARGV`: where to go on. Where to go on next, how many turns
/// were passed on, how many entries stand in line.
pub(super) const MEND: &str = concat!(
    lines!(),
    places!(),
    r"
local last = delivered()
if not last then return {'0', 0, 0} end
local function lost(place)
  if place:sub(1, 1) == '~' then return redis.call('EXISTS', KEYS[6]) == 0 end
  if #redis.call('XPENDING', stream, group, place, place, 1) > 0 then return false end
  local unread = padded(last) < padded(place)
  return not (unread and #redis.call('XRANGE', stream, place, place) > 0)
end
local scanned = redis.call('HSCAN', turns, ARGV[2], 'COUNT', 100)
local own, passed = #group .. ':' .. group, 0
for index = 1, #scanned[2], 2 do
  local name, place = scanned[2][index], scanned[2][index + 1]
  if name:sub(1, #own) == own and lost(place) then
    local size, rest = name:sub(#own + 1):match('^(%d+):(.*)$')
    pass(rest)
    redis.call('HDEL', holders, group .. '/' .. place)
    passed = passed + 1
  end
end
return {scanned[1], passed, redis.call('ZCARD', waiting)}
"
);

/// `KEYS`: stream. `ARGV`: from where, length to keep, how many to look at. Where to go on next (empty:
/// nowhere), and how many were removed.
pub(super) const THIN: &str = r"
local stream = KEYS[1]
local excess = redis.call('XLEN', stream) - tonumber(ARGV[2])
if excess <= 0 then return {'', 0} end
local groups = redis.call('XINFO', 'GROUPS', stream)
if #groups == 0 then return {'', 0} end
local function padded(id)
  local ms, seq = id:match('^(%d+)-(%d+)$')
  return ('0'):rep(20 - #ms) .. ms .. '-' .. ('0'):rep(20 - #seq) .. seq
end
local names, through = {}, nil
for _, info in ipairs(groups) do
  local found = {}
  for index = 1, #info, 2 do found[info[index]] = info[index + 1] end
  names[#names + 1] = found['name']
  local last = found['last-delivered-id']
  if not through or padded(last) < padded(through) then through = last end
end
local window = redis.call('XRANGE', stream, ARGV[1], through, 'COUNT', ARGV[3])
if #window == 0 then return {'', 0} end
local from, to = window[1][1], window[#window][1]
local open = {}
for _, name in ipairs(names) do
  for _, one in ipairs(redis.call('XPENDING', stream, name, from, to, #window)) do
    open[one[1]] = true
  end
end
local removed = 0
for _, entry in ipairs(window) do
  if removed < excess and not open[entry[1]] then
    removed = removed + redis.call('XDEL', stream, entry[1])
  end
end
return {'(' .. to, removed}
";
