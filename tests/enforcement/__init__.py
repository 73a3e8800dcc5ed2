"""Budgets that hold: one state machine, three stores, leases, the plug-in of a proxy."""
