"""Who may see and change what: roles and permissions, principals, and the people, keys and sessions that the database holds."""
