"""OpenTelemetry: OTLP spans, log events and metrics become rows of `spans`; what emitters mean by their numbers is data here."""
