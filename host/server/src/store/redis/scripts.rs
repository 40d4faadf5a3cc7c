//! Steps that must be one atomic write, as Redis runs them. Each writes what is new before it takes
//! away what was: a script that fails half-way (out of memory) then leaves a duplicate, never a gap.
//!
//! Sent with `EVAL` every time: they are short, the server knows them by their digest after the
//! first time, and a server that was restarted needs no special case.

/// `KEYS`: stream, destination. `ARGV`: group, id, due (empty: at once), then the fields.
/// 1 if it was settled, 0 if it was not pending or there is no such group. A retry that waits is named by group and entry, so that
/// the same content of two groups, or of two entries, waits twice.
pub(super) const MOVE: &str = r"
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)
if pending.err and not pending.err:find('NOGROUP', 1, true) then return pending end
if pending.err or #pending == 0 then return 0 end
if ARGV[3] == '' then
  redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4))
else
  redis.call('ZADD', KEYS[2], ARGV[3], cmsgpack.pack({ARGV[1] .. '/' .. ARGV[2], unpack(ARGV, 4)}))
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return 1
";

/// `KEYS`: stream. `ARGV`: the last id (empty: none), the new id, then the fields. The new id, or nil if
/// another is the last. A stream whose entries were all removed is begun anew, since it would refuse
/// ids that it had before.
pub(super) const APPEND_AFTER: &str = r"
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if (last[1] and last[1][1] or '') ~= ARGV[1] then return false end
if #last == 0 then redis.call('DEL', KEYS[1]) end
return redis.call('XADD', KEYS[1], ARGV[2], unpack(ARGV, 3))
";

/// `KEYS`: stream, the memory of the event id. `ARGV`: ms, note, then the fields. The new id; or, if it
/// was appended before, its id, a space, and what was noted.
pub(super) const APPEND_ONCE: &str = r"
local first = redis.call('GET', KEYS[2])
if first then return first end
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
redis.call('SET', KEYS[2], id .. ' ' .. ARGV[2], 'PX', ARGV[1])
return id
";

/// `KEYS`: stream. `ARGV`: from, count, skip, every. How many entries there are, the id of the last, and
/// after `skip` of them each `every`th: what is stepped over stays in the server.
pub(super) const SAMPLE: &str = r"
local found = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
local taken = {}
for place = ARGV[3] + 1, #found, tonumber(ARGV[4]) do taken[#taken + 1] = found[place] end
return {#found, #found > 0 and found[#found][1] or '', taken}
";

/// `KEYS`: stream, receipts. `ARGV`: group, id, outcome, ms. Runs in one transaction before the step that
/// settles the entry, and writes only if that step will: so either both happen or neither.
pub(super) const RECEIPT: &str = r"
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)
if pending.err or #pending == 0 then return 0 end
local time = redis.call('TIME')
local ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3] .. ' ' .. ms)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
";

