"""Token logs: readers of JSON, tables and session files that several log sources share."""
