-- One prepared read, again and again: MODE is point or history, AT is now or past.
-- Both engines run it: sysbench turns ? into $1 for PostgreSQL.

sysbench.cmdline.options = {
  mode = {"point or history", "point"},
  at = {"now or past", "now"},
  keys = {"Number of keys", 200000},
  versions = {"Versions of each", 5},
}

local function sql(driver)
  local point = sysbench.opt.mode == "point"
  if driver == "mysql" then
    if not point then
      return "SELECT site, n, note, valid_from, valid_to, sys_from, sys_to FROM readings FOR SYSTEM_TIME ALL WHERE id = ?"
    end
    if sysbench.opt.at == "past" then
      return "SELECT site, n, note FROM readings FOR SYSTEM_TIME AS OF ? WHERE id = ? AND valid_from <= ? AND valid_to > ?"
    end
    return "SELECT site, n, note FROM readings WHERE id = ? AND valid_from <= ? AND valid_to > ?"
  end
  if not point then
    return "SELECT site, n, note, valid, sys FROM readings WHERE id = ?"
  end
  return "SELECT site, n, note FROM readings WHERE id = ? AND valid @> CAST(? AS timestamptz) AND sys @> CAST(? AS timestamptz)"
end

function thread_init()
  drv = sysbench.sql.driver()
  con = drv:connect()
  name = drv:name()
  stmt = con:prepare(sql(name))
  params = {}
  local count = 1
  if sysbench.opt.mode == "point" then
    count = 3
    if name == "mysql" and sysbench.opt.at == "past" then count = 4 end
  end
  for place = 1, count do
    params[place] = stmt:bind_create(sysbench.sql.type.VARCHAR, 32)
  end
  stmt:bind_param(unpack(params))
end

local function set(values)
  for place, value in ipairs(values) do params[place]:set(value) end
end

function event()
  local id = string.format("key-%08d", sysbench.rand.uniform(0, sysbench.opt.keys - 1))
  if sysbench.opt.mode == "history" then
    set({id})
  else
    local day = sysbench.rand.uniform(0, sysbench.opt.versions - 1)
    local valid = string.format("2025-01-%02d 12:00:00", day + 1)
    -- Versions were recorded an hour apart from 2025-02-01 on.
    local known = sysbench.opt.at == "past" and "2025-02-01 02:30:00" or "2025-06-01 00:00:00"
    if name ~= "mysql" then
      set({id, valid .. "+00", known .. "+00"})
    elseif sysbench.opt.at == "past" then
      set({known, id, valid, valid})
    else
      set({id, valid, valid})
    end
  end
  stmt:execute()
end

function thread_done()
  stmt:close()
  con:disconnect()
end
