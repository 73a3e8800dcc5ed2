"""What the books answer: questions, the HTTP API over them, its models and its client.

Reads facts and conclusions from the ledger; knows neither how facts come in nor how conclusions are drawn.
"""
