"""The running service under load, for minutes: its API as it is described, many readers, a soak. Targets of their own."""
