"""Who asks: allowed host names, authentication, and the gates that routes put before their queries.

middleware       refuses other host names and unknown callers before any route runs; sets `request.state.principal`
authentication   Authorization header or cookie → principal
hosts            allowed host names, trusted proxies, addresses of our own
cookies          the cookie of a session
forms, pages     the log-in in HTML
oidc             log-in at a provider
gates            dependencies of routes: the books as the principal may see them, or the principal once it may do something
"""
