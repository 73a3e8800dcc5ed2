"""OpenTelemetry: OTLP spans and log events become rows of `spans`, metrics rows of `metric_points`; the emitter table is data."""
