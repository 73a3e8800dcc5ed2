"""Delivery of alerts: `routes` makes messages of events, `outbox` hands them out, `responses` is what people answer."""
