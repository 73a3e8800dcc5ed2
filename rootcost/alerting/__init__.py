"""Alerts on their way out: `messages` words them, `senders` and `mail` hand them over, `dispatch` runs the outbox, `digests` sums up."""
