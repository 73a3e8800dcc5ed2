"""Attribution: which agent, and which team, each dollar of a bill goes back to.

    classification  what names and SKUs mean          pricing  list price of a call          chains  who started a call
    usage           spans → calls, chains, hourly usage: once per span                       (recipe: usage.rollup)
    costs           charges × hourly usage → costs, and an owner or reason for the remainder (recipe: costs.month)
    monitoring      budgets, anomalies, drift, findings, differences between runs
    run             which months are due, compute, balance, publish

Reads facts and writes conclusions in the ledger's tables; knows neither the sources nor the API. `docs/architecture.md` has the way of a
span and of a charge, file by file.
"""
