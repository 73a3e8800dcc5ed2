"""Monitoring: budgets, anomalies, drift, findings, and differences between runs, all computed from published costs."""
