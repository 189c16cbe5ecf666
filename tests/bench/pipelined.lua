-- wrk: sixteen requests at a time on each connection, so that the client costs little beside the server.
init = function(args)
  local batch = {}
  for i = 1, 16 do batch[i] = wrk.format("GET", "/status") end
  requests = table.concat(batch)
end
request = function() return requests end
