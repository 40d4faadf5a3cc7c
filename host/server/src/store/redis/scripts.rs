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

/// `KEYS`: stream, its delayed retries. `ARGV`: now, how many. How many were moved.
pub(super) const PROMOTE: &str = r"
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do
  redis.call('XADD', KEYS[1], '*', unpack(cmsgpack.unpack(member), 2))
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

/// `KEYS`: stream. `ARGV`: last delivered id, most entries to count. For a server that does not know
/// the lag of a group: how many entries stand behind that id.
pub(super) const LAG: &str = r"
return #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
";