/// `KEYS`: stream, receipts. `ARGV`: id, then groups. Of each group, where it stands with the entry and its
/// receipt, or empty.
pub(super) const SIGHTS: &str = r"
local function parts(id)
  local ms, seq = id:match('^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local entry_ms, entry_seq = parts(ARGV[1])
local last = {}
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
for _, info in ipairs(groups.err and {} or groups) do
  local group = {}
  for index = 1, #info, 2 do group[info[index]] = info[index + 1] end
  last[group['name']] = group['last-delivered-id']
end
local sights = {}
for index = 2, #ARGV do
  local name = ARGV[index]
  local standing = 'no-group'
  if last[name] then
    local ms, seq = parts(last[name])
    if #redis.call('XPENDING', KEYS[1], name, ARGV[1], ARGV[1], 1) > 0 then
      standing = 'pending'
    elseif ms > entry_ms or (ms == entry_ms and seq >= entry_seq) then
      standing = 'passed'
    else
      standing = 'unread'
    end
  end
  table.insert(sights, standing)
  table.insert(sights, redis.call('HGET', KEYS[2], name) or '')
end
return sights
";

/// `KEYS`: stream, its delayed retries, and as beside the scripts of turns: whose turn it is, and the
/// key by place. `ARGV`: now, how many. How many were moved. What had the turn of its key keeps it.
pub(super) const PROMOTE: &str = r"
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
local in_turn = #due > 0 and redis.call('EXISTS', KEYS[4]) == 1
for _, member in ipairs(due) do
  local retry = cmsgpack.unpack(member)
  local place = redis.call('XADD', KEYS[1], '*', unpack(retry, 2))
  if in_turn then
    local group, id = retry[1]:match('^(.*)/(%d+-%d+)$')
    local before = group .. '/~' .. id
    local key = redis.call('HGET', KEYS[4], before)
    if key then
      redis.call('HSET', KEYS[4], group .. '/' .. place, key)
      redis.call('HSET', KEYS[3], #group .. ':' .. group .. #key .. ':' .. key, place)
      redis.call('HDEL', KEYS[4], before)
    end
  end
  redis.call('ZREM', KEYS[2], member)
end
return #due
";

/// `KEYS`: stream. `ARGV`: group, consumer, then ids.
pub(super) const TOUCH: &str = r"
for index = 3, #ARGV do
  local id = ARGV[index]
  local held = redis.pcall('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])
  if held.err then return held end
  if #held > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID')
  end
end
return redis.status_reply('OK')
";

/// `KEYS`: nonce. `ARGV`: owner, ms. The owner that held it before, or nil.
pub(super) const REMEMBER: &str = r"
local held = redis.call('GET', KEYS[1])
if held then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
";

/// `KEYS`: stream. `ARGV`: group, consumer.
pub(super) const LEAVE: &str = r"
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if pending.err or #pending > 0 then return 0 end
return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
";

/// `KEYS`: from, to. `ARGV`: id, then the fields. The new id, or nil if the entry was gone.
pub(super) const REDRIVE: &str = r"
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then return false end
local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 2))
redis.call('XDEL', KEYS[1], ARGV[1])
return id
";

/// `KEYS`: stream. The id of its oldest entry, then of each group its name and the id of the oldest that it
/// has yet to finish. What there is not is empty. Ids alone, since entries may be large.
pub(super) const OLDEST: &str = r"
local function first(from)
  local found = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
  return found and found[1] or ''
end
local oldest = {first('-')}
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
for _, info in ipairs(groups.err and {} or groups) do
  local group = {}
  for index = 1, #info, 2 do group[info[index]] = info[index + 1] end
  local pending = redis.call('XPENDING', KEYS[1], group['name'])
  table.insert(oldest, group['name'])
  table.insert(oldest, pending[1] > 0 and pending[2] or first('(' .. group['last-delivered-id']))
end
return oldest
";

/// `KEYS`: stream. `ARGV`: length to keep, most entries to look at. Removes the oldest entries that
/// every group has finished; answers how many.
pub(super) const TRIM: &str = r"
local excess = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[1])
if excess <= 0 then return 0 end
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err or #groups == 0 then return 0 end
local function parts(id)
  local ms, seq = id:match('^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local function before(one, other)
  local one_ms, one_seq = parts(one)
  local other_ms, other_seq = parts(other)
  return one_ms < other_ms or (one_ms == other_ms and one_seq < other_seq)
end
local keep_from = nil
for _, info in ipairs(groups) do
  local group = {}
  for index = 1, #info, 2 do group[info[index]] = info[index + 1] end
  local ms, seq = group['last-delivered-id']:match('^(%d+)-(%d+)$')
  local first = ms .. '-' .. string.format('%.0f', tonumber(seq) + 1)
  local pending = redis.call('XPENDING', KEYS[1], group['name'])
  if pending[1] > 0 then first = pending[2] end
  if keep_from == nil or before(first, keep_from) then keep_from = first end
end
local count = math.min(excess, tonumber(ARGV[2]))
local oldest = redis.call('XRANGE', KEYS[1], '-', '(' .. keep_from, 'COUNT', count)
if #oldest == 0 then return 0 end
local ms, seq = oldest[#oldest][1]:match('^(%d+)-(%d+)$')
redis.call('XTRIM', KEYS[1], 'MINID', '=', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
return #oldest
";

/// `KEYS`: stream. `ARGV`: length to keep, most entries to look at. Removes the oldest entries, finished
/// or not; answers how many, and how many of them some group had yet to finish.
pub(super) const DROP_OLDEST: &str = r"
local excess = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[1])
if excess <= 0 then return {0, 0} end
local function parts(id)
  local ms, seq = id:match('^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local groups = {}
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for index = 1, #info, 2 do group[info[index]] = info[index + 1] end
  local ms, seq = parts(group['last-delivered-id'])
  table.insert(groups, {name = group['name'], ms = ms, seq = seq})
end
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', math.min(excess, tonumber(ARGV[2])))
local unfinished = 0
for _, entry in ipairs(oldest) do
  local ms, seq = parts(entry[1])
  local open = #groups == 0
  for _, group in ipairs(groups) do
    if ms > group.ms or (ms == group.ms and seq > group.seq) then
      open = true
    elseif redis.call('XACK', KEYS[1], group.name, entry[1]) == 1 then
      open = true
    end
  end
  if open then unfinished = unfinished + 1 end
end
local ms, seq = oldest[#oldest][1]:match('^(%d+)-(%d+)$')
redis.call('XTRIM', KEYS[1], 'MINID', '=', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
return {#oldest, unfinished}
";

/// `KEYS`: stream. `ARGV`: ms. Removes consumers that have been idle for so long and hold nothing; answers
/// how many.
pub(super) const REMOVE_IDLE_CONSUMERS: &str = r"
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then return 0 end
local removed = 0
for _, info in ipairs(groups) do
  local group = {}
  for index = 1, #info, 2 do group[info[index]] = info[index + 1] end
  for _, told in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group['name'])) do
    local consumer = {}
    for index = 1, #told, 2 do consumer[told[index]] = told[index + 1] end
    if consumer['pending'] == 0 and consumer['idle'] >= tonumber(ARGV[1]) then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group['name'], consumer['name'])
      removed = removed + 1
    end
  end
end
return removed
";

/// `KEYS`: stream, since when its groups have no consumers. `ARGV`: ms, most entries to count. Removes
/// groups that have had something to finish for so long, and in which nobody has been active meanwhile;
/// answers their names, each with what it had yet to finish. Before Redis 7.2 a consumer that waits for
/// entries does not count as active: so a group that has nothing to finish is never idle.
pub(super) const REMOVE_IDLE_GROUPS: &str = r"
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then return {} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local removed = {}
for _, info in ipairs(groups) do
  local group = {}
  for index = 1, #info, 2 do group[info[index]] = info[index + 1] end
  local name = group['name']
  local idle = nil
  for _, told in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], name)) do
    for index = 1, #told, 2 do
      if told[index] == 'idle' and (idle == nil or told[index + 1] < idle) then
        idle = told[index + 1]
      end
    end
  end
  if idle then
    redis.call('HDEL', KEYS[2], name)
  else
    redis.call('HSETNX', KEYS[2], name, string.format('%.0f', now))
    idle = now - tonumber(redis.call('HGET', KEYS[2], name))
  end
  local behind = '(' .. group['last-delivered-id']
  local unread = redis.call('XRANGE', KEYS[1], behind, '+', 'COUNT', 1)[1]
  local waits = group['pending'] > 0
  if unread then waits = now - tonumber(unread[1]:match('^(%d+)')) >= tonumber(ARGV[1]) end
  if waits and idle >= tonumber(ARGV[1]) then
    local lag = group['lag'] or #redis.call('XRANGE', KEYS[1], behind, '+', 'COUNT', ARGV[2])
    redis.call('XGROUP', 'DESTROY', KEYS[1], name)
    redis.call('HDEL', KEYS[2], name)
    table.insert(removed, name)
    table.insert(removed, group['pending'] + lag)
  end
end
return removed
";

/// `KEYS`: stream. `ARGV`: last delivered id, most entries to count. For a server that does not know
/// the lag of a group: how many entries stand behind that id.
pub(super) const LAG: &str = r"
return #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
";
