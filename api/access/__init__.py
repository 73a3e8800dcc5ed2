"""Who asks: allowed host names, authentication, and the gates that routes put before their queries.

middleware       refuses other host names and unknown callers before any route runs; sets `request.state.principal`
authentication   Authorization header → principal
gates            dependencies of routes: the books as the principal may see them, or the principal once it may do something
"""
