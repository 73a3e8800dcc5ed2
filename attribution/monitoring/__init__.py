"""Monitoring: what follows from published costs: budgets, anomalies, drift, findings, and differences between runs."""
