"""Conclusions: which agent, and which team, each dollar of the bill goes back to.

    calls  chains  identity  metering  pricing  dimensions  held   → rollup   once per span
    names  billed  rating  allocation  estimates   → run → balance            once per bill
    spend  budgets  anomalies  differences  findings                          what follows from the costs

Reads facts and writes conclusions in `ledger`'s tables; knows neither where facts come from nor who asks for conclusions.
"""
