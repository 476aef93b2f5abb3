-- Makes every JSON error body the one that OpenAI's clients know:
--   {"error":{"message":…,"type":…,"param":…,"code":…}}
--
-- Two kinds of body come by. The transcoder prints a gateway's google.rpc.Status as
-- {"code":…,"message":…,"details":[…]}, where the one detail is a tokenmesh.openai.v1.Error: its fields
-- are the answer. Envoy's own replies come in the form of envoy.yaml's local_reply_config, with a
-- message for people: it is said in OpenAI's words, and the field at fault is named.
--
-- Nothing is parsed: strings are cut out of the JSON as they stand, escapes included, and so can be
-- put into JSON again.

local DETAIL = '"details":[{"@type":"type.googleapis.com/tokenmesh.openai.v1.Error",'
local LOCAL_REPLY = '{"error":{"code":null,'

local TYPE_BY_STATUS = {
  ["401"] = "authentication_error",
  ["403"] = "permission_error",
  ["408"] = "timeout",
  ["429"] = "rate_limit_error",
  ["504"] = "timeout",
}

-- What a field should have been, by the name that the transcoder has for its type.
local WANTED_BY_TYPE = {
  TYPE_BOOL = "true or false",
  TYPE_DOUBLE = "a number",
  TYPE_INT32 = "an integer of 32 bits",
  TYPE_INT64 = "an integer of 64 bits",
  TYPE_STRING = "a string",
}

-- The transcoder's messages that speak of protobuf, in the words of who wrote the JSON.
local MESSAGE_IN_JSON_WORDS = {
  ["Root element must be a message."] = "It must be an object.",
  ["Proto field is not repeating, cannot start list."] = "A list stands where one value is expected.",
}

-- As services/gateway/openai/registration.py has it, which refuses what the transcoder lets through.
local NESTING_LIMIT = "objects may stand within each other 33 deep."

-- The string literal, without its quotes, that follows `key` in `json`; nil when there is none.
local function string_after(json, key)
  local _, start = json:find('"' .. key .. '":"', 1, true)
  if start == nil then
    return nil
  end
  local position = start + 1
  while true do
    local stop = json:find('["\\]', position)
    if stop == nil then
      return nil
    end
    if json:sub(stop, stop) == '"' then
      return json:sub(start + 1, stop - 1)
    end
    position = stop + 2
  end
end

local function error_type(status)
  if TYPE_BY_STATUS[status] ~= nil then
    return TYPE_BY_STATUS[status]
  end
  return status >= "500" and "server_error" or "invalid_request_error"
end

-- A body of OpenAI's shape. `message` is already escaped; `param` and `code` are plain or nil.
local function error_body(status, message, param, code)
  local function literal(value)
    return value and '"' .. value .. '"' or "null"
  end
  return '{"error":{"message":"' .. message
    .. '","type":' .. literal(error_type(status))
    .. ',"param":' .. literal(param)
    .. ',"code":' .. literal(code) .. "}}"
end

-- Which field is of the wrong type, what was wanted and what came, as the transcoder's message tells.
local function wrong_type(message)
  local field, value, kind = message:match("^([%w_%.%[%]]+): invalid value (.*) for type ([%w_%./]+)$")
  if field ~= nil then
    return field, WANTED_BY_TYPE[kind] or "an object", value
  end
  field = message:match("Starting an object on a scalar field for type ([%w_]+)$")
  if field ~= nil then
    return field, "a plain value", "an object"
  end
  return nil
end

-- The free-form field that holds a key twice, and the key, as the transcoder's message tells.
local function repeated_key(message)
  return message:match("^([%w_]+)[%w_%.%[%]]*: Repeated map key: '(.*)' is already set%.$")
end

-- The URL that the transcoder knows no call for, by its message; nil for any other message.
local function unresolved_url(message)
  return message:match("^Could not resolve (.*) to a method%.$")
end

-- The body for a reply of Envoy's own.
local function local_error_body(status, message)
  local url = unresolved_url(message)
  if url ~= nil and status == "405" then
    return error_body(status, "Wrong method for " .. url .. ".", nil, "method_not_supported")
  end
  if url ~= nil then
    return error_body(status, "Unknown request URL: " .. url .. ". Check it for typos.", nil, "unknown_url")
  end
  if status == "400" then
    local field, wanted, value = wrong_type(message)
    if field ~= nil then
      message = "Invalid type for '" .. field .. "': expected " .. wanted .. ", but got " .. value .. "."
      return error_body(status, message, field, "invalid_type")
    end
    local holder, key = repeated_key(message)
    if holder ~= nil then
      message = "Invalid '" .. holder .. "': the key '" .. key .. "' is in one object twice."
      return error_body(status, message, holder, "duplicate_key")
    end
    if message:find("Message too deep", 1, true) ~= nil then
      return error_body(status, "The request body is nested too deep: " .. NESTING_LIMIT, nil, "nested_too_deep")
    end
    message = message:gsub("^: ", "")
    message = MESSAGE_IN_JSON_WORDS[message] or message
    return error_body(status, "The request body is not the JSON of this call. " .. message, nil, nil)
  end
  if status == "413" then
    -- As envoy.yaml's buffer filter has it.
    return error_body(status, "The request body is too large: up to 32 MiB are taken.", nil, "request_too_large")
  end
  if status == "503" then
    return error_body(status, "No gateway takes the request just now: " .. message, nil, nil)
  end
  return error_body(status, message, nil, nil)
end

-- The body in OpenAI's shape; nil when it has that shape already.
local function rewritten(status, body)
  local _, start = body:find(DETAIL, 1, true)
  if start ~= nil then
    return '{"error":{' .. body:sub(start + 1, -3) .. "}"
  end
  if body:sub(1, #LOCAL_REPLY) == LOCAL_REPLY then
    return local_error_body(status, string_after(body, "message") or "")
  end
  if body:sub(1, 9) == '{"error":' then
    return nil
  end
  return error_body(status, string_after(body, "message") or "", nil, nil)
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local content_type = headers:get("content-type") or ""
  if content_type:sub(1, 16) == "application/grpc" then
    return
  end
  -- What is left of the gateway's gRPC response means nothing to an HTTP client.
  headers:remove("grpc-accept-encoding")
  headers:remove("grpc-status")
  headers:remove("grpc-message")
  local status = headers:get(":status")
  if status < "400" or content_type:sub(1, 16) ~= "application/json" then
    return
  end
  local allowed = handle:metadata():get("allow")
  if status == "404" and allowed ~= nil then
    status = "405"
    headers:replace(":status", status)
    headers:add("allow", allowed)
  end
  local body = handle:body()
  if body == nil then
    return
  end
  local replacement = rewritten(status, body:getBytes(0, body:length()))
  if replacement ~= nil then
    -- Waiting for the body has made the old `headers` unusable.
    handle:headers():replace("content-length", body:setBytes(replacement))
  end
end
