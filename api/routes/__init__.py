"""Routes of the API: reads, writes and receivers of telemetry."""
