-- Asks AccessGuard about one request, and leaves its answer in variables: txn.ag_status and the rest.
-- Whatever goes wrong is 503: could not decide.

local url = (os.getenv("ACCESSGUARD_URL") or "http://127.0.0.1:8080") .. "/auth/nginx"
local token = os.getenv("ACCESSGUARD_TOKEN") or ""
if token == "" then error("ACCESSGUARD_TOKEN is not set: AccessGuard answers no proxy that does not say whose it is") end

-- What is passed on of the browser's headers, as it came.
local passed = { "cookie", "user-agent", "accept", "accept-language", "authorization" }
local told = { "member", "session", "device", "tenant", "exempt", "reason" }

-- Milliseconds for one try; the client makes three.
local patience = 330

local function ask(txn)
    local headers = {
        ["accessguard-token"] = { token },
        ["x-original-method"] = { txn.sf:method() },
        ["x-original-uri"] = { txn.sf:pathq() },
        ["x-forwarded-for"] = { txn.sf:src() },
        ["x-forwarded-host"] = { txn.sf:req_hdr("host") or "" },
    }
    for _, name in ipairs(passed) do
        local value = txn.sf:req_fhdr(name)
        if value and value ~= "" then headers[name] = { value } end
    end
    local answer = core.httpclient():get({ url = url, headers = headers, timeout = patience })
    if not answer or not answer.status then return 503 end
    local found = answer.headers or {}
    for _, name in ipairs(told) do
        local value = found["accessguard-" .. name]
        txn:set_var("txn.ag_" .. name, value and value[0] or "")
    end
    if found["location"] then txn:set_var("txn.ag_location", found["location"][0]) end
    return answer.status
end

core.register_action("accessguard", { "http-req" }, function(txn)
    local fine, status = pcall(ask, txn)
    if not fine or (status ~= 204 and status ~= 401 and status ~= 403) then status = 503 end
    txn:set_var("txn.ag_status", tostring(status))
end, 0)
